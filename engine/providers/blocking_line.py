"""Connections of a blocking HTTP library that another thread can cut.

A thread that waits in a socket cannot be told that its caller has left. Shutting the socket down under it wakes it
with an end of file, so the provider sees its client leave at once and the thread is free for the next call.
"""

# ruff: noqa: PLC0415  # the library is imported on first use

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from engine.workers import on_give_up


class Line:
    """The connection of one call, from the moment its request was sent until it is freed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._dead = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let the connection that a request of this context uses be known here, and be cut when nobody waits."""
        on_give_up(self.cut)
        token = _line.set(self)
        try:
            yield
        finally:
            _line.reset(token)

    def hold(self, connected: socket.socket | None) -> None:
        """The request was sent over this socket."""
        with self._lock:
            self._socket = connected
            if self._dead:
                self._shut()

    def cut(self) -> None:
        """Nobody waits any more: end the connection."""
        with self._lock:
            self._dead = True
            self._shut()

    def free(self) -> None:
        """The call is over and its connection serves others."""
        with self._lock:
            self._socket = None

    def _shut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                # Not the TLS socket's own method, which would take its state away from the thread that reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_line: ContextVar[Line | None] = ContextVar("line", default=None)


def cuttable_adapter() -> Any:
    """An adapter for a session of `requests` whose connections make themselves known to the `Line` of their context."""
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Plain(HTTPConnection):
        def request(self, *args: Any, **kwargs: Any) -> None:
            super().request(*args, **kwargs)
            _held(self)

    class Secure(HTTPSConnection):
        def request(self, *args: Any, **kwargs: Any) -> None:
            super().request(*args, **kwargs)
            _held(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

        def close(self) -> None:
            # The library leaves idle connections to the garbage collector.
            hosts = self.poolmanager.pools.keys()
            for host in hosts:
                self.poolmanager.pools[host].close()
            super().close()

    return Adapter()


def _held(connection: Any) -> None:
    line = _line.get()
    if line is not None:
        line.hold(connection.sock)
