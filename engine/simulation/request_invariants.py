"""The rules of requests: permits, open breakers, bounded work, one outcome each, capability, and no blame for 429s."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from engine.core.breaker import BreakerState
from engine.core.effects import (
    Attempt,
    Outcome,
)
from engine.core.errors import Overloaded
from engine.core.events import BreakerRecord, Record, RequestRecord
from engine.core.messages import Role
from engine.core.outcomes import Category
from engine.exchange import Flight
from engine.simulation.driver import Arrival
from engine.simulation.invariants import Rule
from engine.simulation.node import Node

if TYPE_CHECKING:
    from engine.simulation.world import SimulatedWorld

SLACK: Final = 0.001
"""Seconds by which two sums of the same times may differ."""

LIMITS: Final = frozenset({Category.RATE_LIMITED, Category.QUOTA_EXHAUSTED})

BUCKET: Final = 1.0
"""Seconds that sliding minutes are counted in."""

PAUSE: Final = 5.0
"""Seconds; the longest pause before a retry, by backoff or gate."""


class PermitsReturn(Rule):
    """4: at most `probes` permits are out while half-open, and never more than there are requests on their way."""

    name = "permits"

    def step(self) -> None:
        """Count what is out."""
        for name, node in self.world.nodes.items():
            aloft = len(node.pilot.aloft)
            for role, line in node.exchange.board.lines.items():
                out = line.breaker.snapshot(node.clock.monotonic()).outstanding
                self.demand(out <= aloft, f"{name} has {out} permits of {role} out for {aloft} requests")
                if line.breaker.state is BreakerState.HALF_OPEN:
                    most = self.world.policy.breaker.probes
                    self.demand(out <= most, f"{name} probes {role} {out} times at once, not {most}")


class OpenIsOpen(Rule):
    """6: between opening and the end of the wait that was recorded, nothing is asked of a model by that instance."""

    name = "open is open"

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self._shut: dict[tuple[str, str], float] = {}

    def recorded(self, node: Node, record: Record) -> None:
        """Note until when a breaker keeps shut."""
        if isinstance(record, BreakerRecord):
            key, now = (node.identity.instance, record.model), self.world.timeline.now
            left = self._shut.pop(key, now) - now
            if record.to_state == BreakerState.HALF_OPEN:
                self.demand(left <= SLACK, f"{key[0]} probes {key[1]} {left:.1f} s before its breaker's wait is over")
            wait = record.evidence.get("retry_in")
            if record.to_state == BreakerState.OPEN and wait is not None:
                self._shut[key] = now + float(wait)

    def asked(self, node: Node, flight: Flight, attempt: Attempt) -> None:
        """A model is about to be asked."""
        key = (node.identity.instance, attempt.line.model.name)
        until = self._shut.get(key, 0.0)
        left = until - self.world.timeline.now
        self.demand(left <= SLACK, f"{key[0]} asked {key[1]} {left:.1f} s before its breaker's wait was over")


class BoundedWork(Rule):
    """8: attempts per model, retries a minute and the caller's deadline are kept by every request."""

    name = "bounded work"

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self._firsts: dict[tuple[str, Role], list[float]] = defaultdict(list)
        self._again: dict[tuple[str, Role], list[float]] = defaultdict(list)
        self._last: dict[str, Role] = {}

    def asked(self, node: Node, flight: Flight, attempt: Attempt) -> None:
        """Count retries on one model against what its budget allows."""
        key, now = (node.identity.instance, attempt.role), self.world.timeline.now
        if self._last.get(flight.request.id) is not attempt.role:
            self._firsts[key].append(now)
        else:
            self._again[key].append(now)
            policy = self.world.policy.retry
            # A retry is paid for before its pause: those of 55 s were all paid for within one minute.
            retries = _within(self._again[key], now, 60.0 - PAUSE)
            allowed = policy.budget * _within(self._firsts[key], now, 120.0 + BUCKET) + policy.budget_floor
            self.demand(retries <= allowed, f"{key[0]} retried {key[1]} {retries} times in a minute")
        self._last[flight.request.id] = attempt.role

    def arrived(self, node: Node, arrival: Arrival) -> None:
        """Count a finished request's attempts and time."""
        self._last.pop(arrival.flight.request.id, None)
        tried = [one.attempt.role for one in arrival.verdict.tried]
        for role in Role:
            most = self.world.policy.retry.attempts
            self.demand(tried.count(role) <= most, f"{tried.count(role)} attempts on {role}, not {most}")
        total = self.world.policy.timeouts.total
        paused = node.pilot.paused_until > 0
        self.demand(paused or arrival.took <= total + SLACK, f"a request took {arrival.took:.2f} s of {total:.0f} s")


class OneOutcome(Rule):
    """9: every request that was taken on ends once, and is on record once, unless its process died."""

    name = "one outcome"

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self._recorded: set[str] = set()
        self._arrived: set[str] = set()

    def recorded(self, node: Node, record: Record) -> None:
        """A request's record."""
        if isinstance(record, RequestRecord):
            self.demand(record.id not in self._recorded, f"{record.id} is recorded twice")
            self._recorded.add(record.id)

    def arrived(self, node: Node, arrival: Arrival) -> None:
        """A request's end."""
        name = arrival.flight.request.id
        self.demand(name not in self._arrived, f"{name} ended twice")
        self.demand(name in self._recorded, f"{name} ended without a record")
        self._arrived.add(name)

    def step(self) -> None:
        """Nobody is forgotten."""
        waiting = sum(node.pilot.waiting for node in self.world.nodes.values())
        known = len(self._arrived) + self.world.lost + waiting
        self.demand(known == self.world.sent, f"{self.world.sent} were sent and {known} are accounted for")


class CapabilityKept(Rule):
    """11: no request goes to a model that cannot do what it needs."""

    name = "capability"

    def asked(self, node: Node, flight: Flight, attempt: Attempt) -> None:
        """Compare a request's tools with the model's abilities."""
        able = attempt.line.model.capabilities
        self.demand("tools" in able or not flight.request.tools, f"{attempt.line.model.name} was asked to use tools")


class LimitsAreNeutral(Rule):
    """7: a breaker that opens has other failures to show than 429s, and a shed answer says when to come back."""

    name = "429 neutrality"

    def __init__(self, world: SimulatedWorld) -> None:
        super().__init__(world)
        self._met: dict[tuple[str, str], set[Category]] = defaultdict(set)

    def answered(self, node: Node, flight: Flight, attempt: Attempt, outcome: Outcome) -> None:
        """Remember how each request's attempts on each model ended."""
        self._met[flight.request.id, attempt.role].add(outcome.category)

    def arrived(self, node: Node, arrival: Arrival) -> None:
        """Whoever is turned away is told for how long."""
        error = arrival.landed.error
        if isinstance(error, Overloaded) or arrival.verdict.shed:
            self.demand(error is not None and (error.retry_after or 0) > 0, "turned away without a Retry-After")

    def recorded(self, node: Node, record: Record) -> None:
        """Judge an opening by the requests that it names."""
        if not isinstance(record, BreakerRecord) or record.to_state != BreakerState.OPEN:
            return
        for name in record.evidence.get("request_ids", ()):
            met = self._met[str(name), record.role]
            self.demand(bool(met - LIMITS), f"{record.role} was opened for {name}, which met {sorted(met)}")


def _within(times: list[float], now: float, span: float) -> int:
    return len(times) - bisect_right(times, now - span)


REQUEST_RULES: Final = (PermitsReturn, OpenIsOpen, BoundedWork, OneOutcome, CapabilityKept, LimitsAreNeutral)
