"""Records for tests of the store: an ordinary one, with what a test cares about changed."""

from __future__ import annotations

from typing import Any

from engine.core.events import (
    AttemptRecord,
    BreakerRecord,
    CanaryRecord,
    FailoverRecord,
    OverrideRecord,
    RequestOutcome,
    RequestRecord,
    Scope,
)
from engine.ids import new_id

NOON = 1_800_000_000_000 // 60_000 * 60_000
PRO, FLASH = "gemini-2.5-pro", "gemini-2.5-flash"


def attempt(n: int = 1, **changes: Any) -> AttemptRecord:
    values: dict[str, Any] = {
        "n": n, "ts_ms": NOON, "role": "primary", "model": PRO, "status_code": 200, "category": "ok",
        "duration_ms": 800.0, "waited_ms": 0.0, "breaker_state": "closed", "input_tokens": 100, "output_tokens": 50,
        "cost_usd": 0.5,
    }  # fmt: skip
    return AttemptRecord(**{**values, **changes})


def request(**changes: Any) -> RequestRecord:
    ts_ms = changes.get("ts_ms", NOON)
    values: dict[str, Any] = {
        "id": new_id(), "ts_ms": ts_ms, "manager": "chat", "instance": "h-1", "epoch": 1, "active_role": "primary",
        "role": "primary", "model": PRO, "status_code": 200, "outcome": RequestOutcome.OK, "code": None,
        "failover_cause": None, "attempts": (attempt(ts_ms=ts_ms),), "streamed": False, "duration_ms": 810.0,
        "ttft_ms": None, "overhead_us": 300, "input_tokens": 100, "output_tokens": 50, "cost_usd": 0.5,
        "finish_reason": "stop", "prompt_text": "Why is the sky blue?",
    }  # fmt: skip
    return RequestRecord(**{**values, **changes})


def move(**changes: Any) -> FailoverRecord:
    values: dict[str, Any] = {
        "id": new_id(), "ts_ms": NOON, "manager": "chat", "instance": "h-1", "scope": Scope.ACTIVE,
        "from_role": "primary", "to_role": "secondary", "cause": "quorum", "request_id": None, "epoch": 2,
        "evidence": {"down": 2},
    }  # fmt: skip
    return FailoverRecord(**{**values, **changes})


def transition(**changes: Any) -> BreakerRecord:
    values: dict[str, Any] = {
        "id": new_id(), "ts_ms": NOON, "manager": "chat", "instance": "h-1", "role": "primary", "model": PRO,
        "from_state": "closed", "to_state": "open", "reason": "failure_rate", "evidence": {"failures": 5},
    }  # fmt: skip
    return BreakerRecord(**{**values, **changes})


def act(**changes: Any) -> OverrideRecord:
    values: dict[str, Any] = {
        "id": new_id(), "ts_ms": NOON, "manager": "chat", "action": "set", "role": "secondary", "strict": False,
        "reason": "maintenance", "actor": "ana", "expires_ms": NOON + 1000, "epoch": 3,
    }  # fmt: skip
    return OverrideRecord(**{**values, **changes})


def finding(**changes: Any) -> CanaryRecord:
    values: dict[str, Any] = {
        "id": new_id(), "ts_ms": NOON, "manager": "chat", "instance": "h-1", "role": "primary", "model": PRO,
        "canary": "arithmetic", "passed": True, "detail": "", "request_id": "r", "duration_ms": 400.0,
    }  # fmt: skip
    return CanaryRecord(**{**values, **changes})
