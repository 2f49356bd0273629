"""The store's answers: exact windows, pages without gaps, and details with everything that explains them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import queries
from engine.core.events import RequestOutcome, RequestRecord, Scope
from engine.core.messages import Role
from engine.core.outcomes import Category
from engine.ids import new_id
from engine.queries import RequestFilter, Window
from engine.recorder import Recorder
from engine.sqlite import Connection
from engine.store import Store
from tests.engine.records import FLASH, NOON, PRO, act, attempt, move, request, transition

MINUTE = 60_000


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(Store(tmp_path / "switchgear.db").open())
    yield made
    made.close()


@pytest.fixture
def connection(recorder: Recorder) -> Iterator[Connection]:
    """A reader that is opened after a test's first record: ask it for nothing before."""
    with recorder.store.reader() as found:
        yield found


def random_requests(size: int, seed: int) -> list[RequestRecord]:
    rng = random.Random(seed)
    made = []
    for _ in range(size):
        ts_ms = NOON + rng.choice([rng.randrange(-300_000, 300_000), rng.randrange(-5, 6) * MINUTE])
        role = rng.choice(["primary", "secondary"])
        outcome = rng.choice(list(RequestOutcome))
        record = request(
            ts_ms=ts_ms,
            role=role,
            model=PRO if role == "primary" else FLASH,
            outcome=outcome,
            status_code={"ok": 200, "cancelled": 499, "shed": 429, "error": rng.choice([400, 502])}[outcome],
            synthetic=rng.random() < 0.2,
            duration_ms=rng.uniform(1, 20_000),
            attempts=(
                attempt(
                    role=role,
                    model=PRO if role == "primary" else FLASH,
                    ts_ms=ts_ms - rng.randrange(70_000),
                    category=rng.choice(["ok", "timeout", "rate_limited", "auth"]),
                ),
            ),
        )
        moved = move(id=new_id(), ts_ms=ts_ms, scope=Scope.REQUEST, cause="timeout", request_id=record.id)
        made.append(request(**{**_fields(record), "failovers": (moved,) if rng.random() < 0.3 else ()}))
    return made


def _fields(record: RequestRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in RequestRecord.__dataclass_fields__}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[RequestRecord]]:
    store = Store(tmp_path_factory.mktemp("busy") / "switchgear.db").open()
    recorder = Recorder(store)
    records = random_requests(400, seed=5)
    recorder.submit(records)
    recorder.submit([transition(ts_ms=NOON + offset) for offset in range(-200_000, 200_000, 30_000)])
    recorder.close()
    return store, records


edges = st.one_of(st.integers(-320_000, 320_000), st.integers(-6, 6).map(lambda n: n * MINUTE))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=edges, two=edges)
def test_a_window_counts_exactly_the_rows_inside_it(
    one: int, two: int, busy: tuple[Store, list[RequestRecord]]
) -> None:
    store, records = busy
    start, end = NOON + min(one, two), NOON + max(one, two)
    with store.reader() as connection:
        facts = queries.facts(connection, "chat", Window(start, end))
    inside = [r for r in records if start < r.ts_ms <= end and not r.synthetic]
    assert facts.requests() == len(inside)
    assert facts.requests("secondary") == sum(r.role == "secondary" for r in inside)
    assert facts.errors() == sum(r.outcome == "error" and r.status_code >= 500 for r in inside)
    assert facts.shed() == sum(r.outcome == "shed" for r in inside)
    tried = [(a, r) for r in records for a in r.attempts if start < a.ts_ms <= end]
    assert facts.attempted(Category.AUTH) == sum(a.category == "auth" for a, _ in tried)
    judged = [
        a.category for a, r in tried if a.role == "primary" and a.category in ("ok", "timeout") and not r.synthetic
    ]
    assert facts.error_rate("primary") == (judged.count("timeout") / len(judged) if judged else None)
    moved = [f for r in records for f in r.failovers if start < f.ts_ms <= end]
    assert facts.request_failovers() == len(moved)
    timed = [r for r in inside if r.outcome in ("ok", "error")]
    assert sum(row.n for row in facts.latency if row.outcome in ("ok", "error")) == len(timed)
    assert (facts.percentile(0.5) is None) == (not timed)
    assert facts.breaker_transitions() == sum(
        start < NOON + offset <= end for offset in range(-200_000, 200_000, 30_000)
    )


