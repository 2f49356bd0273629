"""A store that was filled by statements over days of rows says what the ledger would have said of the same records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine.core.events import (
    AttemptRecord,
    BreakerRecord,
    CanaryRecord,
    FailoverRecord,
    Record,
    RequestOutcome,
    RequestRecord,
    Scope,
)
from engine.ledger import Ledger
from engine.sqlite import Connection
from engine.store import Store
from tests.engine.records import NOON
from tests.largestore import Shape, fill

REQUESTS = 6_000
SUMS = {
    "rollup_minute": "*",
    "attempt_minute": "*",
    "failover_minute": "*",
    "breaker_minute": "*",
    "latency_minute": "*",
    "latency_totals": "*",
    "totals": "*",
}
ROWS = {
    "requests": "id, ts_ms, manager, instance, epoch, active_role, role, model, status_code, outcome, code,"
    " failover_cause, attempts, streamed, duration_ms, ttft_ms, overhead_us, input_tokens, output_tokens, cost_usd,"
    " finish_reason, synthetic",
    "attempts": "*",
    "failovers": "id, ts_ms, manager, instance, scope, from_role, to_role, cause, request_id, epoch",
    "breaker_transitions": "id, ts_ms, manager, instance, role, model, from_state, to_state, reason",
    "canary_results": "id, ts_ms, manager, instance, role, model, canary, passed, detail, request_id, duration_ms",
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fill(tmp_path_factory.mktemp("filled") / "large.db", Shape(REQUESTS, NOON))


@pytest.fixture(scope="module")
def posted(filled: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same records by the real ledger."""
    store = Store(tmp_path_factory.mktemp("posted") / "ledger.db").open()
    writer = store.writer()
    with filled.reader() as connection:
        records = list(recorded(connection))
    writer.execute("BEGIN IMMEDIATE")
    Ledger(b"key").post(writer, records)
    writer.execute("COMMIT")
    writer.close()
    return store


def recorded(connection: Connection) -> Iterator[Record]:
    """The rows of a store as the records they came from."""
    tries: dict[str, list[AttemptRecord]] = {}
    for request_id, *row in connection.execute(
        "SELECT request_id, n, ts_ms, role, model, status_code, category, duration_ms, waited_ms, breaker_state, error,"
        " input_tokens, output_tokens, cost_usd, usage_estimated FROM attempts ORDER BY request_id, n"
    ):
        tries.setdefault(request_id, []).append(AttemptRecord(*[*row[:-1], bool(row[-1])]))
    for row in connection.execute(f"SELECT {ROWS['requests']} FROM requests ORDER BY ts_ms, id"):
        values = list(row)
        values[9], values[13] = RequestOutcome(values[9]), bool(values[13])
        values[12] = tuple(tries.get(values[0], ()))
        values[21] = bool(values[21])
        yield RequestRecord(*values)
    for *row, evidence in connection.execute(f"SELECT {ROWS['failovers']}, evidence FROM failovers ORDER BY seq"):
        row[4] = Scope(row[4])
        yield FailoverRecord(*row, json.loads(evidence))
    for *row, evidence in connection.execute(
        f"SELECT {ROWS['breaker_transitions']}, evidence FROM breaker_transitions ORDER BY seq"
    ):
        yield BreakerRecord(*row, json.loads(evidence))
    for row in connection.execute(f"SELECT {ROWS['canary_results']} FROM canary_results ORDER BY seq"):
        yield CanaryRecord(*[*row[:7], bool(row[7]), *row[8:]])


def content(store: Store, table: str, columns: str) -> list[Any]:
    only = " WHERE name <> 'notifications'" if table == "totals" else ""  # written by the outbox, not by the ledger
    with store.reader() as connection:
        return sorted(connection.execute(f"SELECT {columns} FROM {table}{only}").fetchall(), key=repr)


@pytest.mark.parametrize(("table", "columns"), [*SUMS.items(), *ROWS.items()])
def test_a_filled_store_holds_what_the_ledger_writes(filled: Store, posted: Store, table: str, columns: str) -> None:
    found, expected = content(filled, table, columns), content(posted, table, columns)
    assert len(found) > 10
    assert found == expected


def test_it_has_as_many_requests_as_asked_for(filled: Store) -> None:
    with filled.reader() as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT id) FROM requests").fetchone() == (REQUESTS,) * 2


def test_it_is_sound(filled: Store) -> None:
    with filled.reader() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_shapes_of_all_sizes_agree_about_the_last_hours() -> None:
    few, many = (list(Shape(count, NOON).chunks())[-1] for count in (100_000, 10_000_000))
    assert few == many
