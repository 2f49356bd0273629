"""How long a thread keeps the interpreter from the others of a server's process.

Threads that do a little at a time, as an event loop and the recorder do, give it up by themselves soon. To demand it of
them before costs both a switch: with the short interval a request under load took a tenth more processor time. A
thread that computes for long gives nothing up, and whoever answers requests beside it waits an interval again and
again. So the interval is Python's own, and short while somebody computes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SHORT: Final = 0.0005
"""Seconds; Python's own interval is ten times as long."""


class Turns:
    """Who computes in this process, which is what the interval belongs to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._computing = 0
        self._usual = 0.0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Let the others have the interpreter often while the calling thread computes."""
        with self._lock:
            if not self._computing:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(SHORT)
            self._computing += 1
        try:
            yield
        finally:
            with self._lock:
                self._computing -= 1
                if not self._computing:
                    sys.setswitchinterval(self._usual)


computing = Turns().computing
