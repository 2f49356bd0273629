"""Sums of past blocks of time, kept between ticks: a tick reads what is new and what it has not read before.

Guarantees: the same values as without it, whenever records are written and wherever the clock goes. Records of the
past are written later now and then: tries of a long request, everything after an outage of the store. So every tick
checks, before it believes what is kept, that the number of records is still what it was: for what is settled by one
number for all time before a moment (`queries.settled`), for blocks since then by the number of rows in each. Where it
is not, or the clock went back, the blocks concerned are read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alerts import queries
from alerts.queries import Feed
from alerts.spans import MINUTE_MS, Span
from engine.sqlite import Connection

SETTLED_MS = 120_000
MOST_GROUPS = 50_000
"""Groups of rows that are kept beside those that the latest tick used, about 300 bytes to 2 KB each."""

Groups = list[tuple[tuple[Any, ...], tuple[Any, ...]]]
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
        self._rows: dict[tuple[str, Span], int] = {}
        self._settled: tuple[int, float] | None = None
        self._managers: tuple[str, ...] = ()
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
        if self._managers != tuple(managers) or not self._still_settled(connection, edge_ms):
            self._kept.clear()
            self._rows.clear()
            self._groups = 0
        self._managers = tuple(managers)
        self._drop_changed(connection)
        self._rows = {key: n for key, n in self._rows.items() if key[1].to_ms > edge_ms}
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
        fresh: dict[int, Block] = {index: {} for index in missing}
        for one in feed.read(connection, [spans[index] for index in missing], self._managers) if missing else ():
            fresh[missing[one.span]].setdefault(one.manager, []).append((one.key, one.amounts))
        self._keep(feed, connection, {spans[index]: block for index, block in fresh.items()})
        return {
            (manager, index): groups
            for index, block in enumerate(blocks)
            for manager, groups in (fresh[index] if block is None else block).items()
        }

    def _still_settled(self, connection: Connection, edge_ms: int) -> bool:
        if self._settled is None:
            return True
        before_ms, count = self._settled
        return before_ms <= edge_ms and queries.settled(connection, self._managers, before_ms) == count

    def _drop_changed(self, connection: Connection) -> None:
        """Forget blocks that are not settled and hold more rows now."""
        for table in {table for table, _ in self._rows}:
            spans = [span for name, span in self._rows if name == table]
            for span, n in zip(spans, queries.numbers(connection, table, spans, self._managers), strict=True):
                if n != self._rows[table, span]:
                    del self._rows[table, span]
                    for feed in queries.FEEDS:
                        if feed.rows == table and (kept := self._kept.pop((feed.name, span), None)):
                            self._groups -= kept.groups

    def _take(self, feed: Feed, span: Span) -> Block | None:
        kept = self._kept.pop((feed.name, span), None)
        if kept is None:
            return None
        kept.used = self._turn
        self._kept[feed.name, span] = kept  # the last one is the latest used
        return kept.block

    def _keep(self, feed: Feed, connection: Connection, blocks: dict[Span, Block]) -> None:
        edge_ms = self._settled[0] if self._settled else 0
        worth = [span for span in blocks if span.block and span.to_ms <= edge_ms]
        if feed.rows is not None:
            latest = [span for span in blocks if span.block and span.to_ms > edge_ms and not span.whole]
            self._count(connection, feed.rows, latest)
            worth += latest
        for span in worth:
            groups = sum(map(len, blocks[span].values())) + 1
            self._kept[feed.name, span] = _Kept(blocks[span], groups, self._turn)
            self._groups += groups

    def _count(self, connection: Connection, table: str, spans: Iterable[Span]) -> None:
        new = [span for span in spans if (table, span) not in self._rows]
        for span, n in zip(new, queries.numbers(connection, table, new, self._managers), strict=True):
            self._rows[table, span] = n

    def _shrink(self) -> None:
        """Forget what was not used for longest, but nothing that the latest tick needed."""
        while self._groups > MOST_GROUPS:
            key, kept = next(iter(self._kept.items()))
            if kept.used == self._turn:
                return
            del self._kept[key]
            self._groups -= kept.groups
