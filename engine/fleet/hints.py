"""One thread that tells when a manager's document changed.

It looks at every document known here each `every` seconds, and at once when a store's own notification wakes it.
Notifications get lost in every store (Redis forgets them while reconnecting, ZooKeeper's watches fire once, etcd's
end at a compaction), so looking is what makes a change certain to be noticed, and waking only makes it quick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Lock, Thread

from engine.fleet.base import CoordinatorUnavailable

logger = logging.getLogger(__name__)


class Watcher:
    """Polls marks of documents and reports the ones that changed.

    Args:
        name: For the thread's name and messages; no credentials.
        mark: Something that differs when a manager's document does; called on the watcher's thread, may raise
            `CoordinatorUnavailable`.
        every: Seconds between looks.
    """

    def __init__(self, name: str, mark: Callable[[str], object], every: float) -> None:
        self._name = name
        self._managers: set[str] = set()
        self._mark = mark
        self._every = every
        self._lock = Lock()
        self._callbacks: list[Callable[[str], None]] = []
        self._marks: dict[str, object] = {}
        self._wake = Event()
        self._stopping = Event()
        self._thread: Thread | None = None
        self._reachable = True

    @property
    def started(self) -> bool:
        """Whether anybody listens."""
        return self._thread is not None

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def subscribe(self, on_change: Callable[[str], None]) -> None:
        """Report changes to one more listener; the first one starts the thread."""
        with self._lock:
            self._callbacks = [*self._callbacks, on_change]
            if self._thread is None:
                self._thread = Thread(target=self._run, name=f"switchgear-watch-{self._name}", daemon=True)
                self._thread.start()

    def watch(self, manager: str) -> None:
        """Look at this manager's document too; its first look is reported, since it may have changed before."""
        if manager not in self._managers:
            with self._lock:
                self._managers = self._managers | {manager}
            self.wake()

    @property
    def managers(self) -> list[str]:
        """The managers looked at."""
        return sorted(self._managers)

    def wake(self) -> None:
        """Look now; never blocks, so any library's handler may call it."""
        self._wake.set()

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def pause(self, seconds: float) -> bool:
        """Wait, but not past `stop`.

        Returns:
            Whether to go on.
        """
        return not self._stopping.wait(seconds)

    def _run(self) -> None:
        while not self.stopping:
            self._look()
            self._wake.wait(self._every)
            self._wake.clear()

    def _look(self) -> None:
        for manager in self.managers:
            try:
                mark = self._mark(manager)
            except CoordinatorUnavailable as error:
                self._report(reachable=False, why=str(error))
                return
            if manager not in self._marks or mark != self._marks[manager]:
                self._marks[manager] = mark
                self._tell(manager)
            self._report(reachable=True)

    def _tell(self, manager: str) -> None:
        for on_change in self._callbacks:
            try:
                on_change(manager)
            except Exception:
                logger.exception("a listener to changes of the agreement failed; the watch goes on")

    def _report(self, *, reachable: bool, why: str = "") -> None:
        if reachable is not self._reachable:
            self._reachable = reachable
            # At debug level, for the agent says it once for the process.
            if reachable:
                logger.debug("%s answers again", self._name)
            else:
                logger.debug("%s", why)
