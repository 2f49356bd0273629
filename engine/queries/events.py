"""What happened, in order: moves, breaker transitions, operators' acts, alerts and deliveries, merged and paged.

Pages go backwards in time from a cursor; every table is read by its own index for one page at most.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

import orjson

from engine.core.events import BreakerRecord, FailoverRecord, OverrideRecord, Scope
from engine.core.messages import Role
from engine.sqlite import Connection

LATEST = (1 << 62, "\U0010ffff")


class EventKind(StrEnum):
    """The kinds of events in the timeline."""

    FAILOVER = "failover"
    REQUEST_FAILOVER = "request_failover"
    BREAKER = "breaker"
    OVERRIDE = "override"
    AGREEMENT = "agreement"
    ALERT = "alert"
    DELIVERY = "delivery"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the timeline; `detail` holds the columns of its table."""

    kind: EventKind
    id: str
    ts_ms: int
    manager: str
    detail: Mapping[str, Any]

    @property
    def cursor(self) -> tuple[int, str]:
        """Where to go on after this event."""
        return self.ts_ms, self.id


@dataclass(frozen=True, slots=True)
class TimelinePage:
    """Events, newest first, and the cursor of the next page (`None` at the end)."""

    events: Sequence[Event]
    next: tuple[int, str] | None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the state ribbon, `[start_ms, end_ms)`."""

    start_ms: int
    end_ms: int
    role: Role
    cause: str
    epoch: int


_SOURCES: Mapping[EventKind, str] = {
    EventKind.FAILOVER: """
        SELECT id, ts_ms, manager, json_object('instance', instance, 'from_role', from_role, 'to_role', to_role,
            'cause', cause, 'request_id', request_id, 'epoch', epoch, 'evidence', json(evidence))
        FROM failovers WHERE scope = 'active'""",
    EventKind.REQUEST_FAILOVER: """
        SELECT id, ts_ms, manager, json_object('instance', instance, 'from_role', from_role, 'to_role', to_role,
            'cause', cause, 'request_id', request_id, 'epoch', epoch, 'evidence', json(evidence))
        FROM failovers WHERE scope = 'request'""",
    EventKind.BREAKER: """
        SELECT id, ts_ms, manager, json_object('instance', instance, 'role', role, 'model', model,
            'from_state', from_state, 'to_state', to_state, 'reason', reason, 'evidence', json(evidence))
        FROM breaker_transitions WHERE true""",
    EventKind.OVERRIDE: """
        SELECT id, ts_ms, manager, json_object('action', action, 'role', role, 'strict', strict, 'reason', reason,
            'actor', actor, 'expires_ms', expires_ms, 'epoch', epoch)
        FROM overrides WHERE true""",
    EventKind.AGREEMENT: """
        SELECT id, ts_ms, manager, detail FROM (
            SELECT manager || ':' || epoch AS id, ts_ms, manager, json_object('instance', instance, 'epoch', epoch,
                'active', active, 'share', share, 'stage', stage, 'cause', cause,
                'ramp_aborted', ramp_aborted) AS detail
            FROM agreements) WHERE true""",
    EventKind.ALERT: """
        SELECT id, ts_ms, coalesce(manager, '') AS manager, json_object('rule', rule, 'fingerprint', fingerprint,
            'labels', json(labels), 'from_state', from_state, 'to_state', to_state, 'value', value,
            'annotations', json(annotations))
        FROM alert_transitions WHERE true""",
    EventKind.DELIVERY: """
        SELECT id, ts_ms, manager, detail FROM (
            SELECT d.outbox_id || ':' || d.n AS id, d.ts_ms AS ts_ms, '' AS manager, json_object(
                'outbox_id', d.outbox_id, 'n', d.n, 'receiver', o.receiver, 'state', o.state, 'group', o.ordering_key,
                'status_code', d.status_code, 'error', d.error, 'duration_ms', d.duration_ms) AS detail
            FROM deliveries AS d LEFT JOIN outbox AS o ON o.id = d.outbox_id) WHERE true""",
}


def timeline(
    connection: Connection,
    *,
    start_ms: int,
    end_ms: int,
    manager: str | None = None,
    kinds: Iterable[str] | None = None,
    before: tuple[int, str] | None = None,
    limit: int = 100,
) -> TimelinePage:
    """One page of what happened in `(start_ms, end_ms]`, newest first.

    Args:
        connection: Of `Store.reader()`.
        start_ms: Milliseconds UTC.
        end_ms: Milliseconds UTC.
        manager: Only of this manager; deliveries belong to none and are always included.
        kinds: Only these kinds, by default all but moves of single requests, which can be many.
        before: The cursor of the page before.
        limit: Events a page.
    """
    wanted = [EventKind(kind) for kind in kinds] if kinds is not None else _default_kinds()
    cursor = min(before or LATEST, (end_ms, LATEST[1]))
    where = {"manager": manager, "start": start_ms, "ts": cursor[0], "id": cursor[1], "limit": limit + 1}
    found = (_events(connection, kind, where) for kind in wanted)
    merged = list(islice(heapq.merge(*found, key=lambda event: event.cursor, reverse=True), limit + 1))
    page = merged[:limit]
    return TimelinePage(page, page[-1].cursor if len(merged) > limit else None)


def _default_kinds() -> list[EventKind]:
    return [kind for kind in EventKind if kind is not EventKind.REQUEST_FAILOVER]


def _events(connection: Connection, kind: EventKind, where: Mapping[str, Any]) -> list[Event]:
    narrowed = "" if where["manager"] is None or kind is EventKind.DELIVERY else " AND manager = :manager"
    rows = connection.execute(
        f"""{_SOURCES[kind]}{narrowed} AND ts_ms > :start AND (ts_ms, id) < (:ts, :id)
        ORDER BY ts_ms DESC, id DESC LIMIT :limit""",
        where,
    )
    return [Event(kind, identifier, ts_ms, owner, orjson.loads(detail)) for identifier, ts_ms, owner, detail in rows]


def recent_moves(
    connection: Connection, manager: str, *, limit: int = 20, until_ms: int = LATEST[0]
) -> list[FailoverRecord]:
    """The last moves of the active model, newest first."""
    rows = connection.execute(
        """
        SELECT id, ts_ms, manager, instance, scope, from_role, to_role, cause, request_id, epoch, evidence
        FROM failovers WHERE manager = ? AND scope = 'active' AND ts_ms <= ? ORDER BY ts_ms DESC, seq DESC LIMIT ?
        """,
        (manager, until_ms, limit),
    )
    return [failover_of(row) for row in rows]


def failover_of(row: Sequence[Any]) -> FailoverRecord:
    """A record from the columns of `failovers` in the record's order."""
    values = list(row)
    values[4] = Scope(values[4])
    values[10] = json.loads(values[10])
    return FailoverRecord(*values)


