"""Reading `/metrics` and `switchgear status` takes as long with a long history as with a short one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from engine.config import Config
from engine.core.events import RequestOutcome, RequestRecord
from engine.ledger import Ledger
from engine.metrics import Exposition
from engine.overview import overview
from engine.store import Store
from tests.benchmarks.measuring import microseconds, quietest, say
from tests.engine.records import FLASH, NOON, PRO, attempt, request

SPAN_MS = 7 * 86_400_000
RECENT = 600
RECENT_MS = 600_000
GROUP = 2000


def traffic(count: int) -> Iterator[RequestRecord]:
    """Requests of a week up to noon: so many of them, the last ten minutes the same whatever the number."""
    chance = random.Random(count)
    older = count - RECENT
    for place in range(older):
        yield one(NOON - SPAN_MS + place * (SPAN_MS - RECENT_MS) // older, chance)
    for place in range(RECENT):
        yield one(NOON - RECENT_MS + place * RECENT_MS // RECENT, chance)


def one(ts_ms: int, chance: random.Random) -> RequestRecord:
    """A request: one in ten fails over, one in a hundred fails."""
    luck, duration = chance.random(), 200 + chance.random() * 3000
    if luck < 0.9:
        return request(ts_ms=ts_ms, duration_ms=duration, attempts=(attempt(ts_ms=ts_ms, duration_ms=duration),))
    failed = attempt(ts_ms=ts_ms, category="server_error", status_code=503, duration_ms=90.0, cost_usd=None)
    if luck < 0.99:
        tries = (failed, attempt(2, ts_ms=ts_ms, role="secondary", model=FLASH, duration_ms=duration))
        return request(
            ts_ms=ts_ms,
            role="secondary",
            model=FLASH,
            failover_cause="server_error",
            attempts=tries,
            duration_ms=duration,
        )
    return request(
        ts_ms=ts_ms, status_code=502, outcome=RequestOutcome.ERROR, code="provider_error", model=PRO, attempts=(failed,)
    )


def filled(path: Path, count: int) -> Store:
    """A store with so many requests, posted through the ledger."""
    store = Store(path).open()
    ledger, connection, records = Ledger(b"key"), store.writer(), traffic(count)
    connection.execute("PRAGMA synchronous = OFF")
    while group := list(islice(records, GROUP)):
        connection.execute("BEGIN IMMEDIATE")
        ledger.post(connection, group)
        connection.execute("COMMIT")
        if store.wal_bytes() > 64 * 1024 * 1024:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return store


def compare(make_config: Callable[..., Config], folder: Path, *, small: int, large: int, bound: float) -> None:
    """Fill two stores and compare their times, in turns and by processor time, which other programs hardly change."""
    config = make_config()
    stores = [filled(folder / "few.db", small), filled(folder / "many.db", large)]
    expositions = [Exposition(store, config) for store in stores]
    work: dict[str, list[Callable[[], object]]] = {
        "/metrics": [lambda: expositions[0].render(""), lambda: expositions[1].render("")],
        "switchgear status": [lambda: overview(config, stores[0], NOON), lambda: overview(config, stores[1], NOON)],
    }
    for what, readings in work.items():
        turns = [[quietest(read, windows=1, each=7, clock=time.thread_time) for read in readings] for _ in range(15)]
        few, many = (min(turn[place] for turn in turns) for place in (0, 1))
        say(
            f"{what}, {large:,} requests against {small:,}",
            f"{microseconds(many)} / {microseconds(few)} = {many / few:.2f}",
            "1",
        )
        assert many / few < bound, f"{what} grows with history"


def test_reading_does_not_grow_with_history(make_config: Callable[..., Config], tmp_path: Path) -> None:
    compare(make_config, tmp_path, small=2_000, large=40_000, bound=3.0)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_reading_two_million_requests_takes_as_long_as_ten_thousand(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    compare(make_config, tmp_path, small=10_000, large=2_000_000, bound=2.0)
