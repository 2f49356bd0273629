"""What the end of one attempt teaches: the breaker, the throttle, the model's availability, the way back.

What it guarantees:

- An operator's test teaches nothing, except where the provider's limit stands, which is the same whoever asked.
- What a call from before the breaker's last change found counts nowhere: not in the breaker, not for the way back.
- Running out of a time that we cut short ourselves is no failure of the model, and a pause of ours no slowness of it.
  Nor is a connection that broke in a longer one: whoever talks to a process that stands still gives up some time.
- A canary's pass does not make a model well that fails another canary; its failure shuts the model.
- A failed probe of the way back opens primary's breaker, whatever its window says.
- Every change of a breaker, and every model that takes itself out of service, comes back as an event to record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.core.breaker import Permit, Transition
from engine.core.effects import Attempt, BreakerMoved, Event, ModelRefused, Outcome, PlanRequest
from engine.core.messages import Role
from engine.core.outcomes import RULES, Category, Effect
from engine.core.switchboard import Line, Switchboard

BREAKS = 5.0
"""Seconds of standing still after which what broke may have broken by that. Whoever is busy stands still for less."""
BROKEN = frozenset({Category.CONNECTION, Category.TIMEOUT, Category.TRUNCATED})
"""What an attempt may end as that the other side gave up."""


def learn(
    board: Switchboard,
    asked: PlanRequest,
    attempt: Attempt,
    outcome: Outcome,
    permit: Permit | None,
    rng: Callable[[], float],
    *,
    probing: bool,
    estimated: int,
) -> Sequence[Event]:
    """Take in how an attempt ended.

    Args:
        board: The manager's local state; changed.
        asked: The request.
        attempt: What was asked.
        outcome: How it ended.
        permit: The breaker's leave it was made with, `None` when it was made without.
        rng: Uniform numbers in [0, 1).
        probing: Whether it was to find out if primary can take requests again.
        estimated: Tokens we thought the prompt has.

    Returns:
        What is worth recording.
    """
    line, category, now = attempt.line, outcome.category, outcome.now
    if asked.chosen:
        _heed(line, outcome, rng)
        return ()
    rule, effect = RULES[category], _effect(board, asked, attempt, outcome)
    events: list[Event] = []
    counts = permit is not None and line.breaker.counts(permit)
    if permit is not None:
        moved = line.breaker.report(
            permit,
            effect,
            now,
            rng(),
            duration=_taken(asked, outcome) if effect is Effect.OK else None,
            request_id=asked.request.id,
            votes=rule.votes or effect is Effect.OK,
        )
        events += _moves(line, moved)
    _heed(line, outcome, rng)
    events += _of_model(line, outcome, effect, estimated)
    if line.role is Role.PRIMARY and effect is not Effect.NEUTRAL and counts:
        board.sample(ok=effect is Effect.OK, now=now)
        if effect is Effect.FAILURE and probing:
            events += _moves(line, line.breaker.trip(now, rng(), "probe failed", asked.request.id))
    if asked.canary and category in (Category.OK, Category.SEMANTIC):
        passed, name = category is Category.OK, asked.canary
        moved = board.judged(line.role, name, passed=passed, now=now, rand=rng(), request_id=asked.request.id)
        events += _moves(line, moved)
    return events


def _of_model(line: Line, outcome: Outcome, effect: Effect, estimated: int) -> Sequence[Event]:
    """What is learnt of the model itself, whatever its breaker makes of it."""
    category, now = outcome.category, outcome.now
    if category is Category.OK:
        line.accept()
        if outcome.completion is not None and not outcome.completion.usage.estimated:
            line.calibration.learn(estimated, outcome.completion.usage.input_tokens)
    elif category in (Category.QUOTA_EXHAUSTED, Category.MODEL_UNAVAILABLE):
        return (ModelRefused(line.role, category, line.refuse(category, now, outcome.retry_after).until),)
    elif effect is Effect.FAILURE and outcome.retry_after is not None:
        line.breaker.extend(now + outcome.retry_after, now)
    return ()


def _moves(line: Line, moved: Sequence[Transition]) -> list[BreakerMoved]:
    return [BreakerMoved(line.role, one) for one in moved]


def _taken(asked: PlanRequest, outcome: Outcome) -> float | None:
    """Seconds that the model took, a pause of this process not among them; `None` when nobody can tell."""
    taken = outcome.ttft if asked.streamed else outcome.duration
    return None if taken is None else taken - outcome.stood_still


def _effect(board: Switchboard, asked: PlanRequest, attempt: Attempt, outcome: Outcome) -> Effect:
    """What an outcome means to the breaker."""
    category, canary = outcome.category, asked.canary
    effect = RULES[category].breaker
    if outcome.past_deadline or (category is Category.TIMEOUT and attempt.shortened):
        return Effect.NEUTRAL
    if category in BROKEN and outcome.stood_still >= BREAKS:
        return Effect.NEUTRAL
    if canary and effect is Effect.OK and board.drift.stands(attempt.role, outcome.now, but=canary) is not None:
        return Effect.NEUTRAL
    return effect


def _heed(line: Line, outcome: Outcome, rng: Callable[[], float]) -> None:
    """Tell the throttle how the provider's limit stands."""
    if outcome.category is Category.OK:
        line.throttle.sent_ok(outcome.now)
    elif outcome.category is Category.RATE_LIMITED:
        line.throttle.limited(outcome.now, outcome.retry_after, rng())
