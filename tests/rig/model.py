"""A model that answers at once, as cheaply as a process can: `python -m tests.rig.model PORT`.

It speaks just enough of OpenAI's wire format. Two fields of the body, which proxies pass through, say how a stream
goes: `events` (how many text events) and `pause` (seconds before each, and before an answer that is not a stream).
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, cast

import uvloop

TEXT = "The sky is blue because air scatters short waves more than long ones. " * 8
COMPLETION = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "fast",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": TEXT}, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 120, "total_tokens": 132},
    }
).encode()
WHOLE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
WHOLE = WHOLE_HEAD % len(COMPLETION) + COMPLETION
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fast", "choices": [choice], **more}
    return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ROLE = _event({"role": "assistant", "content": ""})
WORD = _event({"content": "word "})
USAGE = {"prompt_tokens": 12, "completion_tokens": 10, "total_tokens": 22}
LAST = _event({}, "stop", usage=USAGE) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class _Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self) -> None:
        self._waiting = b""
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            head = self._waiting[:end].lower()
            at = head.find(b"content-length:")
            length = 0 if at < 0 else int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self._waiting) < end + 4 + length:
                return
            body = self._waiting[end + 4 : end + 4 + length]
            self._waiting = self._waiting[end + 4 + length :]
            wanted = json.loads(body) if b'"stream"' in body or b'"pause"' in body else {}
            if not wanted:
                self._transport.write(WHOLE)
            elif not wanted.get("stream"):
                asyncio.get_running_loop().call_later(float(wanted.get("pause", 0.0)), self._transport.write, WHOLE)
            else:
                self._task = asyncio.ensure_future(
                    self._stream(int(wanted.get("events", 10)), float(wanted.get("pause", 0.0)))
                )

    async def _stream(self, events: int, pause: float) -> None:
        assert self._transport is not None
        self._transport.write(STREAM_HEAD + ROLE)
        for _ in range(events):
            await asyncio.sleep(pause)
            self._transport.write(WORD)
        self._transport.write(LAST)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
