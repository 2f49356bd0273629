"""Virtual time: one heap of events for a whole world, and the clocks its inhabitants read.

Events of the same time happen in the order in which they were planned, so a run is a function of its seed alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

EPOCH_MS: Final = 1_700_000_000_000
"""Wall time at which a world begins unless it is told otherwise, milliseconds UTC."""


class Timeline:
    """The order of all that happens.

    Attributes:
        now: Virtual seconds since the world began.
        steps: Events that have happened.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._seq = count()

    def at(self, when: float, job: Callable[[], None]) -> None:
        """Plan an event; one planned for the past happens next."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._seq), job))

    def after(self, delay: float, job: Callable[[], None]) -> None:
        """Plan an event some seconds from now."""
        self.at(self.now + delay, job)

    def run(self, until: float, watch: Callable[[], None] | None = None) -> None:
        """Let everything happen up to a time, and stand there.

        Args:
            until: Virtual seconds.
            watch: Called after every event.
        """
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, job = heapq.heappop(heap)
            self.steps += 1
            job()
            if watch is not None:
                watch()
        self.now = max(self.now, until)


class VirtualClock:
    """The clocks of one machine: its monotonic one and its wall clock may both be off from the world's.

    Args:
        timeline: The world's time.
        start_ms: Wall time at the world's beginning, milliseconds UTC.
        uptime: What the monotonic clock shows at the world's beginning, seconds.
        skew: Seconds the wall clock is ahead.
    """

    def __init__(self, timeline: Timeline, *, start_ms: int = EPOCH_MS, uptime: float = 0.0, skew: float = 0.0) -> None:
        self._timeline = timeline
        self._start_ms = start_ms
        self.uptime = uptime
        self.skew = skew

    def monotonic(self) -> float:
        """Seconds that only ever grow."""
        return self._timeline.now + self.uptime

    def wall_ms(self) -> int:
        """Milliseconds since 1970 in UTC, as this machine believes."""
        return self._start_ms + round((self._timeline.now + self.skew) * 1000)

    def when(self, monotonic: float) -> float:
        """The world's time at which the monotonic clock shows a value."""
        return monotonic - self.uptime
