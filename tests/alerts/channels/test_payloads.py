"""What each channel sends, letter by letter, and what it takes for an answer. Golden bodies are beside this file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from alerts.channels import CHANNELS, pagerduty, slack
from alerts.notices import Line, Notice, Reason, Status
from engine.config import ReceiverKind

GOLDEN = Path(__file__).parent / "golden"
START = 1_763_800_020_123
LABELS = {"alertname": "SecondaryActiveTooLong", "manager": "chat", "severity": "critical"}
TEXTS = {"summary": "chat has run on its secondary for 15 min <&>", "runbook_url": "https://example.com/runbook"}
FIRING = Line(Status.FIRING, LABELS, TEXTS, START, None, "67789577d892f6ba", 0.97)
RESOLVED = Line(Status.RESOLVED, LABELS, TEXTS, START, START + 60_000, "67789577d892f6ba", 0.97)


def notice(*lines: Line, reason: Reason = Reason.FIRST) -> Notice:
    group = {"alertname": "SecondaryActiveTooLong", "manager": "chat"}
    return Notice("ops", reason, group, lines, "https://switchgear.example.com", START + 90_000)


@pytest.mark.parametrize("kind", sorted(CHANNELS))
@pytest.mark.parametrize("state", ["firing", "resolved"])
def test_the_body_is_the_golden_one(kind: str, state: str) -> None:
    said = notice(FIRING) if state == "firing" else notice(RESOLVED, reason=Reason.ALL_RESOLVED)
    bodies = [json.loads(body) for body in CHANNELS[kind].bodies(said)]
    path = GOLDEN / f"{kind}-{state}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(bodies, indent=2, ensure_ascii=False) + "\n")
    assert bodies == json.loads(path.read_text())


@pytest.mark.parametrize("kind", sorted(CHANNELS))
def test_rendering_twice_gives_the_same_bytes(kind: str) -> None:
    assert CHANNELS[kind].bodies(notice(FIRING, RESOLVED)) == CHANNELS[kind].bodies(notice(FIRING, RESOLVED))


def test_every_kind_of_the_configuration_has_a_channel() -> None:
    assert set(CHANNELS) == {kind.value for kind in ReceiverKind}


def test_a_group_fires_while_one_of_its_alerts_does() -> None:
    body: Any = json.loads(CHANNELS["webhook"].render(notice(FIRING, RESOLVED)))
    assert body["status"] == "firing"
    assert [alert["status"] for alert in body["alerts"]] == ["firing", "resolved"]
    assert body["groupKey"] == '{}:{alertname="SecondaryActiveTooLong", manager="chat"}'


def test_pagerduty_keeps_the_routing_key_out_of_the_store_and_puts_it_into_the_event() -> None:
    body = pagerduty.render(notice(FIRING))
    assert "R0UTING" not in body
    assert json.loads(pagerduty.complete(body, "R0UTING"))["routing_key"] == "R0UTING"
    assert pagerduty.complete(body, "R0UTING") == pagerduty.complete(body, "R0UTING")


def test_pagerduty_gives_firing_and_resolved_of_one_episode_one_key_and_the_next_another() -> None:
    keys = [json.loads(pagerduty.render(notice(line)))["dedup_key"] for line in (FIRING, RESOLVED)]
    later = Line(Status.FIRING, LABELS, TEXTS, START + 1, None, FIRING.fingerprint)
    assert keys[0] == keys[1] != json.loads(pagerduty.render(notice(later)))["dedup_key"]


@pytest.mark.parametrize(("status", "taken"), [(202, True), (200, True), (302, False), (400, False), (429, False)])
def test_pagerduty_and_what_speaks_its_protocol_accept_with_any_2xx(status: int, taken: bool) -> None:
    """PagerDuty says 202, others of its protocol 200: a letter they had taken was sent again and again for a day."""
    assert CHANNELS["pagerduty"].accepts(status, b"") is taken


def test_slack_accepts_nothing_but_ok() -> None:
    assert slack.accepts(200, b"ok\n")
    assert not slack.accepts(200, b"no_team")
    assert not slack.accepts(202, b"ok")


def test_slack_text_stays_below_its_limit() -> None:
    long = Line(Status.FIRING, LABELS, {"summary": "x" * 5000}, START, None, "0" * 16)
    body = json.loads(slack.render(notice(*[long] * 30)))
    assert len(body["attachments"][0]["blocks"][1]["text"]["text"]) <= slack.SECTION_LIMIT


def test_apprise_is_understood_by_apprise() -> None:
    apprise = pytest.importorskip("apprise")
    body = json.loads(CHANNELS["apprise"].render(notice(FIRING)))
    assert body["type"] in apprise.common.NOTIFY_TYPES
