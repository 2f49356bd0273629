"""`switchgear alerts`: check and test rules, and look after alerts, silences, receivers and history."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alerts import memory, outbox, promtest, queries, silences
from alerts.dispatcher import send_test
from alerts.evaluator import State
from alerts.places import shown
from alerts.receivers import Receiver, receivers_of
from alerts.rules import read_rules
from dashboard.commands.acting import existing_store
from dashboard.commands.folding import Folding
from dashboard.commands.options import config_option, json_option, seconds_of
from dashboard.commands.preview_cmd import command as preview_command
from dashboard.serving import configured
from engine.clock import SystemClock
from engine.config import Config
from engine.core.errors import ConfigurationError
from engine.durations import describe
from engine.recorder import Recorder
from engine.store import Store

T = TypeVar("T")

SENTENCES = frozenset({"summary", "trouble", "reason", "matchers"})
_COLOURS = {"firing": "red", "pending": "yellow", "resolved": "green", "delivered": "green", "dead": "red"}


@click.group("alerts", no_args_is_help=True)
def command() -> None:
    """Check, preview and test rules; list alerts, silences, receivers and history."""


command.add_command(preview_command)


@command.command("check", short_help="Say what is wrong with a rule file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, file: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Say what is wrong with a rule file, one line an error, with its place."""
    path = file or configured(config_path).alert_rules_path
    rules = read_rules(path)
    if as_json:
        problems = [
            {"file": str(one.path), "line": one.line, "rule": one.rule, "message": one.what} for one in rules.problems
        ]
        click.echo(json.dumps({"rules": len(rules.rules), "problems": problems}, indent=2))
    else:
        for problem in rules.problems:
            click.echo(str(problem))
        if not rules.problems:
            click.echo(f"{shown(path)}: {len(rules.rules)} rules, nothing wrong")
    if rules.problems:
        ctx.exit(1)


