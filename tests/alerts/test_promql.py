"""PromQL twins: what they look like, that Prometheus takes them, and that they fire when the original does."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path

import pytest

from alerts.evaluator import State
from alerts.expression import compile_expression
from alerts.promql import NoTwin, twin_of
from alerts.promtest import Tape, evaluations
from alerts.rules import parse_rules, read_rules
from alerts.syntax import SyntaxProblem
from alerts.testfile import EPOCH_MS, Series, values_of
from alerts.vocabulary import BREAKER_STATES, LEVELS, ROLES, WINDOWS, Scope
from engine.shipped import shipped
from tests.alerts.conditions import Conditions
from tests.programs import require_program

STEP_MS = 60_000
LENGTH = 30
MANAGERS = ("chat", "search")
RECEIVED = 'max by (manager) (dualmodelmanager_active_model{role="secondary"}) == 1'


@pytest.mark.parametrize(
    ("expression", "promql"),
    [
        ('active_model == "secondary"', RECEIVED),
        ('active_model != "primary"', RECEIVED),
        ('!(active_model == "primary")', RECEIVED),
        ('active_model in ["secondary"]', RECEIVED),
        ('active_model.startsWith("sec")', RECEIVED),
        ("override_active", "max by (manager) (dualmodelmanager_override_active) == 1"),
        ("!override_active", "max by (manager) (dualmodelmanager_override_active) == 0"),
        ("primary_traffic_ratio < 0.5", "max by (manager) (dualmodelmanager_primary_traffic_ratio) < 0.5"),
        ("0.5 > primary_traffic_ratio", "max by (manager) (dualmodelmanager_primary_traffic_ratio) < 0.5"),
        ('requests("90m") == 0', ("sum by (manager) (increase(dualmodelmanager_requests_total[90m])) >= -0.5 and "
         "sum by (manager) (increase(dualmodelmanager_requests_total[90m])) < 0.5")),
        ('shed("1m") > 0 || override_active', ("sum by (manager) (increase(dualmodelmanager_shed_total[1m])) > 0.5 or "
         "max by (manager) (dualmodelmanager_override_active) == 1")),
        ('!(cost_usd("1d") > 5 && manager == "chat")',
         ("sum by (manager) (increase(dualmodelmanager_cost_usd_total[1d])) <= 5 or "
         'max by (manager) (dualmodelmanager_active_model{manager!~"chat"}) == 1')),
        ('errors("5m") > failovers("1h") - 1',
         ('sum by (manager) (increase(dualmodelmanager_requests_total{status_code=~"5.."}[5m])) - (sum by (manager) '
          '(increase(dualmodelmanager_failover_events_total{from_role="primary",cause!="override"}[1h])) - 1) > 0.5')),
        ('2 * shed("1m") == 4', ("2 * sum by (manager) (increase(dualmodelmanager_shed_total[1m])) >= 3.5 and "
         "2 * sum by (manager) (increase(dualmodelmanager_shed_total[1m])) < 4.5")),
        ('breaker("primary") == "half_open"',
         (
         '2 * sum by (manager) (dualmodelmanager_breaker_state{role="primary",state=~"open|forced_open|half_open"}) >= '
         'sum by (manager) (dualmodelmanager_breaker_state{role="primary"}) unless '
         '2 * sum by (manager) (dualmodelmanager_breaker_state{role="primary",state=~"open|forced_open"}) >= '
         'sum by (manager) (dualmodelmanager_breaker_state{role="primary"})')),
        ("instances > 1 && override_active", ("max by (manager) (dualmodelmanager_override_active) == 1 and on () "
         "count(dualmodelmanager_recorder_queue_length) > 1")),
        ('requests("5m") > 1e308 * 10',
         f"sum by (manager) (increase(dualmodelmanager_requests_total[5m])) > {int(1e308)} * 10"),
        ("1 > 2", "max by (manager) (dualmodelmanager_active_model) < 0"),
    ],
)  # fmt: skip
def test_an_expression_has_this_twin(expression: str, promql: str) -> None:
    assert twin_of(expression).text == promql


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("agreement_age > 60", "coordinator_up"),
        ('tokens("1h", "primary") > 5', "by model"),
        ("instances > 1 || override_active", "two rules"),
        ("instances > primary_traffic_ratio", "cannot compute"),
        ("(override_active ? 1 : 2) > 1", "choose"),
        ('breaker("primary") == breaker("secondary")', "two states"),
        ('active_model.matches("(?<n>a)")', "cannot be read"),
    ],
)
def test_what_no_metric_tells_has_no_twin_and_the_reason_is_said(expression: str, reason: str) -> None:
    with pytest.raises(NoTwin, match=reason):
        twin_of(expression)


def test_what_is_no_expression_is_said_with_its_place() -> None:
    with pytest.raises(SyntaxProblem) as found:
        twin_of("override_activ")
    assert "override_active" in found.value.message


def test_in_what_a_twin_differs_is_said_beside_it() -> None:
    assert any("half" in note for note in twin_of('failovers("10m") > 3').notes)
    assert any("canaries" in note for note in twin_of('auth_errors("10m") > 0').notes)
    assert twin_of('active_model == "secondary"').notes == ()


def test_every_name_has_a_twin_or_a_reason() -> None:
    for name, level in LEVELS.items():
        text = f'{name}("primary")' if level.by_role else name
        asked = {"number": f"{text} > 1", "text": f'{text} == "{(*level.words, "chat")[0]}"'}.get(level.kind, text)
        _either(asked, level.scope)
    for name, window in WINDOWS.items():
        for role in ("", *ROLES) if window.by_role else ("",):
            more = f', "{role}"' if role else ""
            _either(f'{name}("5m"{more}) > 1', window.scope)


def _either(expression: str, scope: Scope) -> str | None:
    try:
        return twin_of(expression, scope).text
    except NoTwin as error:
        reason = str(error)
    assert len(reason) > 20
    return None


DIFFERENT = {
    "AgreementStale": "a metric tells whether the coordinator is reached, not when the agreement was confirmed last",
    "BreakerFlapping": "metrics do not tell the breakers of one process from those of another",
    "DeliveryFailing": "metrics tell how many notifications wait, not for how long; nor that a receiver was stopped",
    "EvaluatorStalled": "Switchgear's watchdog raises it without a rule",
    "SwitchgearDown": "only somebody else can notice",
}
"""Shipped rules for Prometheus that are not the twin of a rule of ours, each with the reason."""


def promql_rules() -> dict[str, str]:
    """The shipped expressions, each in one line; the file is read as the YAML that it is, without a library for it."""
    text = (shipped("prometheus") / "rules.yml").read_text()
    found = {}
    for block in re.split(r"^ +- alert: ", text, flags=re.MULTILINE)[1:]:
        name, rest = block.split("\n", 1)
        match = re.search(r"^        expr: (\|\n(?P<many>(?: {10}.*\n)+)|(?P<one>.*)\n)", rest, re.MULTILINE)
        assert match is not None
        found[name.strip()] = " ".join((match["many"] or match["one"]).split())
    return found


def test_the_rules_shipped_for_prometheus_are_the_twins_of_ours() -> None:
    theirs = promql_rules()
    ours = {rule.alert: rule for rule in read_rules(shipped("alerts.toml")).rules}
    assert theirs.keys() - DIFFERENT.keys() <= ours.keys() <= theirs.keys()
    for name, rule in ours.items():
        if name not in DIFFERENT:
            assert theirs[name] == twin_of(rule.expression.text, rule.scope).text, name


class Inventor(Conditions):
    """Conditions about states, and states."""

    def simple(self) -> str:
        rand = self.rand
        role = rand.choice(ROLES)
        words = ", ".join(f'"{word}"' for word in rand.sample(BREAKER_STATES, rand.randint(1, 4)))
        return rand.choice(
            [
                f'active_model {rand.choice(["==", "!="])} "{role}"',
                "override_active",
                f'breaker("{role}") {rand.choice(["==", "!="])} "{rand.choice(BREAKER_STATES)}"',
                f'breaker("{role}") in [{words}]',
                f"{self._number()} {rand.choice(['<', '<=', '>', '>=', '==', '!='])} {self._number()}",
                f'manager {rand.choice(["==", "!="])} "{rand.choice(MANAGERS)}"',
                'manager.startsWith("s")',
            ]
        )

    def _number(self, depth: int = 2) -> str:
        rand = self.rand
        if depth == 0 or rand.random() < 0.5:
            return rand.choice(["primary_traffic_ratio", "0.25", "0.5", "1"])
        return f"({self._number(depth - 1)} {rand.choice('+-*')} {self._number(depth - 1)})"

    def series(self) -> tuple[list[Series], list[dict[str, str]]]:
        """The same states for both, with gaps and flapping."""
        ours, theirs = [], []
        for manager in MANAGERS:
            model = self._runs(["primary", "secondary"], gaps=0.0)  # a manager without it is none for Prometheus
            ours.append(_series("active_model", manager, "", model))
            for role in ROLES:
                theirs.append(_metric("active_model", model, role, manager=manager, role=role))
            pinned = self._runs(["true", "false"])
            ours.append(_series("override_active", manager, "", pinned))
            theirs.append(_metric("override_active", pinned, "true", manager=manager, role="primary"))
            theirs.append(_metric("override_active", pinned, "never", manager=manager, role="secondary"))
            ratio = self._runs(["0", "0.25", "0.5", "1"])
            ours.append(_series("primary_traffic_ratio", manager, "", ratio))
            theirs.append(_metric("primary_traffic_ratio", ratio, None, manager=manager))
            for role in ROLES:
                state = self._runs(list(BREAKER_STATES))
                ours.append(_series("breaker", manager, role, state))
                theirs += [
                    _metric("breaker_state", state, word, manager=manager, role=role, state=word, worker="w")
                    for word in BREAKER_STATES
                ]
        return ours, theirs

    def _runs(self, words: list[str], gaps: float = 0.08) -> list[str]:
        found: list[str] = []
        while len(found) < LENGTH:
            word = "_" if self.rand.random() < gaps else self.rand.choice(words)
            found += [word] * self.rand.choice([1, 1, 2, 4, 9])
        return found[:LENGTH]


def _series(name: str, manager: str, role: str, words: list[str]) -> Series:
    values = values_of(" ".join(words))
    return Series(name, manager, role, tuple((EPOCH_MS + n * STEP_MS, value) for n, value in enumerate(values)))


def _metric(name: str, words: list[str], wanted: str | None, **labels: str) -> dict[str, str]:
    values = ["stale" if word == "_" else word if wanted is None else str(int(word == wanted)) for word in words]
    selector = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"dualmodelmanager_{name}{{{selector}}}", "values": " ".join(values)}


@pytest.mark.server
def test_a_twin_fires_at_every_evaluation_at_which_the_original_fires(tmp_path: Path) -> None:
    """Ours keeps the exact start of a level; here levels change at evaluations alone, where both are the same."""
    promtool = require_program("promtool")
    files, compared, fired = [], 0, 0
    for seed in range(40):
        inventor, rand = Inventor(seed), random.Random(seed)
        series, metrics = inventor.series()
        rules, theirs = "", []
        for n in range(5):
            expression = inventor.condition()
            hold, keep = rand.choice(["0s", "1m", "3m"]), rand.choice(["1m", "2m", "4m"])
            rules += f'[[rules]]\nalert = "R{n}"\nexpr = \'{expression}\'\nfor = "{hold}"\nkeep_firing_for = "{keep}"\n'
            twin = twin_of(expression).text
            theirs.append({"alert": f"R{n}", "expr": twin, "for": hold, "keep_firing_for": keep})
        (tmp_path / f"rules{seed}.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": theirs}]}))
        parsed, tape, wanted = parse_rules(rules), Tape(series), []
        assert parsed.problems == ()
        for at_ms, memory in evaluations(parsed, tape, STEP_MS, (LENGTH - 1) * STEP_MS):
            samples = [
                f'ALERTS{{alertname="{one.rule}",alertstate="{one.alert.state}",manager="{one.manager}"}}'
                for one in memory.values()
                if one.alert.state in (State.PENDING, State.FIRING)
            ]
            compared, fired = compared + 5 * len(MANAGERS), fired + len(samples)
            wanted.append(
                {
                    "expr": "sum by (__name__, alertname, alertstate, manager) (ALERTS)",
                    "eval_time": f"{at_ms // 1000}s",
                    "exp_samples": [{"labels": labels, "value": 1} for labels in samples],
                }
            )
        test = {"interval": "1m", "input_series": metrics, "promql_expr_test": wanted}
        body = {"rule_files": [f"rules{seed}.yml"], "evaluation_interval": "1m", "tests": [test]}
        path = tmp_path / f"test{seed}.yml"
        path.write_text(json.dumps(body))
        files.append(str(path))
    done = subprocess.run([promtool, "test", "rules", *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert compared > 10_000
    assert 0.1 < fired / compared < 0.9


@pytest.mark.server
def test_prometheus_takes_every_twin(tmp_path: Path) -> None:
    promtool = require_program("promtool")
    expressions = [f'{name}("{span}") > 3' for name in WINDOWS for span in ("90s", "1.5s", "6h")]
    expressions += [f'{name}("5m", "primary") / {name}("1h") >= 0.5' for name, one in WINDOWS.items() if one.by_role]
    expressions += ['manager.matches("a\\\\.\\"b")', "manager == 'a\"b.c'", '-p95("5m") + 2 * (3 - p50("1h")) < 4 / 2']
    expressions += [Inventor(seed).condition(4) for seed in range(150)]
    twins = [twin for one in expressions for twin in [_either(one, _scope(one))] if twin is not None]
    rules = [{"alert": f"R{n}", "expr": twin} for n, twin in enumerate(twins)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(twins) > 180


def _scope(expression: str) -> Scope:
    try:
        compile_expression(expression, Scope.STORE)
    except SyntaxProblem:
        return Scope.MANAGER
    return Scope.STORE
