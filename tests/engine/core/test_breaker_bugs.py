"""One test per bug that other breakers had in production; the numbers are those of the catalogue we keep."""

import ast
import inspect
import random
from dataclasses import replace

import pytest

from engine.core import backoff, breaker, budget, findings, probetimer, spill, throttle, window
from engine.core.agreement import Document, Force
from engine.core.breaker import Breaker, BreakerState, Denied, Permit
from engine.core.effects import Attempt, Effects, Outcome, PlanRequest, Verdict
from engine.core.messages import Completion, FinishReason, Request, Role
from engine.core.outcomes import RULES, Category, Effect, ProviderFailure
from engine.core.plan import plan
from engine.core.policy import BreakerPolicy, ManagerPolicy, ModelFacts
from engine.core.switchboard import Switchboard

TTL = 100.0


def half_open(probes: int = 1, min_calls: int = 10) -> tuple[Breaker, list[Permit]]:
    """A breaker that is half-open at 15 with all its probes out."""
    subject = Breaker(replace(BreakerPolicy(), probes=probes, min_calls=min_calls), TTL)
    subject.trip(0.0, 0.0, "test")
    permits = [subject.ask(15.0, 0.0)[0] for _ in range(probes)]
    assert subject.state is BreakerState.HALF_OPEN
    return subject, [one for one in permits if isinstance(one, Permit)]


@pytest.mark.parametrize("effect", [*Effect, None])
def test_bug_1_no_way_out_of_a_probe_leaks_its_slot(effect: Effect | None) -> None:
    """resilience4j #544, Polly #1979, Hystrix #1723: half-open for ever after a 429, a cancellation or an exception."""
    subject, (probe,) = half_open()
    if effect is not None:
        subject.report(probe, effect, 16.0, 0.0)
    now = 15.0 + TTL + 30.0  # the permit's life and the longest wait
    subject.tick(15.0 + TTL, 0.0)
    answer, _ = subject.ask(now, 0.0)
    assert isinstance(answer, Permit)


def test_bug_1_a_neutral_probe_gives_its_slot_back_at_once() -> None:
    """helm-api #698, OmniRoute #13836: hours and days of refusals after one 429 inside a probe."""
    subject, (probe,) = half_open()
    assert subject.report(probe, Effect.NEUTRAL, 16.0, 0.0) == ()
    answer, _ = subject.ask(16.0, 0.0)
    assert isinstance(answer, Permit)
    assert answer.probe


@pytest.mark.parametrize(("effect", "state"), [(Effect.OK, BreakerState.CLOSED), (Effect.FAILURE, BreakerState.OPEN)])
def test_bug_2_the_minimum_of_calls_does_not_apply_in_half_open(effect: Effect, state: BreakerState) -> None:
    """opossum #276, #119: never decided with fewer calls than the minimum."""
    subject, (probe,) = half_open(min_calls=1000)
    subject.report(probe, effect, 16.0, 0.0)
    assert subject.state is state


def test_bug_3_a_failure_in_half_open_always_reopens() -> None:
    """agentic_security #328: the failure was forgotten."""
    subject, (probe,) = half_open()
    (moved,) = subject.report(probe, Effect.FAILURE, 16.0, 0.0)
    assert (moved.to_state, moved.reason, subject.retry_at) == (BreakerState.OPEN, "probe_failed", 15.0 + 30.0)


def test_bug_3_a_slow_probe_reopens_too() -> None:
    """Otherwise a model that is only slow would close and trip in turns."""
    subject, (probe,) = half_open()
    (moved,) = subject.report(probe, Effect.OK, 46.0, 0.0, duration=31.0)
    assert (moved.to_state, moved.reason) == (BreakerState.OPEN, "probe_slow")


@pytest.mark.parametrize("effect", list(Effect))
def test_bug_4_a_late_result_changes_nothing_but_its_counter(effect: Effect) -> None:
    """Polly #218, #223, aiox-core #667: calls from before the trip reopened or extended."""
    subject = Breaker(BreakerPolicy(), TTL)
    early = [subject.ask(0.0, 0.0)[0] for _ in range(2)]
    subject.trip(1.0, 0.0, "test")
    for number, (now, state) in enumerate([(2.0, BreakerState.OPEN), (16.0, BreakerState.HALF_OPEN)]):
        if state is BreakerState.HALF_OPEN:
            subject.ask(now, 0.0)
        before = subject.snapshot(now)
        late = early[number]
        assert isinstance(late, Permit)
        assert subject.report(late, effect, now, 0.0) == ()
        assert subject.snapshot(now) == before
        assert subject.state is state
    assert subject.late_results == 2


