from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine.core.messages import Limits
from engine.core.outcomes import Category
from engine.providers.answers import answer_text
from engine.providers.base import Limit
from tests.engine.providers.contract import MODEL, Asked, asked, call
from tests.upstream import Fault, Upstream

PROMPT = "Why is the sky blue?"
TEXT = answer_text(PROMPT)


@pytest.fixture
def openai(upstream: Upstream) -> Iterator[Asked]:
    made = asked("openai", upstream)
    yield made
    made.close()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(crlf=True),
        Fault(comments=True),
        Fault(multiline=True),
        Fault(split=7),
        Fault(crlf=True, comments=True, multiline=True, split=3),
        Fault(no_done=True),
        Fault(close_delimited=True),
        Fault(words_per_event=200),
    ],
    ids=str,
)
def test_every_legal_form_of_a_stream_gives_the_same_text(openai: Asked, upstream: Upstream, fault: Fault) -> None:
    upstream.set(MODEL, fault)
    got = openai.streamed(call(PROMPT))
    assert (got.text, got.finish_reason, got.failure) == (TEXT, "stop", None)


def test_an_event_larger_than_any_read_buffer_arrives(openai: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(words=200_000, words_per_event=200_000))
    got = openai.streamed(call(PROMPT))
    assert got.text == answer_text(PROMPT, 200_000)


def test_fields_nobody_knows_pass_both_ways(openai: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(extra={"system_fingerprint": "fp_1", "provider": "x"}))
    messages = ({"role": "user", "content": PROMPT, "cache_control": {"type": "ephemeral"}},)
    asked_for = call(messages=messages, options={"service_tier": "flex", "vendor": {"a": [1]}, "temperature": 0.5})
    answer = openai.generate(asked_for)
    assert answer.raw is not None
    assert (answer.raw["system_fingerprint"], answer.raw["provider"]) == ("fp_1", "x")
    assert upstream.seen(MODEL)[-1].body == {
        "model": MODEL,
        "messages": list(messages),
        "service_tier": "flex",
        "vendor": {"a": [1]},
        "temperature": 0.5,
    }
    chunks = openai.streamed(asked_for).deltas
    assert all(delta.raw is not None and delta.raw["system_fingerprint"] == "fp_1" for delta in chunks)


def test_thoughts_show_life_and_the_role_does_not(openai: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(thoughts=2))
    deltas = openai.streamed(call(PROMPT)).deltas
    assert [delta.alive for delta in deltas[:4]] == [False, True, True, True]
    assert not any(delta.has_content for delta in deltas[:3])


@pytest.mark.parametrize(
    "said",
    [
        {"refusal": "I cannot"},
        {"audio": {"id": "a", "data": "AA=="}},
        {"images": [{"type": "image_url"}]},
        {"function_call": {"name": "f", "arguments": "{"}},
    ],
    ids=lambda said: next(iter(said)),
)
def test_refusals_sound_images_and_old_function_calls_are_content(
    openai: Asked, upstream: Upstream, said: dict[str, Any]
) -> None:
    event = json.dumps({"choices": [{"index": 0, "delta": {"role": "assistant", **said}}]})
    upstream.set(MODEL, Fault(body=f"data: {event}\n\n", content_type="text/event-stream"))
    delta = openai.streamed(call(PROMPT)).deltas[0]
    assert delta.has_content
    assert delta.refusal == said.get("refusal", "")


