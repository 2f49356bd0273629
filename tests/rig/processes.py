"""The processes of the rig: each on a free port of its own, measured from outside, ended or killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.patience import PATIENCE_S, eventually
from tests.programs import free_port

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
[server]
port = {port}
[store]
url = "sqlite:///{store}"
durability = "{durability}"
[providers.local]
kind = "openai"
base_url = "{upstream}"
[models.pro]
provider = "local"
name = "pro"
[models.flash]
provider = "local"
name = "flash"
[managers.chat]
primary = "pro"
secondary = "flash"
{extra}
"""


class Process:
    """A Python process that serves HTTP on 127.0.0.1.

    Args:
        folder: Where its log goes.
        arguments: What Python runs.
        port: Where it listens.
    """

    health = ""

    def __init__(self, folder: Path, arguments: list[str], port: int) -> None:
        self.port = port
        self._arguments = arguments
        self._log = folder / f"{type(self).__name__.lower()}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """A client's `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> Self:
        """Run it, and wait until it serves."""
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments], cwd=ROOT, stdout=log, stderr=log, env=environment
            )
        try:
            eventually(self._serves, despite=(OSError,), told=lambda: self.log[-2000:])
        except AssertionError:
            self.kill()
            raise
        return self

    def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{' '.join(self._arguments)} ended:\n{self.log[-2000:]}"
        if not self.health:
            socket.create_connection(("127.0.0.1", self.port), 5.0).close()
            return True
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.health}", timeout=5.0) as answer:
            return bool(answer.status == 200)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(self._watched().memory_info().rss)

    @property
    def processor_seconds(self) -> float:
        """Processor time used so far, in user and system."""
        times = self._watched().cpu_times()
        return float(times.user + times.system)

    def _watched(self) -> psutil.Process:
        return psutil.Process(self.pid)

    def kill(self) -> None:
        """End it as a power cut of the process would: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it in order, or by force after a while."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class FastModel(Process):
    """`tests.rig.model`."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        super().__init__(folder, ["-m", "tests.rig.model", str(port)], port)


class BareProxy(Process):
    """`tests.rig.proxy` before a model."""

    health = "/healthz"

    def __init__(self, folder: Path, upstream: str) -> None:
        port = free_port()
        super().__init__(folder, ["-m", "tests.rig.proxy", str(port), upstream], port)


class Gateway(Process):
    """`switchgear serve` before a model, with the store in `folder`.

    Args:
        folder: For configuration, store and log.
        upstream: The models' `base_url`.
        durability: When records are committed.
        extra: More TOML, at the end: tables of the manager `chat` and others.
    """

    health = "/healthz"

    def __init__(self, folder: Path, upstream: str, *, durability: str = "commit", extra: str = "") -> None:
        port = free_port()
        self.store = folder / "switchgear.db"
        self.config = folder / "switchgear.toml"
        self.config.write_text(
            CONFIG.format(port=port, store=self.store.name, durability=durability, upstream=upstream, extra=extra),
            encoding="utf-8",
        )
        arguments = ["-m", "dashboard.cli", "serve", "--config", str(self.config)]
        super().__init__(folder, arguments, port)
