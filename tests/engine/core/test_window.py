"""Counts over a sliding span."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.window import SlidingCounts


def test_a_count_is_forgotten_after_one_span() -> None:
    window = SlidingCounts(60.0)
    window.add(0.0)
    assert window.slide(59.9) == [1]
    assert window.slide(60.0) == [0]


def test_kinds_are_counted_side_by_side() -> None:
    window = SlidingCounts(60.0, kinds=3)
    window.add(0.0, (0, 2))
    window.add(1.0, (0,))
    assert window.totals == [2, 0, 1]


def test_a_time_that_runs_backwards_is_counted_all_the_same() -> None:
    window = SlidingCounts(60.0)
    window.add(100.0)
    window.add(99.0)
    assert window.slide(100.0) == [2]


def test_an_amended_count_leaves_with_its_bucket() -> None:
    window = SlidingCounts(60.0)
    window.add(0.0)
    window.amend(1000.0)
    assert window.totals == [2]
    assert window.slide(1000.0) == [0]


def test_memory_does_not_grow_with_traffic() -> None:
    window = SlidingCounts(60.0, buckets=20)
    for step in range(100_000):
        window.add(step * 0.01)
    assert len(window._buckets) <= 21


@settings(max_examples=60, deadline=None)
@given(pauses=st.lists(st.floats(0, 30), max_size=100), shift=st.sampled_from([0.0, 1024.0, 2.0**20]))
def test_the_total_lies_between_the_exact_counts_of_a_shorter_and_the_whole_span(
    pauses: list[float], shift: float
) -> None:
    window, now = SlidingCounts(60.0, buckets=20), shift
    times: list[float] = []
    for pause in pauses:
        now += pause
        window.add(now)
        times.append(now)
        (total,) = window.slide(now)
        assert sum(now - at < 57.0 - 1e-6 for at in times) <= total <= sum(now - at < 60.0 for at in times)
