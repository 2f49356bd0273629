"""The whole way with real threads, a real store and a real receiver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alerts import outbox, queries
from alerts.labels import fingerprint
from alerts.outbox import Letter
from alerts.service import AlertService, Part
from engine.clock import SystemClock
from engine.config import Config
from engine.core.errors import StoreUnavailable
from engine.fleet.store import StoreCoordinator
from engine.ids import new_id
from engine.sqlite import Connection
from tests.alerts.listener import Listener
from tests.alerts.world import World, open_recorder
from tests.patience import eventually, never, seconds_until

RULES = """
[[rules]]
alert = "OnSecondary"
expr = 'active_model == "secondary"'
labels = { severity = "critical" }
annotations = { summary = "{{ manager }} is on its secondary" }
"""


def settings(url: str, extra: str = "") -> str:
    return f"""
[alerts]
evaluate_every = "200ms"
group_wait = 0
group_interval = "100ms"
{extra}
[[alerts.receivers]]
name = "ops"
kind = "webhook"
url = "{url}"
allow_private = true
"""


def test_an_alert_is_delivered_and_its_resolution_too(make_config: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "alerts.toml").write_text(RULES)
    recorder = open_recorder(tmp_path)
    world = World(recorder, SystemClock())
    with Listener() as ops:
        service = AlertService(make_config(settings(ops.url)), recorder, owner="a")
        service.start()
        try:
            assert service.health().part is Part.EVALUATOR
            world.agree("secondary")
            (letter,) = ops.wait_for(1)
            assert letter.json["status"] == "firing"
            assert letter.json["commonAnnotations"] == {"summary": "chat is on its secondary"}
            world.agree("primary")
            letters = ops.wait_for(2)
            assert letters[1].json["status"] == "resolved"
            assert letters[0].headers["webhook-id"] != letters[1].headers["webhook-id"]
            assert service.health().ok
        finally:
            service.stop()
            recorder.close()
    assert [row[0] for row in world.rows("SELECT state FROM outbox")] == ["delivered", "delivered"]


def test_the_heart_beats_for_a_service_of_ones_own_while_rules_are_evaluated_and_only_then(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private address was refused, with the name of a setting that only receivers have."""
    (tmp_path / "alerts.toml").write_text(RULES)
    recorder = open_recorder(tmp_path)
    with Listener() as heart:
        extra = 'heartbeat_url_env = "HEART"\nheartbeat_allow_private = true\n'
        config = make_config(settings("http://127.0.0.1:9", extra))
        service = AlertService(config, recorder, owner="a", environ={"HEART": heart.url})
        service.start()
        try:
            heart.wait_for(2)
            monkeypatch.setattr(service.ticker, "tick", raising)
            eventually(lambda: not service.health().ok)
            beats = len(heart.letters)
            never(lambda: len(heart.letters) > beats + 1, 1.0)
        finally:
            service.stop()
            recorder.close()


def raising(*arguments: Any) -> Any:
    raise StoreUnavailable("locked")


def test_a_rule_file_with_a_mistake_is_reported_and_its_good_rules_work(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "alerts.toml").write_text(RULES + "[[rules]]\nalert = \"Bad\"\nexpr = 'actve_model == 1'\n")
    recorder = open_recorder(tmp_path)
    world = World(recorder, SystemClock())
    with Listener() as ops:
        service = AlertService(make_config(settings(ops.url)), recorder, owner="a")
        service.start()
        try:
            world.agree("secondary")
            ops.wait_for(1)
            health = service.health()
            assert health.ok
            assert any("alerts.toml:9: Bad:" in reason for reason in health.reasons)
            (tmp_path / "alerts.toml").write_text(RULES)
            eventually(lambda: service.health().reasons == ())
            assert [letter.json["status"] for letter in ops.letters] == ["firing"]
        finally:
            service.stop()
            recorder.close()


