"""What a provider's answer means: HTTP status, body and headers in, one `ProviderFailure` out.

The class of a failure comes from structured codes wherever a provider gives one (HTTP status, `error.code`,
`error.status`, `google.rpc` details); message text is read only where none exists: Gemini's context length, and
`limit: 0`. The functions are total: any status and any body give a failure, never an exception.

Sources: google.rpc error model (QuotaFailure, RetryInfo, ErrorInfo); gemini-cli `googleQuotaErrors.ts` for per-day
quotas and the five-minute horizon; RFC 9110 §10.2.3 for Retry-After; OpenAI's error envelope and its dialects
(vLLM's bare object, OpenRouter's integer codes, Gemini's list-wrapped one on its compatible endpoint).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from email.utils import mktime_tz, parsedate_tz
from types import MappingProxyType
from typing import Any

from engine.core.outcomes import Category, ProviderFailure

QUOTA_HORIZON = 300.0
"""Seconds; a 429 that asks to wait longer than this is an exhausted quota, not a limit to slow down for."""

LONGEST_WAIT = 86_400.0
"""Seconds; no provider's wish to wait is believed beyond a day."""

_DETAIL_LENGTH = 200
_MS_HEADERS = ("retry-after-ms", "x-ms-retry-after-ms")

BY_STATUS: Mapping[int, Category] = MappingProxyType(
    {
        401: Category.AUTH,
        402: Category.QUOTA_EXHAUSTED,
        403: Category.AUTH,
        404: Category.MODEL_UNAVAILABLE,
        408: Category.TIMEOUT,
        429: Category.RATE_LIMITED,
        504: Category.TIMEOUT,
        522: Category.TIMEOUT,
        524: Category.TIMEOUT,
    }
)
"""Statuses with a meaning of their own; other 4xx are the caller's mistake, everything else the server's."""

_BY_GRPC_STATUS: Mapping[str, Category] = MappingProxyType(
    {
        "UNAUTHENTICATED": Category.AUTH,
        "PERMISSION_DENIED": Category.AUTH,
        "FAILED_PRECONDITION": Category.AUTH,  # region not served, or a project without billing
        "NOT_FOUND": Category.MODEL_UNAVAILABLE,
        "RESOURCE_EXHAUSTED": Category.RATE_LIMITED,
        "DEADLINE_EXCEEDED": Category.TIMEOUT,
        "UNAVAILABLE": Category.SERVER_ERROR,
        "INTERNAL": Category.SERVER_ERROR,
        "UNKNOWN": Category.SERVER_ERROR,
        "INVALID_ARGUMENT": Category.INVALID_REQUEST,
        "OUT_OF_RANGE": Category.INVALID_REQUEST,
    }
)

_BY_OPENAI_CODE: Mapping[str, Category] = MappingProxyType(
    {
        "context_length_exceeded": Category.CONTEXT_LENGTH,
        "model_context_window_exceeded": Category.CONTEXT_LENGTH,
        "insufficient_quota": Category.QUOTA_EXHAUSTED,
        "billing_hard_limit_reached": Category.QUOTA_EXHAUSTED,
        "billing_not_active": Category.QUOTA_EXHAUSTED,
        "rate_limit_exceeded": Category.RATE_LIMITED,
        "rate_limit_error": Category.RATE_LIMITED,
        "tokens": Category.RATE_LIMITED,
        "requests": Category.RATE_LIMITED,
        "invalid_api_key": Category.AUTH,
        "authentication_error": Category.AUTH,
        "permission_error": Category.AUTH,
        "unsupported_country_region_territory": Category.AUTH,
        "model_not_found": Category.MODEL_UNAVAILABLE,
        "model_not_available": Category.MODEL_UNAVAILABLE,
        "not_found_error": Category.MODEL_UNAVAILABLE,
        "content_filter": Category.CONTENT_FILTER,
        "content_policy_violation": Category.CONTENT_FILTER,
        "server_error": Category.SERVER_ERROR,
        "internal_error": Category.SERVER_ERROR,
        "api_error": Category.SERVER_ERROR,
        "overloaded_error": Category.SERVER_ERROR,
        "engine_overloaded": Category.SERVER_ERROR,
        "timeout_error": Category.TIMEOUT,
        "timeout": Category.TIMEOUT,
        "invalid_request_error": Category.INVALID_REQUEST,
    }
)

