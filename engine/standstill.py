"""A process that stood still: the machine was paused, or something blocked it.

When it goes on, its clocks have run out together with the answers that came meanwhile. Whoever waits under a clock that
is late looks once more before it says that nothing came: a pause of ours is not taken for a model that hangs.

Nor for one that is slow, or for a duty that hangs: a thread that does nothing but beat knows how long the process stood
still, and who judges a duration takes that off (`seconds`). Until `watch` was called nothing is known and taken off.

A machine that sleeps stands still, too, but a monotonic clock does not count that everywhere: here it is counted by one
that does (`now`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

STOOD_STILL: Final = 0.25
"""Seconds late at which a clock tells that its process stood still."""
CATCH_UP: Final = 0.1
"""Seconds in which a process that stood still takes what came meanwhile."""
BEAT_EVERY: Final = 0.25
"""Seconds between two beats of the thread that notices standing still."""


def now() -> float:
    """Seconds on a clock that only grows, also while the machine sleeps; where there is none, on the monotonic one."""
    return time.monotonic() if _SLEEPLESS is None else time.clock_gettime(_SLEEPLESS)


_SLEEPLESS: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


def wait(blocking: Callable[[float], bool], seconds: float) -> bool:
    """Wait for something on a thread.

    Args:
        blocking: Waits so many seconds at most, and says whether it happened.
        seconds: How long; less than 0 where the time was over before.
    """
    due = time.monotonic() + seconds
    return blocking(max(0.0, seconds)) or (time.monotonic() - due > STOOD_STILL and blocking(CATCH_UP))


class Heart:
    """Beats, and tells by the gaps how long the process stood still.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self._clock = clock
        self._beaten = clock(), 0.0  # when last, and the seconds stood still until then: read and replaced as one

    def beat(self) -> None:
        """Note that the process runs; to be called every `BEAT_EVERY` seconds."""
        now = self._clock()
        last, stood = self._beaten
        self._beaten = now, stood + _gap(last, now)

    def stood_still(self) -> float:
        """Seconds that the process stood still so far, the gap among them that no beat has ended yet."""
        return self._stood_still(self._clock())

    def awake(self) -> float:
        """Seconds on a clock that does not count while the process stands still."""
        now = self._clock()
        return now - self._stood_still(now)

    def _stood_still(self, now: float) -> float:
        last, stood = self._beaten
        return stood + _gap(last, now)


def _gap(last: float, now: float) -> float:
    late = now - last - BEAT_EVERY
    return late if late > STOOD_STILL else 0.0


_heart: Heart | None = None
_starting = threading.Lock()


def watch() -> None:
    """Begin to notice standing still in this process; calling it again does nothing."""
    global _heart  # noqa: PLW0603 - it is the process that stands still, whatever it holds
    with _starting:
        if _heart is None:
            _heart = Heart()
            threading.Thread(target=_keep_beating, args=(_heart,), name="switchgear-heart", daemon=True).start()


def seconds() -> float:
    """Seconds that this process stood still so far; only differences mean something."""
    return 0.0 if _heart is None else _heart.stood_still()


def awake() -> float:
    """Seconds on a clock that does not count while this process stands still."""
    return now() if _heart is None else _heart.awake()


def _after_fork() -> None:
    """A forked process has none of its parent's threads."""
    global _heart  # noqa: PLW0603 - as above
    _heart = None


os.register_at_fork(after_in_child=_after_fork)


def _keep_beating(heart: Heart) -> None:
    while True:
        time.sleep(BEAT_EVERY)
        heart.beat()
