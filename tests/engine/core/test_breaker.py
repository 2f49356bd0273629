"""The breaker's rules, one by one."""

import itertools
import timeit
from dataclasses import replace

import pytest

from engine.core.breaker import (
    TRANSITIONS,
    Breaker,
    BreakerEvent,
    BreakerSnapshot,
    BreakerState,
    Denied,
    IllegalTransitionError,
    Permit,
    Transition,
    next_state,
)
from engine.core.outcomes import Effect
from engine.core.policy import BreakerPolicy

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, FORCED_CLOSED = BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED
OK, FAILURE, NEUTRAL = Effect.OK, Effect.FAILURE, Effect.NEUTRAL
TTL = 100.0
POLICY = BreakerPolicy()


def breaker(**changes: float) -> Breaker:
    return Breaker(replace(POLICY, **changes), TTL)  # type: ignore[arg-type]


def permit(subject: Breaker, now: float, rand: float = 0.0) -> Permit:
    answer, _ = subject.ask(now, rand)
    assert isinstance(answer, Permit)
    return answer


def call(
    subject: Breaker, effect: Effect, now: float, duration: float | None = None, name: str = "", rand: float = 0.0
) -> tuple[Transition, ...]:
    return subject.report(permit(subject, now), effect, now, rand, duration=duration, request_id=name)


def opened(now: float = 0.0, rand: float = 0.0, **changes: float) -> Breaker:
    subject = breaker(**changes)
    subject.trip(now, rand, "test")
    return subject


def in_state(state: BreakerState) -> Breaker:
    """A breaker in a state, at time 0 (half-open: probed at 15)."""
    subject = breaker()
    if state in (OPEN, HALF_OPEN):
        subject.trip(0.0, 0.0, "test")
    if state is HALF_OPEN:
        subject.report(permit(subject, 15.0), NEUTRAL, 15.0, 0.0)
    if state in (FORCED_OPEN, FORCED_CLOSED):
        subject.force(state, 0.0, "test")
    assert subject.state is state
    return subject


# -- the state table ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), list(itertools.product(BreakerState, BreakerEvent)))
def test_an_event_leads_where_the_table_says_or_raises(state: BreakerState, event: BreakerEvent) -> None:
    if event in TRANSITIONS[state]:
        assert next_state(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransitionError, match=f"{state} cannot {event}"):
            next_state(state, event)


@pytest.mark.parametrize("state", [CLOSED, OPEN, HALF_OPEN])
def test_leaving_a_force_that_is_not_there_raises_and_changes_nothing(state: BreakerState) -> None:
    subject = in_state(state)
    before, generation = subject.snapshot(15.0), subject.generation
    with pytest.raises(IllegalTransitionError):
        subject.force(None, 15.0, "mistake")
    assert (subject.snapshot(15.0), subject.generation) == (before, generation)


@pytest.mark.parametrize("target", [CLOSED, OPEN, HALF_OPEN])
def test_an_ordinary_state_cannot_be_forced(target: BreakerState) -> None:
    subject = breaker()
    with pytest.raises(ValueError, match="cannot be forced"):
        subject.force(target, 0.0, "mistake")
    assert (subject.state, subject.generation) == (CLOSED, 0)


@pytest.mark.parametrize("state", list(BreakerState))
def test_every_change_of_state_is_a_new_generation(state: BreakerState) -> None:
    subject = in_state(state)
    generation = subject.generation
    target = FORCED_OPEN if state is not FORCED_OPEN else FORCED_CLOSED
    (moved,) = subject.force(target, 15.0, "maintenance")
    assert (moved.from_state, moved.to_state, moved.reason) == (state, target, "maintenance")
    assert subject.generation == generation + 1


