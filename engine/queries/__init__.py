"""Every question about the store, by name and with a typed answer; all read-only and on a caller's snapshot.

    with store.reader() as connection:
        page = queries.timeline(connection, start_ms=…, end_ms=…)

Several questions on one connection are answered from one snapshot. No other module of the engine reads the store by
SQL of its own, except `engine.fleet.store`, whose tables are its own.
"""

from __future__ import annotations

from engine.queries.canaries import CanaryResult, canaries_after, canary_results, latest_canaries
from engine.queries.events import (
    Event,
    EventKind,
    Segment,
    TimelinePage,
    breaker_transitions,
    overrides,
    recent_moves,
    ribbon,
    timeline,
)
from engine.queries.fleet import Agreement, InstanceRow, agreement, agreement_age, agreement_log, instances, votes
from engine.queries.requests import (
    RequestDetail,
    RequestFilter,
    RequestPage,
    RequestRow,
    last_request_ms,
    request,
    requests,
)
from engine.queries.series import (
    AttemptPoint,
    EndsPoint,
    LatencyPoint,
    TrafficPoint,
    attempt_series,
    ends_series,
    latency_series,
    traffic_series,
)
from engine.queries.totals import (
    AlertState,
    LatencyTotal,
    Total,
    active_alerts,
    calibrations,
    created_ms,
    latency_totals,
    mark,
    outbox_pending,
    totals,
)
from engine.queries.windows import Window, WindowFacts, facts, managers

__all__ = [
    "Agreement",
    "AlertState",
    "AttemptPoint",
    "CanaryResult",
    "EndsPoint",
    "Event",
    "EventKind",
    "InstanceRow",
    "LatencyPoint",
    "LatencyTotal",
    "RequestDetail",
    "RequestFilter",
    "RequestPage",
    "RequestRow",
    "Segment",
    "TimelinePage",
    "Total",
    "TrafficPoint",
    "Window",
    "WindowFacts",
    "active_alerts",
    "agreement",
    "agreement_age",
    "agreement_log",
    "attempt_series",
    "breaker_transitions",
    "calibrations",
    "canaries_after",
    "canary_results",
    "created_ms",
    "ends_series",
    "facts",
    "instances",
    "last_request_ms",
    "latency_series",
    "latency_totals",
    "latest_canaries",
    "managers",
    "mark",
    "outbox_pending",
    "overrides",
    "recent_moves",
    "request",
    "requests",
    "ribbon",
    "timeline",
    "totals",
    "traffic_series",
    "votes",
]
