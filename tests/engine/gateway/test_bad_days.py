"""What a gateway makes of a store that keeps up with nothing, and of a clock that jumps by hours."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from engine.core.messages import Role
from engine.sqlite import sqlite3
from tests.children import standing_still
from tests.engine.drivers import outstanding
from tests.engine.gateway.conftest import Serve
from tests.engine.gateway.running import PRO, Running, about, error_of
from tests.patience import PATIENCE_S, eventually
from tests.rig import Answer, FastModel, Gateway
from tests.rig.load import Client, body_of
from tests.upstream import Fault, Upstream

HOURS = 5 * 3600.0
BREAKER = '[managers.chat.breaker]\nconsecutive_failures = 2\nopen_for = "20s"\n'


@contextmanager
def stuck(gateway: Running) -> Iterator[None]:
    """The writer is busy with something that does not end, as on a disk that has stopped answering."""
    go_on, begun = threading.Event(), threading.Event()

    def job(_: object) -> None:
        begun.set()
        go_on.wait(60)

    ended = gateway.instance.recorder.execute(job)
    assert begun.wait(PATIENCE_S)
    try:
        yield
    finally:
        go_on.set()
        ended.result(PATIENCE_S)


def test_a_full_record_queue_refuses_new_requests_shows_it_and_loses_nothing(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(rest='[store]\ndurability = "batch"')
    recorder = gateway.instance.recorder
    assert gateway.ask().ok
    worker = gateway.instance.identity.instance
    recorder.queue_limit = 5
    with stuck(gateway):
        answers = []
        while not recorder.full:
            answers.append(gateway.ask())
            assert answers[-1].ok, "while there is room, under `batch` nobody waits for the disk"
            assert len(answers) <= 10
        asked = len(upstream.seen())
        for stream in (False, True):
            refused = gateway.ask(stream=stream)
            assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")
            assert "queue" in error_of(refused)["message"]
            assert int(refused.headers["retry-after"]) >= 1
            assert about(refused).items() >= {"manager": "chat", "role": "none", "attempts": "0"}.items()
        assert len(upstream.seen()) == asked, "no model is paid for what could not be recorded"
        assert gateway.counted("recorder_queue_length", worker=worker) >= 5
        ready = gateway.call("GET", "/readyz")
        assert ready.status_code == 503
        assert "records waiting" in ready.text
    eventually(lambda: len(gateway.rows("requests")) == 1 + len(answers))  # nothing was lost
    eventually(lambda: gateway.counted("recorder_queue_length", worker=worker) == 0)
    assert gateway.ask().ok
    assert outstanding(gateway.exchange) == gateway.exchange.in_flight == 0


def test_under_commit_callers_wait_for_a_store_that_is_busy_and_newcomers_are_turned_away(
    serve: Serve, upstream: Upstream
) -> None:
    gateway = serve()
    assert gateway.ask().ok
    gateway.instance.recorder.queue_limit = 4
    url, body = f"{gateway.url}/v1/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": "x"}]}
    with ThreadPoolExecutor(4) as pool:
        with stuck(gateway):
            waiting = [pool.submit(gateway.session.post, url, json=body, timeout=60) for _ in range(4)]
            eventually(lambda: gateway.instance.recorder.full)
            refused = gateway.ask()
            assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")
            assert not any(one.done() for one in waiting), "no answer leaves before its record is committed"
        answers = [one.result() for one in waiting]
    assert all(answer.ok for answer in answers)
    recorded = {row["id"] for row in gateway.rows("requests")}
    assert {about(answer)["request-id"] for answer in answers} <= recorded


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds by which this process's wall clock is wrong; the monotonic one goes on as it does."""
    off = [0.0]
    right, right_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: right() + off[0])
    monkeypatch.setattr(time, "time_ns", lambda: right_ns() + int(off[0] * 1e9))
    yield off
    off[0] = 0.0


