from __future__ import annotations

import json
import math
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.classification import (
    LONGEST_WAIT,
    classify_gemini,
    classify_openai,
    parse_duration,
    parse_retry_after,
    scrub,
)
from engine.core.outcomes import Category, ProviderFailure

NOW = 1_750_000_000.0
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "code",
                    "status",
                    "message",
                    "details",
                    "violations",
                    "quotaId",
                    "retryDelay",
                    "reason",
                    "type",
                    "x",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
STATUSES = st.none() | st.integers(100, 599)


def gemini(status: int | None, error: dict[str, Any], headers: dict[str, str] | None = None) -> ProviderFailure:
    return classify_gemini(status, {"error": error}, headers, NOW)


def openai(status: int | None, error: dict[str, Any], headers: dict[str, str] | None = None) -> ProviderFailure:
    return classify_openai(status, {"error": error}, headers, NOW)


def quota(*ids: str, delay: Any = None, value: str = "10") -> list[dict[str, Any]]:
    details: list[dict[str, Any]] = [{"violations": [{"quotaId": name, "quotaValue": value} for name in ids]}]
    return details if delay is None else [*details, {"retryDelay": delay}]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("58.93s", 58.93),
        ("800ms", 0.8),
        ("10h17m5.7s", 37025.7),
        ("6m0s", 360),
        ("0s", 0),
        ("1m", 60),
        (" 2s ", 2),
        ("", None),
        ("s", None),
        ("5", None),
        ("-5s", None),
        ("5s!", None),
        ("5 s", None),
        ("soon", None),
    ],
)
def test_a_duration_is_read_as_the_providers_write_it(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"RETRY-AFTER": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "1m12s"}, 72),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "99999999"}, LONGEST_WAIT),
        ({}, None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str] | None, seconds: float | None) -> None:
    assert parse_retry_after(headers, NOW) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "Retry-After-Ms", "x"]), st.text(max_size=30)))
def test_any_header_gives_nothing_or_a_wait_within_a_day(headers: dict[str, str]) -> None:
    wait = parse_retry_after(headers, NOW)
    assert wait is None or (math.isfinite(wait) and 0 <= wait <= LONGEST_WAIT)


@given(STATUSES, ANY_JSON)
def test_any_status_and_body_give_a_failure(status: int | None, body: Any) -> None:
    for classify in (classify_gemini, classify_openai):
        failure = classify(status, body, {"retry-after": "3"}, NOW)
        assert failure.category not in (Category.OK, Category.CANCELLED)
        assert len(failure.detail) <= 200
        assert len(failure.code) <= 200
        assert failure.retry_after is None or 0 <= failure.retry_after <= LONGEST_WAIT


@given(st.integers(500, 599), ANY_JSON)
def test_a_server_error_is_never_made_neutral_by_its_words(status: int, error: Any) -> None:
    if not isinstance(error, dict) or (isinstance(error.get("status"), str) and error["status"].isupper()):
        error = {"code": "rate_limit_exceeded"}
    assert classify_openai(status, {"error": error}, None, NOW).category in (Category.SERVER_ERROR, Category.TIMEOUT)


def test_a_spent_day_wins_over_a_short_retry_delay() -> None:
    failure = gemini(429, {"status": "RESOURCE_EXHAUSTED", "details": quota("XPerMinuteY", "XPerDayY", delay="1s")})
    assert (failure.category, failure.retry_after) == (Category.QUOTA_EXHAUSTED, None)
    assert failure.code == "XPerDayY"


def test_a_minute_quota_waits_as_long_as_its_longest_wish() -> None:
    error = {"details": [*quota("XPerMinuteY", delay="58s"), {"retryDelay": {"seconds": 2, "nanos": 500_000_000}}]}
    assert gemini(429, error, {"retry-after": "5"}).retry_after == 58
    assert gemini(429, {"details": [{"retryDelay": {"seconds": 2, "nanos": 500_000_000}}]}).retry_after == 2.5


@pytest.mark.parametrize(("delay", "category"), [("300s", "rate_limited"), ("301s", "quota_exhausted")])
def test_a_wait_beyond_five_minutes_is_an_exhausted_quota(delay: str, category: str) -> None:
    failure = gemini(429, {"details": quota("XPerMinuteY", delay=delay)})
    assert failure.category == category
    assert failure.retry_after == float(delay[:-1])


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Quota exceeded, limit: 0, model: gemini-2.5-pro"},
        {"message": "Quota", "details": quota("XPerMinuteY", value="0")},
    ],
)
def test_a_limit_of_zero_is_an_exhausted_quota(error: dict[str, Any]) -> None:
    assert gemini(429, error).category is Category.QUOTA_EXHAUSTED


