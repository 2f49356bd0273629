"""What an attempt can end as, and what each ending does. The table `RULES` is the whole policy.

Providers translate their library's exceptions and error bodies into a `Category`; everything after that
(retry, failover, breaker, vote) is looked up here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Category(StrEnum):
    """How one attempt ended."""

    OK = "ok"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    AUTH = "auth"
    INVALID_REQUEST = "invalid_request"
    MODEL_UNAVAILABLE = "model_unavailable"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    SEMANTIC = "semantic"
    TRUNCATED = "truncated"
    CANCELLED = "cancelled"


class Cause(StrEnum):
    """Why a request, or the active model, went to the other model."""

    SERVER_ERROR = "server_error"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    SEMANTIC = "semantic"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    AUTH = "auth"
    CONTENT_FILTER = "content_filter"
    CONTEXT_LENGTH = "context_length"
    CAPABILITY = "capability"
    MODEL_UNAVAILABLE = "model_unavailable"
    BREAKER_OPEN = "breaker_open"
    QUORUM = "quorum"
    CANARY = "canary"
    OVERRIDE = "override"
    FAILBACK = "failback"
    PROBE = "probe"
    RAMP = "ramp"


class Effect(StrEnum):
    """What an outcome means to the breaker."""

    OK = "ok"
    FAILURE = "failure"
    NEUTRAL = "neutral"


class Again(StrEnum):
    """Whether the same model is tried again."""

    NEVER = "never"
    BACKOFF = "backoff"
    AFTER_GATE = "after_gate"


class Move(StrEnum):
    """Whether the other model is tried."""

    NEVER = "never"
    YES = "yes"
    BY_POLICY = "by_policy"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one category does.

    Attributes:
        again: Whether and how the same model is tried again.
        move: Whether the other model is tried when this one is given up.
        breaker: What the breaker counts it as.
        votes: Whether it can make an instance vote a model down.
    """

    again: Again
    move: Move
    breaker: Effect
    votes: bool = False


RULES: Mapping[Category, Rule] = MappingProxyType(
    {
        Category.OK: Rule(Again.NEVER, Move.NEVER, Effect.OK),
        Category.SERVER_ERROR: Rule(Again.BACKOFF, Move.YES, Effect.FAILURE, votes=True),
        Category.CONNECTION: Rule(Again.BACKOFF, Move.YES, Effect.FAILURE, votes=True),
        Category.TIMEOUT: Rule(Again.NEVER, Move.YES, Effect.FAILURE, votes=True),
        Category.TRUNCATED: Rule(Again.NEVER, Move.YES, Effect.FAILURE, votes=True),
        Category.RATE_LIMITED: Rule(Again.AFTER_GATE, Move.BY_POLICY, Effect.NEUTRAL),
        Category.QUOTA_EXHAUSTED: Rule(Again.NEVER, Move.YES, Effect.NEUTRAL),
        Category.AUTH: Rule(Again.NEVER, Move.BY_POLICY, Effect.NEUTRAL),
        Category.INVALID_REQUEST: Rule(Again.NEVER, Move.NEVER, Effect.NEUTRAL),
        Category.MODEL_UNAVAILABLE: Rule(Again.NEVER, Move.YES, Effect.NEUTRAL),
        Category.CONTEXT_LENGTH: Rule(Again.NEVER, Move.YES, Effect.NEUTRAL),
        Category.CONTENT_FILTER: Rule(Again.NEVER, Move.BY_POLICY, Effect.NEUTRAL),
        Category.SEMANTIC: Rule(Again.NEVER, Move.YES, Effect.NEUTRAL),
        Category.CANCELLED: Rule(Again.NEVER, Move.NEVER, Effect.NEUTRAL),
    }
)


class ProviderFailure(Exception):
    """A provider's failure, translated once at its boundary.

    Args:
        category: What it is.
        status_code: The HTTP status the provider answered with, `None` when there was no answer.
        retry_after: Seconds the provider asked to wait, already parsed, `None` when it did not ask.
        detail: The provider's code and at most a few words; scrubbed before it is stored, never a prompt.
        code: The provider's own error code, for the record (`API_KEY_INVALID`, `context_length_exceeded`, …).
    """

    def __init__(
        self,
        category: Category,
        status_code: int | None = None,
        retry_after: float | None = None,
        detail: str = "",
        *,
        code: str = "",
    ) -> None:
        super().__init__(f"{category}: {detail}" if detail else str(category))
        self.category = category
        self.status_code = status_code
        self.retry_after = retry_after
        self.detail = detail
        self.code = code
