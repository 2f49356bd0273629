"""Timers of an event loop for what nearly always ends in time.

Every request is under several clocks, and hardly any of them ever strikes. A timer of the loop for each would be made
and thrown away, which costs a quick request more than what it guards. Here cancelling is a mark, and one timer of the
loop stands for all (as asyncio's own loop keeps its timers, and uvloop does not).
"""

from __future__ import annotations

import asyncio
import heapq
import math
import threading
from collections.abc import Callable
from typing import Final

FEW: Final = 64
"""Cancelled timers that are kept without a look; beyond that at most half of all are."""


class Timer:
    """A call that is made at its time unless it is cancelled.

    Attributes:
        when: The loop's time, seconds.
    """

    __slots__ = ("_call", "_deadlines", "when")

    def __init__(self, deadlines: Deadlines, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self._deadlines = deadlines
        self._call: Callable[[], object] | None = call

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    @property
    def alive(self) -> bool:
        """Whether it is still to be called."""
        return self._call is not None

    def cancel(self) -> None:
        """Do not call; after the call, or a second time, it does nothing."""
        if self._call is not None:
            self._call = None
            self._deadlines._one_less()

    def _strike(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class Deadlines:
    """The timers of one event loop; used on its thread only.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._timers: list[Timer] = []
        self._cancelled = 0
        self._handle: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def __len__(self) -> int:
        """How many are kept, cancelled ones that were not tidied up yet among them."""
        return len(self._timers)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Have something called.

        Args:
            when: The loop's time, seconds; one that is over means soon.
            call: Must not raise.
        """
        timer = Timer(self, when, call)
        heapq.heappush(self._timers, timer)
        if when < self._rings_at:
            self._ring_at(when)
        return timer

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Have something called after a while; see `call_at`."""
        return self.call_at(self.loop.time() + seconds, call)

    def _ring_at(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._rings_at = self.loop.call_at(when, self._ring), when

    def _ring(self) -> None:
        self._rings_at = math.inf
        now = self.loop.time()
        timers = self._timers
        while timers and (timers[0].when <= now or not timers[0].alive):
            timer = heapq.heappop(timers)
            if timer.alive:
                timer._strike()
            else:
                self._cancelled -= 1
        if timers and timers[0].when < self._rings_at:
            self._ring_at(timers[0].when)

    def _one_less(self) -> None:
        self._cancelled += 1
        if self._cancelled > FEW and self._cancelled * 2 > len(self._timers):
            self._timers[:] = [timer for timer in self._timers if timer.alive]
            heapq.heapify(self._timers)
            self._cancelled = 0


_here = threading.local()


def deadlines() -> Deadlines:
    """The timers of the running event loop."""
    loop = asyncio.get_running_loop()
    found: Deadlines | None = getattr(_here, "deadlines", None)
    if found is None or found.loop is not loop:
        found = _here.deadlines = Deadlines(loop)
    return found
