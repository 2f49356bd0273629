"""A fleet in trouble: faults at random moments under a seed, then healing, then a required recovery.

The shape is FoundationDB's and TigerBeetle's: a phase in which everything may go wrong and nothing wrong may be done,
then one in which nothing goes wrong any more and everything has to come right within a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from engine.core.breaker import BreakerState
from engine.core.messages import Role
from engine.core.outcomes import Category
from engine.core.policy import ManagerPolicy
from engine.providers.world import HEALTHY, OUTAGE, Faults, Flap
from engine.simulation.fleet_invariants import FLEET_RULES
from engine.simulation.invariants import Rule, Violation
from engine.simulation.network import SOUND, LinkFaults
from engine.simulation.request_invariants import REQUEST_RULES
from engine.simulation.world import SimulatedWorld

MODEL_FAULTS: Final[Sequence[Faults]] = (
    Faults(outage=1.0),
    Faults(outage=1.0, outage_as=Category.CONNECTION),
    Faults(outage=0.6),
    Faults(outage=1.0, flap=Flap(8.0, 6.0)),
    Faults(rate_limit=6.0),
    Faults(rate_limit=0.0, retry_after=3.0),
    Faults(hang=0.5),
    Faults(cut_after=1, cut_share=0.5),
    Faults(outage=0.5, outage_as=Category.QUOTA_EXHAUSTED, retry_after=30.0),
    Faults(latency_factor=4.0),
)
PARTIAL: Final = Faults(outage=0.4)
TOOL: Final = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


STUCK: Final = "no stuck state"


@dataclass(frozen=True, slots=True)
class Drill:
    """What a chaotic world is like.

    Attributes:
        hosts: The host of each instance.
        seconds: How long things go wrong.
        troubles: How many do.
        per_second: Requests a second in the whole fleet.
        forgetful: Whether the store may lose its last write, as Redis may.
        recovery: Seconds within which everything must be as it should, beyond holds and pins that still run.
        menu: The kinds of trouble; all of them when empty.
    """

    hosts: Sequence[str] = ("a", "b", "c", "c", "d")
    seconds: float = 300.0
    troubles: int = 14
    per_second: float = 2.0
    forgetful: bool = False
    recovery: float = 420.0
    menu: Sequence[str] = ()


class Chaos:
    """One run.

    Args:
        policy: The manager's settings.
        seed: Decides everything.
        drill: What it is like.
        rules: What must hold at every step.
    """

    def __init__(
        self,
        policy: ManagerPolicy,
        seed: int,
        drill: Drill,
        rules: Sequence[type[Rule]] = (*FLEET_RULES, *REQUEST_RULES),
    ) -> None:
        skewed = [(-1.0) ** place * 90.0 * place for place in range(len(drill.hosts))]
        self.drill = drill
        self.world = SimulatedWorld(policy, seed, hosts=drill.hosts, skews=skewed, watchers=rules)
        self._rng = self.world.generator("chaos")
        self._calls = self.world.generator("callers")
        self._healed = False

    def run(self) -> SimulatedWorld:
        """Break things, heal them, and demand recovery.

        Raises:
            Violation: A rule did not hold, or the fleet did not recover.
        """
        world, rng, drill = self.world, self._rng, self.drill
        self._callers()
        for _ in range(drill.troubles):
            trouble = rng.choice(self._menu())
            world.timeline.at(20.0 + rng.random() * (drill.seconds - 20.0), trouble)
        world.run(drill.seconds)
        self._heal()
        self._recover()
        return world

    # -- callers -----------------------------------------------------------------------------------------------

    def _callers(self) -> None:
        world, rng = self.world, self._calls

        def call() -> None:
            living = list(world.nodes)
            if living:
                # Uneven on purpose: some instances are nearly idle and have no opinion.
                name = living[min(int(rng.paretovariate(1.0)) - 1, len(living) - 1)]
                tools = (TOOL,) if rng.random() < 0.05 else ()
                session = f"s{rng.randrange(20)}" if rng.random() < 0.3 else None
                world.send(name, streamed=rng.random() < 0.3, tools=tools, session=session)
            world.timeline.after(rng.expovariate(self.drill.per_second), call)

        world.timeline.after(1.0, call)

    # -- what goes wrong ---------------------------------------------------------------------------------------

    def _menu(self) -> Sequence[Callable[[], None]]:
        """Kinds of trouble, as often as they are to come; one that is named in the drill is there once."""
        kinds = {
            "primary": self._primary,
            "secondary": self._secondary,
            "outage": lambda: self._fault(self.world.policy.primary.name, OUTAGE),
            "partial": lambda: self._fault(self.world.policy.primary.name, PARTIAL),
            "partition": self._partition,
            "blocked": self._blocked,
            "flaky_link": self._flaky_link,
            "crash": self._crash,
            "pause": self._pause,
            "override": self._override,
            "leave": self._leave,
            "forget": self._forget,
        }
        if self.drill.menu:
            return [kinds[name] for name in self.drill.menu]
        if not self.drill.forgetful:
            del kinds["forget"]
        return [*kinds.values(), self._primary, self._primary, self._partition]

    def _for_a_while(self, undo: Callable[[], None], least: float = 8.0, most: float = 90.0) -> None:
        self.world.timeline.after(least + (most - least) * self._rng.random(), undo)

    def _primary(self) -> None:
        self._fault(self.world.policy.primary.name)

    def _secondary(self) -> None:
        self._fault(self.world.policy.secondary.name)

    def _fault(self, model: str, faults: Faults | None = None) -> None:
        models = self.world.models
        models.set(model, faults or self._rng.choice(MODEL_FAULTS), self.world.timeline.now)
        self._for_a_while(lambda: models.set(model, HEALTHY, self.world.timeline.now))

    def _partition(self) -> None:
        """Cut some hosts off from the store, all their instances together."""
        hosts = sorted({node.identity.host for node in self.world.nodes.values()})
        side = set(self._rng.sample(hosts, self._rng.randint(1, len(hosts))))
        cut = [name for name, node in self.world.nodes.items() if node.identity.host in side]
        self._links(cut, LinkFaults(cut=True))
        self._for_a_while(lambda: self._links(cut, SOUND))

    def _flaky_link(self) -> None:
        name = self._rng.choice(list(self.world.nodes) or [""])
        self._links([name], LinkFaults(lost_answers=0.3, late_writes=0.3, lost_hints=0.7))
        self._for_a_while(lambda: self._links([name], SOUND))

    def _links(self, names: Sequence[str], faults: LinkFaults) -> None:
        for name in names:
            if name in self.world.links and not (self._healed and faults is not SOUND):
                self.world.links[name].suffer(faults)

    def _blocked(self) -> None:
        """One host's network does not reach a model that is well."""
        names = list(self.world.nodes)
        if names:
            host = self.world.nodes[self._rng.choice(names)].identity.host
            model = self._rng.choice([self.world.policy.primary.name, self.world.policy.secondary.name])
            mine = [name for name in names if self.world.nodes[name].identity.host == host]
            self._block(mine, model, blocked=True)
            self._for_a_while(lambda: self._block(mine, model, blocked=False))

    def _block(self, names: Sequence[str], model: str, *, blocked: bool) -> None:
        for name in names:
            self.world.block(name, model, blocked=blocked)

    def _crash(self) -> None:
        names = list(self.world.nodes)
        if len(names) > 1:
            name = self._rng.choice(names)
            host = self.world.nodes[name].identity.host
            self.world.crash(name)
            self._for_a_while(lambda: self._born(host), 1.0, 60.0)

    def _born(self, host: str) -> None:
        self.world.born(host)

    def _pause(self) -> None:
        names = list(self.world.nodes)
        if names:
            self.world.nodes[self._rng.choice(names)].pause(3.0 + 12.0 * self._rng.random())

    def _override(self) -> None:
        names = list(self.world.nodes)
        if names:
            role = self._rng.choice(list(Role))
            strict = self._rng.random() < 0.3
            self.world.override(role, ttl=20.0 + 60.0 * self._rng.random(), strict=strict, via=self._rng.choice(names))

    def _leave(self) -> None:
        """A caller goes away in the middle."""
        for node in self.world.nodes.values():
            for journey in list(node.pilot.aloft.values())[:1]:
                if not journey.request.synthetic:
                    journey.leave()
                    return

    def _forget(self) -> None:
        self.world.store.forget_last_write(self.world.policy.name)

    # -- how it ends -------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        world = self.world
        self._healed = True
        world.models.heal()
        for name, link in world.links.items():
            link.suffer(SOUND)
            for model in (world.policy.primary.name, world.policy.secondary.name):
                world.block(name, model, blocked=False)

    def _recover(self) -> None:
        """Everything as it should be, within the bound."""
        world = self.world
        deadline = world.timeline.now + self.drill.recovery
        while (why := self.unwell()) is not None:
            document = world.document()
            pinned = document.override.ttl if document.override is not None else 0.0
            longest = max(deadline, self.drill.seconds + self.drill.recovery + document.hold + pinned)
            if world.timeline.now >= longest:
                raise Violation(STUCK, why, world)
            world.run(world.timeline.now + 5.0)

    def unwell(self) -> str | None:
        """What is not yet as it should be, `None` when everything is."""
        world, document = self.world, self.world.document()
        if document.active is not Role.PRIMARY or document.share < 1.0 or document.override is not None:
            return f"the agreement is {document.active} with share {document.share}, cause {document.cause}"
        for name, node in world.nodes.items():
            board = node.exchange.board
            if board.document != document:
                return f"{name} goes by epoch {board.document.epoch} and not by {document.epoch}"
            for role, line in board.lines.items():
                state = line.breaker.state
                if state is not BreakerState.CLOSED:
                    return f"{name} has a breaker of {role} that is {state}"
        return None