_CONTEXT = re.compile(
    r"token count\b.{0,60}\bexceeds|maximum context length|context (?:length|window) .{0,40}exceed", re.IGNORECASE
)
_LIMIT_ZERO = re.compile(r"\blimit:\s*0(?![\d.])")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")
_UNIT = MappingProxyType({"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9})

_SECRETS = (
    re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"),
    re.compile(
        r"(?i)\b((?:api[_-]?)?key|token|secret|password|authorization)(\s*[=:]\s*)(?![\s\"']*\[)[\"']?[^\s\"',;&)]{6,}"
    ),
    re.compile(r"\b(?:sk|pk|rk|xai|gsk|hf|ghp|xox[a-z])[-_][\w-]{4,}"),
    re.compile(r"\bAIza[\w-]{6,}"),
    re.compile(r"\b(?=[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[\w+/=-]{24,}"),
)
_QUOTED = re.compile(r"\"[^\"]{21,}\"|'[^']{21,}'|`[^`]{21,}`")


def parse_duration(text: str) -> float | None:
    """Read a duration such as `58.93s`, `800ms` or `10h17m5.7s`.

    Returns:
        Seconds, `None` when the text is something else.
    """
    text = text.strip()
    seconds, end = 0.0, 0
    for part in _DURATION.finditer(text):
        if part.start() != end:
            return None
        seconds += float(part[1]) * _UNIT[part[2]]
        end = part.end()
    return seconds if end and end == len(text) and math.isfinite(seconds) else None


def parse_retry_after(headers: Mapping[str, str] | None, wall_now: float) -> float | None:
    """Read how long a provider asks to wait: `retry-after-ms`, `retry-after` as seconds, duration or HTTP date.

    Args:
        headers: Of the answer, names in any case.
        wall_now: Unix time in seconds, to measure a date against.

    Returns:
        Seconds between 0 and a day; `None` when nothing usable is said, a date in the past included.
    """
    if not headers:
        return None
    given = {str(name).lower(): str(value).strip() for name, value in headers.items()}
    for name in _MS_HEADERS:
        milliseconds = _number(given.get(name))
        if milliseconds is not None:
            return min(milliseconds / 1000.0, LONGEST_WAIT)
    text = given.get("retry-after")
    if not text:
        return None
    seconds = _number(text)
    if seconds is None:
        seconds = parse_duration(text)
    if seconds is None:
        seconds = _until(text, wall_now)
    return None if seconds is None else min(seconds, LONGEST_WAIT)


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _until(text: str, wall_now: float) -> float | None:
    try:
        parsed = parsedate_tz(text)
        wait = None if parsed is None else mktime_tz(parsed) - wall_now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return wait if wait is not None and wait > 0 else None


def scrub(text: str) -> str:
    """Make a provider's words safe to store: one line, at most 200 characters, no keys, no long quotations.

    Quotations are dropped because validators quote what they reject, which may be a prompt.
    """
    text = " ".join(text[: _DETAIL_LENGTH * 20].split())
    text = _SECRETS[0].sub(r"\1 [redacted]", text)
    text = _SECRETS[1].sub(r"\1\2[redacted]", text)
    for pattern in _SECRETS[2:]:
        text = pattern.sub("[redacted]", text)
    text = _QUOTED.sub('"…"', text)
    return text if len(text) <= _DETAIL_LENGTH else text[: _DETAIL_LENGTH - 1] + "…"


def by_status(status: int | None) -> Category:
    """The category of a bare HTTP status; `None` and 2xx mean an answer that made no sense."""
    if status is None:
        return Category.SERVER_ERROR
    if status in BY_STATUS:
        return BY_STATUS[status]
    if 300 <= status < 400:  # not followed: the endpoint is somewhere else
        return Category.MODEL_UNAVAILABLE
    return Category.INVALID_REQUEST if 400 <= status < 500 else Category.SERVER_ERROR


def classify_gemini(
    status: int | None, body: Any, headers: Mapping[str, str] | None, wall_now: float
) -> ProviderFailure:
    """Classify an error of Gemini's REST interface.

    Args:
        status: HTTP status; 200 or `None` for an error object inside a stream, which then says its own code.
        body: The parsed body, an error element of a stream, or anything else that came instead.
        headers: Of the answer.
        wall_now: Unix time in seconds.
    """
    error = _error(body)
    grpc = str(error.get("status") or "")
    code = _whole(error.get("code"))
    if status is None or status < 400:
        status = code if code is not None and code >= 400 else status
    message = str(error.get("message") or "")
    details = [part for part in _list(error.get("details")) if isinstance(part, Mapping)]
    reason = next((str(part["reason"]) for part in details if part.get("reason")), "")
    category = by_status(status) if status is not None and status >= 300 else Category.SERVER_ERROR
    if grpc in _BY_GRPC_STATUS and (category is Category.INVALID_REQUEST or status is None or status < 400):
        category = _BY_GRPC_STATUS[grpc]
    if reason.startswith(("API_KEY_", "ACCESS_TOKEN_", "CONSUMER_", "SERVICE_DISABLED", "BILLING_")):
        category = Category.AUTH
    elif category is Category.INVALID_REQUEST and _CONTEXT.search(message):
        category = Category.CONTEXT_LENGTH
    wait = _longest(parse_retry_after(headers, wall_now), _retry_info(details))
    if category is Category.RATE_LIMITED:
        exhausted = _is_exhausted(details, message)
        category, wait = _judge_limit(wait, exhausted=exhausted)
    code_word = reason or _quota_id(details) or grpc
    return ProviderFailure(category, status, wait, _detail(code_word or grpc, message, error), code=scrub(code_word))


def classify_openai(
    status: int | None, body: Any, headers: Mapping[str, str] | None, wall_now: float
) -> ProviderFailure:
    """Classify an error of an OpenAI-compatible endpoint.

    Args:
        status: HTTP status; 200 or `None` for an error object inside a stream.
        body: The parsed body, an error event of a stream, or anything else that came instead.
        headers: Of the answer.
        wall_now: Unix time in seconds.
    """
    error = _error(body)
    if isinstance(error.get("status"), str) and error["status"].isupper():  # Gemini behind the compatible endpoint
        return classify_gemini(status, body, headers, wall_now)
    own = _whole(error.get("code"))
    if (status is None or status < 400) and own is not None and own >= 400:
        status = own
    words = [str(error[key]) for key in ("code", "type") if isinstance(error.get(key), str) and error[key]]
    message = str(error.get("message") or "")
    category = _openai_category(status, words, message, error)
    wait = parse_retry_after(headers, wall_now)
    if category is Category.RATE_LIMITED:
        category, wait = _judge_limit(wait, exhausted=False)
    word = words[0] if words else ""
    return ProviderFailure(category, status, wait, _detail(word, message, error), code=scrub(word))


def _openai_category(status: int | None, words: Sequence[str], message: str, error: Mapping[str, Any]) -> Category:
    """The specific word first (`code`, then `type`), the status where the words are general."""
    known = [_BY_OPENAI_CODE[word] for word in words if word in _BY_OPENAI_CODE]
    specific = next((category for category in known if category not in _GENERAL), None)
    plain = by_status(status) if status is not None and status >= 300 else None
    if specific is not None and (plain is None or plain in (Category.INVALID_REQUEST, *_SPECIFIED.get(specific, ()))):
        return specific
    if plain is Category.INVALID_REQUEST and _CONTEXT.search(message):
        return Category.CONTEXT_LENGTH
    metadata = error.get("metadata")
    if status == 403 and isinstance(metadata, Mapping) and metadata.get("reasons"):
        return Category.CONTENT_FILTER
    if plain is not None:
        return plain
    return known[0] if known else Category.SERVER_ERROR


_GENERAL = (Category.INVALID_REQUEST, Category.SERVER_ERROR)
_SPECIFIED: Mapping[Category, tuple[Category, ...]] = MappingProxyType(
    {
        Category.QUOTA_EXHAUSTED: (Category.RATE_LIMITED, Category.AUTH),
        Category.RATE_LIMITED: (Category.RATE_LIMITED, Category.AUTH),
        Category.MODEL_UNAVAILABLE: (Category.AUTH, Category.MODEL_UNAVAILABLE),
        Category.CONTENT_FILTER: (Category.AUTH,),
        Category.AUTH: (Category.AUTH,),
    }
)
"""Which meaning of the bare status a more specific word may replace; a 5xx stays a 5xx, whatever it says."""


def _judge_limit(wait: float | None, *, exhausted: bool) -> tuple[Category, float | None]:
    """A 429's category and wait. A short wait beside a spent day is not believed: the day wins."""
    if wait is not None and wait > QUOTA_HORIZON:
        return Category.QUOTA_EXHAUSTED, wait
    return (Category.QUOTA_EXHAUSTED, None) if exhausted else (Category.RATE_LIMITED, wait)


def _is_exhausted(details: Sequence[Mapping[str, Any]], message: str) -> bool:
    for violation in _violations(details):
        name = f"{violation.get('quotaId', '')} {violation.get('quotaMetric', '')}"
        if "PerDay" in name or "Daily" in name or "per_day" in name:
            return True
        if str(violation.get("quotaValue", "")) == "0":
            return True
    return bool(_LIMIT_ZERO.search(message))


def _violations(details: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for part in details:
        yield from (item for item in _list(part.get("violations")) if isinstance(item, Mapping))


def _quota_id(details: Sequence[Mapping[str, Any]]) -> str:
    """The id of the violated quota, a per-day one before others."""
    ids = [str(violation.get("quotaId") or "") for violation in _violations(details)]
    return next((name for name in ids if "PerDay" in name or "Daily" in name), ids[0] if ids else "")


def _retry_info(details: Sequence[Mapping[str, Any]]) -> float | None:
    """The longest `retryDelay`, given as text or as seconds and nanos."""
    longest = None
    for part in details:
        delay = part.get("retryDelay")
        if isinstance(delay, Mapping):
            seconds = (_number(delay.get("seconds", 0)) or 0.0) + (_number(delay.get("nanos", 0)) or 0.0) / 1e9
            longest = _longest(longest, min(seconds, LONGEST_WAIT))
        elif isinstance(delay, str):
            parsed = parse_duration(delay)
            longest = _longest(longest, None if parsed is None else min(parsed, LONGEST_WAIT))
    return longest


def _longest(left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return left if right is None else right
    return max(left, right)


def _error(body: Any) -> Mapping[str, Any]:
    """The error object of a body: inside `error`, in a one-element list, or bare."""
    if isinstance(body, list | tuple) and body:
        body = body[0]
    if not isinstance(body, Mapping):
        return {}
    error = body.get("error")
    if isinstance(error, Mapping):
        return error
    if isinstance(error, str):
        return {"message": error}
    return body if "message" in body or "code" in body else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _whole(value: Any) -> int | None:
    """An HTTP-like status out of a code that may be a number, digits, or a word."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 else None


def _detail(word: str, message: str, error: Mapping[str, Any]) -> str:
    if not error:
        return "unreadable body"
    return scrub(f"{word}: {message}" if word and message else word or message)
