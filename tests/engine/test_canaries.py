"""Canaries are read with clear errors, come when they are due, and find what is wrong with an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.canaries import Canary, CanarySchedule, Expectation, Finding, judge, load, parse
from engine.core.errors import ConfigurationError
from engine.core.messages import Completion, FinishReason, Role

ONE = '[[canaries]]\nname = "sum"\nprompt = "17 + 25?"\n'
FORMAT = 'response_format = { type = "json_schema", json_schema = { schema = { type = "x" } } }\n'


def expecting(**properties: object) -> Canary:
    return Canary(name="sum", prompt="17 + 25?", expect=Expectation.model_validate(properties))


def named(name: str) -> Canary:
    return expecting(equals=name).model_copy(update={"name": name})


def found(text: str, finish: FinishReason | None = FinishReason.STOP, **properties: object) -> tuple[str, ...]:
    return judge(expecting(**properties), Completion(text, finish)).broken


# -- judging ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "good", "bad", "said"),
    [
        ({"contains": "42"}, "It is 42.", "It is 43.", "contains: 1 of 1"),
        ({"contains": ["17", "42"]}, "42 = 17 + 25", "42", "contains: 1 of 2"),
        ({"equals": "42"}, " 42\n", "42.", "equals: another text"),
        ({"regex": r"^\s*42\b"}, "42 it is", "420", "regex: no match"),
        ({"json_schema": {"type": "object"}}, "{}", "[]", "json_schema: the answer breaks the JSON schema at type"),
        ({"json_schema": {"type": "object"}}, "{}", "Sure: {}", "json_schema: the answer is no JSON document"),
        ({"min_length": 3}, "abc", "ab", "min_length: 2 characters, at least 3"),
        ({"max_length": 3}, "abc", "abcd", "max_length: 4 characters, at most 3"),
    ],
)
def test_each_property_holds_or_is_named(properties: dict[str, object], good: str, bad: str, said: str) -> None:
    assert found(good, FinishReason.STOP, **properties) == ()
    (broken,) = found(bad, FinishReason.STOP, **properties)
    assert broken.startswith(said)


def test_an_empty_answer_can_be_expected() -> None:
    assert found("", equals="") == ()
    assert found("x", max_length=0) != ()


def test_the_finish_reason_is_a_property() -> None:
    assert found("x", finish_reason="stop") == ()
    assert found("x", FinishReason.LENGTH, finish_reason="stop") == ("finish_reason: length, stop expected",)
    assert found("x", None, finish_reason="stop") == ("finish_reason: none, stop expected",)


def test_every_broken_property_is_named() -> None:
    finding = judge(expecting(contains="a", regex="b", max_length=2), Completion("xyz", FinishReason.STOP))
    assert not finding.passed
    assert [broken.partition(":")[0] for broken in finding.broken] == ["contains", "regex", "max_length"]
    assert finding.detail.startswith("contains: 1 of 1 texts missing; regex: no match; max_length: 3 ")


@given(st.text("qz", min_size=5))
def test_a_finding_never_quotes_the_answer_and_stays_short(answer: str) -> None:
    canary = expecting(contains="a", equals="b", regex="c", json_schema={"type": "object"}, max_length=1)
    finding = judge(canary, Completion(answer, FinishReason.STOP))
    assert len(finding.broken) == 5
    assert answer not in finding.detail
    assert len(finding.detail) <= 200


def test_a_finding_without_anything_broken_has_passed() -> None:
    assert Finding("sum").passed


def test_the_request_is_synthetic_and_asks_what_the_file_says() -> None:
    canary = Canary(name="n", prompt="p", system="s", options={"temperature": 0}, expect=Expectation(equals="x"))
    request = canary.request()
    assert request.synthetic
    assert [message["content"] for message in request.messages] == ["s", "p"]
    assert request.options == {"temperature": 0}


# -- when ------------------------------------------------------------------------------------------------------


def test_runs_are_spread_over_the_interval_and_come_again() -> None:
    first, second = expecting(equals="a"), expecting(equals="b")
    schedule = CanarySchedule([first, second], 40.0, 100.0)
    seen = [(now, run.canary, run.role) for now in range(100, 180) for run in schedule.due(float(now))]
    assert seen == [
        (start + place * 10, canary, role)
        for start in (100, 140)
        for place, (canary, role) in enumerate((canary, role) for canary in (first, second) for role in Role)
    ]


def test_missed_runs_are_not_made_up_for() -> None:
    schedule = CanarySchedule([expecting(equals="a")], 10.0, 0.0)
    assert len(schedule.due(1_000.0)) == 2
    assert schedule.due(1_000.0) == ()
    assert schedule.next_at == 1_005.0


def test_a_process_that_starts_goes_on_with_the_schedule_of_those_before_it() -> None:
    schedule = CanarySchedule([named("a"), named("b")], 40.0, 0.0)
    schedule.resume({("a", Role.PRIMARY): 10.0, ("a", Role.SECONDARY): 55.0, ("b", Role.PRIMARY): 45.0}, 100.0)
    seen = [(now, run.canary.name, run.role) for now in range(100, 141) for run in schedule.due(float(now))]
    assert seen == [
        (100, "b", Role.SECONDARY),  # never asked
        (110, "a", Role.SECONDARY),
        (120, "b", Role.PRIMARY),
        (130, "a", Role.PRIMARY),  # the rest of its interval
        (140, "b", Role.SECONDARY),
    ]


def test_processes_that_live_shorter_than_an_interval_ask_every_canary_in_turn() -> None:
    asked: dict[tuple[str, Role], float] = {}
    for start in range(0, 400, 50):
        schedule = CanarySchedule([named("a"), named("b")], 300.0, float(start))
        schedule.resume({run: start - at for run, at in asked.items()}, float(start))
        for now in range(start, start + 20):
            asked |= {(run.canary.name, run.role): float(now) for run in schedule.due(float(now))}
    assert len(asked) == 4


def test_without_canaries_nothing_is_ever_due() -> None:
    schedule = CanarySchedule([], 10.0, 0.0)
    assert (schedule.due(100.0), schedule.next_at) == ((), None)


@given(st.lists(st.floats(0, 30), max_size=50), st.floats(1, 60))
def test_no_run_comes_more_often_than_its_interval_however_time_passes(steps: list[float], every: float) -> None:
    schedule, now, runs = CanarySchedule([expecting(equals="a")], every, 0.0), 0.0, 0
    for step in steps:
        now += step
        runs += len(schedule.due(now))
        assert runs <= 2 * (now / every + 1)
        assert schedule.next_at is not None
        assert now < schedule.next_at <= now + every * 1.000001


# -- the file --------------------------------------------------------------------------------------------------


def test_the_shipped_example_is_valid() -> None:
    canaries = load(Path(__file__).parents[2] / "data" / "canaries.toml")
    assert [canary.name for canary in canaries] == ["arithmetic", "language", "json"]
    assert judge(canaries[2], Completion('{"colour": "yellow", "letters": 6}', FinishReason.STOP)).passed
    assert not judge(canaries[2], Completion("It is yellow.", FinishReason.STOP)).passed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "c.toml: canaries: there is none"),
        ("[canaries]\nname = 'x'", "c.toml: canaries: each needs double brackets"),
        ("canaries = []", "c.toml: canaries: there is none"),
        ("[[canaries", "c.toml: is no TOML"),
        (ONE, "c.toml: canaries[0].expect: is missing"),
        (ONE + "expect = { contains = '' }", "canaries[0].expect.contains[0]: string should have at least 1 character"),
        (ONE + FORMAT + "expect = { contains = 'x' }", "canaries[0].response_format: the JSON schema is not valid"),
        (ONE + "expect = {}", "c.toml: canaries[0].expect: expects nothing"),
        (ONE + "expect = { contians = 'x' }", 'canaries[0].expect.contians: unknown key: did you mean "contains"?'),
        (ONE + "promt = 'x'\nexpect = { equals = 'x' }", 'canaries[0].promt: unknown key: did you mean "prompt"?'),
        (ONE + "expect = { regex = '(' }", "canaries[0].expect.regex: is no regular expression: missing )"),
        (ONE + "expect = { json_schema = { type = 'x' } }", "[0].expect.json_schema: the JSON schema is not valid"),
        (ONE + "expect = { min_length = 3, max_length = 2 }", "min_length 3 is more than max_length 2"),
        (ONE + "expect = { finish_reason = 'done' }", "canaries[0].expect.finish_reason: input should be 'stop'"),
        (ONE + "expect = { equals = 'x' }\n" + ONE + "expect = { equals = 'x' }", 'canaries[1].name: "sum" is taken'),
    ],
)  # fmt: skip
def test_errors_name_the_place_and_what_to_change(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "c.toml")
    assert said in caught.value.message
    assert caught.value.message.startswith("c.toml: ")
    assert len(caught.value.message.splitlines()) == 1, "one line for one mistake"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml: cannot be read: No such file"):
        load(tmp_path / "nowhere.toml")


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load(tmp_path / "c.toml")
