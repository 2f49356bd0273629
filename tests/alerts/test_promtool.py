"""The same rules and series through `promtool test rules` and through ours: every evaluation must agree."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from alerts.evaluator import State
from alerts.promtest import Tape, evaluations
from alerts.rules import parse_rules
from alerts.testfile import EPOCH_MS, Series, values_of
from engine.shipped import shipped
from tests.programs import require_program

STEP_MS = 60_000
LENGTH = 40


def generated(seed: int) -> tuple[str, str, dict[str, str], int]:
    """Rules for both, the series they read, and the evaluation interval in minutes."""
    rand = random.Random(seed)
    every = rand.choice([1, 1, 2])  # levels change on evaluations: ours knows the start even when it lies between two
    hold, keep = rand.choice(["0s", "1m", "2m", "3m", "5m"]), rand.choice(["0s", "1m", "2m", "4m"])
    window, limit = rand.choice([1, 2, 3, 5, 10]), rand.randint(0, 6)
    # Prometheus before 3.0 counts a sample on the left edge, later ones do not: a millisecond less is the same in both.
    window_ms = window * STEP_MS - 1
    words = [rand.choices(["primary", "secondary", "_"], [5, 7, 1])[0] for _ in range(LENGTH)]
    runs = [word for word in words for _ in range(rand.choice([1, 1, 2, 5]) * every)][:LENGTH]
    moves = [rand.choices([0, 1, 2], [6, 3, 1])[0] for _ in range(LENGTH)]
    calls = [rand.randint(0, 5) for _ in range(LENGTH)]
    longer, more = rand.choice([2, 4, 7]), rand.randint(0, 20)
    longer_ms = longer * STEP_MS - 1
    by_manager = 'sum by (manager) (active_model{role="secondary"} == 1) and sum by (manager)'
    ours, theirs = "", []
    for name, expr, promql in (
        ("Level", 'active_model == "secondary"', 'active_model{role="secondary"} == 1'),
        ("Window", f'failovers("{window}m") > {limit}', f"sum_over_time(failovers[{window_ms}ms]) > {limit}"),
        (
            "Both",
            f'active_model == "secondary" && failovers("{window}m") >= {limit}',
            f"{by_manager} (sum_over_time(failovers[{window_ms}ms])) >= {limit}",
        ),
        (
            "Either",
            f'requests("{longer}m") < {limit} || active_model != "secondary"',
            (
                f"sum by (manager) (sum_over_time(requests[{longer_ms}ms])) < {limit}"
                ' or sum by (manager) (active_model{role="secondary"} == 0)'
            ),
        ),
        (
            "Computed",
            f'failovers("{window}m") * 2 + requests("{longer}m") / 2 - 1 > {more}',
            f"sum_over_time(failovers[{window_ms}ms]) * 2 + sum_over_time(requests[{longer_ms}ms]) / 2 - 1 > {more}",
        ),
    ):
        ours += f'[[rules]]\nalert = "{name}"\nexpr = \'{expr}\'\nfor = "{hold}"\nkeep_firing_for = "{keep}"\n'
        theirs.append(
            {"alert": name, "expr": promql, "for": hold, **({"keep_firing_for": keep} if keep != "0s" else {})}
        )
    series = {
        "ours level": " ".join(runs),
        "level": " ".join({"secondary": "1", "primary": "0", "_": "stale"}[word] for word in runs),
        "moves": " ".join(map(str, moves)),
        "calls": " ".join(map(str, calls)),
    }
    return ours, json.dumps({"groups": [{"name": "g", "rules": theirs}]}), series, every


def expectations(rules: str, series: dict[str, str], every: int) -> list[dict[str, object]]:
    """What ours says after every evaluation, as promtool's expectations."""
    tape = Tape(
        [
            Series(
                name,
                "chat",
                "",
                tuple((EPOCH_MS + n * STEP_MS, value) for n, value in enumerate(values_of(series[text]))),
            )
            for name, text in (("active_model", "ours level"), ("failovers", "moves"), ("requests", "calls"))
        ]
    )
    wanted: list[dict[str, object]] = []
    for at_ms, memory in evaluations(parse_rules(rules), tape, every * STEP_MS, (LENGTH - 1) * STEP_MS):
        samples = [
            {"labels": f'ALERTS{{alertname="{one.rule}",alertstate="{one.alert.state}",manager="chat"}}', "value": 1}
            for one in memory.values()
            if one.alert.state in (State.PENDING, State.FIRING)
        ]
        wanted.append(
            {
                "expr": "sum by (__name__, alertname, alertstate, manager) (ALERTS)",
                "eval_time": f"{at_ms // 1000}s",
                "exp_samples": samples,
            }
        )
    return wanted


@pytest.mark.server
def test_generated_rules_are_evaluated_as_prometheus_evaluates_them(tmp_path: Path) -> None:
    promtool = require_program("promtool")
    files, evaluated = [], 0
    for seed in range(60):
        ours, theirs, series, every = generated(seed)
        (tmp_path / f"rules{seed}.yml").write_text(theirs)
        wanted = expectations(ours, series, every)
        evaluated += len(wanted)
        test = {
            "rule_files": [f"rules{seed}.yml"],
            "evaluation_interval": f"{every}m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [
                        {"series": 'active_model{manager="chat",role="secondary"}', "values": series["level"]},
                        {"series": 'failovers{manager="chat"}', "values": series["moves"]},
                        {"series": 'requests{manager="chat"}', "values": series["calls"]},
                    ],
                    "promql_expr_test": wanted,
                }
            ],
        }
        path = tmp_path / f"test{seed}.yml"
        path.write_text(json.dumps(test))
        files.append(str(path))
    done = subprocess.run([promtool, "test", "rules", *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert evaluated > 1500


@pytest.mark.server
def test_promtool_notices_when_ours_would_differ(tmp_path: Path) -> None:
    promtool = require_program("promtool")
    rules = {"groups": [{"name": "g", "rules": [{"alert": "Level", "expr": "active_model == 1", "for": "1m"}]}]}
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": "active_model", "values": "1x5"}],
                "promql_expr_test": [{"expr": "ALERTS", "eval_time": "0s", "exp_samples": []}],
            }
        ],
    }
    (tmp_path / "rules.yml").write_text(json.dumps(rules))
    (tmp_path / "test.yml").write_text(json.dumps(test))
    done = subprocess.run([promtool, "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True)
    assert done.returncode != 0


@pytest.mark.server
def test_the_rules_shipped_for_prometheus_pass_their_own_tests() -> None:
    promtool = require_program("promtool")
    folder = shipped("prometheus")
    for arguments in (["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]):
        done = subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
