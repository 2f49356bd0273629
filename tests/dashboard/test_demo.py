"""What a demo finds when it starts: a day, or here a few hours, that engine and alert rules have lived through."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.commands import demo
from engine import incidents
from engine.config import load
from engine.queries.events import EventKind, timeline
from engine.shipped import shipped
from engine.store import Store

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
