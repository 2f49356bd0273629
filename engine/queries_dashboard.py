"""What only the control room asks the store; everything else it asks is in `engine.queries`.

Guarantees as there: read-only, bounded by an index or by sums of minutes, typed, on the caller's snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.ledger import MINUTE_MS
from engine.percentiles import bucket_of
from engine.queries import RequestFilter, RequestPage, RequestRow, requests
from engine.queries.hours import HOUR, pieces
from engine.sqlite import Connection

PROBE_SCAN = 2000
"""Most requests that are looked through for probes; the answer is about the last moments only."""

SUCCESS_SCAN = 100
"""Most deliveries that are looked through for the last success: they do not succeed in the order they were made."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One try of a model that is not serving."""

    ts_ms: int
    category: str
    request_id: str

    @property
    def good(self) -> bool:
        """Whether the model answered."""
        return self.category == "ok"


@dataclass(frozen=True, slots=True)
class AlertRow:
    """Where one alert stands; `body` is the evaluator's own note."""

    fingerprint: str
    rule: str
    manager: str | None
    severity: str
    labels: Mapping[str, str]
    state: str
    value: float | None
    since_ms: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Silence:
    """A time in which matching alerts tell nobody."""

    id: str
    created_ms: int
    starts_ms: int
    ends_ms: int
    matchers: Sequence[str]
    author: str
    reason: str


@dataclass(frozen=True, slots=True)
class Notification:
    """One row of the outbox."""

    id: str
    created_ms: int
    receiver: str
    kind: str
    state: str
    attempts: int
    next_attempt_ms: int
    delivered_ms: int | None
    last_status: int | None
    last_error: str | None
    body: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver a notification."""

    n: int
    ts_ms: int
    status_code: int | None
    error: str | None
    duration_ms: float


@dataclass(frozen=True, slots=True)
class ReceiverSums:
    """A receiver's outbox at a glance."""

    receiver: str
    delivered: int
    pending: int
    dead: int
    last_success_ms: int | None
    last_failure: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a duty, and when it was renewed."""

    name: str
    owner: str
    updated_ms: int
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class SpanSums:
    """What callers noticed in one stretch of time, its first and last minute included.

    Attributes:
        answered: Callers' requests that got an answer.
        failed: Those that ended with an error of status 500 or more.
        shed: Those that were refused.
        rescued: Those answered by the other model than the active one.
        failures: Attempts that did not succeed by category, those of probes and canaries included.
    """

    answered: int = 0
    failed: int = 0
    shed: int = 0
    rescued: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)


def span_sums(connection: Connection, manager: str, spans: Sequence[tuple[int, int]]) -> list[SpanSums]:
    """Sums of many stretches at once, each `(start_ms, end_ms)`; they may overlap.

    Args:
        connection: Of `Store.reader()`.
        manager: Whose.
        spans: The stretches, milliseconds UTC.

    Returns:
        As many sums, in the same order.
    """
    where = _spans(connection, manager, spans)
    ended = _ends(connection, where, len(spans))
    rescued = dict(connection.execute(_SPAN_RESCUED, where).fetchall())
    failures: list[dict[str, int]] = [{} for _ in spans]
    for place, category, n in connection.execute(_SPAN_FAILURES, where):
        failures[place][category] = n
    return [
        SpanSums(*ends, rescued=rescued.get(place, 0), failures=failures[place]) for place, ends in enumerate(ended)
    ]


def span_ends(connection: Connection, manager: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """How callers' requests ended in many stretches: answered, failed, shed; arguments as of `span_sums`."""
    return _ends(connection, _spans(connection, manager, spans), len(spans))


def _ends(connection: Connection, where: Mapping[str, str], count: int) -> list[tuple[int, int, int]]:
    found = {
        place: (answered, failed, shed) for place, answered, failed, shed in connection.execute(_SPAN_ENDED, where)
    }
    return [found.get(place, (0, 0, 0)) for place in range(count)]


