"""The agreement as the store holds it, and the instances that share it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.core.agreement import Document, Vote
from engine.sqlite import Connection


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was agreed for a manager, and when this store learnt of it."""

    manager: str
    document: Document
    updated_ms: int


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One instance with the gauges that belong to its process.

    `gauges` is what `engine.fleet.gauges.gauges_of` gives: `queue_length`, `coordinator_up`, and under `managers` per
    manager `epoch`, `in_flight` and the breakers' states in `lines`; `agreement_ms` is when the coordinator was last
    read, milliseconds UTC. Each is there as far as it is known.
    """

    instance: str
    host: str
    version: str
    started_ms: int
    updated_ms: int
    ttl_ms: int
    gauges: Mapping[str, Any]

    def alive(self, now_ms: int) -> bool:
        """Whether it has reported within its lease, by the wall clock of this machine."""
        return now_ms - self.updated_ms <= self.ttl_ms


def agreement(connection: Connection, manager: str) -> Agreement | None:
    """What is agreed for a manager; `None` before the first agreement."""
    row = connection.execute("SELECT document, updated_ms FROM fleet_state WHERE manager = ?", (manager,)).fetchone()
    return None if row is None else Agreement(manager, Document.from_json(row[0]), row[1])


def agreement_log(connection: Connection, manager: str, *, limit: int = 50) -> Sequence[Agreement]:
    """The last documents of a manager, newest first; `updated_ms` is when each was adopted here."""
    rows = connection.execute(
        "SELECT document, ts_ms FROM agreements WHERE manager = ? ORDER BY epoch DESC LIMIT ?", (manager, limit)
    )
    return [Agreement(manager, Document.from_json(document), ts_ms) for document, ts_ms in rows]


def instances(connection: Connection) -> list[InstanceRow]:
    """Every instance that has not left, by name; a killed one stays for a day."""
    rows = connection.execute(
        "SELECT instance, host, version, started_ms, updated_ms, ttl_ms, gauges FROM instances ORDER BY instance"
    )
    return [InstanceRow(*[*row[:-1], json.loads(row[-1])]) for row in rows]


def votes(connection: Connection, manager: str) -> list[tuple[Vote, int]]:
    """The last vote of every instance and when it was cast, milliseconds UTC."""
    rows = connection.execute(
        "SELECT vote, updated_ms FROM fleet_votes WHERE manager = ? ORDER BY instance", (manager,)
    )
    return [(Vote.from_json(vote), updated_ms) for vote, updated_ms in rows]


def agreement_age(connection: Connection, now_ms: int) -> float | None:
    """Seconds since the coordinator was last read, of the live instance for which that is longest ago.

    Returns:
        Seconds, `None` while no live instance has said.
    """
    seen = [
        row.gauges["agreement_ms"]
        for row in instances(connection)
        if row.alive(now_ms) and row.gauges.get("agreement_ms") is not None
    ]
    return max(0.0, (now_ms - min(seen)) / 1000) if seen else None