def test_bug_4_a_permit_works_once() -> None:
    subject = Breaker(BreakerPolicy(), TTL)
    permit, _ = subject.ask(0.0, 0.0)
    assert isinstance(permit, Permit)
    for _ in range(10):
        subject.report(permit, Effect.FAILURE, 0.0, 0.0)
    assert (subject.snapshot(0.0).failures, subject.late_results) == (1, 9)


def test_bug_4_a_permit_of_another_breaker_is_inert() -> None:
    mine, other = Breaker(BreakerPolicy(), TTL), Breaker(BreakerPolicy(), TTL)
    mine.ask(0.0, 0.0)
    foreign, _ = other.ask(0.0, 0.0)
    assert isinstance(foreign, Permit)
    mine.report(foreign, Effect.FAILURE, 0.0, 0.0)
    assert (mine.snapshot(0.0).failures, mine.late_results) == (0, 1)


def test_bug_5_no_more_probes_than_allowed() -> None:
    """resilience4j #1432, Failsafe #391: returned permits let extra probes through."""
    subject, permits = half_open(probes=3)
    assert len(permits) == 3
    for _ in range(10):
        answer, _ = subject.ask(15.0, 0.0)
        assert isinstance(answer, Denied)
    subject.report(permits[0], Effect.NEUTRAL, 15.0, 0.0)
    assert isinstance(subject.ask(15.0, 0.0)[0], Permit)
    assert isinstance(subject.ask(15.0, 0.0)[0], Denied)


CHAT = ManagerPolicy("chat", ModelFacts("pro", "pro", "p"), ModelFacts("flash", "flash", "p"))
AWAY = Document(epoch=2, active=Role.SECONDARY, share=0.0, hold=15.0, cause="quorum", writer="x")


def asked(board: Switchboard, now: float) -> tuple[Effects[Verdict], Attempt]:
    """A request that has got as far as asking its first model."""
    request = PlanRequest(Request(({"role": "user", "content": "hello"},), id="r"), streamed=False, deadline=now + 120)
    effects = plan(request, board, lambda: 0.0, now)
    while not isinstance(effect := effects.send(None), Attempt):
        pass
    return effects, effect


def ended(effects: Effects[Verdict], category: Category, now: float) -> None:
    """Its model answers, or fails so; nothing else is tried."""
    completion = Completion("hi", FinishReason.STOP) if category is Category.OK else None
    failure = None if completion else ProviderFailure(category)
    answer: Outcome | None = Outcome(category, now, 1.0, completion=completion, failure=failure)
    try:
        while not isinstance(effects.send(answer), Attempt):
            answer = None
    except StopIteration:
        return
    effects.close()


def failed_over(board: Switchboard, now: float) -> None:
    """Primary's breaker opens, and the active model moves."""
    board.lines[Role.PRIMARY].breaker.trip(now, 0.0, "test")
    assert board.adopt(AWAY, now) is not None


@pytest.mark.parametrize("category", [Category.TIMEOUT, Category.OK])
def test_bug_4_a_late_result_says_nothing_to_the_gate_either(category: Category) -> None:
    """Requests that hung in an outage ran out a minute later and made the gate count anew, over and over."""
    board = Switchboard(CHAT, 0.0)
    early, attempt = asked(board, 0.0)
    assert attempt.role is Role.PRIMARY
    failed_over(board, 40.0)
    probe, attempt = asked(board, 60.0)
    assert (attempt.role, attempt.probe) == (Role.PRIMARY, True)
    ended(probe, Category.OK, 61.0)
    assert board.gate.good == 1
    ended(early, category, 62.0)
    assert board.gate.good == 1


PURE = [backoff, breaker, budget, findings, probetimer, spill, throttle, window]


@pytest.mark.parametrize("module", PURE, ids=lambda module: module.__name__)
def test_bugs_6_and_11_no_path_reads_a_clock_of_its_own(module: object) -> None:
    """hermes-agent #73167, resilience4j's lock-free window: wall time, or an injected clock ignored on one path."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imports |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imports & {"time", "datetime", "random", "asyncio", "threading", "socket", "os", "sqlite3"}


def test_bug_7_open_never_becomes_closed_in_one_step() -> None:
    """php-circuit-breaker #12, Portkey 2.0: an expired store entry skipped half-open."""
    subject = Breaker(BreakerPolicy(), TTL)
    subject.trip(0.0, 0.0, "test")
    subject.tick(1e9, 0.0)
    assert subject.snapshot(1e9).state is BreakerState.OPEN
    _, moved = subject.ask(1e9, 0.0)
    assert [one.to_state for one in moved] == [BreakerState.HALF_OPEN]


