"""Ids: UUIDv7 as text (RFC 9562), so that ids sort by the time they were made.

Within one source every id is greater than the one before, also when many are made in one millisecond and when the
wall clock steps back: the 74 bits after the time are a counter with a random start and random steps
(RFC 9562, section 6.2, method 2).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable

_RANDOM_BITS = 74
_STEP_BITS = 32
_RAND_A_SHIFT = 62
_VERSION = 7 << 76
_VARIANT = 2 << 62
_RAND_B_MASK = (1 << _RAND_A_SHIFT) - 1


class IdSource:
    """A source of ascending UUIDv7 text; safe to use from several threads.

    Args:
        now_ms: The wall clock in milliseconds.
        bits: Gives a random integer of so many bits; a seeded one makes ids reproducible.
    """

    def __init__(self, now_ms: Callable[[], int], bits: Callable[[int], int]) -> None:
        self._now_ms = now_ms
        self._bits = bits
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The next id."""
        with self._lock:
            fresh = self._now_ms() << _RANDOM_BITS
            if fresh > self._last:
                self._last = fresh | (self._bits(_RANDOM_BITS - 1))
            else:
                self._last += 1 + self._bits(_STEP_BITS)
            value = self._last
        time_part = value >> _RANDOM_BITS
        rand_a = (value >> _RAND_A_SHIFT) & 0xFFF
        text = f"{time_part << 80 | _VERSION | rand_a << 64 | _VARIANT | value & _RAND_B_MASK:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def time_of(identifier: str) -> int:
    """The millisecond at which an id was made.

    Args:
        identifier: UUIDv7 text.
    """
    return int(identifier[:8] + identifier[9:13], 16)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _source() -> IdSource:
    return IdSource(_wall_ms, random.Random(os.urandom(32)).getrandbits)  # noqa: S311 - unique, not secret


_default = _source()


def _after_fork() -> None:
    """A forked process must not go on with its parent's numbers."""
    global _default  # noqa: PLW0603 - the process's one source is replaced as a whole
    _default = _source()


os.register_at_fork(after_in_child=_after_fork)


def new_id() -> str:
    """The process's next id, greater than every earlier one of this process."""
    return _default()
