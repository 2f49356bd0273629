"""What a demo finds when it starts: a day, or here a few hours, that engine and alert rules have lived through."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from alerts import queries
from dashboard.commands import demo
from dashboard.commands.demo_receiver import listening
from engine import incidents
from engine.config import load
from engine.queries.events import EventKind, timeline
from engine.shipped import shipped
from engine.store import Store
from tests.dashboard.running import Place, running

HOURS = 4


def test_alerts_fired_in_the_history_and_belong_to_its_incidents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "HOURS", HOURS)
    path = tmp_path / "switchgear.toml"
    path.write_text(shipped("switchgear.toml").read_text(encoding="utf-8"), encoding="utf-8")
    config = load(path).as_demo()
    demo.prepare(config)
    with Store(config.store_path).open().reader() as connection:
        begin, end, fired = connection.execute(
            "SELECT min(ts_ms), max(ts_ms), count(*) FILTER (WHERE to_state = 'firing') FROM alert_transitions"
        ).fetchone()
        assert end - begin < HOURS * 3_600_000
        assert fired >= 3
        assert connection.execute("SELECT count(*) FROM outbox").fetchone()[0] == 0, "nobody was told in the past"
        page = timeline(connection, start_ms=0, end_ms=end, manager="chat", limit=1000)
    told = incidents.derive(page.events, end)
    assert any(one.alerts and EventKind.ALERT in {event.kind for event in one.events} for one in told)


def post(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_receiver_says_what_it_is_told_and_refuses_what_it_does_not_understand() -> None:
    said: list[str] = []
    told = {
        "alerts": [
            {"status": "firing", "labels": {"alertname": "A"}, "annotations": {"summary": "all is lost"}},
            {"status": "resolved", "labels": {"alertname": "B"}, "annotations": {}},
        ]
    }
    with listening(said.append) as url:
        assert post(url, json.dumps(told).encode()) == 204
        for nonsense in (b"{", b"[]", b"{}", b'{"alerts": [1]}'):
            assert post(url, nonsense) == 400
    assert said == ["firing: A: all is lost", "resolved: B"]


def test_a_live_demo_delivers_to_its_own_receiver(tmp_path: Path) -> None:
    alerting = '[alerts]\nevaluate_every = "1s"\ngroup_wait = "0s"\n'
    place = Place.make(tmp_path, store='url = "sqlite:///mine.db"\n' + alerting)
    store = Store(tmp_path / "mine.db").open()  # a store that is there is left as it is, and no day is written
    with running("up", "--demo", "--config", str(place.path)) as process:
        process.wait_for_line(" receiver │ firing: Watchdog: ")

        def delivered() -> bool:
            with store.reader() as connection:
                return queries.outbox_counts(connection).get(("demo", "delivered"), 0) > 0

        process.wait_for(delivered, "delivered")
