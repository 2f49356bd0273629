"""Pacing, the shared gate after a 429, and the learned cap."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.throttle import BURST, LINE, MIN_CAP, Full, Slot, Throttle

FOREVER = 1e9


def slot(throttle: Throttle, now: float, latest: float = FOREVER) -> Slot:
    answer = throttle.reserve(now, latest)
    assert isinstance(answer, Slot)
    return answer


def send(throttle: Throttle, now: float, count: int = 1) -> None:
    for _ in range(count):
        assert throttle.confirm(slot(throttle, now), now)


def limited_after(sends: int, retry_after: float | None = 0.0, stated: float | None = None) -> Throttle:
    """A throttle whose first 429 came at 0, after so many sends."""
    throttle = Throttle(stated)
    send(throttle, 0.0, sends)
    throttle.limited(0.0, retry_after, 0.0)
    return throttle


# -- without any 429 ------------------------------------------------------------------------------------------------


def test_an_unlimited_model_is_never_waited_for() -> None:
    throttle = Throttle(None)
    send(throttle, 5.0, 1000)
    assert throttle.blocked_until(5.0) is None
    assert (throttle.gate_until, throttle.cap) == (None, None)


def test_a_stated_limit_may_be_used_at_once_but_not_exceeded() -> None:
    throttle = Throttle(3)
    send(throttle, 0.0, 3)
    assert throttle.reserve(1.0, 6.0) == Full(60.0)
    assert throttle.blocked_until(1.0) == 60.0
    assert slot(throttle, 1.0).at == 60.0


def test_a_full_throttle_takes_nothing() -> None:
    throttle = Throttle(1)
    send(throttle, 0.0)
    for _ in range(10):
        assert throttle.reserve(1.0, 6.0) == Full(60.0)


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_slot_that_was_not_used_is_free_again(confirmed: bool) -> None:
    throttle = Throttle(1)
    unused = slot(throttle, 0.0)
    if confirmed:
        assert throttle.confirm(unused, 0.0)
    throttle.release(unused)
    throttle.release(unused)
    assert slot(throttle, 1.0).at == 1.0
    assert throttle.reserve(1.0, 2.0) == Full(61.0)


def test_a_slot_is_used_once() -> None:
    throttle = Throttle(None)
    mine = slot(throttle, 0.0)
    assert throttle.confirm(mine, 0.0)
    assert not throttle.confirm(mine, 0.0)


# -- the gate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_after", "rand", "gate"), [(0.0, 0.0, 1.0), (10.0, 0.0, 11.0), (10.0, 0.5, 11.5), (-5.0, 0.0, 1.0)]
)
def test_the_gate_is_the_retry_after_with_rounding_and_jitter(retry_after: float, rand: float, gate: float) -> None:
    throttle = Throttle(None)
    throttle.limited(0.0, retry_after, rand)
    assert throttle.gate_until == gate
    assert throttle.blocked_until(0.5) == gate


def test_a_later_429_never_shortens_the_gate() -> None:
    throttle = Throttle(None)
    throttle.limited(0.0, 30.0, 0.0)
    throttle.limited(1.0, 2.0, 0.0)
    assert throttle.gate_until == 31.0


def test_a_wait_beyond_ones_patience_is_known_at_once() -> None:
    throttle = limited_after(60, retry_after=30.0)
    assert throttle.reserve(0.0, 5.0) == Full(31.0)


def test_without_retry_after_the_wait_doubles_up_to_a_minute() -> None:
    throttle, now, waits = Throttle(None), 0.0, []
    for _ in range(8):
        throttle.limited(now, None, 0.0)
        waits.append((throttle.gate_until or 0.0) - now)
        now = throttle.gate_until or 0.0
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_many_answers_to_one_burst_double_the_wait_once() -> None:
    throttle = Throttle(None)
    for step in range(20):
        throttle.limited(step * 0.01, None, 0.0)
    assert throttle.gate_until == 1.0


def test_a_good_answer_ends_the_doubling() -> None:
    throttle = Throttle(None)
    for now in (0.0, 10.0, 20.0):
        throttle.limited(now, None, 0.0)
    throttle.sent_ok(30.0)
    throttle.limited(31.0, None, 0.0)
    assert throttle.gate_until == 32.0


def test_waiters_are_let_through_one_by_one_behind_the_gate() -> None:
    throttle = limited_after(100, retry_after=9.0)  # cap 70 a minute
    times = [slot(throttle, 1.0).at for _ in range(4)]
    assert times == pytest.approx([10.0, 10.0 + 6 / 7, 10.0 + 12 / 7, 10.0 + 18 / 7])


def test_a_waiter_finds_out_on_waking_that_the_gate_moved() -> None:
    throttle = limited_after(100, retry_after=1.0)
    early = slot(throttle, 0.5)
    throttle.limited(1.0, 20.0, 0.0)
    assert not throttle.confirm(early, early.at)
    throttle.release(early)
    assert slot(throttle, early.at).at == 22.0


def test_a_slot_that_the_gate_made_void_does_not_use_up_the_limit() -> None:
    throttle = Throttle(1)
    send(throttle, 0.0)
    assert slot(throttle, 0.5).at == 60.0
    throttle.limited(1.0, 100.0, 0.0)
    assert slot(throttle, 1.0).at == 102.0


# -- the cap --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sends", "stated", "cap"), [(100, None, 70.0), (100, 200, 70.0), (10, None, 7.0), (0, None, MIN_CAP)]
)
def test_the_first_429_caps_below_what_was_sent(sends: int, stated: float | None, cap: float) -> None:
    assert limited_after(sends, stated=stated).cap == pytest.approx(cap)


def test_slots_given_back_were_not_sent() -> None:
    throttle = Throttle(None)
    for number in range(100):
        one = slot(throttle, 0.0)
        if number % 2:
            throttle.release(one)
    throttle.limited(1.0, 0.0, 0.0)
    assert throttle.cap == pytest.approx(35.0)


def test_a_paced_slot_given_back_is_given_to_the_next() -> None:
    throttle = limited_after(100, retry_after=9.0)
    first, second = slot(throttle, 1.0), slot(throttle, 1.0)
    throttle.release(second)
    assert slot(throttle, 1.0).at == pytest.approx(second.at)
    assert first.at == 10.0


def test_only_the_first_429_of_a_minute_cuts() -> None:
    throttle = limited_after(100)
    for step in range(1, 60):
        throttle.limited(float(step), 0.0, 0.0)
    assert throttle.cap == pytest.approx(70.0)
    throttle.limited(60.0, 0.0, 0.0)
    assert throttle.cap == pytest.approx(49.0)


def test_the_cap_never_falls_so_low_that_it_cannot_learn() -> None:
    """Beam PR #40598: a limiter that reached zero never sent again."""
    throttle = limited_after(100)
    for minute in range(1, 100):
        throttle.limited(minute * 60.0, 0.0, 0.0)
    assert throttle.cap == MIN_CAP
    assert slot(throttle, 6000.0).at == 6000.0


