"""The two clocks: a monotonic one that decides, and a wall clock that is only written down."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from: the system's clocks, or a simulated world's."""

    def monotonic(self) -> float:
        """Seconds that only ever grow; every decision uses these."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970 in UTC; for records and people."""
        ...


class SystemClock:
    """This machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    """Seconds since some moment in the past."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970 in UTC."""
        return time.time_ns() // 1_000_000