def test_bug_8_instances_do_not_probe_in_step() -> None:
    """web-researcher-mcp #471: no jitter."""
    rng = random.Random(1)
    due = []
    for _ in range(200):
        subject = Breaker(BreakerPolicy(), TTL)
        subject.trip(0.0, rng.random(), "test")
        due.append(subject.retry_at or 0.0)
    thirds = [sum(low <= at < low + 1 for at in due) for low in (12, 13, 14)]
    assert all(40 < count < 95 for count in thirds)
    assert sum(thirds) == 200


def test_bug_9_two_calls_overlap() -> None:
    """pybreaker #3, #41: the lock was held during the user's call. Here a call is two events with nothing between."""
    subject = Breaker(BreakerPolicy(), TTL)
    first, second = subject.ask(0.0, 0.0)[0], subject.ask(0.0, 0.0)[0]
    assert isinstance(first, Permit)
    assert isinstance(second, Permit)
    subject.report(second, Effect.OK, 1.0, 0.0)
    subject.report(first, Effect.OK, 2.0, 0.0)
    assert subject.snapshot(2.0).samples == 2


@pytest.mark.parametrize("category", [Category.CONTENT_FILTER, Category.INVALID_REQUEST, Category.CANCELLED])
def test_bugs_10_and_19_what_is_not_the_models_fault_never_opens_it(category: Category) -> None:
    """erpc PR #1118: success defined too narrowly; several gateways: a caller's abort counted as failure."""
    subject = Breaker(BreakerPolicy(), TTL)
    for step in range(1000):
        permit, _ = subject.ask(step * 0.01, 0.0)
        assert isinstance(permit, Permit)
        subject.report(permit, RULES[category].breaker, step * 0.01, 0.0)
    assert (subject.state, subject.snapshot(10.0).outstanding) == (BreakerState.CLOSED, 0)


def test_bug_12_every_refusal_is_an_instance_of_its_own() -> None:
    """purgatory: one shared exception, whose traceback grew with every raise."""
    board = Switchboard(CHAT, 0.0)
    for line in board.lines.values():
        line.breaker.trip(0.0, 0.0, "test")
    errors = []
    for _ in range(2):
        request = PlanRequest(Request(({"role": "user", "content": "hello"},), id="r"), streamed=False, deadline=120.0)
        with pytest.raises(StopIteration) as end:
            plan(request, board, lambda: 0.0, 1.0).send(None)
        errors.append(end.value.value.error)
    assert [error.code for error in errors] == ["overloaded", "overloaded"]
    assert errors[0] is not errors[1]


def test_bug_13_a_probe_whose_owner_died_counts_as_failed() -> None:
    """deer-flow #3991, OmniRoute #13849: wedged for ever."""
    subject, (probe,) = half_open()
    assert subject.tick(15.0 + TTL - 0.001, 0.0) == ()
    (moved,) = subject.tick(15.0 + TTL, 0.0)
    assert (moved.to_state, moved.reason, subject.expired_permits) == (BreakerState.OPEN, "probe_expired", 1)
    assert subject.snapshot(15.0 + TTL).vote_failures == 0
    subject.report(probe, Effect.OK, 15.0 + TTL, 0.0)
    assert subject.state is BreakerState.OPEN


def test_bug_13_expiry_needs_no_tick() -> None:
    subject, (probe,) = half_open()
    (moved,) = subject.report(probe, Effect.OK, 15.0 + TTL, 0.0)
    assert (moved.reason, subject.late_results) == ("probe_expired", 1)


def test_bug_13_an_expired_permit_of_a_closed_breaker_says_nothing() -> None:
    subject = Breaker(BreakerPolicy(), TTL)
    for _ in range(50):
        subject.ask(0.0, 0.0)
    assert subject.tick(TTL, 0.0) == ()
    seen = subject.snapshot(TTL)
    assert (seen.state, seen.samples, seen.outstanding, subject.expired_permits) == (BreakerState.CLOSED, 0, 0, 50)


