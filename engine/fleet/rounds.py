"""A round of agreement: read the document, adopt it, cast the vote, decide, swap. No thread, no timer.

The agent's thread calls `turn` twice a second and whenever something happened; a simulated world calls the same
lines on its virtual clock. Requests never wait for a round: they are routed by what was adopted last, and protected
by their own breakers meanwhile. While the coordinator cannot be reached the last agreement stands: nothing fails
back, nothing advances, and that is said out loud.
"""

from __future__ import annotations

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from engine.core import fleet
from engine.core.agreement import Document, DocumentError, Member
from engine.core.messages import Request, Role
from engine.fleet.base import Coordinator, CoordinatorUnavailable
from engine.fleet.desk import Desk
from engine.fleet.minutes import expiry_of, move_of
from engine.fleet.troubles import Troubles
from engine.fleet.view import serves

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

LONGEST_TURN: Final = 15.0
"""Seconds that a turn may take while a coordinator fails slowly; what is longer was a pause of this process."""

STALL_SILENCE: Final = 30.0
"""Seconds of abstaining after such a pause (Redis Sentinel's TILT mode)."""

PATIENCE: Final = 1.0
"""Seconds of a turn after which a coordinator that fails is left alone until the next one. Where one manager's
document is refused at once, the others are still agreed on; where nothing answers, nobody waits for each in turn."""

SKEW: Final = 120.0
"""Seconds that a process which did not see a pin begin leaves to other hosts to end it: its wall clock may be ahead."""


def _nonce() -> str:
    return secrets.token_hex(4)