def _spans(connection: Connection, manager: str, spans: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The stretches as runs of hours and of minutes, each with its place."""
    hours: list[tuple[int, int, int]] = []
    minutes: list[tuple[int, int, int]] = []
    for place, (start_ms, end_ms) in enumerate(spans):
        cut = pieces(connection, manager, start_ms // MINUTE_MS, end_ms // MINUTE_MS + 1)
        hours += [(place, *run) for run in cut.hours]
        minutes += [(place, *run) for run in cut.minutes]
    return {"manager": manager, "hours": json.dumps(hours), "minutes": json.dumps(minutes)}


def _by_span(columns: str, by_hour: str, by_minute: str, condition: str) -> str:
    """Rows of both sorts of sums, each with the place of its span."""
    return f"""
        SELECT run.value ->> 0 AS place, {columns} FROM json_each(:hours) AS run CROSS JOIN {by_hour}
        WHERE manager = :manager AND hour >= run.value ->> 1 AND hour < run.value ->> 2 AND {condition}
        UNION ALL
        SELECT run.value ->> 0, {columns} FROM json_each(:minutes) AS run CROSS JOIN {by_minute}
        WHERE manager = :manager AND minute >= run.value ->> 1 AND minute < run.value ->> 2 AND {condition}
    """  # noqa: S608 - this module's own names


_SPAN_ENDED = f"""
    SELECT place, sum(iif(outcome = 'ok', n, 0)), sum(iif(outcome = 'error' AND status_code >= 500, n, 0)),
        sum(iif(outcome = 'shed', n, 0))
    FROM ({_by_span("outcome, status_code, n", "rollup_hour", "rollup_minute", "synthetic = 0")})
    GROUP BY place
"""  # noqa: S608 - as above
_SPAN_RESCUED = f"""
    SELECT place, sum(n) FROM ({_by_span("n", "failover_hour", "failover_minute", "scope = 'request'")})
    GROUP BY place
"""  # noqa: S608 - as above
_SPAN_FAILURES = f"""
    SELECT place, category, sum(n)
    FROM ({_by_span("category, n", "attempt_hour", "attempt_minute", "category NOT IN ('ok', 'cancelled')")})
    GROUP BY place, category
"""  # noqa: S608 - as above


def latency_by_role(
    connection: Connection, manager: str, metric: str, start_ms: int, end_ms: int
) -> dict[str, dict[int, int]]:
    """Latency of answered requests as counts by bucket, for `engine.percentiles.quantile`.

    Args:
        connection: Of `Store.reader()`.
        manager: Whose.
        metric: `duration` or `ttft`.
        start_ms: Milliseconds UTC; its whole minute is in.
        end_ms: Milliseconds UTC; its minute is in.
    """
    rows = connection.execute(
        """
        SELECT role, bucket, sum(n) FROM latency_minute
        WHERE manager = ? AND metric = ? AND minute BETWEEN ? AND ? AND outcome = 'ok' GROUP BY role, bucket
        """,
        (manager, metric, start_ms // MINUTE_MS, end_ms // MINUTE_MS),
    )
    found: dict[str, dict[int, int]] = {}
    for role, bucket, n in rows:
        found.setdefault(role, {})[bucket] = n
    return found


def probes(connection: Connection, manager: str, role: str, start_ms: int, *, limit: int = 12) -> list[Probe]:
    """Tries of a model while the other one was active or made by Switchgear itself, newest first.

    Args:
        connection: Of `Store.reader()`.
        manager: Whose.
        role: The model that was tried.
        start_ms: How far back to look; minutes, not hours.
        limit: Most probes.
    """
    rows = connection.execute(
        """
        SELECT a.ts_ms, a.category, a.request_id FROM (
            SELECT id, ts_ms FROM requests WHERE manager = ? AND ts_ms > ? AND (active_role <> ? OR synthetic = 1)
            ORDER BY ts_ms DESC LIMIT ?) AS r
        JOIN attempts AS a ON a.request_id = r.id AND a.role = ? ORDER BY a.ts_ms DESC LIMIT ?
        """,
        (manager, start_ms, role, PROBE_SCAN, role, limit),
    )
    return [Probe(*row) for row in rows]


def alert_rows(
    connection: Connection, *, manager: str | None = None, states: tuple[str, ...] | None = None, limit: int = 1000
) -> list[AlertRow]:
    """Where alerts stand, the longest in its state first.

    Args:
        connection: Of `Store.reader()`.
        manager: Only of this manager and of none.
        states: Only in these states.
        limit: Most alerts.
    """
    chosen = states or ("inactive", "pending", "firing", "resolved")
    rows = connection.execute(
        f"""
        SELECT fingerprint, rule, manager, severity, labels, state, value, since_ms, body FROM alert_states
        WHERE (? IS NULL OR manager IS NULL OR manager = ?) AND state IN ({", ".join("?" * len(chosen))})
        ORDER BY since_ms LIMIT ?
        """,  # noqa: S608 - placeholders only
        (manager, manager, *chosen, limit),
    )
    return [AlertRow(*[*row[:4], json.loads(row[4]), *row[5:8], json.loads(row[8])]) for row in rows]


def silences(connection: Connection, since_ms: int, *, limit: int = 200) -> list[Silence]:
    """Silences that end after a time, the one ending last first."""
    rows = connection.execute(
        "SELECT id, created_ms, starts_ms, ends_ms, matchers, author, reason FROM silences"
        " WHERE ends_ms > ? ORDER BY ends_ms DESC LIMIT ?",
        (since_ms, limit),
    )
    return [Silence(*[*row[:4], json.loads(row[4]), *row[5:]]) for row in rows]


def notifications(
    connection: Connection,
    *,
    receiver: str | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> tuple[list[Notification], int | None]:
    """One page of the outbox, newest first.

    Args:
        connection: Of `Store.reader()`.
        receiver: Only of this receiver.
        state: Only in this state.
        before: The cursor of the page before.
        limit: Rows a page.

    Returns:
        The rows and the cursor of the next page, `None` at the end.
    """
    chosen = {"receiver = ?": receiver, "state = ?": state, "seq < ?": before}
    wanted = {condition: value for condition, value in chosen.items() if value is not None}
    rows = connection.execute(
        f"""
        SELECT seq, id, created_ms, receiver, kind, state, attempts, next_attempt_ms, delivered_ms, last_status,
            last_error, body FROM outbox
        WHERE {" AND ".join(["true", *wanted])} ORDER BY seq DESC LIMIT ?
        """,  # noqa: S608 - this function's own conditions
        [*wanted.values(), limit + 1],
    ).fetchall()
    page = [Notification(*row[1:]) for row in rows[:limit]]
    return page, rows[limit - 1][0] if len(rows) > limit else None


def notification(connection: Connection, notification_id: str) -> tuple[Notification, list[Delivery]] | None:
    """One notification with every attempt to deliver it; `None` when there is none."""
    row = connection.execute(
        "SELECT id, created_ms, receiver, kind, state, attempts, next_attempt_ms, delivered_ms, "
        "last_status, last_error,"
        " body FROM outbox WHERE id = ?",
        (notification_id,),
    ).fetchone()
    if row is None:
        return None
    tries = connection.execute(
        "SELECT n, ts_ms, status_code, error, duration_ms FROM deliveries WHERE outbox_id = ? ORDER BY n LIMIT 200",
        (notification_id,),
    )
    return Notification(*row), [Delivery(*found) for found in tries]


def receivers(connection: Connection) -> list[ReceiverSums]:
    """Every receiver something was ever addressed to."""
    names = connection.execute(
        """
        WITH RECURSIVE known (name) AS (
            SELECT min(receiver) FROM outbox
            UNION ALL
            SELECT (SELECT min(receiver) FROM outbox WHERE receiver > name) FROM known WHERE name IS NOT NULL
        )
        SELECT name FROM known WHERE name IS NOT NULL
        """
    ).fetchall()
    return [_receiver(connection, name) for (name,) in names]


def _receiver(connection: Connection, name: str) -> ReceiverSums:
    counts = dict(
        connection.execute("SELECT state, count(*) FROM outbox WHERE receiver = ? GROUP BY state", (name,)).fetchall()
    )
    (success,) = connection.execute(
        """
        SELECT max(delivered_ms) FROM (
            SELECT delivered_ms FROM outbox WHERE receiver = ? AND state = 'delivered' ORDER BY seq DESC LIMIT ?)
        """,
        (name, SUCCESS_SCAN),
    ).fetchone()
    failed = connection.execute(
        "SELECT last_error FROM outbox WHERE receiver = ? AND state = 'dead' ORDER BY seq DESC LIMIT 1", (name,)
    ).fetchone()
    return ReceiverSums(
        name,
        counts.get("delivered", 0),
        counts.get("pending", 0) + counts.get("leased", 0),
        counts.get("dead", 0),
        success,
        failed[0] if failed else None,
    )


def leases(connection: Connection) -> list[Lease]:
    """Who holds which duty."""
    rows = connection.execute("SELECT name, owner, updated_ms, ttl_ms FROM leases ORDER BY name LIMIT 100")
    return [Lease(*row) for row in rows]


def last_mark(connection: Connection) -> int | None:
    """When alert rules were evaluated last, milliseconds UTC."""
    row = connection.execute("SELECT max(ts_ms) FROM marks WHERE name LIKE 'evaluat%'").fetchone()
    return None if row[0] is None else int(row[0])


PLACES_SCANNED = 120
"""Most minutes, and most hours, that one page of filtered requests looks into; the next page goes on from there."""

_ROLLED_UP = ("role", "model", "outcome", "status_code", "code", "failover_cause", "synthetic")


def filtered_requests(
    connection: Connection,
    *,
    start_ms: int,
    end_ms: int,
    where: RequestFilter,
    before: tuple[int, str] | None = None,
    limit: int = 50,
) -> RequestPage:
    """One page of one manager's requests, newest first, at a cost that does not grow with those that do not match.

    The sums by minute say in which minutes there are matching requests; only those minutes' rows are read.

    Args:
        connection: Of `Store.reader()`.
        start_ms: Milliseconds UTC; `(start_ms, end_ms]` as in `engine.queries.requests`.
        end_ms: Milliseconds UTC.
        where: What to look for; names a manager.
        before: The cursor of the page before.
        limit: Requests a page.
    """
    if where == RequestFilter(manager=where.manager):
        return requests(connection, start_ms=start_ms, end_ms=end_ms, where=where, before=before, limit=limit)
    last_ms = min(end_ms, before[0]) if before else end_ms
    found: list[RequestRow] = []
    minutes, beyond = _minutes_with(connection, where, start_ms // MINUTE_MS, last_ms // MINUTE_MS + 1)
    for minute in minutes:
        first, last = max(start_ms, minute * MINUTE_MS - 1), min(end_ms, minute * MINUTE_MS + MINUTE_MS - 1)
        wanted = limit + 1 - len(found)
        found += requests(connection, start_ms=first, end_ms=last, where=where, before=before, limit=wanted).requests
        if len(found) > limit:
            return RequestPage(found[:limit], found[limit - 1].cursor)
    return RequestPage(found, None if beyond is None else (beyond * MINUTE_MS, ""))


def _minutes_with(connection: Connection, where: RequestFilter, first: int, last: int) -> tuple[list[int], int | None]:
    """The newest minutes of `[first, last)` in which the sums know of matching requests.

    The sums by the hour say first in which hours to look. Given too is the minute to go on before when there may be
    more, `None` when there are not.
    """
    cut = pieces(connection, str(where.manager), first, last)
    hours: list[int] = []
    for run in reversed(cut.hours):
        hours += _units_with(connection, where, "hour", run, PLACES_SCANNED - len(hours))
        if len(hours) == PLACES_SCANNED:
            break
    floor = hours[-1] * HOUR if len(hours) == PLACES_SCANNED else first
    minutes: list[int] = []
    for low, high in sorted([*cut.minutes, *((hour * HOUR, hour * HOUR + HOUR) for hour in hours)], reverse=True):
        if high <= floor:
            break
        minutes += _units_with(connection, where, "minute", (max(low, floor), high), PLACES_SCANNED - len(minutes))
        if len(minutes) == PLACES_SCANNED:
            return minutes, minutes[-1]
    return minutes, floor if floor > first else None


def _units_with(connection: Connection, where: RequestFilter, unit: str, run: tuple[int, int], limit: int) -> list[int]:
    """The newest hours or minutes of a run with matching sums; stops reading when it has found enough."""
    wanted = {column: getattr(where, column) for column in _ROLLED_UP if getattr(where, column) is not None}
    values = list(wanted.values())
    if where.min_duration_ms is None:
        source, conditions = f"rollup_{unit}", [f"r.{column} = ?" for column in wanted]
    else:
        hourly, minutely = ("rolled_hours", "slowest"), ("latency_minute", "metric = 'duration' AND bucket")
        source, slow = hourly if unit == "hour" else minutely
        conditions = [f"{slow} >= ?"]
        values = [bucket_of(where.min_duration_ms), *values]
        if wanted:
            labels = "".join(f" AND s.{column} = ?" for column in wanted)
            same = f"s.manager = r.manager AND s.{unit} = r.{unit}{labels}"
            conditions.append(f"EXISTS (SELECT 1 FROM rollup_{unit} AS s WHERE {same})")  # noqa: S608 - our own names
    labels = "".join(f" AND {condition}" for condition in conditions)
    rows = connection.execute(
        f"SELECT DISTINCT r.{unit} FROM {source} AS r WHERE r.manager = ? AND r.{unit} >= ? AND r.{unit} < ?{labels}"  # noqa: S608 - as above
        f" ORDER BY r.{unit} DESC LIMIT ?",
        [where.manager, *run, *values, limit],
    )
    return [row[0] for row in rows]
