"""A storm of 429s on primary: slow down, spill a little, shed the rest; never a failover."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import RateLimited
from engine.core.messages import Role
from engine.core.policy import OnRateLimit
from engine.providers.world import Faults
from tests.engine.simulation.worlds import POLICY, Trouble, crowd, policy, trouble, until_shed

SEEDS = st.integers(0, 2**32 - 1)
HOSTS = st.sampled_from([("a",), ("a", "b", "c")])


def storm(seed: int, hosts: tuple[str, ...], gap: float, limit: float) -> Trouble:
    return trouble(seed, Faults(rate_limit=limit), gap=gap, lasts=300.0, after=60.0, hosts=hosts)


def in_the_last(span: float, times: list[float], at: float) -> int:
    return bisect_right(times, at) - bisect_right(times, at - span)


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, hosts=HOSTS, gap=st.sampled_from([0.2, 0.5, 1.0]), limit=st.sampled_from([0.0, 10.0, 40.0]))
def test_a_storm_of_429s_spills_within_the_limit_and_moves_nobody(
    seed: int, hosts: tuple[str, ...], gap: float, limit: float
) -> None:
    run = storm(seed, hosts, gap, limit)

    assert run.breakers == []
    assert run.moves == []
    assert run.world.document().active is Role.PRIMARY
    for arrival in run.world.arrivals:
        asking = sum(tried.outcome.duration for tried in arrival.verdict.tried)
        assert arrival.took - asking <= POLICY.rate_limit_wait + 1e-6
        assert arrival.landed.error is None or isinstance(arrival.landed.error, RateLimited)
    starts = [count * gap for count in range(run.world.sent)]
    spilled = sorted(at for at, _, model in run.world.asked if model == "flash")
    assert spilled
    for at in spilled:
        allowed = POLICY.spill.share * in_the_last(60.0, starts, at) + POLICY.spill.floor
        assert in_the_last(60.0, spilled, at) <= allowed + 1e-9


@settings(max_examples=4, deadline=None)
@given(seed=SEEDS, gap=st.sampled_from([0.2, 0.5]))
def test_a_limited_model_sees_few_requests_that_it_refuses(seed: int, gap: float) -> None:
    run = storm(seed, ("a",), gap, 40.0)

    refused = sum(
        tried.outcome.category == "rate_limited" for arrival in run.world.arrivals for tried in arrival.verdict.tried
    )
    assert refused <= 20


@pytest.mark.parametrize("on_rate_limit", [OnRateLimit.SPILL, OnRateLimit.SHED])
@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, which=st.integers(1, 60), limit=st.sampled_from([6.0, 20.0, 40.0]))
def test_who_waits_as_a_shed_answer_says_is_served(
    on_rate_limit: OnRateLimit, seed: int, which: int, limit: float
) -> None:
    shed = until_shed(
        seed, Faults(rate_limit=limit), gap=0.4, which=which, settings=policy(on_rate_limit=on_rate_limit)
    )

    assert shed is not None
    assert shed.retry_after >= 1
    assert shed.again is not None
    assert shed.again.landed.error is None


STATED = policy(
    primary=replace(POLICY.primary, requests_per_minute=20), on_rate_limit=OnRateLimit.SHED, rate_limit_wait=5.0
)


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS)
def test_a_crowd_that_is_turned_away_at_once_is_served_when_each_comes_back_as_told(seed: int) -> None:
    """Told the same next slot, 60 callers met there again and again, and only as many as fit were served."""
    found = crowd(seed, Faults(rate_limit=20.0), STATED, at_once=60)

    assert found.told >= 30
    assert found.served == found.told


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS)
def test_in_an_overload_that_lasts_coming_back_as_told_is_worth_it(seed: int) -> None:
    """One request a second at 40 a minute; by the next free slot alone, one return in fifty was served."""
    shed = crowd(seed, Faults(rate_limit=40.0), policy(on_rate_limit=OnRateLimit.SHED), gap=1.0)
    spilled = crowd(seed, Faults(rate_limit=40.0), POLICY, gap=1.0)

    assert shed.served >= 0.4 * shed.told
    assert spilled.served >= 0.5 * spilled.told


@settings(max_examples=4, deadline=None)
@given(seed=SEEDS)
def test_a_model_that_answers_nothing_but_429_moves_nobody(seed: int) -> None:
    run = trouble(seed, Faults(rate_limit=0.0, retry_after=2.0), lasts=120.0, after=120.0)

    assert run.breakers == []
    assert run.moves == []
