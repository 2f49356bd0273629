"""What is worth recording, as values: one finished request with its attempts, and every move that explains it.

These mirror the tables column by column; the recorder writes them and nothing else. Wall time (`ts_ms`) is given
by whoever records: the core itself only knows a monotonic `now`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any

from engine.core.value import value


class RequestOutcome(StrEnum):
    """How a request ended for its caller."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    SHED = "shed"


class Scope(StrEnum):
    """Whether one request went to the other model, or the active model itself moved."""

    REQUEST = "request"
    ACTIVE = "active"


@value
class AttemptRecord:
    """One try on one model; `duration_ms` is the try itself, `waited_ms` what came before it."""

    n: int
    ts_ms: int
    role: str
    model: str
    status_code: int | None
    category: str
    duration_ms: float
    waited_ms: float
    breaker_state: str
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    usage_estimated: bool = False


@value
class FailoverRecord:
    """One move to the other model; for scope `active` unique by manager and epoch."""

    id: str
    ts_ms: int
    manager: str
    instance: str
    scope: Scope
    from_role: str
    to_role: str
    cause: str
    request_id: str | None
    epoch: int
    evidence: Mapping[str, Any] = field(default_factory=dict)


@value
class BreakerRecord:
    """One breaker transition with what justified it."""

    id: str
    ts_ms: int
    manager: str
    instance: str
    role: str
    model: str
    from_state: str
    to_state: str
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@value
class OverrideRecord:
    """One act of an operator, or the expiry of one; the audit log."""

    id: str
    ts_ms: int
    manager: str
    action: str
    role: str | None
    strict: bool
    reason: str
    actor: str
    expires_ms: int | None
    epoch: int


@value
class RequestRecord:
    """One finished call. `ts_ms` is its finish; `role` and `model` are `none` when nothing was tried."""

    id: str
    ts_ms: int
    manager: str
    instance: str
    epoch: int
    active_role: str
    role: str
    model: str
    status_code: int
    outcome: RequestOutcome
    code: str | None
    failover_cause: str | None
    attempts: tuple[AttemptRecord, ...]
    streamed: bool
    duration_ms: float
    ttft_ms: float | None
    overhead_us: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    finish_reason: str | None
    synthetic: bool = False
    prompt_text: str | None = None
    answer_text: str | None = None
    failovers: tuple[FailoverRecord, ...] = ()


@value
class CanaryRecord:
    """What one canary found about one model; `detail` names the properties that do not hold."""

    id: str
    ts_ms: int
    manager: str
    instance: str
    role: str
    model: str
    canary: str
    passed: bool
    detail: str
    request_id: str
    duration_ms: float


Record = RequestRecord | FailoverRecord | BreakerRecord | OverrideRecord | CanaryRecord

Records = Sequence[Record] | Callable[[], Sequence[Record]]
"""What is to be recorded, or what makes it once its caller has gone on."""


def listed(records: Records) -> Sequence[Record]:
    """The records, made if need be."""
    return records() if callable(records) else records
