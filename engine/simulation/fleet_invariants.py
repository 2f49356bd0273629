"""The rules of the agreement: epochs, causes, fail-static, the operator, flapping, and the record of it all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from engine.core.agreement import Document, Member, Override, Verdict, Vote
from engine.core.effects import (
    Attempt,
)
from engine.core.events import FailoverRecord, OverrideRecord, Record, Scope
from engine.core.messages import Role
from engine.exchange import Flight
from engine.simulation.invariants import Rule, Violation
from engine.simulation.network import Swap
from engine.simulation.node import Node

if TYPE_CHECKING:
    from engine.simulation.world import SimulatedWorld

BY_OPERATORS: Final = ("override", "override cleared", "override expired", "force", "force cleared", "force expired")
AUTOMATIC_AWAY: Final = ("quorum", "breaker_open", "canary")
SLACK: Final = 0.001
"""Seconds by which two sums of the same times may differ."""


class EpochsGrow(Rule):
    """1: no instance applies a lower epoch than it has applied."""

    name = "epoch monotone"

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self._seen: dict[str, int] = {}

    def step(self) -> None:
        """Compare with the step before."""
        for name, node in self.world.nodes.items():
            epoch, before = node.exchange.board.document.epoch, self._seen.get(name, 0)
            self.demand(epoch >= before, f"{name} went from epoch {before} to {epoch}")
            self._seen[name] = epoch


class OneDecisionPerEpoch(Rule):
    """2: every epoch has one content, in the store and on every instance, and epochs are strictly successive.

    A store that forgets a write may give an epoch a second content; then the rule only holds for what instances see
    once the world is quiet, which `agreed` asks.
    """

    name = "one decision per epoch"

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self._contents: dict[int, str] = {}

    def committed(self, swap: Swap) -> None:
        """The store took a document."""
        before = swap.before.epoch if swap.before is not None else 0
        if self.world.store.regressions == 0:
            first = swap.before is None
            self.demand(first or swap.after.epoch == before + 1, f"epoch {swap.after.epoch} follows {before}")
            self._meet(swap.after, swap.writer)
        self.demand(swap.after.epoch > before, f"epoch {swap.after.epoch} follows {before}")

    def step(self) -> None:
        """Look at what each instance goes by."""
        if self.world.store.regressions == 0:
            for name, node in self.world.nodes.items():
                if node.exchange.board.document.epoch:
                    self._meet(node.exchange.board.document, name)

    def _meet(self, document: Document, where: str) -> None:
        content = f"{document.active} {document.share} {document.stage} {document.writer} {document.cause}"
        known = self._contents.setdefault(document.epoch, content)
        self.demand(known == content, f"epoch {document.epoch} is {known!r} and, for {where}, {content!r}")


class CausesHold(Rule):
    """3: every change is justified by what the store showed its writer: votes counted anew, a stage, an operator."""

    name = "cause"

    def committed(self, swap: Swap) -> None:
        """Judge a change by the kind of its cause."""
        before, after = swap.before, swap.after
        if before is None or after.cause == "regressed" or after.cause in BY_OPERATORS:
            return
        if after.cause in AUTOMATIC_AWAY:
            role = Role.PRIMARY if after.active is Role.SECONDARY else Role.SECONDARY
            self.demand(self._down(swap, role), f"{role} was left without a quorum against it")
        elif after.cause == "ramp_abort":
            self.demand(before.stage is not None, "a ramp was abandoned that was not on")
            failed = sum(vote.stage_failed for vote in swap.votes if vote.epoch == before.epoch)
            self.demand(failed >= 2 or self._down(swap, Role.PRIMARY), f"a ramp was abandoned for {failed} failures")
        elif after.cause in ("ramp", "failback"):
            self._advance(swap, before, after)
        else:
            raise Violation(self.name, f"a change for {after.cause!r}", self.world)

    def _advance(self, swap: Swap, before: Document, after: Document) -> None:
        stages = self.world.policy.recovery.stages
        if before.stage is None:
            ready = {vote.host for vote in swap.votes if vote.ready}
            self.demand(bool(ready), "a ramp began although no instance had passed its gate")
            self.demand(self._enough(swap, len(ready), self._opinions(swap, Role.PRIMARY) | ready), "too few are ready")
            self.demand(after.stage == 0 or len(stages) == 1, f"a ramp began with stage {after.stage}")
            return
        good = sum(vote.stage_ok for vote in swap.votes if vote.epoch == before.epoch)
        needed = self.world.policy.recovery.stage_samples
        self.demand(good >= needed, f"stage {before.stage} was left with {good} good samples of {needed}")
        last = after.active is Role.PRIMARY
        self.demand(last or after.stage == before.stage + 1, f"stage {after.stage} follows {before.stage}")
        self.demand(not last or before.stage + 1 >= len(stages) - 1, f"primary became active after {before.stage}")

    def _down(self, swap: Swap, role: Role) -> bool:
        """Count hosts anew: each by the majority of its instances, lost and silent ones as an opinion."""
        by_host: dict[str, list[Vote]] = defaultdict(list)
        for vote in swap.votes:
            if vote.opinion(role).verdict is not Verdict.ABSTAIN:
                by_host[vote.host].append(vote)
        down = 0
        for votes in by_host.values():
            against = [vote for vote in votes if vote.opinion(role).verdict is Verdict.DOWN]
            down += 2 * len(against) > len(votes)
        return self._enough(swap, down, self._opinions(swap, role))

    def _opinions(self, swap: Swap, role: Role) -> set[str]:
        """Hosts with an opinion, and hosts that were there lately and say nothing at all."""
        said = {vote.host for vote in swap.votes if vote.opinion(role).verdict is not Verdict.ABSTAIN}
        return said | (self._known(swap.members) - {vote.host for vote in swap.votes})

    def _known(self, members: Sequence[Member]) -> set[str]:
        grace = self.world.policy.fleet.member_grace
        return {member.host for member in members if member.alive or member.lost_for < grace}

    def _enough(self, swap: Swap, hosts: int, counted: set[str]) -> bool:
        live = {member.host for member in swap.members if member.alive} | {vote.host for vote in swap.votes}
        return hosts > self.world.policy.fleet.quorum * len(counted) and hosts >= min(2, len(live))


class MinorityMovesNobody(Rule):
    """3, by the world's own knowledge: whoever moves the fleet must reach more than half of the hosts that live."""

    name = "minority"

    def committed(self, swap: Swap) -> None:
        """Count the hosts that the store could hear within a vote's time when the fleet moved away."""
        if swap.after.cause not in AUTOMATIC_AWAY or swap.before is None:
            return
        world = self.world
        hosts = {node.identity.host for node in world.nodes.values()}
        silent = {host for host in hosts if self._cut(host)}
        lately = world.policy.fleet.member_grace
        self.demand(
            2 * len(hosts - silent) > len(hosts) or not self._all_cut_lately(silent, lately),
            f"{sorted(hosts - silent)} moved the fleet while {sorted(silent)} were cut off",
        )

    def _cut(self, host: str) -> bool:
        """Whether nobody on the host has reached the store for as long as its last votes count."""
        links = [self.world.links[name] for name, node in self.world.nodes.items() if node.identity.host == host]
        since = self.world.timeline.now - self.world.policy.fleet.vote_ttl
        return all(link.faults.cut and link.cut_since < since for link in links)

    def _all_cut_lately(self, hosts: set[str], within: float) -> bool:
        since = [
            self.world.links[name].cut_since for name, node in self.world.nodes.items() if node.identity.host in hosts
        ]
        return bool(since) and all(self.world.timeline.now - at < within for at in since)


