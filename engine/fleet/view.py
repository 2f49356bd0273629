"""What the quorum sees of one manager, as values: every instance with its vote and evidence, and how hosts count.

Made by each instance from what it read in its last round, so `switchgear status` and the dashboard show the same
whichever store keeps the agreement, and from the store's own tables where that is the shared one. Bounded: a large
fleet is cut to `MOST_SEATS`, with those who say something kept before those who are silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import floor
from typing import Any, Final

from engine.core.agreement import Document, Member, Opinion, Verdict, Vote
from engine.core.fleet import Ballot, Tally
from engine.core.messages import Role
from engine.core.policy import FleetPolicy

MOST_SEATS: Final = 50
"""Instances shown; a page with more is read by nobody."""

LONGEST_REASON: Final = 120
"""Characters of a vote's reason and of an instance's trouble."""

SILENT: Final = Opinion()
"""Of who has not voted."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One instance in the fleet, for one manager.

    Attributes:
        instance: Its name.
        host: Its machine.
        version: Switchgear's version there.
        alive: Whether its lease is fresh.
        lost_for: Seconds since its lease ended, 0 while alive.
        epoch: The epoch it says it acts on, `None` when it has not said.
        lag: How many epochs that is behind the agreement.
        agreement_age: Seconds from its last reading of the agreement to its last report, by its own clock.
        coordinator_up: Whether the coordinator answered it.
        trouble: What is wrong with the agreement there, in its words.
        voted: Whether it has a fresh vote.
        primary: Its finding about primary.
        secondary: Its finding about secondary.
        ready: Whether its probe gate towards primary is passed.
        stage_ok: Good samples on primary in the stage of its epoch.
        stage_failed: Failed ones.
    """

    instance: str
    host: str
    version: str = ""
    alive: bool = True
    lost_for: float = 0.0
    epoch: int | None = None
    lag: int | None = None
    agreement_age: float | None = None
    coordinator_up: bool | None = None
    trouble: str | None = None
    voted: bool = False
    primary: Opinion = SILENT
    secondary: Opinion = SILENT
    ready: bool = False
    stage_ok: int = 0
    stage_failed: int = 0


@dataclass(frozen=True, slots=True)
class Count:
    """The hosts' findings about one model.

    Attributes:
        down: Hosts that say down.
        up: Hosts that say up.
        lost: Hosts that are silent and were there so recently that they still count.
        opinions: Hosts that count: down, up and lost.
        needed: Hosts that must say down for it to be so; 0 while nobody has an opinion.
        is_down: Whether enough do.
    """

    down: int
    up: int
    lost: int
    opinions: int
    needed: int
    is_down: bool


@dataclass(frozen=True, slots=True)
class FleetState:
    """The fleet as it agrees on one manager.

    Attributes:
        epoch: The agreement's epoch.
        at_ms: When this was seen, milliseconds UTC.
        quorum: Share of opinions that must be exceeded.
        live_hosts: Hosts with an instance alive.
        lost_hosts: Hosts that say nothing and were there less than the member grace ago.
        primary: The count about primary.
        secondary: The count about secondary.
        ready_hosts: Hosts whose probe gate towards primary is passed.
        ready: Whether those are enough for the first stage of a ramp.
        seats: The instances.
        left_out: How many more there are.
    """

    epoch: int
    at_ms: int
    quorum: float
    live_hosts: int
    lost_hosts: tuple[str, ...]
    primary: Count
    secondary: Count
    ready_hosts: int
    ready: bool
    seats: tuple[Seat, ...]
    left_out: int = 0

    def to_body(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> FleetState | None:
        """Read what `to_body` gave; `None` for anything else, such as an older version's."""
        try:
            return cls(
                **{
                    **body,
                    "lost_hosts": tuple(body["lost_hosts"]),
                    "primary": Count(**body["primary"]),
                    "secondary": Count(**body["secondary"]),
                    "seats": tuple(_seat_from(seat) for seat in body["seats"]),
                }
            )
        except (TypeError, ValueError, KeyError, AttributeError):
            return None


