"""The installed command as a process: what it says, what it serves, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE_S, eventually
from tests.programs import free_port

SWITCHGEAR = Path(sys.executable).with_name("switchgear")
PATIENCE = 60.0
"""Seconds for what takes two on an idle machine."""

MODELS = """
[models.pro]
provider = "models"
name = "gemini-2.5-pro"
[models.flash]
provider = "models"
name = "gemini-2.5-flash"
[managers.chat]
primary = "pro"
secondary = "flash"
"""

SIMULATED = '[providers.models]\nkind = "simulated"\n' + MODELS


@dataclass(frozen=True)
class Place:
    """A folder with a configuration on simulated models, and two free ports."""

    path: Path
    port: int
    page_port: int

    @classmethod
    def make(cls, folder: Path, *, server: str = "", store: str = "", body: str = SIMULATED) -> Place:
        port, page_port = free_port(), free_port()
        path = folder / "switchgear.toml"
        path.write_text(
            f"[server]\nport = {port}\n{server}\n[dashboard]\nport = {page_port}\n[store]\n{store}\n{body}",
            encoding="utf-8",
        )
        return cls(path, port, page_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Running:
    """A `switchgear` that runs until it is stopped."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [str(SWITCHGEAR), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is so; fails with what was said when it never is, or when the process ends."""

        def holds() -> bool:
            if condition():
                return True
            assert self.process.poll() is None, f"it ended before {what}:\n{self.said}"
            return False

        eventually(holds, PATIENCE, every=0.05, told=lambda: f"never {what}:\n{self.said}")

    def wait_for_line(self, part: str) -> None:
        """Wait until a line with this text is said."""
        self.wait_for(lambda: any(part in line for line in self.lines), f"said {part!r}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        """Wait for the end and give the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def close(self) -> None:
        """End it and whatever it left behind."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self.process.stdout is not None:
            self._reader.join(PATIENCE_S)
            self.process.stdout.close()


@contextmanager
def running(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[Running]:
    """A `switchgear` with these arguments, ended at the end of the block."""
    process = Running(*arguments, environment=environment)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def serving(place: Place, *arguments: str) -> Iterator[Running]:
    """`switchgear serve` that answers requests."""
    with running("serve", "--config", str(place.path), *arguments) as process:
        process.wait_for(lambda: fetch(f"{place.url}/readyz")[0] == 200, "ready")
        yield process


def once(*arguments: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `before` is what is written before it."""
    command = [*before, str(SWITCHGEAR), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def fetch(url: str, body: Any = None) -> tuple[int, Any, dict[str, str]]:
    """GET, or POST a JSON body; status 0 when nobody listens."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read()), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), dict(error.headers)
    except (urllib.error.URLError, ConnectionError):
        return 0, None, {}


def ask(place: Place) -> dict[str, str]:
    """One chat completion; the headers of its answer."""
    status, body, headers = fetch(
        f"{place.url}/v1/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
    )
    assert status == 200, body
    return headers


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
