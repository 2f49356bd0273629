"""Rule test files: a mistake in one is named, as with a key that nobody reads a test could not fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from alerts.promtest import run_file
from alerts.testfile import MOST_VALUES, TestFileError, values_of

RULES = '[[rules]]\nalert = "Good"\nexpr = \'active_model == "secondary"\'\n'
ACTIVE = 'input_series = [{ series = \'active_model{manager="chat"}\', values = "primary secondaryx3" }]\n'
CASE = '{ eval_time = "0m", alertname = "Good" }'
CASES = f"alert_rule_test = [{CASE}]\n"


def verdict_on(folder: Path, text: str) -> list[str]:
    (folder / "alerts.toml").write_text(RULES)
    (folder / "t.toml").write_text(text)
    verdict = run_file(folder / "t.toml")
    assert not verdict.passed
    return [problem.partition("t.toml:")[2] for problem in verdict.problems]


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (ACTIVE + 'alert_rule_test = [{ eval_time = "2m", alertname = "Good", exp_alert = [{}] }]', '"exp_alerts"'),
        ('alert_rule_test = [{ alertname = "Good", exp_alerts = [{ exp_label = {} }] }]', '"exp_labels"'),
        ('alert_rule_test = [{ alertname = "Good", exp_alerts = [{ exp_labels = { a = 1 } }] }]', "table of texts"),
        ('alert_rule_test = [{ alertname = "Good", exp_alerts = [3] }]', "exp_alerts must be a list of tables"),
        ("alert_rule_test = [3]", "alert_rule_test must be a list of tables"),
        (CASES + "input_series = 3", "input_series must be a list of tables"),
        (CASES + "input_series = [{ series = 'requests', value = \"1\" }]", 'did you mean "values"'),
        (CASES + "input_series = [{ series = 'requests' }]", "requests has no values"),
        (CASES + "events = [{ series = 'requests', value = [1] }]", "value must be a number"),
        (
            CASES + ACTIVE.replace("}]", "}, { series = 'active_model{manager=\"chat\"}', values = '_' }]"),
            "given twice",
        ),
        (CASES + "input_series = [{ series = 'breaker', values = \"open\" }]", "breaker needs a role"),
        (CASES + 'input_series = [{ series = \'requests{role="third"}\', values = "1" }]', 'not "third"'),
        (CASES + 'input_series = [{ series = \'failovers{role="primary"}\', values = "1" }]', "failovers has no role"),
    ],
)
def test_a_mistake_in_a_test_is_named_with_its_place(tmp_path: Path, test: str, words: str) -> None:
    (problem,) = verdict_on(tmp_path, f'rule_files = ["alerts.toml"]\n[[tests]]\nname = "n"\n{test}\n')
    assert problem.startswith("2: n: ")
    assert words in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'rule_files = "alerts.toml"\n[[tests]]\n{CASES}', "rule_files must be a list of texts"),
        (f'rule_files = ["none.toml"]\n[[tests]]\n{CASES}', "there is no file"),
        ('rule_files = ["alerts.toml"]\ntests = 3', "tests must be a list of tables"),
        ('rule_files = ["alerts.toml"]\n', "has no tests"),
        (f"[[tests]]\n{CASES}", "names no rules"),
    ],
)
def test_a_mistake_in_the_file_itself_is_named(tmp_path: Path, text: str, words: str) -> None:
    (problem,) = verdict_on(tmp_path, text)
    assert words in problem


def test_numbers_are_written_as_promtool_takes_them() -> None:
    assert values_of("1e3 -2 +2 .5 1e-1x1 stale 1+0.5x1 -Inf") == [
        1000.0, -2.0, 2.0, 0.5, 0.1, 0.1, None, 1.0, 1.5, float("-inf"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["1.2.3+1x2", "1+x2", "5x", f"1x{MOST_VALUES}", f"0+1x{MOST_VALUES}"])
def test_what_is_no_value_or_too_many_is_refused(text: str) -> None:
    with pytest.raises(TestFileError):
        values_of(text)
