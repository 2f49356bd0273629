"""Prometheus' view of the store: one scrape of any worker answers for all of them.

Counters and histograms come from the store's totals, gauges of the agreement from the store's copy of it, and gauges
of processes from the instances' last report, of the one that serves the scrape as they are now; so a restart resets
nothing and the cost depends on the number of label sets, never on the history. What is known beforehand is there from
the first scrape, as zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from engine import queries
from engine.config import Config
from engine.core.agreement import Document
from engine.core.messages import Role
from engine.core.policy import ManagerPolicy
from engine.ledger import TOTALS, UNTRIED
from engine.percentiles import BOUNDARIES_S, COMMIT_BOUNDARIES_S, cumulative
from engine.queries.totals import LatencyTotal
from engine.queries.windows import COUNTED
from engine.schema import BREAKER_STATES, CATEGORIES, CAUSES
from engine.sqlite import Connection
from engine.store import Store
from engine.version import VERSION

Gauges = Mapping[str, Any]
"""What `engine.fleet.gauges.gauges_of` gives."""

EVALUATION_MARK = "evaluation"
TRIED_STATUS = ("200", "400", "429", "499", "500", "502", "503", "504")
UNTRIED_STATUS = ("400", "429", "499", "500", "502", "503", "504")
DIRECTIONS = ((Role.PRIMARY, Role.SECONDARY), (Role.SECONDARY, Role.PRIMARY))
NOTIFICATION_OUTCOMES = ("delivered", "failed", "dead")

_COUNTERS: Mapping[str, tuple[str, str]] = {
    "requests": ("dualmodelmanager_requests", "Requests of callers, by who answered and with which status."),
    "attempts": ("dualmodelmanager_attempts", "Tries on a model, by how they ended."),
    "failover_events": ("dualmodelmanager_failover_events", "Moves of the active model."),
    "request_failovers": ("dualmodelmanager_request_failovers", "Single requests answered by the other model."),
    "breaker_transitions": ("dualmodelmanager_breaker_transitions", "State changes of breakers on all instances."),
    "shed": ("dualmodelmanager_shed", "Requests refused because of a limit, by the model that was limited."),
    "tokens": ("dualmodelmanager_tokens", "Tokens read and written, by the model that used them."),
    "cost_usd": ("dualmodelmanager_cost_usd", "Cost in US dollars, by the model that caused it."),
    "canary_results": ("dualmodelmanager_canary_results", "Answers held to a canary, by its verdict."),
    "notifications": ("dualmodelmanager_notifications", "Deliveries of notifications, by their outcome."),
}


class Exposition:
    """Renders the store's metrics.

    Args:
        store: Where they are read.
        config: Which managers, models and receivers are known beforehand.
        wall_ms: The wall clock, milliseconds UTC.
        own: Name and gauges of this process as of now: what it could not report, because the store takes nothing or
            the clock moved, is what somebody wants to know then.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        own: Callable[[], Mapping[str, Gauges]] = dict,
    ) -> None:
        policies = [config.manager_policy(name) for name in config.managers]
        receivers = [receiver.name for receiver in config.alerts.receivers]
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(StoreCollector(store, policies, receivers, wall_ms, own))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics in the format an Accept header asks for.

        Args:
            accept: The header's value; Prometheus' text format where it asks for nothing else.

        Returns:
            The body and its content type.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