def test_every_good_minute_raises_the_cap_once() -> None:
    throttle = limited_after(100)
    for step in range(1, 181):
        throttle.sent_ok(float(step))
    assert throttle.cap == pytest.approx(70.0 + 3 * 5.0)


def test_a_429_starts_the_good_minute_anew() -> None:
    throttle = limited_after(100)
    throttle.limited(30.0, 0.0, 0.0)
    throttle.sent_ok(89.0)
    assert throttle.cap == pytest.approx(70.0)
    throttle.sent_ok(90.0)
    assert throttle.cap == pytest.approx(75.0)


def test_a_cap_that_grew_to_the_stated_limit_goes() -> None:
    throttle = limited_after(100, stated=100)
    for minute in range(1, 7):
        throttle.sent_ok(minute * 60.0)
    assert throttle.cap is None


def test_unused_pace_is_saved_for_a_few_seconds_only() -> None:
    throttle = limited_after(100)  # 70 a minute
    at_once = 0
    while throttle.blocked_until(1000.0) is None:
        send(throttle, 1000.0)
        at_once += 1
    assert at_once == int(BURST * 70 / 60) + 1


def test_two_requests_at_the_smallest_cap_go_within_the_usual_wait() -> None:
    throttle = limited_after(0)
    assert [slot(throttle, 100.0).at for _ in range(2)] == [100.0, 105.0]


def test_slots_that_are_used_late_count_from_then() -> None:
    """The process stood still while eight waited, and what they left over was given away a second time."""
    throttle = Throttle(10)
    send(throttle, 0.0, 10)
    waiting = [slot(throttle, 50.0) for _ in range(8)]
    assert {one.at for one in waiting} == {60.0}
    assert all(throttle.confirm(one, 100.0) for one in waiting)
    assert [slot(throttle, 125.0).at for _ in range(3)] == [125.0, 125.0, 160.0]


def test_a_slot_that_was_used_late_can_be_given_back() -> None:
    throttle = Throttle(1)
    late = slot(throttle, 0.0)
    assert throttle.confirm(late, 30.0)
    throttle.release(late)
    assert slot(throttle, 31.0).at == 31.0


