"""Ids sort by time, in one process without exception."""

from __future__ import annotations

import random
import uuid
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from engine.ids import IdSource, new_id, time_of


def test_an_id_is_a_uuid_of_version_7_with_its_time() -> None:
    made = IdSource(lambda: 1_800_000_000_123, random.Random(1).getrandbits)()
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, made)
    assert time_of(made) == 1_800_000_000_123


@given(st.lists(st.integers(1_700_000_000_000, 1_900_000_000_000), min_size=2, max_size=50))
def test_ids_ascend_whatever_the_wall_clock_does(times: list[int]) -> None:
    clock = iter(times)
    source = IdSource(lambda: next(clock), random.Random(2).getrandbits)
    made = [source() for _ in times]
    assert made == sorted(set(made))


def test_ids_of_many_threads_are_all_different() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_id(), range(5000)))
    assert len(set(made)) == 5000


def test_the_same_seed_and_times_give_the_same_ids() -> None:
    one, two = (IdSource(lambda: 5, random.Random(7).getrandbits) for _ in range(2))
    assert [one() for _ in range(5)] == [two() for _ in range(5)]
