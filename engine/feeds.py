"""Streams of a provider as a driver reads them: the next event within a time, and a close that reaches the provider.

Four of them, for a plain or an asynchronous provider read by a threaded or an asynchronous driver. All hold at most
`BACKLOG` events, so a slow reader slows the provider down instead of filling memory. All close the provider's stream at
the call's deadline, so a reader who keeps a stream and never comes back keeps no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from engine import standstill
from engine.core.messages import Call, Delta
from engine.deadlines import deadlines, timeout
from engine.loop import LoopThread
from engine.providers.base import Limit, Provider, is_async, timed_out
from engine.workers import Job, Workers

BACKLOG: Final = 64
"""Events read ahead of the caller."""


class PassedTime(Exception):
    """No event came within the time given."""


class _End:
    """The provider's stream is over."""


_END: Final = _End()

Item = Delta | BaseException | _End


class Feed(Protocol):
    """A stream read by a threaded driver."""

    def next(self, patience: float) -> Delta | None:
        """The next event, `None` at the end; raises `PassedTime`, or what the provider raised."""
        ...

    def close(self) -> None:
        """Stop reading; the provider's connection is closed soon after."""
        ...


class AsyncFeed(Protocol):
    """A stream read by an asynchronous driver."""

    async def next(self, patience: float) -> Delta | None:
        """The next event, `None` at the end; raises `PassedTime`, or what the provider raised."""
        ...

    async def close(self) -> None:
        """Stop reading and close the provider's connection."""
        ...


def open_feed(provider: Provider, call: Call, workers: Workers, loop: LoopThread) -> Feed:
    """Open a provider's stream for a threaded driver."""
    return _LoopFeed(provider, call, loop) if is_async(provider) else _WorkerFeed(provider, call, workers)


def open_async_feed(provider: Provider, call: Call, workers: Workers) -> AsyncFeed:
    """Open a provider's stream for an asynchronous driver."""
    return _DirectFeed(provider, call) if is_async(provider) else _BridgedFeed(provider, call, workers)


class _Pump(ABC):
    """Reads a plain provider's stream on a worker thread, at most `BACKLOG` events ahead."""

    def __init__(self, provider: Provider, call: Call) -> None:
        self._provider, self._call = provider, call
        self.room = threading.Semaphore(BACKLOG)
        self.closed = False
        self.job: Job[None] | None = None
        self._until = time.monotonic() + (call.limits.total or threading.TIMEOUT_MAX / 2)

    def run(self) -> None:
        try:
            stream = self._provider.stream(self._call)
            assert isinstance(stream, Iterator)
            for delta in stream:
                in_time = self.room.acquire(timeout=max(0.0, self._until - time.monotonic()))
                if self.closed or not in_time:
                    close = getattr(stream, "close", None)
                    if close is not None:
                        close()
                    return
                self.put(delta)
        except BaseException as error:  # noqa: BLE001 - handed to the reader, never swallowed
            self.put(error)
        else:
            self.put(_END)

    @abstractmethod
    def put(self, item: Item) -> None:
        """Hand an event to the reader."""

    def stop(self) -> None:
        self.closed = True
        self.room.release()
        if self.job is not None:
            self.job.give_up()


class _WorkerFeed(_Pump):
    """A plain provider for a threaded driver."""

    def __init__(self, provider: Provider, call: Call, workers: Workers) -> None:
        super().__init__(provider, call)
        self._items: SimpleQueue[Item] = SimpleQueue()
        self.job = workers.submit(self.run)

    def put(self, item: Item) -> None:
        self._items.put(item)

    def next(self, patience: float) -> Delta | None:
        item = _taken(self._items, patience)
        self.room.release()
        return _opened(item)

    def close(self) -> None:
        self.stop()


class _LoopFeed:
    """An asynchronous provider for a threaded driver."""

    def __init__(self, provider: Provider, call: Call, loop: LoopThread) -> None:
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._loop = loop.loop
        self._room = asyncio.Semaphore(BACKLOG)
        self._task = loop.submit(self._pump(provider, call))

    async def _pump(self, provider: Provider, call: Call) -> None:
        stream = provider.stream(call)
        assert isinstance(stream, AsyncIterator)
        clock = timeout(call.limits.total)
        try:
            async with clock, contextlib.aclosing(stream) as deltas:  # type: ignore[type-var]
                async for delta in deltas:
                    await self._room.acquire()
                    self._items.put(delta)
        except TimeoutError as error:
            self._items.put(timed_out(Limit.TOTAL, call.limits.total) if clock.expired else error)
        except BaseException as error:  # handed to the reader
            self._items.put(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self._items.put(_END)

    def next(self, patience: float) -> Delta | None:
        item = _taken(self._items, patience)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is read ahead any more
            self._loop.call_soon_threadsafe(self._room.release)
        return _opened(item)

    def close(self) -> None:
        self._task.cancel()


class _DirectFeed:
    """An asynchronous provider for an asynchronous driver: no queue, the reader pulls."""

    def __init__(self, provider: Provider, call: Call) -> None:
        stream = provider.stream(call)
        assert isinstance(stream, AsyncIterator)
        self._stream = stream
        total = call.limits.total
        self._deadline = None if total is None else deadlines().call_later(total, self._late)
        self._ending: asyncio.Task[None] | None = None

    def _late(self) -> None:
        self._ending = asyncio.ensure_future(self.close())

    async def next(self, patience: float) -> Delta | None:
        try:
            async with timeout(patience) as limit:
                return await anext(self._stream, None)
        except TimeoutError:
            if limit.expired:
                raise PassedTime from None
            raise

    async def close(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                await close()


class _BridgedFeed(_Pump):
    """A plain provider for an asynchronous driver."""

    def __init__(self, provider: Provider, call: Call, workers: Workers) -> None:
        super().__init__(provider, call)
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self.job = workers.submit(self.run)

    def put(self, item: Item) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def next(self, patience: float) -> Delta | None:
        try:
            async with timeout(patience):
                item = await self._items.get()
        except TimeoutError:
            raise PassedTime from None
        self.room.release()
        return _opened(item)

    async def close(self) -> None:
        self.stop()


def _taken(items: SimpleQueue[Item], patience: float) -> Item:
    """The next item of a queue."""
    taken: list[Item] = []

    def take(seconds: float) -> bool:
        with contextlib.suppress(Empty):
            taken.append(items.get(timeout=seconds))
        return bool(taken)

    if not standstill.wait(take, patience):
        raise PassedTime
    return taken[0]


def _opened(item: Item) -> Delta | None:
    if isinstance(item, Delta):
        return item
    if isinstance(item, _End):
        return None
    raise item
