"""Events of the store in one flat shape, which ribbons, lists and incidents are made from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from engine.queries import Event, EventKind

_GROUP_LABEL = re.compile(r'(\w+)="([^"]*)"')
"""A label in the identity of a notification's group, `{}:{alertname="X", manager="chat"}`."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the merged timeline.

    Attributes:
        ts_ms: When.
        kind: Which table it is from.
        id: Of its row.
        manager: Whose, empty for the store's and for notifications that do not say.
        what: The kind's own word: a cause, a state, an action.
        role: The model it is about.
        before: State or role before.
        after: State or role after.
        epoch: Of the agreement.
        who: Instance, actor, rule or receiver.
        reason: In words.
        evidence: What justified it.
    """

    ts_ms: int
    kind: EventKind
    id: str
    manager: str
    what: str
    role: str | None = None
    before: str | None = None
    after: str | None = None
    epoch: int | None = None
    who: str = ""
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


def happening(event: Event) -> Happening:
    """One event in the flat shape."""
    return Happening(event.ts_ms, event.kind, event.id, **{"manager": event.manager} | _TOLD[event.kind](event.detail))


def _of_move(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": row["cause"],
        "role": row["to_role"],
        "before": row["from_role"],
        "after": row["to_role"],
        "epoch": row["epoch"],
        "who": row["instance"],
        "evidence": row["evidence"] or NOTHING,
    }


def _of_breaker(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": row["to_state"],
        "role": row["role"],
        "before": row["from_state"],
        "after": row["to_state"],
        "who": row["instance"],
        "reason": row["reason"],
        "evidence": row["evidence"] or NOTHING,
    }


def _of_override(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": row["action"],
        "role": row["role"],
        "after": row["role"],
        "epoch": row["epoch"],
        "who": row["actor"],
        "reason": row["reason"],
        "evidence": {"strict": bool(row["strict"]), "expires_ms": row["expires_ms"]},
    }


def _of_agreement(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": row["cause"],
        "role": row["active"],
        "after": row["active"],
        "epoch": row["epoch"],
        "who": row["instance"],
        "evidence": {"share": row["share"], "stage": row["stage"], "ramp_aborted": bool(row["ramp_aborted"])},
    }


def _of_alert(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": row["to_state"],
        "before": row["from_state"],
        "after": row["to_state"],
        "who": row["rule"],
        "reason": str((row["annotations"] or NOTHING).get("summary", "")),
        "evidence": {"value": row["value"], "labels": row["labels"], "fingerprint": row["fingerprint"]},
    }


def _of_delivery(row: Mapping[str, Any]) -> dict[str, Any]:
    failed = row["error"] is not None or (row["status_code"] or 0) >= 300
    group = dict(_GROUP_LABEL.findall(row["group"] or ""))
    attempt = {key: row[key] for key in ("status_code", "duration_ms", "n", "outbox_id")}
    return {
        "manager": group.get("manager", ""),
        "what": "failed" if failed else "delivered",
        "after": row["state"],
        "who": row["receiver"] or "",
        "reason": row["error"] or "",
        "evidence": attempt | {"rule": group.get("alertname")},
    }


_TOLD: Mapping[EventKind, Callable[[Mapping[str, Any]], dict[str, Any]]] = MappingProxyType(
    {
        EventKind.FAILOVER: _of_move,
        EventKind.REQUEST_FAILOVER: _of_move,
        EventKind.BREAKER: _of_breaker,
        EventKind.OVERRIDE: _of_override,
        EventKind.AGREEMENT: _of_agreement,
        EventKind.ALERT: _of_alert,
        EventKind.DELIVERY: _of_delivery,
    }
)


def happenings(events: Iterable[Event]) -> tuple[Happening, ...]:
    """Events in the flat shape, in their order."""
    return tuple(happening(event) for event in events)
