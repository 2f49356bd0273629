"""A world of N instances that share models and a store of the agreement, under one seed.

Everything that happens becomes a line of the trace: each record an instance writes and each document the store takes.
The SHA-256 of those lines is the run's name: the same seed gives the same one, or something is not deterministic.
Invariants watch every event while the world runs; they raise at the first that is broken.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.core import fleet
from engine.core.agreement import Document, Override
from engine.core.effects import (
    Attempt,
    Outcome,
)
from engine.core.errors import SwitchgearError
from engine.core.events import OverrideRecord, Record, Records, listed
from engine.core.messages import Request, Role
from engine.core.policy import ManagerPolicy
from engine.exchange import Flight, Identity
from engine.fleet.base import CoordinatorUnavailable
from engine.providers.world import Profile, World
from engine.simulation.clock import Timeline, VirtualClock
from engine.simulation.driver import Arrival
from engine.simulation.network import SimulatedCoordinator, SimulatedStore, Swap
from engine.simulation.node import Node, Surroundings
from engine.tickets import DONE, Ticket

USUAL = Profile(first_token=0.4, per_event=0.05, spread=0.35, words=24, words_per_event=8)
"""The speed of models that have none of their own."""


PROMPTS = 40
"""Different prompts; models' answers to known ones cost nothing to make."""


class Watcher(Protocol):
    """Looks at everything that happens; raises when it must not."""

    def recorded(self, node: Node, record: Record) -> None:
        """An instance handed a record over."""

    def committed(self, swap: Swap) -> None:
        """The store took a document."""

    def asked(self, node: Node, flight: Flight, attempt: Attempt) -> None:
        """A model is about to be asked."""

    def answered(self, node: Node, flight: Flight, attempt: Attempt, outcome: Outcome) -> None:
        """A model has answered, or failed to."""

    def arrived(self, node: Node, arrival: Arrival) -> None:
        """A request is over."""

    def step(self) -> None:
        """An event has happened."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A record with who wrote it and when."""

    at: float
    instance: str
    record: Record


class _Notebook:
    """Where one instance's records go."""

    def __init__(self, world: SimulatedWorld, node: Callable[[], Node]) -> None:
        self._world = world
        self._node = node

    @property
    def full(self) -> bool:
        """Never."""
        return False

    def submit(self, records: Records, *, here: bool = False) -> Ticket:
        """Note records down; they are committed at once."""
        for record in listed(records):
            self._world.noted(self._node(), record)
        return DONE


