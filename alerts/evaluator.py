"""The life of one alert, as a pure function with Prometheus' semantics to the letter (`rules/alerting.go`).

    state     | not met       | met, `for` not over | met, `for` over
    ----------|---------------|---------------------|----------------
    inactive  | inactive      | pending             | firing
    pending   | inactive      | pending             | firing
    firing    | resolved *    | pending **          | firing
    resolved  | resolved ***  | pending             | firing

    *   unless `keep_firing_for` holds it: from the first evaluation that is not met, half-open; one that is met ends
        that.
    **  only where `for` was raised above the time it has held, as nothing else makes that time shorter.
    *** forgotten (inactive) after `RESOLVED_MS`.

What differs from Prometheus: where the condition is one comparison of a recorded state, the time it has held is
counted from the recorded transition and not from the evaluation that first saw it. Times are integer milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

RESOLVED_MS = 15 * 60_000


class State(StrEnum):
    """Where an alert is in its life."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Signal(StrEnum):
    """What one evaluation says."""

    NOT_MET = "not met"
    WAITING = "met, for not over"
    LASTING = "met, for over"
    KEPT = "not met, keep_firing_for not over"
    OLD = "not met, resolved long ago"


TABLE: Mapping[tuple[State, Signal], State] = MappingProxyType(
    {
        (State.INACTIVE, Signal.NOT_MET): State.INACTIVE,
        (State.INACTIVE, Signal.WAITING): State.PENDING,
        (State.INACTIVE, Signal.LASTING): State.FIRING,
        (State.PENDING, Signal.NOT_MET): State.INACTIVE,
        (State.PENDING, Signal.WAITING): State.PENDING,
        (State.PENDING, Signal.LASTING): State.FIRING,
        (State.FIRING, Signal.NOT_MET): State.RESOLVED,
        (State.FIRING, Signal.KEPT): State.FIRING,
        (State.FIRING, Signal.WAITING): State.PENDING,
        (State.FIRING, Signal.LASTING): State.FIRING,
        (State.RESOLVED, Signal.NOT_MET): State.RESOLVED,
        (State.RESOLVED, Signal.OLD): State.INACTIVE,
        (State.RESOLVED, Signal.WAITING): State.PENDING,
        (State.RESOLVED, Signal.LASTING): State.FIRING,
    }
)


@dataclass(frozen=True, slots=True)
class Alert:
    """What is remembered of one alert between evaluations.

    Attributes:
        state: Where it is.
        active_ms: Since when its condition holds; 0 while inactive.
        fired_ms: When it began to fire; 0 otherwise.
        resolved_ms: When it resolved; 0 otherwise.
        unmet_ms: The first evaluation not met while `keep_firing_for` holds it; 0 otherwise.
        value: The last number looked at.
        pinned: The clock was stepped in this episode: recorded starts of it are not believed.
    """

    state: State = State.INACTIVE
    active_ms: int = 0
    fired_ms: int = 0
    resolved_ms: int = 0
    unmet_ms: int = 0
    value: float | None = None
    pinned: bool = False

    @property
    def met(self) -> bool:
        """Whether it is pending or firing."""
        return self.state in (State.PENDING, State.FIRING)

    def shifted(self, by_ms: int) -> Alert:
        """The same after the wall clock was stepped by so much: what has lasted a while has still lasted that while."""
        moved = {name: getattr(self, name) + by_ms for name in _TIMES if getattr(self, name)}
        return replace(self, **moved, pinned=True)


_TIMES = ("active_ms", "fired_ms", "resolved_ms", "unmet_ms")


@dataclass(frozen=True, slots=True)
class Observation:
    """What one evaluation found.

    Attributes:
        met: Whether the condition holds.
        value: The number to show.
        since_ms: Since when, if that is on record.
    """

    met: bool
    value: float | None = None
    since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """`for` and `keep_firing_for` of a rule, milliseconds."""

    hold: int = 0
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One transition."""

    before: State
    after: State


def evaluate(timing: Timing, alert: Alert, seen: Observation, now_ms: int) -> tuple[Alert, Change | None]:
    """One evaluation of one alert.

    Args:
        timing: The rule's durations.
        alert: What is remembered.
        seen: What was found.
        now_ms: The evaluation's time.

    Returns:
        What to remember, and the transition if there was one.
    """
    active_ms = _start(alert, seen, now_ms)
    unmet_ms = 0 if seen.met else alert.unmet_ms or (now_ms if alert.state is State.FIRING and timing.keep else 0)
    signal = _signal(timing, alert, seen, active_ms, unmet_ms, now_ms)
    state = TABLE[alert.state, signal]
    if state is State.INACTIVE:
        after = Alert()
    elif state is State.RESOLVED:
        resolved_ms = alert.resolved_ms or now_ms
        after = replace(alert, state=state, resolved_ms=resolved_ms, unmet_ms=0)
    else:
        fired_ms = (alert.fired_ms if alert.state is State.FIRING else now_ms) if state is State.FIRING else 0
        after = Alert(
            state=state,
            active_ms=active_ms,
            fired_ms=fired_ms,
            unmet_ms=unmet_ms,
            value=seen.value if seen.met else alert.value,
            pinned=alert.pinned and alert.met,
        )
    return after, Change(alert.state, state) if state is not alert.state else None


def _start(alert: Alert, seen: Observation, now_ms: int) -> int:
    """Since when the condition holds: what is on record, else the evaluation that first saw it."""
    known = alert.active_ms if alert.met else now_ms
    if not seen.met or seen.since_ms is None or seen.since_ms > now_ms or (alert.pinned and alert.met):
        return known
    if alert.state is State.FIRING:
        return min(known, seen.since_ms)
    return seen.since_ms


def _signal(timing: Timing, alert: Alert, seen: Observation, active_ms: int, unmet_ms: int, now_ms: int) -> Signal:
    if seen.met:
        return Signal.LASTING if now_ms - active_ms >= timing.hold else Signal.WAITING
    if alert.state is State.FIRING and timing.keep and now_ms - unmet_ms < timing.keep:
        return Signal.KEPT
    if alert.state is State.RESOLVED and now_ms - alert.resolved_ms > RESOLVED_MS:
        return Signal.OLD
    return Signal.NOT_MET