class Rounds(ABC):
    """One process's part in the agreement, for all of its managers.

    Args:
        coordinator: Where the agreement is kept.
        sink: Where moves and expiries are recorded.
        clock: Where time comes from.
        local: Keeps the last agreement for a start without the coordinator; `None` where the coordinator does.
        nonce: Names one write, so that it can be recognised after an answer got lost.

    Attributes:
        reachable: Whether the coordinator answered last time; `None` before the first time.
        agreed_ms: When every manager's agreement was last read, milliseconds UTC.
        regressed_ms: When the store was last found to have gone back in time, milliseconds UTC.
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
        self._begun = False
        self._turns_lost = 0
        self.agreed_ms: int | None = None
        self.regressed_ms: int | None = None
        self.trouble: str | None = None
        self._troubles = Troubles()

    def add(self, exchange: Exchange) -> None:
        """Take on a manager."""
        desk = Desk(exchange)
        if self._begun and self._local is not None:
            desk.recall(self._local)
        self._desks = {**self._desks, exchange.name: desk}

    def probes_with(self, name: str, prober: Callable[[Request, Role], None]) -> None:
        """How synthetic probes of a manager are sent: by whichever driver serves it."""
        self._desks[name].prober = prober

    def probed(self, name: str) -> None:
        """A synthetic probe has ended, well or not."""
        self._desks[name].probing = False

    @abstractmethod
    def member(self) -> Member:
        """This process as the fleet sees it."""

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
        began = self._clock.monotonic()
        self._troubles.begin(began)
        error = self._agree()
        self.stood_still(self._clock.monotonic() - began - LONGEST_TURN)
        self._troubles.say()
        if error is not None:
            self._lost(error)
        else:
            self._answered()
        for desk in self._desks.values():
            self._shielded(desk, self._probe)

    def _agree(self) -> CoordinatorUnavailable | None:
        """A heartbeat and a round for every manager; returns what the coordinator first failed with."""
        until = self._clock.monotonic() + PATIENCE
        failed: CoordinatorUnavailable | None = None
        try:
            self._beat()
        except CoordinatorUnavailable as error:
            failed = error
        desks = list(self._desks.values())
        first = self._turns_lost % max(1, len(desks))  # so that no manager's trouble keeps the same others waiting
        for desk in desks[first:] + desks[:first]:
            if failed is None or self._clock.monotonic() < until:
                try:
                    self._shielded(desk, self._round)
                    continue
                except CoordinatorUnavailable as error:
                    failed = failed or error
            desk.exchange.vote()  # only its housekeeping: permits that never came back expire without a coordinator
        self._turns_lost += failed is not None
        return failed

    def _answered(self) -> None:
        if self.reachable is False:
            log.info("the coordinator is back; agreement resumes")
        self.reachable, self.trouble = True, self._troubles.text()
        if not self._troubles.unread:
            self.agreed_ms = self._clock.wall_ms()

    def _lost(self, error: CoordinatorUnavailable) -> None:
        if self.reachable is not False:
            known = any(desk.exchange.board.document.epoch for desk in self._desks.values())
            stands = "the last agreement stands" if known else "nothing was agreed here yet, so primary serves,"
            log.warning("%s; %s until it is back", error, stands)
        self.reachable, self.trouble = False, "; ".join(filter(None, (str(error), self._troubles.text())))

    def _shielded(self, desk: Desk, act: Callable[[Desk], None]) -> None:
        """Do something for one manager; a mistake of ours there must not end the thread or keep the others waiting."""
        try:
            act(desk)
        except CoordinatorUnavailable:
            raise
        except DocumentError as error:
            self._troubles.note_unread(f"{desk.exchange.name}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round is made
            self._troubles.note_unread(f"{desk.exchange.name}: {type(error).__name__} in a round of agreement")
            self.failed(desk, error)

    def failed(self, desk: Desk, error: Exception) -> None:
        """A round for a manager met a mistake of ours."""
        log.error("a round of agreement on %s failed; the last agreement stands", desk.exchange.name, exc_info=error)

    def poke(self, name: str) -> None:  # noqa: B027 - who makes rounds without a thread has nothing to do here
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

    def _round(self, desk: Desk) -> None:
        exchange, coordinator = desk.exchange, self._coordinator
        document = coordinator.read(exchange.name)
        if document is None:
            document = self._found(desk)
        self._adopt(desk, document)
        if self._is_behind(exchange, document):
            self._go_on_from_known(desk)
            return
        self._vote(desk)
        read_at = self._clock.monotonic()
        members = [member for member in coordinator.members() if serves(member, exchange.name)]
        votes = coordinator.votes(exchange.name)
        desk.votes, desk.members = votes, members
        desk.seen_ms = self._clock.wall_ms()
        live = sum(member.alive for member in members)
        seen = self._observation(exchange, members)
        with exchange.lock:
            exchange.board.instances = max(1, live)
            following = fleet.decide(document, votes, members, seen, exchange.policy.recovery, exchange.policy.fleet)
        if self._clock.monotonic() - read_at >= exchange.policy.fleet.vote_ttl:
            return  # paused meanwhile: these votes are nobody's any more
        if following is not None and coordinator.swap(exchange.name, document.epoch, following):
            self._swapped(desk, document, following)

    # -- what the store has lost ---------------------------------------------------------------------------------

    def _found(self, desk: Desk) -> Document:
        """The first document of a manager, or the one this process still knows when the store has lost it."""
        exchange = desk.exchange
        known = exchange.board.document
        if known.epoch and desk.caught_up:
            lost = f"the coordinator lost the agreement; epoch {known.epoch} is written again"
            self._regressed(f"{exchange.name}: {lost}")
        fresh = Document(since_ms=self._clock.wall_ms(), epoch=1, writer=self._writer(exchange))
        document = known if known.epoch else fresh
        self._coordinator.swap(exchange.name, None, document)
        return self._coordinator.read(exchange.name) or document

    @staticmethod
    def _is_behind(exchange: Exchange, document: Document) -> bool:
        """Whether the store forgot something: an older epoch, or the same one with another content."""
        known = exchange.board.document
        return document.epoch < known.epoch or (document.epoch == known.epoch and not document.is_same(known))

    def _go_on_from_known(self, desk: Desk) -> None:
        """The store went back in time: refuse its document and offer the known one again, one epoch later."""
        exchange = desk.exchange
        document = self._coordinator.read(exchange.name)
        if document is None or not self._is_behind(exchange, document):
            return  # an operator's act came between reading and looking, or the next round will see
        known = exchange.board.document
        self._regressed(
            f"{exchange.name}: the coordinator went back to epoch {document.epoch} by {document.writer or 'nobody'} "
            f"after epoch {known.epoch} by {known.writer or 'nobody'} was agreed; it is refused and written anew"
        )
        refused = {"refused_epoch": document.epoch, "refused_writer": document.writer}
        following = known.following(cause="regressed", writer=self._writer(exchange), evidence=refused)
        if self._coordinator.swap(exchange.name, document.epoch, following):
            self._adopt(desk, following)

    def _regressed(self, text: str) -> None:
        self.regressed_ms = self._clock.wall_ms()
        self._troubles.keep(text, self._clock.monotonic())

    # -- a round's parts -----------------------------------------------------------------------------------------

    def _writer(self, exchange: Exchange) -> str:
        return f"{exchange.identity.instance}/{self._nonce()}"

    def _observation(self, exchange: Exchange, members: Sequence[Member]) -> fleet.Observation:
        board, clock = exchange.board, self._clock
        now = clock.monotonic()
        others = any(member.alive and member.host != exchange.identity.host for member in members)
        allowance = SKEW if others else 0.0
        return fleet.Observation(
            now=now,
            wall_ms=clock.wall_ms(),
            active_seen=board.active_seen,
            document_seen=board.document_seen,
            writer=self._writer(exchange),
            override_over=board.override_ended(now, allowance),
            forces_over=board.forces_ended(now, allowance),
        )

    def _vote(self, desk: Desk) -> None:
        """Say what this process finds, unless it was paused."""
        vote, now = desk.exchange.vote(), self._clock.monotonic()
        if now >= self._silent_until:
            desk.cast(self._coordinator, vote, now)

    def _swapped(self, desk: Desk, document: Document, following: Document) -> None:
        """What only the writer of a document records: the end of an override is an operator's act too."""
        self._adopt(desk, following)
        ended = document.override
        if ended is not None and following.override is None:
            self._sink.submit([expiry_of(desk.exchange, ended, following)])

    def _adopt(self, desk: Desk, document: Document) -> None:
        catching_up = not desk.caught_up
        desk.caught_up = True
        adoption = desk.exchange.adopt(document, estimate=catching_up)
        if adoption is None:
            return
        move = move_of(desk.exchange, adoption, catching_up=catching_up)
        if move is not None:
            self._sink.submit([move])
        desk.voted = None
        self._beat_at = 0.0
        trouble = None if self._local is None else desk.remember(self._local, document)
        if trouble is not None:
            self._troubles.note(trouble)

    # -- across restarts without the coordinator ---------------------------------------------------------------

    def recall(self) -> None:
        """Begin with the agreement kept beside the records, in case the coordinator is away."""
        self._begun = True
        if self._local is not None:
            for desk in self._desks.values():
                desk.recall(self._local)

    # -- synthetic probes and heartbeats -----------------------------------------------------------------------

    def _probe(self, desk: Desk) -> None:
        """Send a one-token probe where no request comes to find out whether a model is well again."""
        exchange, now = desk.exchange, self._clock.monotonic()
        if desk.prober is None or desk.probing or self.reachable is False:
            return
        with exchange.lock:
            board = exchange.board
            role = Role.PRIMARY if board.synthetic_due(now) else Role.SECONDARY
            if role is Role.SECONDARY and not board.fallback_due(now):
                return
            if role is Role.SECONDARY:
                board.fallback_asked(now)
        request = Request(
            messages=({"role": "user", "content": "ping"},), max_output_tokens=1, id=exchange.new_id(), synthetic=True
        )
        desk.probing = True
        try:
            desk.prober(request, role)
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
                # Metrics and dashboard read the store beside the records; the others' votes are nowhere else in it.
                self._local.register(replace(member, gauges={**member.gauges, "fleet": self._views()}), MEMBER_TTL)
            except CoordinatorUnavailable as error:
                self._troubles.note(str(error))
        self._coordinator.register(member, MEMBER_TTL)

    def _views(self) -> dict[str, Any]:
        views = {name: desk.view() for name, desk in self._desks.items()}
        return {name: view.to_body() for name, view in views.items() if view is not None}