# -- tripping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effects", "reason"),
    [
        ("fffff", "consecutive_failures"),
        ("ffff", None),
        ("ffffo", None),
        ("offffnf", "consecutive_failures"),  # a neutral outcome does not end a streak
        ("offoffoffo", "failure_rate"),  # the tenth call is a success and completes the minimum
        ("offoffoff", None),
        ("ofofofofof", "failure_rate"),  # exactly the threshold
        ("ofofofofoo", None),
        ("n" * 50, None),
    ],
)
def test_it_trips_by_rate_over_enough_calls_or_by_streak(effects: str, reason: str | None) -> None:
    subject = breaker()
    kinds = {"o": OK, "f": FAILURE, "n": NEUTRAL}
    moved = [one for step, kind in enumerate(effects) for one in call(subject, kinds[kind], float(step))]
    assert [one.reason for one in moved] == ([reason] if reason else [])
    assert subject.state is (OPEN if reason else CLOSED)


@pytest.mark.parametrize(("slow", "state"), [(8, OPEN), (7, CLOSED)])
def test_it_trips_when_most_calls_are_slow(slow: int, state: BreakerState) -> None:
    subject = breaker()
    durations = [1.0] * (10 - slow) + [31.0] * slow
    moved = [one for step, duration in enumerate(durations) for one in call(subject, OK, float(step), duration)]
    assert subject.state is state
    assert [one.reason for one in moved] == (["slow_rate"] if state is OPEN else [])


@pytest.mark.parametrize(("duration", "slow"), [(30.0, 0), (30.001, 1), (None, 0)])
def test_slow_is_strictly_longer_and_unknown_is_not_slow(duration: float | None, slow: int) -> None:
    subject = breaker()
    call(subject, OK, 0.0, duration)
    assert subject.snapshot(0.0).slow == slow


def test_a_rate_of_seven_in_ten_reaches_a_threshold_of_seven_tenths() -> None:
    """0.7 * 10 is more than 7 in floating point; the rate is compared by division."""
    subject = breaker(failure_rate=0.7, consecutive_failures=100)
    for step in range(10):
        call(subject, OK if step < 3 else FAILURE, float(step))
    assert subject.state is OPEN


def test_old_failures_are_forgotten() -> None:
    subject = breaker(consecutive_failures=100)
    for step in range(9):
        call(subject, FAILURE, float(step))
    call(subject, FAILURE, 70.0)
    seen = subject.snapshot(70.0)
    assert (subject.state, seen.samples, seen.streak) == (CLOSED, 1, 10)


def test_a_trip_tells_its_evidence() -> None:
    subject = breaker()
    call(subject, OK, 0.0)
    for step in range(1, 6):
        moved = call(subject, FAILURE, float(step), name=f"r{step}", rand=0.5)
    assert [(one.from_state, one.to_state, one.reason) for one in moved] == [(CLOSED, OPEN, "consecutive_failures")]
    assert moved[0].evidence == {
        "samples": 6,
        "failures": 5,
        "slow": 0,
        "failure_rate": pytest.approx(5 / 6),
        "slow_rate": 0.0,
        "streak": 5,
        "threshold": 5,
        "request_ids": ["r1", "r2", "r3", "r4", "r5"],
        "retry_in": pytest.approx(13.5),
        "reopens": 0,
    }


def test_evidence_names_the_last_five_requests_only() -> None:
    subject = breaker(consecutive_failures=7, min_calls=100)
    moved = [one for step in range(7) for one in call(subject, FAILURE, float(step), name=f"r{step}")]
    assert moved[0].evidence["request_ids"] == ["r2", "r3", "r4", "r5", "r6"]


@pytest.mark.parametrize(("state", "opens"), [(CLOSED, True), (HALF_OPEN, True), (OPEN, False), (FORCED_OPEN, False)])
def test_a_finding_from_outside_opens_what_is_not_open_or_forced(state: BreakerState, opens: bool) -> None:
    subject = in_state(state)
    moved = subject.trip(15.0, 0.0, "canary failed", "c1")
    assert [(one.to_state, one.reason) for one in moved] == ([(OPEN, "canary failed")] if opens else [])
    if opens:
        assert moved[0].evidence["request_ids"] == ["c1"]


# -- waiting --------------------------------------------------------------------------------------------------------


def test_open_denies_until_its_time_and_then_lets_one_probe_through() -> None:
    subject = opened()
    assert subject.ask(14.999, 0.0) == (Denied(15.0, "open"), ())
    answer, moved = subject.ask(15.0, 0.0)
    assert isinstance(answer, Permit)
    assert answer.probe
    assert [(one.from_state, one.to_state, one.reason) for one in moved] == [(OPEN, HALF_OPEN, "probe_due")]
    denied, _ = subject.ask(15.0, 0.0)
    assert denied == Denied(30.0, "probing")


