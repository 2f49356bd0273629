"""Rule files: every mistake is named once, with its line and what to write; the other rules are used."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from alerts.expression import NoValue, compile_expression
from alerts.labels import Matcher, fingerprint, parse_matcher, parse_matchers
from alerts.promtest import run_file
from alerts.rulebook import RuleBook
from alerts.rules import NoData, parse_rules, read_rules
from alerts.syntax import SyntaxProblem
from alerts.testfile import values_of
from alerts.vocabulary import LEVELS, WINDOWS, Query
from dashboard.commands.alerts_cmd import command
from engine.shipped import shipped

GOOD = '[[rules]]\nalert = "Good"\nexpr = \'active_model == "secondary"\'\n'


@pytest.mark.parametrize(
    ("rule", "line", "words"),
    [
        ("alert = \"A\"\nexpr = 'active_model = \"secondary\"'", 6, ["column 14", "write =="]),
        ("alert = \"A\"\nexpr = 'actve_model == \"secondary\"'", 6, ["no name actve_model", "mean active_model"]),
        ("alert = \"A\"\nexpr = 'active_model == \"secondry\"'", 6, ['did you mean "secondary"']),
        ("alert = \"A\"\nexpr = 'failovers(\"10m\") > \"3\"'", 6, ["a number and a text"]),
        ("alert = \"A\"\nexpr = 'active_model == secondary'", 6, ["column 17", 'write "secondary"']),
        ('alert = "A"\nexpr = """\ntrue &&\n  fals"""', 6, ["line 2, column 3 (fals)"]),
        ("alert = \"A\"\nexpr = 'manager.matches(\"[\")'", 6, ["column 17", "is no pattern"]),
        ("alert = \"A\"\nexpr = 'failovers(10m) > 3'", 6, ["column 13", 'write ("10m")']),
        ("alert = \"A\"\nexpr = 'failovers[10m] > 3'", 6, ["column 10", 'write ("10m")']),
        ("alert = \"A\"\nexpr = 'failovers > 3'", 6, ['write failovers("5m")']),
        ("alert = \"A\"\nexpr = 'failovers(10) > 3'", 6, ["the window of failovers is a text"]),
        ("alert = \"A\"\nexpr = 'failovers(\"10x\") > 3'", 6, ["10x"]),
        ("alert = \"A\"\nexpr = 'failovers(\"90d\") > 3'", 6, ["31d"]),
        ("alert = \"A\"\nexpr = 'failovers(\"5m\", \"primary\") > 3'", 6, ["takes a window"]),
        ("alert = \"A\"\nexpr = 'error_rate(\"5m\", \"both\") > 3'", 6, ['"primary" or "secondary"']),
        ("alert = \"A\"\nexpr = 'error_rate(\"5m\") == 0'", 6, ["never exactly equal"]),
        ("alert = \"A\"\nexpr = 'error_rate(\"5m\")'", 6, ["a rule needs a condition"]),
        ("alert = \"A\"\nexpr = 'override_active and true'", 6, ["write && for and"]),
        ("alert = \"A\"\nexpr = 'breaker == \"open\"'", 6, ["needs a role"]),
        ("alert = \"A\"\nexpr = '(1 > 2'", 6, [") is expected"]),
        ("alert = \"A\"\nexpr = ''", 6, ["is empty"]),
        ("alert = \"A\"\nexpr = 'true'\nfro = \"5m\"", 7, ['did you mean "for"']),
        ("alert = \"A\"\nexpr = 'true'\nfor = \"5 minutes\"", 7, ["for:"]),
        ("alert = \"A\"\nexpr = 'true'\nno_data = \"okay\"", 7, ['did you mean "ok"']),
        ("alert = \"A\"\nexpr = 'active_model == \"secondary\"'\nscope = \"store\"", 6, ["belongs to a manager"]),
        ("alert = \"A\"\nexpr = 'true'\nlabels = { manager = \"x\" }", 7, ["set by Switchgear"]),
        ("alert = \"A\"\nexpr = 'true'\nlabels = { v = \"{{ value }}\" }", 7, ["would make a new alert each time"]),
        ("alert = \"A\"\nexpr = 'true'\nannotations = { s = \"{{ manger }}\" }", 7, ["{{ manger }} is unknown"]),
        ("alert = \"A\"\nexpr = 'true'\nannotations = { s = \"{{ value\" }", 7, ["come in pairs"]),
        ("alert = \"Good\"\nexpr = 'true'", 4, ["same alert as the rule on line 1"]),
        ("expr = 'true'", 4, ["lacks a name"]),
        ('alert = "A"', 4, ["lacks a condition"]),
        ("alert = \"EvaluatorStalled\"\nexpr = 'true'", 5, ["choose another name"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line_and_the_other_rules_are_used(rule: str, line: int, words: list[str]) -> None:
    rules = parse_rules(f"{GOOD}[[rules]]\n{rule}\n", Path("my.toml"))
    (problem,) = rules.problems
    assert str(problem).startswith(f"my.toml:{line}: ")
    assert "\n" not in str(problem)
    for word in words:
        assert word in str(problem)
    assert [one.alert for one in rules.rules] == ["Good"]


def test_a_file_that_is_not_toml_is_one_mistake_with_its_line() -> None:
    (problem,) = parse_rules('[[rules]]\nalert = "A\n').problems
    assert problem.line == 2
    assert "is not TOML" in str(problem)


def test_a_missing_file_says_which_key_to_correct(tmp_path: Path) -> None:
    (problem,) = read_rules(tmp_path / "none.toml").problems
    assert "alerts.rules" in str(problem)


@given(st.text(alphabet="ab()\"'5m<>=!&|+-*/%?:,.[]{} 10tru\\\n", max_size=40))
def test_no_text_makes_the_checker_fail_in_another_way_than_by_saying_so(text: str) -> None:
    found: SyntaxProblem | None = None
    try:
        compile_expression(text)
    except SyntaxProblem as problem:
        found = problem
    assert found is None or (found.message and 0 <= found.at <= len(text))


def run(text: str, **values: float | str | bool | None) -> bool:
    return compile_expression(text).run(lambda query: values.get(query.name))[0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ('rate_limited("5m") >= 10', 0.0),
        ('rate_limited("5m") >= 10 || shed("5m") >= 5', 7.0),
        ('(rate_limited("5m") >= 10 || shed("5m") >= 5)', 0.0),
        ('rate_limited("5m") >= 10 || (shed("5m") >= 50 || errors("5m") > 2)', 7.0),
        ('active_model == "secondary" || shed("5m") >= 5', None),
        ('p95("5m") > 1 || shed("5m") >= 5', 7.0),
        ('rate_limited("5m") >= 10 && shed("5m") >= 5 || requests("5m") > 40 && errors("5m") > 2', 50.0),
        ('rate_limited("5m") >= 10 || shed("5m") >= 50', 0.0),
    ],
)
def test_the_number_for_people_is_of_what_makes_it_hold(text: str, number: float | None) -> None:
    values: dict[str, float | str | None] = {"rate_limited": 0.0, "shed": 7.0, "errors": 3.0, "requests": 50.0}
    values |= {"active_model": "secondary", "p95": None}
    assert compile_expression(text).run(lambda query: values.get(query.name))[1] == number


def test_whole_numbers_and_doubles_mix() -> None:
    assert run('failovers("10m") > 3', failovers=4.0)
    assert run('failovers("10m") * 2 >= 7.5', failovers=4.0)
    assert run("14.4 * (1 - 0.999) < 0.02 && 7 / 2 == 3.5")
    assert run('failovers("10m") > 3 ? true : false', failovers=4.0)


def test_a_missing_value_decides_nothing_unless_the_rest_decides_alone() -> None:
    for text in ('p95("5m") > 3', '!(p95("5m") > 3)', 'p95("5m") > 3 && true', 'active_model != "primary"'):
        with pytest.raises(NoValue):
            run(text)
    assert run('p95("5m") > 3 || override_active', override_active=True)
    assert not run('p95("5m") > 3 && override_active', override_active=False)


def test_nothing_divided_by_nothing_has_no_value_and_something_divided_by_it_is_more_than_any_number() -> None:
    """A share of no requests was an error: every quiet night such a rule was reported as failing."""
    share = 'rate_limited("5m") / requests("5m")'
    for text in (f"{share} > 0.1", f"!({share} > 0.1)", f"{share} - 1 < 0 && true"):
        with pytest.raises(NoValue):
            run(text, rate_limited=0.0, requests=0.0)
    assert run(f"{share} > 0.1 || override_active", rate_limited=0.0, requests=0.0, override_active=True)
    assert run(f"{share} > 1000", rate_limited=1.0, requests=0.0)


def test_conditions_about_what_is_measured_can_be_compared_with_each_other() -> None:
    assert run('(p95("5m") > 3) == (p50("5m") > 1)', p95=4.0, p50=2.0)


@pytest.mark.parametrize(
    ("text", "holding", "not_holding"),
    [
        ('active_model == "secondary"', "secondary", "primary"),
        ('"secondary" == active_model', "secondary", "primary"),
        ('active_model != "primary"', "secondary", "primary"),
        ('!(active_model == "primary")', "secondary", "primary"),
        ('breaker("primary") in ["open", "forced_open"]', "forced_open", "closed"),
        ("override_active", True, False),
        ("!override_active", False, True),
        ("override_active == true", True, False),
    ],
)
def test_one_comparison_of_a_recorded_state_is_recognised(text: str, holding: str, not_holding: str) -> None:
    level = compile_expression(text).level
    assert level is not None
    assert level.holds(holding)
    assert not level.holds(not_holding)


@pytest.mark.parametrize(
    "text", ['failovers("5m") > 3', 'active_model == "secondary" && true', 'manager == "chat"', "instances == 1"]
)
def test_anything_else_is_timed_by_evaluations(text: str) -> None:
    assert compile_expression(text).level is None


def test_the_same_windows_are_asked_once() -> None:
    queries = compile_expression(
        'error_rate("5m") > 1 || error_rate("300s") < 0 || error_rate("5m", "primary") > 1'
    ).queries
    assert queries == {Query("error_rate", 300.0), Query("error_rate", 300.0, "primary")}


@pytest.mark.parametrize("place", ["{{ manager }}", "{{manager}}", "{{  manager }}"])
def test_the_manager_in_a_label_is_filled_however_it_is_spaced(place: str) -> None:
    """Only one space on each side was understood, and the label was the braces themselves."""
    (rule,) = parse_rules(GOOD + f'labels = {{ team = "of {place}" }}\n').rules
    assert rule.labels_for("chat")["team"] == "of chat"


def test_fingerprints_are_prometheus_own() -> None:
    # model.LabelSet{"alertname": "Watchdog"}.Fingerprint(), and the FNV offset basis for no labels.
    assert fingerprint({}) == "cbf29ce484222325"
    assert fingerprint({"a": "b", "c": "d"}) == fingerprint({"c": "d", "a": "b"}) != fingerprint({"a": "bc", "": "d"})


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ('a="b"', {"a": "b"}, True),
        ('a!="b"', {}, True),
        ('a=~"x|y"', {"a": "y"}, True),
        ('a=~"x|y"', {"a": "xx"}, False),
        ('a!~"x.*"', {"a": "xyz"}, False),
        ("a=b", {"a": "b"}, True),
        (r'a="x\"y"', {"a": 'x"y'}, True),
        (r'a="x\\y"', {"a": r"x\y"}, True),
        (r'a="x\ny"', {"a": "x\ny"}, True),
        (r'a="x\.y"', {"a": r"x\.y"}, True),
        (r'a=~"x\.y"', {"a": "x.y"}, True),
        (r'a=~"x\\.y"', {"a": "x.y"}, True),
    ],
)
def test_matchers_are_alertmanagers(text: str, labels: dict[str, str], holds: bool) -> None:
    assert parse_matcher(text).matches(labels) is holds


@pytest.mark.parametrize("text", ['a="x"y"', 'a="x" b="y"', 'a="', 'a="x', 'a=x"y', "a=", r'a="x\"'])
def test_a_matcher_with_a_quote_that_is_not_escaped_is_refused(text: str) -> None:
    """It was taken for one value with quotes in it, which no alert has, so a silence of it silenced nothing."""
    with pytest.raises(ValueError, match="double quotes"):
        parse_matchers([text])


def test_no_pattern_of_a_matcher_holds_anybody_up() -> None:
    """By backtracking this one took a second for 24 letters and a day for 40, with every tick of the evaluator."""
    started = time.process_time()
    assert not parse_matcher('a=~"([a-z]+)*!"').matches({"a": "a" * 40})
    assert time.process_time() - started < 1


@pytest.mark.parametrize("pattern", ["[", "(", "(?=x)"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no pattern"):
        parse_matcher(f'a=~"{pattern}"')


def test_matchers_may_stand_in_one_text_with_commas_between_them() -> None:
    assert parse_matchers(['a="x,y",b=~"z|w", c=d']) == (
        Matcher("a", "=", "x,y"), Matcher("b", "=~", "z|w"), Matcher("c", "=", "d"),
    )  # fmt: skip


@given(st.text())
def test_a_matcher_is_read_as_it_was_written(value: str) -> None:
    """Silences are stored as text: one with a backslash in its value matched nothing when it was read again."""
    matcher = Matcher("a", "=", value)
    assert parse_matchers([str(matcher)]) == (matcher,)


def test_the_notation_of_values_is_promtools() -> None:
    assert values_of("1x3 0+2x2 5-1x1 _ _x2 secondaryx1 true") == [
        *[1.0] * 4, 0.0, 2.0, 4.0, 5.0, 4.0, None, None, None, "secondary", "secondary", True,
    ]  # fmt: skip


def test_the_shipped_rules_have_no_mistake_and_pass_their_tests() -> None:
    assert read_rules(shipped("alerts.toml")).problems == ()
    verdict = run_file(shipped("alerts.test.toml"))
    assert (verdict.problems, verdict.failures) == ((), ())
    tested = shipped("alerts.test.toml").read_text()
    rules = read_rules(shipped("alerts.toml")).rules
    assert [rule.alert for rule in rules if f'alertname = "{rule.alert}"' not in tested] == []


LISTED = """
SecondaryActiveTooLong SecondaryServing RampAborting FailoverStorm BothModelsUnavailable ErrorRateHigh LatencyHigh
RateLimited CredentialsRejected SemanticDrift BreakerFlapping OverrideForgotten AgreementStale RecorderBehind
DeliveryFailing Watchdog AvailabilityBurnFast AvailabilityBurnSlow
"""


def test_the_shipped_rules_are_the_listed_ones_and_each_has_a_prometheus_twin() -> None:
    names = [rule.alert for rule in read_rules(shipped("alerts.toml")).rules]
    assert set(LISTED.split()) <= set(names)
    twins = (shipped("prometheus") / "rules.yml").read_text()
    assert [name for name in names if f"alert: {name}\n" not in twins] == []


def test_the_comment_of_the_shipped_rules_names_everything_that_can_be_asked() -> None:
    text = shipped("alerts.toml").read_text()
    assert [name for name in (*LEVELS, *WINDOWS) if name not in text] == []


def test_a_wrong_expectation_fails_and_says_what_was_firing(tmp_path: Path) -> None:
    (tmp_path / "alerts.toml").write_text(GOOD)
    (tmp_path / "t.toml").write_text(
        'rule_files = ["alerts.toml"]\n[[tests]]\nname = "n"\n'
        'input_series = [{ series = \'active_model{manager="chat"}\', values = "primary secondary" }]\n'
        'alert_rule_test = [{ eval_time = "0m", alertname = "Good", exp_alerts = [{}] },'
        ' { eval_time = "1m", alertname = "Good" }]\n'
    )
    verdict = run_file(tmp_path / "t.toml")
    assert [failure.what.split(":")[0] for failure in verdict.failures] == ["Good at 0m", "Good at 1m"]
    found = CliRunner().invoke(command, ["test", str(tmp_path / "t.toml")])
    assert found.exit_code == 1


def test_check_prints_a_line_an_error_and_exits_with_one(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD + "[[rules]]\nalert = \"B\"\nexpr = 'x'\n[[rules]]\nalert = \"C\"\nexpr = 'y'\n")
    found = CliRunner().invoke(command, ["check", str(path)])
    assert found.exit_code == 1
    assert [line.split(": ")[1] for line in found.output.splitlines()] == ["B", "C"]
    path.write_text(GOOD)
    assert CliRunner().invoke(command, ["check", str(path)]).exit_code == 0


def test_a_file_that_is_just_being_written_changes_nothing(tmp_path: Path) -> None:
    """An editor empties a file before it writes it: what fired was announced as over, and then anew."""
    path = tmp_path / "alerts.toml"
    path.write_text(GOOD)
    book = RuleBook(path)
    before = book.refresh().rules
    path.write_text("")
    assert book.refresh().rules == before
    path.write_text(GOOD + "[[rules]]\nalert = \"B\"\nexpr = 'true'\n")
    assert book.refresh().rules == before
    assert {rule.alert for rule in book.refresh().rules} == {"Good", "B"}


def test_a_file_of_the_same_size_and_time_is_read_again_where_it_is_another(tmp_path: Path) -> None:
    """Rights that are given later, too, change neither size nor time: the rules were not in force until an edit."""
    path, other = tmp_path / "alerts.toml", tmp_path / "other.toml"
    path.write_text(GOOD)
    book = RuleBook(path)
    book.refresh()
    other.write_text(GOOD.replace("Good", "Best"))
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    book.refresh()
    assert [rule.alert for rule in book.refresh().rules] == ["Best"]


def test_a_changed_file_is_read_again_and_a_broken_rule_stays_as_it_last_worked(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(GOOD + '[[rules]]\nalert = "B"\nexpr = \'true\'\nno_data = "keep"\n')
    book = RuleBook(path)
    assert {rule.alert for rule in book.refresh().rules} == {"Good", "B"}
    path.write_text("[[rules]]\nalert = \"B\"\nexpr = 'tru'\n[[rules]]\nalert = \"New\"\nexpr = 'true'\n")
    book.refresh()
    assert {rule.alert: rule.no_data for rule in book.refresh().rules} == {"New": NoData.OK, "B": NoData.KEEP}
    assert len(book.current.problems) == 1
    path.write_text("not toml at all")
    book.refresh()
    assert {rule.alert for rule in book.refresh().rules} == {"New", "B"}
    path.write_text("")
    book.refresh()
    assert book.refresh().rules == ()


@pytest.mark.parametrize("text", ['breaker("primary") != "open"', '!(breaker("primary") in ["open"])'])
def test_a_state_of_a_role_without_a_value_gives_none(text: str) -> None:
    """Null differs from every word: a missing breaker looked like one that is not open."""
    with pytest.raises(NoValue):
        compile_expression(text).run(lambda _: None)
    assert compile_expression(f"{text} || true").run(lambda _: None)[0]


@pytest.mark.parametrize(
    "text", ["-" * 900 + "1 > 0", "!" * 900 + "true", "true" + " && true" * 900, "(" * 900 + "1", "true ? " * 900]
)
def test_an_expression_that_is_too_long_or_too_deep_is_refused_like_any_other(text: str) -> None:
    """The parser called itself until Python gave up, and no rule was evaluated any more."""
    with pytest.raises(SyntaxProblem, match="split the rule"):
        compile_expression(text)


def test_the_longest_expression_can_be_walked() -> None:
    compile_expression("true" + " && true" * 199)
    compile_expression("0.0" + " + 1" * 198 + " > 0")
    compile_expression("-" * 45 + "1 > 0")