def test_an_empty_window_has_counts_of_zero_and_no_rates(busy: tuple[Store, list[RequestRecord]]) -> None:
    with busy[0].reader() as connection:
        facts = queries.facts(connection, "chat", Window(0, 1))
        nobody = queries.facts(connection, "nobody", Window(0, 1 << 60))
    assert facts == nobody
    assert (facts.requests(), facts.failovers(), facts.cost_usd(), facts.tokens()) == (0, 0, 0, 0)
    rates = (facts.error_rate(), facts.error_rate("primary"), facts.secondary_share(), facts.percentile(0.95, "ttft"))
    assert rates == (None, None, None, None)


def test_only_automatic_moves_away_from_primary_are_failovers(recorder: Recorder, connection: Connection) -> None:
    recorder.submit(
        [
            move(epoch=2, cause="quorum"),
            move(epoch=3, cause="failback", from_role="secondary", to_role="primary"),
            move(epoch=4, cause="override"),
        ]
    ).wait()
    facts = queries.facts(connection, "chat", Window(NOON - 1, NOON))
    assert facts.failovers() == 1
    assert len(queries.recent_moves(connection, "chat")) == 3


def test_an_outage_that_the_other_model_rescued_still_shows_for_its_role(
    recorder: Recorder, connection: Connection
) -> None:
    tries = (attempt(1, category="server_error", status_code=503), attempt(2, role="secondary", model=FLASH))
    recorder.submit([request(role="secondary", model=FLASH, attempts=tries)]).wait()
    facts = queries.facts(connection, "chat", Window(NOON - 1, NOON))
    assert (facts.error_rate(), facts.error_rate("primary"), facts.error_rate("secondary")) == (0.0, 1.0, 0.0)
    assert facts.secondary_share() == 1.0


def test_a_request_is_found_with_attempts_failovers_and_texts(tmp_path: Path) -> None:
    recorder = Recorder(Store(tmp_path / "a.db").open(), record_content=True)
    wanted = new_id()
    moved = move(scope=Scope.REQUEST, cause="timeout", request_id=wanted, evidence={"why": "slow"})
    tries = (attempt(1, category="timeout", status_code=None, error="read timed out"), attempt(2, waited_ms=5.5))
    recorder.submit([request(id=wanted, attempts=tries, failovers=(moved,), answer_text="blue"), request()]).wait()
    with recorder.store.reader() as connection:
        found = queries.request(connection, wanted)
        assert queries.request(connection, "unknown") is None
    recorder.close()
    assert found is not None
    assert tuple(found.attempts) == tries
    assert tuple(found.failovers) == (moved,)
    assert (found.prompt_text, found.answer_text) == ("Why is the sky blue?", "blue")


def test_pages_of_requests_have_no_gaps_and_no_repeats(busy: tuple[Store, list[RequestRecord]]) -> None:
    store, records = busy
    seen = []
    cursor = None
    with store.reader() as connection:
        while True:
            page = queries.requests(connection, start_ms=0, end_ms=1 << 60, before=cursor, limit=37)
            seen += [row.cursor for row in page.requests]
            if page.next is None:
                break
            cursor = page.next
    assert seen == sorted(((r.ts_ms, r.id) for r in records), reverse=True)


def test_requests_are_filtered(busy: tuple[Store, list[RequestRecord]]) -> None:
    store, records = busy
    where = RequestFilter(manager="chat", role="secondary", outcome="ok", synthetic=False, min_duration_ms=5000)
    with store.reader() as connection:
        page = queries.requests(connection, start_ms=NOON, end_ms=NOON + 300_000, where=where, limit=1000)
    assert {row.id for row in page.requests} == {
        r.id
        for r in records
        if r.role == "secondary" and r.outcome == "ok" and not r.synthetic and r.duration_ms >= 5000
        if NOON < r.ts_ms <= NOON + 300_000
    }


