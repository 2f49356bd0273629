"""The store of the agreement in a simulated world, and each instance's connection to it, with its faults.

The store is the server: documents, leased votes and members, changed by compare-and-swap. A connection is a
`Coordinator` like Redis' or etcd's; it can be cut, lose the answer of a write that happened, or deliver a write late.
The store itself can forget its last write, as Redis may when its leader dies; etcd may not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from engine.core.agreement import Document, Member, Vote
from engine.fleet.base import CoordinatorUnavailable
from engine.fleet.sightings import MEMORY
from engine.simulation.clock import Timeline

HINT_DELAY: Final = 0.02
"""Seconds within which the others hear of a change, unless the hint is lost."""


@dataclass(frozen=True, slots=True)
class Swap:
    """A compare-and-swap as it was asked for, with what the store showed the writer then.

    Attributes:
        at: World time, seconds.
        writer: The instance that asked.
        manager: Whose document.
        before: What the store held, `None` for nothing.
        after: What is to take its place.
        votes: Fresh votes at that moment.
        members: Who was alive and recently lost at that moment.
    """

    at: float
    writer: str
    manager: str
    before: Document | None
    after: Document
    votes: Sequence[Vote]
    members: Sequence[Member]


@dataclass(frozen=True, slots=True)
class LinkFaults:
    """What is wrong with one instance's connection.

    Attributes:
        cut: Nothing goes through.
        lost_answers: Share of writes that happen although the writer hears of a failure.
        late_writes: Share of writes that happen up to three seconds after the writer heard of a failure.
        lost_hints: Share of changes that nobody tells this instance of.
    """

    cut: bool = False
    lost_answers: float = 0.0
    late_writes: float = 0.0
    lost_hints: float = 0.0


SOUND = LinkFaults()


class SimulatedStore:
    """The server that holds the agreement.

    Args:
        timeline: The world's time.

    Attributes:
        commits: Every swap that happened, in order.
        on_commit: Called with each, after it happened.
        regressions: How often the store forgot a write.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.commits: list[Swap] = []
        self.on_commit: Callable[[Swap], None] | None = None
        self.regressions = 0
        self.links: list[SimulatedCoordinator] = []
        self._documents: dict[str, list[Document]] = {}
        self._votes: dict[str, dict[str, tuple[float, Vote]]] = {}
        self._members: dict[str, tuple[float, Member]] = {}
        self._leases: dict[str, tuple[float, str]] = {}

    def read(self, manager: str) -> Document | None:
        """What is agreed."""
        kept = self._documents.get(manager)
        return kept[-1] if kept else None

    def asked(self, writer: str, manager: str, document: Document) -> Swap:
        """A swap with what justifies it at this moment."""
        before = self.read(manager)
        return Swap(
            self.timeline.now, writer, manager, before, document, tuple(self.votes(manager)), tuple(self.members())
        )

    def commit(self, swap: Swap, expected: int | None) -> bool:
        """Do a swap if the document still is of the expected epoch."""
        current = self.read(swap.manager)
        if (None if current is None else current.epoch) != expected:
            return False
        kept = self._documents.setdefault(swap.manager, [])
        kept.append(Document.from_json(swap.after.to_json()))
        del kept[:-2]
        self.commits.append(replace(swap, before=current))
        if self.on_commit is not None:
            self.on_commit(self.commits[-1])
        for link in self.links:
            link.hint(swap.manager)
        return True

    def forget_last_write(self, manager: str) -> bool:
        """Lose the newest document, as a store that replicates asynchronously may.

        Returns:
            Whether there was an older one to fall back to.
        """
        kept = self._documents.get(manager, [])
        if len(kept) < 2:
            return False
        kept.pop()
        self.regressions += 1
        return True

    def vote(self, manager: str, vote: Vote, ttl: float) -> None:
        """Keep a vote for some seconds."""
        self._votes.setdefault(manager, {})[vote.instance] = (self.timeline.now + ttl, vote)

    def votes(self, manager: str) -> list[Vote]:
        """Fresh votes, by instance."""
        fresh = self._votes.get(manager, {})
        return [vote for _, (ends, vote) in sorted(fresh.items()) if ends > self.timeline.now]

    def register(self, member: Member, ttl: float) -> None:
        """Keep a member for some seconds."""
        self._members[member.instance] = (self.timeline.now + ttl, member)

    def leave(self, instance: str) -> None:
        """Forget an instance that went on purpose."""
        self._members.pop(instance, None)
        for votes in self._votes.values():
            votes.pop(instance, None)

    def members(self) -> list[Member]:
        """Everybody of the last hour, by name."""
        now = self.timeline.now
        return [
            member if ends > now else replace(member, alive=False, lost_for=now - ends)
            for _, (ends, member) in sorted(self._members.items())
            if now - ends < MEMORY
        ]

    def lease(self, name: str, owner: str, ttl: float) -> bool:
        """Give or renew a lease."""
        ends, holder = self._leases.get(name, (0.0, owner))
        if holder != owner and ends > self.timeline.now:
            return False
        self._leases[name] = (self.timeline.now + ttl, owner)
        return True


