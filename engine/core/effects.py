"""What passes between a request's plan and its driver: effects to carry out, outcomes to report, and the verdict."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from engine.core.breaker import BreakerState, Transition
from engine.core.capability import Needs
from engine.core.errors import SwitchgearError
from engine.core.messages import Completion, Limits, Request, Role, Usage
from engine.core.outcomes import Category, Cause, ProviderFailure
from engine.core.switchboard import Line
from engine.core.value import value

T = TypeVar("T")


class Continuation(StrEnum):
    """How the other model is told of the text that was already delivered."""

    PREFILL = "prefill"
    HISTORY = "history"


@value
class Attempt:
    """Ask one model once.

    Attributes:
        n: 1 for the request's first attempt, over all models.
        line: The model and its local state.
        limits: Time limits of this attempt, seconds; `total` is what is left of the caller's deadline.
        shortened: True when the deadline or a probe's timeout leaves less than the model's fair time, so that
            running out of it is not the model's failure.
        probe: True when this finds out whether the model is well again.
        continuation: How to go on after delivered text, `None` for a fresh start.
        waited: Seconds this request waited since its previous attempt.
        breaker: The breaker's state when the attempt was let through.
        cause: Why another than the active model is asked, `None` when it is the active one.
    """

    n: int
    line: Line
    limits: Limits
    shortened: bool = False
    probe: bool = False
    continuation: Continuation | None = None
    waited: float = 0.0
    breaker: BreakerState = BreakerState.CLOSED
    cause: Cause | None = None

    @property
    def role(self) -> Role:
        """The role asked."""
        return self.line.role


@value
class Wait:
    """Do nothing until a time; the reply to this is the time it is then."""

    until: float
    why: str


@value
class BreakerMoved:
    """A breaker changed its state."""

    role: Role
    transition: Transition


@value
class RequestMoved:
    """This request goes to another than the active model."""

    from_role: Role
    to_role: Role
    cause: Cause
    evidence: dict[str, object]


@value
class ModelRefused:
    """A model said that it serves nobody until a time (monotonic seconds)."""

    role: Role
    category: Category
    until: float


Event = BreakerMoved | RequestMoved | ModelRefused


@value
class Emit:
    """Something to record."""

    event: Event


@value
class Outcome:
    """How an attempt ended.

    Attributes:
        category: What it ended as.
        now: Monotonic seconds at its end.
        duration: Seconds it took.
        ttft: Seconds to the first token of a stream, `None` when none came or nothing streamed.
        completion: The answer, when `category` is ok.
        failure: The provider's failure, when it is one.
        shown: Streams: True once content has reached the caller.
        resumable: Streams: True when what was shown is plain text that another model can go on with.
        past_deadline: True when the caller's own deadline cut the attempt.
        delivered_tokens: Estimated tokens of the text the caller has got, which a continuation must take in.
        stood_still: Seconds of it in which not the model but this process was what did not move.
        usage: Tokens this attempt spent although it gave no completion (a broken stream), estimated where need be.
    """

    category: Category
    now: float
    duration: float
    ttft: float | None = None
    completion: Completion | None = None
    failure: ProviderFailure | None = None
    shown: bool = False
    resumable: bool = False
    past_deadline: bool = False
    usage: Usage | None = None
    delivered_tokens: int = 0
    stood_still: float = 0.0

    @property
    def spent(self) -> Usage | None:
        """Tokens of this attempt, `None` when it spent none that anybody knows of."""
        return self.completion.usage if self.completion is not None else self.usage

    @property
    def retry_after(self) -> float | None:
        """Seconds the provider asked to wait, `None` when it did not ask."""
        return None if self.failure is None else self.failure.retry_after


@value
class Tried:
    """One attempt with its ending, for the record."""

    attempt: Attempt
    outcome: Outcome


@dataclass(slots=True)
class Verdict:
    """What the caller gets, and how it came about.

    Attributes:
        active: The active model's role when the request was routed.
        epoch: The agreement's epoch it was routed by.
        role: Who answered, or who was tried last; `None` when nothing was tried.
        cause: Why another than the active model answered, `None` when the active one did.
        tried: All attempts in order.
        completion: The answer.
        error: What is raised instead of an answer.
        shed: True when the request was turned away by our own limit.
        needs: What the request needed.
    """

    active: Role
    epoch: int
    needs: Needs
    role: Role | None = None
    cause: Cause | None = None
    tried: list[Tried] = field(default_factory=list)
    completion: Completion | None = None
    error: SwitchgearError | None = None
    shed: bool = False


@value
class PlanRequest:
    """A request with what only the driver knows about it.

    Attributes:
        request: The caller's request; its id is set.
        streamed: Whether the caller streams.
        deadline: Monotonic seconds at which the caller gives up.
        only: Ask this role and no other, whatever the agreement says: synthetic probes, canaries, operators' tests.
        canary: The canary's name, when this is one: its model is asked although canaries have shut it.
    """

    request: Request
    streamed: bool
    deadline: float
    only: Role | None = None
    canary: str = ""

    @property
    def chosen(self) -> bool:
        """Whether an operator chose the model: a test, from which nothing is learned."""
        return self.request.only is not None


Effects = Generator[Attempt | Wait | Emit, Outcome | float | None, T]
"""A part of a plan: yields what is to be done, is sent what came of it, and returns a `T`."""
