"""The circuit breaker of one model, in one manager, on one instance.

Everything that can happen is in `TRANSITIONS`: an event that is not listed for a state raises `IllegalTransitionError`
and changes nothing; an event that leads back to the same state is heard and changes nothing. The breaker never
reads a clock and never draws a random number. It takes no lock: callers hold one around each call here and never
across the call to the provider.

What it guarantees:

- A permit works once, in the generation that gave it. Every state change is a new generation, so a result that
  comes late cannot reopen, extend or close anything; it is only counted in `late_results`.
- Every way out returns the permit, and one that never returns expires: half-open cannot get stuck.
- Half-open never has more than `probes` permits out, and the first good or bad result decides, whatever
  `min_calls` is. A neutral result returns the permit and decides nothing.
- A failure reported while open does not extend the wait; `extend` (a Retry-After) can, and only to later.
- Jitter only shortens a wait, so `open_max` bounds the time until a recovered model is probed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from types import MappingProxyType
from typing import Any

from engine.core.findings import Findings, Reason
from engine.core.outcomes import Effect
from engine.core.policy import BreakerPolicy
from engine.core.probetimer import ProbeTimer
from engine.core.value import value


class BreakerState(StrEnum):
    """Whether requests pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"


class BreakerEvent(StrEnum):
    """What can happen to a breaker."""

    TRIP = "trip"
    PROBE_DUE = "probe_due"
    PROBE_OK = "probe_ok"
    PROBE_FAILED = "probe_failed"
    FORCE_OPEN = "force_open"
    FORCE_CLOSED = "force_closed"
    RELEASE = "release"


_FORCE = {BreakerEvent.FORCE_OPEN: BreakerState.FORCED_OPEN, BreakerEvent.FORCE_CLOSED: BreakerState.FORCED_CLOSED}

TRANSITIONS: Mapping[BreakerState, Mapping[BreakerEvent, BreakerState]] = MappingProxyType(
    {
        BreakerState.CLOSED: {BreakerEvent.TRIP: BreakerState.OPEN, **_FORCE},
        BreakerState.OPEN: {
            BreakerEvent.TRIP: BreakerState.OPEN,  # no news: a finding while open does not extend it
            BreakerEvent.PROBE_DUE: BreakerState.HALF_OPEN,
            **_FORCE,
        },
        BreakerState.HALF_OPEN: {
            BreakerEvent.TRIP: BreakerState.OPEN,
            BreakerEvent.PROBE_OK: BreakerState.CLOSED,
            BreakerEvent.PROBE_FAILED: BreakerState.OPEN,
            **_FORCE,
        },
        BreakerState.FORCED_OPEN: {
            BreakerEvent.TRIP: BreakerState.FORCED_OPEN,  # force beats every finding
            BreakerEvent.RELEASE: BreakerState.HALF_OPEN,
            **_FORCE,
        },
        BreakerState.FORCED_CLOSED: {
            BreakerEvent.TRIP: BreakerState.FORCED_CLOSED,
            BreakerEvent.RELEASE: BreakerState.HALF_OPEN,
            **_FORCE,
        },
    }
)


class IllegalTransitionError(ValueError):
    """The event cannot happen in this state; nothing was changed."""


@value
class Permit:
    """Leave to make one call; give it back with `report`, whatever happens.

    Attributes:
        generation: The breaker's generation that gave it.
        id: Unique within the breaker.
        deadline: When it expires, seconds.
        probe: Whether its result decides a half-open breaker.
    """

    generation: int
    id: int
    deadline: float
    probe: bool