@pytest.mark.parametrize("by", [HOURS, -HOURS], ids=["forwards", "backwards"])
def test_a_clock_that_jumps_by_hours_changes_no_decision_and_loses_no_record(
    serve: Serve, upstream: Upstream, jump: list[float], by: float
) -> None:
    gateway = serve(rest=BREAKER)
    upstream.set(PRO, Fault(error="gateway_timeout"))
    assert [gateway.ask().status_code for _ in range(2)] == [200, 200]
    eventually(lambda: gateway.exchange.board.document.active is Role.SECONDARY)
    assert gateway.act("POST", "/override", {"role": "secondary", "reason": "test", "ttl": "30m"}).ok
    retry_at, asked = gateway.exchange.board.lines[Role.PRIMARY].breaker.retry_at, len(upstream.seen(PRO))

    jump[0] = by
    answers = [gateway.ask(stream=bool(number % 2)) for number in range(4)]
    time.sleep(2.5)  # heartbeats, votes and decisions at the wrong time
    answers += [gateway.ask() for _ in range(2)]
    assert [(one.status_code, about(one)["role"]) for one in answers] == [(200, "secondary")] * 6
    assert gateway.exchange.board.lines[Role.PRIMARY].breaker.retry_at == retry_at
    assert len(upstream.seen(PRO)) == asked, "an open breaker stays open for its own time"
    now = gateway.exchange.clock.monotonic()
    assert gateway.exchange.board.override(now) is not None, "half an hour is half an hour"
    assert gateway.exchange.board.document.active is Role.SECONDARY
    status = gateway.call("GET", "/api/v1/status").json()
    assert status["managers"]["chat"]["active_role"] == "secondary"
    assert gateway.call("GET", "/readyz").status_code == 200
    assert gateway.counted("coordinator_up") == 1
    assert gateway.counted("breaker_state", role="primary", state="open") == 1

    jump[0] = 0.0
    answers += [gateway.ask() for _ in range(2)]
    rows = gateway.rows("requests")
    assert sorted(row["id"] for row in rows if row["id"] in {about(one)["request-id"] for one in answers}) == sorted(
        about(one)["request-id"] for one in answers
    )
    assert len(rows) == 10
    assert all(0 <= row["duration_ms"] < 5000 for row in rows)
    assert gateway.counted("requests_total", status_code="200") == 10
    assert gateway.act("DELETE", "/override?reason=done").ok
    assert len(gateway.rows("failovers", "scope = 'active'")) == 1


SHORT = """
[managers.chat.timeouts]
first_token = "1s"
idle = "1s"
answer = "2500ms"
[managers.chat.breaker]
slow_call = "2500ms"
min_calls = 5
"""


def test_a_machine_that_stands_still_takes_no_model_for_one_that_hangs_or_is_slow(tmp_path: Path) -> None:
    async def ask(port: int, body: bytes) -> Answer:
        client = Client(port)
        try:
            return await client.ask(body)
        finally:
            client.close()

    async def ask_all() -> list[Answer]:
        slow = body_of(stream=True, events=20, pause=0.1), body_of(pause=2.0)
        asking = [asyncio.ensure_future(ask(gateway.port, body)) for body in slow for _ in range(5)]
        await asyncio.sleep(0.8)
        with standing_still(gateway.pid):
            await asyncio.sleep(3.0)
        return await asyncio.gather(*asking)

    with FastModel(tmp_path) as model, Gateway(tmp_path, model.url, extra=SHORT) as gateway:
        answers = asyncio.run(ask_all())
    assert all(answer.whole for answer in answers)
    assert min(answer.seconds for answer in answers) > 3.0
    with closing(sqlite3.connect(gateway.store)) as connection:
        categories = connection.execute("SELECT category, count(*) FROM attempts GROUP BY 1").fetchall()
        moves = connection.execute("SELECT reason FROM breaker_transitions").fetchall()
    assert categories == [("ok", len(answers))]
    assert moves == []
