"""Waiting in tests for what other threads and processes do, on a machine that may stand still for a while.

Virtual machines are paused for seconds at a time. By the clock such a pause uses up any patience though nothing was
done, and nothing could be done, in it. So patience is counted in turns of look and sleep, and of each turn at most
`LONGEST_TURN_S` count: a pause of ten seconds counts as a fraction of one, and waiting still ends, because a turn
counts at least its sleep.

Be generous: a test that passes does not wait its patience out. What must happen soon is measured by `seconds_until`.
"""

from __future__ import annotations

import linecache
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 30.0
"""Patience for what takes a moment, and for every timeout that a passing test does not wait for."""
LONGEST_TURN_S = 0.25


def eventually(
    check: Callable[[], T | None],
    within: float = PATIENCE_S,
    *,
    every: float = 0.01,
    despite: tuple[type[Exception], ...] = (),
    told: Callable[[], object] = str,
) -> T:
    """Wait until a check gives something true, and give that.

    Args:
        check: Looked at again and again.
        within: Seconds of patience, pauses of the machine not counted.
        every: Seconds of sleep between two looks.
        despite: Exceptions of the check that mean "not yet"; any other ends the waiting.
        told: What the failure says besides, asked for when it fails: the log of a process, say.

    Raises:
        AssertionError: It did not come to that; says which check, and what it gave last.
    """
    __tracebackhide__ = True
    return _wait(check, within, every, despite, told)[0]


def seconds_until(
    check: Callable[[], object],
    within: float = PATIENCE_S,
    *,
    every: float = 0.005,
    despite: tuple[type[Exception], ...] = (),
) -> float:
    """Wait as `eventually` does; gives the seconds that it took, pauses of the machine not counted."""
    __tracebackhide__ = True
    return _wait(check, within, every, despite, str)[1]


def never(check: Callable[[], object], during: float, *, every: float = 0.02) -> None:
    """Watch that a check gives nothing true for so many seconds, pauses of the machine not counted."""
    __tracebackhide__ = True
    for used in _turns(during, every):
        if found := check():
            msg = f"came true after {used:.2f} s, and should not: {_line(check)}; it gave {found!r}"
            raise AssertionError(msg)


def _wait(
    check: Callable[[], T | None],
    within: float,
    every: float,
    despite: tuple[type[Exception], ...],
    told: Callable[[], object],
) -> tuple[T, float]:
    __tracebackhide__ = True
    began, looks = time.monotonic(), 0
    last: object = None
    for used in _turns(within, every):
        looks += 1
        try:
            if found := check():
                return found, used
            last = found
        except despite as error:
            last = error.with_traceback(None)  # it would hold this frame, and an answer that it has open, in a circle
    spent = f"{looks} looks in {time.monotonic() - began:.1f} s"
    msg = f"did not come true within {within:g} s ({spent}): {_line(check)}; it last gave {last!r} {told()}".rstrip()
    raise AssertionError(msg)


def _turns(within: float, every: float) -> Iterator[float]:
    """The seconds that count so far; one more turn after they are used up, so that the last sleep was not in vain."""
    used = 0.0
    while True:
        began = time.monotonic()
        yield used
        if used >= within:
            return
        time.sleep(every)
        used += min(time.monotonic() - began, max(LONGEST_TURN_S, every))


def _line(check: Callable[[], object]) -> str:
    """The line of source that a check begins in."""
    code = getattr(check, "__code__", None)
    return repr(check) if code is None else linecache.getline(code.co_filename, code.co_firstlineno).strip()