def breaker_transitions(
    connection: Connection, manager: str, *, role: str | None = None, limit: int = 50, until_ms: int = LATEST[0]
) -> list[BreakerRecord]:
    """The last breaker transitions on all instances, newest first."""
    rows = connection.execute(
        """
        SELECT id, ts_ms, manager, instance, role, model, from_state, to_state, reason, evidence
        FROM breaker_transitions
        WHERE manager = ? AND ts_ms <= ? AND (? IS NULL OR role = ?) ORDER BY ts_ms DESC, seq DESC LIMIT ?
        """,
        (manager, until_ms, role, role, limit),
    )
    return [BreakerRecord(*[*row[:-1], json.loads(row[-1])]) for row in rows]


def overrides(
    connection: Connection, manager: str | None = None, *, before: str | None = None, limit: int = 100
) -> list[OverrideRecord]:
    """The audit of operators' acts, newest first.

    Args:
        connection: Of `Store.reader()`.
        manager: Only of this manager.
        before: Id of an act: only those that were recorded before it.
        limit: Most acts.
    """
    rows = connection.execute(
        """
        SELECT id, ts_ms, manager, action, role, strict, reason, actor, expires_ms, epoch FROM overrides
        WHERE (? IS NULL OR manager = ?) AND (? IS NULL OR seq < (SELECT seq FROM overrides WHERE id = ?))
        ORDER BY seq DESC LIMIT ?
        """,
        (manager, manager, before, before, limit),
    )
    return [OverrideRecord(*[*row[:5], bool(row[5]), *row[6:]]) for row in rows]


def ribbon(connection: Connection, manager: str, start_ms: int, end_ms: int) -> list[Segment]:
    """Which model was active when, from the recorded moves.

    Returns:
        Segments without gaps from `start_ms` to `end_ms`, oldest first.
    """
    before = recent_moves(connection, manager, limit=1, until_ms=start_ms)
    rows = connection.execute(
        """
        SELECT ts_ms, to_role, cause, epoch FROM failovers
        WHERE manager = ? AND scope = 'active' AND ts_ms > ? AND ts_ms < ? ORDER BY ts_ms, seq
        """,
        (manager, start_ms, end_ms),
    ).fetchall()
    at, role, cause, epoch = start_ms, Role.PRIMARY, "start", 0
    if before:
        role, cause, epoch = Role(before[0].to_role), before[0].cause, before[0].epoch
    segments: list[Segment] = []
    for ts_ms, to_role, next_cause, next_epoch in rows:
        if ts_ms > at:
            segments.append(Segment(at, ts_ms, role, cause, epoch))
        at, role, cause, epoch = ts_ms, Role(to_role), next_cause, next_epoch
    if end_ms > at:
        segments.append(Segment(at, end_ms, role, cause, epoch))
    return segments
