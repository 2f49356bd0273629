"""Clients: as little as can be between a test and a socket, so that what is measured is the server.

All of them speak HTTP/1.1 on keep-alive connections, in the test's own process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

PROMPT = [{"role": "user", "content": "Why is the sky blue? " * 20}]


@dataclass(slots=True)
class Answer:
    """One response.

    Attributes:
        status: The HTTP status.
        request_id: Whose record it must be, empty when there was no header.
        body: The body without chunk sizes.
        events: When each piece of the body came, seconds after the request was sent.
        seconds: Until the whole body was there.
    """

    status: int
    request_id: str
    body: bytes
    events: list[float]
    seconds: float

    @property
    def whole(self) -> bool:
        """Whether a client would take it for a finished answer."""
        done = b"data: [DONE]\n\n" in self.body
        return self.status == 200 and (done if self.body.startswith((b"data:", b":")) else bool(self.body))


@dataclass(slots=True)
class Load:
    """What a number of clients got done.

    Attributes:
        seconds: How long it took.
        latencies: Of every answer, seconds.
        failures: Answers with another status than 200.
    """

    seconds: float
    latencies: list[float] = field(default_factory=list)
    failures: int = 0

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return len(self.latencies) / self.seconds

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.latencies)


@dataclass(slots=True)
class Streams:
    """How streams arrived.

    Attributes:
        first: Seconds to the first event with text, one a stream.
        gaps: Seconds between two pieces, over all streams.
    """

    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


def body_of(**fields: Any) -> bytes:
    """A request's body for the manager `chat`."""
    return json.dumps({"model": "chat", "messages": PROMPT, **fields}).encode()


class Client:
    """One keep-alive connection.

    Args:
        port: On 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> Answer:
        """Send a request and read its answer.

        Raises:
            OSError, asyncio.IncompleteReadError: The connection broke.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        reader, writer = self._streams
        began = time.perf_counter()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        headers = dict(line.split(b": ", 1) for line in head[:-4].lower().split(b"\r\n")[1:])
        request_id = headers.get(b"x-switchgear-request-id", b"").decode()
        events: list[float] = []
        if b"content-length" in headers:
            parts = [await reader.readexactly(int(headers[b"content-length"]))]
        else:
            parts = []
            while size := int(await reader.readuntil(b"\r\n"), 16):
                parts.append((await reader.readexactly(size + 2))[:-2])
                events.append(time.perf_counter() - began)
            await reader.readexactly(2)
        return Answer(status, request_id, b"".join(parts), events, time.perf_counter() - began)

    def close(self) -> None:
        """Close the connection, in the middle of an answer if need be."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def load(port: int, *, clients: int, seconds: float, body: bytes | None = None) -> Load:
    """Ask from several clients, each as fast as it is answered.

    Args:
        port: Whom.
        clients: How many ask at once.
        seconds: How long.
        body: The request.
    """
    sent = body or body_of()
    found = Load(0.0)
    began = time.perf_counter()

    async def one() -> None:
        client = Client(port)
        while time.perf_counter() - began < seconds:
            answer = await client.ask(sent)
            if answer.status == 200:
                found.latencies.append(answer.seconds)
            else:
                found.failures += 1
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    found.seconds = time.perf_counter() - began
    return found


async def time_streams(port: int, *, streams: int, events: int, pause: float) -> Streams:
    """Stream one after the other, and note when what came.

    Args:
        port: Whom.
        streams: How many.
        events: Text events of each.
        pause: Seconds between two events.
    """
    client, found = Client(port), Streams()
    body = body_of(stream=True, events=events, pause=pause)
    for _ in range(streams):
        answer = await client.ask(body)
        assert answer.whole, answer.body[-200:]
        texts = answer.events[-events - 2 :] if len(answer.events) > events + 2 else answer.events
        found.first.append(texts[0])
        found.gaps.extend(after - before for before, after in itertools.pairwise(texts))
    client.close()
    return found


async def hold_streams(port: int, *, streams: int, events: int, pause: float) -> list[Answer]:
    """Many slow streams at once; returns all answers."""
    body = body_of(stream=True, events=events, pause=pause)

    async def one(place: int) -> Answer:
        await asyncio.sleep(place * 0.002)
        client = Client(port)
        try:
            return await client.ask(body)
        finally:
            client.close()

    return list(await asyncio.gather(*(one(place) for place in range(streams))))
