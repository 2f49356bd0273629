"""Sums by the hour, made from the sums by the minute when an hour is over, so that a month is read in hundreds of rows.

Guarantees: an hour is rolled up in one transaction, so a crash leaves it done or not done; doing it again changes
nothing. `rolled_hours` names the hours whose sums hold, with the bucket of their slowest request. A record that is
written late takes its hour off that list, in the record's own transaction (`engine.posting`): from then on the hour is
read from its minutes again, and the next run rolls it up anew. So a reader that follows the list
(`engine.queries.hours`) never miscounts, whether anybody rolls up or not.

Sums by the minute and by the hour are kept for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from engine.ledger import MINUTE_MS
from engine.queries import managers
from engine.recorder import Recorder
from engine.sqlite import Connection

HOUR_MINUTES = 60
HOUR_MS = HOUR_MINUTES * MINUTE_MS

SETTLED_MS = 2 * MINUTE_MS
"""An hour is rolled up so long after its end; what comes later still is a late record."""

PAUSE_S = 0.02
"""Between two hours, so that a long history is caught up with beside live traffic."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """A table of sums by the minute and the one by the hour, of the same columns but the first of the key."""

    minutes: str
    hours: str
    labels: str
    sums: str

    def statements(self) -> tuple[str, str]:
        """Delete an hour's sums, and add it up again."""
        adding = ", ".join(f"sum({name})" for name in self.sums.split(", "))
        return (
            f"DELETE FROM {self.hours} WHERE manager = :manager AND hour = :hour",  # noqa: S608 - this module's names
            f"""
            INSERT INTO {self.hours} (manager, hour, {self.labels}, {self.sums})
            SELECT manager, :hour, {self.labels}, {adding} FROM {self.minutes}
            WHERE manager = :manager AND minute >= :hour * 60 AND minute < :hour * 60 + 60
            GROUP BY {self.labels}
            """,  # noqa: S608 - as above
        )


ROLLUPS = (
    Rollup(
        "rollup_minute",
        "rollup_hour",
        "role, model, status_code, outcome, code, failover_cause, synthetic",
        "n, attempts, duration_ms, overhead_us, input_tokens, output_tokens, cost_usd",
    ),
    Rollup(
        "attempt_minute",
        "attempt_hour",
        "role, model, category, synthetic",
        "n, duration_ms, input_tokens, output_tokens, cost_usd",
    ),
    Rollup("failover_minute", "failover_hour", "scope, from_role, to_role, cause", "n"),
    Rollup("breaker_minute", "breaker_hour", "role, from_state, to_state", "n"),
    Rollup("latency_minute", "latency_hour", "metric, role, model, outcome, bucket", "n"),
)

_STATEMENTS = tuple(statement for rollup in ROLLUPS for statement in rollup.statements())

_DONE = """
INSERT OR REPLACE INTO rolled_hours (manager, hour, slowest)
SELECT :manager, :hour, (
    SELECT max(bucket) FROM latency_hour WHERE manager = :manager AND hour = :hour AND metric = 'duration')
"""

_DUE = """
WITH RECURSIVE known (hour) AS (
    SELECT min(minute) / 60 FROM rollup_minute WHERE manager = :manager
    UNION ALL
    SELECT (SELECT min(minute) / 60 FROM rollup_minute WHERE manager = :manager AND minute >= hour * 60 + 60)
    FROM known WHERE hour < :last)
SELECT hour FROM known WHERE hour < :last
    AND NOT EXISTS (SELECT 1 FROM rolled_hours AS r WHERE r.manager = :manager AND r.hour = known.hour)
"""


def due(connection: Connection, now_ms: int) -> list[tuple[str, int]]:
    """The hours with traffic that are over and not rolled up, as manager and hours since 1970.

    Args:
        connection: Of `Store.reader()`.
        now_ms: Wall time, milliseconds UTC.
    """
    last = (now_ms - SETTLED_MS) // HOUR_MS
    return [
        (manager, hour)
        for manager in managers(connection)
        for (hour,) in connection.execute(_DUE, {"manager": manager, "last": last})
    ]


def roll_up(connection: Connection, manager: str, hour: int) -> None:
    """Roll one hour up, anew if it was before; the caller holds the transaction.

    Args:
        connection: Of the writer, inside a transaction.
        manager: Whose.
        hour: Hours since 1970.
    """
    for statement in _STATEMENTS:
        connection.execute(statement, {"manager": manager, "hour": hour})
    connection.execute(_DONE, {"manager": manager, "hour": hour})


def roll_up_due(recorder: Recorder, *, now_ms: int, pause: Callable[[float], None] = time.sleep) -> int:
    """Roll up every hour that is due, one a transaction.

    Args:
        recorder: Does the writing; requests go on being recorded between hours.
        now_ms: Wall time, milliseconds UTC.
        pause: Waits between hours, seconds.

    Returns:
        How many hours were rolled up.

    Raises:
        StoreUnavailable: The store cannot be written; what was rolled up so far stays so.
    """
    with recorder.store.reader() as connection:
        hours = due(connection, now_ms)
    for manager, hour in hours:
        recorder.execute(partial(roll_up, manager=manager, hour=hour)).result()
        pause(PAUSE_S)
    return len(hours)
