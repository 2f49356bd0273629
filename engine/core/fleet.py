"""The agreement's rules: one document, its votes, and the next document.

`decide` is pure and every instance runs it; whoever swaps first wins, the others re-read. The shape is
Redis Sentinel's, subjective findings that become objective by quorum, with compare-and-swap in the place of an
election. What can happen, in the order in which it is asked:

    override or force past its time        -> cleared; back to automatic
    override on                            -> nothing else
    primary active, voted down             -> secondary, hold doubled per recent flap
    secondary active and voted down        -> primary at once, if primary answers probes
    ramp on, stage failed or primary down  -> share 0, one flap more
    ramp on, stage proved                  -> next stage; the last one makes primary active
    hold over, gate passed                 -> first stage

One host has one vote, its workers' majority; idle hosts abstain; hosts lost for less than `member_grace` still
count, so the smaller half of a split moves nobody. Durations run on the observer's monotonic clock from when it
saw the document change; wall time is written for people and never compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.core.agreement import Document, Force, Member, Override, Verdict, Vote
from engine.core.drift import CANARY_FAILED
from engine.core.messages import Role
from engine.core.outcomes import Cause
from engine.core.policy import FleetPolicy, RecoveryPolicy
from engine.core.ramp import stage_fails

MAX_HOLD = 3600.0
"""Seconds; no number of flaps keeps the secondary longer than this."""

FLAP_MEMORY = 600.0
"""Seconds of primary staying active that forgive one flap."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one observer knows besides the document itself.

    Attributes:
        now: Monotonic seconds.
        wall_ms: Wall time in milliseconds, only ever written.
        active_seen: When this observer saw `active` change, monotonic seconds.
        document_seen: When it saw this epoch.
        override_over: Whether the operator's pin has outlived its time.
        forces_over: Roles whose forced breaker has.
        writer: The observer's name with a nonce.
    """

    now: float
    wall_ms: int
    active_seen: float
    document_seen: float
    writer: str
    override_over: bool = False
    forces_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """The votes about one model, by host.

    Attributes:
        down: Hosts that say down.
        up: Hosts that say up.
        lost: Hosts that are silent and were there less than `member_grace` ago; they count as an opinion.
        live: Hosts with an instance alive.
    """

    down: int
    up: int
    lost: int
    live: int

    @property
    def opinions(self) -> int:
        """Hosts that count."""
        return self.down + self.up + self.lost

    def is_down(self, quorum: float) -> bool:
        """Whether more than `quorum` of the hosts that count, and two of them where there are two, say down."""
        return self.down > quorum * self.opinions and self.down >= min(2, max(self.live, 1))


@dataclass(frozen=True, slots=True)
class StageTally:
    """What the hosts together found in one stage of a ramp.

    Attributes:
        good: Good samples of hosts that do not fail by themselves.
        failed: Failed samples of all.
        fails: Whether the stage is to be abandoned.
    """

    good: int
    failed: int
    fails: bool


@dataclass(frozen=True, slots=True)
class Ballot:
    """All fresh votes of one manager with who is alive, counted by host."""

    votes: Sequence[Vote]
    members: Sequence[Member]
    policy: FleetPolicy

    def tally(self, role: Role) -> Tally:
        """Count the hosts' findings about one model."""
        by_host: dict[str, list[Verdict]] = defaultdict(list)
        for vote in self.votes:
            verdict = vote.opinion(role).verdict
            if verdict is not Verdict.ABSTAIN:
                by_host[vote.host].append(verdict)
        down = sum(_majority_down(verdicts) for verdicts in by_host.values())
        lost = self.lost_hosts - by_host.keys()
        return Tally(down, len(by_host) - down, len(lost), len(self.live_hosts))

    @property
    def live_hosts(self) -> set[str]:
        """Hosts with at least one instance alive."""
        return {member.host for member in self.members if member.alive} | {vote.host for vote in self.votes}

    @property
    def lost_hosts(self) -> set[str]:
        """Hosts that were there less than `member_grace` ago and say nothing now, not even that they abstain.

        A host whose votes have run out counts from that moment, although its membership lives on for some seconds:
        between the two nobody would count it, and the smaller half of a split could move everybody.
        """
        grace = self.policy.member_grace
        lately = {member.host for member in self.members if member.alive or member.lost_for < grace}
        return lately - {vote.host for vote in self.votes}

    def ready(self) -> bool:
        """Whether enough hosts have passed their probe gate towards primary."""
        ready = {vote.host for vote in self.votes if vote.ready}
        opinions = {vote.host for vote in self.votes if vote.primary.verdict is not Verdict.ABSTAIN} | ready
        counted = len(opinions | self.lost_hosts)
        return len(ready) > self.policy.quorum * counted and len(ready) >= min(2, max(len(self.live_hosts), 1))

    def stage(self, epoch: int) -> StageTally:
        """The samples of the stage of this epoch, over all hosts.

        One machine's broken network neither ends a stage nor lets it pass: in a fleet of several hosts the stage
        must fail without the host that failed most, and good samples of a host that fails by itself do not count.
        """
        hosts: dict[str, tuple[int, int]] = {}
        for vote in self.votes:
            if vote.epoch == epoch:
                ok, failed = hosts.get(vote.host, (0, 0))
                hosts[vote.host] = (ok + vote.stage_ok, failed + vote.stage_failed)
        ok, failed = (sum(counts) for counts in zip(*hosts.values(), strict=True)) if hosts else (0, 0)
        fails = stage_fails(ok, failed)
        if fails and len(self.live_hosts) > 1:
            worst_ok, worst_failed = max(hosts.values(), key=lambda counts: (counts[1], -counts[0]))
            fails = stage_fails(ok - worst_ok, failed - worst_failed, least=1)
        return StageTally(sum(ok for ok, failed in hosts.values() if not stage_fails(ok, failed)), failed, fails)

    def cause(self, role: Role, otherwise: Cause) -> Cause:
        """Why a model is voted down: `canary` when most of those who say so name a canary."""
        reasons = [seen.reason for vote in self.votes if (seen := vote.opinion(role)).verdict is Verdict.DOWN]
        canaries = sum(reason.startswith(CANARY_FAILED) for reason in reasons)
        return Cause.CANARY if canaries * 2 > len(reasons) else otherwise

    def evidence(self, role: Role) -> dict[str, Any]:
        """Who says what about a model, for the record."""
        said = {
            vote.instance: {
                "verdict": str(seen.verdict),
                "samples": seen.samples,
                "failures": seen.failures,
                **({"reason": seen.reason} if seen.reason.startswith(CANARY_FAILED) else {}),
            }
            for vote in self.votes
            if (seen := vote.opinion(role)).verdict is not Verdict.ABSTAIN
        }
        tally = self.tally(role)
        return {
            "role": str(role),
            "down": tally.down,
            "opinions": tally.opinions,
            "live_hosts": tally.live,
            "quorum": self.policy.quorum,
            "votes": dict(sorted(said.items())[:20]),
        }


