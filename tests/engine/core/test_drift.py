"""A drifted model is shut by its canaries, for everybody else and until they pass, in the pure core."""

from __future__ import annotations

import random

import pytest

from engine.core import fleet
from engine.core.agreement import Document, Member, Verdict
from engine.core.breaker import BreakerState
from engine.core.drift import Drift
from engine.core.effects import (
    Attempt,
    BreakerMoved,
    Emit,
    Event,
    Outcome,
    PlanRequest,
)
from engine.core.messages import Completion, FinishReason, Request, Role
from engine.core.outcomes import Category, Cause, ProviderFailure
from engine.core.plan import Verdict as Ending
from engine.core.plan import plan
from engine.core.policy import FleetPolicy, ManagerPolicy, ModelFacts
from engine.core.switchboard import Switchboard

POLICY = ManagerPolicy(name="chat", primary=ModelFacts("pro", "pro", "p"), secondary=ModelFacts("flash", "flash", "p"))
HELLO = Request(({"role": "user", "content": "hello"},), id="r")
PRIMARY, SECONDARY = Role.PRIMARY, Role.SECONDARY


class World:
    """One instance whose models answer as the test says, one second a try."""

    def __init__(self) -> None:
        self.board = Switchboard(POLICY, 0.0)
        self.now = 0.0
        self.rng = random.Random(1).random
        self.failing: dict[Role, Category] = {}
        self.nonsense: set[Role] = set()
        self.events: list[Event] = []

    def ask(self, *, only: Role | None = None, canary: str = "") -> Ending:
        asked = PlanRequest(HELLO, streamed=False, deadline=self.now + 60.0, only=only, canary=canary)
        effects = plan(asked, self.board, self.rng, self.now)
        answer: Outcome | float | None = None
        try:
            while True:
                effect = effects.send(answer)
                if isinstance(effect, Emit):
                    self.events.append(effect.event)
                    answer = None
                elif isinstance(effect, Attempt):
                    answer = self._attempt(effect, bool(canary))
                else:
                    self.now = answer = effect.until
        except StopIteration as end:
            verdict: Ending = end.value
            return verdict

    def _attempt(self, attempt: Attempt, canary: bool) -> Outcome:
        self.now += 1.0
        category = self.failing.get(attempt.role, Category.OK)
        if category is Category.OK and canary and attempt.role in self.nonsense:
            category = Category.SEMANTIC
        if category is Category.OK:
            return Outcome(category, self.now, 1.0, completion=Completion("hi", FinishReason.STOP))
        return Outcome(category, self.now, 1.0, failure=ProviderFailure(category, 500))

    def canary(self, role: Role, name: str = "arithmetic") -> Ending:
        return self.ask(only=role, canary=name)

    def state(self, role: Role) -> BreakerState:
        return self.board.lines[role].breaker.state


@pytest.fixture
def world() -> World:
    return World()


def test_a_canary_finds_a_drifted_secondary_before_traffic_reaches_it(world: World) -> None:
    world.nonsense.add(SECONDARY)
    found = world.canary(SECONDARY)
    assert (found.error and found.error.code, found.tried[0].outcome.category) == (
        "semantic_failure",
        Category.SEMANTIC,
    )
    assert world.state(SECONDARY) is BreakerState.OPEN
    moved = [event for event in world.events if isinstance(event, BreakerMoved)]
    assert moved[-1].transition.reason == "canary failed: arithmetic"
    world.failing[PRIMARY] = Category.TIMEOUT
    world.now += 100.0  # far beyond the breaker's wait: an ordinary request must not be its probe
    verdict = world.ask()
    assert [tried.attempt.role for tried in verdict.tried] == [PRIMARY]


def test_only_a_passing_canary_brings_a_drifted_model_back(world: World) -> None:
    world.nonsense.add(SECONDARY)
    world.canary(SECONDARY)
    world.nonsense.clear()
    world.now += 40.0
    assert world.canary(SECONDARY).error is None
    assert world.state(SECONDARY) is BreakerState.CLOSED
    world.failing[PRIMARY] = Category.TIMEOUT
    assert world.ask().role is SECONDARY


def test_one_passing_canary_does_not_excuse_another_that_fails(world: World) -> None:
    world.nonsense.add(SECONDARY)
    world.canary(SECONDARY, "arithmetic")
    world.nonsense.clear()
    world.now += 40.0
    world.canary(SECONDARY, "language")
    assert world.state(SECONDARY) is BreakerState.HALF_OPEN
    assert world.board.vote("a", "h", world.now).secondary.verdict is Verdict.DOWN


