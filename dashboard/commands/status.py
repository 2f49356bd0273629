"""`switchgear status`: what is active, since when and why, from the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dashboard.commands.acting import existing_store
from dashboard.commands.fleet_table import fleet_table
from dashboard.commands.options import config_option, json_option
from dashboard.serving import configured
from dashboard.wording import WATCHDOG
from engine.durations import describe
from engine.overview import overview

_STATES = {
    "closed": ("●", "green"),
    "half_open": ("◐", "yellow"),
    "open": ("○", "red"),
    "forced_open": ("⊘", "magenta"),
    "forced_closed": ("⊙", "magenta"),
}


@click.command("status")
@config_option
@json_option
def command(config_path: Path | None, as_json: bool) -> None:
    """Say what is active, since when and why; breakers, override, instances."""
    config = configured(config_path)
    seen = overview(config, existing_store(config))
    if as_json:
        click.echo(json.dumps(seen, indent=2))
        return
    console = Console(highlight=False)
    for name, manager in seen["managers"].items():
        console.print(_manager(name, manager, seen["at_ms"]))
    alerts = [alert for alert in seen["alerts"] if alert["severity"] != WATCHDOG]
    if alerts:
        console.print(_alerts(alerts, seen["at_ms"]))
    console.print(_instances(seen))


def _manager(name: str, manager: Mapping[str, Any], now: int) -> Group:
    role, model = manager["active_role"], manager["active_model"]
    colour = "green" if role == "primary" else "yellow"
    headline = Text.assemble(
        (name, "bold"), "  serving from ", (str(role), f"bold {colour}"), f" ({model})", _since(manager, now)
    )
    lines: list[Any] = [headline]
    if manager["since_ms"] is not None:
        lines.append(Padding(f"cause: {manager['cause']} (epoch {manager['epoch']})", (0, 2)))
    share = manager["primary_traffic_ratio"]
    if role == "secondary" and share:
        lines.append(Padding(f"ramping back: {share:.0%} of traffic on primary", (0, 2)))
    if manager["override"]:
        lines.append(Padding(Text(_pin(manager["override"], now), style="magenta"), (0, 2)))
    lines += [Padding(Text(_forced(role, one, now), style="magenta"), (0, 2)) for role, one in _forces(manager)]
    lines.append(Padding(_breakers(manager), (0, 2)))
    if manager["fleet"]:
        lines.append(Padding(fleet_table(manager["fleet"], now), (0, 2)))
    lines.append(Padding(Text(_traffic(manager, now), style="dim"), (0, 2)))
    return Group(*lines)


def _since(manager: Mapping[str, Any], now: int) -> str:
    since = manager["since_ms"]
    if since is None:
        return ", nothing recorded yet"
    return f" for {describe((now - since) / 1000)}"


def _pin(pin: Mapping[str, Any], now: int) -> str:
    left = describe(max(0, pin["expires_ms"] - now) / 1000)
    strict = ", strict" if pin["strict"] else ""
    return f"pinned to {pin['role']} by {pin['by']}{strict}, {left} left: {pin['reason']}"


def _forces(manager: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(manager["forced"].items())


def _forced(role: str, force: Mapping[str, Any], now: int) -> str:
    left = describe(max(0, force["expires_ms"] - now) / 1000)
    what = force["state"].replace("_", " ")
    return f"{role} breaker {what} by {force['by']}, {left} left: {force['reason']}"


def _breakers(manager: Mapping[str, Any]) -> Table:
    table = _table()
    for role, said in manager["breakers"].items():
        cell = Text()
        for number, line in enumerate(said):
            mark, colour = _STATES[line["state"]]
            cell.append("  " if number else "").append(f"{mark} {line['state']}", style=colour)
            if line["state"] == "open":
                due = line["retry_in"]
                cell.append(", probe due" if line["probe_due"] else f", probe in {describe(due or 0)}")
        if not said:
            cell.append("no instance is running", style="dim")
        table.add_row(Text(f"{role} breaker", style="dim"), Text(manager["models"][role]), cell)
    return table


def _traffic(manager: Mapping[str, Any], now: int) -> str:
    if not manager["requests"]:
        last = manager["last_request_ms"]
        return "no request in 5 min" + (f"; the last {describe((now - last) / 1000)} ago" if last else "")
    rate, p95 = manager["error_rate"], manager["p95_seconds"]
    parts = [f"{manager['requests']} request{'s' if manager['requests'] > 1 else ''} in 5 min"]
    if rate is not None:
        parts.append(f"{1 - rate:.1%} answered")
    if p95 is not None:
        parts.append(f"p95 {p95:.2f} s")
    if manager["secondary_share"] is not None:
        parts.append(f"{manager['secondary_share']:.0%} by secondary")
    return ", ".join(parts)


def _alerts(alerts: Sequence[Mapping[str, Any]], now: int) -> Table:
    table = _table()
    for alert in alerts:
        colour = "red" if alert["state"] == "firing" else "yellow"
        since = describe((now - alert["since_ms"]) / 1000)
        said = f"{alert['severity']}, {since}" if alert["severity"] else since
        what = Text.assemble(alert["rule"], (f"  {alert['manager']}" if alert["manager"] else "", "dim"))
        table.add_row(Text(alert["state"], style=f"bold {colour}"), what, Text(said, style="dim"))
    return table


def _table() -> Table:
    """Three columns without lines; names are folded, never cut."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    return table


def _instances(seen: Mapping[str, Any]) -> Text:
    rows = seen["instances"]
    if not rows:
        return Text("no instance is running on this store", style="dim")
    text = Text(f"{len(rows)} instance{'s' if len(rows) > 1 else ''}: ", style="dim")
    text.append(", ".join(row["instance"] for row in rows))
    for row in rows:
        if row["trouble"]:
            text.append(f"\n  {row['instance']}: {row['trouble']}", style="red")
    at = datetime.fromtimestamp(seen["at_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return text.append(f"   {at}", style="dim")
