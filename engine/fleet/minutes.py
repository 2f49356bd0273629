"""What a round leaves on record: moves of the active model, and pins that ended by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engine.core.agreement import Document, Override
from engine.core.events import FailoverRecord, OverrideRecord, Scope
from engine.core.outcomes import Cause
from engine.core.switchboard import Adoption

if TYPE_CHECKING:
    from engine.exchange import Exchange

CAUSES: Final = frozenset(Cause)

NEWS_MS: Final = 3_600_000
"""Milliseconds; a process that starts without memory records the last move if it is younger. An older one is in the
store, or was never this store's, and must not be counted again once its row was deleted for its age."""


def move_of(exchange: Exchange, adoption: Adoption, *, catching_up: bool) -> FailoverRecord | None:
    """The move of the active model that an adoption brought, under the epoch that made it.

    The store keeps one row for a manager and epoch, so whoever adopts it may write it.

    Args:
        exchange: The manager.
        adoption: What was adopted.
        catching_up: Whether this process has just started, so that the move may be long over.

    Returns:
        The record, `None` when nothing moved.
    """
    document, previous = adoption.document, adoption.previous
    now_ms = exchange.clock.wall_ms()
    if not (adoption.moved or document.moved > previous.moved):
        return None
    if catching_up and previous.epoch == 0 and now_ms - document.since_ms > NEWS_MS:
        return None
    made_here = document.moved in (document.epoch, 0)
    cause = document.cause if made_here else document.moved_by
    return FailoverRecord(
        id=exchange.new_id(),
        ts_ms=min(now_ms, document.since_ms or now_ms) if catching_up else now_ms,
        manager=exchange.name,
        instance=exchange.identity.instance,
        scope=Scope.ACTIVE,
        from_role=document.active.other,
        to_role=document.active,
        cause=cause if cause in CAUSES else Cause.QUORUM,
        request_id=None,
        epoch=document.moved or document.epoch,
        evidence=document.evidence if made_here else {},
    )


def expiry_of(exchange: Exchange, ended: Override, document: Document) -> OverrideRecord:
    """The end of a pin that outlived its time; an operator's act too, written by the instance that ended it."""
    return OverrideRecord(
        id=exchange.new_id(),
        ts_ms=exchange.clock.wall_ms(),
        manager=exchange.name,
        action="expired",
        role=ended.role,
        strict=ended.strict,
        reason=ended.reason,
        actor=ended.by,
        expires_ms=ended.expires_ms,
        epoch=document.epoch,
    )
