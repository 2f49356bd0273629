"""One simulated instance: a real exchange, real rounds of agreement, and a pilot, on the world's time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from engine.core.agreement import Member
from engine.core.errors import SwitchgearError
from engine.core.messages import Request, Role
from engine.core.policy import ManagerPolicy
from engine.exchange import Exchange, Identity, Sink
from engine.fleet.base import Coordinator
from engine.fleet.rounds import ROUND_EVERY, Rounds
from engine.ids import IdSource
from engine.providers.world import World
from engine.simulation.clock import Timeline, VirtualClock
from engine.simulation.driver import Arrival, Pilot, Reach

if TYPE_CHECKING:
    from engine.fleet.desk import Desk

VERSION: Final = "simulated"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every instance of a world shares.

    Attributes:
        timeline: The world's time.
        models: The models.
        seed: Decides every draw; each instance and purpose draws from a generator of its own.
        on_probe: Called with the end of each synthetic probe.
    """

    timeline: Timeline
    models: World
    seed: int
    on_probe: Callable[[Arrival], None] | None = None


class _Rounds(Rounds):
    """Rounds that a node's timer makes."""

    def __init__(self, node: Node, coordinator: Coordinator, sink: Sink, local: Coordinator | None) -> None:
        nonces = node.generator("nonces")
        super().__init__(coordinator, sink, node.clock, local=local, nonce=lambda: f"{nonces.getrandbits(32):08x}")
        self._node = node
        self._started_ms = node.clock.wall_ms()

    def poke(self, name: str) -> None:
        """Make a round now."""
        del name
        self._node.round_soon()

    def failed(self, desk: Desk, error: Exception) -> None:
        """Let nothing pass unseen."""
        raise error

    def member(self) -> Member:
        """This node as the fleet sees it."""
        identity = self._node.identity
        return Member(identity.instance, identity.host, VERSION, self._started_ms)


class Node:
    """One instance of one manager.

    Args:
        around: What it shares with the others.
        policy: The manager's settings.
        identity: Its name and host.
        clock: Its clocks.
        coordinator: Its connection to the store of the agreement.
        sink: Where its records go.
        local: Its disk's copy of the agreement.
        reach: Whether its network reaches a model.
    """

    def __init__(
        self,
        around: Surroundings,
        policy: ManagerPolicy,
        identity: Identity,
        clock: VirtualClock,
        coordinator: Coordinator,
        sink: Sink,
        *,
        local: Coordinator | None = None,
        reach: Reach | None = None,
    ) -> None:
        self.around = around
        self.identity = identity
        self.clock = clock
        self.coordinator = coordinator
        self.round_every: Callable[[], float] = lambda: ROUND_EVERY
        self.alive = True
        self.exchange = Exchange(
            policy,
            identity=identity,
            sink=sink,
            providers={},
            clock=clock,
            rng=self.generator("plan"),
            on_event=lambda _: self.round_soon(),
            ids=IdSource(clock.wall_ms, self.generator("ids").getrandbits),
        )
        self.pilot = Pilot(self.exchange, around.models, around.timeline, clock, reach)
        self.rounds = _Rounds(self, coordinator, sink, local)
        self.rounds.add(self.exchange)
        self.rounds.probes_with(policy.name, self._probe)
        self._due = float("inf")
        self._turn = 0

    def generator(self, purpose: str) -> random.Random:
        """Random numbers for one purpose, so that a new draw in one shifts no other."""
        return random.Random(f"{self.around.seed}:{self.identity.instance}:{purpose}")  # noqa: S311 - a simulation

    def start(self) -> None:
        """Remember the last agreement, and begin to agree."""
        self.rounds.recall()
        self.coordinator.subscribe(lambda _: self.round_soon())
        self.round_soon()

    def round_soon(self) -> None:
        """Make a round as the next thing, unless one is planned for now already."""
        self._plan(self.around.timeline.now)

    def pause(self, seconds: float) -> None:
        """Stand still: no round, no request, no answer until then."""
        self.pilot.paused_until = self.around.timeline.now + seconds

    def stop(self) -> None:
        """Die: requests are cut off, leases run out."""
        self.alive = False
        self._turn += 1
        for journey in list(self.pilot.aloft.values()):
            journey.drop()

    def _plan(self, when: float) -> None:
        if not self.alive or when >= self._due:
            return
        self._due = when
        self._turn += 1
        turn = self._turn
        self.around.timeline.at(when, lambda: self._round(turn))

    def _round(self, turn: int) -> None:
        if turn != self._turn or not self.alive:
            return
        now = self.around.timeline.now
        if now < self.pilot.paused_until:
            self.around.timeline.at(self.pilot.paused_until, lambda: self._round(turn))
            return
        self.rounds.stood_still(now - self._due)
        self._due = float("inf")
        self.rounds.turn()
        self._plan(now + self.round_every())

    def _probe(self, request: Request, role: Role) -> None:
        def ended(arrival: Arrival) -> None:
            self.rounds.probed(self.exchange.name)
            if self.around.on_probe is not None:
                self.around.on_probe(arrival)

        try:
            self.pilot.send(request, ended, only=role)
        except SwitchgearError:
            self.rounds.probed(self.exchange.name)
