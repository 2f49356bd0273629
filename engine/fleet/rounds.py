"""A round of agreement: read the document, adopt it, cast the vote, decide, swap. No thread, no timer.

The agent's thread calls `turn` twice a second and whenever something happened; a simulated world calls the same
lines on its virtual clock. Requests never wait for a round: they are routed by what was adopted last, and protected
by their own breakers meanwhile. While the coordinator cannot be reached the last agreement stands: nothing fails
back, nothing advances, and that is said out loud.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engine.core import fleet
from engine.core.agreement import Document, DocumentError, Member, Vote
from engine.core.events import FailoverRecord, OverrideRecord, Scope
from engine.core.messages import Request, Role
from engine.core.switchboard import Adoption
from engine.fleet.base import Coordinator, CoordinatorUnavailable

if TYPE_CHECKING:
    from engine.clock import Clock
    from engine.exchange import Exchange, Sink

log = logging.getLogger(__name__)

ROUND_EVERY: Final = 0.5
"""Seconds between two rounds when nothing happens; a hint or a moved breaker makes one at once."""

MEMBER_TTL: Final = 15.0
"""Seconds after which an instance that says nothing counts as lost."""

BEAT_EVERY: Final = 2.0
"""Seconds between two heartbeats; they carry this process's gauges."""

STALL: Final = 2.0
"""Seconds of a round being late after which this process was paused, and its findings are too old to vote on."""

STALL_SILENCE: Final = 30.0
"""Seconds of abstaining after such a pause (Redis Sentinel's TILT mode)."""


def _nonce() -> str:
    return secrets.token_hex(4)


@dataclass(slots=True)
class Desk:
    """What a process remembers about its part in the agreement on one manager."""

    exchange: Exchange
    voted: Vote | None = None
    voted_at: float = 0.0
    probing: bool = False
    prober: Callable[[Request, Role], None] | None = None


