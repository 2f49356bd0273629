"""Live traffic for a demo, and an incident every few minutes: outage, 429 storm, flapping, in turn.

Runs beside the gateway in its process, on a thread with an event loop of its own, and asks the same managers that the
gateway serves, so the record shows one application. Incidents are set on the simulated models themselves; nobody
tells the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from itertools import cycle
from typing import Final

from engine.async_manager import AsyncDualModelManager
from engine.core.errors import SwitchgearError
from engine.core.messages import Request
from engine.instance import Instance
from engine.providers.simulated import SimulatedProvider
from engine.providers.world import Profile, World
from engine.simulation.scenarios import BACKGROUND, Incident, flapping, outage, rate_limit_storm
from engine.simulation.traffic import DAY, Callers, Load

log = logging.getLogger(__name__)

PER_SECOND: Final = 3.0
"""Requests a second to the first manager; the others get a third of that each."""

FIRST_AFTER: Final = 75.0
"""Seconds until the first incident: time to look at what is normal."""

AT_ONCE: Final = 200
"""Requests in flight at most; a demo does not need more to show what happens when models hang."""

STOP_WITHIN: Final = 5.0

INCIDENTS: Final = (
    (outage(75.0), 300.0),
    (rate_limit_storm(100.0, 0.5), 660.0),
    (flapping(120.0, up=5.0, down=15.0), 1080.0),
)
"""What happens in turn, and the seconds until the next one begins: time to come back, for the alerts that look back
over minutes to be over, so that each is an incident of its own, and for a while of calm."""

PRIMARY_SPEED: Final = Profile(first_token=0.6, per_event=0.07, spread=0.35, words=90, words_per_event=6)
SECONDARY_SPEED: Final = Profile(first_token=0.25, per_event=0.03, spread=0.3, words=90, words_per_event=6)


class DemoTraffic:
    """Callers and incidents of a demo; a companion of the gateway.

    Args:
        instance: The process, with simulated providers.
        seed: Decides what is asked, and when.
        first_after: Seconds until the first incident.
        per_second: Requests a second to the first manager.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        seed: int = 11,
        first_after: float = FIRST_AFTER,
        per_second: float = PER_SECOND,
    ) -> None:
        self._instance = instance
        self._seed = seed
        self._first_after = first_after
        self._per_second = per_second
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to ask; returns at once."""
        self._thread = threading.Thread(target=self._run, name="switchgear-demo", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Heal the models and stop asking; calls in flight are left."""
        loop, main = self._loop, self._main
        if loop is not None and main is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(main.cancel)
        if self._thread is not None:
            self._thread.join(STOP_WITHIN)

    def _run(self) -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(self._serve())
        except Exception:
            log.exception("the demo's traffic has ended; the gateway goes on serving")

    async def _serve(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        names = list(self._instance.config.managers)
        managers = {name: AsyncDualModelManager(None, name, instance=self._instance) for name in names}
        self._settle(names)
        try:
            async with asyncio.TaskGroup() as tasks:
                for place, (name, manager) in enumerate(managers.items()):
                    tasks.create_task(self._ask(name, manager, self._per_second / (3.0 if place else 1.0)))
                tasks.create_task(self._script(names[0]))
        finally:
            self._heal()
            for answer in list(self._answers):
                answer.cancel()
            await asyncio.gather(*self._answers, return_exceptions=True)

    # -- the models --------------------------------------------------------------------------------------------

    def _world(self, name: str) -> World | None:
        """The world that a manager's primary lives in; `None` when that is no simulated model."""
        exchange = self._instance.exchange(name)
        provider = exchange.providers[exchange.policy.primary.provider]
        return provider.world if isinstance(provider, SimulatedProvider) else None

    def _settle(self, names: list[str]) -> None:
        """Give the models believable speeds and a good day's few failures."""
        for name in names:
            exchange = self._instance.exchange(name)
            for model, speed in (
                (exchange.policy.secondary, SECONDARY_SPEED),
                (exchange.policy.primary, PRIMARY_SPEED),
            ):
                provider = exchange.providers[model.provider]
                if isinstance(provider, SimulatedProvider):
                    provider.world.tune(model.name, speed)
                    provider.world.set(model.name, BACKGROUND, time.monotonic())

    def _heal(self) -> None:
        for exchange in self._instance.exchanges.values():
            for provider in exchange.providers.values():
                if isinstance(provider, SimulatedProvider):
                    provider.world.heal()

    async def _script(self, name: str) -> None:
        """One incident after another, for ever."""
        world = self._world(name)
        if world is None:
            return
        model = self._instance.exchange(name).policy.primary.name
        log.info("demo: live traffic on %s; the first incident begins in %.0f s", name, self._first_after)
        await asyncio.sleep(self._first_after)
        for incident, until_next in cycle(INCIDENTS):
            await self._happen(incident, world, model)
            log.info("demo: next incident in %.0f s", until_next - incident.lasts)
            await asyncio.sleep(until_next - incident.lasts)

    async def _happen(self, incident: Incident, world: World, model: str) -> None:
        log.warning("demo incident: %s of %s begins and lasts %.0f s", incident.name, model, incident.lasts)
        world.set(model, incident.faults(60 * self._per_second), time.monotonic())
        await asyncio.sleep(incident.lasts)
        world.set(model, BACKGROUND, time.monotonic())
        log.warning("demo incident: %s of %s is over; watch the way back", incident.name, model)

    # -- the callers -------------------------------------------------------------------------------------------

    async def _ask(self, name: str, manager: AsyncDualModelManager, per_second: float) -> None:
        rng = random.Random(f"{self._seed}:{name}")  # noqa: S311 - a demo's callers
        callers = Callers(Load(per_second * DAY, flat=True), rng)
        while True:
            await asyncio.sleep(callers.pause(0.0))
            if len(self._answers) < AT_ONCE:
                task = asyncio.ensure_future(_answer(manager, callers.request(), streamed=callers.streams()))
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)


async def _answer(manager: AsyncDualModelManager, request: Request, *, streamed: bool) -> None:
    """Ask once; errors are on record, which is the point of a demo."""
    with contextlib.suppress(SwitchgearError):
        if not streamed:
            await manager.generate(request)
            return
        async with contextlib.aclosing(manager.stream(request)) as chunks:
            async for _ in chunks:
                pass
