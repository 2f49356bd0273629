"""Figures over time from rollups, for charts and sparklines: one row a step and kind.

Steps of whole hours are read from the sums by the hour, so a month costs no more than half a day in minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.ledger import MINUTE_MS
from engine.percentiles import quantile
from engine.queries.hours import HOUR, Pieces, pieces
from engine.queries.windows import COUNTED
from engine.sqlite import Connection


@dataclass(frozen=True, slots=True)
class TrafficPoint:
    """Callers' requests of one step, model and outcome; `start_ms` is where the step begins."""

    start_ms: int
    role: str
    model: str
    outcome: str
    n: int
    errors: int
    duration_ms: float
    tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class EndsPoint:
    """How callers' requests of one step ended: with an answer, with an error of status 500 or more, refused."""

    start_ms: int
    answered: int
    failed: int
    shed: int


@dataclass(frozen=True, slots=True)
class AttemptPoint:
    """Attempts of one step, model and category."""

    start_ms: int
    role: str
    model: str
    category: str
    n: int


@dataclass(frozen=True, slots=True)
class LatencyPoint:
    """Latency percentiles of one step, seconds."""

    start_ms: int
    n: int
    p50: float
    p95: float
    p99: float


def traffic_series(
    connection: Connection, manager: str, start_ms: int, end_ms: int, *, step_minutes: int = 1
) -> list[TrafficPoint]:
    """Callers' requests by step; steps without requests are left out.

    Args:
        connection: Of `Store.reader()`.
        manager: Whose.
        start_ms: Milliseconds UTC; rounded down to a whole step.
        end_ms: Milliseconds UTC; the minute it lies in is included.
        step_minutes: Length of a step.
    """
    rows = connection.execute(
        """
        SELECT at, role, model, outcome, sum(n), sum(errors), sum(duration_ms), sum(tokens), sum(cost_usd) FROM (
            SELECT hour * 60 / :step * :step AS at, role, model, outcome, n,
                CASE WHEN outcome = 'error' AND status_code >= 500 THEN n ELSE 0 END AS errors,
                duration_ms, input_tokens + output_tokens AS tokens, cost_usd
            FROM json_each(:hours) AS run CROSS JOIN rollup_hour
            WHERE manager = :manager AND hour >= run.value ->> 0 AND hour < run.value ->> 1 AND synthetic = 0
            UNION ALL
            SELECT minute / :step * :step, role, model, outcome, n,
                CASE WHEN outcome = 'error' AND status_code >= 500 THEN n ELSE 0 END,
                duration_ms, input_tokens + output_tokens, cost_usd
            FROM json_each(:minutes) AS run CROSS JOIN rollup_minute
            WHERE manager = :manager AND minute >= run.value ->> 0 AND minute < run.value ->> 1 AND synthetic = 0
        )
        GROUP BY at, role, model, outcome ORDER BY at, role, model, outcome
        """,
        _steps(connection, manager, start_ms, end_ms, step_minutes),
    )
    return [TrafficPoint(at * MINUTE_MS, *row) for at, *row in rows]


def ends_series(
    connection: Connection, manager: str, start_ms: int, end_ms: int, *, step_minutes: int = 1
) -> list[EndsPoint]:
    """How callers' requests ended by step; arguments as of `traffic_series`, and several times as fast."""
    rows = connection.execute(
        """
        SELECT at, sum(iif(outcome = 'ok', n, 0)), sum(iif(outcome = 'error' AND status_code >= 500, n, 0)),
            sum(iif(outcome = 'shed', n, 0)) FROM (
            SELECT hour * 60 / :step * :step AS at, outcome, status_code, n
            FROM json_each(:hours) AS run CROSS JOIN rollup_hour
            WHERE manager = :manager AND hour >= run.value ->> 0 AND hour < run.value ->> 1 AND synthetic = 0
            UNION ALL
            SELECT minute / :step * :step, outcome, status_code, n
            FROM json_each(:minutes) AS run CROSS JOIN rollup_minute
            WHERE manager = :manager AND minute >= run.value ->> 0 AND minute < run.value ->> 1 AND synthetic = 0
        )
        GROUP BY at ORDER BY at
        """,
        _steps(connection, manager, start_ms, end_ms, step_minutes),
    )
    return [EndsPoint(at * MINUTE_MS, *ends) for at, *ends in rows]