class StoreCollector(Collector):
    """Collects every family from one snapshot of the store.

    Args:
        store: Where they are read.
        policies: The configured managers.
        receivers: The configured receivers.
        wall_ms: The wall clock, milliseconds UTC.
        own: Name and gauges of this process as of now, if it has any.
    """

    def __init__(
        self,
        store: Store,
        policies: Sequence[ManagerPolicy],
        receivers: Sequence[str],
        wall_ms: Callable[[], int],
        own: Callable[[], Mapping[str, Gauges]],
    ) -> None:
        self._own = own
        self._store = store
        self._policies = policies
        self._receivers = receivers
        self._wall_ms = wall_ms

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering reads nothing."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        now_ms = self._wall_ms()
        with self._store.reader() as connection:
            reported = {row.instance: row.gauges for row in queries.instances(connection) if row.alive(now_ms)}
            live = {**reported, **self._own()}
            families = [
                *self._agreement(connection, now_ms),
                *self._counters(connection),
                *self._latency(connection),
                *self._processes(live),
                *self._alerting(connection),
            ]
        yield from families
        build = GaugeMetricFamily("dualmodelmanager_build_info", "The running version.", labels=["version"])
        build.add_metric([VERSION], 1)
        yield build

    def _agreement(self, connection: Connection, now_ms: int) -> Iterator[Metric]:
        """Which model is active, since when, by whose order."""
        active = GaugeMetricFamily(
            "dualmodelmanager_active_model",
            "1 for the model that is active, 0 for the other.",
            labels=["manager", "role", "model"],
        )
        since = GaugeMetricFamily(
            "dualmodelmanager_active_model_since_timestamp_seconds",
            "When the active model last changed.",
            labels=["manager"],
        )
        ratio = GaugeMetricFamily(
            "dualmodelmanager_primary_traffic_ratio", "Share of traffic meant for primary.", labels=["manager"]
        )
        pinned = GaugeMetricFamily(
            "dualmodelmanager_override_active", "1 while an operator pins this model.", labels=["manager", "role"]
        )
        created_ms = queries.created_ms(connection)
        for policy in self._policies:
            agreed = queries.agreement(connection, policy.name)
            document = agreed.document if agreed is not None else Document()
            override = document.override
            for role in Role:
                active.add_metric([policy.name, role, policy.model(role).name], float(document.active is role))
                pins = override is not None and override.role is role and override.expires_ms > now_ms
                pinned.add_metric([policy.name, role], float(pins))
            since.add_metric([policy.name], (document.since_ms or created_ms) / 1000)
            ratio.add_metric([policy.name], document.share)
        yield from (active, since, ratio, pinned)

    def _counters(self, connection: Connection) -> Iterator[Metric]:
        """Counters: what is known as zero, and what has been counted, also of managers no longer configured."""
        values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in _COUNTERS}
        for name, labels in self._known():
            values[name][labels] = 0.0
        for total in queries.totals(connection):
            if total.name in values:
                values[total.name][tuple(total.labels[key] for key in TOTALS[total.name])] = total.value
        for name, (family_name, text) in _COUNTERS.items():
            family = CounterMetricFamily(family_name, text, labels=TOTALS[name])
            for labels, value in sorted(values[name].items()):
                family.add_metric(labels, value)
            yield family

    def _known(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Label sets of counters that exist before anything happened."""
        for policy in self._policies:
            yield from _known_of(policy)
        for receiver, outcome in product(self._receivers, NOTIFICATION_OUTCOMES):
            yield "notifications", (receiver, outcome)

    def _latency(self, connection: Connection) -> Iterator[Metric]:
        found = queries.latency_totals(connection)
        for metric, name, text in (
            ("duration", "dualmodelmanager_request_duration_seconds", "From request to answer or error."),
            ("ttft", "dualmodelmanager_time_to_first_token_seconds", "From request to first token, of streams."),
        ):
            family = HistogramMetricFamily(name, text, labels=["manager", "role", "model"])
            known = [(policy.name, str(role), policy.model(role).name) for policy in self._policies for role in Role]
            sums: dict[tuple[str, ...], _Histogram] = {labels: _Histogram() for labels in known}
            for total in found:
                if total.metric == metric and total.outcome in COUNTED:
                    sums.setdefault((total.manager, total.role, total.model), _Histogram()).add(total)
            for labels, histogram in sorted(sums.items()):
                family.add_metric(labels, histogram.buckets(BOUNDARIES_S), histogram.sum_ms / 1000)
            yield family
        commits = _Histogram()
        for total in found:
            if total.metric == "commit":
                commits.add(total)
        yield HistogramMetricFamily(
            "dualmodelmanager_recorder_commit_seconds",
            "Time of the recorder's commits.",
            buckets=commits.buckets(COMMIT_BOUNDARIES_S),
            sum_value=commits.sum_ms / 1000,
        )

    def _processes(self, live: Mapping[str, Gauges]) -> Iterator[Metric]:
        """Gauges that belong to one process, by its name."""
        state = GaugeMetricFamily(
            "dualmodelmanager_breaker_state",
            "1 for the state a breaker is in, 0 for the others.",
            labels=["manager", "role", "state", "worker"],
        )
        flying = GaugeMetricFamily(
            "dualmodelmanager_requests_in_flight", "Requests being served now.", labels=["manager", "worker"]
        )
        queue = GaugeMetricFamily(
            "dualmodelmanager_recorder_queue_length", "Records waiting to be committed.", labels=["worker"]
        )
        for worker, report in live.items():
            queue.add_metric([worker], float(report.get("queue_length", 0)))
            for name, gauges in sorted(report.get("managers", {}).items()):
                flying.add_metric([name, worker], float(gauges.get("in_flight", 0)))
                for role, line in sorted(gauges.get("lines", {}).items()):
                    for word in BREAKER_STATES:
                        state.add_metric([name, role, word, worker], float(line.get("state") == word))
        up = bool(live) and all(report.get("coordinator_up", True) for report in live.values())
        yield from (state, flying, queue)
        yield GaugeMetricFamily(
            "dualmodelmanager_coordinator_up", "1 while every process reaches the coordinator.", value=float(up)
        )

    def _alerting(self, connection: Connection) -> Iterator[Metric]:
        """Alerts, what waits for delivery, and when rules were last evaluated."""
        alerts = GaugeMetricFamily(
            "dualmodelmanager_alerts",
            "1 while an alert is pending or firing.",
            labels=["manager", "alertname", "severity", "state"],
        )
        active = {(row.manager, row.rule, row.severity, row.state) for row in queries.active_alerts(connection)}
        for labels in sorted(active):
            alerts.add_metric(labels, 1)
        pending = GaugeMetricFamily(
            "dualmodelmanager_outbox_pending", "Notifications waiting for delivery.", labels=["receiver"]
        )
        waiting = {**dict.fromkeys(self._receivers, 0), **queries.outbox_pending(connection)}
        for receiver, n in sorted(waiting.items()):
            pending.add_metric([receiver], float(n))
        yield from (alerts, pending)
        evaluated = queries.mark(connection, EVALUATION_MARK)
        yield GaugeMetricFamily(
            "dualmodelmanager_last_evaluation_timestamp_seconds",
            "When the alert rules were last evaluated; 0 before the first time.",
            value=(evaluated or 0) / 1000,
        )


class _Histogram:
    """Counts of one label set, merged over outcomes."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.sum_ms = 0.0

    def add(self, total: LatencyTotal) -> None:
        self.sum_ms += total.sum_ms
        for bucket, n in total.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + n

    def buckets(self, boundaries_s: Sequence[float]) -> list[tuple[str, float]]:
        edges = cumulative(self.counts, boundaries_s)
        return [("+Inf" if math.isinf(edge) else str(edge), float(n)) for edge, n in edges]


def _known_of(policy: ManagerPolicy) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Label sets of one manager's counters that exist before anything happened."""
    name = policy.name
    for role in Role:
        model = policy.model(role).name
        for status in TRIED_STATUS:
            yield "requests", (name, role, model, status)
        for category in CATEGORIES:
            yield "attempts", (name, role, model, category)
        for before, after in product(BREAKER_STATES, BREAKER_STATES):
            if before != after:
                yield "breaker_transitions", (name, role, before, after)
        for direction in ("input", "output"):
            yield "tokens", (name, model, direction)
        yield "cost_usd", (name, model)
        for result in ("passed", "failed"):
            yield "canary_results", (name, role, model, result)
        yield "shed", (name, role)
    for status in UNTRIED_STATUS:
        yield "requests", (name, UNTRIED, UNTRIED, status)
    for (before, after), cause in product(DIRECTIONS, CAUSES):
        yield "failover_events", (name, before, after, cause)
        yield "request_failovers", (name, before, after, cause)
