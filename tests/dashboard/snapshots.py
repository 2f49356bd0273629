"""What a page may find in the store, written down as values: a calm hour, a failover, and the rows they are made of."""

from __future__ import annotations

from dataclasses import replace

from dashboard.happenings import Happening
from dashboard.reading import Latency, Live
from engine.core.agreement import Document
from engine.core.messages import Role
from engine.queries import AttemptPoint, EventKind, InstanceRow, TrafficPoint

NOW = 1_790_000_040_000
MINUTE = 60_000
NAMES = {"primary": "pro", "secondary": "flash"}
CLOSED = {"state": "closed", "samples": 20, "failures": 0}
OPEN = {"state": "open", "samples": 14, "failures": 9, "retry_in": 12.0}


def traffic(role: str = "primary", outcome: str = "ok", n: int = 100, at: int = NOW - MINUTE) -> TrafficPoint:
    return TrafficPoint(at, role, NAMES.get(role, "none"), outcome, n, n if outcome == "error" else 0, 0.0, 0, 0.0)


def tries(role: str, category: str, n: int) -> AttemptPoint:
    return AttemptPoint(NOW - MINUTE, role, NAMES[role], category, n)


def instance(primary: dict[str, object], secondary: dict[str, object], name: str = "a", **more: object) -> InstanceRow:
    manager = {"lines": {"primary": primary, "secondary": secondary}, "gate_good": 2, "gate_of": 5}
    return InstanceRow(name, "host", "1", 0, NOW, 15_000, {"managers": {"chat": manager}, "queue_length": 0} | more)


CALM = Live(
    NOW,
    "chat",
    NAMES,
    Document(7, since_ms=NOW - 3_600_000),
    instances=(instance(CLOSED, CLOSED),),
    traffic=(traffic(),),
    tries=(tries("primary", "ok", 100),),
    latency={"primary": Latency(2400.0, 700.0)},
    last_request_ms=NOW - 2_000,
    last_evaluation_ms=NOW - 5_000,
)
MOVED = replace(
    CALM,
    document=Document(8, Role.SECONDARY, 0.0, since_ms=NOW - 17 * MINUTE, hold_until_ms=NOW + 9_000),
    instances=(instance(OPEN, CLOSED),),
    traffic=(traffic("secondary", n=992), traffic("secondary", "error", 8)),
    tries=(tries("primary", "timeout", 9), tries("secondary", "ok", 992)),
    last_move=Happening(NOW, EventKind.FAILOVER, "x", "chat", "quorum", "secondary", "primary", "secondary"),
)


def move(minutes_ago: int, to: str, cause: str = "quorum") -> Happening:
    return Happening(NOW - minutes_ago * MINUTE, EventKind.FAILOVER, str(minutes_ago), "chat", cause, to, "", to)
