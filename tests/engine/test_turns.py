"""The interpreter changes hands often while somebody computes, and as ever otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from engine.turns import SHORT, Turns

USUAL = 0.004


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(USUAL)
    yield
    sys.setswitchinterval(before)


def interval() -> float:
    return pytest.approx(sys.getswitchinterval(), abs=1e-6)  # type: ignore[no-any-return] # it compares as a number


def test_the_interval_is_short_until_the_last_one_has_computed() -> None:
    turns = Turns()
    with turns.computing():
        with turns.computing():
            assert interval() == SHORT
        assert interval() == SHORT
    assert interval() == USUAL


def test_a_computation_that_fails_leaves_the_usual_interval() -> None:
    with pytest.raises(ZeroDivisionError), Turns().computing():
        _ = 1 / 0
    assert interval() == USUAL
