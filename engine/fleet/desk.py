"""One process's part in the agreement on one manager: what it voted, what it last read, what it keeps for a restart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.core.agreement import Document, DocumentError, Member, Vote
from engine.core.messages import Request, Role
from engine.fleet.base import Coordinator, CoordinatorUnavailable
from engine.fleet.view import FleetState, fleet_state

if TYPE_CHECKING:
    from engine.exchange import Exchange


@dataclass(slots=True)
class Desk:
    """What a process remembers about its part in the agreement on one manager.

    Attributes:
        exchange: The manager.
        caught_up: Whether the agreement was read since this process started; what came before was not seen to happen.
        voted: The last vote cast; `None` has the next one cast whatever it says.
        voted_at: When, monotonic seconds.
        votes: All fresh votes as last read.
        members: The instances as last read.
        seen_ms: When those were read, milliseconds UTC; 0 for never.
        probing: Whether a synthetic probe is under way.
        prober: Sends one.
    """

    exchange: Exchange
    caught_up: bool = False
    voted: Vote | None = None
    voted_at: float = 0.0
    votes: Sequence[Vote] = ()
    members: Sequence[Member] = ()
    seen_ms: int = 0
    probing: bool = False
    prober: Callable[[Request, Role], None] | None = None

    @property
    def name(self) -> str:
        """The manager's name."""
        return self.exchange.name

    def cast(self, coordinator: Coordinator, vote: Vote, now: float) -> None:
        """Cast a vote when it says something new, or before the lease of the last one ends.

        Args:
            coordinator: Where to.
            vote: What this process finds.
            now: Monotonic seconds.
        """
        ttl = self.exchange.policy.fleet.vote_ttl
        if self.voted is not None and _same(self.voted, vote) and now - self.voted_at < ttl / 3:
            return
        coordinator.vote(self.name, vote, ttl)
        self.voted, self.voted_at = vote, now

    def view(self) -> FleetState | None:
        """What the quorum saw when this process last looked; `None` before that."""
        if not self.seen_ms:
            return None
        document, policy = self.exchange.board.document, self.exchange.policy.fleet
        return fleet_state(self.name, document, self.votes, self.members, policy, self.seen_ms)

    # -- across restarts without the coordinator ---------------------------------------------------------------

    def recall(self, local: Coordinator) -> None:
        """Begin with the agreement kept beside the records, and with the size that the fleet had."""
        board = self.exchange.board
        with suppress(CoordinatorUnavailable, DocumentError):  # a start without it is a start from nothing
            document = local.read(self.name)
            if document is not None:
                self.exchange.adopt(document, estimate=True)
            sizes = [member.gauges.get("instances") for member in local.members()]
            board.instances = max([board.instances, *(size for size in sizes if isinstance(size, int))])

    def remember(self, local: Coordinator, document: Document) -> str | None:
        """Keep an agreement beside the records, for a start without the coordinator.

        Returns:
            What went wrong, in words; `None` when it is kept.
        """
        try:
            known = local.read(self.name)
            if known is None or known.epoch < document.epoch:
                local.swap(self.name, known.epoch if known else None, document)
        except (CoordinatorUnavailable, DocumentError) as error:
            return f"{self.name}: the agreement could not be kept for a restart: {error}"
        return None


def _same(last: Vote, vote: Vote) -> bool:
    """Whether two votes say the same, whatever their sequence number."""
    return (
        (last.primary.verdict, last.primary.reason) == (vote.primary.verdict, vote.primary.reason)
        and (last.secondary.verdict, last.secondary.reason) == (vote.secondary.verdict, vote.secondary.reason)
        and (last.epoch, last.ready, last.stage_ok, last.stage_failed)
        == (vote.epoch, vote.ready, vote.stage_ok, vote.stage_failed)
    )
