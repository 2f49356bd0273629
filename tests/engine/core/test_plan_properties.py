"""A request's life, whatever the models do: what no sequence of outcomes, waits and departures can make a plan do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.agreement import Document
from engine.core.breaker import BreakerState
from engine.core.effects import Attempt, Emit, Outcome, PlanRequest, RequestMoved, Verdict, Wait
from engine.core.messages import Completion, FinishReason, Request, Role
from engine.core.outcomes import RULES, Again, Category, Effect, Move, ProviderFailure
from engine.core.plan import plan
from engine.core.policy import (
    ManagerPolicy,
    ModelFacts,
    OnAuthError,
    OnContentFilter,
    OnRateLimit,
    RetryPolicy,
    WhenBothOpen,
)
from engine.core.switchboard import Switchboard

POLICY = ManagerPolicy(
    "chat", ModelFacts("pro", "pro", "p"), ModelFacts("flash", "flash", "p"), retry=RetryPolicy(budget_floor=1000)
)
HELLO = Request(({"role": "user", "content": "hello"},), id="r")
TINY = 1e-6
NEUTRAL = [category for category, rule in RULES.items() if rule.breaker is Effect.NEUTRAL]


@dataclass(frozen=True)
class Ending:
    """How one attempt ends."""

    category: Category
    took: float
    retry_after: float | None


@dataclass(frozen=True)
class Life:
    """One request: when it comes, what its attempts meet, and after how many effects its caller leaves, if ever."""

    gap: float
    total: float
    streamed: bool
    endings: tuple[Ending, ...]
    leaves: int | None


def endings(categories: list[Category]) -> st.SearchStrategy[Ending]:
    waits = st.one_of(st.none(), st.floats(0.0, 90.0))
    return st.builds(Ending, st.sampled_from(categories), st.floats(0.0, 70.0), waits)


def lives(categories: list[Category]) -> st.SearchStrategy[list[Life]]:
    life = st.builds(
        Life,
        gap=st.floats(0.0, 30.0),
        total=st.floats(0.1, 120.0),
        streamed=st.booleans(),
        endings=st.lists(endings(categories), min_size=8, max_size=8).map(tuple),
        leaves=st.one_of(st.none(), st.none(), st.integers(0, 6)),
    )
    return st.lists(life, min_size=1, max_size=12)


policies = st.builds(
    lambda limit, auth, content, both, stated: replace(
        POLICY,
        on_rate_limit=limit,
        on_auth_error=auth,
        on_content_filter=content,
        when_both_open=both,
        primary=replace(POLICY.primary, requests_per_minute=stated),
    ),
    st.sampled_from(OnRateLimit),
    st.sampled_from(OnAuthError),
    st.sampled_from(OnContentFilter),
    st.sampled_from(WhenBothOpen),
    st.sampled_from([None, 2, 60]),
)


class Driver:
    """Runs plans one after the other on one switchboard, and holds every step to the rules."""

    def __init__(self, policy: ManagerPolicy) -> None:
        self.policy = policy
        self.board = Switchboard(policy, 0.0)
        self.now = 0.0

    def live(self, life: Life) -> Verdict | None:
        """One request; `None` when its caller left."""
        self.now += life.gap
        deadline = self.now + life.total
        asked = PlanRequest(HELLO, streamed=life.streamed, deadline=deadline)
        effects = plan(asked, self.board, lambda: 0.5, self.now)
        tried: list[tuple[Role, Category]] = []
        moved: list[Role] = []
        answer: Outcome | float | None = None
        limited = 0.0
        steps = 0
        while True:
            try:
                effect = effects.send(answer)
            except StopIteration as end:
                verdict: Verdict = end.value
                break
            if steps == life.leaves:
                effects.close()
                self._nothing_is_held()
                return None
            steps += 1
            answer = None
            if isinstance(effect, Wait):
                assert self.now < effect.until <= deadline + TINY
                limited += (effect.until - self.now) * (effect.why == "rate_limit")
                assert limited <= self.policy.rate_limit_wait + TINY
                self.now = answer = effect.until
            elif isinstance(effect, Attempt):
                self._may_be_made(effect, tried, deadline)
                answer = self._ended(effect, life.endings[min(len(tried), 7)])
                tried.append((effect.role, answer.category))
            elif isinstance(effect, Emit) and isinstance(effect.event, RequestMoved):
                moved.append(effect.event.to_role)
        self._is_true(verdict, tried, deadline)
        assert len(moved) <= 1
        self._nothing_is_held()
        return verdict

    def _may_be_made(self, attempt: Attempt, tried: list[tuple[Role, Category]], deadline: float) -> None:
        assert attempt.n == len(tried) + 1
        assert attempt.limits.total is not None
        assert attempt.limits.total <= deadline - self.now + TINY
        assert not tried or self.now < deadline
        assert sum(role is attempt.role for role, _ in tried) < self.policy.retry.attempts
        if not tried:
            return
        role, category = tried[-1]
        rule = RULES[category]
        if role is attempt.role:
            assert rule.again is not Again.NEVER, f"{category} is not asked again"
            return
        assert role is not attempt.role
        assert all(one is not attempt.role for one, _ in tried), "nobody comes back to a model that was left"
        if role is self.board.document.active:
            assert rule.move is not Move.NEVER, f"{category} moves nobody"
            if category is Category.AUTH:
                assert self.policy.on_auth_error is OnAuthError.ROUTE
            if category is Category.CONTENT_FILTER:
                assert self.policy.on_content_filter is OnContentFilter.ROUTE
            if category is Category.RATE_LIMITED:
                assert self.policy.on_rate_limit is not OnRateLimit.SHED

    def _ended(self, attempt: Attempt, ending: Ending) -> Outcome:
        longest = attempt.limits.answer
        assert longest is not None
        category = Category.TIMEOUT if ending.took >= longest else ending.category
        took = min(ending.took, longest)
        self.now += took
        past = category is Category.TIMEOUT and took >= (attempt.limits.total or 0.0)
        if category is Category.OK:
            done = Completion("hi", FinishReason.STOP)
            return Outcome(category, self.now, took, ttft=took, completion=done)
        failure = ProviderFailure(category, retry_after=ending.retry_after)
        return Outcome(category, self.now, took, failure=failure, past_deadline=past)

    def _is_true(self, verdict: Verdict, tried: list[tuple[Role, Category]], deadline: float) -> None:
        assert self.now <= deadline + TINY
        assert (verdict.completion is None) is (verdict.error is not None)
        assert [(one.attempt.role, one.outcome.category) for one in verdict.tried] == tried
        if verdict.completion is not None:
            assert tried[-1] == (verdict.role, Category.OK)
            assert (verdict.cause is None) is (verdict.role is verdict.active)
            return
        assert all(category is not Category.OK for _, category in tried)
        error = verdict.error
        assert error is not None
        if error.code in ("rate_limited", "overloaded"):
            assert error.retry_after is not None
            assert error.retry_after >= 1
        if verdict.shed:
            assert error.code == "rate_limited"

    def _nothing_is_held(self) -> None:
        for line in self.board.lines.values():
            assert line.breaker.snapshot(self.now).outstanding == 0


@settings(max_examples=300, deadline=None)
@given(policies, lives(list(Category)), st.booleans())
def test_no_sequence_of_outcomes_breaks_a_rule(policy: ManagerPolicy, some: list[Life], away: bool) -> None:
    driver = Driver(policy)
    if away:
        driver.board.adopt(Document(epoch=2, active=Role.SECONDARY, share=0.0, hold=15.0, cause="x", writer="x"), 0.0)
    for life in some:
        driver.live(life)


@settings(max_examples=100, deadline=None)
@given(policies, lives(NEUTRAL))
def test_what_is_neutral_opens_no_breaker_however_often(policy: ManagerPolicy, some: list[Life]) -> None:
    driver = Driver(policy)
    for life in some * 3:
        brief = tuple(replace(ending, took=min(ending.took, 0.05)) for ending in life.endings)
        driver.live(replace(life, endings=brief, total=max(life.total, 1.0)))
    for line in driver.board.lines.values():
        seen = line.breaker.snapshot(driver.now)
        assert (seen.state, seen.samples, seen.vote_samples) == (BreakerState.CLOSED, 0, 0)


@pytest.mark.parametrize("leaves", range(7))
def test_a_caller_may_leave_at_any_point(leaves: int) -> None:
    broken = Ending(Category.SERVER_ERROR, 0.1, None)
    driver = Driver(POLICY)
    driver.live(Life(0.0, 60.0, False, (broken,) * 8, leaves))
    healthy = Life(1.0, 60.0, False, (Ending(Category.OK, 0.1, None),) * 8, None)
    verdict = driver.live(healthy)
    assert verdict is not None
    assert verdict.error is None
