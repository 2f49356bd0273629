"""The demo's own receiver of notifications: an HTTP server on this machine that says in the log what it was told.

So a fresh demo shows deliveries that were made, over a real socket and by the real dispatcher, and none that were made
up. It takes Alertmanager's body, as the receiver kind `webhook` sends it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def listening(say: Callable[[str], None]) -> Iterator[str]:
    """Listen on a free loopback port.

    Args:
        say: Is given a line for every alert of every notification.

    Yields:
        The address for the receiver.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers 204 to what it understands."""

        def do_POST(self) -> None:
            """Take one notification."""
            try:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
                lines = [_line(alert) for alert in body["alerts"]]
            except (ValueError, KeyError, TypeError):
                self.send_error(400)
                return
            for line in lines:
                say(line)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: `say` has said it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, name="switchgear-receiver", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def _line(alert: dict[str, dict[str, str]]) -> str:
    name = alert["labels"]["alertname"]
    return f"{alert['status']}: {name}: {alert['annotations'].get('summary', '')}".removesuffix(": ")
