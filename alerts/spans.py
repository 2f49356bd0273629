"""Cutting windows into pieces that are summed once each, whole minutes where possible and edges exactly.

A window `(now - w, now]` in milliseconds is `[now - w + 1, now + 1)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from alerts.queries import MINUTE_MS, Span


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
    end = now_ms + 1
    last = end // MINUTE_MS * MINUTE_MS
    lengths = sorted(set(windows))
    starts = {seconds: end - round(seconds * 1000) for seconds in lengths}
    first = {seconds: -(-start // MINUTE_MS) * MINUTE_MS for seconds, start in starts.items()}
    spans: list[Span] = []
    index: dict[Span, int] = {}

    def piece(from_ms: int, to_ms: int, *, whole: bool) -> list[int]:
        span = Span(from_ms, to_ms, whole)
        if from_ms >= to_ms:
            return []
        if span not in index:
            index[span] = len(spans)
            spans.append(span)
        return [index[span]]

    cuts = sorted({last, *(minute for minute in first.values() if minute < last)})
    parts: dict[float, tuple[int, ...]] = {}
    for seconds in lengths:
        start, minute = starts[seconds], first[seconds]
        if minute >= last:
            parts[seconds] = tuple(piece(start, end, whole=False))
            continue
        own = piece(start, minute, whole=False)
        for lower, upper in pairwise(cuts):
            if lower >= minute:
                own += piece(lower, upper, whole=True)
        parts[seconds] = (*own, *piece(last, end, whole=False))
    return Plan(tuple(spans), parts)
