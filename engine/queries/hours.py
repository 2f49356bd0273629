"""Which sums a stretch of whole minutes is read from: those by the hour where they hold, else those by the minute.

How hours are rolled up, and why a late record is never missed, is in `engine.hours`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from engine.sqlite import Connection

HOUR = 60
"""Minutes."""

Run = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Pieces:
    """A stretch of minutes cut in two sorts of runs, each `[from, to)`.

    Attributes:
        hours: Runs of hours since 1970 that are rolled up.
        minutes: Runs of minutes since 1970: everything else.
    """

    hours: tuple[Run, ...]
    minutes: tuple[Run, ...]

    def bound(self) -> dict[str, str]:
        """Both as values for SQL's `json_each(:hours)` and `json_each(:minutes)`."""
        return {"hours": json.dumps(self.hours), "minutes": json.dumps(self.minutes)}


def pieces(connection: Connection, manager: str, first: int, last: int) -> Pieces:
    """Cut the minutes `[first, last)`.

    Args:
        connection: Of `Store.reader()`; the sums are to be read from the same snapshot.
        manager: Whose.
        first: The first minute since 1970.
        last: The minute after the last.
    """
    low, high = -(-first // HOUR), last // HOUR
    if low >= high:
        return Pieces((), ((first, last),) if first < last else ())
    rolled = connection.execute(
        "SELECT hour FROM rolled_hours WHERE manager = ? AND hour >= ? AND hour < ? ORDER BY hour", (manager, low, high)
    )
    hours = _runs(row[0] for row in rolled)
    at, minutes = first, []
    for start, end in hours:
        if start * HOUR > at:
            minutes.append((at, start * HOUR))
        at = end * HOUR
    if last > at:
        minutes.append((at, last))
    return Pieces(tuple(hours), tuple(minutes))


def _runs(ascending: Iterable[int]) -> list[Run]:
    """Numbers that follow each other, as runs."""
    found: list[Run] = []
    for one in ascending:
        if found and found[-1][1] == one:
            found[-1] = (found[-1][0], one + 1)
        else:
            found.append((one, one + 1))
    return found
