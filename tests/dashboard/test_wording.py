"""Every word of the engine has words for people."""

from __future__ import annotations

import pytest

from dashboard import wording
from engine.core.breaker import BreakerState
from engine.core.events import RequestOutcome
from engine.core.findings import Reason
from engine.core.outcomes import Category, Cause
from engine.schema import ALERT_STATES, OUTBOX_STATES


@pytest.mark.parametrize("cause", [*Cause, *Category])
def test_every_cause_says_who_can_fix_it(cause: str) -> None:
    assert str(cause) in wording.CAUSES


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_says_what_to_do_next(cause: Cause) -> None:
    assert wording.advice(cause).next.endswith(".")


def test_every_state_has_a_face() -> None:
    assert set(wording.BREAKERS) == {str(state) for state in BreakerState}
    assert set(wording.OUTCOMES) == {str(outcome) for outcome in RequestOutcome}
    assert set(wording.ALERTS) == {*ALERT_STATES, "watching"}
    assert set(wording.DELIVERIES) == set(OUTBOX_STATES)
    assert {str(reason) for reason in Reason} <= set(wording.REASONS)


def test_an_unknown_word_is_shown_as_itself() -> None:
    assert wording.advice("new_cause").label == "New cause"
    assert wording.face(wording.BREAKERS, "wedged").word == "Wedged"
