"""What canaries found: the state of each one now, and the findings of a time."""

from __future__ import annotations

from dataclasses import dataclass

from engine.sqlite import Connection


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """One answer that was held to a canary.

    Attributes:
        seq: Its place in the order of recording.
        ts_ms: When it was judged, milliseconds UTC.
        instance: The process that asked.
        role: Whom it asked.
        model: That role's model at the time.
        canary: The canary's name.
        passed: Whether the answer was as expected.
        detail: The properties that do not hold, empty when it passed.
        request_id: The request that was made for it.
        duration_ms: How long the model took.
    """

    seq: int
    ts_ms: int
    instance: str
    role: str
    model: str
    canary: str
    passed: bool
    detail: str
    request_id: str | None
    duration_ms: float


_COLUMNS = "seq, ts_ms, instance, role, model, canary, passed, detail, request_id, duration_ms"


def latest_canaries(connection: Connection, manager: str, *, since_ms: int = 0) -> list[CanaryResult]:
    """The last finding of each canary about each role, by role and name.

    Args:
        connection: Of `Store.reader()`.
        manager: Whose.
        since_ms: Milliseconds UTC; canaries that were last asked before are left out.
    """
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM canary_results WHERE seq IN ("  # noqa: S608 - the names are this module's
        " SELECT max(seq) FROM canary_results WHERE manager = ? GROUP BY role, canary"
        ") AND ts_ms >= ? ORDER BY role, canary",
        (manager, since_ms),
    )
    return [_result(row) for row in rows]


def canaries_after(connection: Connection, manager: str, seq: int) -> list[CanaryResult]:
    """The findings recorded after one, oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM canary_results WHERE seq > ? AND manager = ? ORDER BY seq",  # noqa: S608 - see above
        (seq, manager),
    )
    return [_result(row) for row in rows]


def canary_results(
    connection: Connection, manager: str, start_ms: int, end_ms: int, *, failed_only: bool = False, limit: int = 500
) -> list[CanaryResult]:
    """The findings of a time, newest first.

    Args:
        connection: Of `Store.reader()`.
        manager: Whose.
        start_ms: Milliseconds UTC, not included.
        end_ms: Milliseconds UTC, included.
        failed_only: Leave out those that passed.
        limit: At most this many.
    """
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM canary_results"  # noqa: S608 - see above
        " WHERE manager = ? AND ts_ms > ? AND ts_ms <= ? AND passed <= ? ORDER BY ts_ms DESC, seq DESC LIMIT ?",
        (manager, start_ms, end_ms, int(not failed_only), limit),
    )
    return [_result(row) for row in rows]


def _result(row: tuple[int, int, str, str, str, str, int, str, str | None, float]) -> CanaryResult:
    seq, ts_ms, instance, role, model, canary, passed, detail, request_id, duration_ms = row
    return CanaryResult(seq, ts_ms, instance, role, model, canary, bool(passed), detail, request_id, float(duration_ms))
