"""Alerts are told in the words and units of what they are about."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import words
from history import Moment
from streamlit.testing.v1 import AppTest

from alerts.expression import compile_expression
from alerts.rules import Rule
from dashboard import alert_board
from engine.queries.control_room import AlertRow


@pytest.mark.parametrize(
    ("expression", "value", "said"),
    [
        ('error_rate("5m") > 0.05', 0.6333, "63.3 %"),
        ('secondary_share("15m") > 0.9 && requests("15m") > 5', 1.0, "100 %"),
        ('p95("10m") > 30', 33.4, "33 s"),
        ('ttft_p95("10m") > 2', 2.34, "2.3 s"),
        ("agreement_age > 60", 125.0, "2 min 5 s"),
        ('cost_usd("1h") > 10', 12.4, "$12.40"),
        ('rate_limited("5m") >= 10 || shed("5m") >= 5', 12.0, "12"),
        ("recorder_queue > 1000", 20_400.0, "20,400"),
        ('active_model == "secondary"', None, "–"),
    ],
)
def test_a_value_is_shown_in_its_unit(expression: str, value: float | None, said: str) -> None:
    assert alert_board.shown(Rule("A", compile_expression(expression)), value) == said


def test_the_rule_that_a_link_names_comes_first_and_its_history_says_how_long_it_fired(
    stores: dict[Moment, Path], opened: Callable[..., AppTest]
) -> None:
    at = opened(stores[Moment.CALM], "alerts", rule="SecondaryActiveTooLong")
    assert not at.exception
    said = words(at)
    assert said.index("Silence it") < said.index('aria-label="Alert rules"')
    assert re.search(r"Resolved.{1,120}after \d+ min", said)


def test_a_description_has_values_once_there_is_an_alert_to_fill_it_from() -> None:
    rule = Rule("A", compile_expression("true"), annotations={"description": "moved away at {{ since }}"})
    said = {"annotations": {"summary": "it is so", "description": "moved away at 12:00"}}
    state = AlertRow("f", "A", "chat", "warning", {}, "firing", 1.0, 0, said)
    (calm,) = alert_board.rows([rule], [], [], "chat", 1_000)
    (stands,) = alert_board.rows([rule], [state], [], "chat", 1_000)
    assert calm.description == "moved away at ‹since›"
    assert (stands.summary, stands.description) == ("it is so", "moved away at 12:00")
