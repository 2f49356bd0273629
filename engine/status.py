"""What is active, since when and why: one manager as one process knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.core.messages import Role
from engine.fleet.gauges import manager_gauges

if TYPE_CHECKING:
    from engine.core.agreement import Document
    from engine.exchange import Exchange
    from engine.instance import Instance


@dataclass(frozen=True, slots=True)
class ManagerStatus:
    """The state of one manager.

    Attributes:
        manager: Its name.
        active_role: `primary` or `secondary`.
        active_model: The active model's name.
        models: Model names by role.
        since_ms: Wall time at which the active model last changed, `None` when it never did.
        cause: Why the last change of the agreement was made.
        epoch: The agreement's epoch.
        share: Share of traffic on primary, 0..1.
        document: The whole agreement.
        lines: Per role the breaker's state, its counts, and what the model's throttle says; times are seconds from now.
        gauges: The rest of what belongs to this process: in flight, gate, next probe.
        coordinator_up: Whether the agreement's store answers; `None` before the first round.
        trouble: What is wrong with the agreement, in words.
    """

    manager: str
    active_role: Role
    active_model: str
    models: Mapping[str, str]
    since_ms: int | None
    cause: str
    epoch: int
    share: float
    document: Document
    lines: Mapping[str, Any]
    gauges: Mapping[str, Any]
    coordinator_up: bool | None
    trouble: str | None


def status_of(exchange: Exchange, instance: Instance) -> ManagerStatus:
    """One manager's state, as this process knows it."""
    gauges = manager_gauges(exchange)
    document = exchange.board.document
    return ManagerStatus(
        manager=exchange.name,
        active_role=document.active,
        active_model=exchange.policy.model(document.active).name,
        models={str(role): exchange.policy.model(role).name for role in Role},
        since_ms=document.since_ms or None,
        cause=document.cause,
        epoch=document.epoch,
        share=document.share,
        document=document,
        lines=gauges.pop("lines"),
        gauges=gauges,
        coordinator_up=instance.agent.reachable,
        trouble=instance.agent.trouble,
    )
