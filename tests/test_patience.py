"""Patience that a pause of the machine does not use up, and that ends."""

from __future__ import annotations

import gc
import itertools
import time
import weakref
from collections.abc import Callable

import pytest

from tests import patience
from tests.patience import LONGEST_TURN_S, eventually, never, seconds_until


def after_a_pause(looks: int, seconds: float) -> Callable[[], str]:
    """A check that stands still in its first look, as all does when the machine is paused, and holds after so many."""
    counted = itertools.count(1)

    def check() -> str:
        look = next(counted)
        if look == 1:
            time.sleep(seconds)
        return "there" if look >= looks else ""

    return check


def test_what_the_check_gave_is_given() -> None:
    assert eventually(iter([None, "", "there", "too late"]).__next__, every=0.001) == "there"


def test_a_pause_in_the_check_uses_up_no_patience() -> None:
    assert eventually(after_a_pause(10, 3.0), within=1.0) == "there"


def test_a_pause_in_the_sleep_uses_up_no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps = itertools.count()
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds + (15.0 if next(sleeps) == 3 else 0.0)

    monkeypatch.setattr(patience.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(patience.time, "sleep", sleep)
    assert seconds_until(after_a_pause(50, 0.0), within=1.0, every=0.01) == pytest.approx(0.48 + LONGEST_TURN_S)
    assert clock[0] > 15.0


def test_a_pause_is_not_in_the_seconds_it_took() -> None:
    assert 0.1 < seconds_until(after_a_pause(10, 2.0), every=0.02) < 1.5


def test_patience_ends_and_says_what_did_not_happen() -> None:
    began = time.monotonic()
    looks = []
    with pytest.raises(AssertionError) as raised:
        eventually(lambda: looks.append(1) or [], within=0.2, every=0.01, told=lambda: "and the log")
    assert len(looks) <= 22
    assert time.monotonic() - began >= 0.2
    said = str(raised.value)
    assert "did not come true within 0.2 s" in said
    assert "eventually(lambda: looks.append(1) or []" in said
    assert said.endswith("it last gave [] and the log")


def test_checks_that_are_slow_each_time_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LONGEST_TURN_S", 0.05)
    looks = []
    with pytest.raises(AssertionError):
        eventually(lambda: (looks.append(1), time.sleep(0.1))[1], within=0.3)
    assert len(looks) == 7, "six turns that count 0.05 s each, and a last look"


def test_exceptions_are_not_yet_where_that_is_said_and_end_it_elsewhere() -> None:
    answers = iter([OSError("refused"), OSError("refused"), "there"])

    def check() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    with pytest.raises(OSError, match="refused"):
        eventually(check)
    assert eventually(check, despite=(OSError,)) == "there"

    def refused() -> bool:
        raise OSError("refused")

    with pytest.raises(AssertionError, match=r"def refused\(\) -> bool:; it last gave OSError\('refused'\)"):
        eventually(refused, within=0.05, despite=(OSError,))


def test_never_watches_for_its_time_and_fails_when_it_happens() -> None:
    looks: list[int] = []
    never(lambda: looks.append(1), during=0.2, every=0.01)
    assert looks
    with pytest.raises(AssertionError, match=r"came true after .* s, and should not: .*; it gave 'there'"):
        never(after_a_pause(5, 0.0), during=5.0, every=0.001)


def test_never_watches_for_its_whole_time_after_a_pause() -> None:
    with pytest.raises(AssertionError, match="came true"):
        never(after_a_pause(5, 1.0), during=0.5, every=0.01)


def test_what_a_check_raised_is_let_go_at_once() -> None:
    """An answer with status 503 stayed open until the next look for garbage, which failed whatever test ran then."""

    class Unavailable(OSError):
        pass

    raised = list[weakref.ref[Unavailable]]()

    def made() -> Unavailable:
        error = Unavailable()
        raised.append(weakref.ref(error))
        return error

    def check() -> bool:
        if not raised:
            raise made()
        return True

    gc.disable()
    try:
        eventually(check, despite=(OSError,))
        assert raised[0]() is None
    finally:
        gc.enable()
