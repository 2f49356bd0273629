"""One manager on one instance: its two lines, its place in the agreement, and which way a request goes.

Everything that changes here changes under the driver's lock and returns what is to be done about it; nothing here
blocks, reads a clock or knows another instance. The agreed document says which model is active; a line says
whether its model can be asked right now. `Switchboard.route` combines both into the hops of one request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from engine.core.agreement import Document, Force, Opinion, Override, Verdict, Vote
from engine.core.breaker import Breaker, BreakerState, Permit, Transition
from engine.core.budget import RetryBudget
from engine.core.capability import Calibration
from engine.core.drift import CANARY_FAILED, Drift
from engine.core.messages import Role
from engine.core.outcomes import Category, Cause, Effect
from engine.core.policy import ManagerPolicy, ModelFacts
from engine.core.ramp import Gate, StageSamples, in_share
from engine.core.spill import SpillBudget
from engine.core.throttle import Throttle
from engine.core.value import value

UNAVAILABLE_FOR: Mapping[Category, float] = MappingProxyType(
    {Category.QUOTA_EXHAUSTED: 3600.0, Category.MODEL_UNAVAILABLE: 300.0}
)
"""Seconds until a model that said so itself is asked again, when it named no time of its own."""

LONGEST_AGE = 86_400.0
"""Seconds; no estimate by the wall clock is longer, and no rule asks for more."""

PERMIT_MARGIN = 30.0
"""Seconds past a call's total deadline after which its permit counts as lost."""

FORCED: Mapping[str, BreakerState] = MappingProxyType(
    {str(state): state for state in (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED)}
)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A model that refuses everybody until a time: an exhausted quota, a retired name."""

    category: Category
    until: float


class Line:
    """One model as this instance knows it.

    Args:
        model: The model's facts.
        policy: The manager's settings.
    """

    def __init__(self, role: Role, policy: ManagerPolicy) -> None:
        self.role = role
        self.model: ModelFacts = policy.model(role)
        self.breaker = Breaker(policy.breaker, self.model.timeouts.total + PERMIT_MARGIN)
        self.throttle = Throttle(self.model.requests_per_minute)
        self.budget = RetryBudget(policy.retry.budget, policy.retry.budget_floor)
        self.calibration = Calibration()
        self._unavailable: Unavailable | None = None

    def unavailable(self, now: float) -> Unavailable | None:
        """Why and until when the model refuses everybody, if it does."""
        found = self._unavailable
        if found is not None and now >= found.until:
            self._unavailable = found = None
        return found

    def refuse(self, category: Category, now: float, retry_after: float | None) -> Unavailable:
        """The model said that it serves nobody for a while; a later time never shortens."""
        until = now + (retry_after if retry_after is not None else UNAVAILABLE_FOR[category])
        if self._unavailable is not None:
            until = max(until, self._unavailable.until)
        self._unavailable = Unavailable(category, until)
        return self._unavailable

    def accept(self) -> None:
        """The model served a request, so it is available again."""
        self._unavailable = None

    def opinion(self, now: float) -> Opinion:
        """What this instance votes about the model: only vote-eligible calls, never an operator's force."""
        seen = self.breaker.snapshot(now)
        if seen.state is BreakerState.HALF_OPEN and seen.samples == 0:
            return Opinion()  # an operator's force ended: nothing is known of the model yet
        if seen.state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            return Opinion(Verdict.DOWN, seen.vote_samples, seen.vote_failures, str(seen.state))
        if seen.state is BreakerState.CLOSED and seen.vote_samples > 0:
            return Opinion(Verdict.UP, seen.vote_samples, seen.vote_failures)
        return Opinion()


@value
class Hop:
    """One model in the order a request tries them.

    Attributes:
        role: Whom to ask.
        cause: Why primary is asked although it is not active, `probe` or `ramp`; `canary` of either model.
    """

    role: Role
    cause: Cause | None = None


