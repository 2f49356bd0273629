"""Whether an answer means what its caller wanted, decided after the attempt and before anybody sees it."""

from __future__ import annotations

from engine.core.errors import SemanticFailure
from engine.core.outcomes import Category
from engine.core.plan import Attempt, Outcome
from engine.endings import rejected
from engine.exchange import Flight
from engine.validation import check_reply


def judged(flight: Flight, attempt: Attempt, outcome: Outcome, started: float) -> Outcome:
    """The outcome after the answer was checked by the caller's schema and the validators."""
    completion = outcome.completion
    if outcome.category is not Category.OK or completion is None:
        return outcome
    exchange = flight.exchange
    try:
        check_reply(flight.request, flight.provisional(attempt, completion), exchange.policy, exchange.validators)
    except SemanticFailure as rejection:
        return rejected(rejection, completion, started, exchange.clock.monotonic(), shown=outcome.shown)
    return outcome
