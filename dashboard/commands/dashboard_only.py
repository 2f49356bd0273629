"""`switchgear dashboard`: the dashboard alone."""

from __future__ import annotations

from pathlib import Path

import click

from dashboard import serve
from dashboard.commands.options import config_option
from dashboard.serving import configured
from engine.config import Surface


@click.command("dashboard")
@config_option
def command(config_path: Path | None) -> None:
    """Run the dashboard alone, on the store that gateway or applications write."""
    config = configured(config_path)
    config.refuse_exposed(Surface.DASHBOARD)
    serve.run(config, demo=config.is_demo)
