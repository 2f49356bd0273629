"""What lies behind a move or a bad stretch of time, as a cause that there is advice for.

A move says that hosts found a model failing; an operator needs to know what it failed with, because that decides who
can do something about it. Attempts say it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dashboard.happenings import Happening
from dashboard.times import MINUTE_MS
from engine.queries import AttemptPoint

VOTED: Final = frozenset({"quorum", "breaker_open"})
"""Causes of a move that say that hosts, or the only one there is, found a model failing; not what it failed with."""


SHED_AS: Final = "rate_limited"
"""What keeps calls away that are shed; many of them make no attempt that would tell."""


def worst(tries: Iterable[AttemptPoint], shed: int = 0) -> str | None:
    """What most failed with, attempts or the calls that were shed; `None` when nothing failed."""
    counts: dict[str, int] = {SHED_AS: shed} if shed else {}
    for row in tries:
        if row.category not in ("ok", "cancelled"):
            counts[row.category] = counts.get(row.category, 0) + row.n
    return max(counts, key=lambda word: counts[word]) if counts else None


def cause_of(move: Happening, tries: Iterable[AttemptPoint], bin_minutes: int) -> str:
    """What lies behind a move: where models were voted down, what their attempts failed with around that time.

    Args:
        move: Of the active model.
        tries: Attempts by bin.
        bin_minutes: How far around the move to look.
    """
    if move.what not in VOTED:
        return move.what
    reach = bin_minutes * MINUTE_MS
    near = [row for row in tries if row.role == move.before and abs(row.start_ms - move.ts_ms) <= reach]
    return worst(near) or move.what
