"""The fleet as `switchgear status` shows it: what the quorum sees, then a line an instance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dashboard.commands.folding import Folding
from engine.durations import describe

STALE_AFTER: Final = 10.0
"""Seconds after which a reading of the agreement, or of the fleet, is shown as old."""

_COLOURS: Final = {"down": "red", "up": "green", "abstain": "dim"}


def fleet_table(fleet: Mapping[str, Any], now_ms: int) -> Group:
    """The fleet of one manager.

    Args:
        fleet: What `engine.overview.fleet` gives, as JSON-ready data.
        now_ms: The time, milliseconds UTC.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("instance", "host", "version", "epoch", "primary", "secondary", "agreement"):
        table.add_column(title, overflow="fold")
    for seat in fleet["seats"]:
        table.add_row(
            seat["instance"], seat["host"], seat["version"] or "?", _epoch(seat), *_votes(seat), _agreement(seat)
        )
    parts: list[Any] = [_quorum(fleet, now_ms), *([Folding(table, ("primary", "secondary"))] if fleet["seats"] else [])]
    if fleet["left_out"]:
        parts.append(Text(f"and {fleet['left_out']} more", style="dim"))
    return Group(*parts)


def _quorum(fleet: Mapping[str, Any], now_ms: int) -> Text:
    """How the hosts count, in a line."""
    text = Text(f"{fleet['live_hosts']} host{'' if fleet['live_hosts'] == 1 else 's'} alive", style="dim")
    if fleet["lost_hosts"]:
        text.append(f", silent and still counted: {', '.join(fleet['lost_hosts'])}", style="yellow")
    for role in ("primary", "secondary"):
        count = fleet[role]
        if count["opinions"]:
            said = f"; {role}: {count['down']} of {count['opinions']} say down, {count['needed']} needed"
            text.append(said, style="red" if count["is_down"] else "")
    old = (now_ms - fleet["at_ms"]) / 1000
    if old > STALE_AFTER:
        text.append(f"; as seen {describe(old)} ago", style="red")
    return text


def _epoch(seat: Mapping[str, Any]) -> Text:
    if seat["epoch"] is None:
        return Text("?", style="dim")
    return Text(str(seat["epoch"])).append(f" ({seat['lag']} behind)" if seat["lag"] else "", style="yellow")


def _votes(seat: Mapping[str, Any]) -> tuple[Text, Text]:
    if not seat["voted"]:
        return Text("no vote", style="dim"), Text("")
    primary = _vote(seat["primary"])
    if seat["ready"]:
        primary.append(", gate passed", style="green")
    return primary, _vote(seat["secondary"])


def _vote(opinion: Mapping[str, Any]) -> Text:
    """A vote with its evidence."""
    verdict = str(opinion["verdict"])
    text = Text(verdict, style=_COLOURS.get(verdict, ""))
    if opinion["samples"]:
        text.append(f" {opinion['failures']}/{opinion['samples']} failed", style="dim")
    if opinion["reason"]:
        text.append(f", {opinion['reason']}", style="dim")
    return text


def _agreement(seat: Mapping[str, Any]) -> Text:
    if not seat["alive"]:
        return Text(f"lost {describe(seat['lost_for'])} ago", style="red")
    if seat["trouble"]:
        return Text(seat["trouble"], style="red")
    age = seat["agreement_age"]
    if age is None:
        return Text("")
    return Text(
        "now" if age < STALE_AFTER else f"read {describe(age)} ago", style="dim" if age < STALE_AFTER else "red"
    )