def test_open_stays_open_until_somebody_asks_but_says_that_a_probe_is_due() -> None:
    subject = opened()
    subject.tick(20.0, 0.0)
    assert (subject.snapshot(14.0).probe_due, subject.snapshot(20.0).probe_due) == (False, True)
    assert subject.snapshot(20.0).state is OPEN


@pytest.mark.parametrize("now", [14.9, 15.0])
@pytest.mark.parametrize("state", BreakerState)
def test_shut_is_what_denies_whoever_else_is_out(state: BreakerState, now: float) -> None:
    subject = in_state(state)
    shut = subject.shut(now)
    answer, _ = subject.ask(now, 0.0)
    assert shut is isinstance(answer, Denied) is (state is FORCED_OPEN or (state is OPEN and now < 15.0))


def test_waits_double_up_to_the_maximum_with_every_reopen() -> None:
    subject = opened(open_for=10.0, open_max=60.0)
    waits, now = [10.0], 0.0
    for _ in range(4):
        now = subject.retry_at or 0.0
        (moved,) = call(subject, FAILURE, now)
        waits.append(moved.evidence["retry_in"])
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0]
    assert subject.reopens == 4


@pytest.mark.parametrize(("took", "wait"), [(0.0, 30.0), (10.0, 20.0), (15.0, 15.0), (25.0, 15.0), (90.0, 15.0)])
def test_what_a_failed_probe_took_counts_towards_what_its_wait_has_grown_by(took: float, wait: float) -> None:
    """A model that hangs is asked as often as one that refuses, and left alone for `open_for` at the least."""
    subject = opened()
    probe = permit(subject, 15.0)
    (moved,) = subject.report(probe, FAILURE, 15.0 + took, 0.0)
    assert moved.evidence["retry_in"] == wait


@pytest.mark.parametrize(("rand", "wait"), [(0.0, 15.0), (0.5, 13.5), (0.999999, 12.0)])
def test_jitter_only_shortens_a_wait(rand: float, wait: float) -> None:
    assert opened(rand=rand).retry_at == pytest.approx(wait, abs=1e-4)


def test_a_retry_after_extends_the_wait_but_never_shortens_it() -> None:
    subject = opened()
    assert subject.extend(40.0, 1.0)
    assert not subject.extend(20.0, 1.0)
    assert subject.retry_at == 40.0


@pytest.mark.parametrize("state", [CLOSED, HALF_OPEN, FORCED_OPEN, FORCED_CLOSED])
def test_only_an_open_breaker_is_extended(state: BreakerState) -> None:
    subject = in_state(state)
    assert not subject.extend(1000.0, 15.0)
    assert subject.retry_at is None


# -- health after trouble -------------------------------------------------------------------------------------------


def recovered(reopens: int) -> tuple[Breaker, float]:
    """A breaker with open_max far away that reopened so often and closed at the time given."""
    subject = opened(open_for=1.0, open_max=1000.0)
    for _ in range(reopens):
        call(subject, FAILURE, subject.retry_at or 0.0)
    closed_at = subject.retry_at or 0.0
    (moved,) = call(subject, OK, closed_at)[-1:]
    assert (moved.to_state, subject.reopens) == (CLOSED, reopens)
    return subject, closed_at


@pytest.mark.parametrize(("healthy", "left"), [(0, 3), (59.9, 3), (60, 2), (119.9, 2), (120, 1), (180, 0), (10_000, 0)])
def test_reopens_are_forgotten_one_per_minute_of_health(healthy: float, left: int) -> None:
    subject, closed_at = recovered(3)
    subject.tick(closed_at + healthy, 0.0)
    assert subject.reopens == left


def test_a_trip_soon_after_closing_is_a_reopen() -> None:
    subject, closed_at = recovered(1)
    (moved,) = subject.trip(closed_at + 30, 0.0, "test")
    assert (subject.reopens, moved.evidence["retry_in"]) == (2, pytest.approx(4.0))


