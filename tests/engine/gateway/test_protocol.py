"""A head and the beginning of its body leave together, and nothing is held longer than that."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from engine.gateway.protocol import Joining
from tests.engine.gateway.conftest import Serve

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Wire(asyncio.Transport):
    """Notes what is written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.ended = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


@pytest.fixture
def wire() -> Wire:
    return Wire()


async def test_a_head_waits_for_its_body(wire: Wire) -> None:
    joining = Joining(wire)
    joining.write(HEAD)
    assert wire.written == []
    joining.write(b"body")
    joining.write(b"more")
    assert wire.written == [HEAD + b"body", b"more"]


async def test_a_body_that_looks_like_a_head_is_sent_with_what_follows(wire: Wire) -> None:
    joining = Joining(wire)
    joining.write(HEAD)
    joining.write(b"HTTP/1.1 is a protocol")
    assert wire.written == [HEAD + b"HTTP/1.1 is a protocol"]


async def test_a_head_that_nothing_follows_is_sent_in_the_next_turn(wire: Wire) -> None:
    Joining(wire).write(HEAD)
    await asyncio.sleep(0)
    assert wire.written == [HEAD]


async def test_closing_sends_what_is_held(wire: Wire) -> None:
    joining = Joining(wire)
    joining.write(HEAD)
    joining.close()
    assert (wire.written, wire.ended) == ([HEAD], "closed")


async def test_aborting_sends_nothing(wire: Wire) -> None:
    joining = Joining(wire)
    joining.write(HEAD)
    joining.abort()
    assert (wire.written, wire.ended) == ([], "aborted")


def test_a_caller_that_expects_100_continue_gets_it_before_it_sends_its_body(serve: Serve) -> None:
    body = b'{"model": "nobody", "messages": []}'
    with socket.create_connection(("127.0.0.1", serve().port), timeout=60) as caller:
        caller.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nexpect: 100-continue\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        assert caller.recv(1000).startswith(b"HTTP/1.1 100 Continue\r\n")
        caller.sendall(body)
        assert caller.recv(10_000).startswith(b"HTTP/1.1 4")


def test_an_idle_connection_is_closed_after_a_while_and_a_busy_one_is_not(serve: Serve) -> None:
    running = serve()
    running.server.config.timeout_keep_alive = 1
    with (
        socket.create_connection(("127.0.0.1", running.port), timeout=60) as idle,
        socket.create_connection(("127.0.0.1", running.port), timeout=60) as busy,
    ):
        for caller in (idle, busy):
            _ask(caller)
        for _ in range(4):
            time.sleep(0.4)
            _ask(busy)
        assert idle.recv(1) == b"", "closed by the gateway"


def _ask(caller: socket.socket) -> None:
    caller.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    assert caller.recv(10_000).startswith(b"HTTP/1.1 200")
