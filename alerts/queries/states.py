"""What is remembered of alerts and what was decided about them: marks, states, transitions, silences."""

# ruff: noqa: S608 - what is put into a statement are texts of this module, never values from outside
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.sqlite import Connection


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


def shift_silences(connection: Connection, by_ms: int, then_ms: int) -> None:
    """Move the times of silences that had not ended by a moment of the clock before it was stepped."""
    connection.execute(
        "UPDATE silences SET starts_ms = starts_ms + ?1, ends_ms = ends_ms + ?1 WHERE ends_ms > ?2", [by_ms, then_ms]
    )
