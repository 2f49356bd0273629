"""Incidents, derived from what happened and never typed in.

`derive` is one pure function over the events of a manager: an incident lasts from the first failure that led to a
breaker opening, to a move of the active model away from primary, or to a firing alert, until all of it is closed
again. The dashboard's pages, the export and the links in notifications all use it, so they name the same incident.

What an operator does on purpose, a pinned model or a forced breaker, is told inside an incident and begins none; a pin
that holds when one begins is told in it, too, because it may be why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from engine.ids import time_of
from engine.queries.events import Event, EventKind

QUIET_MS = 60_000
"""Troubles that follow each other within this are one incident, so that flapping is told once."""

FIRST_FAILURE_MS = 600_000
"""Failures named as evidence that are older than this say nothing about when an incident began."""

SILENT_MS = 900_000
"""An open breaker that is not even probed for this long belongs to a process that is gone, or has no traffic."""

OPEN_STATES = frozenset({"open", "half_open"})


class Ending(StrEnum):
    """How an incident came to its end."""

    ONGOING = "ongoing"
    RECOVERED = "recovered"
    OPERATOR = "operator"
    ALERT_RESOLVED = "alert_resolved"


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident of one manager.

    Attributes:
        id: Id of the event that opened it; stays the same while it grows.
        manager: Whose.
        start_ms: The first failure that led to it.
        end_ms: When the last part of it was closed; `None` while it goes on.
        cause: The first word of why: a cause of a move, a breaker's reason, or an alert's name.
        ending: How it ended.
        moves: Moves of the active model away from primary.
        trips: Times a breaker opened, probes that failed not counted.
        alerts: Names of alerts that fired.
        events: Everything that happened in it, oldest first.
    """

    id: str
    manager: str
    start_ms: int
    end_ms: int | None
    cause: str
    ending: Ending
    moves: int = 0
    trips: int = 0
    alerts: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()

    def duration_ms(self, now_ms: int) -> int:
        """How long it lasted, or lasts by now."""
        return (self.end_ms if self.end_ms is not None else max(now_ms, self.start_ms)) - self.start_ms

    def covers(self, ts_ms: int, *, margin_ms: int = 0) -> bool:
        """Whether a moment is in it, or no further away than a margin."""
        return self.start_ms - margin_ms <= ts_ms <= (self.end_ms if self.end_ms is not None else ts_ms) + margin_ms


def derive(events: Iterable[Event], now_ms: int, *, quiet_ms: int = QUIET_MS) -> list[Incident]:
    """Find the incidents in a stretch of one manager's events.

    Args:
        events: In any order; deliveries and agreements are told along. The stretch should begin in calm times: an
            incident that began before it is seen from its first event in it.
        now_ms: Wall time of the end of the stretch.
        quiet_ms: How long everything must be closed before the next trouble is another incident.

    Returns:
        Newest first.
    """
    ordered = sorted(events, key=lambda event: (event.ts_ms, event.id))
    found: list[_Open] = []
    current: _Open | None = None
    pending: dict[str, Event] = {}
    pin: list[Event] = []
    for event in ordered:
        mark = _mark(event, pending)
        if current is not None:
            current.forget_silent(event.ts_ms)
        if current is not None and current.closed_ms is not None and event.ts_ms - current.closed_ms > quiet_ms:
            current = None
        if current is None and mark.opens is not None:
            current = _Open(event, mark.since_ms)
            found.append(current)
            current.events += pin if mark.foreboding is None else [*pin, mark.foreboding]
        if current is not None:
            current.take(event, mark)
        pin = _pin(pin, event)
    if current is not None:
        current.forget_silent(now_ms)
    return [one.incident() for one in reversed(found)]


def at(incidents: Sequence[Incident], ts_ms: int, *, margin_ms: int = 5 * QUIET_MS) -> Incident | None:
    """The incident a moment belongs to, as links in notifications give it; the nearest within the margin."""
    inside = [one for one in incidents if one.covers(ts_ms)]
    near = inside or [one for one in incidents if one.covers(ts_ms, margin_ms=margin_ms)]
    return max(near, key=lambda one: one.start_ms, default=None)


def similar(incident: Incident, others: Iterable[Incident], *, limit: int = 5) -> list[Incident]:
    """Earlier incidents of the same cause, newest first."""
    earlier = [one for one in others if one.cause == incident.cause and one.start_ms < incident.start_ms]
    return sorted(earlier, key=lambda one: -one.start_ms)[:limit]


ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class _Mark:
    """What an event does to the troubles that are open: each has a name while it lasts.

    `foreboding` is an earlier event that says since when a trouble was there: an alert was pending before it fired.
    """

    opens: str | None = None
    closes: str | None = None
    since_ms: int = 0
    foreboding: Event | None = None


