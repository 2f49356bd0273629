"""`switchgear dashboard`: the dashboard alone."""

from __future__ import annotations

from pathlib import Path

import click

from dashboard import serve
from dashboard.commands.options import config_option
from dashboard.serving import checked_store, configured, signs_in_by_oidc
from engine.config import Surface
from engine.config.config import http_url
from engine.gateway.server import listen


@click.command("dashboard")
@config_option
def command(config_path: Path | None) -> None:
    """Run the dashboard alone, on the store that gateway or applications write."""
    config = configured(config_path)
    config.refuse_exposed(Surface.DASHBOARD, oidc=signs_in_by_oidc())
    listen(config.dashboard.host, config.dashboard.port, config.source, "dashboard").close()
    checked_store(config)
    click.echo(f"switchgear: dashboard on {http_url(config.dashboard.host, config.dashboard.port)}", err=True)
    serve.run(config, demo=config.is_demo)
