"""What the upstream server can do wrong, as values, with the providers' own error bodies."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from engine.providers.answers import Continuation


@dataclass(frozen=True, slots=True)
class Fault:
    """How one model behaves; the default is healthy. Times are seconds, events are counted from 0.

    Attributes:
        error: A name in `ERRORS`: answered with its status and body.
        status: Answer with this status instead of the error's own, or with a bare body.
        body: Send this instead: text as it is, anything else as JSON.
        headers: Added to the answer.
        content_type: Of `body`.
        delay: Before the headers.
        first_token: After the headers, before the first event.
        event_delay: Between two events.
        drip: A whole answer is sent in pieces with this pause between them.
        hang: Never send headers.
        reset: Reset the connection before the headers.
        reset_after: Reset the connection after this many text events.
        bytes: The body of a stream ends after this many bytes.
        wide: Every letter is one of another script, of two to four bytes.
        role_delay: After the first event of OpenAI's wire, which tells the role, before the next.
        cut_after: Drop the connection after this many text events (whole answers: in the middle of the body).
        stall_after: Send nothing more after this many text events.
        malformed_at: This text event is no JSON.
        error_at: Before this text event an error object (`error`) is sent in the stream.
        no_finish: End properly, without a finish reason.
        empty_at: Before this text event an empty object is sent.
        blocked: The prompt is blocked.
        safety: The answer is cut by the safety filter after its first event.
        finish: Say this finish reason instead (the provider's own word).
        unknown_finish_number: Gemini's integer form of `finish` where the word is not in the library.
        thoughts: Thought events before the text.
        words: Length of a free answer in words.
        words_per_event: Words per event.
        continuation: What to do with a begun answer.
        crlf: Lines end in CRLF (SSE).
        comments: A comment line before every event (SSE).
        multiline: Every JSON is spread over several `data:` lines (SSE).
        split: Bytes are written in pieces of this size.
        no_done: `[DONE]` is not sent.
        no_usage: Usage is not reported.
        close_delimited: The body has no length and no chunks; its end is the end of the connection.
        extra: Fields added to every body, chunk or event.
    """

    error: str = ""
    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json; charset=UTF-8"
    delay: float = 0.0
    first_token: float = 0.0
    event_delay: float = 0.0
    role_delay: float = 0.0
    drip: float = 0.0
    hang: bool = False
    reset: bool = False
    reset_after: int | None = None
    bytes: int | None = None
    wide: bool = False
    cut_after: int | None = None
    stall_after: int | None = None
    malformed_at: int | None = None
    error_at: int | None = None
    no_finish: bool = False
    empty_at: int | None = None
    blocked: bool = False
    safety: bool = False
    finish: str = ""
    unknown_finish_number: int = 99
    thoughts: int = 0
    words: int = 40
    words_per_event: int = 3
    continuation: Continuation = Continuation.CONTINUE
    crlf: bool = False
    comments: bool = False
    multiline: bool = False
    split: int = 0
    no_done: bool = False
    no_usage: bool = False
    close_delimited: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Fault:
        """Read the fields of a JSON object; an unknown one is an error that names the known ones."""
        known = {one.name for one in fields(cls)}
        if unknown := set(given) - known:
            msg = f"unknown fault fields {sorted(unknown)}; known are {sorted(known)}"
            raise ValueError(msg)
        fault = cls(**given)
        if fault.error and fault.error not in ERRORS:
            msg = f"unknown error {fault.error!r}; known are {sorted(ERRORS)}"
            raise ValueError(msg)
        return replace(fault, continuation=Continuation(fault.continuation))


HEALTHY = Fault()
HTML = Fault(body="<html><body>Sign in to this network</body></html>", content_type="text/html; charset=utf-8")


class Script:
    """What a model does, request by request: a sequence and then a lasting state, or a schedule of up and down.

    Args:
        then: The lasting behaviour.
        first: Behaviours of the first requests, one each.
        up: Seconds healthy …
        down: … then seconds in which `then` holds, over and over; no schedule when both are `None`.
    """

    def __init__(
        self, then: Fault = HEALTHY, first: Sequence[Fault] = (), up: float | None = None, down: float | None = None
    ) -> None:
        self._then = then
        self._first: Iterator[Fault] = iter(tuple(first))
        self._up, self._down = up, down
        self._began = time.monotonic()

    def next(self) -> Fault:
        """The behaviour of the next request."""
        for fault in itertools.islice(self._first, 1):
            return fault
        if self._up is not None and self._down is not None:
            elapsed = (time.monotonic() - self._began) % (self._up + self._down)
            return HEALTHY if elapsed < self._up else self._then
        return self._then


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """One error as both wires say it."""

    status: int
    gemini: Mapping[str, Any]
    openai: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def _gemini(code: int, status: str, message: str, *details: Mapping[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = list(details)
    return {"error": error}


def _openai(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _quota(*violations: tuple[str, str], delay: str = "") -> tuple[Mapping[str, Any], ...]:
    failure = {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [
            {
                "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
                "quotaId": identity,
                "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
                "quotaValue": value,
            }
            for identity, value in violations
        ],
    }
    links = [{"description": "Learn more about Gemini API quotas", "url": "https://ai.google.dev/gemini-api/docs"}]
    details: list[Mapping[str, Any]] = [
        failure,
        {"@type": "type.googleapis.com/google.rpc.Help", "links": links},
    ]
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return tuple(details)


_QUOTA_TEXT = "You exceeded your current quota, please check your plan and billing details."
_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
_BAD_KEY = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "API_KEY_INVALID",
    "domain": "googleapis.com",
    "metadata": {"service": "generativelanguage.googleapis.com"},
}

ERRORS: Mapping[str, ErrorBody] = {
    "rate_limit_minute": ErrorBody(
        429,
        _gemini(
            429,
            "RESOURCE_EXHAUSTED",
            f"{_QUOTA_TEXT} Please retry in 58.934s.",
            *_quota((_MINUTE, "10"), delay="58s"),
        ),
        _openai("Rate limit reached for requests", "requests", "rate_limit_exceeded"),
        {"retry-after": "58"},
    ),
    "rate_limit_bare": ErrorBody(
        429,
        _gemini(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
        _openai("Too many requests", "requests"),
    ),
    "quota_day": ErrorBody(
        429,
        _gemini(429, "RESOURCE_EXHAUSTED", _QUOTA_TEXT, *_quota((_MINUTE, "10"), (_DAY, "250"), delay="1s")),
        _openai(_QUOTA_TEXT, "insufficient_quota", "insufficient_quota"),
    ),
    "limit_zero": ErrorBody(
        429,
        _gemini(429, "RESOURCE_EXHAUSTED", f"{_QUOTA_TEXT} limit: 0, model: gemini-2.5-pro", *_quota((_MINUTE, "0"))),
        _openai(_QUOTA_TEXT, "insufficient_quota", "insufficient_quota"),
    ),
    "unavailable": ErrorBody(
        503,
        _gemini(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        _openai("The server is overloaded or not ready yet.", "server_error"),
    ),
    "internal": ErrorBody(
        500,
        _gemini(500, "INTERNAL", "An internal error has occurred. Please retry."),
        _openai("The server had an error while processing your request.", "server_error"),
    ),
    "bad_gateway": ErrorBody(502, _gemini(502, "UNAVAILABLE", "Bad gateway."), _openai("Bad gateway", "server_error")),
    "gateway_timeout": ErrorBody(
        504,
        _gemini(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
        _openai("The request timed out.", "timeout"),
    ),
    "api_key_invalid": ErrorBody(
        400,
        _gemini(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", _BAD_KEY),
        _openai("Incorrect API key provided: sk-abcd1234.", "invalid_request_error", "invalid_api_key"),
    ),
    "unauthorized": ErrorBody(
        401,
        _gemini(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        _openai("Incorrect API key provided: sk-abcd1234.", "invalid_request_error", "invalid_api_key"),
    ),
    "forbidden": ErrorBody(
        403,
        _gemini(403, "PERMISSION_DENIED", "The caller does not have permission"),
        _openai("You are not allowed to do this", "permission_error"),
    ),
    "context_length": ErrorBody(
        400,
        _gemini(
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        ),
        _openai(
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens.",
            "invalid_request_error",
            "context_length_exceeded",
            "messages",
        ),
    ),
    "invalid_argument": ErrorBody(
        400,
        _gemini(400, "INVALID_ARGUMENT", "Invalid value at 'generation_config.temperature'"),
        _openai("Invalid value for temperature", "invalid_request_error", None, "temperature"),
    ),
    "model_not_found": ErrorBody(
        404,
        _gemini(404, "NOT_FOUND", "models/gemini-1.0-pro is not found for API version v1beta"),
        _openai("The model `gpt-old` has been deprecated", "invalid_request_error", "model_not_found"),
    ),
    "prefill_refused": ErrorBody(
        400,
        _gemini(400, "INVALID_ARGUMENT", "Please ensure that the last turn is a user turn."),
        _openai("This model does not support assistant message prefill.", "invalid_request_error"),
    ),
    "content_filter": ErrorBody(
        400,
        _gemini(400, "INVALID_ARGUMENT", "blocked"),
        _openai("The prompt was filtered by the content policy.", "invalid_request_error", "content_filter", "prompt"),
    ),
}
