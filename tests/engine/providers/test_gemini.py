"""What is peculiar to Gemini: its words, its two libraries' traps, and the way from OpenAI's shapes and back."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from engine.core.messages import Delta, FinishReason, Usage
from engine.core.outcomes import Category, ProviderFailure
from engine.providers.answers import answer_text
from engine.providers.base import build
from engine.providers.gemini_answer import Reader
from engine.providers.gemini_request import openapi_schema, request_body
from tests.engine.providers.contract import MODEL, Asked, asked, call
from tests.upstream import Fault, Upstream

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

PROMPT = "Why is the sky blue?"
TEXT = answer_text(PROMPT)


@pytest.fixture(params=["google-generativeai", "google-genai"])
def gemini(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Asked]:
    made = asked(request.param, upstream)
    yield made
    made.close()


def test_a_healthy_request_is_nothing_to_log(gemini: Asked, caplog: pytest.LogCaptureFixture) -> None:
    """google-genai said for every request how often it might call functions by itself."""
    with caplog.at_level(logging.INFO):
        gemini.generate(call(PROMPT))
        gemini.streamed(call(PROMPT))
    assert [record.getMessage() for record in caplog.records if record.name.startswith("google")] == []


def test_thoughts_show_life_and_never_become_text(gemini: Asked, upstream: Upstream) -> None:
    """The old library's messages know no thoughts: it would show them as the answer and not count them."""
    upstream.set(MODEL, Fault(thoughts=2))
    got = gemini.streamed(call(PROMPT))
    assert got.text == TEXT
    assert [delta.life for delta in got.deltas[:3]] == [True, True, False]
    assert not Reader().read({"candidates": [{"content": {"role": "model"}}]})[0].alive
    whole = gemini.generate(call(PROMPT))
    assert whole.text == TEXT
    assert whole.usage.output_tokens == -(-len(TEXT) // 4) + 2


def test_an_empty_event_truncates(gemini: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(empty_at=3))
    got = gemini.streamed(call(PROMPT))
    assert got.text == " ".join(TEXT.split(" ")[:9])
    assert got.failure is not None
    assert (got.failure.category, got.failure.code) == (Category.TRUNCATED, "empty_event")


@pytest.mark.parametrize("word", ["RECITATION", "OTHER", "SOMETHING_NEW"])
def test_a_reason_that_is_no_stop_is_honest_about_it(gemini: Asked, upstream: Upstream, word: str) -> None:
    upstream.set(MODEL, Fault(finish=word))
    assert gemini.streamed(call(PROMPT)).finish_reason is FinishReason.CONTENT_FILTER
    assert gemini.generate(call(PROMPT)).finish_reason is FinishReason.CONTENT_FILTER


def test_what_came_before_a_malformed_event_in_one_read_is_given(upstream: Upstream) -> None:
    event = json.dumps({"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]})
    upstream.set(MODEL, Fault(body=f"[{event}, {{bad}}]"))
    made = asked("google-generativeai", upstream)
    got = made.streamed(call(PROMPT))
    made.close()
    assert got.text == "Hi"
    assert got.failure is not None
    assert got.failure.code == "malformed_event"


def test_a_malformed_function_call_is_a_semantic_failure(gemini: Asked, upstream: Upstream) -> None:
    upstream.set(MODEL, Fault(finish="MALFORMED_FUNCTION_CALL"))
    failure = gemini.failure(call(PROMPT))
    assert (failure.category, failure.code) == (Category.SEMANTIC, "MALFORMED_FUNCTION_CALL")


def test_a_value_of_the_wrong_type_is_the_callers_mistake_and_costs_no_request(
    gemini: Asked, upstream: Upstream
) -> None:
    failure = gemini.failure(call(PROMPT, options={"temperature": "hot"}))
    assert (failure.category, failure.status_code) == (Category.INVALID_REQUEST, 400)
    assert not upstream.seen()


def test_a_missing_key_says_what_to_set(upstream: Upstream) -> None:
    for kind in ("google-generativeai", "google-genai"):
        made = Asked(build(kind, name="gemini", base_url=upstream.gemini_url))
        failure = made.failure(call(PROMPT))
        made.close()
        assert failure.category is Category.AUTH
        assert "providers.gemini.api_key_env" in failure.detail


def test_the_api_version_is_pinned(gemini: Asked, upstream: Upstream) -> None:
    gemini.generate(call(PROMPT))
    assert upstream.seen(MODEL)[-1].path.startswith("/v1beta/models/")


def test_building_imports_no_library() -> None:
    code = (
        "import sys; from engine.providers.base import build, KINDS\n"
        "for kind in KINDS: build(kind, api_key='k', name='n')\n"
        "print([name for name in sys.modules if name.startswith('google.')])"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_old_library_is_imported_without_a_warning(upstream: Upstream) -> None:
    code = (
        "from engine.providers.base import build\n"
        "from engine.core.messages import Call, Request\n"
        f"p = build('google-generativeai', api_key='k', base_url='{upstream.gemini_url}')\n"
        f"print(p.generate(Call(Request.of('hi'), '{MODEL}')).finish_reason); p.close()"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code], capture_output=True, text=True, check=True
    )
    assert (run.stdout.strip(), run.stderr) == ("stop", "")


def test_a_conversation_with_tools_becomes_turns() -> None:
    call_back = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    signed = {**call_back, "id": "c2", "extra_content": {"google": {"thought_signature": "c2ln"}}}
    body = request_body(
        call(
            messages=(
                {"role": "system", "content": "One."},
                {"role": "developer", "content": "Two."},
                {"role": "user", "content": "Ask."},
                {"role": "assistant", "content": None, "tool_calls": [call_back, signed]},
                {"role": "tool", "tool_call_id": "c1", "content": '{"b": 2}'},
                {"role": "tool", "tool_call_id": "c2", "content": "plain"},
            ),
            prefill="So far",
        ),
        json_schema=True,
    )
    part = {"functionCall": {"name": "f", "args": {"a": 1}}}
    assert body == {
        "systemInstruction": {"parts": [{"text": "One."}, {"text": "Two."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Ask."}]},
            {
                "role": "model",
                "parts": [part, {**part, "thoughtSignature": "c2ln"}],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "f", "response": {"b": 2}}},
                    {"functionResponse": {"name": "f", "response": {"result": "plain"}}},
                ],
            },
            {"role": "model", "parts": [{"text": "So far"}]},
        ],
    }


def test_settings_keep_their_meaning() -> None:
    options = {"temperature": 0, "top_p": 0.9, "stop": "END", "seed": 7, "n": 2, "reasoning_effort": "low", "user": "u"}
    body = request_body(call("x", max_output_tokens=100, options=options), json_schema=True)
    assert body["generationConfig"] == {
        "temperature": 0,
        "topP": 0.9,
        "seed": 7,
        "candidateCount": 2,
        "maxOutputTokens": 100,
        "stopSequences": ["END"],
        "thinkingConfig": {"thinkingBudget": 1024},
    }


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (None, None),
    ],
)
def test_a_tool_choice_becomes_a_calling_mode(choice: Any, config: Any) -> None:
    tools = ({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}},)
    body = request_body(call("x", tools=tools, tool_choice=choice), json_schema=True)
    assert body.get("toolConfig") == (None if config is None else {"functionCallingConfig": config})


