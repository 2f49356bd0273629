"""One read of the store for one page: everything inside comes from the same snapshot of the database.

Nothing here knows Streamlit; `dashboard.shared` caches these values between viewers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dashboard.happenings import Happening, happenings
from dashboard.times import DAY_MS, MINUTE_MS
from engine import queries
from engine.config import Config
from engine.core.agreement import Document, DocumentError
from engine.core.events import BreakerRecord
from engine.fleet.view import FleetState
from engine.overview import fleet
from engine.percentiles import quantile
from engine.queries import AttemptPoint, CanaryResult, EndsPoint, EventKind, InstanceRow, TrafficPoint
from engine.queries import control_room as ask
from engine.sqlite import Connection

ROLES = ("primary", "secondary")
WINDOW_MS = 5 * MINUTE_MS
SPARK_MINUTES = 60
PROBES_WITHIN_MS = 10 * MINUTE_MS
EVENTS_MOST = 2000
BIN_MINUTES = 5
LONG_MS = 7 * DAY_MS
"""A stretch as long as that has bins of an hour: the denser the traffic, the longer a week of minutes takes."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of one model over the window, milliseconds; `None` without answers."""

    p95: float | None = None
    ttft_p95: float | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """What changes from second to second, for one manager.

    Attributes:
        now_ms: Wall time of the read.
        manager: Whose.
        names: The provider's names of its models, by role.
        document: The agreement, `None` before the first start.
        fleet: Who agrees, with votes and evidence, and what the quorum sees.
        instances: Processes, the lost ones too.
        traffic: Requests by minute over the last hour.
        tries: Attempts by minute over the last hour.
        latency: Percentiles of the last minutes by role.
        latency_before: The same an hour ago.
        tries_before: Attempts in the window an hour ago.
        breakers: The newest transition of each role.
        probes: Tries of the model that is not serving, newest first, by role.
        last_move: The newest move of the active model.
        alerts: States of alerts that are pending or firing.
        canaries: What each canary found last, by role and name.
        last_request_ms: When the last request finished.
        last_evaluation_ms: When alert rules were evaluated last.
    """

    now_ms: int
    manager: str
    names: Mapping[str, str] = field(default_factory=dict)
    document: Document | None = None
    fleet: FleetState | None = None
    instances: Sequence[InstanceRow] = ()
    traffic: Sequence[TrafficPoint] = ()
    tries: Sequence[AttemptPoint] = ()
    latency: Mapping[str, Latency] = field(default_factory=dict)
    latency_before: Mapping[str, Latency] = field(default_factory=dict)
    tries_before: Sequence[AttemptPoint] = ()
    breakers: Mapping[str, Happening] = field(default_factory=dict)
    probes: Mapping[str, Sequence[ask.Probe]] = field(default_factory=dict)
    last_move: Happening | None = None
    alerts: Sequence[ask.AlertRow] = ()
    canaries: Sequence[CanaryResult] = ()
    last_request_ms: int | None = None
    last_evaluation_ms: int | None = None

    @property
    def alive(self) -> list[InstanceRow]:
        """The processes that have reported within their lease."""
        return [instance for instance in self.instances if instance.alive(self.now_ms)]

    @property
    def reports(self) -> list[tuple[InstanceRow, Mapping[str, Any]]]:
        """Each living process with what it says of this manager; empty when it says nothing."""
        return [(instance, instance.gauges.get("managers", {}).get(self.manager, {})) for instance in self.alive]

    @property
    def recent_traffic(self) -> list[TrafficPoint]:
        """Requests of the window."""
        return [row for row in self.traffic if row.start_ms >= self.now_ms - WINDOW_MS]

    def recent_tries(self, role: str) -> list[AttemptPoint]:
        """Attempts at a model in the window."""
        return [row for row in self.tries if row.role == role and row.start_ms >= self.now_ms - WINDOW_MS]

    def model(self, role: str) -> str:
        """The provider's name of the model in a role."""
        return self.names.get(role, role)


@dataclass(frozen=True, slots=True)
class Past:
    """A stretch of time of one manager up to now, in bins, with its events newest first.

    `ended` says how requests ended, whichever model answered; `failures` are attempts that did not go well.
    """

    from_ms: int
    to_ms: int
    bin_minutes: int
    manager: str
    ended: Sequence[EndsPoint] = ()
    failures: Sequence[AttemptPoint] = ()
    moves: Sequence[Happening] = ()
    active_before: str = "primary"
    breakers: Sequence[Happening] = ()


