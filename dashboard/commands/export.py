"""`switchgear export`: what happened as a document to hand over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import click

from dashboard import export
from dashboard.casefile import CaseFile, read_case, read_incidents
from dashboard.commands.acting import existing_store
from dashboard.commands.options import config_option
from dashboard.serving import configured
from dashboard.times import Clockface, utc
from engine.core.errors import SwitchgearError
from engine.sqlite import Connection

FORMATS: Final[Mapping[str, Callable[[CaseFile, Clockface], str]]] = {
    "md": export.markdown,
    "html": export.html,
    "json": export.as_json,
}
NAMED: Final = 3
"""Incidents that are named when the one that was asked for is not there."""


class NoSuchIncident(SwitchgearError):
    """Nothing happened under that id."""


@click.group("export")
def command() -> None:
    """Write down what happened, to hand over."""


@command.command("incident", short_help="Write one incident down.")
@click.argument("incident_id", metavar="ID|last")
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), default="md", show_default=True)
@click.option("--manager", metavar="M", help="Of this manager only.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="F", help="To a file.")
@config_option
def incident_command(
    incident_id: str, kind: str, manager: str | None, output: Path | None, config_path: Path | None
) -> None:
    """Write one incident: its causes, what callers noticed, and its timeline.

    ID is the one in the address of the incident's page, or a moment in it as milliseconds since 1970.
    """
    config = configured(config_path)
    if manager is not None:
        config.manager_policy(manager)
    names = [manager] if manager is not None else list(config.managers)
    now = int(time.time() * 1000)
    with existing_store(config).reader() as connection:
        case = _find(connection, names, incident_id, now)
    document = FORMATS[kind](case, Clockface(now))
    if output is None:
        click.echo(document, nl=False)
        return
    try:
        output.write_text(document, encoding="utf-8")
    except OSError as error:
        msg = f"--output: {output} cannot be written: {error.strerror}"
        raise click.UsageError(msg) from None


def _find(connection: Connection, names: list[str], wanted: str, now: int) -> CaseFile:
    known = {one.id: one for name in names for one in read_incidents(connection, name, now)}
    latest = sorted(known.values(), key=lambda one: one.start_ms, reverse=True)
    if wanted == "last" and latest:
        wanted, names = latest[0].id, [latest[0].manager]
    for name in names:
        case = read_case(connection, name, wanted, now)
        if case is not None:
            return case
    if not latest:
        msg = "there has been no incident in the last 30 days"
    else:
        said = ", ".join(f"{one.id} ({one.manager}, {utc(one.start_ms)})" for one in latest[:NAMED])
        msg = f'there is no incident "{wanted}"; the latest: {said}'
    raise NoSuchIncident(msg)
