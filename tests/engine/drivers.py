"""Both managers behind one plain face, providers that do as they are told, and a look into the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

from engine import AsyncDualModelManager, Chunk, DualModelManager, FinishReason, Reply, Usage
from engine.config import Config
from engine.core.agreement import Document
from engine.core.messages import Call, Completion, Delta, Role
from engine.core.outcomes import Category, ProviderFailure
from engine.exchange import Exchange
from engine.instance import Instance
from engine.providers.base import Provider
from engine.status import ManagerStatus
from engine.store import Store

T = TypeVar("T")


# -- the two managers --------------------------------------------------------------------------------------------------


class Driver(Protocol):
    """What the contract says of both."""

    kind: str

    def generate(self, prompt: Any) -> Reply: ...
    def stream(self, prompt: Any) -> Iterator[Chunk]: ...
    def status(self) -> ManagerStatus: ...
    def override(self, role: str, **given: Any) -> Document: ...
    def clear_override(self, **given: Any) -> Document: ...
    def close(self) -> None: ...

    @property
    def exchange(self) -> Exchange: ...

    @property
    def instance(self) -> Instance: ...


class Threaded:
    """`DualModelManager` as it is."""

    kind = "threads"

    def __init__(self, config: Any, name: str = "chat", **given: Any) -> None:
        self.manager = DualModelManager.from_config(config, name, **given)
        self.exchange, self.instance = self.manager._exchange, self.manager._instance

    def __getattr__(self, name: str) -> Any:
        return getattr(self.manager, name)


class Looped:
    """`AsyncDualModelManager` on a loop of its own, driven from plain code."""

    kind = "asyncio"

    def __init__(self, config: Any, name: str = "chat", **given: Any) -> None:
        self.loop = asyncio.new_event_loop()
        try:
            self.manager = AsyncDualModelManager.from_config(config, name, **given)
        except BaseException:
            self.loop.close()
            raise
        self.exchange, self.instance = self.manager._exchange, self.manager._instance

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)  # type: ignore[arg-type, no-any-return]

    def generate(self, prompt: Any) -> Reply:
        return self.run(self.manager.generate(prompt))

    def stream(self, prompt: Any) -> Iterator[Chunk]:
        chunks = self.manager.stream(prompt)
        try:
            while (chunk := self.run(anext(chunks, None))) is not None:
                yield chunk
        finally:
            self.run(chunks.aclose())

    def status(self) -> ManagerStatus:
        return self.run(self.manager.status())

    def override(self, role: str, **given: Any) -> Document:
        return self.run(self.manager.override(role, **given))

    def clear_override(self, **given: Any) -> Document:
        return self.run(self.manager.clear_override(**given))

    def close(self) -> None:
        if not self.loop.is_closed():
            self.run(self.manager.close())
            self.run(self.loop.shutdown_asyncgens())
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()


DRIVERS: tuple[type[Threaded | Looped], ...] = (Threaded, Looped)


# -- providers that do as they are told --------------------------------------------------------------------------------


class Hang:
    """Take this long before the answer."""

    def __init__(self, seconds: float, then: Any = "late") -> None:
        self.seconds, self.then = seconds, then


Behaviour = Callable[[Call], Any]
"""What a call meets: a text, a list of deltas, an exception to raise, or a `Hang`."""


class _Told:
    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or (lambda call: f"{call.model} answers")
        self.calls: list[Call] = []
        self.closed = 0
        self.streams_closed = 0

    def _next(self, call: Call) -> Any:
        self.calls.append(call)
        return self.behaviour(call)

    @property
    def models(self) -> list[str]:
        return [call.model for call in self.calls]


def _whole(said: Any) -> Completion:
    if isinstance(said, BaseException):
        raise said
    if isinstance(said, Completion):
        return said
    return Completion(said, FinishReason.STOP, Usage(5, 3))


def _pieces(said: Any) -> list[Any]:
    if isinstance(said, BaseException):
        return [said]
    if isinstance(said, list):
        return said
    words = [Delta(text=word + " ") for word in said.split(" ")]
    return [*words, Delta(finish_reason=FinishReason.STOP, usage=Usage(5, len(words)))]


class Plain(_Told):
    """A provider that blocks."""

    def generate(self, call: Call) -> Completion:
        said = self._next(call)
        if isinstance(said, Hang):
            time.sleep(said.seconds)
            said = said.then
        return _whole(said)

    def stream(self, call: Call) -> Iterator[Delta]:
        try:
            for piece in _pieces(self._next(call)):
                if isinstance(piece, Hang):
                    time.sleep(piece.seconds)
                elif isinstance(piece, BaseException):
                    raise piece
                else:
                    yield piece
        finally:
            self.streams_closed += 1

    def close(self) -> None:
        self.closed += 1


class Awaited(_Told):
    """A provider that is awaited."""

    async def generate(self, call: Call) -> Completion:
        said = self._next(call)
        if isinstance(said, Hang):
            await asyncio.sleep(said.seconds)
            said = said.then
        return _whole(said)

    async def stream(self, call: Call) -> AsyncIterator[Delta]:
        try:
            for piece in _pieces(self._next(call)):
                if isinstance(piece, Hang):
                    await asyncio.sleep(piece.seconds)
                elif isinstance(piece, BaseException):
                    raise piece
                else:
                    yield piece
        finally:
            self.streams_closed += 1

    async def aclose(self) -> None:
        self.closed += 1


MANNERS: tuple[type[Plain | Awaited], ...] = (Plain, Awaited)


def failure(category: Category, status: int | None = 503, retry_after: float | None = None) -> ProviderFailure:
    """What a provider raises."""
    return ProviderFailure(category, status, retry_after, detail=f"told to be {category}")


def by_model(**behaviours: Any) -> Behaviour:
    """`pro` and `flash` each with their own behaviour: a value, or a function of the call."""

    def behave(call: Call) -> Any:
        said = behaviours["pro" if call.model == "gemini-2.5-pro" else "flash"]
        return said(call) if callable(said) else said

    return behave


# -- what is on record -------------------------------------------------------------------------------------------------


def rows(store: Path | Config | Store, table: str, where: str = "1") -> list[dict[str, Any]]:
    """Rows of a table, oldest first."""
    if not isinstance(store, Store):
        store = Store(store.store_path if isinstance(store, Config) else store)
    order = {"attempts": "request_id, n", "requests": "id"}.get(table, "rowid")
    with store.reader() as connection:
        found = connection.execute(f"SELECT * FROM {table} WHERE {where} ORDER BY {order}")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def outstanding(exchange: Exchange) -> int:
    """Permits that have not come back."""
    now = exchange.clock.monotonic()
    with exchange.lock:
        return sum(exchange.board.lines[role].breaker.snapshot(now).outstanding for role in Role)


def statements(store: Path, *texts: str) -> None:
    """Change a store behind everybody's back."""
    import sqlite3

    with closing(sqlite3.connect(store)) as connection:
        for text in texts:
            connection.execute(text)
        connection.commit()


def texts(chunks: Sequence[Chunk]) -> str:
    """The text of a stream."""
    return "".join(chunk.text for chunk in chunks)


__all__ = [
    "DRIVERS",
    "MANNERS",
    "Awaited",
    "Driver",
    "Hang",
    "Looped",
    "Plain",
    "Provider",
    "Threaded",
    "by_model",
    "failure",
    "outstanding",
    "rows",
    "statements",
    "texts",
]
