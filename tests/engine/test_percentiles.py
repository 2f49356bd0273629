"""Log buckets: within one per cent, exact at Prometheus' boundaries."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from engine.percentiles import (
    BOUNDARIES_S,
    COMMIT_BOUNDARIES_S,
    RELATIVE_ERROR,
    bucket_of,
    cumulative,
    middle_of,
    quantile,
)

durations = st.floats(0.01, 86_400_000.0)


def counted(values: list[float]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    return counts


def test_the_error_is_below_one_per_cent() -> None:
    assert RELATIVE_ERROR < 0.01


@given(durations)
def test_the_middle_of_a_bucket_is_near_every_value_in_it(value: float) -> None:
    assert abs(middle_of(bucket_of(value)) - value) <= RELATIVE_ERROR * value * 1.000001


@given(durations, durations)
def test_buckets_keep_the_order_of_values(one: float, two: float) -> None:
    assert (bucket_of(one) <= bucket_of(two)) or one > two


@given(st.lists(durations, min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_a_quantile_is_near_the_value_at_that_rank(values: list[float], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    estimate = quantile(counted(values), q)
    assert estimate is not None
    assert abs(estimate - exact) <= RELATIVE_ERROR * exact * 1.000001


def test_without_observations_there_is_no_quantile() -> None:
    assert quantile({}, 0.95) is None


@given(st.lists(st.one_of(durations, st.sampled_from([b * 1000 for b in BOUNDARIES_S])), max_size=200))
def test_histogram_counts_are_exact_on_every_boundary(values: list[float]) -> None:
    # Within a millionth of a boundary a float's last bits decide; nobody measures that.
    clear = [v for v in values if all(v == b * 1000 or abs(v / (b * 1000) - 1) > 1e-6 for b in BOUNDARIES_S)]
    found = cumulative(counted(clear), BOUNDARIES_S)
    assert [n for _, n in found[:-1]] == [sum(v <= b * 1000 for v in clear) for b in BOUNDARIES_S]
    assert found[-1] == (math.inf, len(clear))


def test_the_commit_boundaries_lie_on_buckets_too() -> None:
    for boundary in COMMIT_BOUNDARIES_S:
        assert cumulative({bucket_of(boundary * 1000): 1}, [boundary])[0][1] == 1
        assert cumulative({bucket_of(boundary * 1000 * 1.001): 1}, [boundary])[0][1] == 0
