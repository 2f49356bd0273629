"""Levels, as the store knows them: what is agreed, breakers and overrides since when, letters that wait."""

# ruff: noqa: S608 - what is put into a statement are texts of this module, never values from outside
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from alerts.vocabulary import BREAKER_STATES
from engine.sqlite import Connection


@dataclass(frozen=True, slots=True)
class Agreed:
    """The active model of a manager as it is agreed."""

    manager: str
    active: str
    share: float
    since_ms: int
    override: dict[str, Any] | None
    epoch: int

    @classmethod
    def read(cls, manager: str, document: str) -> Agreed:
        """From the agreement as it is stored."""
        body = json.loads(document)
        return cls(
            manager,
            body.get("active", "primary"),
            body.get("share", 1.0),
            body.get("since_ms", 0),
            body.get("override"),
            body.get("epoch", 0),
        )


def agreed(connection: Connection) -> list[Agreed]:
    """What is agreed per manager: the latest epoch that is recorded, or that this store itself holds."""
    rows = connection.execute(
        "SELECT manager, document FROM fleet_state UNION ALL SELECT a.manager, a.document FROM agreements a"
        " JOIN (SELECT manager, max(epoch) AS epoch FROM agreements GROUP BY manager) last"
        " ON last.manager = a.manager AND last.epoch = a.epoch"
    )
    found: dict[str, Agreed] = {}
    for manager, text in rows:
        one = Agreed.read(manager, text)
        if manager not in found or found[manager].epoch < one.epoch:
            found[manager] = one
    return list(found.values())


def override_started(connection: Connection, manager: str, now_ms: int | None = None) -> int | None:
    """When the override that is on now, or was at a moment, began: the oldest act that set one since the last end."""
    row = connection.execute(
        "SELECT min(ts_ms) FROM overrides WHERE manager = ?1 AND role IS NOT NULL AND action LIKE 'set%'"
        " AND ts_ms <= coalesce(?2, ts_ms) AND seq > (SELECT coalesce(max(seq), 0) FROM overrides WHERE manager = ?1"
        " AND ts_ms <= coalesce(?2, ts_ms) AND (action LIKE 'clear%' OR action LIKE 'expir%'))",
        [manager, now_ms],
    ).fetchone()
    return row[0] if row else None


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


def dead_letters(connection: Connection, from_ms: int, to_ms: int) -> list[int]:
    """When notifications were given up in `(from_ms, to_ms]`, ascending."""
    rows = connection.execute(
        "SELECT next_attempt_ms FROM outbox WHERE state = 'dead' AND next_attempt_ms > ? AND next_attempt_ms <= ?"
        " ORDER BY next_attempt_ms",
        [from_ms, to_ms],
    )
    return [row[0] for row in rows]


def oldest_due(connection: Connection, lasts_ms: int) -> int | None:
    """When the oldest notification that is not delivered yet was made, or made due again.

    Args:
        connection: In a read transaction.
        lasts_ms: How long after that a notification expires: a replay and a step of the clock move its end.
    """
    row = connection.execute(
        f"SELECT min({_DUE_SINCE}) FROM outbox WHERE state IN ('pending', 'leased')", [lasts_ms]
    ).fetchone()
    return row[0] if row else None


def waits(connection: Connection, lasts_ms: int, from_ms: int, to_ms: int) -> list[tuple[int, int | None]]:
    """From when to when each notification waited that did so in `[from_ms, to_ms]`; an end of `None`: it still does."""
    rows = connection.execute(
        f"SELECT {_DUE_SINCE} AS since, CASE WHEN state IN ('pending', 'leased') THEN NULL"
        " ELSE coalesce(delivered_ms, next_attempt_ms) END AS until FROM outbox"
        " WHERE since <= ?3 AND (until IS NULL OR until >= ?2) ORDER BY since",
        [lasts_ms, from_ms, to_ms],
    )
    return rows.fetchall()


_DUE_SINCE = "coalesce(expires_ms - ?1, created_ms)"
