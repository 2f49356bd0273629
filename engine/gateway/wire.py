"""OpenAI's wire format, both ways: bodies into requests, replies and chunks into bodies. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from engine.core.errors import InvalidRequest, SwitchgearError
from engine.core.messages import ANSWER_LIMITS, JSON, Account, Chunk, Reply, Request, Role, Usage
from engine.providers.json_text import written
from engine.recording import UNTRIED

OURS: Final = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "tools",
        "tool_choice",
        "response_format",
    }
)
"""Fields that are understood here; every other one passes through untouched, and so does what is not of
`stream_options` but `include_usage`, which we ask for in any case."""

DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """A body of `/v1/chat/completions`.

    Attributes:
        manager: The manager that `model` names.
        request: The request.
        stream: Whether the answer is to be streamed.
        include_usage: Whether the stream ends with a usage chunk.
    """

    manager: str
    request: Request
    stream: bool
    include_usage: bool


def parse(body: bytes, *, session: str | None = None, only: Role | None = None, request_id: str = "") -> Asked:
    """Read a body.

    Args:
        body: The raw body.
        session: The caller's session key.
        only: The one model to ask, in an operator's test.
        request_id: What the request is called; named before anything can go wrong with it.

    Raises:
        InvalidRequest: It is not JSON, or not a chat completion; names the field.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        msg = f"the body is not JSON: {error}"
        raise InvalidRequest(msg) from None
    if not isinstance(fields, dict):
        msg = "the body must be a JSON object"
        raise InvalidRequest(msg)
    manager = _text(fields, "model", "the name of a manager")
    stream = fields.get("stream")
    if stream not in (None, True, False):
        raise _wrong(param="stream", what="must be true or false")
    options = fields.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _wrong(param="stream_options", what="must be an object")
    wanted, kept = _limit(fields)
    if others := {name: value for name, value in options.items() if name != "include_usage"}:
        kept["stream_options"] = others
    request = Request(
        messages=_messages(fields.get("messages")),
        max_output_tokens=wanted,
        tools=_tools(fields.get("tools")),
        tool_choice=fields.get("tool_choice"),
        response_format=_format(fields.get("response_format")),
        options={**{key: value for key, value in fields.items() if key not in OURS}, **kept},
        session=session,
        id=request_id,
        only=only,
    )
    return Asked(manager, request, bool(stream), bool(options.get("include_usage")))


def _wrong(*, param: str, what: str) -> InvalidRequest:
    msg = f"{param}: {what}"
    return InvalidRequest(msg, param=param)