def test_a_probe_does_not_expire_while_the_process_stands_still() -> None:
    subject, (probe,) = half_open()
    subject.stood_still(900.0, 920.0)
    assert subject.tick(920.0, 0.0) == ()
    (moved,) = subject.report(probe, Effect.OK, 920.0, 0.0)
    assert moved.to_state is BreakerState.CLOSED


def test_a_night_of_standing_still_lets_no_lost_probe_hold_half_open_longer_than_a_new_one() -> None:
    subject, _ = half_open()
    subject.stood_still(30_000.0, 20.0)  # asleep, which the clock of the breaker does not count
    assert subject.tick(20.0 + TTL - 0.001, 0.0) == ()
    (moved,) = subject.tick(20.0 + TTL, 0.0)
    assert moved.reason == "probe_expired"


def test_bug_14_a_reopen_never_ends_before_the_promised_time() -> None:
    """litellm #40130: the earlier, shorter deadline was kept. Here a Retry-After outlives an operator's force."""
    subject = Breaker(BreakerPolicy(), TTL)
    subject.trip(0.0, 0.0, "test")
    subject.extend(200.0, 0.0)
    subject.force(BreakerState.FORCED_CLOSED, 1.0, "try")
    subject.force(None, 2.0, "done")
    probe, _ = subject.ask(2.0, 0.0)
    assert isinstance(probe, Permit)
    subject.report(probe, Effect.FAILURE, 3.0, 0.0)
    assert subject.retry_at == 200.0


def test_bug_15_the_fallbacks_failures_open_its_own_breaker() -> None:
    """litellm #35104: failures of fallbacks were counted nowhere."""
    board = Switchboard(CHAT, 0.0)
    failed_over(board, 0.0)
    for step in range(CHAT.breaker.consecutive_failures):
        effects, attempt = asked(board, step * 0.1)
        assert attempt.role is Role.SECONDARY
        ended(effects, Category.TIMEOUT, step * 0.1)
    assert board.lines[Role.SECONDARY].breaker.state is BreakerState.OPEN


def test_bug_16_what_a_restart_finds_carries_its_own_end_and_its_epoch() -> None:
    """litellm #35104: a cache brought a cooldown back to life that was over."""
    board = Switchboard(CHAT, 0.0)
    spent = Force("forced_open", "test", "ana", ttl=600.0, expires_ms=1_000_000, epoch=2)
    assert board.adopt(replace(AWAY, forced={Role.PRIMARY: spent}), 0.0, wall_ms=2_000_000) is not None
    assert board.forces_ended(0.0) == (Role.PRIMARY,)
    assert board.adopt(Document(epoch=1, writer="an old one"), 1.0) is None


def test_bug_17_a_model_that_is_well_again_is_found_by_the_requests_themselves() -> None:
    """hermes-agent #57582: the index of the fallback was never reset."""
    board = Switchboard(CHAT, 0.0)
    failed_over(board, 0.0)
    now = 0.0
    while not board.gate.ready(now):
        now += 1.0
        assert now < 60.0
        effects, _ = asked(board, now)
        ended(effects, Category.OK, now)
    assert board.vote("a", "a", now).ready
    assert board.lines[Role.PRIMARY].breaker.state is BreakerState.CLOSED


def test_bug_18_open_time_counts_from_the_trip() -> None:
    """Portkey 2.0 counted from the first failure."""
    subject = Breaker(BreakerPolicy(), TTL)
    for step in range(5):
        permit, _ = subject.ask(step * 10.0, 0.0)
        assert isinstance(permit, Permit)
        subject.report(permit, Effect.FAILURE, step * 10.0, 0.0)
    assert subject.retry_at == 55.0


def test_bug_20_rate_limits_alone_never_open() -> None:
    """langwatch #7027: stuck for hours on a hard 429, which is a matter of quota, not of health."""
    assert RULES[Category.RATE_LIMITED].breaker is RULES[Category.QUOTA_EXHAUSTED].breaker is Effect.NEUTRAL


def test_bug_21_thousands_of_reopens_do_not_overflow() -> None:
    """stamina: `OverflowError` above 1024 attempts."""
    policy = BreakerPolicy(open_for=1e-300, open_max=1e300)
    subject = Breaker(policy, TTL)
    subject.trip(0.0, 0.0, "test")
    now = 0.0
    for _ in range(3000):
        now = max(now, subject.retry_at or 0.0)
        probe, _ = subject.ask(now, 0.0)
        assert isinstance(probe, Permit)
        subject.report(probe, Effect.FAILURE, now, 0.0)
    assert subject.reopens == 3000
