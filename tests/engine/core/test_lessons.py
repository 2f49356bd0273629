"""What the end of one attempt teaches, without a plan around it."""

from __future__ import annotations

import pytest

from engine.core.agreement import Document
from engine.core.breaker import BreakerState, Permit
from engine.core.effects import Attempt, BreakerMoved, Event, ModelRefused, Outcome, PlanRequest
from engine.core.lessons import BREAKS, BROKEN, learn
from engine.core.messages import Completion, FinishReason, Limits, Request, Role, Usage
from engine.core.outcomes import RULES, Category, Effect, ProviderFailure
from engine.core.policy import ManagerPolicy, ModelFacts
from engine.core.switchboard import UNAVAILABLE_FOR, Line, Switchboard

POLICY = ManagerPolicy("chat", ModelFacts("pro", "pro", "p"), ModelFacts("flash", "flash", "p"))
AWAY = Document(epoch=2, active=Role.SECONDARY, share=0.0, hold=15.0, writer="x")


def ended(
    category: Category,
    now: float,
    *,
    retry_after: float | None = None,
    past_deadline: bool = False,
    usage: Usage | None = None,
    took: float = 1.0,
    ttft: float | None = None,
    stood_still: float = 0.0,
) -> Outcome:
    """An attempt's end, whose time does not matter unless it is given."""
    if category is Category.OK:
        answer = Completion("hi", FinishReason.STOP, usage or Usage(3, 1))
        return Outcome(category, now, took, ttft=ttft, completion=answer, stood_still=stood_still)
    failure = ProviderFailure(category, retry_after=retry_after)
    return Outcome(
        category, now, took, ttft=ttft, failure=failure, past_deadline=past_deadline, stood_still=stood_still
    )


class Lesson:
    """One instance that learns from attempts, one second apart."""

    def __init__(self, role: Role = Role.PRIMARY, *documents: Document) -> None:
        self.board = Switchboard(POLICY, 0.0)
        for document in documents:
            self.board.adopt(document, 0.0)
        self.now = 100.0
        self.line: Line = self.board.lines[role]

    def permit(self) -> Permit:
        permit, _ = self.line.breaker.ask(self.now, 0.5)
        assert isinstance(permit, Permit)
        return permit

    def learn(
        self,
        category: Category,
        *,
        permit: Permit | None = None,
        only: Role | None = None,
        canary: str = "",
        shortened: bool = False,
        probing: bool = False,
        streamed: bool = False,
        **how: object,
    ) -> list[Event]:
        permit = permit or self.permit()
        self.now += 1.0
        request = Request(({"role": "user", "content": "hello"},), id="r", only=only)
        return list(
            learn(
                self.board,
                PlanRequest(request, streamed=streamed, deadline=self.now + 60.0, only=only, canary=canary),
                Attempt(1, self.line, Limits(1.0, 1.0, 1.0, 1.0, 1.0), shortened=shortened),
                ended(category, self.now, **how),  # type: ignore[arg-type]
                permit,
                lambda: 0.5,
                probing=probing,
                estimated=100,
            )
        )

    @property
    def seen(self) -> tuple[int, int, int, int]:
        """Samples, failures, samples that may vote, permits that are out."""
        seen = self.line.breaker.snapshot(self.now)
        return seen.samples, seen.failures, seen.vote_samples, seen.outstanding


@pytest.mark.parametrize("category", Category)
def test_the_breaker_counts_what_the_table_says_and_always_gets_its_permit_back(category: Category) -> None:
    lesson, rule = Lesson(), RULES[category]
    lesson.learn(category)
    heard = rule.breaker is not Effect.NEUTRAL
    votes = rule.votes or category is Category.OK
    assert lesson.seen == (heard, rule.breaker is Effect.FAILURE, heard and votes, 0)


@pytest.mark.parametrize("category", Category)
def test_an_operators_test_teaches_nothing_but_the_providers_limit(category: Category) -> None:
    lesson = Lesson()
    permit = lesson.permit()
    assert lesson.learn(category, permit=permit, only=Role.PRIMARY, retry_after=7.0, usage=Usage(300, 1)) == []
    assert lesson.seen == (0, 0, 0, 1)
    assert lesson.line.unavailable(lesson.now) is None
    assert lesson.line.calibration.ratio == 1.0
    limited = lesson.line.throttle.blocked_until(lesson.now)
    assert (limited is not None and limited >= lesson.now + 7.0) is (category is Category.RATE_LIMITED)


@pytest.mark.parametrize("how", [{"shortened": True}, {"past_deadline": True}])
def test_a_time_that_we_cut_short_is_not_the_models_failure(how: dict[str, bool]) -> None:
    lesson = Lesson()
    lesson.learn(Category.TIMEOUT, **how)  # type: ignore[arg-type]
    assert lesson.seen == (0, 0, 0, 0)