def _seat_from(body: Mapping[str, Any]) -> Seat:
    opinions = {role: Opinion(**{**body[role], "verdict": Verdict(body[role]["verdict"])}) for role in map(str, Role)}
    return Seat(**{**body, **opinions})


def serves(member: Member, manager: str) -> bool:
    """Whether an instance serves a manager at all: one that only watches, or serves others, has no say about it."""
    epochs = member.gauges.get("epochs")
    return not isinstance(epochs, Mapping) or manager in epochs


def fleet_state(
    manager: str,
    document: Document,
    votes: Sequence[Vote],
    members: Sequence[Member],
    policy: FleetPolicy,
    at_ms: int,
) -> FleetState:
    """What the quorum sees.

    Args:
        manager: Whose agreement.
        document: What is agreed.
        votes: Fresh votes about it.
        members: Instances alive and recently lost.
        policy: Quorum and grace.
        at_ms: When this was read, milliseconds UTC.
    """
    ballot = Ballot(votes, members, policy)
    cast = {vote.instance: vote for vote in votes}
    known = {member.instance: member for member in members}
    names = sorted(known.keys() | cast.keys(), key=lambda name: (name not in cast, not _alive(known.get(name)), name))
    seats = [_seat(manager, name, known.get(name), cast.get(name), document) for name in names[:MOST_SEATS]]
    return FleetState(
        epoch=document.epoch,
        at_ms=at_ms,
        quorum=policy.quorum,
        live_hosts=len(ballot.live_hosts),
        lost_hosts=tuple(sorted(ballot.lost_hosts))[:MOST_SEATS],
        primary=_count(ballot.tally(Role.PRIMARY), policy.quorum),
        secondary=_count(ballot.tally(Role.SECONDARY), policy.quorum),
        ready_hosts=len({vote.host for vote in votes if vote.ready}),
        ready=ballot.ready(),
        seats=tuple(sorted(seats, key=lambda seat: (seat.host, seat.instance))),
        left_out=len(names) - len(seats),
    )


def _alive(member: Member | None) -> bool:
    return member is None or member.alive


def _count(tally: Tally, quorum: float) -> Count:
    needed = max(floor(quorum * tally.opinions) + 1, min(2, max(tally.live, 1))) if tally.opinions else 0
    return Count(tally.down, tally.up, tally.lost, tally.opinions, needed, tally.is_down(quorum))


def _seat(manager: str, name: str, member: Member | None, vote: Vote | None, document: Document) -> Seat:
    gauges: Mapping[str, Any] = member.gauges if member is not None else {}
    epoch = _epoch(gauges, manager)
    if epoch is None and vote is not None:
        epoch = vote.epoch
    read, said = gauges.get("agreement_ms"), gauges.get("at_ms")
    trouble = gauges.get("trouble")
    seat = Seat(
        instance=name,
        host=member.host if member is not None else vote.host if vote is not None else "",
        version=member.version if member is not None else "",
        alive=_alive(member),
        lost_for=round(member.lost_for, 1) if member is not None else 0.0,
        epoch=epoch,
        lag=None if epoch is None else max(0, document.epoch - epoch),
        agreement_age=max(0.0, (said - read) / 1000) if isinstance(read, int) and isinstance(said, int) else None,
        coordinator_up=gauges.get("coordinator_up"),
        trouble=str(trouble)[:LONGEST_REASON] if trouble else None,
    )
    return seat if vote is None else _with_vote(seat, vote)


def _with_vote(seat: Seat, vote: Vote) -> Seat:
    return replace(
        seat,
        voted=True,
        primary=_brief(vote.primary),
        secondary=_brief(vote.secondary),
        ready=vote.ready,
        stage_ok=vote.stage_ok,
        stage_failed=vote.stage_failed,
    )


def _brief(seen: Opinion) -> Opinion:
    return replace(seen, reason=seen.reason[:LONGEST_REASON])


def _epoch(gauges: Mapping[str, Any], manager: str) -> int | None:
    epochs = gauges.get("epochs")
    found = epochs.get(manager) if isinstance(epochs, Mapping) else None
    return found if isinstance(found, int) else None
