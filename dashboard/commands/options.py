"""Options that several subcommands share, so that they are spelt and described once."""

from __future__ import annotations

from pathlib import Path

import click

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="F",
    help="Configuration file; else $SWITCHGEAR_CONFIG, else ./data/switchgear.toml.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

manager_option = click.option("--manager", metavar="M", help="The manager; may be left out when there is one.")