def test_a_shortened_time_excuses_nothing_else() -> None:
    lesson = Lesson()
    lesson.learn(Category.SERVER_ERROR, shortened=True)
    assert lesson.seen == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("category", "streamed", "slow"),
    [(Category.OK, False, 1), (Category.OK, True, 0), (Category.SERVER_ERROR, False, 0)],
)
def test_a_stream_is_slow_by_its_first_token_and_a_failure_is_not_slow_too(
    category: Category, streamed: bool, slow: int
) -> None:
    lesson = Lesson()
    lesson.learn(category, streamed=streamed, took=POLICY.breaker.slow_call + 1.0, ttft=1.0)
    assert lesson.line.breaker.snapshot(lesson.now).slow == slow


@pytest.mark.parametrize("category", [one for one in Category if RULES[one].breaker is Effect.FAILURE])
@pytest.mark.parametrize("stood_still", [BREAKS - 0.1, BREAKS])
def test_what_breaks_while_this_process_stands_still_for_long_is_not_the_models_failure(
    category: Category, stood_still: float
) -> None:
    lesson = Lesson()
    lesson.learn(category, took=60.0, stood_still=stood_still)
    excused = stood_still >= BREAKS and category in BROKEN
    assert lesson.seen == (0, 0, 0, 0) if excused else (1, 1, 1, 0)


@pytest.mark.parametrize(("stood_still", "slow"), [(0.0, 1), (59.0, 1), (61.0, 0)])
@pytest.mark.parametrize("streamed", [True, False])
def test_the_time_that_this_process_stood_still_makes_no_model_slow(
    stood_still: float, slow: int, streamed: bool
) -> None:
    lesson = Lesson()
    lesson.learn(Category.OK, streamed=streamed, took=90.0, ttft=90.0, stood_still=stood_still)
    assert lesson.line.breaker.snapshot(lesson.now).slow == slow


@pytest.mark.parametrize("category", [Category.OK, Category.SERVER_ERROR])
def test_a_call_from_before_the_breakers_last_change_counts_nowhere(category: Category) -> None:
    lesson = Lesson(Role.PRIMARY, AWAY)
    late = lesson.permit()
    lesson.line.breaker.trip(lesson.now, 0.5, "test")
    lesson.board.gate.succeeded(lesson.now)
    assert lesson.learn(category, permit=late, probing=True) == []
    assert lesson.board.gate.good == 1
    assert lesson.line.breaker.state is BreakerState.OPEN


def test_one_failed_probe_of_the_way_back_opens_primary_and_says_why() -> None:
    lesson = Lesson(Role.PRIMARY, AWAY)
    (moved,) = lesson.learn(Category.SERVER_ERROR, probing=True)
    assert isinstance(moved, BreakerMoved)
    assert (moved.transition.to_state, moved.transition.reason) == (BreakerState.OPEN, "probe failed")
    assert Lesson(Role.PRIMARY, AWAY).learn(Category.SERVER_ERROR, probing=False) == []


@pytest.mark.parametrize("category", UNAVAILABLE_FOR)
@pytest.mark.parametrize("retry_after", [None, 40.0])
def test_a_model_that_serves_nobody_is_left_alone_until_then(category: Category, retry_after: float | None) -> None:
    lesson = Lesson()
    (event,) = lesson.learn(category, retry_after=retry_after)
    until = lesson.now + (retry_after or UNAVAILABLE_FOR[category])
    assert event == ModelRefused(Role.PRIMARY, category, until)
    refused = lesson.line.unavailable(lesson.now)
    assert refused is not None
    assert refused.until == until
    lesson.learn(Category.OK)
    assert lesson.line.unavailable(lesson.now) is None


def test_a_retry_after_keeps_the_breaker_open_that_the_same_failure_opened() -> None:
    lesson = Lesson()
    events: list[Event] = []
    for _ in range(POLICY.breaker.consecutive_failures):
        events += lesson.learn(Category.SERVER_ERROR, retry_after=90.0)
    assert [type(event) for event in events] == [BreakerMoved]
    assert lesson.line.breaker.retry_at == lesson.now + 90.0


def test_only_tokens_that_the_provider_counted_calibrate() -> None:
    lesson = Lesson()
    lesson.learn(Category.OK, usage=Usage(200, 1, estimated=True))
    assert lesson.line.calibration.ratio == 1.0
    lesson.learn(Category.OK, usage=Usage(200, 1))
    assert lesson.line.calibration.ratio > 1.0


def test_a_canary_that_fails_shuts_the_model_and_one_that_got_no_answer_finds_nothing() -> None:
    lesson = Lesson(Role.SECONDARY)
    assert lesson.learn(Category.CONNECTION, canary="json") == []
    assert lesson.board.drifted(Role.SECONDARY, lesson.now) is None
    (moved,) = lesson.learn(Category.SEMANTIC, canary="json")
    assert isinstance(moved, BreakerMoved)
    assert moved.transition.reason == "canary failed: json"
    assert lesson.board.drifted(Role.SECONDARY, lesson.now) == "json"


def test_a_canary_that_passes_decides_no_probe_while_another_fails() -> None:
    lesson = Lesson(Role.SECONDARY)
    lesson.learn(Category.SEMANTIC, canary="json")
    lesson.now += 60.0
    lesson.learn(Category.OK, canary="language")
    assert lesson.line.breaker.state is BreakerState.HALF_OPEN
    lesson.learn(Category.OK, canary="json")
    assert lesson.line.breaker.state is BreakerState.CLOSED