def test_a_drifted_primary_moves_the_fleet_with_cause_canary(world: World) -> None:
    world.nonsense.add(PRIMARY)
    world.canary(PRIMARY)
    vote = world.board.vote("a", "h", world.now)
    assert vote.primary.reason == "canary failed: arithmetic"
    seen = fleet.Observation(world.now, 1000, 0.0, 0.0, "a")
    following = fleet.decide(Document(epoch=1), [vote], [Member("a", "h")], seen, POLICY.recovery, FleetPolicy())
    assert following is not None
    assert (following.active, following.cause) == (SECONDARY, Cause.CANARY)
    assert following.evidence["votes"]["a"]["reason"] == "canary failed: arithmetic"


def test_a_drifted_primary_is_not_probed_by_callers_until_its_canary_passes(world: World) -> None:
    world.nonsense.add(PRIMARY)
    world.canary(PRIMARY)
    world.board.adopt(Document(epoch=2, active=SECONDARY, share=0.0, hold=15.0, writer="x"), world.now)
    world.now += 60.0
    assert world.board.probe_due_at(world.now) is None
    verdict = world.ask()
    assert (verdict.role, verdict.cause) == (SECONDARY, None)
    world.nonsense.clear()
    world.canary(PRIMARY)
    assert world.board.probe_due_at(world.now) is not None


def test_a_canary_that_both_models_fail_turns_nobody_away(world: World) -> None:
    world.nonsense |= {PRIMARY, SECONDARY}
    world.canary(SECONDARY)
    world.canary(PRIMARY)
    assert world.state(PRIMARY) is BreakerState.CLOSED
    assert world.ask().role is PRIMARY
    world.failing[PRIMARY] = Category.TIMEOUT
    world.now += 40.0
    assert world.ask().role is SECONDARY


def test_one_callers_impossible_schema_never_opens_a_breaker(world: World) -> None:
    world.failing = {PRIMARY: Category.SEMANTIC, SECONDARY: Category.SEMANTIC}
    for _ in range(50):
        error = world.ask().error
        assert error is not None
        assert error.code == "semantic_failure"
    assert (world.state(PRIMARY), world.state(SECONDARY)) == (BreakerState.CLOSED, BreakerState.CLOSED)
    assert world.board.vote("a", "h", world.now).primary.verdict is Verdict.ABSTAIN


def test_a_request_that_no_model_may_take_is_told_when_to_come_back(world: World) -> None:
    world.nonsense.add(SECONDARY)
    world.canary(SECONDARY)
    world.board.lines[PRIMARY].breaker.force(BreakerState.FORCED_OPEN, world.now, "ana")
    error = world.ask().error
    assert error is not None
    assert error.code == "overloaded"
    assert error.retry_after is not None
    assert 1.0 <= error.retry_after <= 30.0


def test_an_operator_who_closes_the_breaker_overrules_canaries(world: World) -> None:
    world.nonsense.add(PRIMARY)
    world.canary(PRIMARY)
    world.board.lines[PRIMARY].breaker.force(BreakerState.FORCED_CLOSED, world.now, "ana")
    assert world.ask().role is PRIMARY


def test_what_another_process_of_the_host_found_holds_here_too(world: World) -> None:
    found = world.board.judged(SECONDARY, "json", passed=False, now=1.0, rand=0.5, request_id="c")
    assert [moved.to_state for moved in found] == [BreakerState.OPEN]
    retry_at = world.board.lines[SECONDARY].breaker.retry_at
    assert retry_at is not None
    back = world.board.judged(SECONDARY, "json", passed=True, now=retry_at, rand=0.5)
    assert [moved.to_state for moved in back] == [BreakerState.HALF_OPEN, BreakerState.CLOSED]
    assert world.board.drifted(SECONDARY, retry_at) is None


def test_a_finding_that_nobody_confirms_ends_after_two_intervals() -> None:
    drift = Drift(300.0)
    drift.failed(SECONDARY, "json", 10.0)
    assert drift.stands(SECONDARY, 609.9) == "json"
    assert drift.stands(SECONDARY, 610.0) is None


def test_a_bad_canary_answer_counts_as_a_bad_probe_of_the_way_back(world: World) -> None:
    world.board.adopt(Document(epoch=2, active=SECONDARY, share=0.0, writer="x"), 0.0)
    world.board.probe_started(0.0, synthetic=True)
    world.board.sample(ok=True, now=1.0)
    world.board.judged(PRIMARY, "json", passed=False, now=2.0, rand=0.5)
    assert world.board.gate.good == 0


def test_a_forced_open_model_stays_out_of_the_vote() -> None:
    board = Switchboard(POLICY, 0.0)
    board.judged(PRIMARY, "json", passed=False, now=1.0, rand=0.5)
    board.lines[PRIMARY].breaker.force(BreakerState.FORCED_OPEN, 2.0, "ana")
    assert board.vote("a", "h", 3.0).primary.verdict is Verdict.ABSTAIN