def _text(fields: Mapping[str, Any], key: str, what: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value:
        raise _wrong(param=key, what=f"must be {what}")
    return value


def _messages(value: Any) -> tuple[JSON, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong(param="messages", what="must be a list of at least one message")
    for place, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong(param=f"messages[{place}]", what='must be an object with a "role"')
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise _wrong(param=f"messages[{place}].content", what="must be a string or a list of parts")
    return tuple(value)


def _tools(value: Any) -> tuple[JSON, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise _wrong(param="tools", what="must be a list of objects")
    return tuple(value)


def _format(value: Any) -> JSON | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _wrong(param="response_format", what="must be an object")
    if value.get("type") == "json_schema":
        given = value.get("json_schema")
        if not isinstance(given, dict) or not isinstance(given.get("schema", {}), dict):
            raise _wrong(param="response_format.json_schema", what="must be an object with a schema")
    return value


def _limit(fields: Mapping[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """The bound on the answer, and the field's name where an endpoint must see the newer one."""
    for key in ANSWER_LIMITS:
        value = fields.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _wrong(param=key, what="must be a whole number of at least 1")
        return value, {key: value} if key == ANSWER_LIMITS[0] else {}
    return None, {}


# -- answers -------------------------------------------------------------------------------------------------------


def headers_of(account: Account) -> list[tuple[bytes, bytes]]:
    """The headers that say how a request was handled."""
    headers = [
        (b"x-switchgear-request-id", account.request_id.encode("latin-1", "replace")),
        *_who(account.manager, account.model, account.role),
        (b"x-switchgear-attempts", b"%d" % account.attempts),
        (b"x-switchgear-epoch", b"%d" % account.epoch),
        (b"x-switchgear-overhead-us", b"%d" % account.overhead_us),
    ]
    if account.failover:
        headers.append((b"x-switchgear-failover", account.failover.encode("latin-1", "replace")))
    return headers


def unasked(request_id: str) -> Account:
    """The account of an answer for which no model was asked."""
    return Account(request_id, UNTRIED, UNTRIED, UNTRIED, 0, None, 0, 0)


@lru_cache(maxsize=256)
def _who(manager: str, model: str, role: str) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that are the same for most requests."""
    values = {b"x-switchgear-manager": manager, b"x-switchgear-model": model, b"x-switchgear-role": role}
    return tuple((name, value.encode("latin-1", "replace")) for name, value in values.items())


def usage_of(usage: Usage) -> dict[str, int]:
    """Tokens in OpenAI's shape."""
    prompt, completion = usage.input_tokens or 0, usage.output_tokens or 0
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def completion_body(reply: Reply, created: int) -> bytes:
    """A whole answer; fields of the provider's own body that we do not know survive."""
    if reply.raw is not None:
        body = {**reply.raw, "model": reply.model}
        if reply.attempts > 1 or "usage" not in body:
            body["usage"] = usage_of(reply.usage)
        return written(body)
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.tool_calls:
        message["tool_calls"] = list(reply.tool_calls)
    elif not reply.text:
        message["content"] = ""
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
    return orjson.dumps(
        {
            "id": f"chatcmpl-{reply.request_id}",
            "object": "chat.completion",
            "created": created,
            "model": reply.model,
            "choices": [choice],
            "usage": usage_of(reply.usage),
        }
    )


class StreamBody:
    """The events of one streamed answer: one id and one `created` for all, whoever produced them.

    Args:
        request_id: The request's id.
        created: Unix seconds.
        include_usage: Whether the caller asked for a usage chunk.
    """

    def __init__(self, request_id: str, created: int, *, include_usage: bool) -> None:
        self._common = {"id": f"chatcmpl-{request_id}", "object": "chat.completion.chunk", "created": created}
        self._include_usage = include_usage
        self._begun: set[int] = set()

    def event(self, chunk: Chunk) -> bytes:
        """The events of one chunk; empty when there is nothing to say."""
        if chunk.reply is not None:
            return self._last(chunk, chunk.reply)
        raw = chunk.raw
        if raw is not None:
            if not raw.get("choices"):
                return b""
            head = b"" if _has_role(raw) else self._role(chunk)
            self._begun.add(chunk.index)
            body = {**raw, **self._common, "model": chunk.model}
            body.pop("usage", None)  # an attempt's own; the sum over all comes once, at the end, for those who asked
            return head + _data(body)
        delta: dict[str, Any] = {}
        if chunk.text or not chunk.tool_calls:
            delta["content"] = chunk.text
        if chunk.tool_calls:
            delta["tool_calls"] = list(chunk.tool_calls)
        if chunk.finish_reason is not None and not chunk.text and not chunk.tool_calls:
            delta = {}
        return self._role(chunk) + self._chunk(chunk, delta)

    def _role(self, chunk: Chunk) -> bytes:
        """The chunk that opens a choice; the provider's own was held back until there was content."""
        if chunk.index in self._begun:
            return b""
        self._begun.add(chunk.index)
        return _data(
            {
                **self._common,
                "model": chunk.model,
                "choices": [
                    {"index": chunk.index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                ],
            }
        )

    def _chunk(self, chunk: Chunk, delta: Mapping[str, Any]) -> bytes:
        choice = {"index": chunk.index, "delta": delta, "finish_reason": chunk.finish_reason}
        return _data({**self._common, "model": chunk.model, "choices": [choice]})

    def _last(self, chunk: Chunk, reply: Reply) -> bytes:
        events = b""
        if self._include_usage:
            usage = {**((chunk.raw or {}).get("usage") or {}), **usage_of(chunk.usage or reply.usage)}
            events += _data({**self._common, "model": chunk.model, "choices": [], "usage": usage})
        said = f": switchgear model={reply.model} role={reply.role} attempts={reply.attempts}"
        said += f" failover={reply.failover or 'none'} request={reply.request_id}\n\n"
        return events + said.encode() + DONE


def _has_role(raw: Mapping[str, Any]) -> bool:
    return any((choice.get("delta") or {}).get("role") for choice in raw["choices"])


def _data(body: Mapping[str, Any]) -> bytes:
    return b"data: " + written(body) + b"\n\n"


def error_body(error: SwitchgearError) -> bytes:
    """An error in OpenAI's envelope."""
    return orjson.dumps(
        {"error": {"message": error.message, "type": error.kind, "code": error.code, "param": error.param}}
    )


def error_event(error: SwitchgearError) -> bytes:
    """An error inside a stream; nothing follows it, and no `[DONE]`."""
    return b"event: error\ndata: " + error_body(error) + b"\n\n"
