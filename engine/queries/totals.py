"""What has been counted since the beginning; the cost depends on the number of label sets only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from engine.sqlite import Connection


@dataclass(frozen=True, slots=True)
class Total:
    """One counter: its name in `engine.ledger.TOTALS`, its labels, its value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class LatencyTotal:
    """All observations of one metric and model; labels are empty for what belongs to no model."""

    metric: str
    manager: str
    role: str
    model: str
    outcome: str
    counts: Mapping[int, int]
    sum_ms: float


def totals(connection: Connection, name: str | None = None) -> list[Total]:
    """Counters, all of them or those of one name."""
    rows = connection.execute(
        "SELECT name, labels, value FROM totals WHERE ? IS NULL OR name = ? ORDER BY name, labels", (name, name)
    )
    return [Total(found, json.loads(labels), value) for found, labels, value in rows]


def latency_totals(connection: Connection) -> list[LatencyTotal]:
    """Latency since the beginning, by log bucket."""
    rows = connection.execute(
        """
        SELECT metric, manager, role, model, outcome, bucket, n, sum_ms FROM latency_totals
        ORDER BY manager, role, model, outcome, metric, bucket
        """
    )
    counts: dict[tuple[str, str, str, str, str], dict[int, int]] = {}
    sums: dict[tuple[str, str, str, str, str], float] = {}
    for *labels, bucket, n, sum_ms in rows:
        key = (labels[0], labels[1], labels[2], labels[3], labels[4])
        counts.setdefault(key, {})[bucket] = n
        sums[key] = sums.get(key, 0.0) + sum_ms
    return [LatencyTotal(*key, found, sums[key]) for key, found in counts.items()]


def created_ms(connection: Connection) -> int:
    """When the store was created, milliseconds UTC."""
    row = connection.execute("SELECT value FROM store_meta WHERE name = 'created_ms'").fetchone()
    return int(float(row[0]))


def mark(connection: Connection, name: str) -> int | None:
    """The last time a named duty was done, milliseconds UTC; `None` when it never was."""
    row = connection.execute("SELECT ts_ms FROM marks WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def outbox_pending(connection: Connection) -> dict[str, int]:
    """Notifications that wait for delivery, by receiver."""
    rows = connection.execute(
        "SELECT receiver, count(*) FROM outbox INDEXED BY outbox_due WHERE state IN ('pending', 'leased')"
        " GROUP BY receiver"
    )
    return {receiver: int(n) for receiver, n in rows}


@dataclass(frozen=True, slots=True)
class AlertState:
    """One alert that is pending or firing."""

    rule: str
    manager: str
    severity: str
    state: str
    since_ms: int


def active_alerts(connection: Connection) -> list[AlertState]:
    """Alerts that are pending or firing now."""
    rows = connection.execute(
        """
        SELECT rule, coalesce(manager, ''), severity, state, since_ms FROM alert_states
        WHERE state IN ('pending', 'firing') ORDER BY rule, manager
        """
    )
    return [AlertState(*row) for row in rows]


def calibrations(connection: Connection) -> dict[str, float]:
    """The ratio of reported to estimated prompt tokens that was learned, by the provider's name of the model."""
    rows = connection.execute("SELECT substr(name, 13), value FROM store_meta WHERE name GLOB 'calibration/*'")
    return {str(model): float(ratio) for model, ratio in rows}