class FailStatic(Rule):
    """12: whoever cannot reach the store keeps the agreement it had, and never goes back to primary alone."""

    name = "fail static"

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self._kept: dict[str, Document] = {}

    def step(self) -> None:
        """Compare with the document of the moment at which the link was cut."""
        for name, node in self.world.nodes.items():
            if not self.world.links[name].faults.cut:
                self._kept.pop(name, None)
                continue
            document = node.exchange.board.document
            kept = self._kept.setdefault(name, document)
            self.demand(document == kept, f"{name}, cut off, went from epoch {kept.epoch} to {document.epoch}")


class OperatorWins(Rule):
    """13: while a pin lasts no automatic rule changes what is active, and the audit log knew of it first."""

    name = "operator"

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self._audited: set[tuple[str, int]] = set()
        self._pinned_at: dict[int, float] = {}

    def recorded(self, node: Node, record: Record) -> None:
        """Remember what the audit log says."""
        if isinstance(record, OverrideRecord):
            self._audited.add((record.action, record.epoch))

    def committed(self, swap: Swap) -> None:
        """Judge every change under a pin."""
        after = swap.after
        before = swap.before.override if swap.before is not None else None
        if after.override is not None and after.override != before:
            if after.cause != "regressed":
                self.demand(("set", after.override.epoch) in self._audited, f"pin of epoch {after.epoch} has no audit")
            self._pinned_at.setdefault(after.override.epoch, self.world.timeline.now)
        if before is None or swap.before is None:
            return
        if after.override == before:
            self.demand(after.active is before.role, f"{after.cause} made {after.active} active under a pin")
        elif after.override is None and after.cause == "override expired":
            self._expired(before)
        elif after.override is None and self.world.store.regressions == 0:
            self.demand(after.cause == "override cleared", f"a pin ended by {after.cause}")

    def _expired(self, pin: Override) -> None:
        lasted = self.world.timeline.now - self._pinned_at.get(pin.epoch, 0.0)
        self.demand(lasted >= pin.ttl - SLACK, f"a pin of {pin.ttl:.0f} s ended after {lasted:.1f} s")


