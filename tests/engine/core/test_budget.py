"""The retry budget."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.budget import RetryBudget


def filled(requests: int, share: float = 0.1, floor: float = 0.0) -> RetryBudget:
    budget = RetryBudget(share, floor)
    for _ in range(requests):
        budget.deposit(0.0)
    return budget


def withdrawals(budget: RetryBudget, now: float) -> int:
    count = 0
    while budget.withdraw(now):
        count += 1
    return count


@pytest.mark.parametrize(
    ("requests", "floor", "retries"),
    [(0, 0.0, 0), (9, 0.0, 0), (10, 0.0, 1), (100, 0.0, 10), (0, 10.0, 10), (50, 10.0, 15)],
)
def test_retries_are_a_share_of_requests_plus_the_floor(requests: int, floor: float, retries: int) -> None:
    assert withdrawals(filled(requests, floor=floor), 1.0) == retries


def test_a_refused_withdrawal_takes_nothing() -> None:
    budget = filled(5)
    assert not budget.withdraw(0.0)
    assert budget.balance(0.0) == pytest.approx(0.5)


def test_deposits_expire_after_a_minute() -> None:
    budget = filled(100)
    assert budget.balance(59.9) == pytest.approx(10.0)
    assert budget.balance(60.0) == 0.0


def test_the_floor_comes_back_a_minute_after_it_was_spent() -> None:
    budget = RetryBudget(0.0, 1.0)
    assert budget.withdraw(0.0)
    assert not budget.withdraw(59.9)
    assert budget.withdraw(60.0)


def test_the_balance_is_never_negative() -> None:
    budget = filled(100)
    withdrawals(budget, 59.0)
    assert budget.balance(61.0) == 0.0


@settings(max_examples=60, deadline=None)
@given(
    share=st.floats(0, 1),
    floor=st.integers(0, 5),
    steps=st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=120),
)
def test_no_minute_holds_more_retries_than_it_pays_for(
    share: float, floor: int, steps: list[tuple[float, bool]]
) -> None:
    budget, now = RetryBudget(share, floor), 0.0
    requests: list[float] = []
    retries: list[float] = []
    for pause, retry in steps:
        now += pause
        if not retry:
            budget.deposit(now)
            requests.append(now)
        elif budget.withdraw(now):
            retries.append(now)
            last_minute = [at for at in requests if now - at < 60]
            assert sum(now - at < 60 for at in retries) <= share * len(last_minute) + floor
