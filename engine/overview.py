"""What the first page shows, as plain data: every manager's state, its instances and what needs attention.

Read from the store alone, so the gateway, the command line and any other process give the same answer, and it costs
the same whatever the history.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from engine import queries
from engine.config import Config
from engine.core.agreement import Document, Member
from engine.core.messages import Role
from engine.fleet.sightings import MEMORY
from engine.fleet.view import FleetState, fleet_state, serves
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
    seen = fleet(config, connection, name, now)
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
        "fleet": seen.to_body() if seen is not None else None,
        "window_seconds": WINDOW,
        "requests": window.requests(),
        "error_rate": window.error_rate(),
        "secondary_share": window.secondary_share(),
        "p95_seconds": window.percentile(0.95),
        "last_request_ms": queries.last_request_ms(connection, name),
    }


def fleet(config: Config, connection: Connection, manager: str, now_ms: int) -> FleetState | None:
    """Who agrees on a manager, with votes and evidence, and what the quorum sees.

    Where the agreement is kept in a server, this is what an instance of this store read there last (`at_ms` says
    when); where the store keeps it, it is read from its tables. Bounded, whatever the size of the fleet.

    Args:
        config: The configuration, for quorum and times.
        connection: A snapshot of the store.
        manager: Whose agreement.
        now_ms: The time, milliseconds UTC.

    Returns:
        The fleet, `None` while nothing is agreed.
    """
    rows = queries.instances(connection)
    told = [state for row in rows if row.alive(now_ms) and (state := _told(row, manager)) is not None]
    if told:
        return max(told, key=lambda state: state.at_ms)
    agreed = queries.agreement(connection, manager)
    if agreed is None:
        return None
    policy = config.manager_policy(manager).fleet
    votes = [vote for vote, cast_ms in queries.votes(connection, manager) if now_ms - cast_ms < policy.vote_ttl * 1000]
    return fleet_state(manager, agreed.document, votes, _members(rows, manager, now_ms), policy, now_ms)


def _told(row: InstanceRow, manager: str) -> FleetState | None:
    views = row.gauges.get("fleet")
    body = views.get(manager) if isinstance(views, Mapping) else None
    return FleetState.from_body(body) if isinstance(body, Mapping) else None


def _members(rows: Iterable[InstanceRow], manager: str, now_ms: int) -> list[Member]:
    members = []
    for row in rows:
        over = (now_ms - row.updated_ms - row.ttl_ms) / 1000
        lost_for = 0.0 if row.alive(now_ms) else over
        member = Member(
            row.instance, row.host, row.version, row.started_ms, row.alive(now_ms), lost_for, gauges=row.gauges
        )
        if over < MEMORY and serves(member, manager):
            members.append(member)
    return members


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
        "queue": gauges.get("queue_length"),
        "agreement_age": _age(gauges.get("agreement_ms"), now),
        "coordinator_up": gauges.get("coordinator_up"),
        "trouble": gauges.get("trouble"),
    }


def _age(at_ms: Any, now: int) -> float | None:
    """Seconds since a time, `None` when it is unknown."""
    return max(0.0, (now - at_ms) / 1000) if isinstance(at_ms, int) else None
