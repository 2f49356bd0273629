"""Lanes: a few pieces of work at once, each on a thread that ends with it.

The threads are daemons: work that hangs keeps no process from ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Lanes:
    """Runs up to so many things at once.

    Args:
        most: How many.
        name: Of the threads.
    """

    def __init__(self, most: int, name: str) -> None:
        self._name = name
        self._free = threading.BoundedSemaphore(most)
        self._threads: set[threading.Thread] = set()

    def enter(self, timeout: float) -> bool:
        """Wait so many seconds for a lane; whoever gets one runs something on it or leaves it."""
        return self._free.acquire(timeout=timeout)

    def leave(self) -> None:
        """Give a lane back."""
        self._free.release()

    def run(self, work: Callable[[], None]) -> None:
        """Run something on the lane that was entered, which is left when it ends."""

        def lane() -> None:
            try:
                work()
            finally:
                self._threads.discard(thread)
                self.leave()

        thread = threading.Thread(target=lane, name=self._name, daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._threads.discard(thread)
            self.leave()
            raise

    def join(self, deadline: float) -> None:
        """Wait for what is under way, until a moment of the monotonic clock at most."""
        for thread in tuple(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
