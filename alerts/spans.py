"""Cutting windows into pieces that are summed once each, whole minutes where possible and edges exactly.

A window `(now - w, now]` in milliseconds is `[now - w + 1, now + 1)`. Its whole minutes are cut into blocks that begin
on multiples of their own length, the largest that fit: so windows share blocks with each other and with the windows
of later ticks, and what a block holds needs to be read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from alerts.queries import MINUTE_MS, Span

BLOCKS_MS = tuple(minutes * MINUTE_MS for minutes in (1440, 360, 60, 10, 1))


@dataclass(frozen=True, slots=True)
class Plan:
    """The pieces of some windows that all end now.

    Attributes:
        spans: The pieces.
        parts: Which pieces make up the window of so many seconds.
    """

    spans: tuple[Span, ...]
    parts: Mapping[float, tuple[int, ...]]


def plan(windows: Iterable[float], now_ms: int) -> Plan:
    """Cut windows.

    Args:
        windows: Lengths in seconds.
        now_ms: Where they end, inclusive.
    """
    index: dict[Span, int] = {}
    parts = {
        seconds: tuple(index.setdefault(span, len(index)) for span in _cut(seconds, now_ms))
        for seconds in sorted(set(windows))
    }
    return Plan(tuple(index), parts)


def _cut(seconds: float, now_ms: int) -> Iterator[Span]:
    end = now_ms + 1
    start = end - round(seconds * 1000)
    first, last = -(-start // MINUTE_MS) * MINUTE_MS, end // MINUTE_MS * MINUTE_MS
    if first >= last:
        yield Span(start, end, whole=False)
        return
    if start < first:
        yield Span(start, first, whole=False)
    yield from _blocks(first, last)
    if last < end:
        yield Span(last, end, whole=False)


def _blocks(first: int, last: int) -> Iterator[Span]:
    """Whole minutes as the largest aligned blocks."""
    at = first
    while at < last:
        size = next(size for size in BLOCKS_MS if at % size == 0 and at + size <= last)
        yield Span(at, at + size, whole=True)
        at += size