def read_live(connection: Connection, config: Config, manager: str, now_ms: int) -> Live:
    """Everything the first page shows that is younger than an hour."""
    policy, document = config.manager_policy(manager), _agreement(connection, manager)
    names = {"primary": policy.primary.name, "secondary": policy.secondary.name}
    window, hour_ago = now_ms - WINDOW_MS, now_ms - 60 * MINUTE_MS
    breakers = {
        record.role: _breaker(record)
        for role in ROLES
        for record in queries.breaker_transitions(connection, manager, role=role, limit=1)
    }
    active = str(document.active) if document else "primary"
    troubled = [
        role
        for role in ROLES
        if role != active and (role == "primary" or (role in breakers and breakers[role].after != "closed"))
    ]
    moves = queries.timeline(
        connection, start_ms=0, end_ms=now_ms + 1, manager=manager, kinds=[EventKind.FAILOVER], limit=1
    )
    return Live(
        now_ms=now_ms,
        manager=manager,
        names=names,
        document=document,
        fleet=fleet(config, connection, manager, now_ms),
        instances=queries.instances(connection),
        traffic=queries.traffic_series(connection, manager, now_ms - SPARK_MINUTES * MINUTE_MS, now_ms),
        tries=queries.attempt_series(connection, manager, now_ms - SPARK_MINUTES * MINUTE_MS, now_ms),
        latency=_latency(connection, manager, window, now_ms),
        latency_before=_latency(connection, manager, hour_ago - WINDOW_MS, hour_ago),
        tries_before=queries.attempt_series(connection, manager, hour_ago - WINDOW_MS, hour_ago),
        breakers=breakers,
        probes={role: ask.probes(connection, manager, role, now_ms - PROBES_WITHIN_MS) for role in troubled},
        last_move=next(iter(happenings(moves.events)), None),
        alerts=ask.alert_rows(connection, manager=manager, states=("pending", "firing")),
        canaries=queries.latest_canaries(connection, manager, since_ms=now_ms - DAY_MS),
        last_request_ms=queries.last_request_ms(connection, manager),
        last_evaluation_ms=ask.last_mark(connection),
    )


def read_past(
    connection: Connection,
    manager: str,
    now_ms: int,
    span_ms: int = DAY_MS,
    *,
    sums_only: bool = False,
) -> Past:
    """A stretch of time up to now, for ribbons and sums.

    Args:
        connection: Of `Store.reader()`.
        manager: Whose.
        now_ms: Wall time.
        span_ms: How far back.
        sums_only: Leave out what only ribbons show: failures and breakers.
    """
    step = 60 if span_ms >= LONG_MS else BIN_MINUTES
    size = step * MINUTE_MS
    start = (now_ms - span_ms) // size * size
    before = queries.recent_moves(connection, manager, limit=1, until_ms=start)

    def events(kind: EventKind) -> tuple[Happening, ...]:
        page = queries.timeline(
            connection, start_ms=start, end_ms=now_ms + 1, manager=manager, kinds=[kind], limit=EVENTS_MOST
        )
        return happenings(page.events)

    return Past(
        from_ms=start,
        to_ms=now_ms,
        bin_minutes=step,
        manager=manager,
        ended=queries.ends_series(connection, manager, start, now_ms, step_minutes=step),
        failures=()
        if sums_only
        else queries.attempt_series(connection, manager, start, now_ms, step_minutes=step, failed=True),
        moves=events(EventKind.FAILOVER),
        active_before=before[0].to_role if before else "primary",
        breakers=() if sums_only else events(EventKind.BREAKER),
    )


def _agreement(connection: Connection, manager: str) -> Document | None:
    try:
        found = queries.agreement(connection, manager)
    except DocumentError:  # of a newer version: the page says what it can, the instances complain themselves
        return None
    return found.document if found else None


def _breaker(record: BreakerRecord) -> Happening:
    return Happening(
        record.ts_ms,
        EventKind.BREAKER,
        record.id,
        record.manager,
        record.to_state,
        record.role,
        record.from_state,
        record.to_state,
        None,
        record.instance,
        record.reason,
        record.evidence,
    )


def _latency(connection: Connection, manager: str, start_ms: int, end_ms: int) -> dict[str, Latency]:
    duration = ask.latency_by_role(connection, manager, "duration", start_ms, end_ms)
    first = ask.latency_by_role(connection, manager, "ttft", start_ms, end_ms)
    return {
        role: Latency(
            quantile(duration.get(role, {}), 0.95),
            quantile(first.get(role, {}), 0.95),
        )
        for role in ROLES
    }