def test_a_limit_that_only_begins_with_zero_is_not_zero() -> None:
    assert gemini(429, {"message": "limit: 0.5 requests"}).category is Category.RATE_LIMITED


@pytest.mark.parametrize("status", [200, None])
def test_an_error_inside_a_stream_says_its_own_code(status: int | None) -> None:
    failure = gemini(status, {"code": 503, "status": "UNAVAILABLE", "message": "overloaded"})
    assert (failure.category, failure.status_code) == (Category.SERVER_ERROR, 503)
    assert openai(status, {"code": 429, "message": "slow down"}).category is Category.RATE_LIMITED


def test_a_list_wrapped_body_is_read() -> None:
    body = [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}]
    failure = classify_gemini(400, body, None, NOW)
    assert (failure.category, failure.code) == (Category.AUTH, "API_KEY_INVALID")


def test_gemini_behind_the_compatible_endpoint_is_read_as_gemini() -> None:
    body = [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": quota("XPerDayY")}}]
    assert classify_openai(429, body, None, NOW).category is Category.QUOTA_EXHAUSTED


@pytest.mark.parametrize(
    ("status", "error", "category"),
    [
        (429, {"code": "insufficient_quota"}, Category.QUOTA_EXHAUSTED),
        (429, {"type": "insufficient_quota"}, Category.QUOTA_EXHAUSTED),
        (429, {"type": "requests", "code": "rate_limit_exceeded"}, Category.RATE_LIMITED),
        (402, {"message": "Insufficient credits"}, Category.QUOTA_EXHAUSTED),
        (400, {"code": "context_length_exceeded", "type": "invalid_request_error"}, Category.CONTEXT_LENGTH),
        (400, {"message": "maximum context length is 4096", "code": 400}, Category.CONTEXT_LENGTH),
        (400, {"code": "content_filter"}, Category.CONTENT_FILTER),
        (400, {"type": "invalid_request_error"}, Category.INVALID_REQUEST),
        (422, {"message": "bad"}, Category.INVALID_REQUEST),
        (403, {"metadata": {"reasons": ["violence"]}, "code": 403}, Category.CONTENT_FILTER),
        (403, {"code": "model_not_found"}, Category.MODEL_UNAVAILABLE),
        (401, {"code": "invalid_api_key"}, Category.AUTH),
        (404, {}, Category.MODEL_UNAVAILABLE),
        (529, {"type": "overloaded_error"}, Category.SERVER_ERROR),
        (503, {"code": "rate_limit_exceeded"}, Category.SERVER_ERROR),
        (408, {}, Category.TIMEOUT),
        (504, {}, Category.TIMEOUT),
        (302, {}, Category.MODEL_UNAVAILABLE),
        (200, {"code": "rate_limit_exceeded"}, Category.RATE_LIMITED),
        (200, {"message": "went wrong"}, Category.SERVER_ERROR),
    ],
)
def test_openai_codes_mean_what_they_say(status: int, error: dict[str, Any], category: Category) -> None:
    assert openai(status, error).category is category


def test_a_bare_vllm_object_is_read() -> None:
    body = {
        "object": "error",
        "message": "maximum context length is 4096 tokens",
        "type": "BadRequestError",
        "code": 400,
    }
    assert classify_openai(400, body, None, NOW).category is Category.CONTEXT_LENGTH


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdef1234567890",
        "sk-abcd1234",
        "AIzaSyD-1234567890abcdefghijklmnop",
        "Bearer abc.def.ghi123",
        "key=abcdef123456",
        "api_key: abcdef123456",
        "0123456789abcdef0123456789abcdef",
    ],
)
def test_keys_never_survive_scrubbing(secret: str) -> None:
    clean = scrub(f"Incorrect API key provided: {secret}. See the documentation.")
    assert secret.split()[-1] not in clean
    assert "[redacted]" in clean


def test_what_a_validator_quotes_is_dropped() -> None:
    prompt = "my medical history is long and private"
    clean = scrub(json.dumps({"msg": "bad", "input": prompt}))
    assert prompt not in clean
    assert scrub(f"invalid value: '{prompt}'") == 'invalid value: "…"'


def test_quota_names_survive_scrubbing() -> None:
    name = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
    assert scrub(name) == name


@given(st.text())
def test_scrubbed_text_is_one_short_line(text: str) -> None:
    clean = scrub(text)
    assert len(clean) <= 200
    assert "\n" not in clean
