"""The outbox: letters that wait, are taken, and were settled; attempts to deliver them."""

# ruff: noqa: S608 - what is put into a statement are names of this module, never values from outside
from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.sqlite import Connection

OUTBOX_COLUMNS = (
    "id, created_ms, receiver, kind, ordering_key, content_type, body, state, attempts, next_attempt_ms, expires_ms,"
    " last_status, last_error"
)


_FIRST = (
    "(SELECT min(seq) AS seq, state, next_attempt_ms, lease_until_ms FROM outbox"
    " WHERE receiver = ?1 AND state IN ('pending', 'leased') GROUP BY ordering_key)"
)
"""The first of each order that waits for a receiver: SQLite takes the other columns from the row of the minimum."""

_RELEASE = "UPDATE outbox SET state = 'pending', lease_owner = NULL, lease_until_ms = NULL WHERE state = 'leased'"


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
        "UPDATE outbox SET state = 'leased', lease_owner = ?2, lease_until_ms = ?3"
        f" WHERE seq = (SELECT seq FROM {_FIRST}"
        " WHERE state = 'pending' AND next_attempt_ms <= ?4 ORDER BY seq LIMIT 1)"
        f" RETURNING {OUTBOX_COLUMNS}",
        [receiver, owner, now_ms + lease_ms, now_ms],
    ).fetchone()
    return row if row is None else tuple(row)


def hand_back(connection: Connection, identifier: str, owner: str) -> bool:
    """Let a notification that was taken, and not sent, be taken again; returns whether it still was `owner`'s."""
    cursor = connection.execute(
        f"{_RELEASE} AND id = ? AND lease_owner = ?",
        [identifier, owner],
    )
    return bool(cursor.rowcount == 1)


def release_expired(connection: Connection, now_ms: int, horizon_ms: int, under_way: Sequence[str] = ()) -> int:
    """Give leases back that ran out, or that lie in an impossible future; returns how many.

    Args:
        connection: Inside a transaction.
        now_ms: The time.
        horizon_ms: No lease can end later than this from now.
        under_way: Letters that whoever asks is about himself, whatever the clock says.
    """
    cursor = connection.execute(
        f"{_RELEASE} AND (lease_until_ms < ?1 OR lease_until_ms > ?1 + ?2)"
        " AND id NOT IN (SELECT value FROM json_each(?3))",
        [now_ms, horizon_ms, json.dumps(list(under_way))],
    )
    return int(cursor.rowcount)


def next_due(connection: Connection, receiver: str, now_ms: int) -> int | None:
    """When the next notification of a receiver is due, among those that are first in their order; `None` for none.

    A letter somebody took counts from the moment at which it may be taken from them.
    """
    row = connection.execute(
        "SELECT min(CASE state WHEN 'pending' THEN next_attempt_ms ELSE max(lease_until_ms, ?2 - 1) + 1 END)"
        f" FROM {_FIRST}",
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
    """Record one attempt after those before it, a replay's after the first ones: outbox id, time, status, error, ms."""
    connection.execute(
        "INSERT INTO deliveries (outbox_id, n, ts_ms, status_code, error, duration_ms)"
        " SELECT ?1, (SELECT coalesce(max(n), 0) + 1 FROM deliveries WHERE outbox_id = ?1), ?2, ?3, ?4, ?5",
        row,
    )


def bury_all(connection: Connection, receiver: str, now_ms: int, reason: str) -> int:
    """Give up everything that waits for a receiver; returns how many."""
    cursor = connection.execute(
        "UPDATE outbox SET state = 'dead', next_attempt_ms = ?, last_error = ?"
        " WHERE receiver = ? AND state = 'pending'",
        [now_ms, reason, receiver],
    )
    return int(cursor.rowcount)


def cancel_others(connection: Connection, receivers: Sequence[str], now_ms: int) -> int:
    """Cancel what waits for anybody but these receivers; returns how many."""
    cursor = connection.execute(
        "UPDATE outbox SET state = 'cancelled', next_attempt_ms = ?1, lease_owner = NULL, lease_until_ms = NULL,"
        " last_error = 'no receiver of this name is configured any more' WHERE state IN ('pending', 'leased')"
        " AND receiver NOT IN (SELECT value FROM json_each(?2))",
        [now_ms, json.dumps(list(receivers))],
    )
    return int(cursor.rowcount)


def replay(
    connection: Connection, now_ms: int, expires_ms: int, *, receiver: str | None = None, identifier: str | None = None
) -> list[str]:
    """Make dead letters due again, with their id and bytes; returns the receiver of each."""
    rows = connection.execute(
        "UPDATE outbox SET state = 'pending', next_attempt_ms = ?1, expires_ms = ?2, attempts = 0 WHERE state = 'dead'"
        " AND (?3 IS NULL OR receiver = ?3) AND (?4 IS NULL OR id = ?4) RETURNING receiver",
        [now_ms, expires_ms, receiver, identifier],
    )
    return [row[0] for row in rows]


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
