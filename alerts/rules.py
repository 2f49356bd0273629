"""Alert rules as values: read from TOML, every mistake named with its line, the good ones usable beside the bad."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from alerts import lint
from alerts.expression import Expression, compile_expression
from alerts.labels import fingerprint
from alerts.lint import Problem
from alerts.places import Places, toml_error_line
from alerts.syntax import SyntaxProblem
from alerts.template import TemplateError, check, label_text
from alerts.vocabulary import LEVELS, WINDOWS, Query, Scope
from engine.durations import parse_duration

RULE_FAILING = "RuleEvaluationFailing"
EVALUATOR_STALLED = "EvaluatorStalled"
RESERVED = (RULE_FAILING, EVALUATOR_STALLED)


class NoData(StrEnum):
    """What a rule without a value means: the condition is not met, it is, or nothing is known and nothing changes."""

    OK = "ok"
    ALERTING = "alerting"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule.

    Attributes:
        alert: Its name, the label `alertname`.
        expression: The condition.
        hold: `for`: milliseconds the condition must hold before the alert fires.
        keep: `keep_firing_for`: milliseconds it goes on firing after that.
        labels: Added to the alert; `{{ manager }}` may stand in them.
        annotations: Texts for people, templates.
        no_data: What no value means.
        scope: Whether it is evaluated per manager or once for the store.
        line: Where it stands in its file.
    """

    alert: str
    expression: Expression
    hold: int = 0
    keep: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    no_data: NoData = NoData.OK
    scope: Scope = Scope.MANAGER
    line: int = 0

    @property
    def fleet(self) -> bool:
        """Whether it asks only what every machine of a fleet sees alike, so that one of them tells for all."""
        return all((LEVELS.get(query.name) or WINDOWS[query.name]).fleet for query in self.expression.queries)

    def labels_for(self, manager: str | None) -> dict[str, str]:
        """The final labels of its alert for a manager, which identify it."""
        own = {name: label_text(text, manager) for name, text in self.labels.items()}
        labels = {"alertname": self.alert, **own}
        return labels if manager is None else {**labels, "manager": manager}


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The usable rules of a file, what is wrong with the others, and which text it was."""

    rules: tuple[Rule, ...] = ()
    problems: tuple[Problem, ...] = ()
    path: Path = Path("alerts.toml")

    def lost(self, alert: str) -> bool:
        """Whether a rule of this name may be there and cannot be read, so that nobody knows if its alerts are over."""
        broken = {problem.rule for problem in self.problems}
        return alert in broken or ("" in broken and not self.rules)

    def queries(self) -> frozenset[Query]:
        """Everything the rules ask."""
        return frozenset(query for rule in self.rules for query in rule.expression.queries)


def read_rules(path: Path) -> RuleSet:
    """Read a rule file; never raises for its content.

    Args:
        path: The file.

    Returns:
        The rules without mistakes, and a problem for each mistake.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        what = f"cannot be read ({reason}): create it, or correct alerts.rules in the configuration"
        return RuleSet(problems=(Problem(path, 1, what),), path=path)
    return parse_rules(text, path)


def parse_rules(text: str, path: Path = Path("alerts.toml")) -> RuleSet:
    """Read the text of a rule file; see `read_rules`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = Problem(path, toml_error_line(str(error)), f"is not TOML: {error}: correct that line")
        return RuleSet(problems=(problem,), path=path)
    places = Places(text)
    problems = [Problem(path, 1, lint.unknown(key, ("rules",))) for key in data if key != "rules"]
    tables = data.get("rules", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append(Problem(path, 1, "rules must be an array of tables: begin each rule with [[rules]]"))
        tables = []
    rules: list[Rule] = []
    seen: dict[str, int] = {}
    for index, table in enumerate(tables):
        found = [
            Problem(path, places.line("rules", index, key), what, str(table.get("alert", "")))
            for key, what in _mistakes(table)
        ]
        if not found:
            rule = _rule(table, places.line("rules", index))
            mark = fingerprint({"alertname": rule.alert, **rule.labels})
            if mark in seen:
                what = f"is the same alert as the rule on line {seen[mark]}: rename it, or give it another label"
                found = [Problem(path, rule.line, what, rule.alert)]
            else:
                seen[mark] = rule.line
                rules.append(rule)
        problems += found
    return RuleSet(tuple(rules), tuple(problems), path)


def _mistakes(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with one rule's table: key and message."""
    yield from lint.shape(table)
    name = table.get("alert")
    if name in RESERVED:
        yield "alert", f"{name} is raised by Switchgear itself: choose another name"
    if not isinstance(expr := table.get("expr"), str):
        return
    try:
        compile_expression(expr, _scope(table))
    except SyntaxProblem as problem:
        yield "expr", f"{lint.pointed(expr, problem.at)}: {problem.message}"
    for key in ("labels", "annotations"):
        texts = table.get(key, {})
        for label, text in texts.items() if isinstance(texts, dict) else ():
            try:
                check(str(text), in_label=key == "labels")
            except TemplateError as error:
                yield key, f"{key}.{label}: {error}"


def _scope(table: Mapping[str, Any]) -> Scope:
    return Scope.STORE if table.get("scope") == "store" else Scope.MANAGER


def _rule(table: Mapping[str, Any], line: int) -> Rule:
    return Rule(
        alert=table["alert"],
        expression=compile_expression(table["expr"], _scope(table)),
        hold=round(parse_duration(table.get("for", 0)) * 1000),
        keep=round(parse_duration(table.get("keep_firing_for", 0)) * 1000),
        labels=dict(table.get("labels", {})),
        annotations=dict(table.get("annotations", {})),
        no_data=NoData(table.get("no_data", "ok")),
        scope=_scope(table),
        line=line,
    )