@dataclass(frozen=True, slots=True)
class Denied:
    """No call now.

    Attributes:
        retry_at: When asking again makes sense, seconds; `None` when only an operator can say.
        reason: `open`, `probing` (the half-open probes are out) or `forced_open`.
    """

    retry_at: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state with what justified it.

    Attributes:
        from_state: Before.
        to_state: After.
        reason: A `Reason`, or the words of whoever tripped or forced it.
        evidence: `samples`, `failures`, `slow`, `failure_rate`, `slow_rate`, `threshold` (the one crossed, by the
            reason), `streak`, `request_ids` (the last failed or slow ones), `retry_in` in seconds, `reopens`.
    """

    from_state: BreakerState
    to_state: BreakerState
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """What there is to know about a breaker at one moment.

    While closed the counts are those of the sliding window. While open or half-open the window stands still: they
    are the counts it opened on, plus the probes since, so that the finding keeps its evidence.

    Attributes:
        state: The state; `OPEN` stays until somebody asks, even past `retry_at`.
        retry_at: When an open breaker lets a probe through, seconds; `None` in other states.
        probe_due: Open, and the wait is over.
        samples: Calls that succeeded or failed; neutral ones are in no number.
        failures: How many failed.
        slow: How many took longer than `slow_call`, failed or not.
        failure_rate: 0..1, `None` without samples.
        slow_rate: 0..1, `None` without samples.
        streak: Failures since the last success, of any age.
        reopens: Exponent of the next wait.
        vote_samples: Samples that may justify a vote.
        vote_failures: How many of those failed or were slow.
        outstanding: Permits of this generation not yet back.
    """

    state: BreakerState
    retry_at: float | None
    probe_due: bool
    samples: int
    failures: int
    slow: int
    failure_rate: float | None
    slow_rate: float | None
    streak: int
    reopens: int
    vote_samples: int
    vote_failures: int
    outstanding: int


def next_state(state: BreakerState, event: BreakerEvent) -> BreakerState:
    """Look an event up in `TRANSITIONS`.

    Raises:
        IllegalTransitionError: The event cannot happen in this state.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        possible = ", ".join(TRANSITIONS[state])
        msg = f"a breaker that is {state} cannot {event}; possible are {possible}"
        raise IllegalTransitionError(msg) from None


