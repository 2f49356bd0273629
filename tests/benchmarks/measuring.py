"""How things are measured: in short windows, of which the quietest counts, so that a busy machine does not decide.

Every number that matters is a ratio of two things measured in the same run, or has twice or thrice its target as the
bound that fails.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable


def quietest(
    work: Callable[[], object], *, windows: int = 20, each: int = 50, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The median duration of `work` in the quietest window, seconds.

    Args:
        work: What is measured; it is run a few times beforehand.
        windows: How many windows.
        each: Runs in a window.
        clock: Seconds; `time.thread_time` leaves out what other programs do meanwhile.
    """
    for _ in range(each):
        work()
    medians = []
    for _ in range(windows):
        durations = []
        for _ in range(each):
            began = clock()
            work()
            durations.append(clock() - began)
        medians.append(statistics.median(durations))
    return min(medians)


def say(what: str, value: str, target: str) -> None:
    """Print one line of the report."""
    sys.stderr.write(f"\n{what:<58} {value:>28}   target {target}")


def microseconds(seconds: float) -> str:
    """For people."""
    return f"{seconds * 1e6:.1f} µs"
