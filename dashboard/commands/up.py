"""`switchgear up`: gateway and dashboard as two processes under one supervisor, with one log.

They are separate so that a busy page never slows a request. If one ends, both are stopped: a half-running product is
harder to understand than one that is down.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import IO, Final

import click

from dashboard import serve as dashboard
from dashboard.commands.options import config_option
from dashboard.serving import DEMO_VARIABLE, checked_store, configured, signs_in_by_oidc
from engine.config import Config, Surface
from engine.config.config import DEMO_RECEIVER_VARIABLE, PATH_VARIABLE, http_url
from engine.gateway.server import bind, listen

STOP_WITHIN: Final = 10.0
"""Seconds the children have to stop, beyond the longest an open stream may take, before they are killed."""

LOOK_EVERY: Final = 0.1
"""Seconds between two looks at what has not begun to listen yet."""


@click.command("up")
@config_option
@click.option("--demo", is_flag=True, help="Simulated models with live traffic and a scripted incident.")
@click.pass_context
def command(ctx: click.Context, config_path: Path | None, demo: bool) -> None:
    """Run gateway, scheduler and dashboard together."""
    if demo:
        os.environ[DEMO_VARIABLE] = "1"
    config = configured(config_path)
    os.environ[PATH_VARIABLE] = str(Path(config.source).resolve())
    config.refuse_exposed(Surface.GATEWAY, Surface.CONTROL, Surface.DASHBOARD, oidc=signs_in_by_oidc())
    config.require_provider_keys()
    bind(config).close()
    listen(config.dashboard.host, config.dashboard.port, config.source, "dashboard").close()
    if demo:
        from dashboard.commands.demo import prepare  # noqa: PLC0415 - only the demo pays for the simulation

        prepare(config)
    checked_store(config)
    with _demo_receiver() if demo else nullcontext():
        code = Supervisor(config).run()
    ctx.exit(code)


@contextmanager
def _demo_receiver() -> Iterator[None]:
    """Let the demo's processes tell their alerts to somebody, and say what was told."""
    from dashboard.commands.demo_receiver import listening  # noqa: PLC0415 - as above

    with listening(lambda line: _say_of("receiver", line)) as url:
        os.environ[DEMO_RECEIVER_VARIABLE] = url
        yield


class Supervisor:
    """Both processes, from start to end.

    Args:
        config: The configuration.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._relays: list[threading.Thread] = []
        self._changed = threading.Event()
        self._signals = 0

    def run(self) -> int:
        """Run both until one ends or we are told to stop.

        Returns:
            0 after a stop, 1 when a child ended by itself.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        source = str(self._config.source)
        _say("switchgear: starting gateway and dashboard; Ctrl-C stops both")
        self._start("gateway", [sys.executable, "-m", "dashboard.cli", "serve", "--config", source])
        self._start("dashboard", dashboard.command(self._config))
        threading.Thread(target=self._announce, daemon=True).start()
        self._changed.wait()
        died = [] if self._signals else [name for name, child in self._children.items() if child.poll() is not None]
        self._stop()
        for name in died:
            code = self._children[name].returncode
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended by itself with exit code {code}"
            _say(f"switchgear: the {name} {how}; its last lines are above, everything is stopped", err=True)
        return 1 if died else 0

    def _start(self, name: str, command: Sequence[str]) -> None:
        child = subprocess.Popen(  # noqa: S603 - our own programs
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # a Ctrl-C in the terminal reaches us alone
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert child.stdout is not None
        self._children[name] = child
        relay = threading.Thread(target=_relay, args=(name, child.stdout), daemon=True)
        relay.start()
        self._relays.append(relay)
        threading.Thread(target=self._await, args=(child,), daemon=True).start()

    def _await(self, child: subprocess.Popen[str]) -> None:
        child.wait()
        self._changed.set()

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        """Stop; told a second time, do not wait for open streams."""
        self._signals += 1
        self._changed.set()
        if self._signals > 1:
            self._kill()

    def _announce(self) -> None:
        """Say where everything is once it listens there."""
        gateway, page = self._config.server, self._config.dashboard
        for host, port in ((gateway.host, gateway.port), (page.host, page.port)):
            while port and not _listens(host, port):
                if self._changed.wait(LOOK_EVERY):
                    return
        _say(f"switchgear: gateway   {self._config.gateway_url}  (OpenAI-compatible: /v1)")
        _say(f"switchgear: dashboard {http_url(page.host, page.port)}")

    def _stop(self) -> None:
        """End the children that are left, and say everything they said."""
        _say("switchgear: stopping; open streams are finished first, a second Ctrl-C ends them")
        for child in self._children.values():
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._patience()
        for child in self._children.values():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._kill()
                child.wait()
        for relay in self._relays:
            relay.join(1.0)

    def _patience(self) -> float:
        """Seconds for open streams: as long as one may take, and a little."""
        config = self._config
        return max(config.manager_policy(name).timeouts.total for name in config.managers) + STOP_WITHIN

    def _kill(self) -> None:
        for child in self._children.values():
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)


def _say(line: str, *, err: bool = False) -> None:
    """Print a line; a terminal or pipe that is gone must not keep us from stopping the children."""
    with contextlib.suppress(OSError):
        click.echo(line, err=err)


def _say_of(name: str, line: str) -> None:
    _say(f"{name:>9} │ {line.rstrip()}")


def _relay(name: str, lines: IO[str]) -> None:
    for line in lines:
        if line.strip():
            _say_of(name, line)


def _listens(host: str, port: int) -> bool:
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - compared, not bound
    try:
        socket.create_connection((near, port), timeout=1.0).close()
    except OSError:
        return False
    return True
