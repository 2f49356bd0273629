"""Unit tests of rules, in the shape of promtool's: series in, alerts at moments out. Pure, no store.

A series holds one value an interval. Levels keep a value until the next; counters (`failovers`, `requests`, …) give
the events of each interval, which windows count. A ratio or percentile can be given as a series of its own, else it
is worked out from the counters: `error_rate` from `errors` and `requests`, `secondary_share` from `requests`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alerts.evaluator import State
from alerts.expression import LevelTest, Value
from alerts.judgement import judge
from alerts.lint import Problem, unknown
from alerts.memory import Remembered
from alerts.places import Places, shown, toml_error_line
from alerts.rules import RuleSet, read_rules
from alerts.testfile import EPOCH_MS, Series, TestFileError, check, series_of
from alerts.vocabulary import WINDOWS, Query
from engine.durations import DurationError, parse_duration


class Tape:
    """Input series as what rules ask; answers for one moment after another.

    Args:
        series: The series; of one name, manager and role there is at most one.
    """

    def __init__(self, series: Sequence[Series]) -> None:
        self._series = {(one.name, one.manager, one.role): one for one in series}
        self.now_ms = EPOCH_MS
        self.managers = sorted({one.manager for one in series if one.manager}) or ["chat"]

    def ask(self, manager: str | None, query: Query) -> Value:
        """See `alerts.observations.Observations.ask`."""
        if query.name == "manager":
            return manager
        found = self._find(query.name, manager, query.role)
        if not query.is_window:
            if found is None:
                return _DEFAULTS.get(query.name)
            return next((value for at, value in reversed(found.samples) if at <= self.now_ms), None)
        if WINDOWS[query.name].measured:
            return self._measured(manager, query, found)
        return self._count(query.name, manager, query.role, query.seconds)

    def since(self, manager: str | None, test: LevelTest) -> int | None:
        """See `alerts.observations.Observations.since`."""
        found = self._find(test.query.name, manager, test.query.role)
        since = None
        for at, value in reversed(found.samples if found else ()):
            if at > self.now_ms:
                continue
            if value is None or not test.holds(value):
                break
            since = at
        return since

    def _find(self, name: str, manager: str | None, role: str) -> Series | None:
        return self._series.get((name, manager, role)) or self._series.get((name, None, role))

    def _measured(self, manager: str | None, query: Query, found: Series | None) -> Value:
        if found is not None:
            return next((value for at, value in reversed(found.samples) if at <= self.now_ms), None)
        total = self._count("requests", manager, query.role, query.seconds)
        parts = {"error_rate": ("errors", query.role), "secondary_share": ("requests", "secondary")}
        if query.name not in parts or not total:
            return None
        name, role = parts[query.name]
        return self._count(name, manager, role, query.seconds) / total

    def _count(self, name: str, manager: str | None, role: str, seconds: float) -> float:
        """Events in the window; without a series for both roles those of the single roles are added up."""
        found = self._find(name, manager, role)
        chosen = [found] if found else []
        if not chosen and not role:
            chosen = [one for (n, m, _), one in self._series.items() if n == name and m in (manager, None)]
        start = self.now_ms - round(seconds * 1000)
        return sum(
            float(value)
            for one in chosen
            for at, value in one.samples
            if start < at <= self.now_ms and isinstance(value, int | float)
        )


_DEFAULTS: Mapping[str, Value] = {
    "active_model": "primary",
    "primary_traffic_ratio": 1.0,
    "override_active": False,
    "breaker": "closed",
    "instances": 1.0,
    "agreement_age": 0.0,
    "agreement_regressed": 0.0,
    "recorder_queue": 0.0,
    "outbox_age": 0.0,
    "receivers_stopped": 0.0,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An expectation that was not met."""

    test: str
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a test file went: mistakes in it or in its rules, failures, and how many expectations were checked."""

    problems: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    checked: int = 0

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return not self.problems and not self.failures


@dataclass(slots=True)
class _Tally:
    failures: list[Failure] = field(default_factory=list)
    checked: int = 0


def run_file(path: Path) -> Verdict:
    """Run a test file.

    Args:
        path: The file; its `rule_files` are beside it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = Problem(path, toml_error_line(str(error)), f"is not TOML: {error}: correct that line")
        return Verdict((str(problem),))
    except (OSError, UnicodeDecodeError) as error:
        return Verdict((f"{shown(path)}: cannot be read ({error}): name a rule test file",))
    try:
        sets = _rule_sets(path, data)
    except TestFileError as error:
        return Verdict((str(Problem(path, 1, str(error))),))
    problems = [str(problem) for one in sets for problem in one.problems]
    if problems:
        return Verdict(tuple(problems))
    rules = RuleSet(tuple(rule for one in sets for rule in one.rules))
    tally, places = _Tally(), Places(text)
    for index, test in enumerate(data["tests"]):
        name = test.get("name", f"test {index + 1}")
        try:
            _run_test(rules, name, test, data.get("evaluation_interval", "1m"), tally)
        except (TestFileError, DurationError) as error:
            problems.append(str(Problem(path, places.line("tests", index), str(error), str(name))))
    return Verdict(tuple(problems), tuple(tally.failures), tally.checked)


