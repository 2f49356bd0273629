"""Counts over a sliding span of time, in about twenty small buckets.

Adding and reading are O(1) however many calls there are, and memory does not grow with traffic. A bucket begins
with its first count and leaves as a whole when that first count is one span old: a count is never kept longer
than the span, and leaves at most one bucket's width early. Buckets begin with a count rather than on a grid, so
shifting all times by a constant changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

DEFAULT_BUCKETS = 20


class SlidingCounts:
    """Several counters that forget together.

    Args:
        span: Seconds a count is remembered.
        kinds: How many counters are kept side by side.
        buckets: Into how many buckets the span is cut; more is more exact and costs no time, only memory.
    """

    __slots__ = ("_buckets", "_span", "_width", "totals")

    def __init__(self, span: float, kinds: int = 1, buckets: int = DEFAULT_BUCKETS) -> None:
        self._span = span
        self._width = span / buckets
        self._buckets: deque[tuple[float, list[int]]] = deque()
        self.totals: list[int] = [0] * kinds

    def slide(self, now: float) -> list[int]:
        """Forget what is one span old.

        Returns:
            The counters' totals; read them, never keep or change them.
        """
        buckets = self._buckets
        while buckets and now - buckets[0][0] >= self._span:
            _, counts = buckets.popleft()
            for kind, count in enumerate(counts):
                self.totals[kind] -= count
        return self.totals

    def add(self, now: float, kinds: Sequence[int] = (0,)) -> None:
        """Count one more of each of these kinds.

        Args:
            now: Seconds; a time that runs backwards joins the newest bucket.
            kinds: Places of the counters.
        """
        buckets = self._buckets
        if buckets and now - buckets[0][0] >= self._span:
            self.slide(now)
        if not buckets or now - buckets[-1][0] >= self._width:
            buckets.append((now, [0] * len(self.totals)))
        newest = buckets[-1][1]
        totals = self.totals
        for kind in kinds:
            newest[kind] += 1
            totals[kind] += 1

    def amend(self, now: float, kinds: Sequence[int] = (0,), by: int = 1) -> None:
        """Correct the newest bucket whatever its age, forgetting nothing: for spans that stand still.

        Args:
            now: Seconds; used only when there is no bucket.
            kinds: Places of the counters.
            by: What to add to each; -1 takes one back.
        """
        if not self._buckets:
            self._buckets.append((now, [0] * len(self.totals)))
        newest = self._buckets[-1][1]
        for kind in kinds:
            newest[kind] += by
            self.totals[kind] += by

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self.totals = [0] * len(self.totals)
