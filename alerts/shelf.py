"""Sums of past blocks of minutes, kept between ticks: a tick reads what is new and what it has not read before.

Guarantees: the same values as without it. A block is kept only when it ended a while ago, and when records of its
time are written later nonetheless (after an outage of the store, or a history that is filled in), it is read again:
every tick checks that the number of records before a settled moment is still the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alerts import queries
from alerts.queries import Span
from engine.sqlite import Connection

SETTLED_MS = 120_000
MOST_BLOCKS = 20_000

Block = dict[str, list[tuple[tuple[object, ...], tuple[float, ...]]]]
"""What a block holds: by manager, groups of rows with their amounts."""

Read = Callable[[Connection, Sequence[Span], Sequence[str]], list[queries.Sums]]


class Shelf:
    """Blocks that were read before; belongs to one reader of one store."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, Span], Block] = {}
        self._settled: tuple[int, float] | None = None
        self._managers: tuple[str, ...] = ()

    def open(self, connection: Connection, managers: Sequence[str], now_ms: int) -> None:
        """Drop what is not true any more, before a tick reads.

        Args:
            connection: In the read transaction of the tick.
            managers: Whom the tick asks about.
            now_ms: Its time.
        """
        if self._managers != tuple(managers) or len(self._blocks) > MOST_BLOCKS:
            self._blocks.clear()
            self._settled = None
        self._managers = tuple(managers)
        if self._settled is not None:
            before_ms, count = self._settled
            if queries.settled(connection, managers, before_ms) != count:
                self._blocks.clear()
        before_ms = (now_ms - SETTLED_MS) // queries.MINUTE_MS * queries.MINUTE_MS
        self._settled = before_ms, queries.settled(connection, managers, before_ms)

    def fetch(
        self, kind: str, connection: Connection, spans: Sequence[Span], read: Read
    ) -> dict[tuple[str, int], list[tuple[tuple[object, ...], tuple[float, ...]]]]:
        """Groups of rows by manager and span.

        Args:
            kind: What is read; blocks of one kind are never taken for those of another.
            connection: In the read transaction of the tick.
            spans: The pieces that are needed.
            read: Reads those that are not kept.
        """
        edge_ms = self._settled[0] if self._settled else 0
        wanted = [index for index, span in enumerate(spans) if (kind, span) not in self._blocks]
        fresh: dict[int, Block] = {index: {} for index in wanted}
        for one in read(connection, [spans[index] for index in wanted], self._managers) if wanted else ():
            fresh[wanted[one.span]].setdefault(one.manager, []).append((one.key, one.amounts))
        table = {}
        for index, span in enumerate(spans):
            block = fresh[index] if index in fresh else self._blocks[kind, span]
            if index in fresh and span.whole and span.to_ms <= edge_ms:
                self._blocks[kind, span] = block
            for manager, groups in block.items():
                table[manager, index] = groups
        return table
