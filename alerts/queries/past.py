"""What was once the case: how far back records reach, which agreements were in force, breakers, who was seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from alerts.queries.levels import Agreed
from alerts.spans import MINUTE_MS
from alerts.vocabulary import BREAKER_STATES
from engine.sqlite import Connection


@dataclass(frozen=True, slots=True)
class Reach:
    """How far back the records of a manager go, milliseconds; `None` where there are none.

    Attributes:
        sums_ms: The first minute of the sums, which are kept for ever.
        rows_ms: The oldest raw row.
        agreed_ms: The first agreement.
    """

    sums_ms: int | None
    rows_ms: int | None
    agreed_ms: int | None


def reach(connection: Connection, manager: str) -> Reach:
    """How far back the records of a manager go."""
    row = connection.execute(
        "SELECT (SELECT min(minute) FROM rollup_minute WHERE manager = ?1),"
        " (SELECT min(ts_ms) FROM requests WHERE manager = ?1), (SELECT min(ts_ms) FROM agreements WHERE manager = ?1)",
        [manager],
    ).fetchone()
    return Reach(None if row[0] is None else row[0] * MINUTE_MS, row[1], row[2])


def agreements(connection: Connection, manager: str, from_ms: int, to_ms: int) -> list[tuple[int, Agreed]]:
    """What was agreed in `[from_ms, to_ms]` and when, with what was in force before; ascending."""
    rows = connection.execute(
        "SELECT ts_ms, document FROM agreements WHERE manager = ?1 AND ts_ms <= ?3 AND ts_ms >="
        " coalesce((SELECT max(ts_ms) FROM agreements WHERE manager = ?1 AND ts_ms <= ?2), 0) ORDER BY ts_ms, epoch",
        [manager, from_ms, to_ms],
    )
    return [(ts_ms, Agreed.read(manager, document)) for ts_ms, document in rows]


def breaker_changes(connection: Connection, manager: str, role: str, to_ms: int) -> list[tuple[int, str, str, str]]:
    """Every recorded change of a breaker up to a moment, ascending: time, instance, from, to."""
    rows = connection.execute(
        "SELECT ts_ms, instance, from_state, to_state FROM breaker_transitions"
        " WHERE manager = ? AND ts_ms <= ? AND role = ? ORDER BY ts_ms, seq",
        [manager, to_ms, role],
    )
    return [row for row in rows if row[3] in BREAKER_STATES]


def seen(connection: Connection, manager: str, moments: Sequence[int], each: int) -> dict[str, tuple[int, int]]:
    """Instances that finished one of the first requests after some moments: the first and the last of them, ms."""
    rows = connection.execute(
        "SELECT instance, min(ts_ms), max(ts_ms) FROM (SELECT instance, ts_ms FROM json_each(?1) m JOIN requests r"
        " ON r.id IN (SELECT id FROM requests WHERE manager = ?2 AND ts_ms >= m.value ORDER BY ts_ms LIMIT ?3))"
        " GROUP BY instance",
        [json.dumps(list(moments)), manager, each],
    )
    return {instance: (first, last) for instance, first, last in rows}
