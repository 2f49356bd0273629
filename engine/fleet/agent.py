"""The agent: one thread per process that makes rounds of agreement for all of its managers (`engine.fleet.rounds`)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine import standstill
from engine.core.agreement import Member
from engine.fleet.gauges import gauges_of
from engine.fleet.rounds import ROUND_EVERY, Rounds
from engine.version import VERSION

if TYPE_CHECKING:
    from engine.exchange import Exchange
    from engine.instance import Instance

log = logging.getLogger(__name__)


class Agent(Rounds):
    """Agrees with the other instances on behalf of one process.

    Args:
        instance: The process.
    """

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance.coordinator, instance.recorder, instance.clock, local=instance.local_agreement)
        self._instance = instance
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._first = threading.Event()
        self._started_ms = instance.clock.wall_ms()

    # -- from other threads ------------------------------------------------------------------------------------

    def add(self, exchange: Exchange) -> None:
        """Take on a manager."""
        super().add(exchange)
        self.poke(exchange.name)

    def poke(self, name: str) -> None:
        """Make a round now, because something happened to a manager."""
        del name  # a round is for all of them: it is cheap, and one that is late is not
        self._wake.set()

    def start(self) -> None:
        """Start the thread and wait a moment for its first round, so that requests know what is agreed."""
        self.recall()
        self._thread = threading.Thread(target=self._run, name="switchgear-agent", daemon=True)
        self._thread.start()
        self._instance.coordinator.subscribe(self.poke)
        self._first.wait(1.0)

    def stop(self) -> None:
        """End the thread and leave the fleet."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def probed(self, name: str) -> None:
        """A synthetic probe has ended, well or not."""
        super().probed(name)
        self.poke(name)

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        due = standstill.now()
        while not self._stopping:
            self.stood_still(standstill.now() - due)
            self._wake.clear()
            try:
                self.turn()
            except Exception:
                log.exception("a round of agreement failed; the last agreement stands")
            self._first.set()
            self._beside()
            due = standstill.now() + ROUND_EVERY
            self._wake.wait(ROUND_EVERY)

    def _beside(self) -> None:
        """What else a process does for its managers now and then; no mistake there may end the agreement."""
        instance = self._instance
        try:
            instance.canaries.turn()
            instance.calibrations.turn(list(instance.exchanges.values()), self._clock.monotonic())
        except Exception:
            log.exception("canaries or calibration stumbled; they are tried again in a moment")

    def member(self) -> Member:
        """This process as the fleet sees it, with its gauges."""
        identity = self._instance.identity
        gauges: Mapping[str, Any] = gauges_of(self._instance, [desk.exchange for desk in self._desks.values()])
        return Member(identity.instance, identity.host, VERSION, self._started_ms, gauges=gauges)
