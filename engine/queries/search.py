"""Looking for requests among millions: sums say in which hours and minutes there are any, and only those are read."""

from __future__ import annotations

from engine.ledger import MINUTE_MS
from engine.percentiles import bucket_of
from engine.queries.hours import HOUR, pieces
from engine.queries.requests import RequestFilter, RequestPage, RequestRow, requests
from engine.sqlite import Connection

PLACES_SCANNED = 120
"""Most minutes, and most hours, that one page of filtered requests looks into; the next page goes on from there."""

_ROLLED_UP = ("role", "model", "outcome", "status_code", "code", "failover_cause", "synthetic")


def filtered_requests(
    connection: Connection,
    *,
    start_ms: int,
    end_ms: int,
    where: RequestFilter,
    before: tuple[int, str] | None = None,
    limit: int = 50,
) -> RequestPage:
    """One page of one manager's requests, newest first, at a cost that does not grow with those that do not match.

    The sums by minute say in which minutes there are matching requests; only those minutes' rows are read.

    Args:
        connection: Of `Store.reader()`.
        start_ms: Milliseconds UTC; `(start_ms, end_ms]` as in `engine.queries.requests`.
        end_ms: Milliseconds UTC.
        where: What to look for; names a manager.
        before: The cursor of the page before.
        limit: Requests a page.
    """
    if where == RequestFilter(manager=where.manager):
        return requests(connection, start_ms=start_ms, end_ms=end_ms, where=where, before=before, limit=limit)
    last_ms = min(end_ms, before[0]) if before else end_ms
    found: list[RequestRow] = []
    minutes, beyond = _minutes_with(connection, where, start_ms // MINUTE_MS, last_ms // MINUTE_MS + 1)
    for minute in minutes:
        first, last = max(start_ms, minute * MINUTE_MS - 1), min(end_ms, minute * MINUTE_MS + MINUTE_MS - 1)
        wanted = limit + 1 - len(found)
        found += requests(connection, start_ms=first, end_ms=last, where=where, before=before, limit=wanted).requests
        if len(found) > limit:
            return RequestPage(found[:limit], found[limit - 1].cursor)
    return RequestPage(found, None if beyond is None else (beyond * MINUTE_MS, ""))


def _minutes_with(connection: Connection, where: RequestFilter, first: int, last: int) -> tuple[list[int], int | None]:
    """The newest minutes of `[first, last)` in which the sums know of matching requests.

    The sums by the hour say first in which hours to look. Given too is the minute to go on before when there may be
    more, `None` when there are not.
    """
    cut = pieces(connection, str(where.manager), first, last)
    hours: list[int] = []
    for run in reversed(cut.hours):
        hours += _units_with(connection, where, "hour", run, PLACES_SCANNED - len(hours))
        if len(hours) == PLACES_SCANNED:
            break
    floor = hours[-1] * HOUR if len(hours) == PLACES_SCANNED else first
    minutes: list[int] = []
    for low, high in sorted([*cut.minutes, *((hour * HOUR, hour * HOUR + HOUR) for hour in hours)], reverse=True):
        if high <= floor:
            break
        minutes += _units_with(connection, where, "minute", (max(low, floor), high), PLACES_SCANNED - len(minutes))
        if len(minutes) == PLACES_SCANNED:
            return minutes, minutes[-1]
    return minutes, floor if floor > first else None


def _units_with(connection: Connection, where: RequestFilter, unit: str, run: tuple[int, int], limit: int) -> list[int]:
    """The newest hours or minutes of a run with matching sums; stops reading when it has found enough."""
    wanted = {column: getattr(where, column) for column in _ROLLED_UP if getattr(where, column) is not None}
    values = list(wanted.values())
    if where.min_duration_ms is None:
        source, conditions = f"rollup_{unit}", [f"r.{column} = ?" for column in wanted]
    else:
        hourly, minutely = ("rolled_hours", "slowest"), ("latency_minute", "metric = 'duration' AND bucket")
        source, slow = hourly if unit == "hour" else minutely
        conditions = [f"{slow} >= ?"]
        values = [bucket_of(where.min_duration_ms), *values]
        if wanted:
            labels = "".join(f" AND s.{column} = ?" for column in wanted)
            same = f"s.manager = r.manager AND s.{unit} = r.{unit}{labels}"
            conditions.append(f"EXISTS (SELECT 1 FROM rollup_{unit} AS s WHERE {same})")  # noqa: S608 - our own names
    labels = "".join(f" AND {condition}" for condition in conditions)
    rows = connection.execute(
        f"SELECT DISTINCT r.{unit} FROM {source} AS r WHERE r.manager = ? AND r.{unit} >= ? AND r.{unit} < ?{labels}"  # noqa: S608 - as above
        f" ORDER BY r.{unit} DESC LIMIT ?",
        [where.manager, *run, *values, limit],
    )
    return [row[0] for row in rows]
