"""Options that several subcommands share, so that they are spelt and described once."""

from __future__ import annotations

from pathlib import Path

import click

from engine.core.errors import ConfigurationError
from engine.durations import DurationError, parse_duration

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="F",
    help="Configuration file; else $SWITCHGEAR_CONFIG, else ./data/switchgear.toml.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

manager_option = click.option("--manager", metavar="M", help="The manager; may be left out when there is one.")


def seconds_of(option: str, text: str) -> float:
    """Read a duration that an option names; a number alone is seconds, as in the configuration.

    Raises:
        ConfigurationError: It is none; the message names the option.
    """
    try:
        return parse_duration(float(text) if text.replace(".", "", 1).isdecimal() else text)
    except DurationError as error:
        msg = f"{option}: {error}"
        raise ConfigurationError(msg) from None
