"""Old rows go in slices; sums and audits stay."""

from __future__ import annotations

from pathlib import Path

from engine import queries
from engine.core.events import Scope
from engine.queries import Window
from engine.recorder import Recorder
from engine.retention import delete_old
from engine.store import Store
from tests.engine.records import NOON, act, finding, move, request, transition

DAY_MS = 86_400_000


def test_raw_rows_older_than_the_retention_go_and_their_sums_stay(tmp_path: Path) -> None:
    recorder = Recorder(Store(tmp_path / "a.db").open(), record_content=True)
    old, new = NOON - 3 * DAY_MS, NOON
    for ts_ms, epoch in ((old, 2), (new, 3)):
        recorder.submit([request(ts_ms=ts_ms) for _ in range(25)])
        recorder.submit(
            [
                move(ts_ms=ts_ms, scope=Scope.REQUEST),
                move(ts_ms=ts_ms, epoch=epoch),
                transition(ts_ms=ts_ms),
                act(ts_ms=ts_ms),
            ]
        ).wait()
    pauses: list[float] = []
    deleted = delete_old(recorder, keep=2 * 86_400.0, now_ms=NOON, slice_rows=10, pause=pauses.append)
    assert deleted == 25 * 3 + 2
    assert len(pauses) == 6
    with recorder.store.reader() as connection:
        left = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("requests", "attempts", "contents", "failovers", "breaker_transitions", "overrides")
        }
        whole = queries.facts(connection, "chat", Window(old - 60_000, NOON + 60_000 - 1))
    recorder.close()
    assert left == {
        "requests": 25, "attempts": 25, "contents": 25, "failovers": 3, "breaker_transitions": 1, "overrides": 2,
    }  # fmt: skip
    assert whole.requests() == 50


def test_an_empty_store_has_nothing_to_delete(tmp_path: Path) -> None:
    recorder = Recorder(Store(tmp_path / "a.db").open())
    assert delete_old(recorder, keep=1.0, now_ms=NOON) == 0
    recorder.close()


def test_findings_of_canaries_go_with_the_raw_rows_and_stay_counted(tmp_path: Path) -> None:
    recorder = Recorder(Store(tmp_path / "a.db").open())
    recorder.submit([finding(ts_ms=NOON - 3 * DAY_MS), finding(ts_ms=NOON, passed=False)]).wait()
    assert delete_old(recorder, keep=86_400.0, now_ms=NOON) == 1
    with recorder.store.reader() as connection:
        left = queries.canary_results(connection, "chat", 0, NOON)
        totals = [row for row in queries.totals(connection) if row.name == "canary_results"]
    recorder.close()
    assert [found.passed for found in left] == [False]
    assert {row.labels["result"]: row.value for row in totals} == {"passed": 1, "failed": 1}
