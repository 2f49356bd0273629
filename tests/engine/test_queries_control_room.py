"""What the control room asks the store is answered exactly, whatever the cost was saved by."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "dashboard"))

from history import MANAGER, Moment, write_history

from engine import queries
from engine.hours import roll_up_due
from engine.queries import RequestFilter
from engine.queries import control_room as ask
from engine.queries.search import filtered_requests
from engine.queries.spans import SpanSums, span_sums
from engine.recorder import Recorder
from engine.sqlite import Connection
from engine.store import Store

DAY = 86_400_000


@pytest.fixture(scope="module")
def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module", params=["minutes", "hours"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, now_ms: int) -> Store:
    path = tmp_path_factory.mktemp("store") / "switchgear.db"
    write_history(path, now_ms, Moment.DURING, every_ms=20_000)
    if request.param == "hours":
        recorder = Recorder(Store(path))
        assert roll_up_due(recorder, now_ms=now_ms, pause=lambda _: None) > 20
        recorder.close()
    return Store(path)


@pytest.fixture
def connection(store: Store) -> Iterator[Connection]:
    with store.reader() as opened:
        yield opened


@pytest.mark.parametrize(
    "where",
    [
        RequestFilter(MANAGER),
        RequestFilter(MANAGER, outcome="shed"),
        RequestFilter(MANAGER, role="secondary", failover_cause="rate_limited"),
        RequestFilter(MANAGER, min_duration_ms=4_000.0),
        RequestFilter(MANAGER, outcome="ok", min_duration_ms=2_500.0, role="primary"),
        RequestFilter(MANAGER, role="none"),
    ],
    ids=["all", "shed", "spilled", "slow", "slow on primary", "nobody"],
)
def test_pages_of_filtered_requests_are_all_of_them_once(
    connection: Connection, now_ms: int, where: RequestFilter
) -> None:
    start = now_ms - DAY
    expected = queries.requests(connection, start_ms=start, end_ms=now_ms, where=where, limit=100_000).requests
    found: list[str] = []
    cursor = None
    while True:
        page = filtered_requests(connection, start_ms=start, end_ms=now_ms, where=where, before=cursor, limit=37)
        found += [row.id for row in page.requests]
        cursor = page.next
        if cursor is None:
            break
    assert found == [row.id for row in expected]


def test_a_filter_that_sums_cannot_tell_apart_goes_on_to_the_next_page(
    connection: Connection, now_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queries.search.PLACES_SCANNED", 3)
    where = RequestFilter(MANAGER, outcome="error", min_duration_ms=2_500.0)
    everything = queries.requests(connection, start_ms=now_ms - DAY, end_ms=now_ms, where=where, limit=5000)
    found: list[str] = []
    before, pages = None, 0
    while True:
        page = filtered_requests(connection, start_ms=now_ms - DAY, end_ms=now_ms, where=where, before=before)
        found += [row.id for row in page.requests]
        pages += 1
        if page.next is None:
            break
        before = page.next
    assert pages > 1
    assert found == [row.id for row in everything.requests]


def test_sums_of_spans_are_those_of_their_minutes(connection: Connection, now_ms: int) -> None:
    minute = 60_000
    spans = [
        (now_ms - 23 * 60 * minute, now_ms - 14 * 60 * minute),
        (now_ms - 20 * 60 * minute, now_ms - 19 * 60 * minute - minute),
        (now_ms - 90 * minute, now_ms),
        (now_ms + 5 * minute, now_ms + 6 * minute),
    ]
    found = span_sums(connection, MANAGER, spans)
    assert len(found) == len(spans)
    for (start_ms, end_ms), sums in zip(spans, found, strict=True):
        traffic = queries.traffic_series(connection, MANAGER, start_ms, end_ms)
        tries = queries.attempt_series(connection, MANAGER, start_ms, end_ms)
        assert sums.answered == sum(row.n for row in traffic if row.outcome == "ok")
        assert sums.failed == sum(row.errors for row in traffic)
        assert sums.shed == sum(row.n for row in traffic if row.outcome == "shed")
        assert sums.failures.keys() == {row.category for row in tries} - {"ok", "cancelled"}
        assert sum(sums.failures.values()) == sum(row.n for row in tries if row.category in sums.failures)
        rescues = connection.execute(
            "SELECT cause, count(*) FROM failovers WHERE scope = 'request'"
            " AND ts_ms / 60000 BETWEEN ? / 60000 AND ? / 60000 GROUP BY cause",
            (start_ms, end_ms),
        ).fetchall()
        assert sums.rescues == dict(rescues)
    assert found[0].answered > 0
    assert sum(found[0].rescues.values()) > 0
    assert found[-1] == SpanSums()


def test_probes_are_tries_of_the_model_that_does_not_serve(connection: Connection, now_ms: int) -> None:
    for probe in ask.probes(connection, MANAGER, "primary", now_ms - 600_000):
        detail = queries.request(connection, probe.request_id)
        assert detail is not None
        assert detail.request.active_role == "secondary"


def test_the_outbox_is_paged_and_summed(connection: Connection) -> None:
    first, cursor = ask.notifications(connection, limit=2)
    rest, end = ask.notifications(connection, before=cursor, limit=1000)
    assert end is None
    everything, _ = ask.notifications(connection, limit=1000)
    assert [*first, *rest] == everything
    sums = {one.receiver: one for one in ask.receivers(connection)}
    assert sums["ops"].delivered == sum(one.receiver == "ops" for one in everything)
    assert sums["chat-room"].dead == sum(one.receiver == "chat-room" for one in everything)
    assert sums["chat-room"].last_failure == "500 Internal Server Error"


def test_a_notification_has_its_attempts_in_order(connection: Connection) -> None:
    dead, _ = ask.notifications(connection, state="dead", limit=1)
    found = ask.notification(connection, dead[0].id)
    assert found is not None
    assert [one.n for one in found[1]] == [1, 2, 3, 4]
    assert ask.notification(connection, "none") is None
