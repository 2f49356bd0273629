"""`switchgear serve` and `switchgear watch`: the servers without a dashboard."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dashboard.commands.options import config_option
from dashboard.serving import GATEWAY, WATCHER, checked_store, configured, logs
from engine.config import Surface
from engine.config.config import PATH_VARIABLE, http_url
from engine.gateway.server import bind, run


@click.command("serve")
@config_option
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that serve.")
@click.pass_context
def command(ctx: click.Context, config_path: Path | None, workers: int) -> None:
    """Run gateway, control API, /metrics and scheduler; no dashboard."""
    ctx.exit(_serve(config_path, GATEWAY, (Surface.GATEWAY, Surface.CONTROL), workers))


@click.command("watch")
@config_option
@click.pass_context
def watch_command(ctx: click.Context, config_path: Path | None) -> None:
    """Run scheduler, alerts, /metrics and control API, for applications that embed the engine."""
    ctx.exit(_serve(config_path, WATCHER, (Surface.CONTROL,), 1))


def _serve(config_path: Path | None, application: str, surfaces: tuple[Surface, ...], workers: int) -> int:
    config = configured(config_path)
    config.refuse_exposed(*surfaces)
    os.environ[PATH_VARIABLE] = str(Path(config.source).resolve())
    logs()
    if application == GATEWAY:
        config.require_provider_keys()
    with bind(config) as taken:
        checked_store(config, workers=workers)
        host, port = taken.getsockname()[:2]
        what = "gateway" if application == GATEWAY else "control API"
        click.echo(f"switchgear: {what} on {http_url(host, port)}", err=True)
        return run(application, config, taken, workers=workers)
