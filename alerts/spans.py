"""Cutting windows into pieces that are summed once each: whole minutes, small blocks of some seconds, exact edges.

A window `(now - w, now]` in milliseconds is `[now - w + 1, now + 1)`. It is cut into blocks that begin on multiples of
their own length, the largest that fit; only what is left at its two ends is no block. So windows share blocks with
each other and with the windows of later ticks, and what a block holds needs to be read once.

The minute that a window begins in is taken as a whole, and what lies before the window is taken away again: while the
beginning moves through that minute, each tick reads the few seconds it has passed, and not the first one all the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

MINUTE_MS = 60_000
SMALL_MS = 5_000
BLOCKS_MS = (*(minutes * MINUTE_MS for minutes in (1440, 360, 60, 10, 1)), SMALL_MS)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of time, left-closed and right-open in milliseconds."""

    from_ms: int
    to_ms: int

    @property
    def whole(self) -> bool:
        """Whether it is whole minutes, of which there are sums."""
        return self.from_ms % MINUTE_MS == 0 == self.to_ms % MINUTE_MS

    @property
    def block(self) -> bool:
        """Whether later windows may be cut at the same places."""
        return self.from_ms % SMALL_MS == 0 == self.to_ms % SMALL_MS


@dataclass(frozen=True, slots=True)
class Plan:
    """The pieces of some windows that all end now.

    Attributes:
        spans: The pieces.
        parts: Which pieces make up the window of so many seconds: each with 1, or with -1 where it is taken away.
    """

    spans: tuple[Span, ...]
    parts: Mapping[float, tuple[tuple[int, int], ...]]


def plan(windows: Iterable[float], now_ms: int) -> Plan:
    """Cut windows.

    Args:
        windows: Lengths in seconds.
        now_ms: Where they end, inclusive.
    """
    index: dict[Span, int] = {}
    parts = {
        seconds: tuple((index.setdefault(span, len(index)), sign) for span, sign in _cut(seconds, now_ms))
        for seconds in sorted(set(windows))
    }
    return Plan(tuple(index), parts)


def _cut(seconds: float, now_ms: int) -> Iterator[tuple[Span, int]]:
    end = now_ms + 1
    start = end - round(seconds * 1000)
    first, last = -(-start // SMALL_MS) * SMALL_MS, end // SMALL_MS * SMALL_MS
    minute = start // MINUTE_MS * MINUTE_MS
    if first >= last:
        yield Span(start, end), 1
        return
    if minute < start and minute + MINUTE_MS <= last:
        before = start // SMALL_MS * SMALL_MS
        yield from ((span, -1) for span in _blocks(minute, before))
        if before < start:
            yield Span(before, start), -1
        first = minute
    elif start < first:
        yield Span(start, first), 1
    yield from ((span, 1) for span in _blocks(first, last))
    if last < end:
        yield Span(last, end), 1


def _blocks(first: int, last: int) -> Iterator[Span]:
    """The largest aligned blocks."""
    at = first
    while at < last:
        size = next(size for size in BLOCKS_MS if at % size == 0 and at + size <= last)
        yield Span(at, at + size)
        at += size
