"""Sums of past blocks of time, kept between ticks: a tick reads what is new and what it has not read before.

Guarantees: the same values as without it, whenever records are written and wherever the clock goes. Records of the
past are written later now and then: tries of a long request, everything after an outage of the store. So every tick
checks, before it believes what is kept, that the number of records is still what it was: in each small block of the
last minutes, and as one number for all time before those (`queries.settled`). What has changed is read again; when it
is the latter, or the clock went back, that is everything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alerts import queries
from alerts.queries import FEEDS, Feed
from alerts.spans import MINUTE_MS, SMALL_MS, Span
from engine.sqlite import Connection

SETTLED_MS = 15 * MINUTE_MS
"""Longer than requests last, so that their tries seldom belong to what is settled."""

ASLEEP_MS = 60 * MINUTE_MS
"""After a pause of this length nothing that was kept is believed."""

MOST_GROUPS = 50_000
"""Groups of rows that are kept beside those that the latest tick used, about 300 bytes to 2 KB each."""

TABLES = tuple(sorted({feed.rows for feed in FEEDS if feed.rows is not None}))

Groups = Sequence[tuple[tuple[Any, ...], tuple[Any, ...]]]
Block = dict[str, Groups]
"""What a block holds: by manager, groups of rows with their amounts."""


@dataclass(slots=True)
class _Kept:
    block: Block
    groups: int
    used: int


class Shelf:
    """Blocks that were read before; belongs to one reader of one store."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, Span], _Kept] = {}
        self._numbers: dict[str, dict[int, int]] = {}
        self._minutes: dict[str, dict[int, int]] = {}
        self._settled: tuple[int, float] | None = None
        self._managers: tuple[str, ...] = ()
        self._now_ms = 0
        self._groups = 0
        self._turn = 0

    def open(self, connection: Connection, managers: Sequence[str], now_ms: int) -> None:
        """Drop what is not true any more, before a tick reads.

        Args:
            connection: In the read transaction of the tick.
            managers: Whom the tick asks about.
            now_ms: Its time.
        """
        edge_ms = (now_ms - SETTLED_MS) // MINUTE_MS * MINUTE_MS
        since_ms = self._believed_since(connection, tuple(managers), now_ms)
        if since_ms is None:
            self._kept.clear()
            self._numbers.clear()
            self._minutes.clear()
            self._groups, since_ms = 0, edge_ms
        self._managers, self._now_ms = tuple(managers), now_ms
        self._count(connection, since_ms, edge_ms)
        self._settled = edge_ms, queries.settled(connection, managers, edge_ms)
        self._shrink()
        self._turn += 1

    def fetch(self, feed: Feed, connection: Connection, spans: Sequence[Span]) -> dict[tuple[str, int], Groups]:
        """Groups of rows by manager and span.

        Args:
            feed: What is read.
            connection: In the read transaction of the tick.
            spans: The pieces that are needed.
        """
        blocks = [self._take(feed, span) for span in spans]
        missing = [index for index, block in enumerate(blocks) if block is None]
        found: dict[int, dict[str, list[tuple[Any, Any]]]] = {index: {} for index in missing}
        for one in feed.read(connection, [spans[index] for index in missing], self._managers) if missing else ():
            found[missing[one.span]].setdefault(one.manager, []).append((one.key, one.amounts))
        for index, block in found.items():
            # Tuples of numbers and texts cost the garbage collector nothing, and there are tens of thousands of them.
            fresh: Block = {manager: tuple(groups) for manager, groups in block.items()}
            blocks[index] = fresh
            self._keep(feed, spans[index], fresh)
        return {
            (manager, index): groups for index, block in enumerate(blocks) for manager, groups in (block or {}).items()
        }

    def _believed_since(self, connection: Connection, managers: tuple[str, ...], now_ms: int) -> int | None:
        """From when on blocks need to be looked at one by one; `None` when nothing that is kept is believed."""
        if self._settled is None or self._managers != managers:
            return None
        before_ms, count = self._settled
        if not self._now_ms <= now_ms <= self._now_ms + ASLEEP_MS:
            return None
        return before_ms if queries.settled(connection, managers, before_ms) == count else None

    def _count(self, connection: Connection, since_ms: int, edge_ms: int) -> None:
        """Count the rows of small blocks, and forget whatever one with another number is a part of.

        Only in minutes whose sum has changed is there anything to count.
        """
        for table in TABLES:
            minutes = queries.by_minute(connection, table, since_ms // MINUTE_MS, self._managers)
            known_minutes, known = self._minutes.get(table, {}), self._numbers.get(table, {})
            touched = [
                minute for minute in {*minutes, *known_minutes} if minutes.get(minute) != known_minutes.get(minute)
            ]
            starts = [start for minute in touched for start in _starts(minute)]
            numbers = queries.numbers(connection, table, starts, self._managers) if starts else ()
            found = dict(zip(starts, numbers, strict=True))
            changed = sorted(start for start, n in found.items() if known.get(start, 0) != n)
            self._minutes[table] = {minute: n for minute, n in minutes.items() if minute * MINUTE_MS >= edge_ms}
            self._numbers[table] = {start: n for start, n in {**known, **found}.items() if start >= edge_ms}
            outdated = [
                (feed.name, span)
                for feed in FEEDS
                if feed.rows == table and changed
                for name, span in self._kept
                if name == feed.name and bisect_left(changed, span.from_ms) < bisect_left(changed, span.to_ms)
            ]
            for key in outdated:
                self._groups -= self._kept.pop(key).groups

    def _take(self, feed: Feed, span: Span) -> Block | None:
        kept = self._kept.pop((feed.name, span), None)
        if kept is None:
            return None
        kept.used = self._turn
        self._kept[feed.name, span] = kept  # the last one is the latest used
        return kept.block

    def _keep(self, feed: Feed, span: Span, block: Block) -> None:
        settled = self._settled is not None and span.to_ms <= self._settled[0]
        if span.block and (settled or feed.rows is not None):
            groups = sum(map(len, block.values())) + 1
            self._kept[feed.name, span] = _Kept(block, groups, self._turn)
            self._groups += groups

    def _shrink(self) -> None:
        """Forget what was not used for longest, but nothing that the latest tick needed."""
        while self._groups > MOST_GROUPS:
            key, kept = next(iter(self._kept.items()))
            if kept.used == self._turn:
                return
            del self._kept[key]
            self._groups -= kept.groups


def _starts(minute: int) -> range:
    """Where the small blocks of a minute begin."""
    return range(minute * MINUTE_MS, (minute + 1) * MINUTE_MS, SMALL_MS)