class StrictPin(Rule):
    """13: under a strict pin that an instance knows of, it asks the other model nothing."""

    name = "strict pin"

    def asked(self, node: Node, flight: Flight, attempt: Attempt) -> None:
        """A model is about to be asked."""
        board, role = node.exchange.board, attempt.role
        pin = board.override(node.clock.monotonic())
        if pin is not None and pin.strict and flight.started > board.override_seen:
            self.demand(role is pin.role, f"{node.identity.instance} asked {role} under a strict pin of {pin.role}")


class BoundedFlapping(Rule):
    """14: secondary is kept for the hold, the hold doubles per flap, and share never rises while it lasts."""

    name = "flapping"

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self._left_at = 0.0
        self._hold = 0.0

    def committed(self, swap: Swap) -> None:
        """Judge the times between moves."""
        before, after, now = swap.before, swap.after, self.world.timeline.now
        if before is None or self.world.store.regressions:
            return
        base = self.world.policy.recovery.hold
        if after.cause in AUTOMATIC_AWAY and after.active is Role.SECONDARY:
            expected = min(3600.0, base * 2.0**after.flaps)
            self.demand(abs(after.hold - expected) < SLACK, f"a hold of {after.hold} s after {after.flaps} flaps")
            self._left_at, self._hold = now, after.hold
        elif after.cause == "ramp_abort":
            self.demand(after.flaps == before.flaps + 1, "an abandoned ramp was not counted as a flap")
            self._left_at, self._hold = now, min(3600.0, base * 2.0**after.flaps)
        elif after.cause in BY_OPERATORS:
            self._hold = 0.0
        elif after.share > before.share and after.cause in ("ramp", "failback"):
            held = now - self._left_at
            self.demand(held >= self._hold - SLACK, f"share rose after {held:.1f} s of a hold of {self._hold:.1f} s")


class MovesOnRecord(Rule):
    """15: what an instance goes by is what it recorded last, and it records no epoch twice.

    An instance that was away while the active model moved there and back records the last move only, so its own
    records need not chain; the store of a fleet has the others.
    """

    name = "record"

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self._goes_by: dict[str, Role] = {}
        self._epochs: set[tuple[str, int]] = set()

    def recorded(self, node: Node, record: Record) -> None:
        """Follow the moves that an instance records."""
        if not isinstance(record, FailoverRecord) or record.scope is not Scope.ACTIVE:
            return
        name, epoch = node.identity.instance, record.epoch
        self.demand((name, epoch) not in self._epochs, f"{name} recorded epoch {epoch} twice")
        self.demand(record.from_role != record.to_role, f"{name} recorded a move from {record.from_role} to itself")
        self._epochs.add((name, epoch))
        self._goes_by[name] = Role(record.to_role)

    def step(self) -> None:
        """Compare what an instance goes by with its last record, or with how it began."""
        for name, node in self.world.nodes.items():
            active = node.exchange.board.document.active
            known = self._goes_by.setdefault(name, active)
            self.demand(known is active, f"{name} goes by {active} and recorded {known}")


FLEET_RULES: Final = (
    EpochsGrow,
    OneDecisionPerEpoch,
    CausesHold,
    MinorityMovesNobody,
    FailStatic,
    OperatorWins,
    StrictPin,
    BoundedFlapping,
    MovesOnRecord,
)