@dataclass(slots=True)
class _Open:
    """An incident while its events are being read."""

    first: Event
    start_ms: int
    troubles: dict[str, int] = field(default_factory=dict)
    closed_ms: int | None = None
    closing: Event | None = None
    cause: str = ""
    alerts: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    by_operator: bool = False
    moves: int = 0
    trips: int = 0

    def take(self, event: Event, mark: _Mark) -> None:
        """Tell an event, and open or close what it opens or closes."""
        if self.closed_ms is not None and mark.opens is None:
            if event.kind in (EventKind.DELIVERY, EventKind.AGREEMENT, EventKind.ALERT):
                self.events.append(event)
            return
        self.events.append(event)
        if mark.opens is not None:
            self._opened(event, mark.opens)
            self.start_ms = min(self.start_ms, mark.since_ms)
        closed = [trouble for trouble in self.troubles if mark.closes is not None and _closes(mark.closes, trouble)]
        for trouble in closed:
            del self.troubles[trouble]
        if closed:
            self.by_operator = event.kind is EventKind.FAILOVER and event.detail["cause"] == "override"
            if not self.troubles:
                self.closed_ms, self.closing = event.ts_ms, event

    def forget_silent(self, now_ms: int) -> None:
        """Close breakers that nobody has heard of for long; the incident ended with their last word."""
        if self.closed_ms is not None:
            return
        for trouble, heard_ms in list(self.troubles.items()):
            if trouble.startswith("breaker") and now_ms - heard_ms > SILENT_MS:
                del self.troubles[trouble]
        if not self.troubles:
            self.closed_ms, self.closing = self.events[-1].ts_ms, self.events[-1]

    def _opened(self, event: Event, trouble: str) -> None:
        self.closed_ms = self.closing = None
        if event.kind is EventKind.FAILOVER:
            self.moves += 1
            if self.cause not in _SPECIFIC:
                self.cause = str(event.detail["cause"])
        elif event.kind is EventKind.BREAKER:
            self.trips += trouble not in self.troubles
            self.cause = self.cause or str(event.detail["reason"])
        else:
            self.alerts.append(str(event.detail["rule"]))
            self.cause = self.cause or str(event.detail["rule"])
        self.troubles[trouble] = event.ts_ms

    def incident(self) -> Incident:
        """What is known when all events are read."""
        return Incident(
            id=self.first.id,
            manager=self.first.manager,
            start_ms=self.start_ms,
            end_ms=self.closed_ms,
            cause=self.cause,
            ending=self._ending(),
            moves=self.moves,
            trips=self.trips,
            alerts=tuple(dict.fromkeys(self.alerts)),
            events=tuple(self.events),
        )

    def _ending(self) -> Ending:
        if self.closing is None:
            return Ending.ONGOING
        if self.by_operator:
            return Ending.OPERATOR
        return Ending.ALERT_RESOLVED if self.closing.kind is EventKind.ALERT and not self.moves else Ending.RECOVERED


_SPECIFIC = frozenset({"quorum", "auth", "quota_exhausted", "model_unavailable", "canary", "breaker_open"})
"""Causes of a move that say more than a breaker's reason and are kept from the first move on."""


def _mark(event: Event, pending: dict[str, Event]) -> _Mark:
    """Which trouble an event opens or closes, and since when it was there."""
    row = event.detail
    if event.kind is EventKind.BREAKER:
        return _breaker(event, row)
    if event.kind is EventKind.FAILOVER:
        if row["to_role"] == "primary":
            return _Mark(closes=ACTIVE if row["cause"] != "failback" else f"{ACTIVE} and primary")
        return _Mark() if row["cause"] == "override" else _Mark(opens=ACTIVE, since_ms=event.ts_ms)
    if event.kind is EventKind.ALERT:
        name = f"alert {row['fingerprint']}"
        if row["to_state"] == "pending":
            pending[name] = event
        elif row["to_state"] == "firing":
            before = pending.pop(name, None)
            return _Mark(opens=name, since_ms=(before or event).ts_ms, foreboding=before)
        else:
            pending.pop(name, None)
            return _Mark(closes=name)
    return _Mark()


def _pin(before: list[Event], event: Event) -> list[Event]:
    """What an operator's pin consists of that holds after an event: the act, and the move it has made."""
    if event.kind is EventKind.OVERRIDE and event.detail["action"] == "set":
        return [*(one for one in before if one.kind is EventKind.FAILOVER), event]
    if event.kind is EventKind.OVERRIDE:
        return [] if event.detail["action"] in ("clear", "expired") else before
    if event.kind is EventKind.FAILOVER:
        acts = [one for one in before if one.kind is EventKind.OVERRIDE]
        return [*acts, event] if event.detail["cause"] == "override" else []
    return before


def _closes(mark: str, trouble: str) -> bool:
    """Whether what a mark closes is this trouble; a failback proves every instance's primary good."""
    if mark.startswith(ACTIVE):
        return trouble == ACTIVE or (mark != ACTIVE and trouble.startswith("breaker primary"))
    return mark == trouble


def _breaker(event: Event, row: Mapping[str, Any]) -> _Mark:
    name = f"breaker {row['role']} {row['instance']}"
    if row["to_state"] in OPEN_STATES:
        return _Mark(opens=name, since_ms=_first_failure(event.ts_ms, row["evidence"] or MappingProxyType({})))
    return _Mark(closes=name)


def _first_failure(ts_ms: int, evidence: Mapping[str, Any]) -> int:
    """When the oldest failure named as evidence began: its request's id holds the time."""
    times = []
    for request_id in evidence.get("request_ids") or ():
        try:
            times.append(time_of(str(request_id)))
        except ValueError:
            continue
    return min([ts_ms, *(time for time in times if ts_ms - FIRST_FAILURE_MS <= time <= ts_ms)])