class SimulatedCoordinator:
    """One instance's connection to the store; a `Coordinator`.

    Args:
        store: The server.
        instance: Whose connection this is.
        rng: Decides faults and delays; not shared with any other purpose.

    Attributes:
        faults: What is wrong with it.
        cut_since: World time at which it was cut last.
    """

    def __init__(self, store: SimulatedStore, instance: str, rng: random.Random) -> None:
        self._store = store
        self._instance = instance
        self._rng = rng
        self._on_change: Callable[[str], None] | None = None
        self.faults = SOUND
        self.cut_since = 0.0
        store.links.append(self)

    def suffer(self, faults: LinkFaults) -> None:
        """Have these faults from now on."""
        if faults.cut and not self.faults.cut:
            self.cut_since = self._store.timeline.now
        self.faults = faults

    def read(self, manager: str) -> Document | None:
        """See `Coordinator.read`."""
        self._through()
        return self._store.read(manager)

    def swap(self, manager: str, expected_epoch: int | None, document: Document) -> bool:
        """See `Coordinator.swap`."""
        if expected_epoch is not None and document.epoch <= expected_epoch:
            msg = f"epoch {document.epoch} does not follow epoch {expected_epoch}"
            raise ValueError(msg)
        self._through()
        swap = self._store.asked(self._instance, manager, document)
        fate = self._rng.random()
        if fate < self.faults.late_writes:
            delay = 3.0 * self._rng.random()
            self._store.timeline.after(delay, lambda: self._late(swap, expected_epoch))
            raise _gone()
        done = self._store.commit(swap, expected_epoch)
        if fate < self.faults.late_writes + self.faults.lost_answers:
            raise _gone()
        return done

    def _late(self, swap: Swap, expected: int | None) -> None:
        self._store.commit(swap, expected)

    def subscribe(self, on_change: Callable[[str], None]) -> None:
        """See `Coordinator.subscribe`."""
        self._on_change = on_change

    def hint(self, manager: str) -> None:
        """Tell this instance of a change soon, unless the hint is lost."""
        tell = self._on_change
        lost = self._rng.random() < self.faults.lost_hints
        if tell is not None and not lost and not self.faults.cut:
            self._store.timeline.after(HINT_DELAY * self._rng.random(), lambda: tell(manager))

    def vote(self, manager: str, vote: Vote, ttl: float) -> None:
        """See `Coordinator.vote`."""
        self._through()
        self._store.vote(manager, vote, ttl)

    def votes(self, manager: str) -> list[Vote]:
        """See `Coordinator.votes`."""
        self._through()
        return self._store.votes(manager)

    def register(self, member: Member, ttl: float) -> None:
        """See `Coordinator.register`."""
        self._through()
        self._store.register(member, ttl)

    def members(self) -> list[Member]:
        """See `Coordinator.members`."""
        self._through()
        return self._store.members()

    def lease(self, name: str, owner: str, ttl: float) -> bool:
        """See `Coordinator.lease`."""
        self._through()
        return self._store.lease(name, owner, ttl)

    def close(self) -> None:
        """See `Coordinator.close`."""
        self._store.leave(self._instance)
        self.drop()

    def drop(self) -> None:
        """The process dies: the connection goes, its leases run out by themselves."""
        self._on_change = None
        if self in self._store.links:
            self._store.links.remove(self)

    def _through(self) -> None:
        if self.faults.cut:
            raise _gone()


def _gone() -> CoordinatorUnavailable:
    return CoordinatorUnavailable("the simulated store does not answer: heal the link")
