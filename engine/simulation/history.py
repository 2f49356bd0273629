"""A day of history for a demo: the real plan and the real agreement over simulated time, into the real recorder.

Nothing in it is drawn by hand. Requests come as the hour of the day has it, models fail as `scenarios.A_DAY` says,
and whatever the tables show afterwards is what the engine decided then.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from engine.config import Config
from engine.control import Actor, Control
from engine.core.agreement import Document
from engine.core.errors import SwitchgearError
from engine.core.events import Record, Records, RequestRecord, listed
from engine.core.messages import Role
from engine.exchange import Identity
from engine.fleet.store import StoreCoordinator
from engine.providers.world import Profile, World
from engine.recorder import Recorder
from engine.simulation.clock import Timeline, VirtualClock
from engine.simulation.driver import Arrival
from engine.simulation.network import SimulatedCoordinator, SimulatedStore
from engine.simulation.node import Node, Surroundings
from engine.simulation.scenarios import A_DAY, BACKGROUND, Incident, Pin, Scheduled
from engine.simulation.traffic import DAY, Callers, Load
from engine.tickets import Ticket

REQUESTS_A_DAY: Final = 30_000.0
CALM_ROUNDS: Final = 6.0
"""Seconds between rounds while nothing happens; an agent's pace would take longer and change nothing."""

QUEUE: Final = 4_000
"""Records that wait for the writer before the simulation does."""

PROGRESS_STEPS: Final = 200
PRIMARY_SPEED: Final = Profile(first_token=0.7, per_event=0.33, spread=0.42, words=160, words_per_event=40)
SECONDARY_SPEED: Final = Profile(first_token=0.32, per_event=0.14, spread=0.38, words=160, words_per_event=40)


class Archive:
    """Takes a simulation's records to the recorder, no faster than it writes.

    Args:
        recorder: The real one.
        rng: Decides how long our own work took, which virtual time cannot know.
    """

    def __init__(self, recorder: Recorder, rng: random.Random) -> None:
        self._recorder = recorder
        self._rng = rng
        self.requests = 0

    @property
    def full(self) -> bool:
        """Never: the simulation waits instead."""
        return False

    def submit(self, records: Records, *, here: bool = False) -> Ticket:
        """Hand records over, once there is room."""
        while self._recorder.queue_length > QUEUE:
            time.sleep(0.002)
        return self._recorder.submit([self._timed(record) for record in listed(records)])

    def _timed(self, record: Record) -> Record:
        if not isinstance(record, RequestRecord):
            return record
        self.requests += 1
        return replace(record, overhead_us=round(90 * self._rng.lognormvariate(0.0, 0.3)))


class _Agreement(SimulatedCoordinator):
    """Agreement in memory, with every document written to the store as an instance would have."""

    def __init__(self, memory: SimulatedStore, store: StoreCoordinator, instance: str, rng: random.Random) -> None:
        super().__init__(memory, instance, rng)
        self._written = store

    def swap(self, manager: str, expected_epoch: int | None, document: Document) -> bool:
        """See `Coordinator.swap`."""
        done = super().swap(manager, expected_epoch, document)
        return done and self._written.swap(manager, expected_epoch, document)


