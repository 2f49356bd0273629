"""Deleting old raw rows in small slices, so that nobody waits for it; sums and audits are kept for ever.

Deleted are requests, attempts, texts, moves of single requests, breaker transitions, findings of canaries, and
notifications with their deliveries that are settled. Kept are rollups by the minute and by the hour, totals, moves of
the active model, agreements, operators' acts and the history of alerts. The edge lies on a whole minute, so that a
rollup's minute has all of its raw rows or none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from engine.ledger import MINUTE_MS
from engine.queries import managers
from engine.recorder import Recorder
from engine.sqlite import Connection

SLICE = 5000
PAUSE_S = 0.05
FREED_PAGES = 1000

_SLICES = (
    """DELETE FROM attempts WHERE (request_id, n) IN (
        SELECT request_id, n FROM attempts WHERE manager = :manager AND ts_ms < :edge LIMIT :slice)""",
    """DELETE FROM requests WHERE id IN (
        SELECT id FROM requests WHERE manager = :manager AND ts_ms < :edge LIMIT :slice)""",
    """DELETE FROM failovers WHERE seq IN (
        SELECT seq FROM failovers WHERE manager = :manager AND scope = 'request' AND ts_ms < :edge LIMIT :slice)""",
    """DELETE FROM breaker_transitions WHERE seq IN (
        SELECT seq FROM breaker_transitions WHERE manager = :manager AND ts_ms < :edge LIMIT :slice)""",
)
_SHARED_SLICES = (
    """DELETE FROM canary_results WHERE seq IN (
        SELECT seq FROM canary_results WHERE ts_ms < :edge LIMIT :slice)""",
    """DELETE FROM contents WHERE request_id IN (
        SELECT request_id FROM contents WHERE ts_ms < :edge LIMIT :slice)""",
    """DELETE FROM deliveries WHERE (outbox_id, n) IN (
        SELECT outbox_id, n FROM deliveries WHERE ts_ms < :edge LIMIT :slice)""",
    """DELETE FROM outbox WHERE seq IN (
        SELECT seq FROM outbox WHERE created_ms < :edge AND state IN ('delivered', 'dead', 'cancelled')
        LIMIT :slice)""",
)


def delete_old(
    recorder: Recorder,
    *,
    keep: float,
    now_ms: int,
    slice_rows: int = SLICE,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Delete raw rows that are older than the retention, slice by slice.

    Args:
        recorder: Does the deleting; requests go on being recorded between slices.
        keep: Seconds to keep raw rows.
        now_ms: Wall time, milliseconds UTC.
        slice_rows: Rows a transaction.
        pause: Waits between slices, seconds.

    Returns:
        How many rows were deleted.

    Raises:
        StoreUnavailable: The store cannot be written; what was deleted so far stays deleted.
    """
    edge = (now_ms - round(keep * 1000)) // MINUTE_MS * MINUTE_MS
    with recorder.store.reader() as connection:
        names = managers(connection)
    deleted = 0
    for statement, manager in [(text, name) for name in names for text in _SLICES] + [(t, "") for t in _SHARED_SLICES]:
        job = partial(_delete, statement, {"manager": manager, "edge": edge, "slice": slice_rows})
        while (rows := recorder.execute(job).result()) == slice_rows:
            deleted += rows
            pause(PAUSE_S)
        deleted += rows
    if deleted:
        recorder.execute(_give_back).result()
    return deleted


def _delete(statement: str, values: Mapping[str, str | int], connection: Connection) -> int:
    named = {key: value for key, value in values.items() if f":{key}" in statement}
    return connection.execute(statement, named).rowcount


def _give_back(connection: Connection) -> None:
    """Return a bounded number of free pages to the file system."""
    connection.execute(f"PRAGMA incremental_vacuum({FREED_PAGES})").fetchall()
