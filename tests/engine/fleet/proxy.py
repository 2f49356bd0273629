"""A TCP proxy that stands between an instance and its server, and can break the line as networks do."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self


class Proxy:
    """Forwards bytes to a port of this machine.

    `cut` drops what is sent in a direction without closing anything, as a network partition does: both ends wait.
    `refuse` closes every connection and takes no new one, as a dead host's neighbour does. `delay` holds every chunk
    back. `heal` ends all of it; connections whose bytes were dropped are closed, since their streams have holes.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay = 0.0
        self._lost = {"up": False, "down": False}
        self._refusing = False
        self._closing = False
        self._lock = threading.Lock()
        self._open: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop_all()

    def cut(self, *, up: bool = True, down: bool = True) -> None:
        """Lose everything sent towards the server (`up`), from it (`down`), or both."""
        self._lost = {"up": up, "down": down}

    def refuse(self) -> None:
        """Close every connection, now and until healed."""
        self._refusing = True
        self._drop_all()

    def heal(self) -> None:
        """Forward again."""
        holes = any(self._lost.values())
        self._lost = {"up": False, "down": False}
        self._refusing = False
        self.delay = 0.0
        if holes:
            self._drop_all()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 2.0)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._open.append((client, server))
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """Forward both ways until both have ended."""
        back = threading.Thread(target=self._forward, args=(server, client, "down"), daemon=True)
        back.start()
        self._forward(client, server, "up")
        back.join()
        client.close()
        server.close()

    def _forward(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65_536):
                if self.delay:
                    time.sleep(self.delay)
                if not self._lost[way]:
                    sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _drop_all(self) -> None:
        with self._lock:
            dropped, self._open = self._open, []
        for end in (end for pair in dropped for end in pair):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
