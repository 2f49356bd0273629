"""What happened in pieces of time: each piece that a tick asks for is summed once, and windows add the pieces up.

So the cost is that of the longest window, not of the number of rules. Whole hours and minutes are read from the sums
of them, everything else from raw rows.
"""

# ruff: noqa: S608 - what is put into a statement are names and texts of this module, never values from outside
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from alerts.histograms import Histogram, total
from alerts.spans import MINUTE_MS, SMALL_MS, Span
from engine.percentiles import bucket_of
from engine.queries.hours import pieces
from engine.sqlite import Connection


@dataclass(frozen=True, slots=True)
class Sums:
    """One group of rows in one span: what they are, and how many or how much."""

    span: int
    manager: str
    key: tuple[Any, ...]
    amounts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Feed:
    """One thing that is summed.

    Attributes:
        read: Sums of some managers in some spans.
        rows: The table of the raw rows behind it, when a change of their number tells that a sum is outdated; `None`
            when only that of all records before a moment does.
    """

    name: str
    read: Callable[[Connection, Sequence[Span], Sequence[str]], list[Sums]]
    rows: str | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    """Where sums come from: tables by hour and minute and one of rows, their groups, what is added up in each."""

    sums_of: str
    rows: str
    keys: str
    sums: str
    counts: str
    only: str = ""


_SPENT = "coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), 0), coalesce(sum(cost_usd), 0)"
_SPENDING = ("sum(n), sum(input_tokens + output_tokens), sum(cost_usd)", f"count(*), {_SPENT}")
_COUNTING = ("sum(n)", "count(*)")

_WITH = (
    "WITH spans (k, who, low, high) AS MATERIALIZED"
    " (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)) "
)
_ROWS = "t.manager = who AND ts_ms >= low AND ts_ms < high"


def _on(unit: str) -> str:
    return f"t.manager = who AND {unit} >= low AND {unit} < high"


@dataclass(frozen=True, slots=True)
class _Given:
    """Where spans are read from, each a value for `_WITH` or empty: sums by hour and by minute, and raw rows."""

    hours: str = ""
    minutes: str = ""
    rows: str = ""


