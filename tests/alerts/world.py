"""A store, a clock that tests move, and records to put into it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.core.agreement import Document, Override
from engine.core.events import (
    AttemptRecord,
    BreakerRecord,
    FailoverRecord,
    Record,
    RequestOutcome,
    RequestRecord,
    Scope,
)
from engine.core.messages import Role
from engine.ids import new_id
from engine.recorder import Recorder
from engine.sqlite import Connection
from engine.store import Store
from tests.patience import PATIENCE_S

START_MS = 1_763_800_020_000  # a whole minute


@dataclass
class FakeClock:
    """Time that passes when a test says so; `step` moves the wall clock alone."""

    wall: int = START_MS
    mono: float = 1000.0

    def monotonic(self) -> float:
        return self.mono

    def wall_ms(self) -> int:
        return self.wall

    def pass_(self, seconds: float) -> None:
        self.wall += round(seconds * 1000)
        self.mono += seconds

    def step(self, seconds: float) -> None:
        self.wall += round(seconds * 1000)


def open_recorder(folder: Path, name: str = "switchgear.db") -> Recorder:
    return Recorder(Store(folder / name).open())


def evaluator_settings(store: str, url: str, every: str) -> str:
    """Settings for an evaluator in a process of its own, which has one receiver and does not wait to tell it."""
    return f"""
[store]
url = "sqlite:///{store}.db"
[alerts]
evaluate_every = "{every}"
group_wait = 0
group_interval = "1ms"
[[alerts.receivers]]
name = "ops"
kind = "webhook"
url = "{url}"
allow_private = true
"""


def request(ts_ms: int, **changes: Any) -> RequestRecord:
    """One finished call; `attempts` may be given as pairs of role and category."""
    role, outcome = changes.get("role", "primary"), changes.get("outcome", "ok")
    tried = changes.pop("attempts", [(role, "ok" if outcome == "ok" else "server_error")])
    plain: dict[str, Any] = {
        "id": new_id(), "ts_ms": ts_ms, "manager": "chat", "instance": "i", "epoch": 1, "active_role": "primary",
        "role": role, "model": role, "status_code": 200, "outcome": outcome,
        "code": None if outcome == "ok" else "provider_error", "failover_cause": None, "streamed": False,
        "duration_ms": 1000.0, "ttft_ms": None, "overhead_us": 10, "input_tokens": 10, "output_tokens": 5,
        "cost_usd": None, "finish_reason": "stop", **changes,
    }  # fmt: skip
    plain["outcome"] = RequestOutcome(plain["outcome"])
    attempts = tuple(
        AttemptRecord(n, ts_ms, who, who, None, category, plain["duration_ms"], 0.0, "closed")
        for n, (who, category) in enumerate(tried, 1)
    )
    return RequestRecord(attempts=attempts, **plain)


def move(ts_ms: int, epoch: int, *, to: str = "secondary", cause: str = "quorum") -> FailoverRecord:
    away = "primary" if to == "secondary" else "secondary"
    return FailoverRecord(new_id(), ts_ms, "chat", "i", Scope.ACTIVE, away, to, cause, None, epoch)


def breaker(ts_ms: int, to: str, before: str = "closed", role: str = "primary", instance: str = "i") -> BreakerRecord:
    return BreakerRecord(new_id(), ts_ms, "chat", instance, role, role, before, to, "test")


@dataclass
class World:
    """What a tick reads, put together by hand."""

    recorder: Recorder
    clock: Any = field(default_factory=FakeClock)
    epoch: int = 0

    def record(self, *records: Record) -> None:
        self.recorder.submit(records).wait(PATIENCE_S)

    def agree(self, active: str = "primary", manager: str = "chat", override_for: float | None = None) -> None:
        self.epoch += 1
        now = self.clock.wall_ms()
        pin = None
        if override_for is not None:
            end = now + round(override_for * 1000)
            pin = Override(Role(active), False, "r", "ana", override_for, end, self.epoch)
        document = Document(epoch=self.epoch, active=Role(active), since_ms=now, override=pin)
        self.execute(
            "INSERT INTO fleet_state VALUES (?, ?, ?, ?) ON CONFLICT (manager) DO UPDATE SET epoch = excluded.epoch,"
            " updated_ms = excluded.updated_ms, document = excluded.document",
            [manager, self.epoch, now, document.to_json()],
        )

    def beat(self, instance: str = "i", breakers: dict[str, str] | None = None, **gauges: Any) -> None:
        lines = {role: {"state": state} for role, state in (breakers or {}).items()}
        body = json.dumps({"managers": {"chat": {"lines": lines}}, **gauges})
        values = [instance, 10**9, self.clock.wall_ms(), body]
        self.execute("INSERT OR REPLACE INTO instances VALUES (?, 'h', '1', 0, 'b', ?, ?, ?)", values)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        def job(connection: Connection) -> list[Any]:
            return connection.execute(statement, list(values)).fetchall()

        return self.recorder.execute(job).result(PATIENCE_S)

    def rows(self, statement: str, *values: Any) -> list[Any]:
        with self.recorder.store.reader() as connection:
            return connection.execute(statement, list(values)).fetchall()
