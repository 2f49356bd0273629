"""Real local HTTP receivers, well-behaved and otherwise."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.patience import PATIENCE_S


@dataclass
class Letter:
    at: float
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Withheld:
    """An answer that says "ok" once the test gives it."""

    def __init__(self) -> None:
        self._asked, self._given = threading.Event(), threading.Event()

    def __call__(self, letter: Letter, n: int) -> tuple[int, dict[str, str], bytes]:
        self._asked.set()
        self._given.wait(PATIENCE_S)
        return 200, {}, b"ok"

    def wait_until_asked(self) -> None:
        """Until somebody waits for it."""
        assert self._asked.wait(PATIENCE_S)

    def give(self) -> None:
        """To everybody who waits and will."""
        self._given.set()


@dataclass
class Listener:
    """An HTTP server that notes what it is told and answers as `answer` says."""

    answer: Callable[[Letter, int], tuple[int, dict[str, str], bytes] | None] = lambda letter, n: (200, {}, b"ok")
    context: ssl.SSLContext | None = None
    letters: list[Letter] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Self:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                letter = Letter(time.monotonic(), self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                with listener.arrived:
                    listener.letters.append(letter)
                    count = len(listener.letters)
                    listener.arrived.notify_all()
                answer = listener.answer(letter, count)
                if answer is None:
                    return
                status, headers, text = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *args: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if self.context is not None:
            self.server.socket = self.context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(PATIENCE_S)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=s3cret"

    def wait_for(self, count: int, timeout: float = PATIENCE_S) -> list[Letter]:
        with self.arrived:
            enough = self.arrived.wait_for(lambda: len(self.letters) >= count, timeout)
            assert enough, f"{len(self.letters)} letters instead of {count}"
            return list(self.letters)


class RawServer:
    """A TCP server that says what it is told to, byte by byte if need be."""

    def __init__(self, talk: Callable[[socket.socket, threading.Event], None]) -> None:
        self.talk = talk
        self.stopped = threading.Event()

    def __enter__(self) -> Self:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        with sock:
            try:
                sock.recv(65536)
                self.talk(sock, self.stopped)
            except OSError:
                pass

    def __exit__(self, *args: object) -> None:
        self.stopped.set()
        self.socket.close()
