"""`POST /v1/chat/completions`, as plain ASGI: the hot path, streaming and not.

A caller who goes away is noticed while the model works: the request's task is cancelled, the provider's connection
closes, and the request is recorded as cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import HTTPConnection

from engine.async_manager import AsyncDualModelManager
from engine.core.errors import (
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    StreamBroken,
    SwitchgearError,
    UnknownManager,
)
from engine.core.messages import Account, Chunk, Role
from engine.deadlines import deadlines, timeout
from engine.gateway.access import ROLE_HEADER, Access
from engine.gateway.wire import Asked, StreamBody, completion_body, error_body, error_event, headers_of, parse, unasked
from engine.ids import new_id
from engine.recording import UNTRIED

log = logging.getLogger(__name__)

READER_GRACE: Final = 1.0
"""Seconds beyond a stream's deadline for its end to be recorded and read. A caller who has not even read what came
before the deadline counts as gone with it."""

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

WATCH_AFTER: Final = 0.05
"""Seconds until it is watched whether the caller goes away: a quicker answer is not worth a task of its own."""

ROLE: Final = ROLE_HEADER.encode()
JSON_TYPE: Final = (b"content-type", b"application/json")
SSE_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class ClientGone(Exception):
    """The caller closed the connection before the body was whole."""


class ChatCompletions:
    """The endpoint.

    Args:
        managers: The managers by name.
        access: Who may call.
        max_body: Largest body, bytes.
    """

    def __init__(self, managers: Mapping[str, AsyncDualModelManager], access: Access, max_body: int) -> None:
        self._managers = managers
        self._access = access
        self._max_body = max_body

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = dict(scope["headers"])
        try:
            only = self._admitted(scope, headers)
            body = await read_body(headers, receive, self._max_body)
            asked = parse(body, session=_latin(headers.get(b"x-switchgear-session")), only=only, request_id=new_id())
            manager = self._manager(asked.manager)
        except ClientGone:
            return
        except SwitchgearError as error:
            await send_error(send, error)
            return
        except Exception as error:
            log.exception("a request could not be read by a mistake of ours")
            await send_error(send, InternalError(f"internal error ({type(error).__name__})"))
            return
        await self._serve(manager, asked, receive, send)

    def _admitted(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Role | None:
        """Let a caller in; the role that an operator chooses for a test, `None` for everybody else."""
        chosen = headers.get(ROLE)
        if chosen is not None:
            return self._access.choose(HTTPConnection(dict(scope)), chosen.decode("latin-1"))
        self._access.admit(_latin(headers.get(b"authorization")), _latin(headers.get(b"origin")))
        return None

    def _manager(self, name: str) -> AsyncDualModelManager:
        manager = self._managers.get(name)
        if manager is None:
            raise unknown(name, self._managers)
        return manager

    async def _serve(self, manager: AsyncDualModelManager, asked: Asked, receive: Receive, send: Send) -> None:
        """Answer, and stop working when the caller goes away."""
        task = asyncio.current_task()
        assert task is not None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True
            task.cancel()

        watchers: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        timer = deadlines().call_later(WATCH_AFTER, lambda: watchers.append(loop.create_task(watch())))
        try:
            if asked.stream:
                await _stream(manager, asked, send)
            else:
                await _whole(manager, asked, send)
        except asyncio.CancelledError:
            if not gone:
                raise
            task.uncancel()
        finally:
            timer.cancel()
            for watcher in watchers:
                watcher.cancel()


async def _whole(manager: AsyncDualModelManager, asked: Asked, send: Send) -> None:
    try:
        reply = await manager.generate(asked.request)
    except SwitchgearError as error:
        await send_error(send, error)
        return
    except Exception as error:
        log.exception("a request failed by a mistake of ours")
        await send_error(send, _internal(error, manager, asked))
        return
    account = Account(
        reply.request_id,
        manager.name,
        reply.model,
        reply.role,
        reply.attempts,
        reply.failover,
        reply.epoch,
        reply.overhead_us,
    )
    await send_whole(send, 200, completion_body(reply, int(time.time())), headers_of(account))


async def _stream(manager: AsyncDualModelManager, asked: Asked, send: Send) -> None:
    """Stream an answer; a caller who does not read it holds nothing beyond the deadline."""
    sending = False
    loop, clock = asyncio.get_running_loop(), timeout(None)

    def over() -> None:
        clock.move(loop.time() + (0.0 if sending else READER_GRACE))

    deadline = deadlines().call_later(manager.total, over)
    body: StreamBody | None = None
    try:
        async with clock:
            try:
                async with contextlib.aclosing(manager.stream(asked.request)) as chunks:
                    async for chunk in chunks:
                        if body is None:
                            body = await _open(chunk, asked, send)
                        if event := body.event(chunk):
                            sending = True
                            await send({"type": "http.response.body", "body": event, "more_body": True})
                            sending = False
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            except SwitchgearError as error:
                await _fail(send, error, begun=body is not None)
            except Exception as error:
                log.exception("a stream failed by a mistake of ours")
                await _fail(send, _internal(error, manager, asked), begun=body is not None)
    except TimeoutError:
        # Nothing more can be sent, and an answer that is not completed is cut off by the server.
        log.warning("a caller stopped reading its stream; the connection is closed")
    finally:
        deadline.cancel()


async def _open(chunk: Chunk, asked: Asked, send: Send) -> StreamBody:
    account = chunk.account
    assert account is not None
    headers = [*SSE_HEADERS, *headers_of(account)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    return StreamBody(account.request_id, int(time.time()), include_usage=asked.include_usage)


async def _fail(send: Send, error: SwitchgearError, *, begun: bool) -> None:
    """An error before the stream is an HTTP error; inside it an event, and no `[DONE]`."""
    if not begun:
        await send_error(send, error)
        return
    if not isinstance(error, StreamBroken):
        broken = StreamBroken(f"the stream broke: {error.message}", request_id=error.request_id)
        error = broken
    await send({"type": "http.response.body", "body": error_event(error), "more_body": False})


def _internal(error: BaseException, manager: AsyncDualModelManager, asked: Asked) -> InternalError:
    told = InternalError(f"internal error ({type(error).__name__}); the gateway's log has the details")
    told.account = Account(asked.request.id, manager.name, UNTRIED, UNTRIED, 0, None, 0, 0)
    return told


def unknown(name: str, managers: Mapping[str, object]) -> UnknownManager:
    """The error for a `model` that names no manager."""
    msg = f"there is no manager named {name!r}; `model` must be one of {', '.join(sorted(managers))}"
    return UnknownManager(msg, param="model")


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: It is longer than `limit` bytes; nothing beyond that is read.
        InvalidRequest: It is compressed.
        ClientGone: The caller left.
    """
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        msg = f"the body is encoded as {encoding.decode('latin-1')}: send it as it is, without Content-Encoding"
        raise InvalidRequest(msg)
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than server.max_body ({limit} bytes); send less or raise the limit")


async def send_error(send: Send, error: SwitchgearError) -> None:
    """An error with everything that is known about the request."""
    headers = headers_of(error.account or unasked(error.request_id or new_id()))
    if error.retry_after is not None:
        headers.append((b"retry-after", str(-(-error.retry_after // 1)).partition(".")[0].encode()))
    if error.status_code == BodyTooLarge.status_code:
        headers.append((b"connection", b"close"))
    await send_whole(send, error.status_code, error_body(error), headers)


async def send_whole(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """One whole JSON response."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [JSON_TYPE, length, *headers]})
    await send({"type": "http.response.body", "body": body})


def _latin(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
