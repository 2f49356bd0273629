"""Events of the store in one flat shape, which ribbons, lists and incidents are made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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
    row = event.detail
    head = (event.ts_ms, event.kind, event.id, event.manager)
    if event.kind in (EventKind.FAILOVER, EventKind.REQUEST_FAILOVER):
        return Happening(
            *head,
            row["cause"],
            row["to_role"],
            row["from_role"],
            row["to_role"],
            row["epoch"],
            row["instance"],
            "",
            row["evidence"] or NOTHING,
        )
    if event.kind is EventKind.BREAKER:
        return Happening(
            *head,
            row["to_state"],
            row["role"],
            row["from_state"],
            row["to_state"],
            None,
            row["instance"],
            row["reason"],
            row["evidence"] or NOTHING,
        )
    if event.kind is EventKind.OVERRIDE:
        return Happening(
            *head,
            row["action"],
            row["role"],
            None,
            row["role"],
            row["epoch"],
            row["actor"],
            row["reason"],
            {"strict": bool(row["strict"]), "expires_ms": row["expires_ms"]},
        )
    if event.kind is EventKind.AGREEMENT:
        return Happening(
            *head,
            row["cause"],
            row["active"],
            None,
            row["active"],
            row["epoch"],
            row["instance"],
            "",
            {"share": row["share"], "stage": row["stage"], "ramp_aborted": bool(row["ramp_aborted"])},
        )
    if event.kind is EventKind.ALERT:
        return Happening(
            *head,
            row["to_state"],
            None,
            row["from_state"],
            row["to_state"],
            None,
            row["rule"],
            str((row["annotations"] or NOTHING).get("summary", "")),
            {"value": row["value"], "labels": row["labels"], "fingerprint": row["fingerprint"]},
        )
    failed = row["error"] is not None or (row["status_code"] or 0) >= 300
    group = dict(_GROUP_LABEL.findall(row["group"] or ""))
    return Happening(
        *head[:-1],
        group.get("manager", ""),
        "failed" if failed else "delivered",
        None,
        None,
        row["state"],
        None,
        row["receiver"] or "",
        row["error"] or "",
        {key: row[key] for key in ("status_code", "duration_ms", "n", "outbox_id")} | {"rule": group.get("alertname")},
    )


def happenings(events: Iterable[Event]) -> tuple[Happening, ...]:
    """Events in the flat shape, in their order."""
    return tuple(happening(event) for event in events)