@pytest.mark.parametrize("text", [RULES.replace("active_model ==", "actve_model =="), "[[rules"])
def test_a_restart_with_a_rule_that_cannot_be_read_says_nothing_false(
    make_config: Callable[..., Config], tmp_path: Path, text: str
) -> None:
    """What fired was announced as resolved, although nobody looked."""
    path = tmp_path / "alerts.toml"
    path.write_text(RULES)
    recorder = open_recorder(tmp_path)
    world = World(recorder, SystemClock())
    with Listener() as ops:
        config = make_config(settings(ops.url))
        first = AlertService(config, recorder, owner="a")
        first.start()
        world.agree("secondary")
        ops.wait_for(1)
        first.stop()
        path.write_text(text)
        second = AlertService(config, recorder, owner="b")
        second.start()
        try:
            eventually(lambda: second.health().last_tick_ms is not None)
            assert not second.health().rules
            never(lambda: world.rows("SELECT state FROM alert_states") != [("firing",)], 0.5)
            path.write_text(RULES)
            eventually(lambda: second.health().rules == 1)
            world.agree("primary")
            letters = ops.wait_for(2)
        finally:
            second.stop()
            recorder.close()
    assert [letter.json["status"] for letter in letters] == ["firing", "resolved"]


def test_what_waits_for_a_receiver_that_is_configured_no_more_is_left_and_so_is_its_stop(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    """Nobody would ever have tried it, and that notifications do not reach a receiver was said for ever."""
    (tmp_path / "alerts.toml").write_text(RULES)
    recorder = open_recorder(tmp_path)
    world = World(recorder, SystemClock())
    now = world.clock.wall_ms()

    def before(connection: Connection) -> None:
        for name in ("renamed", "corrected", "ops"):
            one = Letter(new_id(), now, name, "webhook", "group", new_id(), "application/json", "{}")
            outbox.put(connection, one)
            queries.set_mark(connection, f"receiver stopped: {name}", now, "another address")

    recorder.execute(before).result(30)
    with Listener() as ops:
        service = AlertService(make_config(settings(ops.url)), recorder, owner="a")
        service.start()
        try:
            ops.wait_for(1)
            eventually(lambda: not world.rows("SELECT 1 FROM outbox WHERE state IN ('pending', 'leased')"))
            found = world.rows("SELECT receiver, state FROM outbox ORDER BY seq")
            assert found == [("renamed", "cancelled"), ("corrected", "cancelled"), ("ops", "delivered")]
            with recorder.store.reader() as connection:
                assert queries.marks(connection, "receiver stopped: ") == {}
        finally:
            service.stop()
            recorder.close()


def test_a_demo_on_a_store_of_ours_leaves_what_waits_for_our_receivers(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    """A demo knows none of them, so it took them all for receivers that are configured no more."""
    (tmp_path / "alerts.toml").write_text(RULES)
    recorder = open_recorder(tmp_path)
    world = World(recorder, SystemClock())
    now = world.clock.wall_ms()
    waits = Letter(new_id(), now, "ops", "webhook", "group", new_id(), "application/json", "{}")
    recorder.execute(lambda connection: outbox.put(connection, waits)).result(30)
    service = AlertService(make_config(settings("http://127.0.0.1:9/")).as_demo({}), recorder, owner="a")
    service.start()
    try:
        eventually(lambda: service.health().last_tick_ms is not None)
        assert world.rows("SELECT receiver, state FROM outbox") == [("ops", "pending")]
    finally:
        service.stop()
        recorder.close()


def test_a_stalled_evaluator_is_noticed_within_three_intervals_told_and_told_to_be_over(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alerts.toml").write_text(RULES)
    recorder = open_recorder(tmp_path)
    with Listener() as ops:
        config = make_config(settings(ops.url).replace("200ms", "1s"))
        machine = {"owner": "a", "local": StoreCoordinator(recorder), "host": "east"}
        service = AlertService(config, recorder, **machine)  # type: ignore[arg-type]
        go_on = threading.Event()
        tick = service.ticker.tick
        service.start()
        try:
            eventually(lambda: service.health().last_tick_ms is not None)

            def hang(*rules: Any) -> Any:
                go_on.wait(60)
                return tick(*rules)

            monkeypatch.setattr(service.ticker, "tick", hang)
            assert seconds_until(lambda: not service.health().ok) <= 3.2
            assert "not evaluated" in service.health().detail
            labels = {"alertname": "EvaluatorStalled", "severity": "critical", "host": "east"}
            assert ops.wait_for(1)[0].json["commonLabels"] == labels
        finally:
            service.stop(0.1)
            go_on.set()
        second = AlertService(config, recorder, **machine)  # type: ignore[arg-type] - a restart ends what the first said
        second.start()
        try:
            letters = ops.wait_for(2)
            assert [letter.json["status"] for letter in letters] == ["firing", "resolved"]
            first, last = (letter.json["alerts"][0] for letter in letters)
            assert first["startsAt"] == last["startsAt"]
            assert first["fingerprint"] == last["fingerprint"] == fingerprint(labels), "not Alertmanager's"
        finally:
            second.stop()
            recorder.close()


@pytest.mark.parametrize("over", [True, False])
def test_a_stall_that_the_store_did_not_take_is_told_once_it_does_and_not_if_it_is_over_by_then(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    """While the store was locked a stall could not be written, and then its end was told to who knew of none."""
    (tmp_path / "alerts.toml").write_text(RULES)
    recorder = open_recorder(tmp_path)
    world = World(recorder, SystemClock())
    with Listener() as ops:
        service = AlertService(make_config(settings(ops.url)), recorder, owner="a")
        go_on = threading.Event()
        tick = service.ticker.tick
        service.start()
        try:
            eventually(lambda: service.health().last_tick_ms is not None)
            world.execute("CREATE TRIGGER no BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'no'); END")
            monkeypatch.setattr(service.ticker, "tick", lambda *rules: go_on.wait(30) and tick(*rules))
            eventually(lambda: not service.health().ok)
            eventually(lambda: service._telling is not None and service._telling.done())
            if over:
                go_on.set()
                eventually(lambda: service.health().ok)
            world.execute("DROP TRIGGER no")
            if not over:
                assert ops.wait_for(1)[0].json["status"] == "firing"
                go_on.set()
            world.agree("secondary")
            letters = ops.wait_for(1 if over else 3)
        finally:
            go_on.set()
            service.stop()
            recorder.close()
    said = sorted((one.json["commonLabels"]["alertname"], one.json["status"]) for one in letters)
    stall = [("EvaluatorStalled", "firing"), ("EvaluatorStalled", "resolved")]
    assert said == [*([] if over else stall), ("OnSecondary", "firing")]


def test_of_two_processes_on_one_store_one_evaluates_and_the_other_takes_over(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.service.LEASE_TTL_S", 0.6)
    monkeypatch.setattr("alerts.service.LEASE_RENEW_S", 0.1)
    monkeypatch.setattr("alerts.service.PULSE_S", 0.1)
    (tmp_path / "alerts.toml").write_text(RULES)
    recorder = open_recorder(tmp_path)
    world = World(recorder, SystemClock())
    with Listener() as ops:
        config = make_config(settings(ops.url))
        coordinators = [StoreCoordinator(recorder), StoreCoordinator(recorder)]
        first = AlertService(config, recorder, coordinators[0], "a")
        second = AlertService(config, recorder, coordinators[1], "b")
        first.start()
        second.start()
        try:
            world.agree("secondary")
            ops.wait_for(1)
            assert (first.health().part, second.health().part) == (Part.EVALUATOR, Part.STANDBY)
            assert second.health().ok
            first.stop()
            eventually(lambda: second.health().part is Part.EVALUATOR)
            world.agree("primary")
            letters = ops.wait_for(2)
            assert [letter.json["status"] for letter in letters] == ["firing", "resolved"]
        finally:
            first.stop()
            second.stop()
            for coordinator in coordinators:
                coordinator.close()
            recorder.close()


def test_a_process_that_stands_by_and_hangs_is_not_ready(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said it was ready for ever, and would never have taken over."""
    monkeypatch.setattr("alerts.service.STUCK_S", 0.5)
    monkeypatch.setattr("alerts.service.LEASE_RENEW_S", 0.1)
    monkeypatch.setattr("alerts.service.PULSE_S", 0.1)
    (tmp_path / "alerts.toml").write_text(RULES)
    recorder = open_recorder(tmp_path)
    coordinator = StoreCoordinator(recorder)
    service = AlertService(make_config(settings("http://127.0.0.1:9")), recorder, coordinator, "a")
    go_on = threading.Event()
    coordinator.lease("evaluator", "somebody else", 60.0)
    service.start()
    try:
        eventually(lambda: service.health().ok)
        assert service.health().part is Part.STANDBY
        monkeypatch.setattr(coordinator, "lease", lambda *_: go_on.wait(60))
        eventually(lambda: not service.health().ok)
        assert "no pulse" in service.health().detail
        go_on.set()
        eventually(lambda: service.health().ok)
    finally:
        go_on.set()
        service.stop(0.1)
        coordinator.close()
        recorder.close()