@command.command("test", short_help="Run unit tests of rules.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@click.pass_context
def test(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Run unit tests of rules, in the shape of promtool's test files."""
    verdict = promtest.run_file(file)
    if as_json:
        failures = [{"test": one.test, "message": one.what} for one in verdict.failures]
        body = {"passed": verdict.passed, "checked": verdict.checked, "problems": verdict.problems}
        click.echo(json.dumps({**body, "failures": failures}, indent=2))
    else:
        for line in verdict.problems:
            click.echo(line)
        for failure in verdict.failures:
            click.echo(f"{shown(file)}: {failure.test}: {failure.what}")
        if verdict.passed:
            click.echo(f"{shown(file)}: {verdict.checked} expectations met")
    if not verdict.passed:
        ctx.exit(1)


@command.command("list")
@config_option
@json_option
def active(config_path: Path | None, as_json: bool) -> None:
    """List alerts that are pending or firing."""
    config = configured(config_path)
    now_ms = SystemClock().wall_ms()
    with existing_store(config).reader() as connection:
        found = memory.from_rows(queries.alert_states(connection)).values()
        quiet = silences.silenced(
            silences.read(connection, now_ms), {one.fingerprint: one.labels for one in found}, now_ms
        )
    rows = [
        {
            "alertname": one.rule,
            "manager": one.manager,
            "severity": one.labels.get("severity", ""),
            "state": one.alert.state.value,
            "since": _iso(one.alert.active_ms),
            "for": describe((now_ms - one.alert.active_ms) / 1000) if one.alert.active_ms else None,
            "value": one.alert.value,
            "summary": one.annotations.get("summary", ""),
            "silenced": one.fingerprint in quiet,
            "error": one.error,
            "labels": dict(one.labels),
        }
        for one in sorted(found, key=lambda one: one.alert.active_ms)
        if one.alert.state in (State.PENDING, State.FIRING) or one.error
    ]
    silenced = ("silenced",) if any(row["silenced"] for row in rows) else ()
    columns = ("state", "alertname", "manager", "severity", "for", *silenced, "summary")
    _print(rows, columns, as_json=as_json, nothing="no alert is pending or firing")


@command.command("history")
@click.option("--rule", metavar="NAME", help="Of one rule only.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@config_option
@json_option
def history(rule: str | None, limit: int, config_path: Path | None, as_json: bool) -> None:
    """List what alerts did, the latest first."""
    with existing_store(configured(config_path)).reader() as connection:
        found = queries.history(connection, limit, rule)
    rows = [
        {
            "at": _iso(ts_ms),
            "alertname": name,
            "manager": manager,
            "from": before,
            "state": after,
            "value": value,
            "labels": json.loads(labels),
        }
        for ts_ms, name, manager, labels, before, after, value in found
    ]
    columns = ("at", "alertname", "manager", "from", "state", "value")
    who = "no alert" if rule is None else f"no alert of a rule {rule}"
    _print(rows, columns, as_json=as_json, nothing=f"{who} has done anything yet")


@command.group("silences", invoke_without_command=True)
@config_option
@json_option
@click.pass_context
def silences_group(ctx: click.Context, config_path: Path | None, as_json: bool) -> None:
    """List silences that have not ended; add or expire one."""
    if ctx.invoked_subcommand is not None:
        return
    now_ms = SystemClock().wall_ms()
    with existing_store(configured(config_path)).reader() as connection:
        found = silences.read(connection, now_ms)
    rows = [
        {
            "id": one.id,
            "matchers": ", ".join(str(matcher) for matcher in one.matchers),
            "ends": _iso(one.ends_ms),
            "left": describe((one.ends_ms - now_ms) / 1000),
            "author": one.author,
            "reason": one.reason,
        }
        for one in found
    ]
    columns = ("id", "matchers", "left", "author", "reason")
    _print(rows, columns, as_json=as_json, nothing="no silence is in force")


@silences_group.command("add", short_help="Do not announce alerts that match.")
@click.argument("matchers", nargs=-1, required=True)
@click.option("--for", "lasting", required=True, metavar="2h", help="How long.")
@click.option("--reason", required=True, help="Why, for whoever wonders later.")
@click.option("--by", "author", metavar="NAME", help="Who; else the user of this session.")
@config_option
@json_option
def silence_add(
    matchers: tuple[str, ...],
    lasting: str,
    reason: str,
    author: str | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Do not announce alerts that match: alertname="LatencyHigh" manager="chat"."""
    seconds = seconds_of("--for", lasting)
    now_ms = SystemClock().wall_ms()
    silence = _write(
        configured(config_path),
        lambda recorder: silences.add(
            recorder, matchers, seconds=seconds, author=author or getpass.getuser(), reason=reason, now_ms=now_ms
        ),
    )
    click.echo(json.dumps({"id": silence.id, "ends": _iso(silence.ends_ms)}) if as_json else silence.id)


@silences_group.command("expire")
@click.argument("identifier", metavar="ID")
@config_option
@json_option
def silence_expire(identifier: str, config_path: Path | None, as_json: bool) -> None:
    """End a silence now."""
    now_ms = SystemClock().wall_ms()
    _write(configured(config_path), lambda recorder: silences.expire(recorder, identifier, now_ms))
    click.echo(json.dumps({"id": identifier, "ended": _iso(now_ms)}) if as_json else f"{identifier} has ended")


@command.group("receivers", invoke_without_command=True, short_help="List receivers; test, resume or replay one.")
@config_option
@json_option
@click.pass_context
def receivers_group(ctx: click.Context, config_path: Path | None, as_json: bool) -> None:
    """List receivers with what waits for them; test, resume or replay one."""
    if ctx.invoked_subcommand is not None:
        return
    config = configured(config_path)
    found = receivers_of(config)
    with existing_store(config).reader() as connection:
        counts = queries.outbox_counts(connection)
        stopped = outbox.stopped(connection, found)
        last = {one.name: queries.last_deliveries(connection, one.name, 1) for one in found}
    rows = [_receiver_row(one, counts, stopped, last[one.name]) for one in found]
    columns = ("name", "kind", "state", "waiting", "dead", "last", "trouble")
    _print(rows, columns, as_json=as_json, nothing="no receiver is configured: add [[alerts.receivers]]")


def _receiver_row(
    one: Receiver, counts: Mapping[tuple[str, str], int], stopped: set[str], last: Sequence[tuple[Any, ...]]
) -> dict[str, Any]:
    state = "stopped (410)" if one.name in stopped else "incomplete" if one.lacks else "ready"
    waiting = counts.get((one.name, "pending"), 0) + counts.get((one.name, "leased"), 0)
    return {
        "name": one.name,
        "kind": one.channel.kind,
        "state": state,
        "waiting": waiting,
        "delivered": counts.get((one.name, "delivered"), 0),
        "dead": counts.get((one.name, "dead"), 0),
        "last": _iso(last[0][0]) if last else None,
        "trouble": one.lacks or (last[0][2] if last else "") or "",
    }


@receivers_group.command("test")
@click.argument("name")
@config_option
@json_option
@click.pass_context
def receiver_test(ctx: click.Context, name: str, config_path: Path | None, as_json: bool) -> None:
    """Send a test now, once."""
    config = configured(config_path)
    result = send_test(_receiver(config, name), config.dashboard_url, SystemClock())
    said = {
        "delivered": result.delivered,
        "status_code": result.status,
        "error": result.error,
        "ms": round(result.duration_ms),
    }
    if as_json:
        click.echo(json.dumps(said))
    elif result.delivered:
        click.echo(f"{name} took it in {result.duration_ms:.0f} ms" + (f" ({result.status})" if result.status else ""))
    else:
        click.echo(f"{name} did not take it: {result.error}")
    if not result.delivered:
        ctx.exit(1)


@receivers_group.command("resume")
@click.argument("name")
@config_option
@json_option
def receiver_resume(name: str, config_path: Path | None, as_json: bool) -> None:
    """Send to a receiver again that answered 410."""
    config = configured(config_path)
    _receiver(config, name)
    _write(config, lambda recorder: recorder.execute(lambda connection: outbox.resume(connection, name)).result(30))
    click.echo(json.dumps({"name": name, "stopped": False}) if as_json else f"{name} is told again")


@receivers_group.command("replay", short_help="Send a receiver's dead letters again.")
@click.argument("name")
@config_option
@json_option
def receiver_replay(name: str, config_path: Path | None, as_json: bool) -> None:
    """Send a receiver's dead letters again, with their ids and bytes."""
    config = configured(config_path)
    _receiver(config, name)
    now_ms = SystemClock().wall_ms()

    def again(recorder: Recorder) -> int:
        return recorder.execute(lambda connection: outbox.replay(connection, now_ms, receiver=name)).result(30)

    count = _write(config, again)
    click.echo(json.dumps({"name": name, "due": count}) if as_json else f"{count} letters for {name} are due again")


def _receiver(config: Config, name: str) -> Receiver:
    found = receivers_of(config)
    for one in found:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in found) or "none configured"
    msg = f'there is no receiver "{name}": there is {names}'
    raise ConfigurationError(msg)


def _store(config: Config) -> Store:
    return Store(config.store_path).open()


def _write(config: Config, act: Callable[[Recorder], T]) -> T:
    recorder = Recorder(_store(config))
    try:
        return act(recorder)
    finally:
        recorder.close()


def _iso(ms: int | None) -> str | None:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ms else None


def _print(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, nothing: str) -> None:
    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
        return
    if not rows:
        click.echo(nothing)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = []
        for column in columns:
            value = row[column]
            text = "" if value is None or value is False else "yes" if value is True else str(value)
            cells.append(Text(text, style=_COLOURS.get(text, "")))
        table.add_row(*cells)
    Console(highlight=False).print(Folding(table, SENTENCES))