def _given(connection: Connection, spans: Sequence[Span], managers: Sequence[str]) -> _Given:
    hours, minutes, rows = [], [], []
    for manager in managers:
        for k, span in enumerate(spans):
            if not span.whole:
                rows.append((k, manager, span.from_ms, span.to_ms))
                continue
            cut = pieces(connection, manager, span.from_ms // MINUTE_MS, span.to_ms // MINUTE_MS)
            hours += [(k, manager, *run) for run in cut.hours]
            minutes += [(k, manager, *run) for run in cut.minutes]
    return _Given(*(json.dumps(found) if found else "" for found in (hours, minutes, rows)))


def _sums(source: _Source, connection: Connection, spans: Sequence[Span], managers: Sequence[str]) -> list[Sums]:
    given = _given(connection, spans, managers)
    width = 2 + len(source.keys.split(", "))
    group = ", ".join(map(str, range(1, width + 1)))
    found: list[Sums] = []
    for value, table, where, amounts in (
        (given.hours, f"{source.sums_of}_hour", _on("hour"), source.sums),
        (given.minutes, f"{source.sums_of}_minute", _on("minute"), source.sums),
        (given.rows, source.rows, _ROWS + source.only, source.counts),
    ):
        if value:
            select = f"SELECT k, who, {source.keys}, {amounts} FROM spans CROSS JOIN {table} t ON {where}"
            rows = connection.execute(f"{_WITH}{select} GROUP BY {group}", [value])
            found += [Sums(row[0], row[1], tuple(row[2:width]), tuple(row[width:])) for row in rows]
    return found


REQUESTS = Feed(
    "requests",
    partial(_sums, _Source("rollup", "requests", "role, outcome, status_code >= 500, synthetic", *_SPENDING)),
    rows="requests",
)
"""Finished calls by role, outcome, whether the server is at fault, and whether synthetic: number, tokens, USD."""

ATTEMPTS = Feed(
    "attempts",
    partial(_sums, _Source("attempt", "attempts", "role, category, synthetic", *_SPENDING)),
    rows="attempts",
)
"""Tries by role, category and whether synthetic: number, tokens, USD."""

FAILOVERS = Feed(
    "failovers",
    partial(
        _sums,
        _Source(
            "failover",
            "failovers",
            "scope, from_role, to_role, cause",
            *_COUNTING,
            only=" AND scope IN ('active', 'request')",
        ),
    ),
)
"""Moves by scope, roles and cause: number."""

BREAKER_CHANGES = Feed("breaker changes", partial(_sums, _Source("breaker", "breaker_transitions", "role", *_COUNTING)))
"""Breaker transitions by role: number."""


def ramp_aborts(connection: Connection, managers: Sequence[str], from_ms: int, to_ms: int) -> list[tuple[str, int]]:
    """Ramps that were given up in `[from_ms, to_ms)`: manager and time."""
    return connection.execute(
        "SELECT manager, ts_ms FROM json_each(?) m CROSS JOIN agreements t ON t.manager = m.value"
        " AND ts_ms >= ? AND ts_ms < ? WHERE ramp_aborted = 1",
        [json.dumps(list(managers)), from_ms, to_ms],
    ).fetchall()


Trip = tuple[str, str, str, int]


def breaker_trips(connection: Connection, managers: Sequence[str], from_ms: int, to_ms: int) -> list[Trip]:
    """Closed breakers that opened in `[from_ms, to_ms)`: manager, instance, role and time."""
    return connection.execute(
        "SELECT manager, instance, role, ts_ms FROM json_each(?) m CROSS JOIN breaker_transitions t"
        " ON t.manager = m.value AND ts_ms >= ? AND ts_ms < ? WHERE from_state = 'closed' AND to_state = 'open'",
        [json.dumps(list(managers)), from_ms, to_ms],
    ).fetchall()


def _latency(connection: Connection, spans: Sequence[Span], managers: Sequence[str]) -> list[Sums]:
    """Counts of a group come as two lists: a row for every bucket of every minute cost more than all else."""
    found: dict[tuple[int, str, str, str], list[Histogram]] = {}
    given = _given(connection, spans, managers)
    for value, unit in ((given.hours, "hour"), (given.minutes, "minute")):
        if value:
            for k, manager, metric, role, buckets, counts in connection.execute(
                f"{_WITH} SELECT k, who, metric, role, json_group_array(bucket), json_group_array(n) FROM"
                f" (SELECT k, who, metric, role, bucket, sum(n) AS n FROM spans CROSS JOIN json_each(?) m"
                f" CROSS JOIN latency_{unit} t ON {_on(unit)} AND metric = m.value"
                " WHERE outcome IN ('ok', 'error') GROUP BY 1, 2, 3, 4, 5) GROUP BY 1, 2, 3, 4",
                [value, '["duration", "ttft"]'],
            ):
                histogram = Histogram.of(dict(zip(json.loads(buckets), json.loads(counts), strict=True)))
                found.setdefault((k, manager, metric, role), []).append(histogram)
    raw: dict[tuple[int, str, str, str], dict[int, int]] = {}
    if given.rows:
        for k, manager, role, duration, ttft in connection.execute(
            f"{_WITH} SELECT k, who, role, duration_ms, ttft_ms FROM spans CROSS JOIN requests t ON {_ROWS}"
            " WHERE outcome IN ('ok', 'error') AND synthetic = 0 AND role <> 'none'",
            [given.rows],
        ):
            _count(raw, (k, manager, "duration", role), duration)
            if ttft is not None:
                _count(raw, (k, manager, "ttft", role), ttft)
    for key, counted in raw.items():
        found.setdefault(key, []).append(Histogram.of(counted))
    return [Sums(key[0], key[1], key[2:], (total(several),)) for key, several in found.items()]


def _count(counts: dict[tuple[int, str, str, str], dict[int, int]], key: tuple[int, str, str, str], ms: float) -> None:
    group = counts.setdefault(key, {})
    bucket = bucket_of(ms)
    group[bucket] = group.get(bucket, 0) + 1


LATENCY = Feed("latency", _latency, rows="requests")
"""Latencies of what succeeded or failed by metric and role: a histogram of log buckets."""

FEEDS = (REQUESTS, ATTEMPTS, FAILOVERS, BREAKER_CHANGES, LATENCY)


def numbers(connection: Connection, table: str, starts: Sequence[int], managers: Sequence[str]) -> list[int]:
    """How many raw rows there are in each small block, whatever their sort.

    Args:
        connection: In a read transaction.
        table: The `rows` of a feed.
        starts: Where the blocks begin, milliseconds.
        managers: Whose rows.
    """
    rows = connection.execute(
        f"SELECT (SELECT coalesce(sum((SELECT count(*) FROM {table} t WHERE t.manager = m.value AND ts_ms >= s.value"
        f" AND ts_ms < s.value + {SMALL_MS})), 0) FROM json_each(?1) m) FROM json_each(?2) s ORDER BY s.key",
        [json.dumps(list(managers)), json.dumps(list(starts))],
    )
    return [row[0] for row in rows]


_COUNTED_IN = {"requests": "rollup_minute", "attempts": "attempt_minute"}


def by_minute(connection: Connection, table: str, first: int, managers: Sequence[str]) -> dict[int, int]:
    """How many raw rows there are in each minute, as the sums of them say; minutes without any are left out.

    Args:
        connection: In a read transaction.
        table: The `rows` of a feed.
        first: The first minute since 1970.
        managers: Whose rows.
    """
    rows = connection.execute(
        f"SELECT minute, sum(n) FROM json_each(?1) m CROSS JOIN {_COUNTED_IN[table]} t ON t.manager = m.value"
        " AND minute >= ?2 GROUP BY minute",
        [json.dumps(list(managers)), first],
    )
    return dict(rows.fetchall())


_SETTLED = (
    "SELECT (SELECT coalesce(sum(value), 0) FROM totals WHERE labels ->> 'manager' IN (SELECT value FROM json_each(?1))"
    " AND name IN ('requests', 'attempts', 'synthetic', 'failover_events', 'request_failovers',"
    " 'breaker_transitions'))"
) + "".join(
    f" - (SELECT coalesce(sum(n), 0) FROM json_each(?1) m CROSS JOIN {table} t ON t.manager = m.value AND minute >= ?2)"
    for table in ("rollup_minute", "attempt_minute", "failover_minute", "breaker_minute")
)


def settled(connection: Connection, managers: Sequence[str], before_ms: int) -> float:
    """How many records of before a moment there are: all that were ever counted less those of the minutes since.

    It only changes when records of that time are written later.
    """
    row = connection.execute(_SETTLED, [json.dumps(list(managers)), before_ms // MINUTE_MS]).fetchone()
    return float(row[0])
