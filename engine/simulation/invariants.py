"""What must hold at every step of a simulated world, each rule with the number it has in the resilience reference.

A rule is a watcher that raises `Violation` with the seed to run again. The rules recount what they judge from the
world itself, not with the functions under test: a rule that asks the code whether the code is right finds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core.effects import (
    Attempt,
    Outcome,
)
from engine.core.events import Record
from engine.exchange import Flight
from engine.simulation.driver import Arrival
from engine.simulation.network import Swap
from engine.simulation.node import Node

if TYPE_CHECKING:
    from engine.simulation.world import SimulatedWorld


class Violation(BaseException):
    """A rule does not hold. Not an `Exception`, so that no code under test can swallow it.

    Args:
        rule: Its name.
        what: What was seen.
        world: Where.
    """

    def __init__(self, rule: str, what: str, world: SimulatedWorld) -> None:
        super().__init__(f"{rule}, at {world.timeline.now:.3f} s of seed {world.seed}: {what}")
        self.rule = rule


class Rule:
    """Looks at nothing; rules look at what concerns them.

    Args:
        world: What to look at.
    """

    name = "rule"

    def __init__(self, world: SimulatedWorld) -> None:
        self.world = world

    def demand(self, holds: bool, what: str) -> None:
        """Raise unless it holds."""
        if not holds:
            raise Violation(self.name, what, self.world)

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
