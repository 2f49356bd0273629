"""Any endpoint that speaks OpenAI's `/chat/completions`, by aiohttp and without a library in between.

What a caller sent reaches the endpoint untouched, what it answers comes back as `raw`. One attempt is one request,
with one exception that costs the model nothing: when a kept-alive connection turns out to be closed before any byte
came, the request is sent again at once on a new one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import aiohttp
from yarl import URL

from engine.core.classification import classify_openai
from engine.core.messages import JSON, Call, Completion, Delta, FinishReason, Usage
from engine.core.outcomes import Category, ProviderFailure
from engine.core.sse import Event, EventParser, MalformedEvent
from engine.deadlines import timeout
from engine.providers.base import Limit, cut_by
from engine.providers.http_session import Exchange, Sessions, named, tracing
from engine.providers.json_text import parsed, written

DEFAULT_URL = "https://api.openai.com/v1"

_FINISH: Mapping[str, FinishReason] = {
    **{reason.value: reason for reason in FinishReason},
    "function_call": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "end_turn": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "safety": FinishReason.CONTENT_FILTER,
}
_OTHER = ("audio", "images", "function_call")
"""Fields of a delta with content that only its raw chunk carries."""

_DONE = "[DONE]"
_DRAIN = 0.02
_STALE = 1.0


class OpenAIProvider:
    """Asks an OpenAI-compatible endpoint; asynchronous, for one event loop.

    Args:
        api_key: Sent as a bearer token; `None` sends none.
        base_url: Up to and including `/v1`; empty for OpenAI's own.
        name: The provider's name in the configuration, for error messages.
    """

    keeps_limits = True
    """Every step of `generate` is under a clock of its own; see `engine.providers.base`."""

    def __init__(self, *, api_key: str | None = None, base_url: str = "", name: str = "") -> None:
        self._url = URL(f"{base_url.rstrip('/') or DEFAULT_URL}/chat/completions")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._name = name
        self._sessions = Sessions()

    async def generate(self, call: Call) -> Completion:
        """Answer as a whole.

        Raises:
            ProviderFailure: The endpoint failed, or said no finish reason.
        """
        exchange = Exchange(call.limits)
        try:
            async with exchange.within(Limit.ANSWER):
                response = await self._send(call, exchange, stream=False)
                body = await _whole_body(response)
        except aiohttp.ClientError as error:
            raise _transport(error, Category.CONNECTION) from error
        finally:
            exchange.close()
        return _completion(body)

    async def stream(self, call: Call) -> AsyncIterator[Delta]:
        """Answer event by event; the end without a finish reason is the caller's to judge.

        Raises:
            ProviderFailure: The endpoint failed before or inside the stream.
        """
        exchange = Exchange(call.limits)
        begun = False
        try:
            async with exchange.within(Limit.FIRST_TOKEN):
                response = await self._send(call, exchange, stream=True)
                if "text/event-stream" not in response.headers.get("content-type", "text/event-stream"):
                    raise await _no_stream(response)
            async with aclosing(_events(response, exchange)) as events:
                async for delta in events:
                    begun = begun or delta.has_content
                    yield delta
        except aiohttp.ClientError as error:
            raise _transport(error, Category.TRUNCATED if begun else Category.CONNECTION) from error
        finally:
            exchange.close()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def _send(self, call: Call, exchange: Exchange, *, stream: bool) -> aiohttp.ClientResponse:
        """Send the request; errors by status are raised classified."""
        body = written(request_body(call, stream=stream))
        sent = time.monotonic()
        try:
            response = await self._post(body, exchange)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # A server that thinks for a while and then hangs up has seen the request: that is its failure.
            if not exchange.reused or exchange.response is not None or time.monotonic() - sent > _STALE:
                raise
            exchange.reused = True
            response = await self._post(body, exchange)
        if response.status != 200:
            answer = await _answer_of(response)
            raise classify_openai(response.status, answer, response.headers, time.time())
        return response

    async def _post(self, body: bytes, exchange: Exchange) -> aiohttp.ClientResponse:
        data = aiohttp.BytesPayload(body, content_type="application/json")
        with tracing(exchange):
            session = self._sessions.current()
            return await session.post(self._url, data=data, headers=self._headers, allow_redirects=False)


def request_body(call: Call, *, stream: bool) -> dict[str, Any]:
    """The body of a call: the caller's own fields, with model, prefill and stream set by us."""
    request = call.request
    body: dict[str, Any] = {**request.options, "model": call.model, "messages": list(request.messages)}
    if call.prefill:
        body["messages"].append({"role": "assistant", "content": call.prefill})
    if request.max_output_tokens is not None and not body.keys() & {"max_tokens", "max_completion_tokens"}:
        body["max_tokens"] = request.max_output_tokens
    if request.tools:
        body["tools"] = list(request.tools)
    if request.tool_choice is not None:
        body["tool_choice"] = request.tool_choice
    if request.response_format is not None:
        body["response_format"] = request.response_format
    body.pop("stream", None)
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True, **(body.get("stream_options") or {})}
    else:
        body.pop("stream_options", None)
    return body


async def _answer_of(response: aiohttp.ClientResponse) -> Any:
    """The JSON of an error's body, `None` when it is none or breaks off."""
    try:
        return parsed(await response.read())
    except (ValueError, aiohttp.ClientError):
        return None


async def _whole_body(response: aiohttp.ClientResponse) -> Any:
    raw = await response.read()
    try:
        body = parsed(raw)
    except ValueError:
        raise ProviderFailure(
            Category.SERVER_ERROR, response.status, detail="unreadable body", code="no_json"
        ) from None
    if not isinstance(body, dict) or body.get("error"):
        raise classify_openai(response.status, body, response.headers, time.time())
    return body