def _majority_down(verdicts: Iterable[Verdict]) -> bool:
    counted = list(verdicts)
    return sum(verdict is Verdict.DOWN for verdict in counted) * 2 > len(counted)


def decide(
    document: Document,
    votes: Sequence[Vote],
    members: Sequence[Member],
    seen: Observation,
    recovery: RecoveryPolicy,
    fleet: FleetPolicy,
) -> Document | None:
    """The next document, or `None` when nothing is to change.

    Args:
        document: What is agreed now.
        votes: Fresh votes about this manager.
        members: Instances alive and recently lost.
        seen: The observer's clock and memory.
        recovery: The way back to primary.
        fleet: Quorum and grace.

    Returns:
        A document one epoch later, to be swapped in, or `None`.
    """
    ballot = Ballot(votes, members, fleet)
    if document.override is not None and seen.override_over:
        return release(document, document.override, seen, "override expired")
    if seen.forces_over:
        kept = {role: force for role, force in document.forced.items() if role not in seen.forces_over}
        return _next(document, seen, cause="force expired", forced=kept)
    if document.override is not None:
        return None
    if document.active is Role.PRIMARY:
        return _leave_primary(document, ballot, seen, recovery)
    primary_down = ballot.tally(Role.PRIMARY).is_down(fleet.quorum)
    if not primary_down and _secondary_dead(ballot):
        cause = ballot.cause(Role.SECONDARY, Cause.QUORUM)
        return _return(document, seen, cause, ballot.evidence(Role.SECONDARY))
    if document.stage is not None:
        return _ramp(document, ballot, seen, recovery, primary_down=primary_down)
    return _start_ramp(document, ballot, seen, recovery, primary_down=primary_down)


def _next(document: Document, seen: Observation, *, cause: str, **changes: Any) -> Document:
    return document.following(cause=str(cause), writer=seen.writer, **{"evidence": {}, **changes})


