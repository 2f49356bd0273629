"""A process that stood still: the machine was paused, or something blocked it.

When it goes on, its clocks have run out together with the answers that came meanwhile. Whoever waits under a clock that
is late looks once more before it says that nothing came: a pause of ours is not taken for a model that hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

STOOD_STILL: Final = 0.25
"""Seconds late at which a clock tells that its process stood still."""
CATCH_UP: Final = 0.1
"""Seconds in which a process that stood still takes what came meanwhile."""


def wait(blocking: Callable[[float], bool], seconds: float) -> bool:
    """Wait for something on a thread.

    Args:
        blocking: Waits so many seconds at most, and says whether it happened.
        seconds: How long; less than 0 where the time was over before.
    """
    due = time.monotonic() + seconds
    return blocking(max(0.0, seconds)) or (time.monotonic() - due > STOOD_STILL and blocking(CATCH_UP))
