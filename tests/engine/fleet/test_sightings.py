"""What an observer remembers of others, by its own clock."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.core.agreement import Member
from engine.fleet.sightings import MEMORY, Roster, Sightings

A, B = Member("a", "h1"), Member("b", "h2")


class Clock:
    """Monotonic seconds that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_age_counts_from_when_the_mark_was_seen_to_change() -> None:
    clock = Clock()
    sightings = Sightings(clock)
    assert sightings.age("vote", 1) == 0.0
    clock.now += 4
    assert sightings.age("vote", 1) == 4.0
    assert sightings.age("vote", 2) == 0.0
    clock.now += 1
    assert sightings.age("vote", 2) == 1.0


def test_forgotten_keys_are_new_again() -> None:
    clock = Clock()
    sightings = Sightings(clock)
    sightings.age("vote", 1)
    clock.now += 4
    sightings.keep(["other"])
    assert sightings.age("vote", 1) == 0.0


def test_a_member_is_lost_from_when_it_was_first_missed() -> None:
    clock = Clock()
    roster = Roster(clock)
    assert roster.observe({"a": A, "b": B}, {}, ()) == [A, B]
    clock.now += 10
    assert [(m.instance, m.alive, m.lost_for) for m in roster.observe({"b": B}, {"a": A}, ())] == [
        ("a", False, 0.0),
        ("b", True, 0.0),
    ]
    clock.now += 5
    assert roster.observe({"b": B}, {"a": A}, ())[0].lost_for == 5.0
    assert roster.observe({"a": A, "b": B}, {}, ()) == [A, B]


def test_what_the_store_knows_counts_for_a_newcomer() -> None:
    clock = Clock()
    roster = Roster(clock)
    lost = Member("a", "h1", lost_for=30.0)
    assert roster.observe({}, {"a": lost}, ())[0].lost_for == 30.0
    clock.now += 5
    assert roster.observe({}, {"a": lost}, ())[0].lost_for == 35.0


def test_what_the_store_knows_counts_for_nobody_who_was_seen_alive() -> None:
    clock = Clock()
    roster = Roster(clock)
    roster.observe({"a": A, "b": B}, {}, ())
    clock.now += 200
    lost = {"b": Member("b", "h2", lost_for=185.0)}
    assert roster.observe({"a": A}, lost, ())[1].lost_for == 0.0
    clock.now += 5
    assert roster.observe({"a": A}, lost, ())[1].lost_for == 5.0


def test_a_member_the_store_forgot_is_lost_and_one_that_left_is_not() -> None:
    roster = Roster(Clock())
    roster.observe({"a": A, "b": B}, {}, ())
    assert [m.alive for m in roster.observe({"b": B}, {}, ())] == [False, True]
    assert roster.observe({"b": B}, {}, ["a"]) == [B]


def test_after_an_hour_a_lost_member_is_forgotten() -> None:
    clock = Clock()
    roster = Roster(clock)
    roster.observe({"a": A}, {}, ())
    roster.observe({}, {}, ())
    clock.now += MEMORY + 1
    assert roster.observe({}, {}, ()) == []


@pytest.fixture
def _hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty")
def test_the_agent_and_the_evaluator_may_look_at_the_same_time() -> None:
    """A member that one of them dropped was missing to the other in the middle of its look."""
    sightings, roster = Sightings(), Roster()
    members = [Member(str(n), "h") for n in range(40)]

    def look(turn: int) -> None:
        alive = {one.instance: one for one in members[turn % 2 :: 2]}
        for name in alive:
            sightings.age(name, turn)
        sightings.keep(alive)
        roster.observe(alive, {}, roster.names - alive.keys())

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(look, range(10_000)))
