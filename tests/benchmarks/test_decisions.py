"""What the decisions themselves cost, without any I/O: the plan with its books, the breaker, an id."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from engine.core.breaker import Breaker, Permit
from engine.core.effects import (
    Attempt,
    Verdict,
)
from engine.core.events import Records, listed
from engine.core.messages import Call, Completion, Delta, FinishReason, Usage
from engine.core.outcomes import Effect
from engine.core.policy import BreakerPolicy, ManagerPolicy, ModelFacts
from engine.endings import succeeded
from engine.exchange import Exchange, Identity
from engine.ids import new_id
from engine.tickets import DONE, Ticket
from tests.benchmarks.measuring import microseconds, quietest, say

ANSWER = Completion("blue", FinishReason.STOP, Usage(3, 1))


class Nobody:
    """A provider that is never asked."""

    def generate(self, call: Call) -> Completion:
        raise NotImplementedError

    def stream(self, call: Call) -> Iterator[Delta]:
        raise NotImplementedError


class Nowhere:
    """A sink that takes everything."""

    full = False

    def submit(self, records: Records, *, here: bool = False) -> Ticket:
        listed(records)
        return DONE


def yardstick() -> object:
    """A thousand additions: what this machine's Python costs at the moment."""
    total = 0
    for number in range(1000):
        total += number
    return total


def a_flight() -> Callable[[], object]:
    """A whole request that succeeds at once: routing, permits, slots, books, record."""
    policy = ManagerPolicy("chat", ModelFacts("pro", "pro", "p"), ModelFacts("flash", "flash", "p"))
    exchange = Exchange(policy, identity=Identity("i", "h"), sink=Nowhere(), providers={"p": Nobody()})

    def fly() -> object:
        flight = exchange.begin("Why is the sky blue?")
        step = flight.start()
        while not isinstance(step, Verdict):
            assert isinstance(step, Attempt)
            flight.call(step)
            now = time.monotonic()
            step = flight.resume(succeeded(ANSWER, now, now))
        return flight.land(step)

    return fly


def a_breaker_round() -> Callable[[], object]:
    """Ask and report on a closed breaker."""
    breaker = Breaker(BreakerPolicy(), 240.0)
    now = [0.0]

    def ask_and_report() -> object:
        now[0] += 0.001
        permit, _ = breaker.ask(now[0], 0.5)
        assert isinstance(permit, Permit)
        return breaker.report(permit, Effect.OK, now[0], 0.5, duration=0.1)

    return ask_and_report


WORK = {
    "a request without I/O": (a_flight, 5.0),
    "breaker, ask and report": (a_breaker_round, 0.3),
    "an id": (lambda: new_id, 0.25),
}
"""What is measured, and how many yardsticks it may cost: about three times what it does."""


@pytest.mark.parametrize("what", WORK)
def test_a_decision_stays_cheap(what: str) -> None:
    make, bound = WORK[what]
    assert quietest(make()) < bound * quietest(yardstick)


@pytest.mark.bench
@pytest.mark.parametrize("what", WORK)
def test_cost_of_a_decision(what: str) -> None:
    make, bound = WORK[what]
    spent, unit = quietest(make(), windows=100), quietest(yardstick, windows=100)
    say(what, f"{microseconds(spent)} ({spent / unit:.2f} yardsticks)", f"< {bound} yardsticks")
    assert spent < bound * unit
