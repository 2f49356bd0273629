"""Single requests: one with everything known about it, and pages of many."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from engine.core.events import AttemptRecord, FailoverRecord
from engine.queries.events import LATEST, failover_of
from engine.queries.windows import managers
from engine.sqlite import Connection

_COLUMNS = (
    "id, ts_ms, manager, instance, epoch, active_role, role, model, status_code, outcome, code, failover_cause, "
    "attempts, streamed, duration_ms, ttft_ms, overhead_us, input_tokens, output_tokens, cost_usd, finish_reason, "
    "synthetic, prompt_hash"
)


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One row of `requests`."""

    id: str
    ts_ms: int
    manager: str
    instance: str
    epoch: int
    active_role: str
    role: str
    model: str
    status_code: int
    outcome: str
    code: str | None
    failover_cause: str | None
    attempts: int
    streamed: bool
    duration_ms: float
    ttft_ms: float | None
    overhead_us: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    finish_reason: str | None
    synthetic: bool
    prompt_hash: str | None

    @property
    def cursor(self) -> tuple[int, str]:
        """Where to go on after this request."""
        return self.ts_ms, self.id


@dataclass(frozen=True, slots=True)
class RequestDetail:
    """One request with its attempts in order, its failovers, and its texts where they are stored."""

    request: RequestRow
    attempts: Sequence[AttemptRecord]
    failovers: Sequence[FailoverRecord]
    prompt_text: str | None
    answer_text: str | None


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """What a page of requests shows; `None` means any."""

    manager: str | None = None
    role: str | None = None
    model: str | None = None
    outcome: str | None = None
    status_code: int | None = None
    code: str | None = None
    failover_cause: str | None = None
    synthetic: bool | None = None
    min_duration_ms: float | None = None
    prompt_hash: str | None = None


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Requests, newest first, and the cursor of the next page (`None` at the end)."""

    requests: Sequence[RequestRow]
    next: tuple[int, str] | None


def request(connection: Connection, request_id: str) -> RequestDetail | None:
    """One request by its id, `None` when it is not recorded (yet, or any more)."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM requests WHERE id = ?", (request_id,)).fetchone()  # noqa: S608
    if row is None:
        return None
    tries = connection.execute(
        """
        SELECT n, ts_ms, role, model, status_code, category, duration_ms, waited_ms, breaker_state, error,
            input_tokens, output_tokens, cost_usd, usage_estimated
        FROM attempts WHERE request_id = ? ORDER BY n
        """,
        (request_id,),
    )
    attempts = [AttemptRecord(*[*found[:-1], bool(found[-1])]) for found in tries]
    moved = connection.execute(
        """
        SELECT id, ts_ms, manager, instance, scope, from_role, to_role, cause, request_id, epoch, evidence
        FROM failovers WHERE request_id = ? ORDER BY seq
        """,
        (request_id,),
    )
    failovers = [failover_of(found) for found in moved]
    texts = connection.execute(
        "SELECT prompt_text, answer_text FROM contents WHERE request_id = ?", (request_id,)
    ).fetchone() or (None, None)
    return RequestDetail(_row(row), attempts, failovers, texts[0], texts[1])


def requests(
    connection: Connection,
    *,
    start_ms: int,
    end_ms: int,
    where: RequestFilter | None = None,
    before: tuple[int, str] | None = None,
    limit: int = 50,
) -> RequestPage:
    """One page of the requests that finished in `(start_ms, end_ms]`, newest first.

    Args:
        connection: Of `Store.reader()`.
        start_ms: Milliseconds UTC.
        end_ms: Milliseconds UTC.
        where: Which of them, by default all.
        before: The cursor of the page before.
        limit: Requests a page.
    """
    chosen = where or RequestFilter()
    cursor = min(before or LATEST, (end_ms, LATEST[1]))
    names = [chosen.manager] if chosen.manager is not None else managers(connection)
    times = (start_ms, *cursor)
    found = (_of_manager(connection, replace(chosen, manager=name), times, limit + 1) for name in names)
    merged = list(islice(heapq.merge(*found, key=lambda one: one.cursor, reverse=True), limit + 1))
    page = merged[:limit]
    return RequestPage(page, page[-1].cursor if len(merged) > limit else None)


def _of_manager(
    connection: Connection, where: RequestFilter, times: tuple[int, int, str], limit: int
) -> list[RequestRow]:
    """Rows after `times[0]` and before the cursor in the rest of `times`; column names are this module's own."""
    conditions = ["manager = ?", "ts_ms > ?", "(ts_ms, id) < (?, ?)"]
    values: list[Any] = [where.manager, *times]
    for column in ("role", "model", "outcome", "status_code", "code", "failover_cause", "synthetic", "prompt_hash"):
        value = getattr(where, column)
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if where.min_duration_ms is not None:
        conditions.append("duration_ms >= ?")
        values.append(where.min_duration_ms)
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM requests WHERE {' AND '.join(conditions)} ORDER BY ts_ms DESC, id DESC LIMIT ?",  # noqa: S608
        [*values, limit],
    )
    return [_row(row) for row in rows]


def last_request_ms(connection: Connection, manager: str) -> int | None:
    """When the last request of a manager finished, milliseconds UTC."""
    row = connection.execute("SELECT max(ts_ms) FROM requests WHERE manager = ?", (manager,)).fetchone()
    return None if row[0] is None else int(row[0])


def _row(row: Sequence[Any]) -> RequestRow:
    values = list(row)
    values[13] = bool(values[13])
    values[21] = bool(values[21])
    return RequestRow(*values)
