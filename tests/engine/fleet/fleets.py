"""Fleets for tests: instances as real as processes, each with models, clocks and a line to the coordinator."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from engine import DualModelManager, Reply, SwitchgearError
from engine.clock import SystemClock
from engine.config import Config
from engine.core.agreement import Document
from engine.core.messages import Call, Role
from engine.core.outcomes import Category
from engine.exchange import Exchange, Identity
from engine.fleet.registry import open_coordinator
from engine.instance import Instance
from engine.recorder import Recorder
from engine.store import Store
from tests.engine.drivers import Plain, failure, rows
from tests.engine.fleet.proxy import Proxy
from tests.patience import PATIENCE_S, eventually

QUICK = """
[managers.chat.retry]
attempts = 1
[managers.chat.breaker]
consecutive_failures = 3
open_for = "300ms"
open_max = "300ms"
[managers.chat.recovery]
hold = "1s"
gate = 2
sustain = "200ms"
stages = [1.0]
stage_for = "200ms"
stage_samples = 2
"""
"""Detects in three calls and comes back in about two seconds."""


class Skewed(SystemClock):
    """A machine whose wall clock is wrong."""

    def __init__(self, seconds: float) -> None:
        self._off = round(seconds * 1000)

    def wall_ms(self) -> int:
        return super().wall_ms() + self._off


class Station:
    """One instance on a host, with two models of its own that can be broken."""

    def __init__(self, config: Config, url: str, place: Path, host: str, name: str, skew: float = 0.0) -> None:
        self.config, self.url, self.place, self.host, self.name, self.skew = config, url, place, host, name, skew
        self.broken: set[str] = set()
        self.errors: list[SwitchgearError] = []
        self.open()

    def open(self) -> None:
        """Begin, or begin again as a new process on the same disk."""
        recorder = Recorder(Store(self.place).open())
        coordinator = open_coordinator(self.url, instance=self.name, recorder=recorder)
        clock = Skewed(self.skew)
        self.instance = Instance(self.config, recorder, coordinator, Identity(self.name, self.host), clock)
        providers = {"simulated": Plain(self._answer)}
        self.manager = DualModelManager(self.config, "chat", providers=providers, instance=self.instance)

    def _answer(self, call: Call) -> Any:
        return failure(Category.SERVER_ERROR) if call.model in self.broken else f"{call.model} answers"

    @property
    def exchange(self) -> Exchange:
        return self.instance.exchange("chat")

    @property
    def document(self) -> Document:
        return self.exchange.board.document

    @property
    def active(self) -> Role:
        return self.document.active

    def start(self) -> Self:
        self.instance.start()
        return self

    def ask(self) -> Reply | None:
        """One request; an error is kept."""
        try:
            return self.manager.generate("hello")
        except SwitchgearError as error:
            self.errors.append(error)
            return None

    def moves(self) -> list[dict[str, Any]]:
        """Moves of the active model on record in this store."""
        return rows(self.place, "failovers", "scope = 'active'")

    def die(self) -> None:
        """Stop without a word to the fleet."""
        agent = self.instance.agent
        agent._stopping = True
        agent._wake.set()
        assert agent._thread is not None
        agent._thread.join()

    def close(self) -> None:
        self.manager.close()
        self.instance.close()


class Fleet:
    """Stations that close together; on servers each has its own store, else they share one."""

    def __init__(self, config: Config, url: str, folder: Path) -> None:
        self.config, self.url, self.folder = config, url, folder
        self.stations: list[Station] = []
        self._stack = ExitStack()
        self._stop = threading.Event()
        self._callers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.quiet()
        closing = [threading.Thread(target=station.close) for station in self.stations]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
        self._stack.close()

    def add(self, host: str, *, name: str = "", url: str = "", skew: float = 0.0, start: bool = True) -> Station:
        name = name or f"{host}-1"
        place = self.folder / ("shared.db" if self.url == "store" else f"{name}.db")
        station = Station(self.config, url or self.url, place, host, name, skew)
        self.stations.append(station)
        return station.start() if start else station

    def five(self) -> Sequence[Station]:
        """Five hosts that know of each other."""
        for number in range(5):
            self.add(f"host{number}", start=False)
        starting = [threading.Thread(target=station.start) for station in self.stations]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        eventually(lambda: all(station.exchange.board.instances == 5 for station in self.stations))
        return self.stations

    def line(self, port: int) -> Proxy:
        """A network of its own to the coordinator's server."""
        return self._stack.enter_context(Proxy(port))

    def traffic(self, *stations: Station, every: float = 0.05) -> None:
        """Have callers ask all the time."""

        def call(station: Station) -> None:
            while not self._stop.wait(every):
                station.ask()

        for station in stations or self.stations:
            thread = threading.Thread(target=call, args=(station,), daemon=True)
            self._callers.append(thread)
            thread.start()

    def quiet(self) -> None:
        """End the callers."""
        self._stop.set()
        for caller in self._callers:
            caller.join(PATIENCE_S)
        self._callers.clear()
        self._stop.clear()

    def errors(self) -> list[SwitchgearError]:
        return [error for station in self.stations for error in station.errors]


def through(url: str, port: int) -> str:
    """The same URL on another port of this machine."""
    old = urlsplit(url).netloc.rpartition(":")[2]
    return url.replace(f":{old}", f":{port}", 1)


PRO, FLASH = "gemini-2.5-pro", "gemini-2.5-flash"
