"""Why a model did not answer a request, and the one error its caller gets when no model did.

A caller deserves the error that tells the truth about the whole request: a fallback that rejects what the first
model merely failed at never masks that failure, and whatever can be waited out carries a true Retry-After.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.core import errors
from engine.core.messages import Role
from engine.core.outcomes import Category, Cause

if TYPE_CHECKING:
    from engine.core.effects import (
        Outcome,
        PlanRequest,
        Verdict,
    )
    from engine.core.switchboard import Line

LEAST_RETRY_AFTER = 1.0
"""Seconds; a Retry-After below a second is rounded up, since its header counts whole seconds."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why one model did not answer.

    Attributes:
        role: Which model.
        cause: The reason, as a failover cause.
        category: How its last attempt ended, `None` when it was not asked.
        retry_at: Monotonic seconds at which it could be asked again.
        reason: In words, without prompts or keys.
        missing: Capabilities it lacks.
        shed: True when our own limit turned the request away.
        final: True when no other model may be asked.
    """

    role: Role
    cause: Cause
    category: Category | None = None
    retry_at: float | None = None
    reason: str = ""
    missing: tuple[str, ...] = ()
    shed: bool = False
    final: bool = False

    @classmethod
    def after(cls, role: Role, outcome: Outcome) -> Refused:
        """What a failed attempt means for its model."""
        failure = outcome.failure
        category = outcome.category
        retry_after = outcome.retry_after
        final = outcome.past_deadline or category in (
            Category.CANCELLED,
            Category.INVALID_REQUEST,
        )
        return cls(
            role=role,
            cause=Cause(category) if category.value in _CAUSES else Cause.SERVER_ERROR,
            category=category,
            retry_at=None if retry_after is None else outcome.now + retry_after,
            reason=failure.detail if failure is not None else str(category),
            final=final,
        )

    def until(self, retry_at: float) -> Refused:
        """The same, not to be asked again before a later time."""
        return replace(self, retry_at=max(self.retry_at or retry_at, retry_at))


_CAUSES = frozenset(cause.value for cause in Cause)

_ERRORS: dict[Category, type[errors.SwitchgearError]] = {
    Category.SERVER_ERROR: errors.ProviderError,
    Category.CONNECTION: errors.ProviderError,
    Category.TRUNCATED: errors.ProviderError,
    Category.TIMEOUT: errors.ProviderError,
    Category.MODEL_UNAVAILABLE: errors.ProviderError,
    Category.RATE_LIMITED: errors.RateLimited,
    Category.QUOTA_EXHAUSTED: errors.RateLimited,
    Category.AUTH: errors.ProviderAuthError,
    Category.INVALID_REQUEST: errors.InvalidRequest,
    Category.CONTEXT_LENGTH: errors.ContextLengthExceeded,
    Category.CONTENT_FILTER: errors.ContentFiltered,
    Category.SEMANTIC: errors.SemanticFailure,
    Category.CANCELLED: errors.Cancelled,
}


def error_of(
    refusals: Sequence[Refused],
    verdict: Verdict,
    asked: PlanRequest,
    lines: Mapping[Role, Line],
    now: float,
    *,
    broken: bool,
) -> errors.SwitchgearError:
    """Choose what the caller is told.

    Args:
        refusals: Why each model did not answer, in order.
        verdict: What was tried; `shed` is set on it when our own limit turned the request away.
        asked: The request.
        lines: The models, which say when somebody who is over a limit should come back.
        now: Monotonic seconds.
        broken: True when part of an answer has reached the caller.

    Returns:
        The error, with the request's id and, where it helps, a true `retry_after`.
    """
    refusals = [_timed(refused, lines[refused.role], now) for refused in refusals]
    chosen = _telling(refusals)
    past_deadline = now >= asked.deadline or any(tried.outcome.past_deadline for tried in verdict.tried)
    kind = _kind(chosen, refusals, past_deadline=past_deadline, broken=broken)
    if kind is errors.RateLimited:
        verdict.shed = chosen.shed or not verdict.tried
    retry_after = None
    if kind in (errors.RateLimited, errors.Overloaded):
        times = [refused.retry_at for refused in refusals if refused.retry_at is not None]
        retry_after = max(LEAST_RETRY_AFTER, min(times) - now) if times else None
    reasons = "; ".join(_sentence(refused) for refused in refusals)
    headlines = _HEADLINES | _ALONE if asked.chosen else _HEADLINES
    return kind(
        f"{headlines[kind]}: {reasons}",
        request_id=asked.request.id,
        retry_after=retry_after,
    )


_HEADLINES: dict[type[errors.SwitchgearError], str] = {
    errors.ProviderError: "no model could answer",
    errors.DeadlineExceeded: "the deadline passed before a model answered",
    errors.RateLimited: "the model's rate limit is reached, try again later",
    errors.ProviderAuthError: "the provider refused our credentials, check the API key",
    errors.InvalidRequest: "the provider rejected the request",
    errors.ContextLengthExceeded: "the prompt is too long for every model of this manager",
    errors.ContentFiltered: "the provider's safety rules blocked the prompt",
    errors.SemanticFailure: "no model gave an acceptable answer",
    errors.Cancelled: "the caller went away",
    errors.NoCapableModel: "no model of this manager can do what the request needs",
    errors.Overloaded: "no model can take requests now, try again later",
    errors.StreamBroken: "the stream broke and could not be continued; the text so far is not the whole answer",
}


_ALONE: dict[type[errors.SwitchgearError], str] = {
    errors.ProviderError: "the model that was asked for could not answer",
    errors.ContextLengthExceeded: "the prompt is too long for the model that was asked for",
    errors.SemanticFailure: "the model that was asked for gave no acceptable answer",
    errors.NoCapableModel: "the model that was asked for cannot do what the request needs",
    errors.Overloaded: "the model that was asked for takes no requests now",
}


def _timed(refused: Refused, line: Line, now: float) -> Refused:
    """A refusal over a limit with the time at which this caller should come back."""
    if refused.category is Category.RATE_LIMITED:
        return refused.until(line.throttle.come_back(now))
    exhausted = line.unavailable(now) if refused.category is Category.QUOTA_EXHAUSTED else None
    return refused if exhausted is None else refused.until(exhausted.until)


def _sentence(refused: Refused) -> str:
    what = refused.reason or str(refused.cause)
    return f"{refused.role}: {what}" if refused.category is None else f"{refused.role}: {refused.category} ({what})"


def _telling(refusals: Sequence[Refused]) -> Refused:
    """The refusal that says most: an attempt beats a skip, and a failure is not masked by a later rejection."""
    asked = [refused for refused in refusals if refused.category is not None]
    if not asked:
        return refusals[-1]
    masked = (
        Category.INVALID_REQUEST,
        Category.CONTEXT_LENGTH,
        Category.MODEL_UNAVAILABLE,
        Category.AUTH,
    )
    return asked[0] if asked[-1].category in masked else asked[-1]


def _kind(
    chosen: Refused, refusals: Sequence[Refused], *, past_deadline: bool, broken: bool
) -> type[errors.SwitchgearError]:
    if chosen.category is Category.CANCELLED:
        return errors.Cancelled
    if broken:
        return errors.StreamBroken
    asked = [refused for refused in refusals if refused.category is not None and not refused.shed]
    if past_deadline or (asked and all(refused.category is Category.TIMEOUT for refused in asked)):
        return errors.DeadlineExceeded
    if chosen.category is not None:
        return _ERRORS[chosen.category]
    causes = {refused.cause for refused in refusals}
    if causes == {Cause.CONTEXT_LENGTH}:
        return errors.ContextLengthExceeded
    if causes <= {Cause.CONTEXT_LENGTH, Cause.CAPABILITY}:
        return errors.NoCapableModel
    if causes & {Cause.BREAKER_OPEN, Cause.CANARY}:
        return errors.Overloaded
    if Cause.QUOTA_EXHAUSTED in causes:
        return errors.RateLimited
    return errors.ProviderError
