"""The recorder: what a ticket promised is on disk with all its sums, and nothing is lost while the store is away."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import queries
from engine.core.errors import StoreUnavailable
from engine.core.events import RequestOutcome, RequestRecord, Scope
from engine.ids import new_id
from engine.ledger import Page
from engine.percentiles import bucket_of
from engine.recorder import Recorder, RecordRejected
from engine.sqlite import Connection
from engine.store import Store
from tests.engine.records import FLASH, NOON, PRO, act, attempt, move, request, transition
from tests.patience import PATIENCE_S, eventually


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "switchgear.db").open()


@pytest.fixture
def recorder(store: Store) -> Iterator[Recorder]:
    made = Recorder(store)
    yield made
    made.close()


def rows(store: Store, statement: str) -> list[Any]:
    with store.reader() as connection:
        return connection.execute(statement).fetchall()


def counters(store: Store, name: str) -> dict[tuple[str, ...], float]:
    with store.reader() as connection:
        return {tuple(total.labels.values()): total.value for total in queries.totals(connection, name)}


def test_a_ticket_is_done_when_the_record_is_on_disk(store: Store, recorder: Recorder) -> None:
    record = request()
    ticket = recorder.submit([record])
    assert ticket.wait(PATIENCE_S)
    assert ticket.error is None
    with store.reader() as connection:
        found = queries.request(connection, record.id)
    assert found is not None
    assert found.request.prompt_hash is not None
    assert (found.request.ts_ms, found.attempts[0]) == (NOON, record.attempts[0])


def test_texts_are_dropped_unless_asked_for(store: Store, recorder: Recorder) -> None:
    recorder.submit([request(prompt_text="secret prompt", answer_text="secret answer")]).wait()
    recorder.close()
    assert rows(store, "SELECT * FROM contents") == []
    assert b"secret" not in store.path.read_bytes()


def test_texts_are_stored_when_asked_for(store: Store) -> None:
    recorder = Recorder(store, record_content=True)
    record = request(prompt_text="a prompt", answer_text="half a surrogate \ud800")
    assert recorder.submit([record]).wait()
    recorder.close()
    assert rows(store, "SELECT prompt_text, answer_text FROM contents") == [("a prompt", "half a surrogate ?")]


def test_equal_prompts_have_equal_hashes_that_differ_between_stores(tmp_path: Path) -> None:
    hashes = []
    for name in ("a.db", "b.db"):
        store = Store(tmp_path / name).open()
        recorder = Recorder(store)
        recorder.submit([request(), request(), request(prompt_text="another")]).wait()
        recorder.close()
        hashes.append([row[0] for row in rows(store, "SELECT prompt_hash FROM requests ORDER BY id")])
    assert hashes[0][0] == hashes[0][1] != hashes[0][2]
    assert not set(hashes[0]) & set(hashes[1])


def test_a_move_of_the_active_model_is_counted_once_per_manager_and_epoch(store: Store, recorder: Recorder) -> None:
    recorder.submit(
        [move(epoch=2, instance="a"), move(epoch=2, instance="b"), move(epoch=3), move(manager="m2")]
    ).wait()
    recorder.submit([move(epoch=3, instance="c")]).wait()
    assert len(rows(store, "SELECT * FROM failovers")) == 3
    assert counters(store, "failover_events") == {
        ("chat", "primary", "secondary", "quorum"): 2,
        ("m2", "primary", "secondary", "quorum"): 1,
    }
    assert rows(store, "SELECT sum(n) FROM failover_minute WHERE scope = 'active'") == [(3,)]


def test_moves_of_single_requests_are_counted_apart(store: Store, recorder: Recorder) -> None:
    one = request(failover_cause="timeout")
    moved = move(scope=Scope.REQUEST, cause="timeout", request_id=one.id)
    recorder.submit([request(id=one.id, failovers=(moved,))]).wait()
    assert counters(store, "request_failovers") == {("chat", "primary", "secondary", "timeout"): 1}
    assert counters(store, "failover_events") == {}


def test_synthetic_requests_have_rows_and_cost_and_no_part_in_rates(store: Store, recorder: Recorder) -> None:
    failed = request(
        synthetic=True,
        outcome=RequestOutcome.ERROR,
        status_code=502,
        attempts=(attempt(category="server_error", status_code=503),),
    )
    recorder.submit([failed, request()]).wait()
    assert sum(counters(store, "requests").values()) == 1
    assert sum(counters(store, "attempts").values()) == 1
    assert sum(counters(store, "cost_usd").values()) == 1.0
    assert rows(store, "SELECT synthetic, sum(n) FROM rollup_minute GROUP BY 1") == [(0, 1), (1, 1)]
    with store.reader() as connection:
        facts = queries.facts(connection, "chat", queries.Window(NOON - 1, NOON))
    assert (facts.requests(), facts.errors(), facts.error_rate(), facts.error_rate("primary")) == (1, 0, 0.0, 0.0)


def test_tokens_are_counted_for_the_model_that_used_them(store: Store, recorder: Recorder) -> None:
    both = (
        attempt(1, category="truncated", input_tokens=10, output_tokens=4, cost_usd=0.1),
        attempt(2, role="secondary", model=FLASH, input_tokens=14, output_tokens=6, cost_usd=0.2),
    )
    recorder.submit([request(attempts=both, input_tokens=24, output_tokens=10, cost_usd=0.3)]).wait()
    unknown = (attempt(input_tokens=None, output_tokens=None, cost_usd=None),)
    recorder.submit([request(attempts=unknown, input_tokens=1, output_tokens=None, cost_usd=None)]).wait()
    assert counters(store, "tokens") == {
        ("chat", PRO, "input"): 11,
        ("chat", PRO, "output"): 4,
        ("chat", FLASH, "input"): 14,
        ("chat", FLASH, "output"): 6,
    }
    assert counters(store, "cost_usd") == pytest.approx({("chat", PRO): 0.1, ("chat", FLASH): 0.2})


def test_a_shed_request_counts_for_the_active_model(store: Store, recorder: Recorder) -> None:
    shed = request(role="none", model="none", attempts=(), outcome=RequestOutcome.SHED, status_code=429)
    recorder.submit([shed]).wait()
    assert counters(store, "shed") == {("chat", "primary"): 1}
    assert rows(store, "SELECT * FROM latency_minute") == []


def test_a_record_that_breaks_a_rule_does_not_take_its_neighbours_along(store: Store, recorder: Recorder) -> None:
    hold = threading.Event()
    blocked = recorder.execute(lambda _: hold.wait(PATIENCE_S))
    first = request()
    good = [recorder.submit([first]), recorder.submit([request()])]
    bad = recorder.submit([request(role="tertiary")])
    twice = recorder.submit([request(id=first.id)])
    good.append(recorder.submit([request()]))
    hold.set()
    blocked.result(PATIENCE_S)
    assert all(ticket.wait(PATIENCE_S) and ticket.error is None for ticket in good)
    for refused in (bad, twice):
        assert refused.wait(PATIENCE_S)
        assert isinstance(refused.error, RecordRejected)
    assert rows(store, "SELECT count(*) FROM requests") == [(3,)]
    assert sum(counters(store, "requests").values()) == 3
    assert counters(store, "records_rejected") == {(): 2}
    assert recorder.error is None
    assert recorder.queue_length == 0


def test_a_job_sees_its_own_transaction_and_an_exception_rolls_it_back(store: Store, recorder: Recorder) -> None:
    def put(name: str, *, fail: bool) -> Callable[[Connection], str]:
        def job(connection: Connection) -> str:
            connection.execute("INSERT INTO marks VALUES (?, 1, '')", (name,))
            if fail:
                raise LookupError(name)
            return name

        return job

    assert recorder.execute(put("kept", fail=False), durable=True).result(PATIENCE_S) == "kept"
    with pytest.raises(LookupError):
        recorder.execute(put("gone", fail=True)).result(PATIENCE_S)
    assert rows(store, "SELECT name FROM marks") == [("kept",)]


def test_what_was_submitted_before_a_job_is_there_when_it_runs(recorder: Recorder) -> None:
    for _ in range(20):
        recorder.submit([request()])
    count = recorder.execute(lambda connection: connection.execute("SELECT count(*) FROM requests").fetchone()[0])
    assert count.result(PATIENCE_S) == 20


def test_under_batch_a_ticket_is_done_at_once_and_the_row_follows_soon(store: Store) -> None:
    recorder = Recorder(store, durability="batch")
    ticket = recorder.submit([request()])
    assert ticket.done
    eventually(lambda: rows(store, "SELECT 1 FROM requests"))
    recorder.submit([act()], committed=True).wait(PATIENCE_S)
    assert rows(store, "SELECT count(*) FROM overrides") == [(1,)]
    recorder.close()


def written_by(recorder: Recorder) -> list[str]:
    """The names of the threads that commit from here on."""
    names: list[str] = []
    page = recorder._pen._ledger.page

    def seen(records: Any) -> Any:
        names.append(threading.current_thread().name)
        return page(records)

    recorder._pen._ledger.page = seen  # type: ignore[method-assign]
    return names


def opened(recorder: Recorder) -> None:
    """The writer thread has opened the connection, and sleeps again."""
    assert recorder.submit([request()]).wait(PATIENCE_S)
    eventually(lambda: recorder._asleep and not recorder._writing.locked())


def test_a_caller_that_waits_anyway_commits_for_itself(store: Store, recorder: Recorder) -> None:
    opened(recorder)
    names = written_by(recorder)
    record = request()
    ticket = recorder.submit(lambda: [record], here=True)
    assert ticket.done
    assert names == [threading.current_thread().name]
    assert (record.id,) in rows(store, "SELECT id FROM requests")


def test_with_company_the_writer_thread_commits_for_all(store: Store, recorder: Recorder) -> None:
    assert recorder.submit([request()]).wait(PATIENCE_S)
    names = written_by(recorder)
    with recorder._writing:  # somebody is writing
        others = [recorder.submit([request()], here=True) for _ in range(3)]
        assert not any(ticket.done for ticket in others)
    assert all(ticket.wait(PATIENCE_S) and ticket.error is None for ticket in others)
    assert set(names) == {"switchgear-recorder"}
    assert rows(store, "SELECT count(*) FROM requests") == [(4,)]


def test_what_a_caller_could_not_write_itself_is_written_later(
    store: Store, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(recorder)
    monkeypatch.setattr("engine.pen.FAILING_BUSY_MS", 20)
    with store.writer() as other:
        recorder._pen._connection.execute("PRAGMA busy_timeout = 20")  # type: ignore[union-attr]
        other.execute("BEGIN IMMEDIATE")
        ticket = recorder.submit([request()], here=True)
        assert isinstance(ticket.error, StoreUnavailable)
        other.execute("ROLLBACK")
    eventually(lambda: recorder.error is None and recorder.queue_length == 0)
    assert rows(store, "SELECT count(*) FROM requests WHERE status_code = 503") == [(1,)]


@pytest.mark.parametrize("committed", [False, True])
def test_a_caller_interrupted_while_it_writes_leaves_its_record_exactly_once(
    store: Store, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    opened(recorder)
    record = request()
    write = Page.write
    interrupted: list[bool] = []

    def interrupt(page: Page, connection: Connection) -> None:
        if interrupted:
            write(page, connection)
            return
        interrupted.append(True)
        if committed:
            write(page, connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(Page, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        recorder.submit([record], here=True)
    eventually(lambda: recorder.queue_length == 0)
    assert rows(store, f"SELECT count(*) FROM requests WHERE id = '{record.id}'") == [(1,)]
    assert counters(store, "records_rejected") == {}


def test_a_mistake_in_making_a_record_is_its_own_trouble(store: Store, recorder: Recorder) -> None:
    good = recorder.submit([request()])
    bad = recorder.submit(lambda: [request(ts_ms=1 // 0)])
    assert [ticket.wait(PATIENCE_S) for ticket in (good, bad)] == [True, True]
    assert [type(ticket.error) for ticket in (good, bad)] == [type(None), RecordRejected]
    assert recorder.submit([request()], here=True).wait(PATIENCE_S)
    assert rows(store, "SELECT count(*) FROM requests") == [(2,)]


def test_no_value_of_a_request_is_looked_up_in_the_databases_adapters(store: Store, recorder: Recorder) -> None:
    searched = []

    class Member(str):
        """As a role or a category is: text to everybody but the database library."""

        __slots__ = ()

        def __conform__(self, _protocol: object) -> str:
            searched.append(str(self))
            return str(self)

    tried = attempt(role=Member("primary"), category=Member("ok"), breaker_state=Member("closed"))
    again = replace(tried, n=2)
    one = request(active_role=Member("primary"), role=Member("primary"), attempts=(tried, again))
    assert recorder.submit([one]).wait(PATIENCE_S)
    assert rows(store, "SELECT role, category, breaker_state FROM attempts") == [("primary", "ok", "closed")] * 2
    assert searched == []


def test_callers_that_write_for_themselves_still_get_their_log_checkpointed(store: Store, recorder: Recorder) -> None:
    for _ in range(20):
        assert recorder.submit([request()], here=True).wait(PATIENCE_S)
    eventually(lambda: not recorder._pen.dirty)  # nobody but the writer thread tidies up


def test_closing_commits_what_is_queued(store: Store) -> None:
    recorder = Recorder(store, durability="batch")
    for _ in range(1234):
        recorder.submit([request()])
    recorder.close()
    recorder.close()
    assert rows(store, "SELECT count(*) FROM requests") == [(1234,)]
    with pytest.raises(StoreUnavailable, match="closed"):
        recorder.submit([request()])


def test_an_event_loop_waits_for_many_tickets_without_blocking(store: Store, recorder: Recorder) -> None:
    async def send() -> None:
        await asyncio.gather(*(recorder.submit([request()]).as_future() for _ in range(300)))
        done = recorder.submit([request()])
        done.wait(PATIENCE_S)
        await done.as_future()

    asyncio.run(send())
    assert rows(store, "SELECT count(*) FROM requests") == [(301,)]


def test_a_task_that_is_cancelled_while_it_waits_does_no_harm(store: Store, recorder: Recorder) -> None:
    async def send() -> None:
        hold = threading.Event()
        recorder.execute(lambda _: hold.wait(PATIENCE_S))
        waiting = recorder.submit([request()]).as_future()
        waiting.cancel()
        hold.set()
        await recorder.submit([request()]).as_future()

    asyncio.run(send())
    assert rows(store, "SELECT count(*) FROM requests") == [(2,)]


def test_callbacks_run_and_a_failing_one_harms_nobody(recorder: Recorder) -> None:
    called = threading.Event()

    def fail(_: object) -> None:
        raise LookupError

    ticket = recorder.submit([request()])
    ticket.add_done_callback(fail) if not ticket.done else None
    ticket.add_done_callback(lambda _: called.set())
    assert called.wait(PATIENCE_S)
    assert recorder.submit([request()]).wait(PATIENCE_S)


def test_commits_are_measured(store: Store, recorder: Recorder) -> None:
    recorder.submit([request()]).wait()
    found = eventually(lambda: rows(store, "SELECT n, sum_ms FROM latency_totals WHERE metric = 'commit'"))
    assert sum(n for n, _ in found) >= 1
    assert all(0 < sum_ms < 60_000 for _, sum_ms in found)


def test_while_the_store_is_locked_tickets_fail_and_the_records_are_written_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.store.BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr("engine.pen.BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr("engine.pen.FAILING_BUSY_MS", 20)
    recorder = Recorder(store)
    assert recorder.submit([request()]).wait(PATIENCE_S)
    blocker = store.writer()
    blocker.execute("BEGIN IMMEDIATE")
    tickets = [recorder.submit([request()]) for _ in range(5)]
    assert all(ticket.wait(PATIENCE_S) for ticket in tickets)
    assert all(isinstance(ticket.error, StoreUnavailable) for ticket in tickets)
    assert "is locked by another program" in str(recorder.error)
    with pytest.raises(StoreUnavailable):
        recorder.execute(lambda _: None).result(PATIENCE_S)
    assert recorder.queue_length >= 5
    blocker.execute("ROLLBACK")
    blocker.close()
    assert recorder.submit([request()]).wait(PATIENCE_S)
    eventually(lambda: recorder.error is None)
    recorder.close()
    assert rows(store, "SELECT count(*) FROM requests") == [(7,)]


def test_a_lock_that_only_a_job_met_is_forgotten_when_it_is_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.store.BUSY_TIMEOUT_MS", 20)
    monkeypatch.setattr("engine.recorder.RETRY_MAX_S", 0.05)
    recorder = Recorder(store)
    blocker = store.writer()
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        recorder.execute(lambda _: None).result(PATIENCE_S)
    assert recorder.error is not None
    blocker.execute("ROLLBACK")
    blocker.close()
    eventually(lambda: recorder.error is None)
    recorder.close()


def test_a_job_that_wants_to_end_the_process_ends_only_itself(recorder: Recorder) -> None:
    def leave(_: Connection) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        recorder.execute(leave).result(PATIENCE_S)
    assert recorder.submit([request()]).wait(PATIENCE_S)


def test_a_full_disk_loses_nothing_and_heals(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    full = True
    writer = store.writer

    def small() -> Connection:
        connection = writer()
        if full:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(store, "writer", small)
    recorder = Recorder(store, durability="batch", queue_limit=50)
    for _ in range(60):
        recorder.submit([request(attempts=tuple(attempt(n, error="x" * 200) for n in range(30)))])
    assert "is full" in str(eventually(lambda: recorder.error))
    assert recorder.full
    full = False
    eventually(lambda: recorder.error is None)
    recorder.close()
    assert rows(store, "SELECT count(*) FROM requests") == [(60,)]
    assert sum(counters(store, "requests").values()) == 60


def test_audit_rows_are_synced_and_requests_are_not(store: Store, recorder: Recorder) -> None:
    def mode() -> int:
        assert recorder._pen._connection is not None
        return 2 if recorder._pen._full_sync else 1

    recorder.submit([request()]).wait()
    assert mode() == 1
    recorder.submit([transition()]).wait()
    assert mode() == 2
    recorder.submit([request()]).wait()
    assert mode() == 1


def test_two_processes_write_one_file(store: Store, recorder: Recorder) -> None:
    other = subprocess.Popen([sys.executable, "-c", CHILD, str(store.path), "400"], stdout=subprocess.PIPE, text=True)
    for _ in range(400):
        assert recorder.submit([request()]).wait(PATIENCE_S)
    out, _ = other.communicate(timeout=60)
    assert len(out.split()) == 400
    assert rows(store, "SELECT count(*) FROM requests") == [(800,)]
    assert sum(counters(store, "requests").values()) == 800


CHILD = """
import sys
from engine.store import Store
from engine.recorder import Recorder
from tests.engine.records import request
recorder = Recorder(Store(sys.argv[1]).open())
for _ in range(int(sys.argv[2])):
    record = request()
    ticket = recorder.submit([record])
    ticket.wait()
    assert ticket.error is None, ticket.error
    print(record.id, flush=True)
