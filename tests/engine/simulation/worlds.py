"""Worlds with one kind of trouble, as the tests run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.core.errors import RateLimited
from engine.core.events import BreakerRecord, FailoverRecord, RequestRecord, Scope
from engine.core.messages import Role
from engine.core.policy import ManagerPolicy, ModelFacts
from engine.providers.world import HEALTHY, Faults
from engine.simulation.driver import Arrival
from engine.simulation.world import SimulatedWorld

POLICY = ManagerPolicy("chat", ModelFacts("a", "pro", "models"), ModelFacts("b", "flash", "models"))


def policy(**settings: Any) -> ManagerPolicy:
    return replace(POLICY, **settings)


@dataclass
class Trouble:
    """A world in which primary has faults from `begins` to `ends`, under steady traffic."""

    world: SimulatedWorld
    begins: float
    ends: float
    used: float | None = None
    full: float | None = None

    @property
    def errors(self) -> list[Arrival]:
        return [arrival for arrival in self.world.arrivals if arrival.landed.error is not None]

    @property
    def moves(self) -> list[tuple[float, str, str]]:
        """Seconds since the trouble began, where to, and why: moves of the active model on the first instance."""
        first = next(iter(self.world.nodes))
        return [
            (note.at - self.begins, note.record.to_role, note.record.cause)
            for note in self.world.notes
            if isinstance(note.record, FailoverRecord) and note.record.scope is Scope.ACTIVE and note.instance == first
        ]

    @property
    def breakers(self) -> list[BreakerRecord]:
        return self.world.records(BreakerRecord)

    @property
    def synthetic(self) -> list[RequestRecord]:
        return [record for record in self.world.records(RequestRecord) if record.synthetic]

    def asked(self, model: str, since: float, until: float) -> int:
        """How often a model was asked between two world times."""
        return sum(since < at <= until for at, _, name in self.world.asked if name == model)


def trouble(
    seed: int,
    faults: Faults,
    *,
    gap: float = 1.0,
    begins: float = 60.0,
    lasts: float = 60.0,
    after: float = 300.0,
    hosts: Sequence[str] = ("a",),
    settings: ManagerPolicy = POLICY,
) -> Trouble:
    """Run it: a request every `gap` seconds in turn over the instances, every third one streamed."""
    world = SimulatedWorld(settings, seed, hosts=hosts)
    run = Trouble(world, begins, begins + lasts)
    names, count = list(world.nodes), 0

    def call() -> None:
        nonlocal count
        world.send(names[count % len(names)], streamed=count % 3 == 0)
        count += 1

    def watch() -> None:
        now, document = world.timeline.now, world.document()
        if now >= run.ends:
            if run.used is None and document.share > 0:
                run.used = now - run.ends
            if run.full is None and document.active is Role.PRIMARY:
                run.full = now - run.ends

    world.every(gap, run.ends + after, call)
    world.timeline.at(begins, lambda: world.models.set("pro", faults, world.timeline.now))
    world.timeline.at(run.ends, lambda: world.models.set("pro", HEALTHY, world.timeline.now))
    world.timeline.run(run.ends + after + 130.0, watch)
    return run


@dataclass
class Shed:
    """One answer that our own limit turned away, and what came of waiting as it said."""

    retry_after: float
    again: Arrival | None = None


def until_shed(seed: int, faults: Faults, *, gap: float, which: int, settings: ManagerPolicy = POLICY) -> Shed | None:
    """A storm that ends for everybody but the caller of the n-th shed answer: it waits as told and asks again.

    The provider's limit stays as it is. `None` when fewer were shed.
    """
    world = SimulatedWorld(settings, seed)
    world.models.set("pro", faults, 0.0)
    found: list[Shed] = []
    seen = 0

    def call() -> None:
        if not found:
            world.send("a-0", done=done)

    def done(arrival: Arrival) -> None:
        nonlocal seen
        error = arrival.landed.error
        if not isinstance(error, RateLimited) or found:
            return
        seen += 1
        if seen < which:
            return
        assert error.retry_after is not None
        shed = Shed(error.retry_after)
        found.append(shed)
        world.timeline.after(error.retry_after, lambda: world.send("a-0", done=lambda one: setattr(shed, "again", one)))

    world.every(gap, 600.0, call)
    world.timeline.run(1000.0)
    return found[0] if found else None


@dataclass
class Crowd:
    """What came of a crowd in which everybody who is turned away comes back when told, as often as it takes.

    Attributes:
        told: Returns at a time that had been told.
        served: How many of them were answered.
    """

    told: int = 0
    served: int = 0


def crowd(seed: int, faults: Faults, settings: ManagerPolicy, *, at_once: int = 0, gap: float = 0.0) -> Crowd:
    """Requests all at once, or one every `gap` seconds for ten minutes, at a limit that stays as it is."""
    world = SimulatedWorld(settings, seed)
    world.models.set("pro", faults, 0.0)
    found = Crowd()

    def ask(*, again: bool = False) -> None:
        world.send("a-0", done=lambda arrival: done(arrival, again=again))

    def done(arrival: Arrival, *, again: bool) -> None:
        error = arrival.landed.error
        found.told += again
        found.served += again and error is None
        if isinstance(error, RateLimited):
            assert error.retry_after is not None
            world.timeline.after(error.retry_after, lambda: ask(again=True))

    for _ in range(at_once):
        world.timeline.at(10.0, ask)
    if gap:
        world.every(gap, 600.0, ask)
    world.timeline.run(1500.0)
    return found
