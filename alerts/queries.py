"""Every statement the alerts package runs, with typed results. Nobody else in it contains SQL.

Reading for a tick is done in spans: the windows of all rules are cut at their boundaries into pieces that do not
overlap, each piece is summed once, and windows add the pieces up. So the cost is that of the longest window, not of
the number of rules. A piece is either whole minutes, read from the sums by minute, or an edge, read from raw rows.
"""

# ruff: noqa: S608 - what is put into a statement are numbers and texts of this module, never values from outside
from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alerts.vocabulary import BREAKER_STATES
from engine.sqlite import Connection

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of time, left-closed and right-open in milliseconds; `whole` when it is whole minutes."""

    from_ms: int
    to_ms: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Sums:
    """One group of rows in one span: what they are, and how many or how much."""

    span: int
    manager: str
    key: tuple[Any, ...]
    amounts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Agreed:
    """The active model of a manager as it is agreed."""

    manager: str
    active: str
    share: float
    since_ms: int
    override: dict[str, Any] | None
    epoch: int


@dataclass(frozen=True, slots=True)
class Beat:
    """The last sign of life of one instance, with its gauges."""

    instance: str
    updated_ms: int
    ttl_ms: int
    gauges: dict[str, Any]


def _spans(spans: Sequence[Span], *, whole: bool, unit: int = 1) -> str:
    """A table `spans(k, lo, hi)` of the spans of one sort; numbers only, so they may stand in the text."""
    rows = [
        f"({index},{span.from_ms // unit},{span.to_ms // unit})"
        for index, span in enumerate(spans)
        if span.whole is whole
    ]
    return f"WITH spans(k, lo, hi) AS (VALUES {', '.join(rows)})" if rows else ""


def _read(
    connection: Connection, spans: Sequence[Span], managers: Sequence[str], minutes: str, rows: str, amounts: int
) -> list[Sums]:
    """Run the statement over sums by minute and the one over raw rows; each gets `spans` and the managers."""
    found: list[Sums] = []
    names = json.dumps(list(managers))
    for statement, head in (
        (minutes, _spans(spans, whole=True, unit=MINUTE_MS)),
        (rows, _spans(spans, whole=False)),
    ):
        if head:
            found += [
                Sums(row[0], row[1], tuple(row[2 : len(row) - amounts]), tuple(row[len(row) - amounts :]))
                for row in connection.execute(head + statement, [names])
            ]
    return found


def requests(connection: Connection, spans: Sequence[Span], managers: Sequence[str]) -> list[Sums]:
    """Finished calls by role, outcome, whether the server is at fault, and whether synthetic: number, tokens, USD."""
    return _read(
        connection,
        spans,
        managers,
        " SELECT k, t.manager, role, outcome, status_code >= 500, synthetic, sum(n), sum(input_tokens + output_tokens),"
        " sum(cost_usd) FROM json_each(?) m CROSS JOIN spans CROSS JOIN rollup_minute t"
        " ON t.manager = m.value AND minute >= lo AND minute < hi GROUP BY 1, 2, 3, 4, 5, 6",
        " SELECT k, t.manager, role, outcome, status_code >= 500, synthetic, count(*),"
        " coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), 0), coalesce(sum(cost_usd), 0)"
        " FROM json_each(?) m CROSS JOIN spans CROSS JOIN requests t"
        " ON t.manager = m.value AND ts_ms >= lo AND ts_ms < hi GROUP BY 1, 2, 3, 4, 5, 6",
        3,
    )


def attempts(connection: Connection, spans: Sequence[Span], managers: Sequence[str]) -> list[Sums]:
    """Tries by role, category and whether synthetic: number, tokens, USD."""
    return _read(
        connection,
        spans,
        managers,
        " SELECT k, t.manager, role, category, synthetic, sum(n), sum(input_tokens + output_tokens), sum(cost_usd)"
        " FROM json_each(?) m CROSS JOIN spans CROSS JOIN attempt_minute t"
        " ON t.manager = m.value AND minute >= lo AND minute < hi GROUP BY 1, 2, 3, 4, 5",
        " SELECT k, t.manager, role, category, synthetic, count(*),"
        " coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), 0), coalesce(sum(cost_usd), 0)"
        " FROM json_each(?) m CROSS JOIN spans CROSS JOIN attempts t"
        " ON t.manager = m.value AND ts_ms >= lo AND ts_ms < hi GROUP BY 1, 2, 3, 4, 5",
        3,
    )


def failovers(connection: Connection, spans: Sequence[Span], managers: Sequence[str]) -> list[Sums]:
    """Moves by scope, roles and cause: number."""
    return _read(
        connection,
        spans,
        managers,
        " SELECT k, t.manager, scope, from_role, to_role, cause, sum(n)"
        " FROM json_each(?) m CROSS JOIN spans CROSS JOIN failover_minute t"
        " ON t.manager = m.value AND minute >= lo AND minute < hi GROUP BY 1, 2, 3, 4, 5, 6",
        " SELECT k, t.manager, scope, from_role, to_role, cause, count(*)"
        " FROM json_each(?) m CROSS JOIN spans CROSS JOIN failovers t"
        " ON t.manager = m.value AND scope IN ('active', 'request') AND ts_ms >= lo AND ts_ms < hi"
        " GROUP BY 1, 2, 3, 4, 5, 6",
        1,
    )


def breaker_changes(connection: Connection, spans: Sequence[Span], managers: Sequence[str]) -> list[Sums]:
    """Breaker transitions by role: number."""
    return _read(
        connection,
        spans,
        managers,
        " SELECT k, t.manager, role, sum(n) FROM json_each(?) m CROSS JOIN spans CROSS JOIN breaker_minute t"
        " ON t.manager = m.value AND minute >= lo AND minute < hi GROUP BY 1, 2, 3",
        " SELECT k, t.manager, role, count(*) FROM json_each(?) m CROSS JOIN spans CROSS JOIN breaker_transitions t"
        " ON t.manager = m.value AND ts_ms >= lo AND ts_ms < hi GROUP BY 1, 2, 3",
        1,
    )


def ramp_aborts(connection: Connection, spans: Sequence[Span], managers: Sequence[str]) -> list[Sums]:
    """Ramps that were given up: number."""
    edges = [Span(span.from_ms, span.to_ms, whole=False) for span in spans]
    return _read(
        connection,
        edges,
        managers,
        "",
        " SELECT k, t.manager, count(*) FROM json_each(?) m CROSS JOIN spans CROSS JOIN agreements t"
        " ON t.manager = m.value AND ts_ms >= lo AND ts_ms < hi WHERE ramp_aborted = 1 GROUP BY 1, 2",
        1,
    )


def latency_minutes(connection: Connection, spans: Sequence[Span], managers: Sequence[str]) -> list[Sums]:
    """Latencies of what succeeded or failed in whole minutes, by metric, role and bucket: number."""
    head = _spans(spans, whole=True, unit=MINUTE_MS)
    if not head:
        return []
    rows = connection.execute(
        head + " SELECT k, t.manager, metric, role, bucket, sum(n) FROM json_each(?) m CROSS JOIN json_each(?) x"
        " CROSS JOIN spans CROSS JOIN latency_minute t ON t.manager = m.value AND metric = x.value"
        " AND minute >= lo AND minute < hi WHERE outcome IN ('ok', 'error') GROUP BY 1, 2, 3, 4, 5",
        [json.dumps(list(managers)), '["duration", "ttft"]'],
    )
    return [Sums(row[0], row[1], tuple(row[2:5]), (row[5],)) for row in rows]


_SETTLED = "SELECT (SELECT coalesce(sum(value), 0) FROM totals WHERE labels ->> 'manager' IN (SELECT value FROM"
_SETTLED += " json_each(?1)) AND name IN ('requests', 'failover_events', 'request_failovers', 'breaker_transitions'))"
for _table in ("rollup_minute", "failover_minute", "breaker_minute"):
    _SETTLED += f" - (SELECT coalesce(sum(n), 0) FROM json_each(?1) m CROSS JOIN {_table} t ON t.manager = m.value"
    _SETTLED += " AND minute >= ?2" + (" AND synthetic = 0)" if _table == "rollup_minute" else ")")


def settled(connection: Connection, managers: Sequence[str], before_ms: int) -> float:
    """How many records of before a moment there are: all that were ever counted less those of the minutes since.

    It only changes when records of that time are written later.
    """
    row = connection.execute(_SETTLED, [json.dumps(list(managers)), before_ms // MINUTE_MS]).fetchone()
    return float(row[0])


def latency_rows(
    connection: Connection, spans: Sequence[Span], managers: Sequence[str]
) -> Iterable[tuple[int, str, str, float, float | None]]:
    """Single latencies on the edges: span, manager, role, duration and first token in milliseconds."""
    head = _spans(spans, whole=False)
    if not head:
        return ()
    rows: Iterable[tuple[int, str, str, float, float | None]] = connection.execute(
        head + " SELECT k, t.manager, role, duration_ms, ttft_ms FROM json_each(?) m CROSS JOIN spans"
        " CROSS JOIN requests t ON t.manager = m.value AND ts_ms >= lo AND ts_ms < hi"
        " WHERE outcome IN ('ok', 'error') AND synthetic = 0 AND role <> 'none'",
        [json.dumps(list(managers))],
    )
    return rows


def agreed(connection: Connection) -> list[Agreed]:
    """What is agreed per manager: the latest epoch that is recorded, or that this store itself holds."""
    rows = connection.execute(
        "SELECT manager, document FROM fleet_state UNION ALL SELECT a.manager, a.document FROM agreements a"
        " JOIN (SELECT manager, max(epoch) AS epoch FROM agreements GROUP BY manager) last"
        " ON last.manager = a.manager AND last.epoch = a.epoch"
    )
    found: dict[str, Agreed] = {}
    for manager, text in rows:
        body = json.loads(text)
        one = Agreed(
            manager,
            body.get("active", "primary"),
            body.get("share", 1.0),
            body.get("since_ms", 0),
            body.get("override"),
            body.get("epoch", 0),
        )
        if manager not in found or found[manager].epoch < one.epoch:
            found[manager] = one
    return list(found.values())


def override_started(connection: Connection, manager: str) -> int | None:
    """When the override that is on now began: the oldest act that set one since the last that ended one."""
    row = connection.execute(
        "SELECT min(ts_ms) FROM overrides WHERE manager = ?1 AND role IS NOT NULL AND action LIKE 'set%'"
        " AND seq > (SELECT coalesce(max(seq), 0) FROM overrides WHERE manager = ?1 AND"
        " (action LIKE 'clear%' OR action LIKE 'expir%'))",
        [manager],
    ).fetchone()
    return row[0] if row else None


def beats(connection: Connection) -> list[Beat]:
    """All instances this store knows."""
    rows = connection.execute("SELECT instance, updated_ms, ttl_ms, gauges FROM instances")
    return [Beat(row[0], row[1], row[2], json.loads(row[3])) for row in rows]


def breaker_history(
    connection: Connection, manager: str, role: str, limit: int = 1000
) -> list[tuple[int, str, str, str]]:
    """The last changes of a breaker on all instances, newest first: time, instance, from, to."""
    rows = connection.execute(
        "SELECT ts_ms, instance, from_state, to_state FROM breaker_transitions WHERE manager = ? AND role = ?"
        " ORDER BY ts_ms DESC, seq DESC LIMIT ?",
        [manager, role, limit],
    )
    return [row for row in rows if row[3] in BREAKER_STATES]


def dead_letters(connection: Connection, from_ms: int, to_ms: int) -> int:
    """Notifications given up in `(from_ms, to_ms]`."""
    row = connection.execute(
        "SELECT count(*) FROM outbox WHERE state = 'dead' AND next_attempt_ms > ? AND next_attempt_ms <= ?",
        [from_ms, to_ms],
    ).fetchone()
    return int(row[0])


def oldest_due(connection: Connection) -> int | None:
    """When the oldest notification that is not delivered yet was made."""
    row = connection.execute("SELECT min(created_ms) FROM outbox WHERE state IN ('pending', 'leased')").fetchone()
    return row[0] if row else None


def marks(connection: Connection, prefix: str) -> dict[str, tuple[int, str]]:
    """Marks whose name begins so: time and detail by name."""
    rows = connection.execute(
        "SELECT name, ts_ms, detail FROM marks WHERE substr(name, 1, ?) = ?", [len(prefix), prefix]
    )
    return {name: (ts_ms, detail) for name, ts_ms, detail in rows}


def set_mark(connection: Connection, name: str, ts_ms: int, detail: str = "") -> None:
    """Set a mark."""
    connection.execute(
        "INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET ts_ms = excluded.ts_ms,"
        " detail = excluded.detail",
        [name, ts_ms, detail],
    )


def drop_mark(connection: Connection, name: str) -> None:
    """Remove a mark."""
    connection.execute("DELETE FROM marks WHERE name = ?", [name])


# Alert states and what was said about them.


def alert_states(connection: Connection) -> list[tuple[str, str, str | None, str, str, int, float | None, str]]:
    """All remembered alerts: fingerprint, rule, manager, labels, state, since, value, body."""
    return list(
        connection.execute("SELECT fingerprint, rule, manager, labels, state, since_ms, value, body FROM alert_states")
    )


def save_alert(connection: Connection, row: Sequence[Any]) -> None:
    """Write one alert's state: fingerprint, rule, manager, severity, labels, state, value, since, body."""
    connection.execute(
        "INSERT INTO alert_states (fingerprint, rule, manager, severity, labels, state, value, since_ms, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (fingerprint) DO UPDATE SET state = excluded.state,"
        " value = excluded.value, since_ms = excluded.since_ms, body = excluded.body, labels = excluded.labels,"
        " severity = excluded.severity",
        row,
    )