recorder.close()
"""


def test_what_a_killed_process_was_told_is_committed_is_complete(store: Store) -> None:
    told: list[str] = []
    rng = random.Random(4)
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(store.path), "1000000"], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        wanted = rng.randrange(20, 300)
        for _ in range(wanted):
            told.append(child.stdout.readline().strip())
        os.kill(child.pid, signal.SIGKILL)
        told += [line for line in child.stdout.read().split("\n")[:-1] if line]
        child.wait()
        child.stdout.close()
    with store.reader() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    there = {row[0] for row in rows(store, "SELECT id FROM requests")}
    assert set(told) <= there
    n = len(there)
    assert n - len(told) <= 4, "at most the one in flight at each kill was written and not told"
    assert rows(store, "SELECT sum(n) FROM rollup_minute") == [(n,)]
    assert rows(store, "SELECT count(*) FROM attempts") == [(n,)]
    assert sum(counters(store, "requests").values()) == n


roles = st.sampled_from(["primary", "secondary"])
attempts_made = st.lists(
    st.builds(
        lambda role, category, tokens, offset: (role, category, tokens, offset),
        roles,
        st.sampled_from(["ok", "server_error", "timeout", "rate_limited", "auth", "semantic"]),
        st.one_of(st.none(), st.integers(0, 1000)),
        st.integers(0, 90_000),
    ),
    max_size=3,
)


@st.composite
def traffic(draw: st.DrawFn) -> list[RequestRecord]:
    made = []
    for _ in range(draw(st.integers(1, 12))):
        ts_ms = NOON + draw(st.integers(-200_000, 200_000))
        tries = tuple(
            attempt(
                n + 1, role=role, model=PRO if role == "primary" else FLASH, category=category, ts_ms=ts_ms - offset,
                input_tokens=tokens, output_tokens=tokens, cost_usd=None if tokens is None else tokens / 64,
            )
            for n, (role, category, tokens, offset) in enumerate(draw(attempts_made))
        )  # fmt: skip
        outcome = draw(st.sampled_from(list(RequestOutcome)))
        role = tries[-1].role if tries else "none"
        made.append(
            request(
                id=new_id(), ts_ms=ts_ms, manager=draw(st.sampled_from(["chat", "code"])), role=role,
                model={"primary": PRO, "secondary": FLASH, "none": "none"}[role], attempts=tries, outcome=outcome,
                status_code={"ok": 200, "cancelled": 499, "shed": 429}.get(outcome, draw(st.sampled_from([400, 502]))),
                synthetic=draw(st.booleans()), duration_ms=draw(st.integers(1, 100_000)) / 8,
                ttft_ms=draw(st.one_of(st.none(), st.integers(1, 50_000).map(float))),
                input_tokens=draw(st.one_of(st.none(), st.integers(0, 1000))), output_tokens=None, cost_usd=None,
                failover_cause=draw(st.sampled_from([None, "timeout", "probe"])),
            )
        )  # fmt: skip
    return made


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=traffic(), cuts=st.lists(st.integers(1, 5), max_size=4))
def test_sums_equal_the_aggregation_of_raw_rows(records: list[RequestRecord], cuts: list[int], tmp_path: Path) -> None:
    store = Store(tmp_path / f"{new_id()}.db").open()
    recorder = Recorder(store)
    left = list(records)
    for cut in cuts:
        recorder.submit(left[:cut])
        left = left[cut:]
    recorder.submit(left)
    recorder.close()
    assert rows(store, "SELECT * FROM rollup_minute ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9") == rows(
        store,
        """SELECT ts_ms / 60000, manager, role, model, status_code, outcome, coalesce(code, ''),
            coalesce(failover_cause, ''), synthetic, count(*), sum(attempts), sum(duration_ms), sum(overhead_us),
            coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cost_usd), 0.0)
            FROM requests GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9""",
    )
    assert rows(store, "SELECT * FROM attempt_minute ORDER BY 1, 2, 3, 4, 5, 6") == rows(
        store,
        """SELECT ts_ms / 60000, manager, role, model, category, synthetic, count(*), sum(duration_ms),
            coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cost_usd), 0.0)
            FROM attempts GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6""",
    )
    buckets: Counter[tuple[Any, ...]] = Counter()
    callers = [one for one in records if not one.synthetic and one.role != "none"]
    for one in callers:
        for metric, value in (("duration", one.duration_ms), ("ttft", one.ttft_ms)):
            if value is not None:
                key = (one.ts_ms // 60_000, one.manager, one.role, one.model, metric, str(one.outcome))
                buckets[(*key, bucket_of(value))] += 1
    assert {tuple(row[:-1]): row[-1] for row in rows(store, "SELECT * FROM latency_minute")} == buckets
    assert counters(store, "requests") == Counter(
        (one.manager, one.role, one.model, str(one.status_code)) for one in records if not one.synthetic
    )
    assert counters(store, "attempts") == Counter(
        (one.manager, made.role, made.model, made.category)
        for one in records
        if not one.synthetic
        for made in one.attempts
    )
    assert rows(store, "SELECT coalesce(sum(n), 0) FROM latency_totals WHERE metric = 'duration'") == [(len(callers),)]
