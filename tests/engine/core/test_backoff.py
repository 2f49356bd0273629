"""Backoff with full jitter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.backoff import full_jitter
from engine.core.policy import RetryPolicy

POLICY = RetryPolicy(base_delay=0.5, max_delay=20.0)


@pytest.mark.parametrize(
    ("retry", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 20.0), (8, 20.0), (100, 20.0)]
)
def test_the_ceiling_doubles_up_to_the_maximum(retry: int, ceiling: float) -> None:
    assert full_jitter(POLICY, retry, 0.5) == pytest.approx(ceiling / 2)


def test_the_delay_may_be_nothing_at_all() -> None:
    assert full_jitter(POLICY, 5, 0.0) == 0.0


def test_a_huge_retry_number_gives_the_maximum_instead_of_overflowing() -> None:
    """Bug 21 (stamina): `OverflowError` above 1024 attempts."""
    assert full_jitter(POLICY, 10**9, 0.5) == 10.0


@pytest.mark.parametrize("retry", [0, -1])
def test_the_first_attempt_is_not_a_retry(retry: int) -> None:
    with pytest.raises(ValueError, match="retries count from 1"):
        full_jitter(POLICY, retry, 0.5)


@given(
    base=st.floats(0, 1000),
    longest=st.floats(0, 1000),
    retry=st.integers(1, 5000),
    rand=st.floats(0, 1, exclude_max=True),
)
def test_the_delay_is_never_negative_and_never_over_the_maximum(
    base: float, longest: float, retry: int, rand: float
) -> None:
    assert 0 <= full_jitter(RetryPolicy(base_delay=base, max_delay=longest), retry, rand) <= longest