def _leave_primary(document: Document, ballot: Ballot, seen: Observation, recovery: RecoveryPolicy) -> Document | None:
    quorum = ballot.policy.quorum
    tally = ballot.tally(Role.PRIMARY)
    if not tally.is_down(quorum) or ballot.tally(Role.SECONDARY).is_down(quorum):
        return None
    healthy = seen.now - seen.active_seen
    flaps = max(0, document.flaps - int(healthy // FLAP_MEMORY))
    if document.hold > 0 and healthy < FLAP_MEMORY:
        flaps += 1
    cause = ballot.cause(Role.PRIMARY, Cause.QUORUM if tally.live > 1 else Cause.BREAKER_OPEN)
    return _to_secondary(
        document,
        seen,
        cause,
        flaps,
        recovery,
        ballot.evidence(Role.PRIMARY),
        moved=True,
    )


def _to_secondary(
    document: Document,
    seen: Observation,
    cause: str,
    flaps: int,
    recovery: RecoveryPolicy,
    evidence: Mapping[str, Any],
    *,
    moved: bool,
) -> Document:
    hold = min(MAX_HOLD, recovery.hold * 2.0 ** min(flaps, 20))
    held = hold if moved else hold + (seen.now - seen.active_seen)
    return _next(
        document,
        seen,
        cause=cause,
        active=Role.SECONDARY,
        share=0.0,
        stage=None,
        flaps=flaps,
        hold=held,
        hold_until_ms=seen.wall_ms + int(hold * 1000),
        since_ms=seen.wall_ms if moved else document.since_ms,
        evidence=evidence,
    )


def _secondary_dead(ballot: Ballot) -> bool:
    """Whether secondary is voted down while primary answers somewhere."""
    answers = ballot.tally(Role.PRIMARY).up > 0 or any(vote.ready for vote in ballot.votes)
    return answers and ballot.tally(Role.SECONDARY).is_down(ballot.policy.quorum)


def _return(document: Document, seen: Observation, cause: str, evidence: Mapping[str, Any]) -> Document:
    return _next(
        document,
        seen,
        cause=cause,
        active=Role.PRIMARY,
        share=1.0,
        stage=None,
        since_ms=seen.wall_ms,
        evidence=evidence,
    )


def _ramp(
    document: Document,
    ballot: Ballot,
    seen: Observation,
    recovery: RecoveryPolicy,
    *,
    primary_down: bool,
) -> Document | None:
    tally = ballot.stage(document.epoch)
    samples = {"stage": document.stage, "share": document.share, "ok": tally.good, "failed": tally.failed}
    if primary_down or tally.fails:
        evidence = {**ballot.evidence(Role.PRIMARY), **samples}
        return _to_secondary(
            document,
            seen,
            "ramp_abort",
            document.flaps + 1,
            recovery,
            evidence,
            moved=False,
        )
    proved = tally.good >= recovery.stage_samples and seen.now >= seen.document_seen + recovery.stage_for
    if not proved or document.stage is None:
        return None
    return _stage(document, document.stage + 1, seen, recovery, samples)


def _start_ramp(
    document: Document,
    ballot: Ballot,
    seen: Observation,
    recovery: RecoveryPolicy,
    *,
    primary_down: bool,
) -> Document | None:
    if primary_down or seen.now < seen.active_seen + document.hold or not ballot.ready():
        return None
    return _stage(document, 0, seen, recovery, {"ready": sum(vote.ready for vote in ballot.votes)})


def _stage(
    document: Document,
    stage: int,
    seen: Observation,
    recovery: RecoveryPolicy,
    evidence: Mapping[str, Any],
) -> Document:
    """Enter a stage of the ramp; the one with the whole traffic makes primary active."""
    share = recovery.stages[stage] if stage < len(recovery.stages) else 1.0
    if share >= 1.0:
        return _return(document, seen, Cause.FAILBACK, evidence)
    ramp = document.epoch + 1 if stage == 0 else document.ramp
    return _next(
        document,
        seen,
        cause=Cause.RAMP,
        share=share,
        stage=stage,
        ramp=ramp,
        evidence=evidence,
    )


def pin(document: Document, override: Override, seen: Observation) -> Document:
    """The document with an operator's pin: the pinned model is active at once.

    A hold that was running goes on where the pin moves nothing. Where it moves the active model there is none: what
    an operator did needs no waiting, and coming to primary by order is no return that could have failed.
    """
    moved = document.active is not override.role
    unheld = {"hold": 0.0, "hold_until_ms": seen.wall_ms, "since_ms": seen.wall_ms} if moved else {}
    return _next(
        document,
        seen,
        cause=Cause.OVERRIDE,
        active=override.role,
        share=1.0 if override.role is Role.PRIMARY else 0.0,
        stage=None,
        override=override,
        evidence={"by": override.by, "reason": override.reason},
        **unheld,
    )


def release(document: Document, override: Override, seen: Observation, cause: str) -> Document:
    """The document without the pin: where it leads back to primary, through what is left of a hold, gate and ramp."""
    evidence = {"by": override.by, "reason": override.reason}
    return _next(document, seen, cause=cause, override=None, evidence=evidence)


def force(document: Document, role: Role, forced: Force | None, seen: Observation) -> Document:
    """The document with one breaker forced, or no longer forced."""
    kept = {name: value for name, value in document.forced.items() if name != role}
    cause = "force" if forced else "force cleared"
    return _next(
        document,
        seen,
        cause=cause,
        forced={**kept, **({str(role): forced} if forced else {})},
    )