async def _no_stream(response: aiohttp.ClientResponse) -> ProviderFailure:
    """What a 200 without events means: an error in JSON, or something else than a model."""
    body = await _answer_of(response)
    if isinstance(body, dict) and body.get("error"):
        return classify_openai(response.status, body, response.headers, time.time())
    detail = f"{response.content_type} in place of a stream"
    return ProviderFailure(Category.SERVER_ERROR, response.status, detail=detail, code="no_stream")


def _transport(error: aiohttp.ClientError, category: Category) -> ProviderFailure:
    status = 200 if category is Category.TRUNCATED else None
    return ProviderFailure(category, status, detail=named(error), code="transport")


async def _events(response: aiohttp.ClientResponse, exchange: Exchange) -> AsyncGenerator[Delta, None]:
    """What each event says until `[DONE]` or the end, under the clocks.

    The first-token clock runs until the first sign of life; after that each event restarts the idle clock. Comments
    are keep-alives of a proxy in front of the model and restart nothing.
    """
    parser, limit, begun = EventParser(), Limit.FIRST_TOKEN, False
    chunks = response.content.iter_any()
    ended = False
    while not ended:
        found: list[Event] = []
        async with exchange.within(limit):
            async for chunk in chunks:
                found = _fed(parser, chunk)
                if found:
                    break
            else:
                ended, found = True, _fed(parser, None)
        for event in found:
            if event.data.strip() == _DONE:
                await _drained(response)
                return
            for delta in _deltas(event.data, begun=begun):
                limit = Limit.IDLE if delta.alive else limit
                begun = begun or delta.has_content
                yield delta


async def _drained(response: aiohttp.ClientResponse) -> None:
    """Read the end behind `[DONE]`, which is nearly always there already, so that the connection is kept."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with timeout(_DRAIN):
            await response.content.readany()


def _fed(parser: EventParser, chunk: bytes | None) -> list[Event]:
    """The events that a read completes, or the end of the stream when there is nothing more to read."""
    try:
        return parser.close() if chunk is None else parser.feed(chunk)
    except MalformedEvent as malformed:
        raise ProviderFailure(Category.TRUNCATED, 200, detail=str(malformed), code="malformed_event") from None


def _deltas(data: str, *, begun: bool) -> list[Delta]:
    """What one event says.

    Raises:
        ProviderFailure: It is no JSON, or an error: truncated once something was shown, else what the error says.
    """
    try:
        chunk = parsed(data)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict):
        raise ProviderFailure(Category.TRUNCATED, 200, detail="event is not a JSON object", code="malformed_event")
    if chunk.get("error"):
        failure = classify_openai(200, chunk, None, time.time())
        raise cut_by(failure) if begun else failure
    try:
        return _choices(chunk)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ProviderFailure(
            Category.TRUNCATED, 200, detail="event of another shape", code="malformed_event"
        ) from None


def _choices(chunk: JSON) -> list[Delta]:
    usage = _usage(chunk.get("usage"))
    choices = chunk.get("choices") or [None]
    if len(choices) == 1:
        return [_delta(choices[0], usage, chunk)]
    # One chunk each, because what is held back or passed on is decided by choice.
    return [
        _delta(choice, None if place else usage, {**chunk, "choices": [choice]}) for place, choice in enumerate(choices)
    ]


def _delta(choice: Any, usage: Usage | None, chunk: JSON) -> Delta:
    if choice is None:
        return Delta(usage=usage, raw=chunk)
    delta = choice.get("delta") or {}
    text = _text(delta.get("content"))
    tools = _calls(delta.get("tool_calls"))
    reason = _finish(choice.get("finish_reason"))
    refusal = _text(delta.get("refusal"))
    life = not (text or tools or reason) and any(said for name, said in delta.items() if name != "role")
    other = any(delta.get(name) for name in _OTHER)
    return Delta(text, reason, usage, tools, life, int(choice.get("index") or 0), chunk, refusal, other)


def _text(content: Any) -> str:
    """The text of a content, which some servers send as a list of parts."""
    if isinstance(content, str):
        return content
    return "".join([part["text"] for part in content or () if part.get("type") == "text"])


def _calls(calls: Any) -> tuple[JSON, ...]:
    if calls and not all(isinstance(call, dict) for call in calls):
        msg = "a tool call is no object"
        raise TypeError(msg)
    return tuple(calls or ())


def _completion(body: JSON) -> Completion:
    try:
        return _answer(body)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ProviderFailure(Category.SERVER_ERROR, 200, detail="unreadable body", code="no_answer") from None


def _answer(body: JSON) -> Completion:
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message") or {}
    native = choice.get("finish_reason")
    reason = _finish(native)
    if reason is None:
        raise ProviderFailure(Category.TRUNCATED, 200, detail="no finish reason", code="no_finish_reason")
    return Completion(
        text=_text(message.get("content")),
        finish_reason=reason,
        usage=_usage(body.get("usage")) or Usage(),
        tool_calls=_calls(message.get("tool_calls")),
        refusal=_text(message.get("refusal")),
        model=str(body.get("model") or ""),
        raw=body,
        native_finish=str(native),
    )


def _finish(native: Any) -> FinishReason | None:
    """Our word for theirs. An explicit word we don't know still ends an answer; `error` is none."""
    if not native or native == "error":
        return None
    return _FINISH.get(str(native).lower(), FinishReason.STOP)


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, Mapping):
        return None
    asked, answered = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return Usage(
        asked if isinstance(asked, int) else None,
        answered if isinstance(answered, int) else None,
    )