def attempt_series(
    connection: Connection, manager: str, start_ms: int, end_ms: int, *, step_minutes: int = 1, failed: bool = False
) -> list[AttemptPoint]:
    """Attempts by step, those of probes and canaries included; arguments as of `traffic_series`.

    `failed` leaves out those that went well or were cancelled, which are most of the rows.
    """
    rows = connection.execute(
        """
        SELECT at, role, model, category, sum(n) FROM (
            SELECT hour * 60 / :step * :step AS at, role, model, category, n
            FROM json_each(:hours) AS run CROSS JOIN attempt_hour
            WHERE manager = :manager AND hour >= run.value ->> 0 AND hour < run.value ->> 1
                AND (NOT :failed OR category NOT IN ('ok', 'cancelled'))
            UNION ALL
            SELECT minute / :step * :step, role, model, category, n
            FROM json_each(:minutes) AS run CROSS JOIN attempt_minute
            WHERE manager = :manager AND minute >= run.value ->> 0 AND minute < run.value ->> 1
                AND (NOT :failed OR category NOT IN ('ok', 'cancelled'))
        )
        GROUP BY at, role, model, category ORDER BY at, role, model, category
        """,
        {**_steps(connection, manager, start_ms, end_ms, step_minutes), "failed": failed},
    )
    return [AttemptPoint(at * MINUTE_MS, *row) for at, *row in rows]


def latency_series(
    connection: Connection,
    manager: str,
    start_ms: int,
    end_ms: int,
    *,
    metric: str = "duration",
    role: str | None = None,
    step_minutes: int = 1,
) -> list[LatencyPoint]:
    """Latency percentiles by step; arguments as of `traffic_series`, `metric` is `duration` or `ttft`."""
    rows = connection.execute(
        """
        SELECT at, bucket, sum(n) FROM (
            SELECT hour * 60 / :step * :step AS at, bucket, n
            FROM json_each(:hours) AS run CROSS JOIN latency_hour
            WHERE manager = :manager AND hour >= run.value ->> 0 AND hour < run.value ->> 1 AND metric = :metric
                AND outcome IN (:ok, :error) AND (:role IS NULL OR role = :role)
            UNION ALL
            SELECT minute / :step * :step, bucket, n
            FROM json_each(:minutes) AS run CROSS JOIN latency_minute
            WHERE manager = :manager AND minute >= run.value ->> 0 AND minute < run.value ->> 1 AND metric = :metric
                AND outcome IN (:ok, :error) AND (:role IS NULL OR role = :role)
        )
        GROUP BY at, bucket ORDER BY at
        """,
        {
            **_steps(connection, manager, start_ms, end_ms, step_minutes),
            "metric": metric, "role": role, "ok": COUNTED[0], "error": COUNTED[1],
        },
    )  # fmt: skip
    counts: dict[int, dict[int, int]] = {}
    for at, bucket, n in rows:
        counts.setdefault(at, {})[bucket] = n
    return [_point(at * MINUTE_MS, found) for at, found in counts.items()]


def _point(start_ms: int, counts: dict[int, int]) -> LatencyPoint:
    p50, p95, p99 = ((quantile(counts, q) or 0.0) / 1000 for q in (0.5, 0.95, 0.99))
    return LatencyPoint(start_ms, sum(counts.values()), p50, p95, p99)


def _steps(connection: Connection, manager: str, start_ms: int, end_ms: int, step_minutes: int) -> dict[str, str | int]:
    first = start_ms // MINUTE_MS // step_minutes * step_minutes
    last = end_ms // MINUTE_MS + 1
    whole = step_minutes % HOUR == 0
    cut = pieces(connection, manager, first, last) if whole else Pieces((), ((first, max(first, last)),))
    return {"manager": manager, "step": step_minutes, **cut.bound()}
