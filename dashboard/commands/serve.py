"""`switchgear serve` and `switchgear watch`: the servers without a dashboard."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dashboard.commands.options import config_option
from dashboard.serving import GATEWAY, WATCHER, configured, logs
from engine.config import Surface
from engine.config.config import PATH_VARIABLE
from engine.gateway.server import bind, run


@click.command("serve")
@config_option
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that serve.")
def command(config_path: Path | None, workers: int) -> None:
    """Run gateway, control API, /metrics and scheduler; no dashboard."""
    _serve(config_path, GATEWAY, (Surface.GATEWAY, Surface.CONTROL), workers)


@click.command("watch")
@config_option
def watch_command(config_path: Path | None) -> None:
    """Run scheduler, alerts, /metrics and control API, for applications that embed the engine."""
    _serve(config_path, WATCHER, (Surface.CONTROL,), 1)


def _serve(config_path: Path | None, application: str, surfaces: tuple[Surface, ...], workers: int) -> None:
    config = configured(config_path)
    config.refuse_exposed(*surfaces)
    os.environ[PATH_VARIABLE] = str(Path(config.source).resolve())
    logs()
    if application == GATEWAY:
        config.require_provider_keys()
    taken = bind(config)
    host, port = taken.getsockname()[:2]
    what = "gateway" if application == GATEWAY else "control API"
    click.echo(f"{what} on http://{host}:{port}", err=True)
    run(application, config, taken, workers=workers)
