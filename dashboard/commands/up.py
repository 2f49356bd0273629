"""`switchgear up`: gateway and dashboard as two processes under one supervisor, with one log.

They are separate so that a busy page never slows a request. If one ends, both are stopped: a half-running product is
harder to understand than one that is down.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Final

import click

from dashboard import serve as dashboard
from dashboard.commands.demo import prepare
from dashboard.commands.options import config_option
from dashboard.serving import DEMO_VARIABLE, configured
from engine.config import Config, Surface
from engine.config.config import PATH_VARIABLE
from engine.gateway.server import bind

STOP_WITHIN: Final = 20.0
"""Seconds the children have to finish open streams before they are killed."""


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
    config.refuse_exposed(Surface.GATEWAY, Surface.CONTROL, Surface.DASHBOARD)
    config.require_provider_keys()
    bind(config).close()
    if demo:
        prepare(config)
    ctx.exit(supervise(config))


def supervise(config: Config) -> int:
    """Run both until one ends or we are told to stop.

    Returns:
        0 after a stop, 1 when a child ended by itself.
    """
    children = {
        "gateway": _start("gateway", [sys.executable, "-m", "dashboard.cli", "serve", "--config", str(config.source)]),
        "dashboard": _start("dashboard", dashboard.command(config)),
    }
    stopping = threading.Event()
    ended = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()
        ended.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    for child in children.values():
        threading.Thread(target=_await, args=(child, ended), daemon=True).start()
    _announce(config)
    ended.wait()
    died = [] if stopping.is_set() else [name for name, child in children.items() if child.poll() is not None]
    for name in died:
        click.echo(f"switchgear: the {name} ended by itself; its last lines are above", err=True)
    _stop(list(children.values()))
    return 1 if died else 0


def _start(name: str, command: Sequence[str]) -> subprocess.Popen[str]:
    child = subprocess.Popen(  # noqa: S603 - our own programs
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    threading.Thread(target=_relay, args=(name, child.stdout), daemon=True).start()
    return child


def _await(child: subprocess.Popen[str], ended: threading.Event) -> None:
    child.wait()
    ended.set()


def _relay(name: str, lines: IO[str]) -> None:
    for line in lines:
        click.echo(f"{name:>9} │ {line.rstrip()}")


def _announce(config: Config) -> None:
    click.echo(f"switchgear: gateway   http://{config.server.host}:{config.server.port}  (OpenAI-compatible: /v1)")
    click.echo(f"switchgear: dashboard http://{config.dashboard.host}:{config.dashboard.port}")
    click.echo("switchgear: Ctrl-C stops both")


def _stop(children: Sequence[subprocess.Popen[str]]) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
