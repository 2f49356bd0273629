"""The request that asks another model for the rest of an answer."""

from __future__ import annotations

from engine.core.continuation import INSTRUCTION, continue_with
from engine.core.effects import (
    Continuation,
)
from engine.core.messages import Request

REQUEST = Request(
    messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}),
    max_output_tokens=100,
    options={"temperature": 0, "vendor_field": {"x": 1}},
    session="s",
    id="r",
)


def test_a_prefill_leaves_the_request_as_it_is() -> None:
    assert continue_with(REQUEST, "Because sh", Continuation.PREFILL) == (REQUEST, "Because sh")


def test_a_history_holds_the_delivered_text_exactly_and_then_the_instruction() -> None:
    request, prefill = continue_with(REQUEST, "Because sh ", Continuation.HISTORY)
    assert prefill == ""
    assert request.messages == (
        *REQUEST.messages,
        {"role": "assistant", "content": "Because sh "},
        {"role": "user", "content": INSTRUCTION},
    )


def test_everything_but_the_messages_goes_along_untouched() -> None:
    request, _ = continue_with(REQUEST, "Because", Continuation.HISTORY)
    assert (request.options, request.max_output_tokens) == (REQUEST.options, 100)
    assert (request.session, request.id) == ("s", "r")


def test_the_callers_request_is_not_changed() -> None:
    before = REQUEST.messages
    continue_with(REQUEST, "Because", Continuation.HISTORY)
    assert REQUEST.messages is before
    assert len(before) == 2


def test_the_instruction_can_be_another_one() -> None:
    request, _ = continue_with(REQUEST, "Parce", Continuation.HISTORY, "Continue exactement.")
    assert request.messages[-1] == {"role": "user", "content": "Continue exactement."}


def test_what_was_spent_is_taken_off_the_length_and_something_is_always_left() -> None:
    for how in Continuation:
        assert continue_with(REQUEST, "x", how, spent_tokens=30)[0].max_output_tokens == 70
        assert continue_with(REQUEST, "x", how, spent_tokens=500)[0].max_output_tokens == 1


def test_no_length_is_invented_where_the_caller_gave_none() -> None:
    request = Request(messages=REQUEST.messages)
    assert continue_with(request, "x", Continuation.PREFILL, spent_tokens=30)[0].max_output_tokens is None


def test_the_callers_own_prefill_and_the_delivered_text_become_one_message() -> None:
    begun = Request(messages=(*REQUEST.messages, {"role": "assistant", "content": "Well, ", "name": "bot"}))
    history, _ = continue_with(begun, "because", Continuation.HISTORY)
    assert history.messages[2] == {"role": "assistant", "content": "Well, because", "name": "bot"}
    assert [message["role"] for message in history.messages] == ["system", "user", "assistant", "user"]
    request, prefill = continue_with(begun, "because", Continuation.PREFILL)
    assert (request.messages, prefill) == (REQUEST.messages, "Well, because")


def test_a_prefill_made_of_parts_gets_another_part() -> None:
    parts = [{"type": "text", "text": "Well, "}]
    begun = Request(messages=(*REQUEST.messages, {"role": "assistant", "content": parts}))
    history, _ = continue_with(begun, "because", Continuation.HISTORY)
    assert history.messages[2]["content"] == [*parts, {"type": "text", "text": "because"}]
    assert len(parts) == 1


def test_tool_results_stay_before_the_delivered_text() -> None:
    tool = {"role": "tool", "tool_call_id": "1", "content": "42"}
    called = Request(messages=(*REQUEST.messages, {"role": "assistant", "tool_calls": [{"id": "1"}]}, tool))
    history, _ = continue_with(called, "It is", Continuation.HISTORY)
    assert history.messages[3] is tool
    assert history.messages[4] == {"role": "assistant", "content": "It is"}


def test_a_limit_that_passes_through_as_a_field_is_shortened_too() -> None:
    asked = Request(messages=REQUEST.messages, max_output_tokens=100, options={"max_completion_tokens": 100, "seed": 1})
    request, _ = continue_with(asked, "x", Continuation.HISTORY, spent_tokens=30)
    assert request.options == {"max_completion_tokens": 70, "seed": 1}
    assert asked.options["max_completion_tokens"] == 100
