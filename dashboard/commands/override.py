"""`switchgear override`: pin a model, or return to automatic."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from dashboard.commands.acting import chosen, control_of
from dashboard.commands.options import config_option, json_option, manager_option, seconds_of
from dashboard.serving import configured
from engine.control import Actor
from engine.core.agreement import Document
from engine.durations import describe

reason_option = click.option("--reason", required=True, metavar="R", help="Why; the audit log keeps it.")
epoch_option = click.option(
    "--epoch", type=click.IntRange(0), metavar="N", help="Act only if the agreement is still the one of this epoch."
)
by_option = click.option("--by", metavar="NAME", help="Who acts; by default the user of this shell.")


@click.group("override")
def command() -> None:
    """Pin a model by hand, or return to automatic."""


@command.command("set")
@click.argument("role", type=click.Choice(["primary", "secondary"]), metavar="primary|secondary")
@reason_option
@click.option("--for", "lasts", metavar="30m", help='How long, such as "30m" or "4h"; an hour when left out.')
@click.option("--strict", is_flag=True, help="Never fall back to the other model.")
@by_option
@epoch_option
@manager_option
@config_option
@json_option
def set_command(
    role: str,
    reason: str,
    lasts: str | None,
    strict: bool,
    by: str | None,
    epoch: int | None,
    manager: str | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Pin primary or secondary on every instance."""
    config = configured(config_path)
    name = chosen(config, manager)
    ttl = None if lasts is None else seconds_of("--for", lasts)
    with control_of(config) as control:
        document = control.set_override(
            name, role, reason=reason, actor=_actor(by), ttl=ttl, strict=strict, epoch=epoch
        )
    pin = document.override
    assert pin is not None
    kept = ", without fallback" if pin.strict else ""
    _say(document, as_json, f"{name}: pinned to {pin.role} for {describe(pin.ttl)}{kept} (epoch {document.epoch})")


@command.command("clear", short_help="Return to automatic.")
@reason_option
@by_option
@epoch_option
@manager_option
@config_option
@json_option
def clear_command(
    reason: str, by: str | None, epoch: int | None, manager: str | None, config_path: Path | None, as_json: bool
) -> None:
    """Return to automatic; where that leads back to primary, through probes and ramp."""
    config = configured(config_path)
    name = chosen(config, manager)
    with control_of(config) as control:
        before = control.document(name)
        document = control.clear_override(name, reason=reason, actor=_actor(by), epoch=epoch)
    said = "automatic again" if before.override else "already automatic; nothing changed"
    _say(document, as_json, f"{name}: {said}; {document.active} is active (epoch {document.epoch})")


def _actor(by: str | None) -> Actor:
    return Actor(by or getpass.getuser())


def _say(document: Document, as_json: bool, line: str) -> None:
    click.echo(document.to_json() if as_json else line)
