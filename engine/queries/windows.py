"""Sums over a window with exact edges: whole hours and minutes from rollups, the rest from raw rows.

A window is left-open and right-closed, `(start, end]`, in milliseconds. Its cost grows with its length in hours and
with the traffic of two hours at most, never with the history behind it. What is read here gives every window
function of the alert rules and every figure of the dashboard; the arithmetic on it is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engine.core.events import RequestOutcome, Scope
from engine.core.messages import Role
from engine.core.outcomes import RULES, Category, Cause, Effect
from engine.ledger import MINUTE_MS, UNTRIED
from engine.percentiles import bucket_of, quantile
from engine.queries.hours import pieces
from engine.sqlite import Connection

COUNTED = (RequestOutcome.OK.value, RequestOutcome.ERROR.value)
"""The outcomes whose latency counts: a cancelled or shed request says nothing about a model's speed."""


@dataclass(frozen=True, slots=True)
class Window:
    """The time `(start_ms, end_ms]`, milliseconds UTC."""

    start_ms: int
    end_ms: int

    @classmethod
    def ending(cls, end_ms: int, seconds: float) -> Window:
        """The last so many seconds before and at a moment."""
        return cls(end_ms - round(seconds * 1000), end_ms)

    def parts(self) -> tuple[tuple[int, int], tuple[tuple[int, int], tuple[int, int]]]:
        """The whole minutes inside, and the two ranges of milliseconds beside them; all `[from, to)`."""
        low, high = self.start_ms + 1, max(self.end_ms, self.start_ms) + 1
        first, last = -(-low // MINUTE_MS), high // MINUTE_MS
        if first >= last:
            return (0, 0), ((low, high), (high, high))
        return (first, last), ((low, first * MINUTE_MS), (last * MINUTE_MS, high))


@dataclass(frozen=True, slots=True)
class TrafficSum:
    """Requests of one kind; `code` and `cause` are empty where there is none."""

    role: str
    model: str
    status_code: int
    outcome: str
    code: str
    cause: str
    synthetic: bool
    n: int
    attempts: int
    duration_ms: float
    overhead_us: int
    input_tokens: int
    output_tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class AttemptSum:
    """Attempts of one kind."""

    role: str
    model: str
    category: str
    synthetic: bool
    n: int
    duration_ms: float
    input_tokens: int
    output_tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class FailoverSum:
    """Moves of one kind, of single requests or of the active model."""

    scope: str
    from_role: str
    to_role: str
    cause: str
    n: int


@dataclass(frozen=True, slots=True)
class BreakerSum:
    """Breaker transitions of one kind."""

    role: str
    from_state: str
    to_state: str
    n: int


@dataclass(frozen=True, slots=True)
class LatencyCount:
    """Observations in one log bucket; `metric` is `duration` or `ttft`."""

    role: str
    model: str
    outcome: str
    metric: str
    bucket: int
    n: int


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """Everything counted for one manager in one window, and the figures that follow from it.

    Counts are 0 and rates and percentiles are `None` where there is no data. A role narrows a figure to that model.
    """

    traffic: Sequence[TrafficSum] = ()
    attempts: Sequence[AttemptSum] = ()
    moves: Sequence[FailoverSum] = ()
    breakers: Sequence[BreakerSum] = ()
    latency: Sequence[LatencyCount] = field(default=(), repr=False)
    ramp_aborts: int = 0

    def requests(self, role: str | None = None) -> int:
        """Callers' requests, whatever their outcome; synthetic ones are not callers'."""
        return sum(row.n for row in self._callers(role))

    def errors(self, role: str | None = None) -> int:
        """Callers' requests with outcome `error` and a status of 500 or more."""
        return sum(row.n for row in self._callers(role) if _is_error(row))

    def error_rate(self, role: str | None = None) -> float | None:
        """Errors among answers and errors; with a role, that model's breaker failures among its judged attempts."""
        if role is None:
            bad = self.errors()
            good = sum(row.n for row in self._callers(None) if row.outcome == RequestOutcome.OK)
        else:
            judged = [row for row in self.attempts if row.role == role and not row.synthetic]
            bad = sum(row.n for row in judged if RULES[Category(row.category)].breaker is Effect.FAILURE)
            good = sum(row.n for row in judged if RULES[Category(row.category)].breaker is Effect.OK)
        return bad / (good + bad) if good + bad else None

    def secondary_share(self) -> float | None:
        """The secondary's share of the answers."""
        answers = [row for row in self._callers(None) if row.outcome == RequestOutcome.OK]
        total = sum(row.n for row in answers)
        return sum(row.n for row in answers if row.role == Role.SECONDARY) / total if total else None

    def failovers(self) -> int:
        """Automatic moves of the active model away from primary."""
        return sum(
            row.n
            for row in self.moves
            if row.scope == Scope.ACTIVE and row.from_role == Role.PRIMARY and row.cause != Cause.OVERRIDE
        )

    def request_failovers(self) -> int:
        """Single requests that went to the other model."""
        return sum(row.n for row in self.moves if row.scope == Scope.REQUEST)

    def shed(self) -> int:
        """Callers' requests that were refused because of a limit or of our own load."""
        return sum(row.n for row in self._callers(None) if row.outcome == RequestOutcome.SHED)

    def attempted(self, category: Category, role: str | None = None) -> int:
        """Attempts that ended in a category, those of probes and canaries included."""
        return sum(row.n for row in self.attempts if row.category == category and role in (None, row.role))

    def breaker_transitions(self, role: str | None = None) -> int:
        """State changes of breakers, on all instances."""
        return sum(row.n for row in self.breakers if role in (None, row.role))

    def percentile(self, q: float, metric: str = "duration", role: str | None = None) -> float | None:
        """A latency percentile of answered and failed requests, seconds.

        Args:
            q: The share, 0..1.
            metric: `duration` or `ttft`.
            role: Only of this model.
        """
        counts: dict[int, int] = {}
        for row in self.latency:
            if row.metric == metric and row.outcome in COUNTED and role in (None, row.role):
                counts[row.bucket] = counts.get(row.bucket, 0) + row.n
        value = quantile(counts, q)
        return None if value is None else value / 1000

    def cost_usd(self) -> float:
        """What all requests cost, USD; synthetic ones are paid too."""
        return sum(row.cost_usd for row in self.traffic)

    def tokens(self) -> int:
        """Tokens read and written, synthetic requests included."""
        return sum(row.input_tokens + row.output_tokens for row in self.traffic)

    def _callers(self, role: str | None) -> Iterator[TrafficSum]:
        return (row for row in self.traffic if not row.synthetic and role in (None, row.role))


def _is_error(row: TrafficSum) -> bool:
    return row.outcome == RequestOutcome.ERROR and row.status_code >= 500


def managers(connection: Connection) -> list[str]:
    """Every manager that has ever recorded a request, by name."""
    rows = connection.execute(
        """
        WITH RECURSIVE known (name) AS (
            SELECT min(manager) FROM rollup_minute
            UNION ALL
            SELECT (SELECT min(manager) FROM rollup_minute WHERE manager > name) FROM known WHERE name IS NOT NULL
        )
        SELECT name FROM known WHERE name IS NOT NULL
        """
    )
    return [row[0] for row in rows]


def facts(connection: Connection, manager: str, window: Window) -> WindowFacts:
    """Everything counted for a manager in a window.

    Args:
        connection: Of `Store.reader()`, so that all parts are of one snapshot.
        manager: Whose.
        window: When.
    """
    return WindowFacts(
        traffic=traffic(connection, manager, window),
        attempts=attempts(connection, manager, window),
        moves=moves(connection, manager, window),
        breakers=breakers(connection, manager, window),
        latency=latency(connection, manager, window),
        ramp_aborts=ramp_aborts(connection, manager, window),
    )


def traffic(connection: Connection, manager: str, window: Window) -> list[TrafficSum]:
    """Requests by everything they are told apart by."""
    rows = connection.execute(
        """
        SELECT role, model, status_code, outcome, code, failover_cause, synthetic, sum(n), sum(attempts),
            sum(duration_ms), sum(overhead_us), sum(input_tokens), sum(output_tokens), sum(cost_usd)
        FROM (
            SELECT role, model, status_code, outcome, code, failover_cause, synthetic, n, attempts, duration_ms,
                overhead_us, input_tokens, output_tokens, cost_usd
            FROM json_each(:hours) AS run CROSS JOIN rollup_hour
            WHERE manager = :manager AND hour >= run.value ->> 0 AND hour < run.value ->> 1
            UNION ALL
            SELECT role, model, status_code, outcome, code, failover_cause, synthetic, n, attempts, duration_ms,
                overhead_us, input_tokens, output_tokens, cost_usd
            FROM json_each(:minutes) AS run CROSS JOIN rollup_minute
            WHERE manager = :manager AND minute >= run.value ->> 0 AND minute < run.value ->> 1
            UNION ALL
            SELECT role, model, status_code, outcome, coalesce(code, ''), coalesce(failover_cause, ''), synthetic, 1,
                attempts, duration_ms, overhead_us, coalesce(input_tokens, 0), coalesce(output_tokens, 0),
                coalesce(cost_usd, 0.0)
            FROM requests WHERE manager = :manager AND ts_ms >= :low1 AND ts_ms < :high1
            UNION ALL
            SELECT role, model, status_code, outcome, coalesce(code, ''), coalesce(failover_cause, ''), synthetic, 1,
                attempts, duration_ms, overhead_us, coalesce(input_tokens, 0), coalesce(output_tokens, 0),
                coalesce(cost_usd, 0.0)
            FROM requests WHERE manager = :manager AND ts_ms >= :low2 AND ts_ms < :high2
        )
        GROUP BY role, model, status_code, outcome, code, failover_cause, synthetic
        """,
        _bounds(connection, manager, window),
    )
    return [TrafficSum(*[*row[:6], bool(row[6]), *row[7:]]) for row in rows]


def attempts(connection: Connection, manager: str, window: Window) -> list[AttemptSum]:
    """Attempts that ended in the window, by model and category."""
    rows = connection.execute(
        """
        SELECT role, model, category, synthetic, sum(n), sum(duration_ms), sum(input_tokens), sum(output_tokens),
            sum(cost_usd)
        FROM (
            SELECT role, model, category, synthetic, n, duration_ms, input_tokens, output_tokens, cost_usd
            FROM json_each(:hours) AS run CROSS JOIN attempt_hour
            WHERE manager = :manager AND hour >= run.value ->> 0 AND hour < run.value ->> 1
            UNION ALL
            SELECT role, model, category, synthetic, n, duration_ms, input_tokens, output_tokens, cost_usd
            FROM json_each(:minutes) AS run CROSS JOIN attempt_minute
            WHERE manager = :manager AND minute >= run.value ->> 0 AND minute < run.value ->> 1
            UNION ALL
            SELECT role, model, category, synthetic, 1, duration_ms, coalesce(input_tokens, 0),
                coalesce(output_tokens, 0), coalesce(cost_usd, 0.0)
            FROM attempts WHERE manager = :manager AND ts_ms >= :low1 AND ts_ms < :high1
            UNION ALL
            SELECT role, model, category, synthetic, 1, duration_ms, coalesce(input_tokens, 0),
                coalesce(output_tokens, 0), coalesce(cost_usd, 0.0)
            FROM attempts WHERE manager = :manager AND ts_ms >= :low2 AND ts_ms < :high2
        )
        GROUP BY role, model, category, synthetic
        """,
        _bounds(connection, manager, window),
    )
    return [AttemptSum(*[*row[:3], bool(row[3]), *row[4:]]) for row in rows]


def moves(connection: Connection, manager: str, window: Window) -> list[FailoverSum]:
    """Failovers of both scopes, by direction and cause."""
    rows = connection.execute(
        """
        SELECT scope, from_role, to_role, cause, sum(n)
        FROM (
            SELECT scope, from_role, to_role, cause, n
            FROM json_each(:hours) AS run CROSS JOIN failover_hour
            WHERE manager = :manager AND hour >= run.value ->> 0 AND hour < run.value ->> 1
            UNION ALL
            SELECT scope, from_role, to_role, cause, n
            FROM json_each(:minutes) AS run CROSS JOIN failover_minute
            WHERE manager = :manager AND minute >= run.value ->> 0 AND minute < run.value ->> 1
            UNION ALL
            SELECT scope, from_role, to_role, cause, 1
            FROM failovers WHERE manager = :manager AND scope IN ('request', 'active')
                AND ts_ms >= :low1 AND ts_ms < :high1
            UNION ALL
            SELECT scope, from_role, to_role, cause, 1
            FROM failovers WHERE manager = :manager AND scope IN ('request', 'active')
                AND ts_ms >= :low2 AND ts_ms < :high2
        )
        GROUP BY scope, from_role, to_role, cause
        """,
        _bounds(connection, manager, window),
    )
    return [FailoverSum(*row) for row in rows]


def breakers(connection: Connection, manager: str, window: Window) -> list[BreakerSum]:
    """Breaker transitions by role and states."""
    rows = connection.execute(
        """
        SELECT role, from_state, to_state, sum(n)
        FROM (
            SELECT role, from_state, to_state, n
            FROM json_each(:hours) AS run CROSS JOIN breaker_hour
            WHERE manager = :manager AND hour >= run.value ->> 0 AND hour < run.value ->> 1
            UNION ALL
            SELECT role, from_state, to_state, n
            FROM json_each(:minutes) AS run CROSS JOIN breaker_minute
            WHERE manager = :manager AND minute >= run.value ->> 0 AND minute < run.value ->> 1
            UNION ALL
            SELECT role, from_state, to_state, 1
            FROM breaker_transitions WHERE manager = :manager AND ts_ms >= :low1 AND ts_ms < :high1
            UNION ALL
            SELECT role, from_state, to_state, 1
            FROM breaker_transitions WHERE manager = :manager AND ts_ms >= :low2 AND ts_ms < :high2
        )
        GROUP BY role, from_state, to_state
        """,
        _bounds(connection, manager, window),
    )
    return [BreakerSum(*row) for row in rows]


def latency(connection: Connection, manager: str, window: Window) -> list[LatencyCount]:
    """Latency of callers' requests by log bucket."""
    (first, last), edges = window.parts()
    counts: dict[tuple[str, str, str, str, int], int] = {}
    rows = connection.execute(
        """
        SELECT role, model, outcome, metric, bucket, sum(n) FROM (
            SELECT role, model, outcome, metric, bucket, n FROM json_each(:hours) AS run CROSS JOIN latency_hour
            WHERE manager = :manager AND hour >= run.value ->> 0 AND hour < run.value ->> 1
            UNION ALL
            SELECT role, model, outcome, metric, bucket, n FROM json_each(:minutes) AS run CROSS JOIN latency_minute
            WHERE manager = :manager AND minute >= run.value ->> 0 AND minute < run.value ->> 1
        )
        GROUP BY role, model, outcome, metric, bucket
        """,
        {"manager": manager, **pieces(connection, manager, first, last).bound()},
    )
    for *key, n in rows:
        counts[tuple(key)] = n
    for low, high in edges:
        raw = connection.execute(
            """
            SELECT role, model, outcome, duration_ms, ttft_ms FROM requests
            WHERE manager = ? AND ts_ms >= ? AND ts_ms < ? AND synthetic = 0 AND role <> ?
            """,
            (manager, low, high, UNTRIED),
        )
        for role, model, outcome, duration, ttft in raw:
            for metric, value in (("duration", duration), ("ttft", ttft)):
                if value is not None:
                    bucket = (role, model, outcome, metric, bucket_of(value))
                    counts[bucket] = counts.get(bucket, 0) + 1
    return [LatencyCount(*found, n) for found, n in counts.items()]


def ramp_aborts(connection: Connection, manager: str, window: Window) -> int:
    """How often traffic on its way back to primary was taken off it again."""
    row = connection.execute(
        "SELECT count(*) FROM agreements WHERE manager = ? AND ramp_aborted = 1 AND ts_ms > ? AND ts_ms <= ?",
        (manager, window.start_ms, window.end_ms),
    ).fetchone()
    return int(row[0])


def _bounds(connection: Connection, manager: str, window: Window) -> dict[str, str | int]:
    (first, last), ((low1, high1), (low2, high2)) = window.parts()
    return {
        "manager": manager, **pieces(connection, manager, first, last).bound(),
        "low1": low1, "high1": high1, "low2": low2, "high2": high2,
    }  # fmt: skip
