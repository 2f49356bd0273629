"""One suite over every provider that speaks HTTP, against real sockets."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from engine.core.messages import FinishReason, Limits
from engine.core.outcomes import Category
from engine.providers.answers import Continuation, answer_text
from tests.engine.providers.contract import MODEL, Asked, asked, call
from tests.patience import eventually
from tests.upstream import HTML, Fault, Upstream

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

PROMPT = "Why is the sky blue?"
TEXT = answer_text(PROMPT)
ERRORS = [
    ("rate_limit_minute", Category.RATE_LIMITED, 429, 58.0),
    ("rate_limit_bare", Category.RATE_LIMITED, 429, None),
    ("quota_day", Category.QUOTA_EXHAUSTED, 429, None),
    ("limit_zero", Category.QUOTA_EXHAUSTED, 429, None),
    ("unavailable", Category.SERVER_ERROR, 503, None),
    ("internal", Category.SERVER_ERROR, 500, None),
    ("bad_gateway", Category.SERVER_ERROR, 502, None),
    ("gateway_timeout", Category.TIMEOUT, 504, None),
    ("api_key_invalid", Category.AUTH, 400, None),
    ("unauthorized", Category.AUTH, 401, None),
    ("forbidden", Category.AUTH, 403, None),
    ("context_length", Category.CONTEXT_LENGTH, 400, None),
    ("invalid_argument", Category.INVALID_REQUEST, 400, None),
    ("model_not_found", Category.MODEL_UNAVAILABLE, 404, None),
]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["place"],
        },
    },
}


def _ended(upstream: Upstream) -> str:
    """How the last request ended, once the server has noticed."""
    return eventually(lambda: upstream.seen(MODEL)[-1].ended)


def test_a_whole_answer_arrives_with_finish_usage_and_model(provider: Asked) -> None:
    answer = provider.generate(call(PROMPT))
    assert answer.text == TEXT
    assert answer.finish_reason is FinishReason.STOP
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, -(-len(TEXT) // 4))
    assert answer.model == MODEL


def test_a_stream_gives_the_same_text_as_the_whole_answer(provider: Asked) -> None:
    got = provider.streamed(call(PROMPT))
    assert got.failure is None
    assert got.text == TEXT
    assert len([delta for delta in got.deltas if delta.text]) > 5
    assert got.finish_reason is FinishReason.STOP
    usage = [delta.usage for delta in got.deltas if delta.usage][-1]
    assert (usage.input_tokens, usage.output_tokens) == (5, -(-len(TEXT) // 4))


def test_an_event_is_given_out_when_it_comes(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(stall_after=1))
    began = time.monotonic()
    events = provider.stream(call(PROMPT))
    first = next(delta for delta in events if delta.text)
    assert TEXT.startswith(first.text)
    assert time.monotonic() - began < 20
    events.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("error", "category", "status", "retry_after"), ERRORS, ids=[row[0] for row in ERRORS])
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
def test_an_error_has_its_category_and_costs_one_request(
    provider: Asked, upstream: Upstream, error: str, category: Category, status: int, retry_after: Any, streaming: bool
) -> None:
    upstream.set(MODEL, Fault(error=error))
    failure = provider.streamed(call(PROMPT)).failure if streaming else provider.failure(call(PROMPT))
    assert failure is not None
    assert (failure.category, failure.status_code, failure.retry_after) == (category, status, retry_after)
    assert len(failure.detail) <= 200
    assert "sk-abcd1234" not in failure.detail
    assert len(upstream.seen(MODEL)) == 1


def test_a_retry_after_header_is_read(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(error="unavailable", headers={"Retry-After": "7"}))
    assert provider.failure(call(PROMPT)).retry_after == 7


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
def test_a_reset_before_the_headers_is_a_connection_failure(
    provider: Asked, upstream: Upstream, streaming: bool
) -> None:
    upstream.set(MODEL, Fault(reset=True))
    failure = provider.streamed(call(PROMPT)).failure if streaming else provider.failure(call(PROMPT))
    assert failure is not None
    assert (failure.category, failure.status_code) == (Category.CONNECTION, None)
    assert len(upstream.seen(MODEL)) == 1


def test_a_refused_connection_is_a_connection_failure(provider: Asked, upstream: Upstream) -> None:
    upstream.refuse()
    try:
        assert provider.failure(call(PROMPT)).category is Category.CONNECTION
    finally:
        upstream.accept()


def test_html_instead_of_an_answer_is_a_server_error(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, HTML)
    failure = provider.failure(call(PROMPT))
    assert (failure.category, failure.status_code) == (Category.SERVER_ERROR, 200)
    streamed = provider.streamed(call(PROMPT)).failure
    assert streamed is not None
    assert streamed.category in (Category.SERVER_ERROR, Category.TRUNCATED)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_an_error_without_json_is_classified_by_its_status(provider: Asked, upstream: Upstream, status: int) -> None:
    upstream.set(MODEL, Fault(status=status, body="<h1>Bad</h1>", content_type="text/html"))
    failure = provider.failure(call(PROMPT))
    assert (failure.category, failure.status_code) == (Category.SERVER_ERROR, status)


def test_a_redirect_is_not_followed(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(status=302, body="", headers={"Location": "/elsewhere"}))
    assert provider.failure(call(PROMPT)).category is Category.MODEL_UNAVAILABLE
    assert len(upstream.seen()) == 1


@pytest.mark.parametrize("words", [40, 400])
def test_a_stream_cut_in_the_middle_keeps_what_came_and_is_truncated(
    provider: Asked, upstream: Upstream, words: int
) -> None:
    upstream.set(MODEL, Fault(cut_after=4, words=words))
    got = provider.streamed(call(PROMPT))
    assert got.text == " ".join(TEXT.split(" ")[:12])
    assert got.failure is not None
    assert got.failure.category is Category.TRUNCATED


def test_a_stream_that_ends_as_its_connection_does_gives_no_finish_reason(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(cut_after=4, close_delimited=True))
    got = provider.streamed(call(PROMPT))
    assert got.text == " ".join(TEXT.split(" ")[:12])
    assert got.finish_reason is None


def test_a_stream_without_a_finish_reason_ends_without_one(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(no_finish=True, no_done=True))
    got = provider.streamed(call(PROMPT))
    assert (got.text, got.finish_reason, got.failure) == (TEXT, None, None)


def test_a_whole_answer_without_a_finish_reason_is_truncated(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(no_finish=True))
    assert provider.failure(call(PROMPT)).category is Category.TRUNCATED


def test_a_whole_answer_cut_in_its_body_is_a_connection_failure(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(cut_after=0))
    assert provider.failure(call(PROMPT)).category is Category.CONNECTION
    assert len(upstream.seen(MODEL)) == 1


def test_a_malformed_event_truncates(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(malformed_at=3))
    got = provider.streamed(call(PROMPT))
    assert got.text == " ".join(TEXT.split(" ")[:9])
    assert got.failure is not None
    assert got.failure.category is Category.TRUNCATED


def test_an_error_inside_a_stream_truncates_what_was_shown(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(error="internal", error_at=3))
    got = provider.streamed(call(PROMPT))
    assert got.text == " ".join(TEXT.split(" ")[:9])
    assert got.failure is not None
    assert got.failure.category is Category.TRUNCATED


def test_an_error_before_any_content_is_what_it_says(provider: Asked, upstream: Upstream, kind: str) -> None:
    upstream.set(MODEL, Fault(error="quota_day", error_at=0))
    got = provider.streamed(call(PROMPT))
    assert got.text == ""
    assert got.failure is not None
    assert got.failure.category is Category.QUOTA_EXHAUSTED


def test_a_blocked_prompt_is_a_content_filter(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(blocked=True))
    assert provider.failure(call(PROMPT)).category is Category.CONTENT_FILTER
    failure = provider.streamed(call(PROMPT)).failure
    assert failure is not None
    assert failure.category is Category.CONTENT_FILTER


def test_a_safety_finish_after_content_passes_through(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(safety=True))
    got = provider.streamed(call(PROMPT))
    assert (got.finish_reason, got.failure) == (FinishReason.CONTENT_FILTER, None)
    assert provider.generate(call(PROMPT)).finish_reason is FinishReason.CONTENT_FILTER


def test_an_output_limit_is_sent_and_its_finish_reason_read(provider: Asked) -> None:
    answer = provider.generate(call(PROMPT, max_output_tokens=5))
    assert (answer.text, answer.finish_reason) == (TEXT[:20], FinishReason.LENGTH)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
def test_a_silent_server_runs_into_the_limit(provider: Asked, upstream: Upstream, streaming: bool) -> None:
    upstream.set(MODEL, Fault(hang=True))
    limits = Limits(connect=60, first_token=0.3, answer=0.3, idle=60, total=60)
    provider.streamed(call(PROMPT, "warm"))
    began = time.monotonic()
    patient = call(PROMPT, limits=limits)
    failure = provider.streamed(patient).failure if streaming else provider.failure(patient)
    assert time.monotonic() - began < 30.0
    assert failure is not None
    assert (failure.category, failure.code) == (Category.TIMEOUT, "first_token" if streaming else "answer")
    assert _ended(upstream) == "disconnected"
    assert len(upstream.seen(MODEL)) == 1


def test_headers_without_an_event_run_into_the_first_token_limit(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(first_token=3))
    failure = provider.streamed(call(PROMPT, limits=Limits(first_token=0.3, idle=60, total=60))).failure
    assert failure is not None
    assert (failure.category, failure.code) == (Category.TIMEOUT, "first_token")


def test_a_stall_runs_into_the_idle_limit(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(stall_after=3))
    began = time.monotonic()
    got = provider.streamed(call(PROMPT, limits=Limits(first_token=60, idle=0.3, total=60)))
    assert time.monotonic() - began < 30.0
    assert got.text == " ".join(TEXT.split(" ")[:9])
    assert got.failure is not None
    assert (got.failure.category, got.failure.code) == (Category.TIMEOUT, "idle")
    assert _ended(upstream) == "disconnected"


def test_the_callers_deadline_is_told_apart(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(hang=True))
    provider.streamed(call(PROMPT, "warm"))
    failure = provider.failure(call(PROMPT, limits=Limits(answer=60, total=0.2)))
    assert (failure.category, failure.code) == (Category.TIMEOUT, "total")


def test_a_slow_stream_outlives_a_short_idle_limit(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(event_delay=0.05))
    got = provider.streamed(call(PROMPT, limits=Limits(first_token=60, answer=0.2, idle=0.5)))
    assert (got.text, got.failure) == (TEXT, None)


def test_closing_a_stream_early_closes_the_connection(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(event_delay=0.05, words=2000))
    events = provider.stream(call(PROMPT))
    for delta in events:
        if delta.text:
            break
    left = time.monotonic()
    events.close()  # type: ignore[attr-defined]
    assert _ended(upstream) == "disconnected"
    ended_at = upstream.seen(MODEL)[-1].ended_at
    assert ended_at is not None
    assert ended_at - left < 0.5


def test_prefill_is_continued(provider: Asked) -> None:
    half = TEXT[:70]
    assert half + provider.generate(call(PROMPT, prefill=half)).text == TEXT
    assert half + provider.streamed(call(PROMPT, prefill=half)).text == TEXT


def test_a_refused_prefill_is_an_invalid_request(provider: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(continuation=Continuation.REFUSE))
    assert provider.failure(call(PROMPT, prefill=TEXT[:70])).category is Category.INVALID_REQUEST


def test_a_tool_call_arrives_in_openai_shape(provider: Asked) -> None:
    asked_for = call("Use get_weather", tools=(TOOL,), tool_choice="required")
    answer = provider.generate(asked_for)
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    (tool,) = answer.tool_calls
    assert tool["function"]["name"] == "get_weather"
    assert json.loads(tool["function"]["arguments"]) == {"place": "text", "days": 1}
    got = provider.streamed(asked_for)
    assert got.finish_reason is FinishReason.TOOL_CALLS
    pieces = [piece["function"].get("arguments", "") for delta in got.deltas for piece in delta.tool_calls]
    assert json.loads("".join(pieces)) == {"place": "text", "days": 1}


def test_a_response_schema_reaches_the_model(provider: Asked) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/City"}, "kind": {"enum": ["big", "small"]}},
        "required": ["city"],
        "$defs": {"City": {"type": "object", "properties": {"name": {"type": ["string", "null"]}}}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    assert json.loads(provider.generate(call(PROMPT, response_format=wanted)).text) == {
        "city": {"name": "text"},
        "kind": "big",
    }


def test_a_system_message_and_an_image_reach_the_model(provider: Asked, upstream: Upstream, kind: str) -> None:
    image = "data:image/png;base64,iVBORw0KGgo="
    messages = (
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": image}}],
        },
    )
    assert provider.generate(call(messages=messages)).text == answer_text("Be brief.\nWhat?")
    body = upstream.seen(MODEL)[-1].body
    if kind == "openai":
        assert body["messages"] == list(messages)
    else:
        assert body["systemInstruction"]["parts"] == [{"text": "Be brief."}]
        assert body["contents"][0]["parts"][1]["inlineData"] == {"mimeType": "image/png", "data": "iVBORw0KGgo="}


def test_two_keys_never_mix_under_threads(kind: str, upstream: Upstream) -> None:
    """google-generativeai: one module-wide client would send whichever key was configured last."""
    wrong: list[str] = []

    def ask(key: str) -> None:
        provider = asked(kind, upstream, key)
        for number in range(10):
            if provider.generate(call(f"{key} {number}")).text != answer_text(f"{key} {number}"):
                wrong.append(key)
        provider.close()

    threads = [threading.Thread(target=ask, args=(key,)) for key in ("key-one", "key-two") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    seen = upstream.seen(MODEL)
    assert len(seen) == 40
    assert all(one.key in json.dumps(one.body) for one in seen)
