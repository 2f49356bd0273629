"""Threads that run blocking calls, so that a call which never returns costs its caller no more than its limit.

A plain provider's socket timeout is per read, and a library may ignore it altogether; the only sure deadline is one
enforced from outside. A thread whose job was given up finishes it unheard and is reused afterwards. Handing a job
over and getting the answer back costs two lock hand-overs, about 20 µs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

IDLE_LIMIT = 64
"""Threads kept for the next call; more than these end when their job does."""


class Job(Generic[T]):
    """A call on its way through a worker."""

    __slots__ = ("_context", "_cut", "_done", "_error", "_given_up", "_listener", "_lock", "_result", "_work")

    def __init__(self, work: Callable[[], T], listener: Callable[[], None] | None = None) -> None:
        self._work = work
        self._context = copy_context()
        self._context.run(_current.set, self)
        self._cut: Callable[[], None] | None = None
        self._given_up = False
        self._done = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._listener = listener
        self._lock = threading.Lock()
        self._lock.acquire()

    def run(self) -> None:
        """Do the work; called on the worker's thread."""
        try:
            self._result = self._context.run(self._work)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits, never swallowed
            self._error = error
        self._done = True
        self._lock.release()
        if self._listener is not None:
            self._listener()

    def give_up(self) -> None:
        """Nobody waits any more: cut off what the work waits for, where it said how (`on_give_up`)."""
        self._given_up = True
        if self._cut is not None and not self._done:
            self._cut()

    def wait(self, timeout: float | None) -> bool:
        """Whether the work ended within `timeout` seconds."""
        if self._done:
            return True
        if self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            self._lock.release()
            return True
        return False

    def result(self) -> T:
        """What the finished work returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return cast("T", self._result)


_current: ContextVar[Job[Any] | None] = ContextVar("job", default=None)


def on_give_up(cut: Callable[[], None]) -> None:
    """Say how to end what the calling job waits for.

    Args:
        cut: Called from another thread, at most twice, when nobody waits for the job any more; must not block.
    """
    job = _current.get()
    if job is not None:
        job._cut = cut
        if job._given_up:
            cut()


class Workers:
    """A pool without a size limit: how many calls run at once is decided elsewhere, and none may wait for a thread."""

    def __init__(self, name: str = "switchgear-call") -> None:
        self._name = name
        self._idle: deque[SimpleQueue[Job[Any] | None]] = deque()
        self._busy: set[Job[Any]] = set()
        self._closed = False

    def submit(self, work: Callable[[], T], listener: Callable[[], None] | None = None) -> Job[T]:
        """Start a call.

        Args:
            work: The blocking call.
            listener: Called on the worker's thread when the call has ended.
        """
        job = Job(work, listener)
        self._busy.add(job)
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), name=self._name, daemon=True).start()
        inbox.put(job)
        return job

    def _serve(self, inbox: SimpleQueue[Job[Any] | None]) -> None:
        while (job := inbox.get()) is not None:
            last = len(self._idle) >= IDLE_LIMIT
            # Idle before the job ends would be too early, after its listener too late for the next caller.
            job.run()
            self._busy.discard(job)
            if last:
                return
            self._idle.append(inbox)
            del job
            if self._closed:
                self.close()

    def close(self) -> None:
        """Let the idle threads end, and the busy ones when their job does, whose wait is cut off."""
        self._closed = True
        for job in list(self._busy):
            job.give_up()
        with suppress(IndexError):  # another thread closes too
            while True:
                self._idle.pop().put(None)
