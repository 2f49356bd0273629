"""The demo's history is what the engine would have written, and its live traffic makes the engine decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Config, parse
from engine.instance import Instance
from engine.recorder import Recorder
from engine.simulation.history import write_history
from engine.simulation.incidents import DemoTraffic
from engine.sqlite import Connection
from engine.store import Store
from tests.patience import eventually

HOUR_MS = 3_600_000
END_MS = 1_760_000_000_000
HOURS = 6


def configured(folder: Path) -> Config:
    return parse(
        {
            "store": {"url": "sqlite:///demo.db", "durability": "batch"},
            "providers": {"models": {"kind": "simulated"}},
            "models": {
                "a": {"provider": "models", "name": "gemini-2.5-pro"},
                "b": {"provider": "models", "name": "gemini-2.5-flash"},
            },
            "managers": {"chat": {"primary": "a", "secondary": "b"}},
        },
        folder / "switchgear.toml",
    )


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    config = configured(tmp_path_factory.mktemp("history"))
    store = Store(config.store_path).open()
    recorder = Recorder(store, durability="batch")
    seen: list[float] = []
    written = write_history(config, recorder, seed=3, end_ms=END_MS, hours=HOURS, progress=seen.append)
    recorder.close()
    assert recorder.error is None
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    with store.reader() as connection:
        assert connection.execute("SELECT count(*) FROM requests").fetchone()[0] == written
        yield connection


def one(connection: Connection, question: str) -> int:
    return int(connection.execute(question).fetchone()[0])


def test_history_lies_in_its_hours(history: Connection) -> None:
    first, last = history.execute("SELECT min(ts_ms), max(ts_ms) FROM requests").fetchone()
    assert END_MS - HOURS * HOUR_MS <= first <= last <= END_MS
    for table in ("failovers", "breaker_transitions", "agreements"):
        assert one(history, f"SELECT count(*) FROM {table}") > 0
        assert one(history, f"SELECT count(*) FROM {table} WHERE ts_ms > {END_MS}") == 0


def test_ids_of_history_sort_by_its_time(history: Connection) -> None:
    ids = [row[0] for row in history.execute("SELECT id FROM breaker_transitions ORDER BY ts_ms, id")]
    assert ids == sorted(ids)


def test_history_has_what_a_demo_shows(history: Connection) -> None:
    causes = {row[0] for row in history.execute("SELECT DISTINCT failover_cause FROM requests")}
    assert {"rate_limited", "quota_exhausted", "server_error", "probe", "ramp"} <= causes
    assert one(history, "SELECT count(*) FROM requests WHERE code = 'provider_auth'") > 0
    assert one(history, "SELECT count(*) FROM requests WHERE streamed AND ttft_ms > 0") > 0
    assert one(history, "SELECT sum(cost_usd) > 0 FROM requests") == 1
    moves = history.execute("SELECT from_role, to_role FROM failovers WHERE scope = 'active' ORDER BY epoch").fetchall()
    assert [tuple(move) for move in moves[:2]] == [("primary", "secondary"), ("secondary", "primary")]


def test_sums_of_history_are_its_rows(history: Connection) -> None:
    assert one(history, "SELECT sum(n) FROM rollup_minute") == one(history, "SELECT count(*) FROM requests")
    assert one(history, "SELECT sum(n) FROM attempt_minute") == one(history, "SELECT count(*) FROM attempts")


def test_history_ends_as_its_last_agreement_says(history: Connection) -> None:
    epoch = one(history, "SELECT epoch FROM fleet_state WHERE manager = 'chat'")
    assert epoch == one(history, "SELECT max(epoch) FROM agreements")
    assert one(history, "SELECT count(*) FROM instances") == 0
    assert one(history, "SELECT count(*) FROM fleet_votes") == 0


def test_live_traffic_meets_an_incident_and_is_answered(tmp_path: Path) -> None:
    config = configured(tmp_path)
    instance = Instance.open(config)
    instance.exchange("chat")
    instance.start()
    traffic = DemoTraffic(instance, first_after=0.5, per_second=25.0)
    traffic.start()
    try:
        eventually(lambda: _count(instance, "SELECT count(*) FROM failovers WHERE scope = 'active'"), every=0.1)
        answered = "SELECT count(*) FROM requests WHERE outcome = 'ok' AND active_role = 'secondary'"
        eventually(lambda: _count(instance, answered), every=0.1)
    finally:
        traffic.stop()
        instance.close()


def _count(instance: Instance, question: str) -> int:
    with instance.recorder.store.reader() as connection:
        return one(connection, question)