def _rule_sets(path: Path, data: Mapping[str, Any]) -> list[RuleSet]:
    """The rules that a test file names."""
    check("file", data)
    files = [path.parent / name for name in data.get("rule_files", [])]
    lost = [shown(file) for file in files if not file.is_file()]
    msg = ""
    if not files:
        msg = 'names no rules: add rule_files = ["alerts.toml"]'
    elif lost:
        msg = f"rule_files: there is no file {', '.join(lost)}: create it, or correct the name"
    elif not data.get("tests"):
        msg = "has no tests: begin each with [[tests]]"
    if msg:
        raise TestFileError(msg)
    return [read_rules(file) for file in files]


def _run_test(rules: RuleSet, name: str, test: Mapping[str, Any], evaluation_interval: object, tally: _Tally) -> None:
    check("test", test)
    step_ms = round(parse_duration(test.get("interval", evaluation_interval)) * 1000)
    every_ms = round(parse_duration(evaluation_interval) * 1000)
    if step_ms <= 0 or every_ms <= 0:
        msg = "an interval is longer than nothing"
        raise TestFileError(msg)
    tape = Tape(series_of(test, step_ms))
    wanted = sorted(
        ((round(parse_duration(case.get("eval_time", 0)) * 1000), case) for case in test.get("alert_rule_test", [])),
        key=lambda pair: pair[0],
    )
    if not wanted:
        msg = "expects nothing: add alert_rule_test"
        raise TestFileError(msg)
    after: dict[int, Mapping[str, Remembered]] = dict(evaluations(rules, tape, every_ms, wanted[-1][0]))
    for eval_ms, case in wanted:
        _compare(rules, name, case, after[eval_ms // every_ms * every_ms], tally)


def evaluations(
    rules: RuleSet, tape: Tape, every_ms: int, until_ms: int
) -> Iterator[tuple[int, Mapping[str, Remembered]]]:
    """Evaluate again and again from time 0.

    Args:
        rules: The rules.
        tape: Their input; its `now_ms` is moved.
        every_ms: Between two evaluations.
        until_ms: Of the last one, inclusive.

    Yields:
        Milliseconds since the beginning, and what is remembered after that evaluation.
    """
    memory: Mapping[str, Remembered] = {}
    for at_ms in range(0, until_ms + 1, every_ms):
        tape.now_ms = EPOCH_MS + at_ms
        memory = judge(rules.rules, tape.managers, memory, tape, tape.now_ms).memory
        yield at_ms, memory


def _compare(
    rules: RuleSet, test: str, case: Mapping[str, Any], memory: Mapping[str, Remembered], tally: _Tally
) -> None:
    name = case.get("alertname", "")
    known = [rule.alert for rule in rules.rules]
    if name not in known:
        msg = f"alertname: {unknown(str(name), known)}"
        raise TestFileError(msg)
    tally.checked += 1
    firing = [one for one in memory.values() if one.rule == name and one.alert.state is State.FIRING]
    expected = list(case.get("exp_alerts", []))
    when = f"{name} at {case.get('eval_time', 0)}"
    left = list(firing)
    for want in expected:
        found = next((one for one in left if _fits(one, want)), None)
        if found is None:
            got = [dict(one.labels) | dict(one.annotations) for one in firing] or "nothing"
            tally.failures.append(Failure(test, f"{when}: expected {dict(want)}, firing is {got}"))
        else:
            left.remove(found)
    for extra in left:
        tally.failures.append(Failure(test, f"{when}: fires and was not expected: {dict(extra.labels)}"))


def _fits(one: Remembered, want: Mapping[str, Any]) -> bool:
    return bool(
        want.get("exp_labels", {}).items() <= one.labels.items()
        and want.get("exp_annotations", {}).items() <= one.annotations.items()
    )
