"""Ticks on a real store with a clock that the test moves: restarts, hand-over, silences, the resolved contract."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alerts import silences
from alerts.channels import CHANNELS
from alerts.expression import EvaluationError
from alerts.grouping import Audience, Pace
from alerts.labels import parse_matchers
from alerts.receivers import Receiver
from alerts.rules import Rule, parse_rules
from alerts.tick import Overtaken, Ticker, TickReport
from engine.core.errors import ConfigurationError
from tests.alerts.world import World, open_recorder, request

ON_SECONDARY = """
[[rules]]
alert = "OnSecondary"
expr = 'active_model == "secondary"'
for = "15m"
labels = { severity = "critical" }
annotations = { summary = "{{ manager }} for {{ duration }}", broken = "{{ labels.nothing }}" }
"""
AT_ONCE = ON_SECONDARY.replace('for = "15m"\n', "")
TRAFFIC = """
[[rules]]
alert = "Errors"
expr = 'error_rate("1m") > 0.5'
"""


AT_ONCE_PACE = Pace(0, 0, 4 * 3_600_000)


def receiver(name: str = "ops", pace: Pace = AT_ONCE_PACE, matchers: Sequence[str] = ()) -> Receiver:
    return Receiver(Audience(name, parse_matchers(matchers), pace), CHANNELS["webhook"], "https://example.com", None)


class Desk:
    """An evaluator that can be restarted, and what it has put into the outbox."""

    def __init__(self, world: World, rules: str, *receivers: Receiver) -> None:
        self.world = world
        self.receivers = receivers or (receiver(),)
        self.rules = parse_rules(rules).rules
        self.restart()

    def restart(self, owner: str = "a") -> None:
        self.speaks = True
        self.ticker = Ticker(
            self.world.recorder,
            self.world.clock,
            ["chat"],
            self.receivers,
            "https://x",
            owner,
            speaks=lambda: self.speaks,
        )

    def tick(self, after: float = 0.0) -> TickReport:
        self.world.clock.pass_(after)
        return self.ticker.tick(self.rules)

    def said(self, name: str = "ops") -> list[str]:
        bodies = [
            json.loads(row[0])
            for row in self.world.rows("SELECT body FROM outbox WHERE receiver = ? ORDER BY seq", name)
        ]
        return [
            f"{body['status']} {body['commonLabels'].get('alertname')}: {body['notification_reason']}"
            for body in bodies
        ]

    def bodies(self) -> list[Any]:
        return [json.loads(row[0]) for row in self.world.rows("SELECT body FROM outbox ORDER BY seq")]

    def states(self) -> list[tuple[str, str]]:
        return [
            tuple(row) for row in self.world.rows("SELECT from_state, to_state FROM alert_transitions ORDER BY seq")
        ]


FIRST, OVER = "firing OnSecondary: first notification", "resolved OnSecondary: all alerts resolved"


def test_for_is_counted_from_the_recorded_move_across_a_restart(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, ON_SECONDARY)
    desk.tick(600)
    desk.restart("b")
    desk.tick(299.999)
    assert desk.states() == [("inactive", "pending")]
    desk.tick(0.001)
    assert desk.states() == [("inactive", "pending"), ("pending", "firing")]
    assert desk.bodies()[0]["alerts"][0]["annotations"]["summary"] == "chat for 15 min"


def test_an_evaluator_that_was_down_all_the_time_fires_with_its_first_tick(world: World) -> None:
    world.agree("secondary")
    world.clock.pass_(900)
    desk = Desk(world, ON_SECONDARY)
    desk.tick()
    assert desk.states() == [("inactive", "firing")]


def test_a_restart_while_firing_sends_nothing_again_and_nothing_false(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, AT_ONCE)
    desk.tick()
    for owner in "bcd":
        desk.restart(owner)
        desk.tick(15)
    assert desk.said() == [FIRST]
    world.agree("primary")
    desk.restart("e")
    desk.tick(15)
    assert desk.said() == [FIRST, OVER]


def test_a_restart_on_a_clock_that_went_back_says_nothing_false(world: World) -> None:
    """A firing alert seemed to have begun in the future, became pending, and was announced as resolved."""
    world.agree("secondary")
    desk = Desk(world, AT_ONCE)
    desk.tick()
    desk.tick(60)
    world.clock.step(-7200)
    desk.restart("b")
    for _ in range(3):
        desk.tick(15)
    assert desk.said() == [FIRST]
    world.agree("primary")
    desk.tick(15)
    assert desk.said() == [FIRST, OVER]


def test_what_all_machines_see_is_announced_by_the_one_that_speaks_and_ended_by_whoever_announced_it(
    world: World,
) -> None:
    desk = Desk(world, AT_ONCE + TRAFFIC)
    desk.speaks = False
    world.agree("secondary")
    world.record(request(world.clock.wall, outcome="error", status_code=502))
    desk.tick()
    own = "firing Errors: first notification"
    assert desk.said() == [own], "what only this machine sees is not announced, or what all see is"
    desk.speaks = True
    desk.tick(15)
    assert desk.said() == [own, FIRST]
    desk.speaks = False
    desk.tick(15)
    assert desk.said() == [own, FIRST]
    world.agree("primary")
    desk.tick(15)
    assert desk.said() == [own, FIRST, OVER]


def test_machines_with_stores_of_their_own_name_one_incident_alike(world: World, tmp_path: Path) -> None:
    """After a hand-over PagerDuty had two incidents, and the one of a machine that was lost stayed open for ever."""
    pagers = Receiver(Audience("ops", (), AT_ONCE_PACE), CHANNELS["pagerduty"], "https://example.com", "key")
    recorder = open_recorder(tmp_path, "other.db")
    try:
        desks = [Desk(world, ON_SECONDARY, pagers), Desk(World(recorder, world.clock), ON_SECONDARY, pagers)]
        desks[1].speaks = False
        for _ in range(2):
            for desk in desks:
                desk.world.agree("secondary")
            for after in (900, 1.5):
                for desk in desks:
                    desk.tick(after)
            desks[1].speaks = True
            for desk in desks:
                desk.tick(7)
                desk.world.agree("primary")
                desk.tick(15)
    finally:
        recorder.close()
    first, second = ([(event["event_action"], event["dedup_key"]) for event in desk.bodies()] for desk in desks)
    assert [action for action, _ in first] == ["trigger", "resolve"] * 2
    assert first == second
    assert len({key for _, key in first}) == 2


def test_transition_state_and_notification_are_committed_together_or_not_at_all(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, AT_ONCE)
    world.execute("CREATE TRIGGER no BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(Exception, match="no"):
        desk.tick()
    assert world.rows("SELECT 1 FROM alert_states UNION ALL SELECT 1 FROM alert_transitions") == []
    world.execute("DROP TRIGGER no")
    desk.tick(15)
    assert desk.said() == [FIRST]
    assert desk.states() == [("inactive", "firing")]


def test_of_two_evaluators_on_one_store_the_slower_writes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.agree("secondary")
    slow, fast = Desk(world, AT_ONCE), Desk(world, AT_ONCE)
    decide = slow.ticker._decide

    def overtaken(*arguments: Any) -> Any:
        fast.tick()
        return decide(*arguments)

    monkeypatch.setattr(slow.ticker, "_decide", overtaken)
    with pytest.raises(Overtaken):
        slow.tick()
    assert slow.said() == [FIRST]
    assert len(slow.states()) == 1


@pytest.mark.parametrize("step", [-7200.0, 7200.0])
def test_a_stepped_clock_fires_neither_early_nor_late(world: World, step: float) -> None:
    world.agree("secondary")
    desk = Desk(world, ON_SECONDARY)
    desk.tick()
    desk.tick(300)
    world.clock.step(step)
    desk.tick(300)
    desk.tick(299)
    assert desk.states() == [("inactive", "pending")]
    desk.tick(1)
    assert desk.states()[-1] == ("pending", "firing")
    assert "15 min" in desk.bodies()[0]["alerts"][0]["annotations"]["summary"]


def test_a_step_that_another_evaluator_has_made_up_for_is_not_made_up_for_again(world: World) -> None:
    """One that came back after the clock was stepped moved everything a second time: into the future, or long over."""
    world.agree("secondary")
    first, second = Desk(world, ON_SECONDARY), Desk(world, ON_SECONDARY)
    first.tick()
    second.tick(300)
    world.clock.step(7200)
    second.tick(300)
    first.tick(299)
    assert first.states() == [("inactive", "pending")]
    first.tick(1)
    assert first.states()[-1] == ("pending", "firing")


def test_a_step_is_made_up_for_by_the_next_tick_when_one_could_not_be_committed(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, ON_SECONDARY)
    desk.tick()
    world.clock.step(7200)
    world.execute("CREATE TRIGGER no BEFORE UPDATE ON marks BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(Exception, match="no"):
        desk.tick(300)
    world.execute("DROP TRIGGER no")
    desk.tick(599)
    assert desk.states() == [("inactive", "pending")]
    desk.tick(1)
    assert desk.states()[-1] == ("pending", "firing")


def test_a_tick_whose_process_lost_the_lease_meanwhile_writes_nothing(world: World) -> None:
    world.agree("secondary")
    rules = parse_rules(AT_ONCE).rules
    ticker = Ticker(world.recorder, world.clock, ["chat"], (receiver(),), "https://x", "a", leads=lambda: False)
    with pytest.raises(Overtaken):
        ticker.tick(rules)
    assert world.rows("SELECT 1 FROM alert_states UNION ALL SELECT 1 FROM marks") == []


def test_a_letter_that_waits_goes_on_waiting_as_long_after_the_clock_steps_back(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, AT_ONCE)
    desk.tick()
    world.execute("UPDATE outbox SET next_attempt_ms = next_attempt_ms + 30000")
    world.clock.step(-7200)
    desk.tick(15)
    assert world.rows("SELECT next_attempt_ms FROM outbox")[0][0] == world.clock.wall + 15_000


@pytest.mark.parametrize("step", [-7200, 7200])
def test_a_silence_lasts_as_long_as_was_meant_when_the_clock_is_stepped(world: World, step: float) -> None:
    """After a step back it began two hours later, and what it should have silenced was announced at once."""
    desk = Desk(world, AT_ONCE)
    desk.tick()
    silences.add(world.recorder, ['manager="chat"'], seconds=600, author="ana", reason="r", now_ms=world.clock.wall)
    world.clock.step(step)
    world.agree("secondary")
    desk.tick(15)
    for _ in range(3):
        desk.tick(180)
    assert desk.bodies() == []
    desk.tick(60)
    assert [body["status"] for body in desk.bodies()] == ["firing"]


def test_a_failing_template_is_said_in_its_place_and_stops_nothing(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, AT_ONCE)
    desk.tick()
    annotations = desk.bodies()[0]["alerts"][0]["annotations"]
    assert annotations["broken"] == "<error expanding template: there is no label nothing>"


def test_who_was_told_firing_is_told_resolved_through_a_silence(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, AT_ONCE)
    desk.tick()
    silences.add(
        world.recorder, ['alertname="OnSecondary"'], seconds=3600, author="ana", reason="r", now_ms=world.clock.wall
    )
    world.agree("primary")
    desk.tick(15)
    assert desk.said() == [FIRST, OVER]


def test_who_was_never_told_firing_is_told_nothing(world: World) -> None:
    world.agree("secondary")
    silence = silences.add(
        world.recorder, ['manager="chat"'], seconds=3600, author="ana", reason="r", now_ms=world.clock.wall
    )
    desk = Desk(
        world,
        AT_ONCE,
        receiver(),
        receiver("late", Pace(60_000, 60_000, 10**9)),
        receiver("deaf", matchers=['severity="none"']),
    )
    desk.tick()
    world.agree("primary")
    silences.expire(world.recorder, silence.id, world.clock.wall)
    desk.tick(15)
    assert desk.said() == desk.said("late") == desk.said("deaf") == []


def test_a_silence_that_cannot_be_read_stops_no_alert(world: World) -> None:
    world.agree("secondary")
    matchers = json.dumps(['manager=~"("'])
    world.execute("INSERT INTO silences VALUES ('s', 0, 0, ?, ?, 'ana', 'r')", [world.clock.wall + 60_000, matchers])
    desk = Desk(world, AT_ONCE)
    desk.tick()
    assert desk.said() == [FIRST]


def test_after_a_silence_ends_what_still_fires_is_announced(world: World) -> None:
    world.agree("secondary")
    silences.add(world.recorder, ['manager="chat"'], seconds=60, author="ana", reason="r", now_ms=world.clock.wall)
    desk = Desk(world, AT_ONCE)
    desk.tick(59.999)
    assert desk.said() == []
    desk.tick(0.001)
    assert desk.said() == [FIRST]


def test_an_alert_that_ends_within_group_wait_is_not_announced(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, AT_ONCE, receiver(pace=Pace(5000, 60_000, 10**9)))
    report = desk.tick()
    assert report.due_ms == world.clock.wall + 5000
    world.agree("primary")
    desk.tick(4)
    desk.tick(60)
    assert desk.said() == []


def test_a_firing_group_is_repeated_after_repeat_interval_and_not_before(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, AT_ONCE, receiver(pace=Pace(0, 60_000, 3_600_000)))
    desk.tick()
    world.execute("UPDATE outbox SET state = 'delivered'")
    desk.tick(3599.999)
    assert desk.said() == [FIRST]
    desk.tick(0.001)
    assert desk.said()[1:] == ["firing OnSecondary: repeat interval elapsed"]


def test_group_interval_holds_a_resolution_back(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, AT_ONCE, receiver(pace=Pace(0, 60_000, 10**9)))
    desk.tick()
    world.agree("primary")
    desk.tick(30)
    assert desk.said() == [FIRST]
    desk.tick(30)
    assert desk.said() == [FIRST, OVER]


def test_an_alert_that_flips_all_the_time_is_announced_as_flapping_and_then_left_alone(world: World) -> None:
    desk = Desk(world, AT_ONCE)
    for flip in range(20):
        world.agree("secondary" if flip % 2 == 0 else "primary")
        desk.tick(15)
    sent = len(desk.said())
    assert sent <= 8
    desk.tick(700)
    assert desk.said()[-1] == OVER
    assert len(desk.said()) == sent + 1


def test_a_rule_without_data_is_ok_alerting_or_kept_as_it_says(world: World) -> None:
    rules = "".join(
        TRAFFIC.replace("Errors", f"Errors-{word}") + f'no_data = "{word}"\n' for word in ("ok", "alerting", "keep")
    )
    desk = Desk(world, rules)
    desk.tick()
    assert sorted(row[0] for row in world.rows("SELECT rule FROM alert_states WHERE state = 'firing'")) == [
        "Errors-alerting"
    ]
    world.record(*(request(world.clock.wall, outcome="error", status_code=502) for _ in range(3)))
    desk.tick()
    assert len(world.rows("SELECT rule FROM alert_states WHERE state = 'firing'")) == 3
    desk.tick(120)
    assert sorted(row[0] for row in world.rows("SELECT rule FROM alert_states WHERE state = 'firing'")) == [
        "Errors-alerting",
        "Errors-keep",
    ]


def broken(rule: Rule) -> Rule:
    """A rule that asks the same and cannot be evaluated."""

    class Broken:
        text, queries, level = "x", rule.expression.queries, None

        def run(self, ask: object) -> Any:
            raise EvaluationError("boom")

    return replace(rule, expression=Broken())  # type: ignore[arg-type]


def test_a_rule_that_fails_keeps_its_state_and_is_reported_after_three_failures(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, AT_ONCE + TRAFFIC)
    desk.tick()

    good = desk.rules
    desk.rules = (broken(good[0]), good[1])
    reports = [desk.tick(15) for _ in range(3)]
    assert reports[0].errors == {"OnSecondary chat": "boom"}
    assert world.rows("SELECT state FROM alert_states WHERE rule = 'OnSecondary'") == [("firing",)]
    assert "firing RuleEvaluationFailing: first notification" in desk.said()
    desk.rules = good
    desk.tick(15)
    assert "resolved RuleEvaluationFailing: all alerts resolved" in desk.said()
    assert desk.said().count(FIRST) == 1


def test_that_a_rule_fails_is_told_by_whoever_would_have_told_what_it_finds(world: World) -> None:
    """Several machines told it with the same labels, so the first of them that was well ended it for all."""
    desk = Desk(world, AT_ONCE + TRAFFIC)
    shared, own = desk.rules
    desk.rules = (broken(shared), broken(replace(own, labels={**own.labels, "host": "east"})))
    desk.speaks = False
    for _ in range(3):
        desk.tick(15)
    (told,) = desk.bodies()
    failing = {"alertname": "RuleEvaluationFailing", "severity": "warning", "rule": own.alert, "manager": "chat"}
    assert told["commonLabels"] == failing | {"host": "east"}
    desk.speaks = True
    desk.tick(15)
    assert {alert["labels"]["rule"] for alert in desk.bodies()[-1]["alerts"]} == {shared.alert, own.alert}


def test_an_alert_of_a_removed_rule_is_over(world: World) -> None:
    world.agree("secondary")
    desk = Desk(world, AT_ONCE)
    desk.tick()
    desk.rules = ()
    desk.tick(15)
    assert desk.said() == [FIRST, OVER]


def test_a_changed_label_ends_the_old_alert_and_does_not_begin_for_anew(world: World) -> None:
    desk = Desk(world, ON_SECONDARY.replace("'active_model == \"secondary\"'", "'requests(\"1h\") == 0'"))
    desk.tick()
    desk.rules = parse_rules(
        ON_SECONDARY.replace("'active_model == \"secondary\"'", "'requests(\"1h\") == 0'").replace(
            "critical", "warning"
        )
    ).rules
    desk.tick(600)
    desk.tick(300)
    assert world.rows("SELECT severity FROM alert_states WHERE state = 'firing'") == [("warning",)]


def test_a_silence_that_would_silence_everything_is_refused(world: World) -> None:
    for matchers in (['alertname=~".*"'], []):
        with pytest.raises(ConfigurationError, match="everything"):
            silences.add(world.recorder, matchers, seconds=60, author="ana", reason="r", now_ms=1)
    with pytest.raises(ConfigurationError, match="author and a reason"):
        silences.add(world.recorder, ['a="b"'], seconds=60, author="ana", reason=" ", now_ms=1)
