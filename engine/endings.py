"""How an attempt ended, from what a provider returned or raised: one translation for every driver.

Only `ProviderFailure` and our own clocks are endings. Anything else a provider, a validator or our code raises is
somebody's mistake and surfaces as itself.
"""

from __future__ import annotations

from engine.core.effects import (
    Attempt,
    Outcome,
)
from engine.core.errors import SemanticFailure
from engine.core.messages import Completion, Usage
from engine.core.outcomes import Category, ProviderFailure
from engine.providers.base import Limit, timed_out
from engine.validation import SchemaMismatch


class LimitPassed(Exception):
    """One of an attempt's clocks ran out before the provider answered."""

    def __init__(self, limit: Limit, seconds: float) -> None:
        super().__init__(limit, seconds)
        self.limit = limit
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.limit} limit of {self.seconds:g} s passed"


def answer_limit(attempt: Attempt) -> LimitPassed:
    """The clock that a whole attempt runs against."""
    limits = attempt.limits
    answer, total = limits.answer, limits.total
    if answer is None or (total is not None and total <= answer):
        return LimitPassed(Limit.TOTAL, total or 0.0)
    return LimitPassed(Limit.ANSWER, answer)


def succeeded(completion: Completion, started: float, now: float) -> Outcome:
    """A whole answer; one without a finish reason is cut short, whatever it looks like."""
    if completion.finish_reason is None:
        failure = ProviderFailure(Category.TRUNCATED, detail="the answer ended without a finish reason")
        return Outcome(Category.TRUNCATED, now, now - started, failure=failure, usage=completion.usage)
    return Outcome(Category.OK, now, now - started, completion=completion)


def failed(
    error: ProviderFailure | LimitPassed,
    started: float,
    now: float,
    *,
    ttft: float | None = None,
    shown: bool = False,
    resumable: bool = False,
    usage: Usage | None = None,
    delivered_tokens: int = 0,
) -> Outcome:
    """A provider's failure, or a clock of ours that ran out."""
    past_deadline = False
    if isinstance(error, LimitPassed):
        past_deadline = error.limit is Limit.TOTAL
        error = timed_out(error.limit, error.seconds)
    elif error.category is Category.TIMEOUT and error.code == Limit.TOTAL:
        past_deadline = True
    return Outcome(
        error.category,
        now,
        now - started,
        ttft=ttft,
        failure=error,
        shown=shown,
        resumable=resumable,
        past_deadline=past_deadline,
        usage=usage,
        delivered_tokens=delivered_tokens,
    )


def rejected(
    error: SemanticFailure, completion: Completion, started: float, now: float, *, shown: bool = False
) -> Outcome:
    """An answer that a validator or the caller's schema refused.

    A schema's message is made here and names places; a validator's own words may quote the answer, and what goes into
    a failure is stored and shown.
    """
    detail = error.message if isinstance(error, SchemaMismatch) else f"rejected by a validator ({type(error).__name__})"
    failure = ProviderFailure(Category.SEMANTIC, 200, detail=detail[:200])
    return Outcome(Category.SEMANTIC, now, now - started, failure=failure, shown=shown, usage=completion.usage)


def cancelled(started: float, now: float, *, shown: bool = False, usage: Usage | None = None) -> Outcome:
    """The caller went away."""
    return Outcome(Category.CANCELLED, now, now - started, shown=shown, usage=usage)
