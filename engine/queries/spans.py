"""How requests fared in many stretches of time at once: one reading for a month of incidents.

Stretches are read from sums, by the hour where whole hours are rolled up, so their edges are whole minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.ledger import MINUTE_MS
from engine.queries.hours import pieces
from engine.sqlite import Connection


@dataclass(frozen=True, slots=True)
class SpanSums:
    """What callers noticed in one stretch of time, its first and last minute included.

    Attributes:
        answered: Callers' requests that got an answer.
        failed: Those that ended with an error of status 500 or more.
        shed: Those that were refused.
        rescues: Those answered by the other model than the active one, by cause.
        failures: Attempts that did not succeed by category, those of probes and canaries included.
    """

    answered: int = 0
    failed: int = 0
    shed: int = 0
    rescues: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)


def span_sums(connection: Connection, manager: str, spans: Sequence[tuple[int, int]]) -> list[SpanSums]:
    """Sums of many stretches at once, each `(start_ms, end_ms)`; they may overlap.

    Args:
        connection: Of `Store.reader()`.
        manager: Whose.
        spans: The stretches, milliseconds UTC.

    Returns:
        As many sums, in the same order.
    """
    where = _spans(connection, manager, spans)
    ended = {
        place: (answered, failed, shed) for place, answered, failed, shed in connection.execute(_SPAN_ENDED, where)
    }
    rescues, failures = (
        _by_word(connection.execute(one, where), len(spans)) for one in (_SPAN_RESCUED, _SPAN_FAILURES)
    )
    return [SpanSums(*ended.get(place, (0, 0, 0)), rescues[place], failures[place]) for place in range(len(spans))]


def _by_word(rows: Iterable[tuple[int, str, int]], count: int) -> list[dict[str, int]]:
    found: list[dict[str, int]] = [{} for _ in range(count)]
    for place, word, n in rows:
        found[place][word] = n
    return found


def _spans(connection: Connection, manager: str, spans: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The stretches as runs of hours and of minutes, each with its place."""
    hours: list[tuple[int, int, int]] = []
    minutes: list[tuple[int, int, int]] = []
    for place, (start_ms, end_ms) in enumerate(spans):
        cut = pieces(connection, manager, start_ms // MINUTE_MS, end_ms // MINUTE_MS + 1)
        hours += [(place, *run) for run in cut.hours]
        minutes += [(place, *run) for run in cut.minutes]
    return {"manager": manager, "hours": json.dumps(hours), "minutes": json.dumps(minutes)}


def _by_span(columns: str, by_hour: str, by_minute: str, condition: str) -> str:
    """Rows of both sorts of sums, each with the place of its span."""
    return f"""
        SELECT run.value ->> 0 AS place, {columns} FROM json_each(:hours) AS run CROSS JOIN {by_hour}
        WHERE manager = :manager AND hour >= run.value ->> 1 AND hour < run.value ->> 2 AND {condition}
        UNION ALL
        SELECT run.value ->> 0, {columns} FROM json_each(:minutes) AS run CROSS JOIN {by_minute}
        WHERE manager = :manager AND minute >= run.value ->> 1 AND minute < run.value ->> 2 AND {condition}
    """  # noqa: S608 - this module's own names


_SPAN_ENDED = f"""
    SELECT place, sum(iif(outcome = 'ok', n, 0)), sum(iif(outcome = 'error' AND status_code >= 500, n, 0)),
        sum(iif(outcome = 'shed', n, 0))
    FROM ({_by_span("outcome, status_code, n", "rollup_hour", "rollup_minute", "synthetic = 0")})
    GROUP BY place
"""  # noqa: S608 - as above
_SPAN_RESCUED = f"""
    SELECT place, cause, sum(n)
    FROM ({_by_span("cause, n", "failover_hour", "failover_minute", "scope = 'request'")})
    GROUP BY place, cause
"""  # noqa: S608 - as above
_SPAN_FAILURES = f"""
    SELECT place, category, sum(n)
    FROM ({_by_span("category, n", "attempt_hour", "attempt_minute", "category NOT IN ('ok', 'cancelled')")})
    GROUP BY place, category
"""  # noqa: S608 - as above
