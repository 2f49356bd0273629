"""`switchgear doctor`: every check with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dashboard.commands.options import config_option, json_option
from dashboard.serving import in_demo
from engine.config import Config
from engine.doctor import Finding, Level, examine, worst
from engine.fleet.base import Coordinator
from engine.fleet.registry import open_coordinator
from engine.recorder import Recorder
from engine.store import Store

_MARKS = {Level.OK: ("✓", "green"), Level.WARN: ("!", "yellow"), Level.FAIL: ("✗", "red")}


@click.command("doctor")
@config_option
@json_option
@click.pass_context
def command(ctx: click.Context, config_path: Path | None, as_json: bool) -> None:
    """Check configuration, keys, store, SQLite, disk, clocks, ports and coordinator.

    Exit codes: 0 nothing is in the way, 1 something is, 2 the configuration cannot be used.
    """
    findings = examine(config_path, connect=_connect, demo=in_demo())
    verdict = worst(findings)
    if as_json:
        click.echo(json.dumps({"verdict": verdict, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        Console(soft_wrap=False, highlight=False).print(_table(findings))
    configured = next(finding for finding in findings if finding.name == "configuration")
    if configured.level is Level.FAIL:
        ctx.exit(2)
    if verdict is Level.FAIL:
        ctx.exit(1)


def _connect(config: Config) -> Coordinator:
    # The recorder is what a coordinator on the store writes with; for a server it is never started.
    recorder = Recorder(Store(config.store_path))
    return open_coordinator(config.fleet_url(), instance="doctor", recorder=recorder, tls=config.fleet_tls)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, colour = _MARKS[finding.level]
        detail = Text(finding.detail)
        if finding.remedy:
            detail.append(f"\n→ {finding.remedy}", style="bold")
        table.add_row(Text(mark, style=colour), finding.name, detail)
    return table
