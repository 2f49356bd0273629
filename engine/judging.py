"""Whether an answer means what its caller wanted, decided after the attempt and before anybody sees it."""

from __future__ import annotations

from engine.canaries import Canary, judge
from engine.core.effects import (
    Attempt,
    Outcome,
)
from engine.core.errors import SemanticFailure
from engine.core.events import CanaryRecord
from engine.core.messages import Completion
from engine.core.outcomes import Category, ProviderFailure
from engine.endings import rejected
from engine.exchange import Flight
from engine.validation import check_reply


def judged(flight: Flight, attempt: Attempt, outcome: Outcome, started: float) -> Outcome:
    """The outcome after the answer was checked by the caller's schema and the validators."""
    completion = outcome.completion
    if flight.canary is not None and outcome.category is Category.OK and completion is not None:
        return _found(flight, flight.canary, attempt, outcome, completion)
    # A synthetic probe asks for one token, which is no answer that a caller's checks could judge.
    if outcome.category is not Category.OK or completion is None or flight.request.synthetic:
        return outcome
    exchange = flight.exchange
    if not exchange.validators and not exchange.policy.validation.json_schema:
        return outcome
    try:
        check_reply(flight.request, flight.provisional(attempt, completion), exchange.policy, exchange.validators)
    except SemanticFailure as rejection:
        return rejected(rejection, completion, started, exchange.clock.monotonic(), shown=outcome.shown)
    except Exception:
        flight.keep(attempt, outcome)
        raise
    return outcome


def _found(flight: Flight, canary: Canary, attempt: Attempt, outcome: Outcome, completion: Completion) -> Outcome:
    """The outcome of a canary, by what its answer must be like; the finding is recorded with the request."""
    finding, exchange = judge(canary, completion), flight.exchange
    flight.finding = CanaryRecord(
        id=exchange.new_id(),
        ts_ms=exchange.clock.wall_ms(),
        manager=exchange.name,
        instance=exchange.identity.instance,
        role=attempt.role,
        model=attempt.line.model.name,
        canary=canary.name,
        passed=finding.passed,
        detail=finding.detail,
        request_id=flight.request.id,
        duration_ms=outcome.duration * 1000,
    )
    if finding.passed:
        return outcome
    failure = ProviderFailure(Category.SEMANTIC, 200, detail=finding.detail, code="canary_failed")
    return Outcome(Category.SEMANTIC, outcome.now, outcome.duration, failure=failure, usage=completion.usage)