def test_the_timeline_merges_all_kinds_in_order_and_pages(recorder: Recorder, connection: Connection) -> None:
    recorder.submit(
        [
            transition(ts_ms=NOON + 1),
            move(ts_ms=NOON + 2),
            act(ts_ms=NOON + 3),
            transition(ts_ms=NOON + 4, from_state="open", to_state="half_open"),
            move(ts_ms=NOON + 5, scope=Scope.REQUEST),
            move(ts_ms=NOON + 6, manager="other"),
        ]
    ).wait()
    found = []
    cursor = None
    while True:
        page = queries.timeline(connection, start_ms=NOON, end_ms=NOON + 10, manager="chat", before=cursor, limit=2)
        found += [(event.ts_ms - NOON, str(event.kind)) for event in page.events]
        if page.next is None:
            break
        cursor = page.next
    assert found == [(4, "breaker"), (3, "override"), (2, "failover"), (1, "breaker")]
    everything = queries.timeline(connection, start_ms=NOON, end_ms=NOON + 10, kinds=list(queries.EventKind))
    assert [event.ts_ms - NOON for event in everything.events] == [6, 5, 4, 3, 2, 1]
    assert everything.events[4].detail["evidence"] == {"down": 2}


def test_an_unknown_kind_of_event_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="gossip"):
        queries.timeline(connection, start_ms=0, end_ms=1, kinds=["gossip"])


def test_the_ribbon_has_no_gaps_and_knows_what_was_before(recorder: Recorder, connection: Connection) -> None:
    recorder.submit(
        [
            move(ts_ms=NOON - 500, epoch=2),
            move(ts_ms=NOON + 100, epoch=5, from_role="secondary", to_role="primary", cause="failback"),
            move(ts_ms=NOON + 300, epoch=7, cause="override"),
        ]
    ).wait()
    found = queries.ribbon(connection, "chat", NOON, NOON + 1000)
    assert [(s.start_ms - NOON, s.end_ms - NOON, s.role, s.cause, s.epoch) for s in found] == [
        (0, 100, Role.SECONDARY, "quorum", 2),
        (100, 300, Role.PRIMARY, "failback", 5),
        (300, 1000, Role.SECONDARY, "override", 7),
    ]
    before = queries.ribbon(connection, "chat", NOON - 1000, NOON - 600)
    assert [(s.role, s.cause) for s in before] == [(Role.PRIMARY, "start")]


def test_transitions_and_acts_come_back_as_they_were_recorded(recorder: Recorder, connection: Connection) -> None:
    tripped, pinned = transition(), act()
    recorder.submit([tripped, pinned]).wait()
    assert queries.breaker_transitions(connection, "chat") == [tripped]
    assert queries.breaker_transitions(connection, "chat", role="secondary") == []
    assert queries.overrides(connection) == queries.overrides(connection, "chat") == [pinned]


def test_series_add_up_to_the_window(busy: tuple[Store, list[RequestRecord]]) -> None:
    store, records = busy
    with store.reader() as connection:
        points = queries.traffic_series(connection, "chat", NOON - 400_000, NOON + 400_000, step_minutes=5)
        tries = queries.attempt_series(connection, "chat", NOON - 600_000, NOON + 400_000)
        times = queries.latency_series(connection, "chat", NOON - 400_000, NOON + 400_000, step_minutes=60)
    assert sum(point.n for point in points) == sum(not r.synthetic for r in records)
    assert all(point.start_ms % (5 * MINUTE) == 0 for point in points)
    assert sum(point.n for point in tries) == len(records)
    assert all(point.p50 <= point.p95 <= point.p99 for point in times)
    assert times


def test_managers_are_found_without_reading_every_row(recorder: Recorder, connection: Connection) -> None:
    recorder.submit([request(manager=name) for name in ("chat", "code", "chat", "a")]).wait()
    assert queries.managers(connection) == ["a", "chat", "code"]
    assert queries.last_request_ms(connection, "code") == NOON
    assert queries.last_request_ms(connection, "nobody") is None


def test_no_query_of_the_windows_scans_a_table(busy: tuple[Store, list[RequestRecord]]) -> None:
    statements: list[str] = []
    with busy[0].reader() as connection:
        connection.set_trace_callback(statements.append)
        queries.facts(connection, "chat", Window(NOON - 200_000, NOON + 200_001))
        queries.requests(connection, start_ms=0, end_ms=1 << 60, where=RequestFilter(manager="chat"))
        queries.timeline(connection, start_ms=0, end_ms=1 << 60, manager="chat")
        connection.set_trace_callback(None)
        scans = [
            (row[3], statement)
            for statement in statements
            if statement.lstrip().upper().startswith("SELECT")
            for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
            if row[3].startswith("SCAN ") and "(subquery" not in row[3] and "VIRTUAL TABLE" not in row[3]
        ]
    allowed = ("alert_transitions", "deliveries", "SCAN d", "SCAN o")
    assert [scan for scan in scans if not any(word in scan[0] for word in allowed)] == []