# -- properties -----------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.integers(0, 40).map(lambda quarters: quarters / 4),
        st.sampled_from(["send", "send", "send", "release", "limited", "ok"]),
        st.integers(0, 20),
    ),
    max_size=150,
)


@settings(max_examples=100, deadline=None)
@given(limit=st.integers(1, 5), steps=STEPS, patience=st.sampled_from([0.0, 5.0, 200.0]))
def test_no_minute_holds_more_than_the_stated_limit_and_nothing_passes_the_gate(
    limit: int, steps: list[tuple[float, str, int]], patience: float
) -> None:
    throttle, now = Throttle(limit), 0.0
    ahead: list[Slot] = []
    sent: list[float] = []
    for pause, act, number in steps:
        now += pause
        if act == "send":
            answer = throttle.reserve(now, now + patience)
            if isinstance(answer, Full):
                assert answer.retry_at > now + patience
                assert throttle.blocked_until(now) == answer.retry_at
            else:
                assert now <= answer.at <= now + patience
                ahead.append(answer)
        elif act == "release" and ahead:
            throttle.release(ahead.pop(number % len(ahead)))
        elif act == "limited":
            throttle.limited(now, float(number) if number % 2 else None, 0.0)
        elif act == "ok":
            throttle.sent_ok(now)
        for due in sorted((one for one in ahead if one.at <= now), key=lambda one: one.at):
            ahead.remove(due)
            if throttle.confirm(due, due.at):
                assert throttle.gate_until is None or due.at >= throttle.gate_until
                sent.append(due.at)
    sent.sort()
    assert all(later - earlier >= 60.0 for earlier, later in zip(sent, sent[limit:], strict=False))


@settings(max_examples=60, deadline=None)
@given(sends=st.integers(9, 200), waiters=st.integers(1, 60))
def test_a_crowd_behind_the_gate_leaves_at_the_pace_of_the_cap(sends: int, waiters: int) -> None:
    throttle = limited_after(sends, retry_after=10.0)
    assert throttle.cap is not None
    times = [slot(throttle, 1.0).at for _ in range(waiters)]
    assert times[0] == 11.0
    assert all(later - earlier == pytest.approx(60 / throttle.cap) for earlier, later in pairwise(times))


def test_memory_is_bounded_even_when_callers_never_confirm() -> None:
    throttle = Throttle(None)
    for step in range(20_000):
        slot(throttle, step * 0.1)
    assert len(throttle._waiting) <= 601


# -- those who are turned away ----------------------------------------------------------------------------------------


def test_whoever_is_turned_away_is_told_a_time_behind_those_before() -> None:
    throttle = limited_after(100, retry_after=29.0)
    assert throttle.cap == 70.0
    told = [throttle.come_back(1.0) for _ in range(5)]
    assert told[0] == throttle.gate_until == 30.0
    assert [later - earlier for earlier, later in pairwise(told)] == pytest.approx([60.0 / 70.0] * 4)


def test_under_a_stated_limit_as_many_are_told_a_time_as_may_be_sent_then() -> None:
    throttle = Throttle(2)
    send(throttle, 0.0)
    send(throttle, 20.0)
    assert [throttle.come_back(21.0) for _ in range(5)] == [60.0, 80.0, 120.0, 140.0, 180.0]
    assert throttle.come_back(500.0) == 500.0


def test_a_line_that_was_served_is_forgotten() -> None:
    throttle = limited_after(10, retry_after=0.0)
    for _ in range(3):
        throttle.come_back(0.0)
    assert throttle.come_back(1000.0) == 1000.0


def test_the_line_has_an_end_and_those_behind_it_do_not_lengthen_it() -> None:
    throttle = limited_after(10, retry_after=0.0)
    told = [throttle.come_back(0.0) for _ in range(1000)]
    assert max(told) == told[-1] == 1.0 + LINE
    assert told == sorted(told)
    assert throttle.come_back(LINE / 2) <= 1.0 + LINE + 2 * 60.0 / MIN_CAP


@settings(max_examples=50)
@given(st.integers(1, 40), st.one_of(st.none(), st.integers(1, 40)), st.integers(1, 30))
def test_who_comes_back_when_told_is_served_even_when_all_do(sends: int, stated: int | None, crowd: int) -> None:
    throttle = limited_after(sends, retry_after=3.0, stated=stated)
    for at in [throttle.come_back(1.0) for _ in range(crowd)]:
        if at < 4.0 + LINE:
            assert slot(throttle, at, at + 5.0).at <= at + 5.0
