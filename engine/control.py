"""What an operator can do, in one place: the command line, the HTTP control API and the dashboard all act through it.

An act is audited first, then swapped into the agreement by compare-and-swap, so it reaches every instance and is
never known only where it was typed. Who may act is decided here and not by hiding a button.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from engine.clock import Clock, SystemClock
from engine.config import Config
from engine.core import fleet
from engine.core.agreement import Document, DocumentError, Force, Override
from engine.core.breaker import BreakerState
from engine.core.errors import Conflict, InvalidRequest, Unauthorized, UnknownManager
from engine.core.events import FailoverRecord, OverrideRecord, Scope
from engine.core.messages import Role
from engine.durations import DurationError, describe, parse_duration
from engine.fleet.base import Coordinator
from engine.ids import new_id
from engine.recorder import Recorder

DEFAULT_TTL: Final = 3600.0
"""Seconds an override or a forced breaker lasts when nobody says."""

MAX_TTL: Final = 30 * 86_400.0
"""Seconds; the longest an override may last. There is no "for ever"."""

SWAP_TRIES: Final = 20
WITHDRAWN: Final = "withdrawn"
"""The action of an audit row that takes back the same actor's on the same epoch: somebody else's act became that."""

RECORD_WITHIN: Final = 10.0
"""Seconds an act waits for its audit row to be committed."""


class Rank(StrEnum):
    """What somebody may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts.

    Attributes:
        name: As the audit log names them.
        rank: What they may do.
    """

    name: str
    rank: Rank = Rank.OPERATOR


class Control:
    """Acts of operators on one configuration's managers.

    Args:
        config: The configuration.
        recorder: Where acts are audited.
        coordinator: Where the agreement is kept.
        clock: Where time comes from.
        on_change: Called with a manager's name once its document has changed.
    """

    def __init__(
        self,
        config: Config,
        recorder: Recorder,
        coordinator: Coordinator,
        *,
        clock: Clock | None = None,
        on_change: Callable[[str], None] | None = None,
        instance: str = "control",
    ) -> None:
        self._config = config
        self._recorder = recorder
        self._coordinator = coordinator
        self._clock = clock or SystemClock()
        self._on_change = on_change
        self._instance = instance

    def document(self, manager: str) -> Document:
        """What is agreed for a manager; raises `UnknownManager`."""
        if manager not in self._config.managers:
            known = ", ".join(sorted(self._config.managers))
            msg = f"there is no manager named {manager!r}; this configuration has {known}"
            raise UnknownManager(msg, param="manager")
        return self._coordinator.read(manager) or Document(since_ms=self._clock.wall_ms())

    def set_override(
        self,
        manager: str,
        role: Role | str,
        *,
        reason: str,
        actor: Actor,
        ttl: float | str | None = None,
        strict: bool = False,
        epoch: int | None = None,
    ) -> Document:
        """Pin a model.

        Args:
            manager: The manager's name.
            role: `primary` or `secondary`.
            reason: Why; required.
            actor: Who acts.
            ttl: How long it lasts, seconds or text such as `30m`; an hour by default.
            strict: Without fallback to the other model.
            epoch: The epoch the act was decided on; refused when that has moved.

        Returns:
            The document that holds the pin.

        Raises:
            Unauthorized: The actor may only look.
            InvalidRequest: No reason, an unknown role, or a time that is none.
            Conflict: The epoch has moved.
        """
        pinned, lasts = _role(role), _ttl(ttl)
        self._check(actor, reason)
        expires = self._clock.wall_ms() + int(lasts * 1000)

        def change(document: Document, seen: fleet.Observation) -> Document:
            pin = Override(pinned, strict, reason, actor.name, lasts, expires, document.epoch + 1)
            return fleet.pin(document, pin, seen)

        return self._act(manager, "set", change, actor, reason, pinned, strict=strict, expires=expires, epoch=epoch)

    def clear_override(self, manager: str, *, reason: str, actor: Actor, epoch: int | None = None) -> Document:
        """Return to automatic; without an override nothing changes. Raises as `set_override` does."""
        self._check(actor, reason)
        current = self.document(manager)
        if current.override is None:
            _expect(current, epoch)
            return current

        def change(document: Document, seen: fleet.Observation) -> Document | None:
            pin = document.override
            return None if pin is None else fleet.release(document, pin, seen, "override cleared")

        pin = current.override
        return self._act(manager, "clear", change, actor, reason, pin.role, strict=pin.strict, epoch=epoch)

    def force_breaker(
        self,
        manager: str,
        role: Role | str,
        state: str,
        *,
        reason: str,
        actor: Actor,
        ttl: float | str | None = None,
        epoch: int | None = None,
    ) -> Document:
        """Force a model's breaker on every instance, or let it decide again.

        Args:
            manager: The manager's name.
            role: Whose breaker.
            state: `forced_open`, `forced_closed`, or `auto`.
            reason: Why; required.
            actor: Who acts.
            ttl: How long it lasts, seconds or text such as `30m`; an hour by default.
            epoch: The epoch the act was decided on.

        Raises:
            Unauthorized, InvalidRequest, Conflict: As `set_override` does.
        """
        which, lasts = _role(role), _ttl(ttl)
        if state not in (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED, "auto"):
            msg = f"state must be forced_open, forced_closed or auto, not {state!r}"
            raise InvalidRequest(msg, param="state")
        self._check(actor, reason)
        expires = None if state == "auto" else self._clock.wall_ms() + int(lasts * 1000)

        def change(document: Document, seen: fleet.Observation) -> Document | None:
            if expires is None:
                return fleet.force(document, which, None, seen) if which in document.forced else None
            forced = Force(str(state), reason, actor.name, lasts, expires, document.epoch + 1)
            return fleet.force(document, which, forced, seen)

        return self._act(manager, str(state), change, actor, reason, which, expires=expires, epoch=epoch)

    # -- how an act is done ------------------------------------------------------------------------------------

    def _check(self, actor: Actor, reason: str) -> None:
        if actor.rank is not Rank.OPERATOR:
            msg = f"{actor.name} may look and not act; sign in with an operator key"
            raise Unauthorized(msg)
        if not reason.strip():
            msg = "a reason is required: it is what the next person on call reads"
            raise InvalidRequest(msg, param="reason")
        if not str(actor.name).strip():
            msg = "by must name who acts: it is what the audit log shows"
            raise InvalidRequest(msg, param="by")

    def _act(
        self,
        manager: str,
        action: str,
        change: Callable[[Document, fleet.Observation], Document | None],
        actor: Actor,
        reason: str,
        role: Role,
        *,
        strict: bool = False,
        expires: int | None = None,
        epoch: int | None = None,
    ) -> Document:
        """Audit, then swap; where somebody was faster, audit that too and try again on what is agreed now."""
        audit = partial(self._audit, manager, role=role, reason=reason, actor=actor, strict=strict)
        document = self.document(manager)
        for _ in range(SWAP_TRIES):
            _expect(document, epoch)
            following = change(document, self._observation())
            _readable(following)
            audit(action=action, epoch=document.epoch + 1, expires=expires)
            if following is None:
                return document
            if self._coordinator.swap(manager, document.epoch or None, following):
                self._moved(manager, document, following)
                return following
            audit(action=WITHDRAWN, epoch=document.epoch + 1)
            document = self.document(manager)
        msg = f"the agreement of {manager} changes too fast to act on; try again"
        raise Conflict(msg, retry_after=1.0)

    def _observation(self) -> fleet.Observation:
        now, wall = self._clock.monotonic(), self._clock.wall_ms()
        writer = f"{self._instance}/{secrets.token_hex(4)}"
        return fleet.Observation(now=now, wall_ms=wall, active_seen=now, document_seen=now, writer=writer)

    def _audit(
        self,
        manager: str,
        *,
        action: str,
        role: Role,
        reason: str,
        actor: Actor,
        epoch: int,
        strict: bool,
        expires: int | None = None,
    ) -> None:
        record = OverrideRecord(
            new_id(), self._clock.wall_ms(), manager, action, role, strict, reason.strip(), actor.name, expires, epoch
        )
        ticket = self._recorder.submit([record], committed=True)
        ticket.wait(RECORD_WITHIN)
        if ticket.error is not None:
            raise ticket.error

    def _moved(self, manager: str, before: Document, after: Document) -> None:
        """Record the move here too: the instance that serves may be down, and the row is unique by epoch."""
        if before.active is not after.active:
            record = FailoverRecord(
                id=new_id(),
                ts_ms=self._clock.wall_ms(),
                manager=manager,
                instance=self._instance,
                scope=Scope.ACTIVE,
                from_role=before.active,
                to_role=after.active,
                cause=after.cause,
                request_id=None,
                epoch=after.epoch,
                evidence=after.evidence,
            )
            self._recorder.submit([record], committed=True).wait(RECORD_WITHIN)
        if self._on_change is not None:
            self._on_change(manager)


def _role(role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError:
        msg = f"role must be primary or secondary, not {role!r}"
        raise InvalidRequest(msg, param="role") from None


def _readable(document: Document | None) -> None:
    """Refuse an act that no instance could read.

    Who calls from Python may pass anything, and one document that cannot be read would stop every instance from
    agreeing on anything.
    """
    try:
        if document is not None:
            Document.from_json(document.to_json())
    except (DocumentError, TypeError) as error:
        msg = f"the act cannot be written down: {error}"
        raise InvalidRequest(msg) from error


def _ttl(ttl: float | str | None) -> float:
    try:
        lasts = DEFAULT_TTL if ttl is None else ttl if isinstance(ttl, float) else parse_duration(ttl)
    except DurationError as error:
        msg = f"ttl: {error}"
        raise InvalidRequest(msg, param="ttl") from None
    if not 0 < lasts <= MAX_TTL:  # also refuses NaN
        said = describe(lasts) if 0 < lasts < math.inf else f"{lasts:g} s"
        msg = f"an act must last more than 0 s and at most {describe(MAX_TTL)}, not {said}"
        raise InvalidRequest(msg, param="ttl")
    return lasts


def _expect(document: Document, epoch: int | None) -> None:
    if epoch is not None and document.epoch != epoch:
        msg = f"the agreement has moved from epoch {epoch} to {document.epoch} since you looked; look again, then act"
        raise Conflict(msg, param="epoch")
