"""The server: routes, faults on the way, and a log of every request it saw."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from engine.providers.answers import PrefillRefused
from tests.patience import PATIENCE_S
from tests.upstream.faults import ERRORS, HEALTHY, Fault, Script
from tests.upstream.wires import Event, Gemini, OpenAI, Wire, camel, narrow, widened

EVERY_MODEL = "*"


@dataclass(slots=True)
class Seen:
    """One request: what came, and how it ended.

    Attributes:
        at: Monotonic seconds of its arrival.
        wire: `gemini` or `openai`.
        path: With the query.
        model: The model asked for.
        key: The API key it carried.
        stream: Whether a stream was asked for.
        body: Parsed.
        headers: Names in lower case.
        events: Text events sent.
        ended: `complete`, `fault`, `disconnected` (the client left), or empty while it runs.
        ended_at: Monotonic seconds of the end.
    """

    at: float
    wire: str
    path: str
    model: str
    key: str
    stream: bool
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    events: int = 0
    ended: str = ""
    ended_at: float | None = None


@dataclass(slots=True)
class _Listener:
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    runner: web.AppRunner
    site: web.SockSite | None = None
    port: int = 0


class _Dropped(Exception):  # not an error: the fault wanted it
    """A fault ended the answer."""


class _Reset(_Dropped):
    """A fault ended the answer with an RST."""


class Upstream:
    """Gemini and OpenAI on one port, in a thread of its own.

    Thread-safe: faults may be set and the log read from anywhere while it serves. With a context it speaks TLS.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._scripts: dict[str, Script] = {}
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        self._listener: _Listener | None = None

    # Faults and log

    def set(self, model: str, fault: Fault = HEALTHY) -> None:
        """Let a model (or `*`) behave so from now on."""
        self.script(model, Script(fault))

    def script(self, model: str, script: Script) -> None:
        """Let a model (or `*`) follow a script from now on."""
        with self._lock:
            self._scripts[model] = script

    def first(self, model: str, faults: Sequence[Fault], then: Fault = HEALTHY) -> None:
        """Let a model's next requests meet these faults, one each, and `then` all that follow."""
        self.script(model, Script(then, faults))

    def heal(self) -> None:
        """Forget every fault."""
        with self._lock:
            self._scripts.clear()

    def seen(self, model: str | None = None) -> list[Seen]:
        """Requests so far, in order of arrival; of one model when given."""
        with self._lock:
            return [one for one in self._seen if model is None or one.model == model]

    def forget(self) -> None:
        """Empty the log."""
        with self._lock:
            self._seen.clear()

    # Life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._listener is not None, "start() first"
        return self._listener.port

    @property
    def gemini_url(self) -> str:
        """`base_url` of the Gemini providers."""
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        """`base_url` of the OpenAI provider."""
        return f"{self.gemini_url}/v1"

    def start(self, port: int = 0) -> None:
        """Serve on a port (0: a free one) in a thread; returns when connections are accepted."""
        loop = asyncio.new_event_loop()
        runner = web.AppRunner(self.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        thread = threading.Thread(target=loop.run_forever, name="upstream", daemon=True)
        thread.start()
        self._listener = _Listener(loop, thread, runner, port=port)
        self._run(runner.setup())
        self.accept()

    def stop(self) -> None:
        """Close every connection and end the thread."""
        listener = self._listener
        if listener is None:
            return
        self._run(listener.runner.cleanup())
        listener.loop.call_soon_threadsafe(listener.loop.stop)
        listener.thread.join(PATIENCE_S)
        listener.loop.close()
        self._listener = None

    def refuse(self) -> None:
        """Stop listening: new connections are refused and open ones closed; `accept` undoes it."""
        listener = self._listener
        assert listener is not None
        if listener.site is not None:
            self._run(listener.site.stop())
            listener.site = None
        self.drop_connections()

    def accept(self) -> None:
        """Listen again, on the same port."""
        listener = self._listener
        assert listener is not None
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", listener.port))
        listener.port = server.getsockname()[1]
        listener.site = web.SockSite(listener.runner, server, ssl_context=self._context)
        self._run(listener.site.start())

    def drop_connections(self) -> None:
        """Close connections that are open, as a server does that tires of idle ones."""
        assert self._listener is not None
        server = self._listener.runner.server
        assert server is not None

        async def drop() -> None:
            for handler in list(server.connections):
                if handler.transport is not None:
                    handler.transport.close()

        self._run(drop())

    def _run(self, work: Any) -> Any:
        assert self._listener is not None
        return asyncio.run_coroutine_threadsafe(work, self._listener.loop).result(PATIENCE_S)

    # Serving

    def app(self) -> web.Application:
        """The application, for running it elsewhere than in a thread of ours."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/{version:v1|v1beta|v1alpha}/models/{target}", self._gemini)
        app.router.add_post("/v1/chat/completions", self._openai)
        app.router.add_post("/_faults", self._post_faults)
        app.router.add_delete("/_faults", self._delete_faults)
        app.router.add_get("/_requests", self._get_requests)
        app.router.add_delete("/_requests", self._delete_requests)
        return app

    async def _post_faults(self, request: web.Request) -> web.Response:
        given = await request.json()
        try:
            then = Fault.of(given.get("faults") or {})
            first = [Fault.of(one) for one in given.get("sequence") or ()]
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        self.script(given.get("model", EVERY_MODEL), Script(then, first, given.get("up"), given.get("down")))
        return web.json_response({"ok": True})

    async def _delete_faults(self, _request: web.Request) -> web.Response:
        self.heal()
        return web.json_response({"ok": True})

    async def _get_requests(self, request: web.Request) -> web.Response:
        return web.json_response([asdict(one) for one in self.seen(request.query.get("model"))])

    async def _delete_requests(self, _request: web.Request) -> web.Response:
        self.forget()
        return web.json_response({"ok": True})

    async def _gemini(self, request: web.Request) -> web.StreamResponse:
        model, _, verb = request.match_info["target"].partition(":")
        if verb not in ("generateContent", "streamGenerateContent"):
            return web.json_response({"error": {"code": 404, "status": "NOT_FOUND", "message": verb}}, status=404)
        wire = Gemini(numbers="enum-encoding=int" in request.query.get("$alt", ""))
        sse = request.query.get("alt") == "sse"
        key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
        style = None if verb == "generateContent" else ("sse" if sse else "array")
        return await self._serve(request, wire, model, key, style)

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        return await self._serve(request, OpenAI(), body["model"], key, "sse" if body.get("stream") else None)

    async def _serve(
        self, request: web.Request, wire: Wire, model: str, key: str, style: str | None
    ) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = camel(await request.json()) if wire.name == "gemini" else await request.json()
        seen = Seen(time.monotonic(), wire.name, request.path_qs, model, key, style is not None, body, headers)
        with self._lock:
            self._seen.append(seen)
            script = self._scripts.get(model) or self._scripts.get(EVERY_MODEL)
            fault = script.next() if script is not None else HEALTHY
        try:
            response = await _answer(request, wire, seen, fault, style)
            seen.ended = "complete"
        except _Dropped:
            seen.ended = "fault"
            raise asyncio.CancelledError from None
        except (asyncio.CancelledError, ConnectionError):
            seen.ended = seen.ended or "disconnected"
            raise
        else:
            return response
        finally:
            seen.ended_at = time.monotonic()


async def _answer(request: web.Request, wire: Wire, seen: Seen, fault: Fault, style: str | None) -> web.StreamResponse:
    await asyncio.sleep(fault.delay)
    if fault.hang:
        await asyncio.Event().wait()
    if fault.reset:
        _reset(request)
        raise _Dropped
    if fault.body is not None:
        text = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
        headers = {**fault.headers, "content-type": fault.content_type}
        return web.Response(status=fault.status or 200, body=text.encode(), headers=headers)
    name = fault.error if fault.error_at is None else ""
    if fault.blocked and wire.name == "openai":
        name = "content_filter"
    try:
        answer = None if name else wire.answer(narrow(seen.body) if fault.wide else seen.body, fault)
    except PrefillRefused:
        answer, name = None, "prefill_refused"
    if answer is None:
        known = ERRORS[name]
        wire_headers = known.headers if wire.name == "openai" else {}
        headers = {**wire_headers, **fault.headers, "content-type": fault.content_type}
        body = [wire.error(name)] if style == "array" else wire.error(name)
        return web.Response(status=fault.status or known.status, body=json.dumps(body).encode(), headers=headers)
    if fault.wide:
        answer = widened(answer)
    if style is None:
        return await _send_whole(request, fault, json.dumps(wire.whole(answer, fault, seen.model)).encode())
    events = wire.events(answer, fault, seen.model)
    return await _send_stream(request, fault, _paced(events, wire, seen, fault), style)


async def _send_whole(request: web.Request, fault: Fault, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={**fault.headers, "content-type": fault.content_type})
    response.content_length = len(body)
    await response.prepare(request)
    if fault.stall_after is not None or fault.cut_after is not None:
        await response.write(body[: len(body) // 2])
        if fault.stall_after is not None:
            await asyncio.Event().wait()
        _close(request)
        raise _Dropped
    size = max(1, len(body) // 10) if fault.drip else len(body)
    for start in range(0, len(body), size):
        await response.write(body[start : start + size])
        await asyncio.sleep(fault.drip)
    await response.write_eof()
    return response


async def _paced(events: Any, wire: Wire, seen: Seen, fault: Fault) -> AsyncIterator[Event | str]:
    """The events with their faults: pauses here, broken ones as raw text, `_Dropped` where the stream ends."""
    await asyncio.sleep(fault.first_token)
    for place, event in enumerate(events):
        if event.text:
            if seen.events == fault.error_at:
                yield Event(wire.error(fault.error or "unavailable"))
                return
            if seen.events == fault.empty_at:
                yield Event({})
            if seen.events == fault.stall_after:
                await asyncio.Event().wait()
            if seen.events == fault.cut_after:
                raise _Dropped
            if seen.events == fault.reset_after:
                raise _Reset
            if seen.events == fault.malformed_at:
                yield '{"candidates": [{"content": }]'
                return
            if seen.events:
                await asyncio.sleep(fault.event_delay)
        yield event
        seen.events += event.text
        if not place and not event.text:
            await asyncio.sleep(fault.role_delay)


async def _send_stream(
    request: web.Request, fault: Fault, events: AsyncIterator[Event | str], style: str
) -> web.StreamResponse:
    kind = "text/event-stream" if style == "sse" else "application/json; charset=UTF-8"
    response = web.StreamResponse(headers={**fault.headers, "content-type": kind})
    if fault.close_delimited:
        response.force_close()
        response.headers["connection"] = "close"
    else:
        response.enable_chunked_encoding()
    await response.prepare(request)
    encode = _sse if style == "sse" else _element
    count = sent = 0
    try:
        async for event in events:
            data = encode(event, fault, first=count == 0)
            if fault.bytes is not None and sent + len(data) >= fault.bytes:
                await _write(response, data[: fault.bytes - sent], fault.split)
                await response.write_eof()
                return response
            await _write(response, data, fault.split)
            sent += len(data)
            count += 1
    except _Reset:
        _reset(request)
        raise
    except _Dropped:
        _close(request)
        raise
    if style == "array":
        await _write(response, b"]" if count else b"[]", fault.split)
    await response.write_eof()
    return response


def _sse(event: Event | str, fault: Fault, *, first: bool) -> bytes:
    del first
    end = "\r\n" if fault.crlf else "\n"
    data = event if isinstance(event, str) else event.data
    indent = 1 if fault.multiline else None
    text = data if isinstance(data, str) else json.dumps(data, indent=indent, ensure_ascii=not fault.wide)
    lines = [": OPENROUTER PROCESSING", ""] if fault.comments else []
    lines += [f"data: {line}" for line in text.split("\n")]
    return (end.join([*lines, "", ""])).encode()


def _element(event: Event | str, fault: Fault, *, first: bool) -> bytes:
    text = event if isinstance(event, str) else json.dumps(event.data, indent=1, ensure_ascii=not fault.wide)
    return (("[" if first else ",\r\n") + text).encode()


async def _write(response: web.StreamResponse, data: bytes, split: int) -> None:
    size = split or max(1, len(data))
    for start in range(0, len(data), size):
        await response.write(data[start : start + size])
        if split:
            await asyncio.sleep(0)


def _close(request: web.Request) -> None:
    """End the connection in an orderly way, in the middle of what was announced."""
    if request.transport is not None:
        request.transport.close()


def _reset(request: web.Request) -> None:
    """End the connection with an RST."""
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