def test_a_whole_refusal_is_told_apart_from_an_empty_answer(openai: Asked, upstream: Upstream) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    upstream.set(MODEL, Fault(body={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
    answer = openai.generate(call(PROMPT))
    assert (answer.text, answer.refusal) == ("", "I cannot help with that.")


def test_the_callers_own_token_limit_is_not_doubled(openai: Asked, upstream: Upstream) -> None:
    openai.generate(call(PROMPT, max_output_tokens=9, options={"max_completion_tokens": 9}))
    assert "max_tokens" not in upstream.seen(MODEL)[-1].body


def test_a_stale_connection_costs_one_more_request_and_no_failure(openai: Asked, upstream: Upstream) -> None:
    """aiohttp repeats only idempotent methods: a POST on a connection the server closed would fail."""
    openai.generate(call(PROMPT))
    upstream.first(MODEL, [Fault(reset=True)])
    assert openai.generate(call(PROMPT)).text == TEXT
    assert len(upstream.seen(MODEL)) == 3


def test_a_fresh_connection_that_breaks_is_not_tried_again(openai: Asked, upstream: Upstream) -> None:
    upstream.first(MODEL, [Fault(reset=True)])
    assert openai.failure(call(PROMPT)).category is Category.CONNECTION
    assert len(upstream.seen(MODEL)) == 1


def test_a_server_that_hangs_up_after_thinking_is_not_asked_again(openai: Asked, upstream: Upstream) -> None:
    openai.generate(call(PROMPT))
    upstream.first(MODEL, [Fault(reset=True, delay=1.1)])
    assert openai.failure(call(PROMPT)).category is Category.CONNECTION
    assert len(upstream.seen(MODEL)) == 2


def test_a_finished_stream_leaves_its_connection_for_the_next(openai: Asked, upstream: Upstream) -> None:
    for _ in range(3):
        openai.streamed(call(PROMPT))
    upstream.first(MODEL, [Fault(reset=True)])
    assert openai.streamed(call(PROMPT)).text == TEXT, "a reused connection is tried again, a fresh one is not"


def test_a_json_error_in_place_of_a_stream_is_what_it_says(openai: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(body={"error": {"message": "slow down", "code": "rate_limit_exceeded"}}))
    failure = openai.streamed(call(PROMPT)).failure
    assert failure is not None
    assert failure.category is Category.RATE_LIMITED


def test_an_address_that_answers_nothing_runs_into_the_connect_limit() -> None:
    from engine.providers.openai_compatible import OpenAIProvider

    lost = Asked(OpenAIProvider(base_url="http://192.0.2.1:9/v1"))  # TEST-NET-1, RFC 5737: routed nowhere
    failure = lost.failure(call(PROMPT, limits=Limits(connect=0.2, answer=5)))
    lost.close()
    assert (failure.category, failure.code) in [(Category.TIMEOUT, "connect"), (Category.CONNECTION, "transport")]


def test_without_a_key_no_authorization_is_sent(upstream: Upstream) -> None:
    keyless = asked("openai", upstream, key="")
    keyless.generate(call(PROMPT))
    keyless.close()
    assert "authorization" not in upstream.seen(MODEL)[-1].headers


SHAPES = [
    {"choices": "x"},
    {"choices": [5]},
    {"choices": [{"index": 0, "delta": "text"}]},
    {"choices": [{"index": "first", "delta": {"content": "x"}}]},
    {"choices": [{"index": 0, "delta": {"content": 5}}]},
    {"choices": [{"index": 0, "delta": {"content": ["x"]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": "f"}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [5]}}]},
]


@pytest.mark.parametrize("event", SHAPES, ids=str)
def test_an_event_of_another_shape_is_a_break_and_no_mistake_of_ours(
    openai: Asked, upstream: Upstream, event: dict[str, Any]
) -> None:
    upstream.set(MODEL, Fault(body=f"data: {json.dumps(event)}\n\n", content_type="text/event-stream"))
    got = openai.streamed(call(PROMPT))
    assert got.failure is not None
    assert (got.failure.category, got.failure.code) == (Category.TRUNCATED, "malformed_event")
    upstream.set(MODEL, Fault(body={"choices": [{"message": "x", "finish_reason": "stop"}]}))
    assert openai.failure(call(PROMPT)).category is Category.SERVER_ERROR


def test_a_content_of_parts_is_its_text(openai: Asked, upstream: Upstream) -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hello"}]
    events = [{"choices": [{"index": 0, "delta": {"content": parts}, "finish_reason": "stop"}]}, "[DONE]"]
    said = "".join(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in events)
    upstream.set(MODEL, Fault(body=said, content_type="text/event-stream"))
    assert openai.streamed(call(PROMPT)).text == "Hello"
    upstream.set(MODEL, Fault(body={"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}))
    assert openai.generate(call(PROMPT)).text == "Hello"


def test_a_role_and_empty_deltas_keep_no_clock(openai: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(role_delay=0.4))
    limits = Limits(first_token=2.0, idle=0.2, total=5.0)
    assert openai.streamed(call(PROMPT, limits=limits)).text == TEXT, "the first token has its own clock"
    got = openai.streamed(call(PROMPT, limits=Limits(first_token=0.2, idle=2.0, total=5.0)))
    assert got.failure is not None
    assert got.failure.code == Limit.FIRST_TOKEN
