"""The preview on the page of alerts, and `switchgear alerts preview`: the same answer from the same store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import words
from history import Moment
from streamlit.testing.v1 import AppTest

from dashboard.commands.alerts_cmd import command
from engine.core.errors import ConfigurationError

Opened = Callable[..., AppTest]
LEVEL = 'active_model == "secondary"'


def asked(config: Path, *arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(
        command, ["preview", *arguments, "--config", str(config), "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.output)
    return found


def test_the_page_asks_for_a_condition_first(opened: Opened, stores: dict[Moment, Path]) -> None:
    at = opened(stores[Moment.CALM], "alerts")
    assert not at.exception
    assert "when a rule would have fired" in words(at)
    assert at.text_input(key="preview-expr").value == ""


def test_an_expression_in_the_address_is_previewed_with_its_twin(opened: Opened, stores: dict[Moment, Path]) -> None:
    at = opened(stores[Moment.DURING], "alerts", expr=LEVEL, since="1d", **{"for": "2m"})
    assert not at.exception
    said = words(at)
    assert "Would have fired 5 times in the last 1 d" in said
    assert "would be firing now" in said
    assert "Judged every 15 s" in said
    assert "sg-seg-bad" in said
    assert at.code[0].value == 'max by (manager) (dualmodelmanager_active_model{role="secondary"}) == 1'
    assert at.text_input(key="preview-expr").value == LEVEL
    assert at.text_input(key="preview-for").value == "2m"


def test_the_form_becomes_the_address(opened: Opened, stores: dict[Moment, Path]) -> None:
    at = opened(stores[Moment.DURING], "alerts")
    at.text_input(key="preview-expr").set_value('requests("5m") >= 0')
    at.text_input(key="preview-for").set_value("1m")
    next(one for one in at.button if one.label == "Preview").click()
    at.run()
    assert not at.exception
    assert at.query_params["expr"] == 'requests("5m") >= 0'
    assert at.query_params["for"] == "1m"
    assert at.query_params["since"] == "7d"
    assert "Would have fired once" in words(at)
    assert at.get("plotly_chart")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"expr": 'eror_rate("5m") > 1'}, "Column 1: there is no name eror_rate: did you mean error_rate?"),
        ({"expr": "override_active &"}, "Column 17: a single &amp;: write &amp;&amp;"),
        ({"expr": "agreement_age > 5"}, "The past of agreement_age is not recorded"),
        ({"expr": LEVEL, "for": "soon"}, "is not a duration"),
        ({"expr": "<script>alert(1)</script>"}, "Column 1"),
    ],
)
def test_what_cannot_be_previewed_is_said_with_its_place(
    opened: Opened, stores: dict[Moment, Path], parameters: dict[str, str], said: str
) -> None:
    at = opened(stores[Moment.CALM], "alerts", **parameters)
    assert not at.exception
    assert said in words(at)
    assert "<script>alert" not in words(at)


def test_where_there_is_no_twin_the_reason_is_said(opened: Opened, stores: dict[Moment, Path]) -> None:
    at = opened(stores[Moment.CALM], "alerts", expr='tokens("1h", "primary") > 5')
    assert "No PromQL" in words(at)
    assert "by model" in words(at)


def test_a_rule_leads_to_its_preview(opened: Opened, stores: dict[Moment, Path]) -> None:
    said = words(opened(stores[Moment.CALM], "alerts", rule="SecondaryActiveTooLong"))
    assert "Preview it" in said
    assert "expr=active_model+%3D%3D+%22secondary%22&amp;for=15m" in said


def test_the_command_gives_the_same_answer(stores: dict[Moment, Path]) -> None:
    found = asked(stores[Moment.DURING], LEVEL, "--for", "2m", "--since", "1d")
    assert str(found["sentence"]).startswith("Would have fired 5 times in the last 1 d")
    assert len(found["firings"]) == 5  # type: ignore[arg-type]
    assert found["promql"] == 'max by (manager) (dualmodelmanager_active_model{role="secondary"}) == 1'
    assert found["step_seconds"] == 15.0


def test_the_command_takes_a_rule_with_its_for(stores: dict[Moment, Path]) -> None:
    found = asked(stores[Moment.DURING], "SecondaryActiveTooLong", "--since", "1d")
    assert found["for_seconds"] == 900
    assert asked(stores[Moment.DURING], "SecondaryActiveTooLong", "--for", "0s")["for_seconds"] == 0


def test_the_command_says_it_in_words(stores: dict[Moment, Path]) -> None:
    arguments = ["preview", 'requests("5m") > 100000', "--config", str(stores[Moment.CALM])]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "Would not have fired in the last" in done.output
    assert "PromQL: sum by (manager) (increase(dualmodelmanager_requests_total[5m])) > 100000.5" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (['eror_rate("5m") > 1'], "column 1: there is no name eror_rate"),
        (["LatencyHi"], 'there is no rule "LatencyHi": did you mean "LatencyHigh"?'),
        (["NoSuchRule"], 'there is no rule "NoSuchRule" and no such name; the rules are '),
        (["overide_active"], "there is no name overide_active: did you mean override_active?"),
        (["agreement_age > 1"], "not recorded"),
        ([LEVEL, "--since", "0s"], "longer than nothing"),
        ([LEVEL, "--since", "soon"], "not a duration"),
        ([LEVEL, "--manager", "nope"], 'no manager "nope"'),
    ],
)
def test_the_command_refuses_in_one_line(stores: dict[Moment, Path], arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CliRunner().invoke(
            command, ["preview", *arguments, "--config", str(stores[Moment.CALM])], catch_exceptions=False
        )


def test_looking_creates_no_database_where_there_is_none(tmp_path: Path, stores: dict[Moment, Path]) -> None:
    config = tmp_path / "switchgear.toml"
    config.write_text(stores[Moment.CALM].read_text())
    for look in (["preview", LEVEL], ["list"], ["history"], ["silences"], ["receivers"]):
        CliRunner().invoke(command, [*look, "--config", str(config)])
        assert not list(tmp_path.glob("*.db*")), look
