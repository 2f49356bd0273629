"""What holds for a breaker after any sequence of events."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core.breaker import TRANSITIONS, Breaker, BreakerState, Permit, Transition
from engine.core.outcomes import Effect
from engine.core.policy import BreakerPolicy

TTL = 100.0
PASSING = (BreakerState.CLOSED, BreakerState.FORCED_CLOSED)
FORCED = (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED)
RAND = st.floats(0, 1, exclude_max=True)


class BreakerMachine(RuleBasedStateMachine):
    """Any interleaving of callers, losses, operators and time."""

    @initialize(probes=st.integers(1, 3), min_calls=st.integers(1, 12))
    def start(self, probes: int, min_calls: int) -> None:
        self.policy = replace(BreakerPolicy(), probes=probes, min_calls=min_calls)
        self.breaker = Breaker(self.policy, TTL)
        self.now = 0.0
        self.held: list[Permit] = []
        self.spent: list[Permit] = []
        self.state = BreakerState.CLOSED
        self.generation = 0
        self.promised: float | None = None

    def follow(self, moved: tuple[Transition, ...]) -> None:
        """Transitions are complete, legal, and each a generation."""
        for one in moved:
            assert one.from_state is self.state
            assert one.to_state in TRANSITIONS[self.state].values()
            assert one.to_state is not self.state
            self.state = one.to_state
            self.generation += 1
            if one.to_state is BreakerState.OPEN:
                assert one.evidence["retry_in"] > 0
        assert (self.breaker.state, self.breaker.generation) == (self.state, self.generation)

    @rule(pause=st.one_of(st.floats(0, 5), st.sampled_from([15.0, 30.0, 60.0, TTL])))
    def time_passes(self, pause: float) -> None:
        self.now += pause

    @rule(rand=RAND)
    def somebody_asks(self, rand: float) -> None:
        due = self.breaker.retry_at
        state = self.breaker.state
        answer, moved = self.breaker.ask(self.now, rand)
        self.follow(moved)
        if isinstance(answer, Permit):
            assert answer.generation == self.breaker.generation
            assert answer.probe is (self.state is BreakerState.HALF_OPEN)
            assert state is not BreakerState.FORCED_OPEN
            assert due is None or self.now >= due, "open is open"
            self.held.append(answer)
        else:
            assert self.state not in PASSING
            assert (answer.retry_at is None) is (self.state is BreakerState.FORCED_OPEN)
            assert answer.retry_at is None or answer.retry_at >= self.now

    @precondition(lambda self: self.held)
    @rule(data=st.data(), effect=st.sampled_from(Effect), slow=st.booleans(), rand=RAND)
    def a_call_ends(self, data: st.DataObject, effect: Effect, slow: bool, rand: float) -> None:
        permit = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        before, late = self.breaker.snapshot(self.now), self.breaker.late_results
        alive = permit.generation == self.generation and self.now < permit.deadline
        moved = self.breaker.report(permit, effect, self.now, rand, duration=31.0 if slow else 1.0)
        probing = self.state is BreakerState.HALF_OPEN
        self.follow(moved)
        self.spent.append(permit)
        assert (self.breaker.late_results == late + 1) is not alive
        if alive and effect is Effect.NEUTRAL and not moved:
            after = self.breaker.snapshot(self.now)
            assert replace(after, outstanding=before.outstanding) == before
        if alive and probing and effect is not Effect.NEUTRAL:
            well = effect is Effect.OK and not slow
            assert self.state is (BreakerState.CLOSED if well else BreakerState.OPEN)

    @precondition(lambda self: self.spent)
    @rule(data=st.data(), effect=st.sampled_from(Effect), rand=RAND)
    def a_permit_comes_back_twice(self, data: st.DataObject, effect: Effect, rand: float) -> None:
        self.follow(self.breaker.tick(self.now, rand))
        before = self.breaker.snapshot(self.now)
        assert self.breaker.report(data.draw(st.sampled_from(self.spent)), effect, self.now, rand) == ()
        assert self.breaker.snapshot(self.now) == before

    @precondition(lambda self: self.held)
    @rule()
    def a_caller_dies(self) -> None:
        self.held.pop()

    @rule(rand=RAND)
    def a_tick(self, rand: float) -> None:
        self.follow(self.breaker.tick(self.now, rand))

    @rule(rand=RAND)
    def a_finding_from_outside(self, rand: float) -> None:
        self.follow(self.breaker.trip(self.now, rand, "canary"))

    @rule(ahead=st.floats(-50, 50))
    def a_retry_after(self, ahead: float) -> None:
        self.breaker.extend(self.now + ahead, self.now)

    @rule(forced=st.sampled_from(FORCED))
    def an_operator_forces(self, forced: BreakerState) -> None:
        self.follow(self.breaker.force(forced, self.now, "operator"))

    @precondition(lambda self: self.state in FORCED)
    @rule()
    def force_ends(self) -> None:
        self.follow(self.breaker.force(None, self.now, "expired"))

    @invariant()
    def no_more_probes_than_allowed(self) -> None:
        if self.state is BreakerState.HALF_OPEN:
            assert self.breaker.snapshot(self.now).outstanding <= self.policy.probes

    @invariant()
    def a_promised_time_only_moves_later(self) -> None:
        due = self.breaker.retry_at
        assert (due is not None) is (self.state is BreakerState.OPEN)
        if due is not None and self.promised is not None:
            assert due >= self.promised
        if due is not None:
            self.promised = due
        elif self.state is BreakerState.CLOSED:
            self.promised = None

    @invariant()
    def counts_add_up(self) -> None:
        seen = self.breaker.snapshot(self.now)
        assert 0 <= seen.failures <= seen.samples
        assert 0 <= seen.slow <= seen.samples
        assert 0 <= seen.vote_failures <= seen.vote_samples <= seen.samples
        assert (seen.failure_rate is None) is (seen.samples == 0)

    def teardown(self) -> None:
        """With a healthy model and no force it closes within a bound, whatever happened before and whoever died."""
        if self.state in FORCED:
            self.force_ends()
        due = self.promised or 0.0
        self.now = max(self.now + TTL, due)
        self.follow(self.breaker.tick(self.now, 0.0))
        self.now = max(self.now + self.policy.open_max, self.breaker.retry_at or 0.0)
        answer, moved = self.breaker.ask(self.now, 0.0)
        self.follow(moved)
        assert isinstance(answer, Permit)
        self.follow(self.breaker.report(answer, Effect.OK, self.now, 0.0, duration=1.0))
        assert self.state is BreakerState.CLOSED


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)

CALLS = st.lists(
    st.tuples(st.integers(0, 80).map(lambda eighths: eighths / 8), st.sampled_from(Effect), st.booleans()), max_size=80
)


def history(calls: list[tuple[float, Effect, bool]], shift: float = 0.0) -> list[tuple[float, Transition]]:
    """The transitions of a breaker that is called one call after the other, with their times."""
    breaker, now, moves = Breaker(BreakerPolicy(), TTL), shift, []
    for pause, effect, slow in calls:
        now += pause
        answer, moved = breaker.ask(now, 0.0)
        if isinstance(answer, Permit):
            moved += breaker.report(answer, effect, now, 0.0, duration=31.0 if slow else 1.0)
        moves += [(now - shift, one) for one in moved]
    return moves


@settings(max_examples=80, deadline=None)
@given(calls=CALLS, shift=st.sampled_from([1024.0, 2.0**20]))
def test_bug_6_shifting_the_clock_changes_nothing(calls: list[tuple[float, Effect, bool]], shift: float) -> None:
    assert history(calls, shift) == history(calls)


@settings(max_examples=80, deadline=None)
@given(calls=CALLS)
def test_any_number_of_neutral_outcomes_changes_no_decision(calls: list[tuple[float, Effect, bool]]) -> None:
    """429s, cancellations and callers' own errors may be woven in anywhere."""
    flooded = [
        one for pause, effect, slow in calls for one in [(pause, effect, slow), *[(0.0, Effect.NEUTRAL, slow)] * 3]
    ]
    assert history(flooded) == history(calls)