class Rounds:
    """One process's part in the agreement, for all of its managers.

    Args:
        coordinator: Where the agreement is kept.
        sink: Where moves and expiries are recorded.
        clock: Where time comes from.
        local: Keeps the last agreement for a start without the coordinator; `None` where the coordinator does.
        nonce: Names one write, so that it can be recognised after an answer got lost.

    Attributes:
        reachable: Whether the coordinator answered last time; `None` before the first time.
        agreed_ms: When it last did, milliseconds UTC.
        trouble: What is wrong with the agreement, for people.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        sink: Sink,
        clock: Clock,
        *,
        local: Coordinator | None = None,
        nonce: Callable[[], str] = _nonce,
    ) -> None:
        self._coordinator = coordinator
        self._sink = sink
        self._clock = clock
        self._local = local
        self._nonce = nonce
        self._desks: dict[str, Desk] = {}
        self._beat_at = 0.0
        self._silent_until = 0.0
        self.reachable: bool | None = None
        self.agreed_ms: int | None = None
        self.trouble: str | None = None
        self._troubles: list[str] = []

    def add(self, exchange: Exchange) -> None:
        """Take on a manager."""
        self._desks = {**self._desks, exchange.name: Desk(exchange)}

    def probes_with(self, name: str, prober: Callable[[Request, Role], None]) -> None:
        """How synthetic probes of a manager are sent: by whichever driver serves it."""
        self._desks[name].prober = prober

    def probed(self, name: str) -> None:
        """A synthetic probe has ended, well or not."""
        self._desks[name].probing = False

    def member(self) -> Member:
        """This process as the fleet sees it."""
        raise NotImplementedError

    def stood_still(self, late: float) -> None:
        """Abstain for a while when this process was paused: what it found before is too old to vote on.

        Args:
            late: Seconds by which a round came later than planned.
        """
        if late > STALL:
            self._silent_until = self._clock.monotonic() + STALL_SILENCE
            log.warning("this process stood still for %.1f s; it abstains for %.0f s", late, STALL_SILENCE)

    def turn(self) -> None:
        """One round for every manager, then the probes that are due."""
        before = self.trouble
        self._troubles.clear()
        try:
            self._beat()
            for desk in self._desks.values():
                self._shielded(desk, self._round)
        except CoordinatorUnavailable as error:
            self._lost(error)
        else:
            if self.reachable is False:
                log.info("the coordinator is back; agreement resumes")
            self.reachable, self.trouble = True, "; ".join(self._troubles) or None
            self.agreed_ms = self._clock.wall_ms()
            if self.trouble is not None and self.trouble != before:
                log.error("%s; the last good agreement stands", self.trouble)
        for desk in self._desks.values():
            self._shielded(desk, self._probe)

    def _shielded(self, desk: Desk, act: Callable[[Desk], None]) -> None:
        """Do something for one manager; a mistake of ours there must not end the thread or keep the others waiting."""
        try:
            act(desk)
        except CoordinatorUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round is made
            self._troubles.append(f"{desk.exchange.name}: {type(error).__name__} in a round of agreement")
            self.failed(desk, error)

    def failed(self, desk: Desk, error: Exception) -> None:
        """A round for a manager met a mistake of ours."""
        log.error("a round of agreement on %s failed; the last agreement stands", desk.exchange.name, exc_info=error)

    def poke(self, name: str) -> None:
        """Something happened to a manager, so a round is worth making soon."""

    def refresh(self, name: str) -> None:
        """Adopt what is agreed now: an operator's act takes effect before it is answered.

        A manager that this process does not serve is somebody else's to adopt.
        """
        desk = self._desks.get(name)
        if desk is None:
            return
        try:
            document = self._coordinator.read(name)
        except (CoordinatorUnavailable, DocumentError):
            self.poke(name)
            return
        if document is not None:
            self._adopt(desk, document)

    def recall(self) -> None:
        """Begin with the agreement kept beside the records, in case the coordinator is away."""
        for desk in self._desks.values():
            document = None
            if self._local is not None:
                with suppress(CoordinatorUnavailable, DocumentError):  # a start without it is a start from nothing
                    document = self._local.read(desk.exchange.name)
            if document is not None:
                desk.exchange.adopt(document)

    def _lost(self, error: CoordinatorUnavailable) -> None:
        if self.reachable is not False:
            log.warning("%s; the last agreement stands until it is back", error)
        self.reachable, self.trouble = False, str(error)

    def _round(self, desk: Desk) -> None:
        exchange, coordinator = desk.exchange, self._coordinator
        try:
            document = coordinator.read(exchange.name)
        except DocumentError as error:
            self._troubles.append(f"{exchange.name}: {error}")
            return
        if document is None:
            document = self._found(exchange)
        self._adopt(desk, document)
        if document.epoch < exchange.board.document.epoch:
            self._regressed(exchange, document)
            return
        self._vote(desk)
        members = [member for member in coordinator.members() if _takes_part(member, exchange.name)]
        votes = coordinator.votes(exchange.name)
        live = sum(member.alive for member in members)
        seen = self._observation(exchange)
        with exchange.lock:
            exchange.board.instances = max(1, live)
            following = fleet.decide(document, votes, members, seen, exchange.policy.recovery, exchange.policy.fleet)
        if following is not None and coordinator.swap(exchange.name, document.epoch, following):
            self._swapped(desk, document, following)

    def _found(self, exchange: Exchange) -> Document:
        """The first document of a manager, or the one this process still knows when the store has lost it."""
        known = exchange.board.document
        document = known if known.epoch else Document(since_ms=self._clock.wall_ms(), epoch=1)
        self._coordinator.swap(exchange.name, None, document)
        return self._coordinator.read(exchange.name) or document

    def _regressed(self, exchange: Exchange, document: Document) -> None:
        """The store went back in time: refuse its document and offer the newer one again, one epoch later."""
        known = exchange.board.document
        self._troubles.append(f"{exchange.name}: the store holds epoch {document.epoch} after {known.epoch} was seen")
        self._coordinator.swap(exchange.name, document.epoch, known.following(cause="regressed"))

    def _observation(self, exchange: Exchange) -> fleet.Observation:
        board, clock = exchange.board, self._clock
        now = clock.monotonic()
        return fleet.Observation(
            now=now,
            wall_ms=clock.wall_ms(),
            active_seen=board.active_seen,
            document_seen=board.document_seen,
            writer=f"{exchange.identity.instance}/{self._nonce()}",
            override_over=board.document.override is not None and board.override(now) is None,
            forces_over=board.forces_ended(now),
        )

    def _vote(self, desk: Desk) -> None:
        """Cast the vote when it says something new, or before its lease ends."""
        exchange, clock = desk.exchange, self._clock
        vote = exchange.vote()
        now = clock.monotonic()
        if now < self._silent_until:
            return
        last, ttl = desk.voted, exchange.policy.fleet.vote_ttl
        if last is not None and _same(last, vote) and now - desk.voted_at < ttl / 3:
            return
        self._coordinator.vote(exchange.name, vote, ttl)
        desk.voted, desk.voted_at = vote, now

    def _swapped(self, desk: Desk, document: Document, following: Document) -> None:
        """What only the writer of a document records: the end of an override is an operator's act too."""
        self._adopt(desk, following)
        ended = document.override
        if ended is not None and following.override is None:
            record = OverrideRecord(
                id=desk.exchange.new_id(),
                ts_ms=self._clock.wall_ms(),
                manager=desk.exchange.name,
                action="expired",
                role=ended.role,
                strict=ended.strict,
                reason=ended.reason,
                actor=ended.by,
                expires_ms=ended.expires_ms,
                epoch=following.epoch,
            )
            self._sink.submit([record])

    def _adopt(self, desk: Desk, document: Document) -> None:
        adoption = desk.exchange.adopt(document)
        if adoption is None:
            return
        if adoption.moved:
            self._sink.submit([self._move(desk.exchange, adoption)])
        desk.voted = None
        self._beat_at = 0.0
        self._remember(desk, document)

    def _move(self, exchange: Exchange, adoption: Adoption) -> FailoverRecord:
        document = adoption.document
        return FailoverRecord(
            id=exchange.new_id(),
            ts_ms=self._clock.wall_ms(),
            manager=exchange.name,
            instance=exchange.identity.instance,
            scope=Scope.ACTIVE,
            from_role=adoption.previous.active,
            to_role=document.active,
            cause=document.cause,
            request_id=None,
            epoch=document.epoch,
            evidence=document.evidence,
        )

    # -- across restarts without the coordinator ---------------------------------------------------------------

    def _remember(self, desk: Desk, document: Document) -> None:
        """Keep the agreement beside the records, for a start without the coordinator."""
        local, name = self._local, desk.exchange.name
        if local is None:
            return
        try:
            known = local.read(name)
            if known is None or known.epoch < document.epoch:
                local.swap(name, known.epoch if known else None, document)
        except (CoordinatorUnavailable, DocumentError) as error:
            self._troubles.append(f"{name}: the agreement could not be kept for a restart: {error}")

    # -- synthetic probes and heartbeats -----------------------------------------------------------------------

    def _probe(self, desk: Desk) -> None:
        """Send a one-token probe where traffic is too thin to find out whether primary is well again."""
        exchange, clock = desk.exchange, self._clock
        if desk.prober is None or desk.probing or self.reachable is False:
            return
        with exchange.lock:
            due = exchange.board.synthetic_due(clock.monotonic())
        if not due:
            return
        request = Request(
            messages=({"role": "user", "content": "ping"},), max_output_tokens=1, id=exchange.new_id(), synthetic=True
        )
        desk.probing = True
        try:
            desk.prober(request, Role.PRIMARY)
        except BaseException:
            desk.probing = False
            raise

    def _beat(self) -> None:
        now = self._clock.monotonic()
        if now < self._beat_at:
            return
        self._beat_at = now + BEAT_EVERY
        member = self.member()
        if self._local is not None:
            try:
                self._local.register(member, MEMBER_TTL)  # metrics and dashboard read the store beside the records
            except CoordinatorUnavailable as error:
                self._troubles.append(str(error))
        self._coordinator.register(member, MEMBER_TTL)


def _same(last: Vote, vote: Vote) -> bool:
    """Whether two votes say the same, whatever their sequence number."""
    return (
        (last.primary.verdict, last.primary.reason) == (vote.primary.verdict, vote.primary.reason)
        and (last.secondary.verdict, last.secondary.reason) == (vote.secondary.verdict, vote.secondary.reason)
        and (last.epoch, last.ready, last.stage_ok, last.stage_failed)
        == (vote.epoch, vote.ready, vote.stage_ok, vote.stage_failed)
    )


def _takes_part(member: Member, manager: str) -> bool:
    """Whether an instance serves a manager at all: one that only watches, or serves others, has no say about it."""
    epochs = member.gauges.get("epochs")
    return not isinstance(epochs, Mapping) or manager in epochs
