"""Timers of an event loop for what nearly always ends in time.

Every request is under several clocks, and hardly any of them ever strikes. A timer of the loop for each would be made
and thrown away, which costs a quick request more than what it guards. Here cancelling is a mark, and one timer of the
loop stands for all (as asyncio's own loop keeps its timers, and uvloop does not).

After a standstill a loop finds its timers due together with the answers that came meanwhile, and uvloop calls the
timers first. So timers that are late wait until the loop has read what there is (`engine.standstill`).
"""

from __future__ import annotations

import asyncio
import heapq
import math
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from engine.standstill import CATCH_UP, STOOD_STILL

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
        self._catching_up = False

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
        if when < self._rings_at and not self._catching_up:
            self._ring_at(max(when, self.loop.time()))
        return timer

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Have something called after a while; see `call_at`."""
        return self.call_at(self.loop.time() + seconds, call)

    def _ring_at(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._rings_at = self.loop.call_at(when, self._ring), when

    def _ring(self) -> None:
        now, due = self.loop.time(), self._rings_at
        self._rings_at = math.inf
        self._catching_up = now - due > STOOD_STILL and not self._catching_up
        if self._catching_up:
            self._ring_at(now + CATCH_UP)
            return
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


class Alarm:
    """Cancels a step of a task at a time: what `asyncio.timeout` does, at a third of its cost, step after step."""

    __slots__ = ("_cancelling", "_struck", "_task", "_timer")

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._timer: Timer | None = None
        self._cancelling, self._struck = 0, False

    @property
    def pending(self) -> bool:
        """Whether a step is under way that was not cancelled."""
        return self._task is not None and not self._struck

    def enter(self, when: float | None) -> None:
        """Begin a step of the current task.

        Args:
            when: The loop's time, seconds, at which it is cancelled; `None` for never.
        """
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling, self._struck = self._task.cancelling(), False
        self.move(when)

    def move(self, when: float | None) -> None:
        """Have the step that is under way, if any, cancelled at another time."""
        if not self.pending:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if when is None else deadlines().call_at(when, self._strike)

    def leave(self, error: type[BaseException] | None) -> bool:
        """End the step; returns whether `error`, which ends it, is the cancellation of this alarm."""
        task, self._task = self._task, None
        assert task is not None
        if self._timer is not None:
            self._timer.cancel()
        return self._struck and task.uncancel() <= self._cancelling and error is asyncio.CancelledError

    def _strike(self) -> None:
        assert self._task is not None
        self._struck = True
        self._task.cancel()


class timeout:  # noqa: N801 - stands where asyncio's does
    """As `asyncio.timeout`, by the timers of this module.

    Args:
        seconds: From entering; `None` for no end.
    """

    __slots__ = ("_alarm", "_seconds", "expired")

    def __init__(self, seconds: float | None) -> None:
        self._seconds, self._alarm = seconds, Alarm()
        self.expired = False

    def move(self, when: float) -> None:
        """End at another time of the loop, seconds."""
        self._alarm.move(when)

    async def __aenter__(self) -> Self:
        self._alarm.enter(None if self._seconds is None else asyncio.get_running_loop().time() + self._seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._alarm.leave(kind):
            self.expired = True
            raise TimeoutError from error


_here = threading.local()


def deadlines() -> Deadlines:
    """The timers of the running event loop."""
    loop = asyncio.get_running_loop()
    found: Deadlines | None = getattr(_here, "deadlines", None)
    if found is None or found.loop is not loop:
        found = _here.deadlines = Deadlines(loop)
    return found