def test_a_recursive_schema_is_rewritten_and_ends() -> None:
    schema = {
        "$ref": "#/$defs/Node",
        "$defs": {
            "Node": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                    "kind": {"const": "leaf"},
                    "tags": {"type": "array", "items": {"type": ["string", "null"]}},
                },
            }
        },
    }
    assert openapi_schema(schema) == {
        "type": "OBJECT",
        "properties": {
            "next": {"anyOf": [{"type": "OBJECT"}], "nullable": True},
            "kind": {"enum": ["leaf"], "type": "STRING"},
            "tags": {"type": "ARRAY", "items": {"type": "STRING", "nullable": True}},
        },
    }


def test_a_thought_signature_comes_back_with_its_tool_call() -> None:
    part = {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"}
    (delta,) = Reader().read({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]})
    (tool,) = delta.tool_calls
    assert tool["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert json.loads(tool["function"]["arguments"]) == {"a": 1}
    assert delta.finish_reason is FinishReason.TOOL_CALLS


def test_tool_calls_of_one_stream_are_numbered_through() -> None:
    reader = Reader()
    event = {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}}]}
    assert [reader.read(event)[0].tool_calls[0]["index"] for _ in range(3)] == [0, 1, 2]


def test_candidates_are_choices_and_never_mixed() -> None:
    reader = Reader()

    def said(*texts: str, finish: str = "") -> list[Delta]:
        parts = [{"content": {"parts": [{"text": text}]}, "index": place} for place, text in enumerate(texts) if text]
        return reader.read({"candidates": [{**part, **({"finishReason": finish} if finish else {})} for part in parts]})

    deltas = [*said("one ", "eins "), *said("", "zwei"), *said("two"), *said("!", ".", finish="STOP")]
    assert ["".join(delta.text for delta in deltas if delta.index == place) for place in (0, 1)] == [
        "one two!",
        "eins zwei.",
    ]
    assert [delta.index for delta in deltas if delta.finish_reason is FinishReason.STOP] == [0, 1]


def test_several_candidates_of_a_whole_answer_are_all_in_its_body() -> None:
    body = {
        "candidates": [
            {"content": {"parts": [{"text": text}]}, "finishReason": finish, "index": place}
            for place, (text, finish) in enumerate([("one", "STOP"), ("two", "MAX_TOKENS")])
        ],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4},
    }
    completion = Reader().completion(body)
    assert (completion.text, completion.usage) == ("one", Usage(3, 4))
    assert completion.raw is not None
    assert [(one["index"], one["message"]["content"], one["finish_reason"]) for one in completion.raw["choices"]] == [
        (0, "one", "stop"),
        (1, "two", "length"),
    ]
    del body["candidates"][1]["finishReason"]
    with pytest.raises(ProviderFailure, match="truncated"):
        Reader().completion(body)


ODD: list[Any] = [None, [], "x", {}, {"candidates": []}, {"candidates": [5]}, {"candidates": [{"content": "x"}]}]


@pytest.mark.parametrize("body", ODD, ids=str)
def test_what_is_no_event_truncates(body: Any) -> None:
    with pytest.raises(ProviderFailure) as caught:
        Reader().read(body)
    assert caught.value.category is Category.TRUNCATED
