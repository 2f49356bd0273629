"""What only the control room asks the store; everything else it asks is what the package exports.

The guarantees are the same: read-only, bounded by an index or by sums of minutes, typed, on the caller's snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.ledger import MINUTE_MS
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

    An operator's tests are left out: they count for nothing, so they tell nothing about the way back.

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
                AND NOT (synthetic = 1 AND failover_cause IS 'override')
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