def forget_alert(connection: Connection, fingerprint: str) -> None:
    """Remove one alert's state."""
    connection.execute("DELETE FROM alert_states WHERE fingerprint = ?", [fingerprint])


def add_transition(connection: Connection, row: Sequence[Any]) -> None:
    """Record one transition: id, time, rule, fingerprint, manager, labels, from, to, value, annotations."""
    connection.execute(
        "INSERT INTO alert_transitions (id, ts_ms, rule, fingerprint, manager, labels, from_state, to_state, value,"
        " annotations) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    )


def history(connection: Connection, limit: int, rule: str | None = None) -> list[tuple[Any, ...]]:
    """The last transitions, newest first: time, rule, manager, labels, from, to, value."""
    where = "WHERE rule = ?" if rule else ""
    return list(
        connection.execute(
            "SELECT ts_ms, rule, manager, labels, from_state, to_state, value FROM alert_transitions"
            f" {where} ORDER BY seq DESC LIMIT ?",
            [*([rule] if rule else []), limit],
        )
    )


# Silences.


def silences(connection: Connection, now_ms: int | None = None) -> list[tuple[str, int, int, int, str, str, str]]:
    """Silences, all or those that have not ended: id, created, starts, ends, matchers, author, reason."""
    where, values = ("WHERE ends_ms > ?", [now_ms]) if now_ms is not None else ("", [])
    return list(
        connection.execute(
            "SELECT id, created_ms, starts_ms, ends_ms, matchers, author, reason FROM silences"
            f" {where} ORDER BY starts_ms, id",
            values,
        )
    )


def add_silence(connection: Connection, row: Sequence[Any]) -> None:
    """Write one silence: id, created, starts, ends, matchers, author, reason."""
    connection.execute("INSERT INTO silences VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def end_silence(connection: Connection, identifier: str, now_ms: int) -> bool:
    """End a silence now; returns whether there was one to end."""
    cursor = connection.execute(
        "UPDATE silences SET ends_ms = max(?1, starts_ms) WHERE id = ?2 AND ends_ms > ?1", [now_ms, identifier]
    )
    return bool(cursor.rowcount == 1)


# The outbox.

OUTBOX_COLUMNS = (
    "id, created_ms, receiver, kind, ordering_key, content_type, body, state, attempts, next_attempt_ms, expires_ms,"
    " last_status, last_error"
)


def add_outbox(connection: Connection, row: Sequence[Any]) -> bool:
    """Put one in: id, created, receiver, kind, ordering key, dedupe key, content type, body, next attempt, expires.

    Returns:
        Whether it was not in yet.
    """
    cursor = connection.execute(
        "INSERT INTO outbox (id, created_ms, receiver, kind, ordering_key, dedupe_key, content_type, body, state,"
        " next_attempt_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?)"
        " ON CONFLICT (dedupe_key) DO NOTHING",
        row,
    )
    return bool(cursor.rowcount == 1)


def claim(connection: Connection, receiver: str, owner: str, now_ms: int, lease_ms: int) -> tuple[Any, ...] | None:
    """Take the next notification of a receiver that is due and is the oldest of its order; `OUTBOX_COLUMNS`."""
    row = connection.execute(
        "UPDATE outbox SET state = 'leased', lease_owner = ?1, lease_until_ms = ?2 WHERE seq = ("
        " SELECT seq FROM outbox o WHERE receiver = ?3 AND state = 'pending' AND next_attempt_ms <= ?4 AND NOT EXISTS ("
        " SELECT 1 FROM outbox e WHERE e.receiver = ?3 AND e.state IN ('pending', 'leased') AND e.seq < o.seq"
        " AND e.ordering_key = o.ordering_key) ORDER BY seq LIMIT 1) RETURNING " + OUTBOX_COLUMNS,
        [owner, now_ms + lease_ms, receiver, now_ms],
    ).fetchone()
    return row if row is None else tuple(row)


def release_expired(connection: Connection, now_ms: int, horizon_ms: int) -> int:
    """Give leases back that ran out, or that lie in an impossible future; returns how many.

    Args:
        connection: Inside a transaction.
        now_ms: The time.
        horizon_ms: No lease can end later than this from now.
    """
    cursor = connection.execute(
        "UPDATE outbox SET state = 'pending', lease_owner = NULL, lease_until_ms = NULL WHERE state = 'leased' AND"
        " (lease_until_ms < ?1 OR lease_until_ms > ?1 + ?2)",
        [now_ms, horizon_ms],
    )
    return int(cursor.rowcount)


def next_due(connection: Connection, receiver: str, now_ms: int) -> int | None:
    """When the next notification of a receiver is due, among those that are first in their order; `None` for none.

    A letter somebody took counts from the moment at which it may be taken from them.
    """
    row = connection.execute(
        "SELECT min(CASE state WHEN 'pending' THEN next_attempt_ms ELSE max(lease_until_ms, ?2 - 1) + 1 END)"
        " FROM outbox o WHERE receiver = ?1 AND state IN ('pending', 'leased') AND NOT EXISTS ("
        " SELECT 1 FROM outbox e WHERE e.receiver = ?1 AND e.state IN ('pending', 'leased') AND e.seq < o.seq"
        " AND e.ordering_key = o.ordering_key)",
        [receiver, now_ms],
    ).fetchone()
    return row[0] if row else None


def settle(
    connection: Connection,
    identifier: str,
    owner: str,
    *,
    state: str,
    attempts: int,
    next_attempt_ms: int,
    status: int | None,
    error: str | None,
    delivered_ms: int | None,
) -> bool:
    """Write how an attempt ended, unless the lease was lost meanwhile; returns whether it was written."""
    cursor = connection.execute(
        "UPDATE outbox SET state = ?, attempts = ?, next_attempt_ms = ?, last_status = ?, last_error = ?,"
        " delivered_ms = ?, lease_owner = NULL, lease_until_ms = NULL"
        " WHERE id = ? AND state = 'leased' AND lease_owner = ?",
        [state, attempts, next_attempt_ms, status, error, delivered_ms, identifier, owner],
    )
    return bool(cursor.rowcount == 1)


def add_delivery(connection: Connection, row: Sequence[Any]) -> None:
    """Record one attempt: outbox id, n, time, status, error, duration."""
    connection.execute("INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?, ?, ?, ?)", row)


def bury_all(connection: Connection, receiver: str, now_ms: int, reason: str) -> int:
    """Give up everything that waits for a receiver; returns how many."""
    cursor = connection.execute(
        "UPDATE outbox SET state = 'dead', next_attempt_ms = ?, last_error = ?"
        " WHERE receiver = ? AND state = 'pending'",
        [now_ms, reason, receiver],
    )
    return int(cursor.rowcount)


def replay(
    connection: Connection, now_ms: int, expires_ms: int, *, receiver: str | None = None, identifier: str | None = None
) -> int:
    """Make dead letters due again, with their id and bytes; returns how many."""
    cursor = connection.execute(
        "UPDATE outbox SET state = 'pending', next_attempt_ms = ?1, expires_ms = ?2, attempts = 0 WHERE state = 'dead'"
        " AND (?3 IS NULL OR receiver = ?3) AND (?4 IS NULL OR id = ?4)",
        [now_ms, expires_ms, receiver, identifier],
    )
    return int(cursor.rowcount)


def waiting(connection: Connection, receiver: str, ordering_key: str) -> bool:
    """Whether something of this order still waits for a receiver."""
    row = connection.execute(
        "SELECT 1 FROM outbox WHERE receiver = ? AND ordering_key = ? AND state IN ('pending', 'leased') LIMIT 1",
        [receiver, ordering_key],
    ).fetchone()
    return row is not None


def outbox_counts(connection: Connection) -> dict[tuple[str, str], int]:
    """Notifications by receiver and state."""
    rows = connection.execute("SELECT receiver, state, count(*) FROM outbox GROUP BY 1, 2")
    return {(receiver, state): n for receiver, state, n in rows}


def last_deliveries(connection: Connection, receiver: str, limit: int = 10) -> list[tuple[Any, ...]]:
    """The last attempts for a receiver, newest first: time, status, error, duration, outbox id, state."""
    return list(
        connection.execute(
            "SELECT d.ts_ms, d.status_code, d.error, d.duration_ms, o.id, o.state FROM deliveries d JOIN outbox o"
            " ON o.id = d.outbox_id WHERE o.receiver = ? ORDER BY d.ts_ms DESC LIMIT ?",
            [receiver, limit],
        )
    )


def prune(connection: Connection, before_ms: int, limit: int = 500) -> int:
    """Delete old notifications that were settled, with their attempts, and silences that ended; a slice at a time."""
    ids = [
        row[0]
        for row in connection.execute(
            "SELECT id FROM outbox WHERE state IN ('delivered', 'cancelled', 'dead') AND created_ms < ? LIMIT ?",
            [before_ms, limit],
        )
    ]
    listed = json.dumps(ids)
    connection.execute("DELETE FROM deliveries WHERE outbox_id IN (SELECT value FROM json_each(?))", [listed])
    connection.execute("DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))", [listed])
    connection.execute("DELETE FROM silences WHERE ends_ms < ?", [before_ms])
    return len(ids)


def shift_outbox(connection: Connection, by_ms: int) -> None:
    """Move the times of letters that wait."""
    connection.execute(
        "UPDATE outbox SET next_attempt_ms = next_attempt_ms + ?1, expires_ms = expires_ms + ?1,"
        " lease_until_ms = lease_until_ms + ?1 WHERE state IN ('pending', 'leased')",
        [by_ms],
    )
