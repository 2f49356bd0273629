"""The bound on demand that moves to the other model."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.policy import SpillPolicy
from engine.core.spill import SpillBudget


def takes(budget: SpillBudget, now: float, instances: int = 1) -> int:
    count = 0
    while budget.take(now, instances):
        count += 1
    return count


@pytest.mark.parametrize(
    ("requests", "instances", "allowed"),
    [(0, 1, 10), (0, 2, 5), (0, 3, 3), (0, 20, 0), (100, 1, 30), (100, 4, 22), (4, 0, 10)],
)
def test_a_share_of_own_requests_and_a_part_of_the_floor_may_go(requests: int, instances: int, allowed: int) -> None:
    budget = SpillBudget(SpillPolicy(share=0.2, floor=10))
    for _ in range(requests):
        budget.seen(0.0)
    assert takes(budget, 1.0, instances) == allowed


def test_a_take_counts_for_exactly_a_minute() -> None:
    budget = SpillBudget(SpillPolicy(share=0.0, floor=1))
    assert budget.take(5.0, 1)
    assert not budget.take(64.9, 1)
    assert budget.take(65.0, 1)


def test_a_burst_at_the_edge_of_a_minute_is_not_allowed_twice() -> None:
    """A tumbling window would allow the floor at 59 s and again at 60 s."""
    budget = SpillBudget(SpillPolicy(share=0.0, floor=10))
    assert takes(budget, 59.0) == 10
    assert takes(budget, 60.0) == 0


def test_a_growing_fleet_lowers_the_allowance_at_once() -> None:
    budget = SpillBudget(SpillPolicy(share=0.0, floor=10))
    assert takes(budget, 0.0, instances=2) == 5
    assert takes(budget, 1.0, instances=10) == 0


@settings(max_examples=60, deadline=None)
@given(
    share=st.floats(0, 1),
    floor=st.floats(0, 6),
    steps=st.lists(st.tuples(st.floats(0, 20), st.booleans(), st.integers(1, 4)), max_size=120),
)
def test_no_minute_holds_more_takes_than_its_allowance(
    share: float, floor: float, steps: list[tuple[float, bool, int]]
) -> None:
    budget, now = SpillBudget(SpillPolicy(share=share, floor=floor)), 0.0
    requests: list[float] = []
    taken: list[float] = []
    for pause, take, instances in steps:
        now += pause
        if not take:
            budget.seen(now)
            requests.append(now)
        elif budget.take(now, instances):
            taken.append(now)
            last_minute = [at for at in requests if now - at < 60]
            assert sum(now - at < 60 for at in taken) <= share * len(last_minute) + floor / instances
