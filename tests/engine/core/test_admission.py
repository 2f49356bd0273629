"""Why a model cannot take a request, known without asking it."""

from __future__ import annotations

import pytest

from engine.core.admission import barred, lacking
from engine.core.breaker import BreakerState
from engine.core.capability import Needs
from engine.core.drift import RECHECK_EVERY
from engine.core.messages import Role
from engine.core.outcomes import Category, Cause
from engine.core.policy import ManagerPolicy, ModelFacts
from engine.core.refusal import Refused
from engine.core.switchboard import Switchboard

SMALL = ModelFacts("pro", "gemini-2.5-pro", "p", context_window=100, capabilities=frozenset({"system"}))
POLICY = ManagerPolicy("chat", SMALL, ModelFacts("flash", "flash", "p"))
HELLO = Needs(3, None, frozenset())
TOOLS = Needs(3, None, frozenset({"tools"}))
LONG = Needs(200, None, frozenset())


@pytest.fixture
def board() -> Switchboard:
    return Switchboard(POLICY, 0.0)


def look(board: Switchboard, needs: Needs = HELLO, now: float = 10.0, canary: str = "") -> Refused | None:
    return barred(board, board.lines[Role.PRIMARY], needs, now, canary)


def test_a_well_model_takes_what_it_can(board: Switchboard) -> None:
    assert look(board) is None


@pytest.mark.parametrize(
    ("needs", "cause", "missing"),
    [
        (TOOLS, Cause.CAPABILITY, ("tools",)),
        (LONG, Cause.CONTEXT_LENGTH, ()),
        (Needs(200, None, frozenset({"tools"})), Cause.CAPABILITY, ("tools",)),
    ],
)
def test_what_a_model_lacks_is_named(board: Switchboard, needs: Needs, cause: Cause, missing: tuple[str, ...]) -> None:
    refused = lacking(board.lines[Role.PRIMARY], needs)
    assert refused is not None
    assert (refused.cause, refused.missing, refused.category, refused.retry_at) == (cause, missing, None, None)
    assert refused == look(board, needs)


def test_a_prompt_is_measured_as_the_model_has_taught_us(board: Switchboard) -> None:
    fits = Needs(80, None, frozenset())
    assert look(board, fits) is None
    board.lines[Role.PRIMARY].calibration.restore(2.0)
    assert look(board, fits) is not None


def test_a_model_that_serves_nobody_says_until_when(board: Switchboard) -> None:
    board.lines[Role.PRIMARY].refuse(Category.QUOTA_EXHAUSTED, 0.0, 30.0)
    refused = look(board, now=29.9)
    assert refused is not None
    assert (refused.cause, refused.retry_at) == (Cause.QUOTA_EXHAUSTED, 30.0)
    assert refused.reason == "gemini-2.5-pro: quota exhausted"
    assert look(board, now=30.0) is None


def test_a_drifted_model_takes_only_canaries(board: Switchboard) -> None:
    board.drift.failed(Role.PRIMARY, "json", 0.0)
    refused = look(board)
    assert refused is not None
    assert (refused.cause, refused.retry_at) == (Cause.CANARY, 10.0 + RECHECK_EVERY)
    assert refused.reason == "gemini-2.5-pro fails the canary json"
    assert look(board, canary="json") is None


def test_a_canary_too_asks_nothing_of_a_model_that_lacks_it(board: Switchboard) -> None:
    assert look(board, TOOLS, canary="json") is not None


def test_looking_takes_nothing_and_leaves_the_breaker_to_whoever_asks_it(board: Switchboard) -> None:
    line = board.lines[Role.PRIMARY]
    line.breaker.trip(0.0, 0.5, "test")
    assert look(board, now=1000.0) is None
    assert line.breaker.state is BreakerState.OPEN
    assert line.breaker.snapshot(1000.0).outstanding == 0
