"""What a rule would have found at moments that are over, answered from what is recorded.

Windows are summed up from the sums by the minute: whatever comes into a window is added, whatever leaves it is taken
away, so a month costs what it holds and not that times the window. The arithmetic on the sums is that of the tick
(`alerts.observations`). Levels come from the recorded agreements and transitions, exact to the millisecond.

What nobody recorded is not made up: names whose past is unknown are refused, and what limits an answer is said.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alerts import queries
from alerts.expression import LevelTest, Value
from alerts.histograms import Histogram, difference, total
from alerts.observations import LETTERS_LAST_MS, STOPPED_MARK, Source, breaker_since, level_of, sources, together
from alerts.queries import Agreed
from alerts.spans import MINUTE_MS, Span
from alerts.vocabulary import LEVELS, Query
from engine.sqlite import Connection

CHUNK = 720
"""Pieces that are read at once."""

SIGHTINGS = 500
"""How often it is looked who answers requests, and how many requests each time."""
SIGHTED = 12

UNRECORDED = frozenset({"instances", "agreement_age", "agreement_regressed", "recorder_queue"})
"""Names whose present alone is known."""

Amounts = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Moments of evaluation: the last millisecond of every step in `[from_ms, to_ms)`, both whole steps."""

    from_ms: int
    to_ms: int
    step_ms: int

    def moments(self) -> range:
        """Each moment, so that a window of whole steps is made of whole steps."""
        return range(self.from_ms + self.step_ms - 1, self.to_ms, self.step_ms)


class Past:
    """Answers what a rule asks at one moment after another; see `alerts.observations.Observations`.

    Args:
        connection: In a read transaction.
        asked: Everything that will be asked; none of it unrecorded.
        manager: Of whom; `None` for the store.
        grid: When.
    """

    def __init__(self, connection: Connection, asked: Collection[Query], manager: str | None, grid: Grid) -> None:
        self._connection = connection
        self._now_ms = grid.from_ms
        whose = manager or ""
        self._slides = [_Slide(connection, source, whose, grid) for source in sources(asked) if source.asked]
        names = {query.name for query in asked}
        agreed = manager is not None and names & {"active_model", "primary_traffic_ratio", "override_active"}
        self._agreements = queries.agreements(connection, whose, grid.from_ms, grid.to_ms) if agreed else []
        self._breakers = {
            query.role: _Breakers(connection, whose, query.role, grid) for query in asked if query.name == "breaker"
        }
        longest = round(max((query.seconds for query in asked), default=0.0) * 1000)
        start = grid.from_ms - longest
        self._events: dict[str, list[int]] = {}
        if "ramp_aborts" in names:
            aborts = queries.ramp_aborts(connection, [whose], start, grid.to_ms)
            self._events["ramp_aborts"] = sorted(ts_ms for _, ts_ms in aborts)
        if "dead_letters" in names:
            self._events["dead_letters"] = queries.dead_letters(connection, start, grid.to_ms)
        self._waiting = _Waiting(connection, grid) if "outbox_age" in names else None
        self._trips: dict[tuple[str, str], list[int]] = {}
        if "breaker_trips" in names:
            for _, instance, role, ts_ms in sorted(queries.breaker_trips(connection, [whose], start, grid.to_ms)):
                self._trips.setdefault((instance, role), []).append(ts_ms)
        stops = queries.marks(connection, STOPPED_MARK) if "receivers_stopped" in names else {}
        self._stops = sorted(ts_ms for ts_ms, _ in stops.values())

    def move(self, now_ms: int) -> None:
        """Go on to a later moment of the grid."""
        self._now_ms = now_ms
        for slide in self._slides:
            slide.move(now_ms)
        for breakers in self._breakers.values():
            breakers.move(now_ms)
        if self._waiting is not None:
            self._waiting.move(now_ms)

    def ask(self, manager: str | None, query: Query) -> Value:
        """The value of a query at the moment; see `alerts.observations.Observations.ask`."""
        if query.name in self._events:
            return self._within(query, self._events[query.name])
        if query.name == "breaker_trips":
            breakers = (times for (_, role), times in self._trips.items() if query.role in ("", role))
            return max((self._within(query, times) for times in breakers), default=0.0)
        if query.is_window:
            return next((slide.value(query) for slide in self._slides if query in slide.source.asked), 0.0)
        if self._waiting is not None and query.name == "outbox_age":
            return self._waiting.age()
        if query.name == "receivers_stopped":
            return float(bisect_right(self._stops, self._now_ms))
        if query.name == "manager":
            return manager
        if query.name == "breaker":
            return self._breakers[query.role].together()
        return level_of(self._agreed(), query.name, self._now_ms)

    def _within(self, query: Query, times: Sequence[int]) -> float:
        """How many of some times are in the window that ends now."""
        start = self._now_ms - round(query.seconds * 1000)
        return float(bisect_right(times, self._now_ms) - bisect_right(times, start))

    def since(self, manager: str | None, test: LevelTest) -> int | None:
        """Since when a level fulfilled a test; see `alerts.observations.Observations.since`."""
        agreed = self._agreed()
        if test.query.name == "breaker":
            return self._breakers[test.query.role].since(test)
        if agreed is None or manager is None:
            return None
        if test.query.name == "active_model":
            return agreed.since_ms or None
        if test.query.name == "override_active" and test.holds(True):
            return queries.override_started(self._connection, manager, self._now_ms)
        return None

    def _agreed(self) -> Agreed | None:
        place = bisect_right(self._agreements, self._now_ms, key=lambda one: one[0])
        return self._agreements[place - 1][1] if place else None