class _Day:
    """The run of one history."""

    def __init__(self, config: Config, recorder: Recorder, seed: int, start_ms: int, seconds: float) -> None:
        self._config = config
        self._seed = seed
        self._seconds = seconds
        self._start_ms = start_ms
        self.timeline = Timeline()
        self._clock = VirtualClock(self.timeline, start_ms=start_ms)
        self._recorder = recorder
        self.archive = Archive(recorder, self._generator("overhead"))
        self._models = World(seed)
        self._store = StoreCoordinator(recorder, clock=self._clock.monotonic, wall_ms=self._clock.wall_ms)
        identity = Identity(f"{config.fleet_host}-history", config.fleet_host)
        agreement = _Agreement(
            SimulatedStore(self.timeline), self._store, identity.instance, self._generator("agreement")
        )
        self._control = Control(config, recorder, agreement, clock=self._clock, instance=identity.instance)
        around = Surroundings(self.timeline, self._models, seed)
        self._nodes: dict[str, Node] = {}
        self._loads: dict[str, Load] = {}
        share = 1.0
        for name in config.managers:
            policy = config.manager_policy(name)
            self._models.tune(policy.secondary.name, SECONDARY_SPEED)
            self._models.tune(policy.primary.name, PRIMARY_SPEED)
            for model in (policy.primary, policy.secondary):
                self._models.set(model.name, BACKGROUND)
            node = Node(around, policy, identity, self._clock, agreement, self.archive)
            node.round_every = lambda node=node: _pace(node)  # type: ignore[misc]
            self._nodes[name] = node
            self._loads[name] = Load(REQUESTS_A_DAY * share)
            share *= 0.4

    def _generator(self, purpose: str) -> random.Random:
        return random.Random(f"{self._seed}:{purpose}")  # noqa: S311 - a simulation

    def run(self, progress: Callable[[float], None] | None) -> None:
        """Live through the day."""
        for name, node in self._nodes.items():
            node.start()
            self._call(node, Callers(self._loads[name], self._generator(f"callers:{name}")))
        for scheduled in _placed(A_DAY, self._seconds):
            self.timeline.at(scheduled.at, lambda what=scheduled.what: self._begin(what))  # type: ignore[misc]
        for step in range(1, PROGRESS_STEPS + 1):
            self.timeline.run(self._seconds * step / PROGRESS_STEPS)
            if progress is not None:
                progress(step / PROGRESS_STEPS)
        for node in self._nodes.values():
            node.stop()
        self._store.close()

    @property
    def _main(self) -> Node:
        """The manager that the incidents happen to: the first one."""
        return next(iter(self._nodes.values()))

    def _second_of_day(self) -> float:
        return (self._start_ms / 1000 + self.timeline.now) % DAY

    def _call(self, node: Node, callers: Callers) -> None:
        """Plan the next request of a manager's callers."""

        def call() -> None:
            with contextlib.suppress(SwitchgearError):  # refused before it began, as a caller would see it
                node.pilot.send(callers.request(), _forget, streamed=callers.streams())
            self._call(node, callers)

        self.timeline.after(callers.pause(self._second_of_day()), call)

    def _begin(self, what: Incident | Pin) -> None:
        policy = self._main.exchange.policy
        if isinstance(what, Pin):
            self._pin(what)
            return
        model = policy.model(what.role).name
        demand = 60 * self._loads[policy.name].rate(self._second_of_day())
        self._models.set(model, what.faults(demand), self.timeline.now)
        self.timeline.after(what.lasts, lambda: self._models.set(model, BACKGROUND, self.timeline.now))

    def _pin(self, pin: Pin) -> None:
        name, actor = self._main.exchange.name, Actor(pin.by)
        self._control.set_override(name, pin.role, reason=pin.reason, actor=actor, ttl=2 * pin.lasts)
        self._main.round_soon()

        def clear() -> None:
            self._control.clear_override(name, reason="maintenance is over", actor=actor)
            self._main.round_soon()

        if pin.clears:
            self.timeline.after(pin.lasts, clear)


def _forget(arrival: Arrival) -> None:
    """Nobody waits for the answers of the past."""


def _pace(node: Node) -> float:
    """Seconds to the next round: an agent's own pace while there is something to agree on."""
    board = node.exchange.board
    calm = board.document.active is Role.PRIMARY and all(
        line.breaker.state == "closed" for line in board.lines.values()
    )
    return CALM_ROUNDS if calm else 0.5


def _placed(day: Sequence[Scheduled], seconds: float) -> list[Scheduled]:
    """What fits into a run of this length, each with its time in seconds and time to recover from the one before."""
    placed: list[Scheduled] = []
    free = 5 * 60.0
    for scheduled in day:
        at = scheduled.at * seconds
        over = at + scheduled.what.lasts + scheduled.what.recovers
        if at >= free and over <= seconds:
            placed.append(Scheduled(at, scheduled.what))
            free = over
    return placed


def write_history(
    config: Config,
    recorder: Recorder,
    *,
    seed: int,
    end_ms: int,
    hours: float = 24,
    progress: Callable[[float], None] | None = None,
) -> int:
    """Write the hours before a moment.

    Args:
        config: Whose managers; their providers are not asked.
        recorder: Where it goes; its store should hold no history yet.
        seed: Decides everything.
        end_ms: When it ends, milliseconds UTC.
        hours: How long it is.
        progress: Called with the share that is done, 0..1.

    Returns:
        The number of requests, synthetic ones included.
    """
    day = _Day(config, recorder, seed, end_ms - round(hours * 3_600_000), hours * 3600.0)
    day.run(progress)
    return day.archive.requests