class Breaker:
    """One breaker. All times are seconds of one monotonic clock; `rand` is a random number in [0, 1).

    Args:
        policy: Thresholds and waits.
        permit_ttl: Seconds after which a permit that did not come back is void; twice the request's total deadline
            is a good value.

    Attributes:
        late_results: Reports that came with a used, expired, foreign or outdated permit.
        expired_permits: Permits that never came back.
    """

    __slots__ = (
        "_findings",
        "_generation",
        "_next_expiry",
        "_next_id",
        "_outstanding",
        "_permit_ttl",
        "_policy",
        "_state",
        "_timer",
        "expired_permits",
        "late_results",
    )

    def __init__(self, policy: BreakerPolicy, permit_ttl: float) -> None:
        self._policy = policy
        self._permit_ttl = permit_ttl
        self._state = BreakerState.CLOSED
        self._generation = 0
        self._findings = Findings(policy)
        self._outstanding: dict[int, Permit] = {}
        self._next_id = 0
        self._next_expiry = inf  # no outstanding permit expires before this
        self._timer = ProbeTimer(policy)
        self.late_results = 0
        self.expired_permits = 0

    @property
    def state(self) -> BreakerState:
        """The state as of the last call; open becomes half-open only when somebody asks."""
        return self._state

    @property
    def generation(self) -> int:
        """Grows by one with every change of state."""
        return self._generation

    @property
    def reopens(self) -> int:
        """How often it opened again without sustained health in between, as of the last `tick` or `snapshot`."""
        return self._timer.reopens

    @property
    def retry_at(self) -> float | None:
        """When an open breaker lets a probe through, seconds; `None` in other states."""
        return self._timer.retry_at if self._state is BreakerState.OPEN else None

    def shut(self, now: float) -> bool:
        """Whether `ask` is sure to deny, because of a force or a wait that is not over."""
        if self._state is BreakerState.OPEN:
            retry_at = self._timer.retry_at
            return retry_at is not None and now < retry_at
        return self._state is BreakerState.FORCED_OPEN

    def ask(self, now: float, rand: float) -> tuple[Permit | Denied, tuple[Transition, ...]]:
        """Ask to make a call.

        Returns:
            A permit, or when to ask again; and the state changes this caused, oldest first.
        """
        moved = self._reclaim(now, rand) if now >= self._next_expiry else ()
        state = self._state
        if state is BreakerState.CLOSED or state is BreakerState.FORCED_CLOSED:
            return self._permit(now, probe=False), moved
        if state is BreakerState.FORCED_OPEN:
            return Denied(None, "forced_open"), moved
        if state is BreakerState.OPEN:
            retry_at = self._timer.retry_at
            if retry_at is not None and now < retry_at:
                return Denied(retry_at, "open"), moved
            moved += self._move(BreakerEvent.PROBE_DUE, now, Reason.PROBE_DUE)
        if len(self._outstanding) < max(1, self._policy.probes):
            return self._permit(now, probe=True), moved
        # A probe may answer any moment and expires at the latest at its deadline; in between, one wait is a fair guess.
        return Denied(min(self._next_expiry, now + self._policy.open_for), "probing"), moved

    def counts(self, permit: Permit) -> bool:
        """Whether a report with this permit would be heard: it is out, unused, and of this generation."""
        return self._outstanding.get(permit.id) is permit

    def report(
        self,
        permit: Permit,
        effect: Effect,
        now: float,
        rand: float,
        *,
        duration: float | None = None,
        request_id: str = "",
        votes: bool = True,
    ) -> tuple[Transition, ...]:
        """Give a permit back with what came of it.

        Args:
            permit: From `ask`. One that is used, expired or of an older generation does nothing.
            effect: Success, failure, or neither.
            now: Seconds.
            rand: In [0, 1).
            duration: Seconds to judge against `slow_call` (slow is strictly longer); `None` is not judged.
            request_id: Evidence, should this result count against the model.
            votes: Whether the result may justify a vote about the model.

        Returns:
            The state changes this caused, oldest first.
        """
        moved = self._reclaim(now, rand) if now >= self._next_expiry else ()
        if not self.counts(permit):
            self.late_results += 1
            return moved
        del self._outstanding[permit.id]
        if effect is Effect.NEUTRAL:
            return moved
        failed = effect is Effect.FAILURE
        slow = duration is not None and duration > self._policy.slow_call
        probing = self._state is BreakerState.HALF_OPEN
        self._findings.count(now, failed, slow, votes, request_id, standing=probing)
        if probing:
            silent = now - (permit.deadline - self._permit_ttl)
            return moved + self._judge_probe(now, rand, silent, failed, slow)
        if self._state is BreakerState.CLOSED:
            crossed = self._findings.crossed()
            if crossed is not None:
                return moved + self._move(BreakerEvent.TRIP, now, crossed.reason, rand, crossed.threshold)
        return moved

    def trip(self, now: float, rand: float, reason: str, request_id: str = "") -> tuple[Transition, ...]:
        """Open on a finding from outside, such as a failed gate probe or canary.

        Args:
            now: Seconds.
            rand: In [0, 1).
            reason: What was found; becomes the transition's reason.
            request_id: The request that showed it.

        Returns:
            The change; nothing while already open (the wait is not extended) or forced.
        """
        if next_state(self._state, BreakerEvent.TRIP) is not self._state:
            self._findings.note(request_id)
        return self._move(BreakerEvent.TRIP, now, reason, rand)

    def extend(self, until: float, now: float) -> bool:
        """Keep an open breaker open longer, because the provider said when to come back.

        Args:
            until: Seconds; an earlier time than the present wait changes nothing.
            now: Seconds; a time that has passed changes nothing.

        Returns:
            Whether the wait was extended; never while not open.
        """
        waiting_until = self.retry_at
        if waiting_until is None or until <= max(waiting_until, now):
            return False
        self._timer.retry_at = until
        return True

    def force(self, state: BreakerState | None, now: float, reason: str) -> tuple[Transition, ...]:
        """Obey an operator.

        Args:
            state: `FORCED_OPEN`, `FORCED_CLOSED`, or `None` to leave force, which leads to half-open: the first
                result decides.
            now: Seconds.
            reason: The operator's words.

        Returns:
            The change; nothing when it is forced that way already.

        Raises:
            IllegalTransitionError: Leaving force without being forced.
            ValueError: Another state; breakers are never set to it by hand.
        """
        if state is None:
            return self._move(BreakerEvent.RELEASE, now, reason)
        for event, forced in _FORCE.items():
            if state is forced:
                return self._move(event, now, reason)
        msg = f"a breaker cannot be forced to be {state}; use forced_open, forced_closed, or None to leave force"
        raise ValueError(msg)

    def stood_still(self, seconds: float, now: float) -> None:
        """Nobody could give a permit back for so many seconds, because the process stood still: none expires in them.

        Args:
            seconds: How long. None lasts longer than a new one for it: half-open must not get stuck.
            now: Seconds.
        """
        self._next_expiry = min(self._next_expiry + seconds, now + self._permit_ttl)

    def tick(self, now: float, rand: float) -> tuple[Transition, ...]:
        """Take back permits that expired; an expired probe counts as failed, any other says nothing about the model.

        Returns:
            The state changes this caused.
        """
        moved = self._reclaim(now, rand) if now >= self._next_expiry else ()
        self._timer.decay(now)
        return moved

    def snapshot(self, now: float) -> BreakerSnapshot:
        """What there is to know at `now`; changes no state."""
        self._timer.decay(now)
        if self._state is BreakerState.CLOSED or self._state is BreakerState.FORCED_CLOSED:
            self._findings.slide(now)
        retry_at = self.retry_at
        vote_samples, vote_failures = self._findings.votes()
        return BreakerSnapshot(
            state=self._state,
            retry_at=retry_at,
            probe_due=retry_at is not None and now >= retry_at,
            reopens=self._timer.reopens,
            vote_samples=vote_samples,
            vote_failures=vote_failures,
            outstanding=len(self._outstanding),
            **self._findings.counts(),
        )

    def _permit(self, now: float, probe: bool) -> Permit:
        deadline = now + self._permit_ttl
        number = self._next_id
        permit = Permit(self._generation, number, deadline, probe)
        self._next_id = number + 1
        if not self._outstanding:
            self._next_expiry = deadline
        self._outstanding[number] = permit
        return permit

    def _reclaim(self, now: float, rand: float) -> tuple[Transition, ...]:
        """Drop expired permits and find the next expiry; runs about once per `permit_ttl`."""
        expired = [permit for permit in self._outstanding.values() if permit.deadline <= now]
        for permit in expired:
            del self._outstanding[permit.id]
        self.expired_permits += len(expired)
        self._next_expiry = min((permit.deadline for permit in self._outstanding.values()), default=inf)
        if not expired or self._state is not BreakerState.HALF_OPEN:
            return ()
        # Whoever held it died: enough to reopen here, not enough to vote the model down.
        self._findings.count(now, failed=True, slow=False, votes=False, request_id="", standing=True)
        return self._move(BreakerEvent.PROBE_FAILED, now, Reason.PROBE_EXPIRED, rand)

    def _judge_probe(self, now: float, rand: float, silent: float, failed: bool, slow: bool) -> tuple[Transition, ...]:
        """One probe is the whole sample: its slow rate is 1, so a slow one fails unless slowness is switched off."""
        if failed:
            return self._move(BreakerEvent.PROBE_FAILED, now, Reason.PROBE_FAILED, rand, silent=silent)
        if slow and self._policy.slow_rate <= 1:
            threshold = self._policy.slow_call
            return self._move(BreakerEvent.PROBE_FAILED, now, Reason.PROBE_SLOW, rand, threshold, silent)
        return self._move(BreakerEvent.PROBE_OK, now, Reason.PROBE_OK)

    def _move(
        self,
        event: BreakerEvent,
        now: float,
        reason: str,
        rand: float = 0.0,
        threshold: float | None = None,
        silent: float = 0.0,
    ) -> tuple[Transition, ...]:
        """Change the state as the table says: the only place that does."""
        was, to = self._state, next_state(self._state, event)
        if to is was:
            return ()
        if was is BreakerState.CLOSED:
            self._timer.decay(now)
            self._timer.interrupted()
        if to is BreakerState.OPEN:
            self._timer.opened(now, rand, silent)
        transition = Transition(was, to, str(reason), self._evidence(now, to, threshold))
        self._state = to
        self._generation += 1
        self._outstanding.clear()
        if to is BreakerState.CLOSED:
            self._timer.closed(now)
        finding_stands = to is BreakerState.OPEN or (was is BreakerState.OPEN and to is BreakerState.HALF_OPEN)
        if not finding_stands:
            self._findings.clear()
        return (transition,)

    def _evidence(self, now: float, to: BreakerState, threshold: float | None) -> dict[str, Any]:
        return {
            **self._findings.counts(),
            "threshold": threshold,
            "request_ids": self._findings.bad_ids(),
            "retry_in": self._timer.retry_at - now
            if to is BreakerState.OPEN and self._timer.retry_at is not None
            else None,
            "reopens": self._timer.reopens,
        }
