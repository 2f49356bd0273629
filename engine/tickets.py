"""Tickets: how a caller learns that its record is committed.

Cheap enough for every request: a lock as gate for a thread that waits, and for event loops one wake-up per loop and
commit, however many of its tasks are waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

log = logging.getLogger(__name__)

_changing = threading.Lock()
"""Guards `done` against waiters that arrive while a commit completes its tickets; held for moments only."""


class Ticket:
    """The promise that records are written.

    Attributes:
        done: True once they are committed, or could not be.
        error: Why they could not be; they stay queued and are written when the store recovers, unless the error
            is `RecordRejected`. `None` while pending and on success.
    """

    __slots__ = ("_callbacks", "_futures", "_gate", "done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: Exception | None = None
        self._gate = threading.Lock()
        self._gate.acquire()
        self._callbacks: list[Callable[[Ticket], None]] | None = None
        self._futures: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the records are committed or failed.

        Args:
            timeout: Seconds, `None` for as long as it takes.

        Returns:
            Whether it is decided; `error` then says how.
        """
        if not self.done and self._gate.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            self._gate.release()
        return self.done

    def add_done_callback(self, call: Callable[[Ticket], None]) -> None:
        """Have `call(ticket)` run when it is decided: on the writer thread, or at once when it is already.

        It must be short and must not wait for another ticket.
        """
        with _changing:
            if not self.done:
                self._callbacks = [*(self._callbacks or ()), call]
                return
        call(self)

    def as_future(self, loop: asyncio.AbstractEventLoop | None = None) -> asyncio.Future[None]:
        """A future of an event loop that is done with the ticket and raises its error.

        Args:
            loop: The loop that waits, by default the running one.
        """
        loop = loop or asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with _changing:
            if not self.done:
                self._futures = [*(self._futures or ()), (loop, future)]
                return future
        _settle([(future, self.error)])
        return future


def complete(tickets: Iterable[Ticket], error: Exception | None) -> None:
    """Decide tickets together; those decided already stay as they are.

    Args:
        tickets: All tickets of one commit.
        error: Why it failed, `None` when it succeeded.
    """
    callbacks: list[tuple[Callable[[Ticket], None], Ticket]] = []
    waiting: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], Exception | None]]] = {}
    with _changing:
        for ticket in tickets:
            if ticket.done:
                continue
            ticket.error = error
            ticket.done = True
            ticket._gate.release()
            callbacks.extend((call, ticket) for call in ticket._callbacks or ())
            for loop, future in ticket._futures or ():
                waiting.setdefault(loop, []).append((future, error))
    for loop, futures in waiting.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle, futures)
    for call, ticket in callbacks:
        try:
            call(ticket)
        except Exception:
            log.exception("a callback of a recorder ticket failed")


def _settle(futures: list[tuple[asyncio.Future[None], Exception | None]]) -> None:
    for future, error in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


DONE: Final = Ticket()
"""A ticket that is done already."""
complete([DONE], None)
