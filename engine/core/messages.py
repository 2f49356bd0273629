"""What goes into a call and what comes out of it: plain, immutable values.

Messages keep the shape that every caller already knows, OpenAI's chat messages as mappings, so that fields
this code has never heard of pass through untouched. Nothing here knows a provider, a clock or a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.value import value

JSON = Mapping[str, Any]

ANSWER_LIMITS = ("max_completion_tokens", "max_tokens")
"""Fields of OpenAI's that say how long an answer may be, the newer one first."""


class Role(StrEnum):
    """The two places a model can have in a manager."""

    PRIMARY = "primary"
    SECONDARY = "secondary"

    @property
    def other(self) -> Role:
        """The opposite role."""
        return Role.SECONDARY if self is Role.PRIMARY else Role.PRIMARY


class FinishReason(StrEnum):
    """Why a model stopped, in OpenAI's words; every provider's own word is mapped to one of these."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt, or the sum over the attempts of one request.

    Attributes:
        input_tokens: Tokens of the prompt, `None` when the provider did not say.
        output_tokens: Tokens of the answer, thoughts included, `None` when the provider did not say.
        estimated: True when at least one part was estimated by us because a provider reported none.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        """The sum; an unknown part counts as nothing unless both are unknown."""
        return Usage(
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.output_tokens, other.output_tokens),
            self.estimated or other.estimated,
        )


def _shape(prompt: object) -> str:
    """What somebody passed as a prompt, without any of it."""
    if isinstance(prompt, list | tuple):
        return f"a {type(prompt).__name__} of {', '.join(sorted({type(one).__name__ for one in prompt}))}"
    return type(prompt).__name__


def _sum(left: int | None, right: int | None) -> int | None:
    if left is None:
        return right
    return left if right is None else left + right


@value
class Request:
    """What a caller wants, independent of which model will answer.

    Attributes:
        messages: OpenAI-shaped chat messages (`role`, `content`, …), in order.
        max_output_tokens: The longest answer wanted, in tokens.
        tools: OpenAI-shaped tool definitions.
        tool_choice: OpenAI's `tool_choice`, untouched.
        response_format: OpenAI's `response_format`, untouched; `{"type": "json_schema", …}` carries a schema.
        options: Every other field of the body (`temperature`, `seed`, `stop`, …), passed through untouched.
        session: Requests with one session key stay on one model while traffic ramps back.
        id: The request's id; drivers make a UUIDv7 when it is empty.
        synthetic: True for probes, canaries and an operator's tests: no caller's traffic, so no part of its sums.
        only: An operator's test of one model: it is asked once, whatever breakers, ramp and overrides say, short of a
            breaker that is forced open; what comes of it counts for nobody.
    """

    messages: tuple[JSON, ...]
    max_output_tokens: int | None = None
    tools: tuple[JSON, ...] = ()
    tool_choice: Any = None
    response_format: JSON | None = None
    options: JSON = field(default_factory=dict)
    session: str | None = None
    id: str = ""
    synthetic: bool = False
    only: Role | None = None

    @classmethod
    def of(cls, prompt: str | Sequence[JSON] | Request, new_id: Callable[[], str] = str) -> Request:
        """Accept what callers like to write: a string, a list of messages, or a request.

        Args:
            prompt: What the caller wrote.
            new_id: Gives a request that has no id one.

        Raises:
            InvalidRequest: It is none of these, such as one message that is not in a list.
        """
        if isinstance(prompt, Request):
            return prompt if prompt.id else replace(prompt, id=new_id())
        if isinstance(prompt, str):
            return cls(messages=({"role": "user", "content": prompt},), id=new_id())
        given: object = prompt  # types are only checked by whoever checks types
        if not isinstance(given, Sequence) or not all(isinstance(message, Mapping) for message in given):
            msg = f"a prompt is a string, a list of messages or a Request, not {_shape(given)}"
            raise InvalidRequest(msg, param="messages")
        return cls(messages=tuple(given), id=new_id())

    @property
    def json_schema(self) -> JSON | None:
        """The JSON schema that the caller wants the answer to follow, if any."""
        wanted = self.response_format
        if not wanted or wanted.get("type") != "json_schema":
            return None
        given = wanted.get("json_schema")
        schema = given.get("schema") if isinstance(given, Mapping) else None
        return schema if isinstance(schema, Mapping) else None

    @property
    def longest_answer(self) -> int | None:
        """The longest answer wanted, in tokens, also where it is said in a field that passes through."""
        given = (self.max_output_tokens, *map(self.options.get, ANSWER_LIMITS))
        return next((limit for limit in given if isinstance(limit, int)), None)

    @property
    def wants_json(self) -> bool:
        """Whether the answer is to be a JSON document."""
        wanted = self.response_format
        return wanted is not None and wanted.get("type") in (
            "json_schema",
            "json_object",
        )


@value
class Limits:
    """How long one attempt may take, in seconds; `None` is no limit of its own.

    A provider enforces what its library can; the driver enforces all of them from outside.

    Attributes:
        connect: Until the connection stands.
        first_token: Streams: until the first event that shows life (thoughts included).
        answer: One whole attempt when not streaming.
        idle: Streams: the longest silence between two events.
        total: Until the caller's deadline; never exceeded, whatever the others say.
    """

    connect: float | None = None
    first_token: float | None = None
    answer: float | None = None
    idle: float | None = None
    total: float | None = None


@value
class Call:
    """One attempt, as a provider sees it.

    Attributes:
        request: What the caller wants.
        model: The provider's name of the model.
        limits: Time limits of this attempt, seconds.
        prefill: Text the answer has already begun with; the model goes on after it. Only given to models whose
            capabilities include `prefill`.
        attempt: 1 for the first attempt of the request over all models.
    """

    request: Request
    model: str
    limits: Limits = Limits()
    prefill: str = ""
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer of one attempt.

    Attributes:
        text: The text of the first choice.
        finish_reason: Why the model stopped; `None` means it did not say, which drivers treat as truncated.
        usage: Tokens, as the provider reported them.
        tool_calls: OpenAI-shaped tool calls of the first choice.
        model: The model name the provider reported, for the record only.
        raw: The provider's body in OpenAI's shape where it speaks that (unknown fields survive), else `None`.
        native_finish: The provider's own word for the finish, for the record.
        refusal: What the model said in place of an answer.
    """

    text: str
    finish_reason: FinishReason | None
    usage: Usage = Usage()
    tool_calls: tuple[JSON, ...] = ()
    model: str = ""
    raw: JSON | None = None
    native_finish: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """One event of a stream.

    Attributes:
        text: New text, possibly empty.
        finish_reason: Set on the event that ends a choice.
        usage: Tokens, usually on the last event.
        tool_calls: OpenAI-shaped tool-call deltas.
        life: True for events that only show that the model works: thoughts. A role chunk is sent by servers that have
            only taken the request on, and an empty delta by anybody, so neither is life.
        index: Which choice this belongs to.
        raw: The provider's chunk in OpenAI's shape where it speaks that, else `None`.
        refusal: New text of what the model says in place of an answer.
        other: True where only `raw` has what a caller would see: sound, images, a function call in the older form.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    tool_calls: tuple[JSON, ...] = ()
    life: bool = False
    index: int = 0
    raw: JSON | None = None
    refusal: str = ""
    other: bool = False

    @property
    def has_content(self) -> bool:
        """Whether a caller would see something of this event."""
        return bool(self.text or self.tool_calls or self.refusal or self.other)

    @property
    def alive(self) -> bool:
        """Whether the event shows that the model works; only such events hold the clocks of a stream."""
        return self.has_content or self.life or bool(self.usage) or self.finish_reason is not None


@value
class Account:
    """How a request was handled, whether it was answered or not.

    Attributes:
        request_id: The id under which the record explains it.
        manager: The manager's name.
        model: Who answered or was tried last; `none` when nothing was tried.
        role: Its role, or `none`.
        attempts: Tries over all models.
        failover: Cause, when another than the active model answered.
        epoch: The agreement's epoch it was routed by.
        overhead_us: Time spent in Switchgear, microseconds.
    """

    request_id: str
    manager: str
    model: str
    role: str
    attempts: int
    failover: str | None
    epoch: int
    overhead_us: int


@value
class Chunk:
    """One piece of a streamed answer, as its caller sees it.

    Attributes:
        text: New text, possibly empty.
        model: Name of the model it came from.
        role: That model's role.
        finish_reason: Set on the chunk that ends a choice.
        tool_calls: OpenAI-shaped tool-call deltas.
        index: Which choice this belongs to.
        usage: Tokens over all attempts, on the last chunk.
        raw: The provider's chunk in OpenAI's shape, where it speaks that and nothing was trimmed; on the last chunk
            the one with the usage, unless there were several attempts.
        account: How the request was handled so far, on the first chunk and, final, on the last.
        reply: The whole answer with who gave it, on the last chunk.
    """

    text: str
    model: str
    role: Role
    finish_reason: FinishReason | None = None
    tool_calls: tuple[JSON, ...] = ()
    index: int = 0
    usage: Usage | None = None
    raw: JSON | None = None
    account: Account | None = None
    reply: Reply | None = None


@value
class Reply:
    """The answer a caller gets, with who gave it and why.

    Attributes:
        text: The answer.
        model: Name of the model that answered.
        role: Its role.
        attempts: Tries over all models, this one included.
        usage: Tokens over all attempts.
        request_id: The id under which the record explains this answer.
        finish_reason: Why the model stopped.
        tool_calls: OpenAI-shaped tool calls.
        failover: Cause, when another than the active model answered, else `None`.
        epoch: The agreement's epoch this request was routed by.
        cost_usd: Price of the attempts whose price and usage are known, `None` where no attempt is such.
        overhead_us: Time spent in Switchgear rather than waiting for models, microseconds.
        raw: The provider's body in OpenAI's shape, where it speaks that.
        refusal: What the model said in place of an answer.
    """

    text: str
    model: str
    role: Role
    attempts: int
    usage: Usage
    request_id: str
    finish_reason: FinishReason | None
    tool_calls: tuple[JSON, ...] = ()
    failover: str | None = None
    epoch: int = 0
    cost_usd: float | None = None
    overhead_us: int = 0
    raw: JSON | None = None
    refusal: str = ""
