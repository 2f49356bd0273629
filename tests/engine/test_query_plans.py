"""No question about the store reads a table that grows from end to end: every plan goes by an index."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "dashboard"))

from dashboard.casefile import read_case, read_incidents, read_lines
from dashboard.reading import read_live, read_past
from engine import hours, queries
from engine.config import Config
from engine.queries import EventKind, RequestFilter, Window
from engine.queries import control_room as ask
from engine.queries.search import filtered_requests
from engine.queries.spans import span_sums
from engine.sqlite import Connection
from engine.store import Store
from tests.engine.records import NOON
from tests.largestore import BUSY, Shape, fill

DAY = 86_400_000
MONTH = NOON - 30 * DAY

GROWING = frozenset(
    {
        "requests", "attempts", "contents", "failovers", "breaker_transitions", "agreements", "overrides",
        "alert_transitions", "outbox", "deliveries", "canary_results", "rollup_minute", "attempt_minute",
        "failover_minute", "breaker_minute", "latency_minute", "rollup_hour", "attempt_hour", "failover_hour",
        "breaker_hour", "latency_hour", "rolled_hours",
    }
)  # fmt: skip
"""The tables whose rows are as many as what happened; all others are as many as there are models or labels."""

SLOW = RequestFilter(BUSY, min_duration_ms=9_000.0)
SHED = RequestFilter(BUSY, outcome="shed", role="none", min_duration_ms=9_000.0)

QUESTIONS: dict[str, Callable[[Connection], Any]] = {
    "managers": queries.managers,
    "facts": lambda c: queries.facts(c, BUSY, Window(MONTH + 1234, NOON)),
    "traffic_series": lambda c: queries.traffic_series(c, BUSY, MONTH, NOON, step_minutes=60),
    "ends_series": lambda c: queries.ends_series(c, BUSY, MONTH, NOON, step_minutes=5),
    "ends_series by hour": lambda c: queries.ends_series(c, BUSY, MONTH, NOON, step_minutes=60),
    "traffic_series by minute": lambda c: queries.traffic_series(c, BUSY, MONTH, NOON),
    "attempt_series": lambda c: queries.attempt_series(c, BUSY, MONTH, NOON, step_minutes=60),
    "latency_series": lambda c: queries.latency_series(c, BUSY, MONTH, NOON, step_minutes=60, role="primary"),
    "totals": queries.totals,
    "latency_totals": queries.latency_totals,
    "outbox_pending": queries.outbox_pending,
    "active_alerts": queries.active_alerts,
    "request": lambda c: queries.request(c, "no-such-id"),
    "requests": lambda c: queries.requests(c, start_ms=MONTH, end_ms=NOON),
    "last_request_ms": lambda c: queries.last_request_ms(c, BUSY),
    "timeline": lambda c: queries.timeline(c, start_ms=MONTH, end_ms=NOON, manager=BUSY, kinds=list(EventKind)),
    "timeline of all": lambda c: queries.timeline(c, start_ms=MONTH, end_ms=NOON, kinds=list(EventKind)),
    "recent_moves": lambda c: queries.recent_moves(c, BUSY),
    "breaker_transitions": lambda c: queries.breaker_transitions(c, BUSY, role="primary"),
    "overrides": lambda c: queries.overrides(c, BUSY, before="1"),
    "ribbon": lambda c: queries.ribbon(c, BUSY, MONTH, NOON),
    "agreement": lambda c: queries.agreement(c, BUSY),
    "canary_results": lambda c: queries.canary_results(c, BUSY, MONTH, NOON),
    "latest_canaries": lambda c: queries.latest_canaries(c, BUSY, since_ms=NOON - DAY),
    "filtered_requests, slow": lambda c: filtered_requests(c, start_ms=MONTH, end_ms=NOON, where=SLOW),
    "filtered_requests, shed": lambda c: filtered_requests(c, start_ms=MONTH, end_ms=NOON, where=SHED),
    "span_sums": lambda c: span_sums(c, BUSY, [(MONTH, NOON), (NOON - DAY, NOON)]),
    "latency_by_role": lambda c: ask.latency_by_role(c, BUSY, "duration", NOON - DAY, NOON),
    "probes": lambda c: ask.probes(c, BUSY, "secondary", NOON - 600_000),
    "alert_rows": ask.alert_rows,
    "silences": lambda c: ask.silences(c, NOON),
    "notifications": ask.notifications,
    "notifications of one": lambda c: ask.notifications(c, receiver="ops", state="dead"),
    "notification": lambda c: ask.notification(c, "no-such-id"),
    "receivers": ask.receivers,
    "leases": ask.leases,
    "last_mark": ask.last_mark,
    "due hours": lambda c: hours.due(c, NOON),
    "incidents": lambda c: read_lines(c, BUSY, read_incidents(c, BUSY, NOON), NOON),
    "one incident": lambda c: read_case(c, BUSY, str(NOON - 2 * DAY), NOON),
    "past": lambda c: read_past(c, BUSY, NOON),
}

ENDS_EARLY = {
    "overrides": "newest first by its key, as many as are shown",
    "notifications": "newest first by its key, as many as are shown",
    "outbox_pending": "an index of nothing but what is pending",
}
"""What SQLite calls a scan too, and is short: the questions and why."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fill(tmp_path_factory.mktemp("plans") / "switchgear.db", Shape(4_000, NOON))


@pytest.fixture
def connection(store: Store) -> Iterator[Connection]:
    with store.reader() as opened:
        yield opened


def scans(connection: Connection, question: Callable[[Connection], Any]) -> list[str]:
    """Where the statements of a question go through a growing table from end to end."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    question(connection)
    connection.set_trace_callback(None)
    asked = [one for one in dict.fromkeys(statements) if one.lstrip().upper().startswith(("SELECT", "WITH"))]
    assert asked
    found = []
    for statement in asked:
        aliases = _aliases(statement)
        for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
            words = row[3].split()
            if words[0] == "SCAN" and aliases.get(words[1], words[1]) in GROWING:
                found.append(f"{row[3]}: {' '.join(statement.split())[:160]}")
    return found


def _aliases(statement: str) -> dict[str, str]:
    words = statement.replace("(", " ").replace(")", " ").replace(",", " ").split()
    found: dict[str, str] = {}
    for place, word in enumerate(words[:-1]):
        if word in GROWING:
            following = words[place + 1 : place + 3]
            alias = following[1] if following[:1] == ["AS"] and len(following) > 1 else following[0]
            found[alias] = word
    return found


@pytest.mark.parametrize("name", list(QUESTIONS))
def test_no_question_reads_a_growing_table_from_end_to_end(connection: Connection, name: str) -> None:
    found = scans(connection, QUESTIONS[name])
    assert found == [] or name in ENDS_EARLY, "\n".join(found)


def test_the_first_page_and_the_status_read_none_either(connection: Connection, config: Config) -> None:
    assert scans(connection, lambda c: read_live(c, config, BUSY, NOON)) == []
    assert scans(connection, lambda c: queries.facts(c, BUSY, Window.ending(NOON, 300))) == []


def test_every_growing_table_is_in_the_schema(connection: Connection) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables >= GROWING