class _Breakers:
    """A model's breakers on all instances, at one moment after another."""

    def __init__(self, connection: Connection, manager: str, role: str, grid: Grid) -> None:
        self._changes = queries.breaker_changes(connection, manager, role, grid.to_ms)
        every = max(MINUTE_MS, (grid.to_ms - grid.from_ms) // SIGHTINGS)
        self._lives = queries.seen(connection, manager, range(grid.from_ms, grid.to_ms, every), SIGHTED)
        self._states: dict[str, str] = {}
        self._next = 0
        self._every = every
        self._now_ms = 0

    def move(self, now_ms: int) -> None:
        self._now_ms = now_ms
        while self._next < len(self._changes) and self._changes[self._next][0] <= now_ms:
            _, instance, _, to_state = self._changes[self._next]
            self._states[instance] = to_state
            self._next += 1

    def _live(self) -> list[str]:
        return [
            instance
            for instance, (first, last) in self._lives.items()
            if first - self._every <= self._now_ms <= last + self._every
        ]

    def together(self) -> str:
        return together(self._states.get(instance, "closed") for instance in self._live())

    def since(self, test: LevelTest) -> int | None:
        return breaker_since(self._changes[: self._next][::-1], frozenset(self._live()), test)


class _Waiting:
    """The notifications that waited, at one moment after another."""

    def __init__(self, connection: Connection, grid: Grid) -> None:
        self._waits = queries.waits(connection, LETTERS_LAST_MS, grid.from_ms, grid.to_ms)
        self._first = 0
        self._now_ms = 0

    def move(self, now_ms: int) -> None:
        self._now_ms = now_ms
        while self._first < len(self._waits) and (self._waits[self._first][1] or math.inf) <= now_ms:
            self._first += 1  # the oldest is over; what is over behind it does not count either

    def age(self) -> float:
        """Seconds that the oldest one has waited."""
        since_ms = self._waits[self._first][0] if self._first < len(self._waits) else math.inf
        return max(0.0, (self._now_ms - since_ms) / 1000)


class _Slide:
    """The windows of one feed, moved along: what enters is added, what leaves is taken away."""

    def __init__(self, connection: Connection, source: Source, manager: str, grid: Grid) -> None:
        self.source = source
        self._connection = connection
        self._manager = manager
        lengths = sorted({round(query.seconds * 1000) for query in source.asked})
        self._spans = pieces(grid, lengths)
        self._read: list[list[tuple[Amounts, Amounts]] | None] = []
        self._windows = {length: _Window() for length in lengths}
        self._gone = 0

    def move(self, now_ms: int) -> None:
        end = now_ms + 1
        for length, window in self._windows.items():
            while window.upto < len(self._spans) and self._spans[window.upto].to_ms <= end:
                window.add(self._groups(window.upto))
                window.upto += 1
            while window.since < window.upto and self._spans[window.since].from_ms < end - length:
                window.take(self._groups(window.since))
                window.since += 1
        oldest = min(window.since for window in self._windows.values())
        self._read[self._gone : oldest] = [None] * (oldest - self._gone)
        self._gone = oldest

    def value(self, query: Query) -> float | None:
        return self.source.value(query, self._windows[round(query.seconds * 1000)].groups())

    def _groups(self, index: int) -> list[tuple[Amounts, Amounts]]:
        while index >= len(self._read):
            spans = self._spans[len(self._read) : len(self._read) + CHUNK]
            chunk: list[list[tuple[Amounts, Amounts]]] = [[] for _ in spans]
            for one in self.source.feed.read(self._connection, spans, [self._manager]):
                chunk[one.span].append((one.key, one.amounts))
            self._read += chunk
        return self._read[index] or []


class _Window:
    """The sums of one window; `since` and `upto` are its pieces."""

    def __init__(self) -> None:
        self.since = 0
        self.upto = 0
        self._sums: dict[Amounts, Amounts] = {}
        self._parts: dict[Amounts, int] = {}

    def add(self, groups: Iterable[tuple[Amounts, Amounts]]) -> None:
        for key, amounts in groups:
            known = self._sums.get(key)
            self._parts[key] = self._parts.get(key, 0) + 1
            self._sums[key] = amounts if known is None else tuple(map(_plus, known, amounts))

    def take(self, groups: Iterable[tuple[Amounts, Amounts]]) -> None:
        for key, amounts in groups:
            self._parts[key] -= 1
            if self._parts[key]:
                self._sums[key] = tuple(map(_minus, self._sums[key], amounts))
            else:  # nothing is left, and not what rounding leaves
                del self._sums[key], self._parts[key]

    def groups(self) -> list[tuple[Amounts, Amounts]]:
        return list(self._sums.items())


def _plus(one: Any, other: Any) -> Any:
    return total((one, other)) if isinstance(one, Histogram) else one + other


def _minus(one: Any, other: Any) -> Any:
    return difference(one, other) if isinstance(one, Histogram) else one - other


def pieces(grid: Grid, lengths: Sequence[int]) -> list[Span]:
    """Cut the time that windows see while they move along: finely where an edge of one moves, else in one piece.

    Args:
        grid: Where they end.
        lengths: The windows, milliseconds.
    """
    unit = unit_of(grid.step_ms, lengths)
    moving = sorted([(grid.from_ms - n, grid.to_ms - n) for n in lengths] + [(grid.from_ms, grid.to_ms)])
    found: list[Span] = []
    at = moving[0][0]
    for start, end in moving:
        if start > at:
            found.append(Span(at, start))
        found += [Span(one, one + unit) for one in range(max(at, start), end, unit)]
        at = max(at, end)
    return found


def unit_of(step_ms: int, lengths: Iterable[int]) -> int:
    """The longest piece that both steps and windows are made of, milliseconds."""
    return math.gcd(step_ms, *lengths)


def unrecorded(asked: Iterable[Query]) -> list[str]:
    """The names among what is asked whose past nobody knows."""
    return [name for name in LEVELS if name in UNRECORDED & {query.name for query in asked}]
