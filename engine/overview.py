"""What the first page shows, as plain data: every manager's state, its instances and what needs attention.

Read from the store alone, so the gateway, the command line and any other process give the same answer, and it costs
the same whatever the history.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from engine import queries
from engine.config import Config
from engine.core.agreement import Document
from engine.core.messages import Role
from engine.queries import InstanceRow, Window
from engine.sqlite import Connection
from engine.store import Store
from engine.version import VERSION

WINDOW: Final = 300.0
"""Seconds over which rates are given."""


def overview(config: Config, store: Store, now_ms: int | None = None) -> dict[str, Any]:
    """The state of everything.

    Args:
        config: The configuration, for managers that have no history yet.
        store: Where the state is kept.
        now_ms: Milliseconds UTC; now by default.

    Returns:
        JSON-ready data: `managers` by name, `instances`, `alerts`, and `at_ms`.
    """
    now = int(time.time() * 1000) if now_ms is None else now_ms
    with store.reader() as connection:
        rows = queries.instances(connection)
        return {
            "at_ms": now,
            "version": VERSION,
            "demo": config.is_demo,
            "managers": {name: _manager(config, connection, name, rows, now) for name in config.managers},
            "instances": [_instance(row, now) for row in rows if row.alive(now)],
            "alerts": [asdict(alert) for alert in queries.active_alerts(connection)],
        }


def _manager(
    config: Config, connection: Connection, name: str, rows: Sequence[InstanceRow], now: int
) -> dict[str, Any]:
    policy = config.manager_policy(name)
    agreed = queries.agreement(connection, name)
    document = agreed.document if agreed is not None else Document()
    window = queries.facts(connection, name, Window.ending(now, WINDOW))
    active = policy.model(document.active)
    return {
        "active_role": document.active,
        "active_model": active.name,
        "models": {str(role): policy.model(role).name for role in Role},
        "since_ms": document.since_ms or None,
        "cause": document.cause,
        "evidence": document.evidence,
        "epoch": document.epoch,
        "primary_traffic_ratio": document.share,
        "stage": document.stage,
        "hold_until_ms": document.hold_until_ms or None,
        "flaps": document.flaps,
        "override": asdict(document.override) if document.override else None,
        "forced": {role: asdict(force) for role, force in document.forced.items()},
        "breakers": _breakers(name, rows, now),
        "window_seconds": WINDOW,
        "requests": window.requests(),
        "error_rate": window.error_rate(),
        "secondary_share": window.secondary_share(),
        "p95_seconds": window.percentile(0.95),
        "last_request_ms": queries.last_request_ms(connection, name),
    }


def _breakers(name: str, rows: Sequence[InstanceRow], now: int) -> dict[str, list[dict[str, Any]]]:
    """Per role what every live instance says about its breaker."""
    found: dict[str, list[dict[str, Any]]] = {str(role): [] for role in Role}
    for row in rows:
        detail: Mapping[str, Any] = row.gauges.get("managers", {}).get(name, {})
        if not row.alive(now) or not detail:
            continue
        for role, line in detail["lines"].items():
            found[role].append({"instance": row.instance, "at_ms": row.gauges.get("at_ms"), **line})
    return found


def _instance(row: InstanceRow, now: int) -> dict[str, Any]:
    gauges = row.gauges
    return {
        "instance": row.instance,
        "host": row.host,
        "version": row.version,
        "started_ms": row.started_ms,
        "seen_ms_ago": now - row.updated_ms,
        "epochs": gauges.get("epochs", {}),
        "in_flight": gauges.get("in_flight", {}),
        "queue": gauges.get("queue"),
        "coordinator_up": gauges.get("coordinator_up"),
        "trouble": gauges.get("trouble"),
    }