BOTH: Mapping[Role, tuple[Hop, ...]] = MappingProxyType({role: (Hop(role), Hop(role.other)) for role in Role})
"""The ordinary hops: a role, and the other one if that fails."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """What changed for this instance when it adopted a document."""

    previous: Document
    document: Document
    transitions: tuple[tuple[Role, Transition], ...] = ()

    @property
    def moved(self) -> bool:
        """Whether the active model is another one now."""
        return self.previous.active is not self.document.active


def _age(since_ms: int, wall_ms: int) -> float:
    """Seconds since a wall time, by a clock that may be wrong: never negative, nor more than `LONGEST_AGE`."""
    return min(max(0.0, (wall_ms - since_ms) / 1000), LONGEST_AGE) if since_ms else 0.0


def _spent(act: Override | Force, wall_ms: int | None) -> float:
    """Seconds of an act's time that are over, 0 where its beginning was seen; within the time it was given."""
    if wall_ms is None:
        return 0.0
    left = (act.expires_ms - wall_ms) / 1000
    return act.ttl - min(max(0.0, left), act.ttl)


class Switchboard:
    """The local state of one manager.

    Args:
        policy: The manager's settings.
        now: Monotonic seconds.
    """

    def __init__(self, policy: ManagerPolicy, now: float) -> None:
        self.policy = policy
        self.lines = {role: Line(role, policy) for role in Role}
        self.spill = SpillBudget(policy.spill)
        self.gate = Gate(policy.recovery)
        self.drift = Drift(policy.validation.canary_every)
        self.document = Document()
        self.instances = 1
        self.active_seen = now
        self.document_seen = now
        self.override_seen = now
        self._pin_estimated = False
        self._forced_seen: dict[str, float] = {}
        self._forces_estimated: set[str] = set()
        self._samples = StageSamples()
        self._last_probe = now
        self._fallback_asked = now
        self._patience = 2 * policy.recovery.stage_for
        self._votes_cast = 0
        self._tripped: set[Role] = set()

    # -- the agreement -----------------------------------------------------------------------------------------

    def adopt(self, document: Document, now: float, *, wall_ms: int | None = None) -> Adoption | None:
        """Take over a newer document; an older or equal epoch changes nothing.

        Args:
            document: What is agreed.
            now: Monotonic seconds.
            wall_ms: Given by a process that has just started and did not see things begin: how long `active`, a pin
                and forced breakers have lasted is then estimated by the wall clock, milliseconds UTC.

        Returns:
            What changed, or `None`.
        """
        previous = self.document
        if document.epoch <= previous.epoch:
            return None
        self.document = document
        self.document_seen = now
        if wall_ms is not None:
            self.active_seen = now - _age(document.since_ms, wall_ms)
        elif document.active is not previous.active:
            self.active_seen = now
        self._see_pin(previous, now, wall_ms)
        self._samples = StageSamples(document.epoch)
        if document.active is Role.PRIMARY or document.stage is None:
            self.gate = Gate(self.policy.recovery)
        if document.stage is not None:
            self._last_probe, self._patience = now, 2 * self.policy.recovery.stage_for
        return Adoption(previous, document, self._apply_forces(previous, now, wall_ms))

    def _see_pin(self, previous: Document, now: float, wall_ms: int | None) -> None:
        pin = self.document.override
        if pin is None or (pin == previous.override and wall_ms is None):
            return
        self.override_seen = now - _spent(pin, wall_ms)
        self._pin_estimated = wall_ms is not None

    def _apply_forces(self, previous: Document, now: float, wall_ms: int | None) -> tuple[tuple[Role, Transition], ...]:
        moved: list[tuple[Role, Transition]] = []
        for role, line in self.lines.items():
            force = self.document.forced.get(role)
            if force is not None and wall_ms is not None:
                self._forced_seen[role] = now - _spent(force, wall_ms)
                self._forces_estimated.add(role)
            if force == previous.forced.get(role):
                continue
            reason = f"forced by {force.by}: {force.reason}" if force else "force ended"
            state = FORCED[force.state] if force else None
            moved += ((role, transition) for transition in line.breaker.force(state, now, reason))
            if force and wall_ms is None:
                self._forced_seen[role] = now
                self._forces_estimated.discard(role)
        return tuple(moved)

    def override(self, now: float) -> Override | None:
        """The operator's pin while it lasts, by this instance's own clock."""
        pin = self.document.override
        return pin if pin is not None and now < self.override_seen + pin.ttl else None

    def force_ends(self, role: Role) -> float | None:
        """When a role's forced breaker is left to itself again, monotonic seconds; `None` when it is not forced."""
        force = self.document.forced.get(role)
        return None if force is None else self._forced_seen.get(role, self.document_seen) + force.ttl

    def override_ended(self, now: float, allowance: float = 0.0) -> bool:
        """Whether the operator's pin has outlived its time.

        Args:
            now: Monotonic seconds.
            allowance: Seconds more where that time is only estimated.
        """
        return self.document.override is not None and self.override(now - allowance * self._pin_estimated) is None

    def forces_ended(self, now: float, allowance: float = 0.0) -> tuple[str, ...]:
        """Roles whose forced breaker has outlived its time; `allowance` as for `override_ended`."""
        ended = []
        for role, force in self.document.forced.items():
            ends = self._forced_seen.get(role, now) + force.ttl + allowance * (role in self._forces_estimated)
            if now >= ends:
                ended.append(role)
        return tuple(ended)

    @property
    def hold_until(self) -> float:
        """When the hold ends, monotonic seconds."""
        return self.active_seen + self.document.hold

    # -- where a request goes ----------------------------------------------------------------------------------

    def route(self, key: str, now: float) -> tuple[Hop, ...]:
        """The models to ask, in order.

        Args:
            key: The request's session key, or its id.
            now: Monotonic seconds.
        """
        document = self.document
        pin = self.override(now)
        if pin is not None:
            return (Hop(pin.role),) if pin.strict else BOTH[pin.role]
        if document.active is Role.PRIMARY:
            return BOTH[Role.PRIMARY]
        if document.stage is not None and in_share(key, document.ramp, document.share):
            return (Hop(Role.PRIMARY, Cause.RAMP), Hop(Role.SECONDARY))
        if self.probe_due(now):
            return (Hop(Role.PRIMARY, Cause.PROBE), Hop(Role.SECONDARY))
        return BOTH[Role.SECONDARY]

    def probe_due(self, now: float) -> bool:
        """Whether the next request, or a synthetic one, should test primary for the way back."""
        due = self.probe_due_at(now)
        return due is not None and now >= due

    def probe_due_at(self, now: float) -> float | None:
        """When primary is to be tested next; `None` while no way back is being looked for."""
        document = self.document
        if document.active is Role.PRIMARY or document.stage is not None or self.override(now) is not None:
            return None
        line = self.lines[Role.PRIMARY]
        state = line.breaker.state
        if state in (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED) or self.drifted(Role.PRIMARY, now):
            return None
        if self.gate.ready(now) or line.breaker.snapshot(now).outstanding >= self.policy.breaker.probes:
            return None
        secondary_open = self.lines[Role.SECONDARY].breaker.state is BreakerState.OPEN
        earliest = self.active_seen if secondary_open else self.hold_until
        if line.breaker.retry_at is not None:
            earliest = max(earliest, line.breaker.retry_at)
        refused = line.unavailable(now)
        if refused is not None:
            earliest = max(earliest, refused.until)
        return self.gate.due_at(earliest)

    def synthetic_due(self, now: float) -> bool:
        """Whether traffic is too thin for the gate or a stage, so that a one-token probe must make up for it.

        For the gate that is when no request came for a while after a probe was due; what counts is not how long ago
        the last probe was, or an open breaker's wait alone would look like thin traffic.
        """
        recovery, document = self.policy.recovery, self.document
        if document.active is Role.PRIMARY or self.override(now) is not None:
            return False
        if document.stage is None:
            due = self.probe_due_at(now)
            return due is not None and now >= due + self._patience
        enough = self._samples.ok >= recovery.stage_samples
        return not enough and now >= self._last_probe + self._patience

    def fallback_due(self, now: float) -> bool:
        """Whether secondary is to get a one-token probe, because its breaker waits for a request that nobody sends it.

        While primary serves nobody asks secondary anything, so without this the next outage would find it shut long
        after it was well again, and let one request through while turning the others away.
        """
        line = self.lines[Role.SECONDARY]
        waiting = line.breaker.state in (BreakerState.OPEN, BreakerState.HALF_OPEN)
        if self.document.active is Role.SECONDARY or not waiting:
            return False
        if line.unavailable(now) is not None or self.drifted(Role.SECONDARY, now) or self.override(now) is not None:
            return False
        waits_until = max(line.breaker.retry_at or 0.0, self._fallback_asked + self.policy.breaker.open_for)
        return now >= waits_until and line.breaker.snapshot(now).outstanding == 0

    def fallback_asked(self, now: float) -> None:
        """Secondary gets such a probe."""
        self._fallback_asked = now

    def probe_started(self, now: float, *, synthetic: bool) -> None:
        """A request was sent to primary to find out whether it is well."""
        recovery = self.policy.recovery
        self.gate.started(now)
        self._last_probe = now
        self._patience = recovery.stage_for / recovery.stage_samples if synthetic else 2 * recovery.stage_for

    def sample(self, *, ok: bool, now: float) -> None:
        """Count one vote-eligible call on primary towards the way back."""
        if self.document.active is Role.PRIMARY:
            return
        if self.document.stage is not None:
            self._samples.add(ok=ok)
        elif ok:
            self.gate.succeeded(now)
        else:
            self.gate.failed()

    # -- what canaries found -----------------------------------------------------------------------------------

    def drifted(self, role: Role, now: float) -> str | None:
        """The canary because of which a model serves nobody; an operator who closed its breaker overrules it."""
        if self.lines[role].breaker.state is BreakerState.FORCED_CLOSED:
            return None
        return self.drift.stands(role, now)

    def askable(self, role: Role, now: float) -> bool:
        """Whether a canary could be asked of a model now; while its breaker waits nobody asks it anything."""
        line = self.lines[role]
        if line.breaker.shut(now) or line.unavailable(now) is not None:
            return False
        probing = line.breaker.state is BreakerState.HALF_OPEN
        return not probing or line.breaker.snapshot(now).outstanding < self.policy.breaker.probes

    def judged(
        self, role: Role, canary: str, *, passed: bool, now: float, rand: float, request_id: str = ""
    ) -> tuple[Transition, ...]:
        """Take in what a canary found, here or by another process of this host.

        Args:
            role: The model that was asked.
            canary: The canary's name.
            passed: Whether its answer was as expected.
            now: Monotonic seconds.
            rand: In [0, 1).
            request_id: The canary's request.

        Returns:
            The changes of the model's breaker: a failure opens it. It closes by the canary's own answer, or here,
            when the answer came to another process.
        """
        breaker = self.lines[role].breaker
        if not passed:
            self.drift.failed(role, canary, now)
            if role is Role.PRIMARY:
                self.sample(ok=False, now=now)
            if self.drift.stands(role, now) is None:
                return ()
            self._tripped.add(role)
            return breaker.trip(now, rand, f"{CANARY_FAILED}: {canary}", request_id)
        self.drift.passed(role, canary, now)
        if role not in self._tripped or self.drift.stands(role, now) is not None:
            return ()
        if breaker.state in (BreakerState.CLOSED, BreakerState.FORCED_CLOSED, BreakerState.FORCED_OPEN):
            self._tripped.discard(role)
            return ()
        permit, moved = breaker.ask(now, rand)
        if isinstance(permit, Permit):
            moved += breaker.report(permit, Effect.OK, now, rand, request_id=request_id)
        return moved

    # -- what this instance says -------------------------------------------------------------------------------

    def vote(self, instance: str, host: str, now: float) -> Vote:
        """This instance's opinion of both models and of the way back."""
        self._votes_cast += 1
        return Vote(
            instance=instance,
            host=host,
            epoch=self.document.epoch,
            primary=self._opinion(Role.PRIMARY, now),
            secondary=self._opinion(Role.SECONDARY, now),
            ready=self.gate.ready(now),
            stage_ok=self._samples.ok,
            stage_failed=self._samples.failed,
            seq=self._votes_cast,
        )

    def _opinion(self, role: Role, now: float) -> Opinion:
        """A line's opinion, down for as long as a canary fails: its breaker may be trying again meanwhile."""
        opinion, canary = self.lines[role].opinion(now), self.drifted(role, now)
        if canary is None or self.lines[role].breaker.state is BreakerState.FORCED_OPEN:
            return opinion
        return replace(opinion, verdict=Verdict.DOWN, reason=f"{CANARY_FAILED}: {canary}")

    def stood_still(self, seconds: float, now: float) -> None:
        """The process did nothing for so many seconds, so no permit expires in them."""
        for line in self.lines.values():
            line.breaker.stood_still(seconds, now)

    def tick(self, now: float, rand: float) -> tuple[tuple[Role, Transition], ...]:
        """Housekeeping between requests: permits that never came back."""
        return tuple((role, moved) for role, line in self.lines.items() for moved in line.breaker.tick(now, rand))
