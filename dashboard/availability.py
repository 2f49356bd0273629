"""How well callers were served: how their requests ended, and for how long they had less than they should.

What counts as degraded is decided here, once, for every page. Cancelled requests and the callers' own mistakes count on
neither side, because they say nothing about the service. Time counts once however many reasons made it bad.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dashboard.happenings import Happening
from dashboard.reading import Past
from dashboard.times import MINUTE_MS
from engine.queries import TrafficPoint

ANSWERED_WELL: Final = 0.99
"""Share of answered requests below which a stretch of time counts as degraded."""

ANSWERED_BADLY: Final = 0.9
"""Share below which it is shown in red."""


@dataclass(frozen=True, slots=True)
class Health:
    """Counts of a stretch of time; cancelled requests and the callers' own mistakes are in neither."""

    answered: int = 0
    failed: int = 0
    shed: int = 0

    @property
    def share(self) -> float | None:
        """Share that got an answer; `None` without traffic."""
        return self.answered / self.total if self.total else None

    @property
    def total(self) -> int:
        """Requests that count."""
        return self.answered + self.failed + self.shed

    def __add__(self, other: Health) -> Health:
        return Health(self.answered + other.answered, self.failed + other.failed, self.shed + other.shed)


@dataclass(frozen=True, slots=True)
class Stay:
    """A time for which one model was the active one.

    Attributes:
        start_ms: When it began.
        end_ms: When it ended.
        role: Of the model.
        move: What began it, `None` when that was before the time that was read.
    """

    start_ms: int
    end_ms: int
    role: str
    move: Happening | None = None

    @property
    def planned(self) -> bool:
        """Whether an operator decided it."""
        return self.move is not None and self.move.what == "override"


@dataclass(frozen=True, slots=True)
class Summary:
    """The two figures every team asks for, and what they rest on."""

    on_secondary_ms: int
    degraded_ms: int
    span_ms: int
    moves: int
    health: Health

    @property
    def secondary_share(self) -> float:
        """Share of the time the secondary was the active model."""
        return self.on_secondary_ms / self.span_ms if self.span_ms else 0.0

    @property
    def degraded_share(self) -> float:
        """Share of the time in which users had less than they should."""
        return self.degraded_ms / self.span_ms if self.span_ms else 0.0


def health(traffic: Iterable[TrafficPoint]) -> Health:
    """Add up how requests ended."""
    answered = failed = shed = 0
    for row in traffic:
        if row.outcome == "ok":
            answered += row.n
        elif row.outcome == "shed":
            shed += row.n
        elif row.outcome == "error":
            failed += row.errors
    return Health(answered, failed, shed)


def bins(past: Past) -> dict[int, Health]:
    """How requests ended, by bin."""
    return {row.start_ms: Health(row.answered, row.failed, row.shed) for row in past.ended}


def stays(past: Past) -> list[Stay]:
    """When which model was active, oldest first and without gaps."""
    found: list[Stay] = []
    at, role, began = past.from_ms, past.active_before, None
    for move in reversed(past.moves):
        if move.ts_ms > at:
            found.append(Stay(at, move.ts_ms, role, began))
        at, role, began = move.ts_ms, move.after or role, move
    found.append(Stay(at, past.to_ms, role, began))
    return found


def summary(past: Past) -> Summary:
    """How long the secondary was active, and how long users had less than they should."""
    size = past.bin_minutes * MINUTE_MS
    found = bins(past)
    secondary = [stay for stay in stays(past) if stay.role == "secondary"]
    unplanned = [(stay.start_ms, stay.end_ms) for stay in secondary if not stay.planned]
    bad = [(at, at + size) for at, one in found.items() if one.share is not None and one.share < ANSWERED_WELL]
    return Summary(
        sum(stay.end_ms - stay.start_ms for stay in secondary),
        covered([*unplanned, *bad]),
        max(1, past.to_ms - past.from_ms),
        sum(move.after == "secondary" for move in past.moves),
        sum(found.values(), Health()),
    )


def covered(stretches: Iterable[tuple[int, int]]) -> int:
    """Length of the union of stretches of time."""
    total, reach = 0, -1
    for start, end in sorted(stretches):
        total += max(0, end - max(start, reach))
        reach = max(reach, end)
    return total
