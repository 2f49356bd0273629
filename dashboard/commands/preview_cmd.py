"""`switchgear alerts preview`: when a rule would have fired, from what is recorded, and its PromQL twin."""

from __future__ import annotations

import difflib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from alerts.preview import NoPreview, Preview, draft, preview, whom
from alerts.promql import NoTwin, Twin, twin_of
from alerts.rules import Rule, read_rules
from alerts.syntax import SyntaxProblem
from dashboard.commands.acting import chosen, existing_store
from dashboard.commands.options import config_option, json_option, manager_option, seconds_of
from dashboard.serving import configured
from engine.clock import SystemClock
from engine.config import Config
from engine.core.errors import ConfigurationError
from engine.durations import describe


@click.command("preview", short_help="Say when a condition would have fired.")
@click.argument("expression", metavar="EXPR|RULE")
@click.option("--for", "hold", metavar="15m", help="How long it must hold; that of the rule, else 0s.")
@click.option("--since", default="7d", show_default=True, metavar="7d", help="How far to look back.")
@click.option("--budget", default="2m", show_default=True, metavar="2m", help="Stop after so long and say so.")
@manager_option
@config_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    expression: str,
    hold: str | None,
    since: str,
    budget: str,
    manager: str | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Say when an expression, or a rule of the file, would have fired, and what it is in PromQL."""
    config = configured(config_path)
    rule = _rule(config, expression, hold)
    name = chosen(config, manager)
    if name not in config.managers:
        msg = f'there is no manager "{name}": there is {", ".join(sorted(config.managers))}'
        raise ConfigurationError(msg)
    who = whom(rule, name)
    now_ms = SystemClock().wall_ms()
    from_ms = now_ms - round(_seconds("--since", since) * 1000)
    told = _Progress(shown=not as_json and sys.stderr.isatty())
    try:
        with existing_store(config).reader() as connection:
            found = preview(
                connection,
                rule,
                who,
                from_ms,
                now_ms,
                every_s=config.alerts.evaluate_every,
                budget_s=_seconds("--budget", budget),
                kept_s=config.store.retention,
                progress=told,
            )
    except NoPreview as error:
        raise ConfigurationError(str(error)) from None
    finally:
        told.end()
    try:
        twin: Twin | None = twin_of(rule.expression.text, rule.scope)
        why = ""
    except NoTwin as error:
        twin, why = None, str(error)
    if as_json:
        click.echo(json.dumps(_body(rule, who, found, twin, why), indent=2))
    else:
        _say(found, twin, why)
    ctx.exit(0)


def _rule(config: Config, expression: str, hold: str | None) -> Rule:
    known = {rule.alert: rule for rule in read_rules(config.alert_rules_path).rules}
    seconds = None if hold is None else _seconds("--for", hold)
    try:
        return draft(known.get(expression, expression), seconds)
    except SyntaxProblem as problem:
        msg = f"expression, column {problem.at + 1}: {problem.message}"
        near = difflib.get_close_matches(expression, known, n=1)
        if near:
            msg = f'there is no rule "{expression}": did you mean "{near[0]}"?'
        elif expression.isidentifier() and "did you mean" not in problem.message:
            msg = f'there is no rule "{expression}" and no such name; the rules are {", ".join(known) or "none"}'
        raise ConfigurationError(msg) from None


def _seconds(option: str, text: str) -> float:
    seconds = seconds_of(option, text)
    if seconds <= 0 and option != "--for":
        msg = f"{option}: must be longer than nothing"
        raise ConfigurationError(msg)
    return seconds


class _Progress:
    """A line that says how far it is, on a terminal only."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown

    def __call__(self, share: float) -> None:
        if self._shown:
            click.echo(f"\rlooking back: {share:.0%}", err=True, nl=False)

    def end(self) -> None:
        if self._shown:
            click.echo("\r\033[K", err=True, nl=False)


def _say(found: Preview, twin: Twin | None, why: str) -> None:
    click.echo(found.sentence)
    for one in found.firings[-20:]:
        until = describe(((one.end_ms or found.to_ms) - one.start_ms) / 1000)
        still = "" if one.end_ms is not None else ", not over"
        peak = "" if one.peak is None else f", at worst {one.peak:.4g}"
        click.echo(f"  {_iso(one.start_ms)}  for {until}{still}{peak}")
    if len(found.firings) > 20:
        click.echo(f"  and {len(found.firings) - 20} before; --json has all")
    for limit in (found.looked, *found.limits):
        click.echo(limit)
    if twin is None:
        click.echo(f"no PromQL: {why}")
        return
    click.echo(f"PromQL: {twin.text}")
    for note in twin.notes:
        click.echo(f"  {note}")


def _body(rule: Rule, manager: str | None, found: Preview, twin: Twin | None, why: str) -> dict[str, Any]:
    return {
        "expression": rule.expression.text,
        "for_seconds": rule.hold / 1000,
        "manager": manager,
        "from": _iso(found.from_ms),
        "to": _iso(found.to_ms),
        "step_seconds": found.step_ms / 1000,
        "sentence": found.sentence,
        "firings": [
            {
                "since": _iso(one.since_ms),
                "start": _iso(one.start_ms),
                "end": None if one.end_ms is None else _iso(one.end_ms),
                "peak": one.peak,
            }
            for one in found.firings
        ],
        "limits": [found.looked, *found.limits],
        "promql": None if twin is None else twin.text,
        "promql_notes": [why] if twin is None else list(twin.notes),
    }


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