class SimulatedWorld:
    """N instances of one manager.

    Args:
        policy: The manager's settings.
        seed: Decides everything.
        hosts: The host of each instance, in order; as many instances as there are hosts.
        profile: The models' speed.
        skews: Seconds that the instances' wall clocks are ahead; none by default.
        watchers: Builds what looks at everything.

    Attributes:
        timeline: The world's time.
        models: The models, by their provider's name.
        store: The store of the agreement.
        nodes: Living instances by name.
        notes: Everything recorded, in order.
        arrivals: Requests that are over, in order.
        asked: Every attempt: world time, instance, model.
    """

    def __init__(
        self,
        policy: ManagerPolicy,
        seed: int,
        *,
        hosts: Sequence[str] = ("a",),
        profile: Profile = USUAL,
        skews: Sequence[float] = (),
        watchers: Sequence[Callable[[SimulatedWorld], Watcher]] = (),
    ) -> None:
        self.policy = policy
        self.seed = seed
        self.timeline = Timeline()
        self.models = World(seed, profile)
        self.store = SimulatedStore(self.timeline)
        self.store.on_commit = self._committed
        self.nodes: dict[str, Node] = {}
        self.links: dict[str, SimulatedCoordinator] = {}
        self.notes: list[Noted] = []
        self.arrivals: list[Arrival] = []
        self.asked: list[tuple[float, str, str]] = []
        self.lost = 0
        self.sent = 0
        self._unreachable: set[tuple[str, str]] = set()
        self._around = Surroundings(self.timeline, self.models, seed)
        self._disks: dict[str, SimulatedStore] = {}
        self._skews = dict(zip(range(len(hosts)), skews, strict=False))
        self._hash = hashlib.sha256()
        self._born = 0
        self._serial = 0
        self._watchers: list[Watcher] = []
        for host in hosts:
            self.born(host)
        self._watchers.extend(make(self) for make in watchers)

    # -- instances ---------------------------------------------------------------------------------------------

    def born(self, host: str) -> Node:
        """A new instance on a host, with what the host's disk remembers."""
        name = f"{host}-{self._born}"
        skew = self._skews.get(self._born, 0.0)
        clock = VirtualClock(self.timeline, uptime=1000.0 * (self._born + 1), skew=skew)
        self._born += 1
        link = SimulatedCoordinator(self.store, name, self.generator(f"link:{name}"))
        disk = self._disks.setdefault(host, SimulatedStore(self.timeline))
        local = SimulatedCoordinator(disk, name, self.generator(f"disk:{name}"))
        node = Node(
            self._around,
            self.policy,
            Identity(name, host),
            clock,
            link,
            _Notebook(self, lambda: node),
            local=local,
            reach=lambda model: (name, model) not in self._unreachable,
        )
        node.pilot.on_attempt = lambda flight, attempt: self._asking(node, flight, attempt)
        node.pilot.on_outcome = lambda flight, attempt, outcome: self._answered(node, flight, attempt, outcome)
        self.nodes[name] = node
        self.links[name] = link
        node.start()
        return node

    def crash(self, name: str) -> None:
        """Kill an instance; its requests are gone with it."""
        node = self.nodes.pop(name)
        self.lost += node.pilot.waiting
        node.stop()
        self.links.pop(name).drop()
        self._write("crash", name)

    def block(self, name: str, model: str, *, blocked: bool = True) -> None:
        """Cut an instance off from a model, or let it reach it again."""
        if blocked:
            self._unreachable.add((name, model))
        else:
            self._unreachable.discard((name, model))

    def generator(self, purpose: str) -> random.Random:
        """Random numbers for one purpose, so that a new draw in one shifts no other."""
        return random.Random(f"{self.seed}:{purpose}")  # noqa: S311 - a simulation

    # -- what happens ------------------------------------------------------------------------------------------

    def send(
        self,
        name: str,
        text: str = "How are you?",
        *,
        streamed: bool = False,
        done: Callable[[Arrival], None] | None = None,
        **fields: Any,
    ) -> None:
        """A caller asks an instance; a dead one answers nobody."""
        node = self.nodes.get(name)
        if node is None:
            return
        self.sent += 1
        self._serial += 1
        request = Request(({"role": "user", "content": f"{text} ({self._serial % PROMPTS})"},), **fields)

        def over(arrival: Arrival) -> None:
            self.arrivals.append(arrival)
            for watcher in self._watchers:
                watcher.arrived(node, arrival)
            if done is not None:
                done(arrival)

        try:
            node.pilot.send(request, over, streamed=streamed)
        except SwitchgearError:
            self.sent -= 1

    def every(self, seconds: float, until: float, job: Callable[[], None]) -> None:
        """Do something again and again, from now on and before a time."""

        def happen() -> None:
            if self.timeline.now < until:
                job()
                self.timeline.after(seconds, happen)

        self.timeline.after(0.0, happen)

    def run(self, until: float) -> None:
        """Let time pass until then; every watcher looks at every event."""
        self.timeline.run(until, self._step)

    def override(
        self, role: Role, *, ttl: float, strict: bool = False, by: str = "ana", via: str = ""
    ) -> Document | None:
        """An operator pins a model, as the control does: audited first, then swapped in.

        Returns:
            The document with the pin, `None` when it could not be set.
        """
        name = via or next(iter(self.nodes), "")
        if name not in self.nodes:
            return None
        link, node = self.links[name], self.nodes[name]
        try:
            current = link.read(self.policy.name)
            if current is None:
                return None
            pin = Override(role, strict, "a drill", by, ttl, node.clock.wall_ms() + int(ttl * 1000), current.epoch + 1)
            record = OverrideRecord(
                node.exchange.new_id(), node.clock.wall_ms(), self.policy.name, "set", role, strict, pin.reason, by,
                pin.expires_ms, pin.epoch,
            )  # fmt: skip
            self.noted(node, record)
            following = fleet.pin(current, pin, self._observation(node))
            if not link.swap(self.policy.name, current.epoch, following):
                return None
        except CoordinatorUnavailable:
            return None
        node.rounds.refresh(self.policy.name)
        return following

    def _observation(self, node: Node) -> fleet.Observation:
        now = node.clock.monotonic()
        writer = f"{node.identity.instance}/operator-{self.timeline.steps}"
        return fleet.Observation(now, node.clock.wall_ms(), now, now, writer)

    # -- what it comes to --------------------------------------------------------------------------------------

    def document(self) -> Document:
        """What the store says is agreed."""
        return self.store.read(self.policy.name) or Document()

    def records(self, kind: type[Any]) -> list[Any]:
        """All records of a kind, in order."""
        return [note.record for note in self.notes if isinstance(note.record, kind)]

    @property
    def digest(self) -> str:
        """The SHA-256 of the trace so far."""
        return self._hash.hexdigest()

    def noted(self, node: Node, record: Record) -> None:
        """A record was handed over."""
        self.notes.append(Noted(self.timeline.now, node.identity.instance, record))
        self._write("record", record)
        for watcher in self._watchers:
            watcher.recorded(node, record)

    def _committed(self, swap: Swap) -> None:
        self._write("commit", swap.after)
        for watcher in self._watchers:
            watcher.committed(swap)

    def _asking(self, node: Node, flight: Flight, attempt: Attempt) -> None:
        self.asked.append((self.timeline.now, node.identity.instance, attempt.line.model.name))
        for watcher in self._watchers:
            watcher.asked(node, flight, attempt)

    def _answered(self, node: Node, flight: Flight, attempt: Attempt, outcome: Outcome) -> None:
        for watcher in self._watchers:
            watcher.answered(node, flight, attempt, outcome)

    def _step(self) -> None:
        for watcher in self._watchers:
            watcher.step()

    def _write(self, kind: str, what: object) -> None:
        self._hash.update(f"{self.timeline.now:.6f} {kind} {what!r}\n".encode())
