"""The evaluator against its table, against a plain transcription of Prometheus' loop, and on stepped clocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.evaluator import RESOLVED_MS, TABLE, Alert, Change, Observation, Signal, State, Timing, evaluate

MET, UNMET = Observation(met=True), Observation(met=False)
MINUTE = 60_000


def run(timing: Timing, met: list[bool], step: int = MINUTE) -> list[State]:
    alert, states = Alert(), []
    for index, one in enumerate(met):
        alert, _ = evaluate(timing, alert, Observation(one), 1_000_000 + index * step)
        states.append(alert.state)
    return states


N, P, F, R = State.INACTIVE, State.PENDING, State.FIRING, State.RESOLVED


@pytest.mark.parametrize(
    ("timing", "met", "states"),
    [
        (Timing(), [0, 1, 0], [N, F, R]),
        (Timing(hold=2 * MINUTE), [1, 1, 1], [P, P, F]),
        (Timing(hold=2 * MINUTE), [1, 1, 0, 1, 1, 1], [P, P, N, P, P, F]),
        (Timing(keep=2 * MINUTE), [1, 0, 0, 0], [F, F, F, R]),
        (Timing(keep=2 * MINUTE), [1, 0, 0, 1, 0, 0, 0], [F, F, F, F, F, F, R]),
        (Timing(hold=MINUTE, keep=MINUTE), [1, 0], [P, N]),
        (Timing(hold=MINUTE), [1, 1, 0, 1, 1], [P, F, R, P, F]),
    ],
    ids=[
        "without for it fires at once",
        "it fires when for is reached exactly",
        "one evaluation that is not met begins for anew",
        "keep_firing_for is half-open",
        "a met evaluation begins keep_firing_for anew",
        "keep_firing_for never holds a pending alert",
        "a resolved alert waits for for again",
    ],
)
def test_what_prometheus_does(timing: Timing, met: list[int], states: list[State]) -> None:
    assert run(timing, [bool(one) for one in met]) == states


def test_the_table_has_an_entry_for_every_signal_that_can_meet_a_state() -> None:
    possible = {(s, g) for s in State for g in (Signal.NOT_MET, Signal.WAITING, Signal.LASTING)}
    assert set(TABLE) == possible | {(F, Signal.KEPT), (R, Signal.OLD)}


def test_raising_for_above_the_time_it_has_held_demotes_a_firing_alert() -> None:
    firing = Alert(F, active_ms=1000, fired_ms=2000)
    after, change = evaluate(Timing(hold=MINUTE), firing, MET, 10_000)
    assert (after.state, after.fired_ms, after.active_ms) == (P, 0, 1000)
    assert change == Change(F, P)


def test_a_resolved_alert_is_forgotten_after_fifteen_minutes() -> None:
    resolved = Alert(R, active_ms=1, fired_ms=1, resolved_ms=1000)
    assert evaluate(Timing(), resolved, UNMET, 1000 + RESOLVED_MS)[0].state is R
    assert evaluate(Timing(), resolved, UNMET, 1001 + RESOLVED_MS)[0] == Alert()


def test_the_recorded_start_counts_and_not_the_evaluation_that_first_saw_it() -> None:
    seen = Observation(met=True, since_ms=1_000_000)
    assert evaluate(Timing(hold=15 * MINUTE), Alert(), seen, 1_000_000 + 15 * MINUTE - 1)[0].state is P
    assert evaluate(Timing(hold=15 * MINUTE), Alert(), seen, 1_000_000 + 15 * MINUTE)[0].state is F


def test_a_new_start_while_pending_is_a_new_wait() -> None:
    pending = Alert(P, active_ms=1_000_000)
    seen = Observation(met=True, since_ms=1_000_000 + 10 * MINUTE)
    assert evaluate(Timing(hold=15 * MINUTE), pending, seen, 1_000_000 + 15 * MINUTE)[0].state is P


def test_a_start_in_the_future_is_not_believed() -> None:
    after, _ = evaluate(Timing(hold=1000), Alert(), Observation(met=True, since_ms=9_000_000), 1_000_000)
    assert after.active_ms == 1_000_000


def test_a_step_of_the_clock_changes_no_duration() -> None:
    for step in (-7_200_000, 7_200_000):
        pending = Alert(P, active_ms=10_000_000).shifted(step)
        seen = Observation(met=True, since_ms=10_000_000)
        assert evaluate(Timing(hold=15 * MINUTE), pending, seen, 10_000_000 + step + 14 * MINUTE)[0].state is P
        assert evaluate(Timing(hold=15 * MINUTE), pending, seen, 10_000_000 + step + 15 * MINUTE)[0].state is F


@dataclass
class Transcript:
    """`AlertingRule.Eval` of Prometheus for one alert, line by line."""

    hold: int
    keep: int
    active: bool = False
    state: str = "inactive"
    active_at: int = 0
    resolved_at: int = 0
    keep_since: int = 0

    def eval(self, ts: int, result: bool) -> None:
        if result and not (self.active and self.state != "inactive"):
            self.active, self.state, self.active_at = True, "pending", ts
            self.resolved_at = self.keep_since = 0
        if not self.active:
            return
        if not result:
            keep_firing = False
            if self.state == "firing" and self.keep > 0:
                self.keep_since = self.keep_since or ts
                keep_firing = ts - self.keep_since < self.keep
            if self.state == "pending" or (self.resolved_at and ts - self.resolved_at > RESOLVED_MS):
                self.active = False
            if self.state != "inactive" and not keep_firing:
                self.state, self.resolved_at = "inactive", ts
            if not keep_firing:
                return
        else:
            self.keep_since = 0
        if self.state == "pending" and ts - self.active_at >= self.hold:
            self.state = "firing"


durations = st.sampled_from([0, 1, 15_000, 30_000, 60_000, 90_000, 120_000, 300_000])


@given(durations, durations, st.lists(st.tuples(st.booleans(), st.integers(1, 100_000)), max_size=60))
def test_every_history_gives_the_states_that_prometheus_gives(
    hold: int, keep: int, history: list[tuple[bool, int]]
) -> None:
    theirs, ours, now = Transcript(hold, keep), Alert(), 1_000_000
    for met, step in history:
        now += step
        theirs.eval(now, met)
        before = ours
        ours, change = evaluate(Timing(hold, keep), ours, Observation(met), now)
        state = theirs.state if theirs.active else "inactive"
        assert (ours.state.value if ours.met else "inactive") == state
        if ours.met:
            assert ours.active_ms == theirs.active_at
        assert change == (None if ours.state is before.state else Change(before.state, ours.state))


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 39), st.integers(-10_000_000, 10_000_000))
def test_a_stepped_clock_gives_the_same_states_as_a_steady_one(met: list[bool], at: int, step: int) -> None:
    timing = Timing(3 * MINUTE, 2 * MINUTE)
    alert, states = Alert(), []
    for index, one in enumerate(met):
        now = 20_000_000 + index * MINUTE + (step if index >= at else 0)
        alert = alert.shifted(step) if index == at else alert
        alert, _ = evaluate(timing, alert, Observation(one), now)
        states.append(alert.state)
    assert states == run(timing, met)


def test_a_restart_between_evaluations_changes_nothing() -> None:
    kept = Alert(F, active_ms=5, fired_ms=6, value=0.5)
    assert evaluate(Timing(), replace(kept), MET, 100)[1] is None