def test_a_trip_after_sustained_health_is_a_first_trip_again() -> None:
    subject, closed_at = recovered(1)
    (moved,) = subject.trip(closed_at + 61, 0.0, "test")
    assert (subject.reopens, moved.evidence["retry_in"]) == (0, pytest.approx(1.0))


def test_forced_time_is_not_proof_of_health() -> None:
    subject, closed_at = recovered(3)
    subject.force(FORCED_OPEN, closed_at + 1, "maintenance")
    assert subject.snapshot(closed_at + 3600).reopens == 3
    subject.force(None, closed_at + 3600, "done")
    (moved,) = call(subject, FAILURE, closed_at + 3600)
    assert moved.evidence["retry_in"] == 8.0


def test_a_long_outage_does_not_take_hours_of_health_to_forget() -> None:
    """Reopens beyond the longest wait change nothing, so they are forgotten together."""
    subject, now = opened(), 0.0
    for _ in range(500):
        now = subject.retry_at or 0.0
        call(subject, FAILURE, now)
    now = subject.retry_at or 0.0
    call(subject, OK, now)
    assert subject.snapshot(now + 60).reopens == 0


def test_closing_starts_with_an_empty_window() -> None:
    subject = breaker()
    for step in range(5):
        call(subject, FAILURE, float(step))
    call(subject, OK, 40.0)
    seen = subject.snapshot(40.0)
    assert (seen.state, seen.samples, seen.streak, seen.failure_rate) == (CLOSED, 0, 0, None)


# -- force ----------------------------------------------------------------------------------------------------------


def test_forced_open_denies_without_a_time() -> None:
    subject = in_state(FORCED_OPEN)
    assert subject.ask(1e6, 0.0) == (Denied(None, "forced_open"), ())


def test_forced_closed_counts_but_never_trips() -> None:
    subject = in_state(FORCED_CLOSED)
    assert not [one for step in range(50) for one in call(subject, FAILURE, float(step))]
    assert subject.snapshot(50.0).failures == 50


@pytest.mark.parametrize("forced", [FORCED_OPEN, FORCED_CLOSED])
def test_leaving_force_goes_through_half_open(forced: BreakerState) -> None:
    subject = in_state(forced)
    (moved,) = subject.force(None, 1.0, "expired")
    assert (moved.from_state, moved.to_state) == (forced, HALF_OPEN)
    assert permit(subject, 1.0).probe


def test_forcing_the_same_way_again_changes_nothing() -> None:
    subject = in_state(FORCED_OPEN)
    assert subject.force(FORCED_OPEN, 1.0, "again") == ()
    assert subject.generation == 1


# -- what it shows --------------------------------------------------------------------------------------------------


def test_a_new_breaker_knows_no_rates() -> None:
    assert breaker().snapshot(0.0) == BreakerSnapshot(CLOSED, None, False, 0, 0, 0, None, None, 0, 0, 0, 0, 0)


def test_an_open_breaker_keeps_the_counts_it_opened_on() -> None:
    subject = breaker()
    for step in range(5):
        call(subject, FAILURE, float(step))
    later = subject.snapshot(10_000.0)
    assert (later.samples, later.failures, later.vote_failures) == (5, 5, 5)


def test_failures_that_cannot_justify_a_vote_are_counted_apart() -> None:
    subject = breaker()
    subject.report(permit(subject, 0.0), FAILURE, 0.0, 0.0, votes=False)
    subject.report(permit(subject, 0.0), OK, 0.0, 0.0, duration=31.0)
    seen = subject.snapshot(0.0)
    assert (seen.samples, seen.failures, seen.vote_samples, seen.vote_failures) == (2, 1, 1, 1)


def test_an_outage_of_days_does_not_grow_memory() -> None:
    subject = opened()
    for _ in range(5000):
        call(subject, FAILURE, subject.retry_at or 0.0)
    assert len(subject._findings._window._buckets) == 1


@pytest.mark.bench
def test_a_call_costs_a_few_microseconds() -> None:
    subject, rounds = breaker(), 20_000
    best = min(timeit.repeat(lambda: call(subject, OK, 0.0, 1.0), number=rounds, repeat=5)) / rounds
    assert best < 10e-6
