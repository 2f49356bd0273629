"""The way back to primary on one instance: who takes part in a ramp, the gate of probes, a stage's samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.policy import RecoveryPolicy
from engine.core.ramp import Gate, StageSamples, in_share, stage_fails

POLICY = RecoveryPolicy(gate=3, sustain=10.0)
KEYS = [f"session-{number}" for number in range(4000)]


@given(st.text(), st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_a_growing_share_only_adds_requests(key: str, ramp: int, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    assert in_share(key, ramp, larger) or not in_share(key, ramp, smaller)


@given(st.text(), st.integers(0, 10**6))
def test_nobody_is_in_no_share_and_everybody_in_the_whole(key: str, ramp: int) -> None:
    assert not in_share(key, ramp, 0.0)
    assert in_share(key, ramp, 1.0)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_a_share_is_that_share_of_the_keys(share: float) -> None:
    taking_part = sum(in_share(key, 7, share) for key in KEYS)
    assert abs(taking_part / len(KEYS) - share) < 0.03


def test_every_ramp_tries_other_callers_first() -> None:
    first = {key for key in KEYS if in_share(key, 7, 0.1)}
    second = {key for key in KEYS if in_share(key, 8, 0.1)}
    assert len(first & second) < len(first) / 2


def test_the_same_key_is_treated_alike_by_every_process() -> None:
    assert [in_share(key, 42, 0.5) for key in ("a", "b", "c", "d", "ü")] == [False, False, False, True, True]


def passed(gate: Gate, *times: float) -> bool:
    """Whether the gate is passed after good probes that took no time."""
    for now in times:
        gate.started(now)
        gate.succeeded(now)
    return gate.ready(times[-1])


@pytest.mark.parametrize(
    ("times", "ready"),
    [((0, 5, 10), True), ((0, 5), False), ((0, 1, 2), False), ((0, 1, 9.9), False), ((0, 1, 2, 3, 10), True)],
)
def test_the_gate_needs_probes_and_time(times: tuple[float, ...], ready: bool) -> None:
    assert passed(Gate(POLICY), *times) is ready


def test_a_bad_probe_counts_anew() -> None:
    gate = Gate(POLICY)
    passed(gate, 0, 5)
    gate.failed()
    assert gate.good == 0
    assert not passed(gate, 10, 11, 12), "the time counts anew too"
    assert passed(gate, 20)


def test_a_passed_gate_is_closed_by_a_bad_probe() -> None:
    gate = Gate(POLICY)
    assert passed(gate, 0, 5, 10)
    gate.failed()
    assert not gate.ready(10)


def test_the_time_counts_from_the_first_good_probes_start() -> None:
    gate = Gate(POLICY)
    gate.started(0.0)
    gate.succeeded(4.0)
    assert passed(gate, 5.0, 10.0)


def test_probes_are_spread_over_the_time_they_must_sustain() -> None:
    gate = Gate(POLICY)
    assert gate.due_at(100.0) == 100.0
    gate.started(100.0)
    gate.succeeded(101.0)
    assert gate.due_at(0.0) == 105.0
    assert gate.due_at(200.0) == 200.0, "never before what else is waited for"


def test_a_late_probe_does_not_put_off_the_next_and_two_never_come_at_once() -> None:
    """A probe is a request, which comes when it comes: with one every three seconds a gate of 15 s took 24."""
    gate = Gate(RecoveryPolicy(gate=5, sustain=15.0))
    for arrival in (100.0, 106.0, 109.0, 112.0):
        assert gate.due_at(0.0) <= arrival
        gate.started(arrival)
        gate.succeeded(arrival + 0.5)
    assert gate.due_at(0.0) == pytest.approx(115.0)
    gate.started(150.0)
    gate.succeeded(150.5)
    assert gate.due_at(0.0) == pytest.approx(151.875)


GATES = st.builds(lambda gate, sustain: RecoveryPolicy(gate=gate, sustain=sustain), st.integers(1, 8), st.floats(0, 60))


@given(GATES, st.lists(st.tuples(st.floats(0.01, 20), st.floats(0, 5), st.booleans()), max_size=40))
def test_a_gate_is_passed_by_good_probes_in_a_row_over_its_time_and_by_nothing_else(
    policy: RecoveryPolicy, probes: list[tuple[float, float, bool]]
) -> None:
    gate, now, good = Gate(policy), 0.0, list[float]()
    for pause, took, ok in probes:
        now += pause
        gate.started(now)
        good = [*good, now] if ok else []
        now += took
        if ok:
            gate.succeeded(now)
        else:
            gate.failed()
        passed = len(good) >= policy.gate and now - good[0] >= policy.sustain
        assert gate.ready(now) is passed


@given(GATES, st.floats(0.1, 10), st.floats(0, 3))
def test_where_every_probe_is_good_the_gate_takes_its_time_or_that_of_its_requests(
    policy: RecoveryPolicy, gap: float, took: float
) -> None:
    gate, now = Gate(policy), 0.0
    while not gate.ready(now):
        assert now <= policy.sustain + policy.gate * (gap + took) + gap
        if now >= gate.due_at(0.0):
            gate.started(now)
            gate.succeeded(now + took)
            now += took
        now += gap


def test_a_gate_of_one_probe_is_passed_when_its_time_is_over() -> None:
    gate = Gate(RecoveryPolicy(gate=1, sustain=0.0))
    assert passed(gate, 3.0)


@pytest.mark.parametrize(
    ("ok", "failed", "fails"),
    [(0, 0, False), (0, 1, False), (0, 2, True), (7, 2, True), (8, 2, False), (99, 20, False), (70, 20, True)],
)
def test_a_stage_fails_by_two_failures_that_are_more_than_a_fifth(ok: int, failed: int, fails: bool) -> None:
    assert stage_fails(ok, failed) is fails


def test_samples_count_good_and_failed() -> None:
    samples = StageSamples(7)
    for ok in (True, True, False):
        samples.add(ok=ok)
    assert (samples.epoch, samples.ok, samples.failed) == (7, 2, 1)
