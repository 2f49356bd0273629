"""However attempts break, the caller's stream is one answer, or ends with the truth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.core.effects import (
    Continuation,
)
from engine.core.messages import Delta, FinishReason, Request, Usage
from engine.core.outcomes import Category, ProviderFailure
from engine.core.seam import LEAST_OVERLAP, LEAST_UNBROKEN
from engine.core.stream import DIVERGED, LONGEST_HELD, MOST_HELD, StreamJoiner

PREFILL, HISTORY = Continuation.PREFILL, Continuation.HISTORY
STOP = Delta(finish_reason=FinishReason.STOP)
PLAIN = Request.of("hello")
ROLE = Delta(life=True, raw={"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
THOUGHT = Delta(life=True)
REFUSAL = Delta(refusal="I cannot")
SOUND = Delta(other=True, raw={"choices": [{"index": 0, "delta": {"audio": {"data": "AA=="}}}]})
TOOL = Delta(tool_calls=({"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"a'}},))


def joiner(request: Request = PLAIN) -> StreamJoiner:
    fresh = StreamJoiner(request)
    fresh.begin()
    return fresh


def fed(stream: StreamJoiner, *deltas: Delta) -> list[Delta]:
    return [passed for delta in deltas for passed in stream.feed(delta)]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def chunk(content: str, finish: str | None = None, *, role: bool = False, **fields: Any) -> Delta:
    """A delta with its raw OpenAI chunk."""
    body: dict[str, Any] = {"role": "assistant", "content": content} if role else {"content": content}
    raw = {"id": "c", "choices": [{"index": 0, "delta": body, "finish_reason": finish}], "vendor": 1, **fields}
    return Delta(content, FinishReason(finish) if finish else None, raw=raw)


# -- before the first content ----------------------------------------------------------------------------------


def test_nothing_is_passed_on_before_the_first_content() -> None:
    stream = joiner()
    assert fed(stream, ROLE, THOUGHT, Delta(), ROLE) == []
    assert (stream.shown, stream.restartable, stream.resumable, stream.finished) == (False, True, False, False)


def test_the_preamble_goes_out_in_order_with_the_first_content() -> None:
    stream, first = joiner(), chunk("Hello")
    passed = fed(stream, ROLE, THOUGHT, first)
    assert passed == [ROLE, first]
    assert passed[0] is ROLE
    assert passed[1] is first
    assert (stream.shown, stream.restartable, stream.delivered) == (True, False, "Hello")


@pytest.mark.parametrize("content", [TOOL, REFUSAL, SOUND], ids=["tool call", "refusal", "sound"])
def test_more_than_text_is_content(content: Delta) -> None:
    stream = joiner()
    assert fed(stream, ROLE, content) == [ROLE, content]
    assert stream.shown
    assert len(fed(stream, *[content] * (MOST_HELD + 100))) == MOST_HELD + 100, "none of it is dropped"


def test_the_preamble_of_a_dead_attempt_is_forgotten() -> None:
    stream = joiner()
    fed(stream, ROLE)
    assert stream.flush() == ()
    stream.begin()
    assert fed(stream, Delta("Hi"), STOP) == [Delta("Hi"), STOP]


def test_an_answer_without_content_is_its_preamble_and_its_finish() -> None:
    stream = joiner()
    assert fed(stream, ROLE, STOP) == [ROLE, STOP]
    assert (stream.finished, stream.shown, stream.resumable) == (True, False, False)


def test_a_finish_that_nobody_saw_does_not_end_the_next_attempt() -> None:
    stream = joiner()
    fed(stream, STOP)
    stream.begin()
    assert not stream.finished
    assert fed(stream, Delta("Hi"), STOP) == [Delta("Hi"), STOP]


def thought(text: Any, **fields: Any) -> Delta:
    body = {"role": "assistant", "content": None, "reasoning_content": text, **fields}
    return Delta(life=True, raw={"choices": [{"index": 0, "delta": body, "finish_reason": None}]})


def test_a_preamble_without_end_is_not_kept_without_end() -> None:
    stream = joiner()
    fed(stream, *[thought("a", details=[place]) for place in range(MOST_HELD + 100)])
    assert len(fed(stream, Delta("Hi"))) == MOST_HELD + 1


def test_thoughts_are_held_as_one_and_none_is_lost() -> None:
    stream = joiner()
    thoughts = [thought(f"{place} ", content="" if place == 5 else None) for place in range(MOST_HELD * 4)]
    held, content = fed(stream, ROLE, *thoughts, Delta("Hi"))
    assert held.raw is not None
    assert held.raw["choices"][0]["delta"] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "".join(f"{place} " for place in range(MOST_HELD * 4)),
    }
    assert (held.life, content.text) == (True, "Hi")


@pytest.mark.parametrize(
    "other",
    [
        replace(thought("b"), index=1, raw={"choices": [{"index": 1, "delta": {"reasoning_content": "b"}}]}),
        replace(thought("b"), raw={"choices": [{"index": 0, "delta": {"reasoning_content": "b"}, "logprobs": {}}]}),
        replace(thought("b"), usage=Usage(1, 1)),
        thought({"text": "b"}),
        thought("b", role="critic"),
    ],
    ids=["choice", "logprobs", "usage", "no text", "role"],
)
def test_what_is_of_another_kind_is_held_apart(other: Delta) -> None:
    stream, first = joiner(), thought("a")
    assert fed(stream, first, other, Delta("Hi"))[:2] == [first, other]


def test_of_endless_thoughts_the_rest_is_lost() -> None:
    stream = joiner()
    held, _ = fed(stream, *[thought("a" * 100_000)] * 20, Delta("Hi"))
    assert held.raw is not None
    assert len(held.raw["choices"][0]["delta"]["reasoning_content"]) == LONGEST_HELD // 100_000 * 100_000


def test_events_that_show_nothing_are_not_passed_on_after_content_either() -> None:
    stream = joiner()
    fed(stream, Delta("Hi"))
    assert fed(stream, THOUGHT) == []
    assert fed(stream, ROLE) == [ROLE]


def test_the_halves_of_a_code_point_are_passed_on_as_one() -> None:
    stream = joiner()
    passed = fed(stream, chunk("x\ud83d"), chunk("\ude00y"))
    assert text(passed) == stream.delivered == "x😀y"
    assert "".join(delta.raw["choices"][0]["delta"]["content"] for delta in passed if delta.raw) == "x😀y"


def test_half_a_code_point_that_stays_alone_becomes_the_replacement_character() -> None:
    for events in ([chunk("x\ud83d"), chunk("", "stop")], [chunk("x\ud83d", "stop")], [chunk("x\udead", "stop")]):
        assert text(fed(joiner(), *events)) == "x\ufffd"


def test_half_a_code_point_is_not_delivered_when_its_attempt_breaks() -> None:
    stream = joiner()
    fed(stream, Delta("a\ud83d"))
    assert stream.delivered == "a"
    stream.begin(PREFILL)
    assert text(fed(stream, Delta("😀b"))) == "😀b"


# -- the finish ------------------------------------------------------------------------------------------------


def test_the_finish_goes_out_once_and_after_it_only_usage() -> None:
    stream, usage = joiner(), Delta(usage=Usage(3, 5), raw={"choices": [], "usage": {"prompt_tokens": 3}})
    assert fed(stream, Delta("Hi"), STOP) == [Delta("Hi"), STOP]
    assert stream.finished
    assert fed(stream, STOP, THOUGHT, ROLE, STOP) == []
    assert fed(stream, usage) == [usage]
    assert stream.delivered == "Hi"


def test_of_a_second_finish_with_usage_the_usage_is_passed_on() -> None:
    stream = joiner()
    fed(stream, Delta("Hi"), STOP)
    second = Delta("Hi", FinishReason.STOP, Usage(3, 5), raw={"choices": [{"index": 0}], "usage": {}})
    assert fed(stream, second) == [Delta(usage=Usage(3, 5), raw={"choices": [], "usage": {}})]


def test_a_finish_that_more_content_follows_was_none() -> None:
    stream = joiner()
    events = [Delta("Hi", FinishReason.STOP), Delta(" there"), Delta(", you", FinishReason.STOP)]
    assert fed(stream, *events[:2]) == events[:2]
    assert not stream.finished
    assert fed(stream, events[2]) == events[2:]
    assert (stream.finished, stream.delivered) == (True, "Hi there, you")


def test_a_last_event_that_is_sent_twice_is_passed_on_once() -> None:
    called = {"index": 0, "id": "made up", "function": {"name": "f", "arguments": "{}"}}
    for last in (Delta(" end", FinishReason.STOP), Delta(tool_calls=(called,), finish_reason=FinishReason.TOOL_CALLS)):
        stream = joiner()
        again = replace(last, tool_calls=tuple({**call, "id": "another"} for call in last.tool_calls))
        assert fed(stream, Delta("The"), last, again) == [Delta("The"), last]
        assert stream.finished


def test_the_end_without_a_finish_reason_is_not_a_finish() -> None:
    stream = joiner()
    fed(stream, Delta("Hi", usage=Usage(3, 5)))
    assert not stream.finished


def test_text_and_finish_in_one_event_pass_as_they_are() -> None:
    stream, only = joiner(), chunk("Hi", "stop")
    assert fed(stream, only)[0] is only
    assert (stream.finished, stream.delivered) == (True, "Hi")


def test_several_choices_pass_unchanged_and_finish_one_by_one() -> None:
    stream = joiner(Request(messages=PLAIN.messages, options={"n": 2}))
    events = [Delta("a"), Delta("x", index=1), Delta("b"), STOP, Delta("y", index=1)]
    assert fed(stream, *events) == events
    assert not stream.finished
    assert fed(stream, STOP, Delta(finish_reason=FinishReason.LENGTH, index=1)) == [
        Delta(finish_reason=FinishReason.LENGTH, index=1)
    ]
    assert (stream.finished, stream.delivered) == (True, "ab")


# -- what can be continued -------------------------------------------------------------------------------------


def test_plain_text_can_be_continued() -> None:
    stream = joiner()
    fed(stream, Delta("Hello"))
    assert stream.resumable


@pytest.mark.parametrize(
    ("request_", "deltas"),
    [
        (PLAIN, [Delta("Let me look."), TOOL]),
        (PLAIN, [TOOL]),
        (PLAIN, [Delta("Well,"), REFUSAL]),
        (PLAIN, [Delta("Listen:"), SOUND]),
        (PLAIN, [Delta("Hello"), STOP]),
        (PLAIN, [Delta("Hello"), Delta("Hi", index=1)]),
        (PLAIN, [Delta(' {"a": 1')]),
        (PLAIN, [Delta('[\n  {"a')]),
        (PLAIN, [Delta('```json\n{"a": "`'), Delta("` b")]),
        (Request(PLAIN.messages, options={"n": 2}), [Delta("Hello")]),
        (Request(PLAIN.messages, response_format={"type": "json_object"}), [Delta("Hello")]),
        (Request(PLAIN.messages, response_format={"type": "json_schema"}), [Delta("Hello")]),
    ],
    ids=[
        "tool after text",
        "tool",
        "refusal",
        "sound",
        "finished",
        "choices",
        "object",
        "array",
        "fenced",
        "n",
        "json_object",
        "json_schema",
    ],
)
def test_what_cannot_be_continued(request_: Request, deltas: list[Delta]) -> None:
    stream = joiner(request_)
    fed(stream, *deltas)
    assert stream.shown
    assert not stream.resumable


@pytest.mark.parametrize(
    "begun",
    ["[1] A citation", "[a link](x)", "Text with {braces", '```json\n{"a": 1}\n```\nThis says', "```js\n{ let a"],
)
def test_text_with_brackets_is_no_document(begun: str) -> None:
    stream = joiner()
    fed(stream, Delta(begun))
    assert stream.resumable


def test_one_choice_asked_for_by_number_is_one_choice() -> None:
    stream = joiner(Request(PLAIN.messages, options={"n": 1}))
    fed(stream, Delta("Hello"))
    assert stream.resumable


def test_a_fresh_start_over_shown_text_is_refused() -> None:
    stream = joiner()
    with pytest.raises(ValueError, match="nothing was shown"):
        stream.begin(HISTORY)
    fed(stream, Delta("Hello"))
    with pytest.raises(ValueError, match="something was shown"):
        stream.begin()


# -- the seam --------------------------------------------------------------------------------------------------

DELIVERED = "The sky is blue because short waves"


def broken(*deltas: Delta, how: Continuation = HISTORY) -> StreamJoiner:
    stream = joiner()
    fed(stream, ROLE, *(deltas or (chunk(DELIVERED),)))
    stream.begin(how)
    return stream


def test_a_clean_continuation_passes_unchanged_without_a_second_preamble() -> None:
    stream, rest = broken(), chunk(" scatter more.")
    passed = fed(stream, ROLE, THOUGHT, rest, STOP)
    assert passed == [rest, STOP]
    assert passed[0] is rest
    assert stream.delivered == DELIVERED + " scatter more."


def test_a_start_over_is_trimmed_in_text_and_raw_chunk() -> None:
    stream = broken()
    passed = fed(stream, chunk("The sky is blue ", role=True), chunk("because short waves scat"), chunk("ter"))
    assert passed == [chunk(" scat"), chunk("ter")]
    assert stream.delivered == DELIVERED + " scatter"


def test_trimming_never_changes_the_providers_own_chunk() -> None:
    stream, original = broken(), chunk(DELIVERED + " scatter", role=True)
    assert fed(stream, original) == [chunk(" scatter")]
    assert original == chunk(DELIVERED + " scatter", role=True)


def test_the_role_is_not_given_a_second_time() -> None:
    stream = broken()
    assert fed(stream, chunk(" scatter", role=True), chunk(" more", role=True)) == [chunk(" scatter"), chunk(" more")]


def test_a_finish_decides_what_was_open() -> None:
    stream = broken()
    assert fed(stream, Delta("The sky"), STOP) == [Delta("The sky"), STOP]


def test_a_finish_with_the_last_of_a_repeat_keeps_its_finish() -> None:
    stream = broken()
    assert fed(stream, chunk(DELIVERED, "stop")) == [chunk("", "stop")]
    assert stream.finished


def test_a_tool_call_after_the_seam_is_passed_on_behind_the_text() -> None:
    stream = broken()
    assert fed(stream, Delta("The"), TOOL) == [Delta("The"), TOOL]
    assert not stream.resumable


def test_a_continuation_that_breaks_while_it_repeats_leaves_everything_as_it_was() -> None:
    stream = broken()
    assert fed(stream, Delta("The sky is")) == []
    assert stream.flush() == ()
    assert (stream.delivered, stream.resumable) == (DELIVERED, True)
    stream.begin(PREFILL)
    assert fed(stream, Delta(" scatter"), STOP) == [Delta(" scatter"), STOP]


def test_a_start_over_in_other_words_is_a_failure_and_passes_nothing_on() -> None:
    delivered = DELIVERED + " scatter more than long ones"
    stream = broken(Delta(delivered))
    assert fed(stream, Delta(DELIVERED)) == []
    with pytest.raises(ProviderFailure) as caught:
        stream.feed(Delta(", as we know,"))
    assert (caught.value.category, caught.value.code) == (Category.SEMANTIC, DIVERGED)
    assert (stream.delivered, stream.shown, stream.finished) == (delivered, True, False)


# -- properties ------------------------------------------------------------------------------------------------

LETTERS = st.text(st.sampled_from("aé\u0301ß漢字😀👩\u200d \n"), max_size=4)
"""Multi-byte letters, a combining mark, and the joiner of emoji: cuts fall inside what a reader sees as one."""


@st.composite
def answers(draw: st.DrawFn, least: int = 2) -> str:
    """Answers that never repeat themselves: every piece begins with a character of its own."""
    pieces = draw(st.lists(LETTERS, min_size=least, max_size=25))
    return "".join(f"{chr(0x3400 + number)}{piece}" for number, piece in enumerate(pieces))


@st.composite
def pieces_of(draw: st.DrawFn, whole: str) -> list[str]:
    """A text as the events of a stream."""
    sizes = itertools.cycle(draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)))
    pieces: list[str] = []
    while whole:
        size = next(sizes)
        pieces.append(whole[:size])
        whole = whole[size:]
    return pieces


def played(stream: StreamJoiner, pieces: list[str]) -> Iterator[Delta]:
    for piece in pieces:
        yield from stream.feed(Delta(piece))


@given(answers(), st.data())
def test_no_character_is_lost_or_doubled_however_often_and_wherever_it_breaks(answer: str, data: st.DataObject) -> None:
    stream, passed = joiner(), list[Delta]()
    cut = data.draw(st.integers(1, len(answer)))
    passed += played(stream, data.draw(pieces_of(answer[:cut])))
    for _ in range(data.draw(st.integers(1, 4))):
        how, before = data.draw(st.sampled_from(Continuation)), stream.delivered
        assert before == answer[: len(before)]
        overlaps = [0, *range(LEAST_UNBROKEN, len(before) + 1)] + ([len(before)] if how is HISTORY else [])
        overlap = data.draw(st.sampled_from(overlaps))
        until = data.draw(st.integers(len(before), len(answer)))
        stream.begin(how)
        passed += played(stream, data.draw(pieces_of(answer[len(before) - overlap : until])))
    rest = answer[len(stream.delivered) :]
    stream.begin(PREFILL)
    passed += fed(stream, ROLE, *map(Delta, data.draw(pieces_of(rest))), STOP, STOP)
    assert text(passed) == stream.delivered == answer
    assert stream.finished
    assert [delta for delta in passed if delta.finish_reason is not None] == [STOP]


@given(st.text("ab", min_size=1, max_size=40), st.text("ab", max_size=40), st.sampled_from(Continuation), st.data())
def test_even_of_repetitive_text_only_a_repeat_is_ever_trimmed(
    delivered: str, said: str, how: Continuation, data: st.DataObject
) -> None:
    assume(said)
    stream = broken(Delta(delivered), how=how)
    try:
        passed = text(fed(stream, *map(Delta, data.draw(pieces_of(said))), STOP))
    except ProviderFailure:
        assert stream.delivered == delivered
        return
    trimmed = said[: len(said) - len(passed)]
    assert trimmed + passed == said
    assert delivered.endswith(trimmed)
    assert stream.delivered == delivered + passed


@given(answers(), st.integers(0, LEAST_OVERLAP - 1), st.data())
def test_a_short_overlap_after_a_prefill_is_never_trimmed(answer: str, overlap: int, data: st.DataObject) -> None:
    overlap = min(overlap, len(answer) - 1)
    said = answer[len(answer) - overlap :] + "!"
    stream = broken(Delta(answer), how=PREFILL)
    assert text(fed(stream, *map(Delta, data.draw(pieces_of(said))), STOP)) == said


@given(answers(), answers(), st.sampled_from(Continuation), st.data())
def test_no_more_is_held_than_was_delivered(delivered: str, said: str, how: Continuation, data: st.DataObject) -> None:
    stream = broken(Delta(delivered), how=how)
    fed_so_far = passed_so_far = 0
    with suppress(ProviderFailure):
        for piece in data.draw(pieces_of(delivered + said)):
            fed_so_far += len(piece)
            passed_so_far += len(text(fed(stream, Delta(piece))))
            assert fed_so_far - passed_so_far <= len(delivered)


EVENTS = [ROLE, THOUGHT, Delta("a"), Delta("b", index=1), TOOL, STOP, Delta(usage=Usage(1, 1))]


@given(st.lists(st.sampled_from(EVENTS)))
def test_in_any_order_of_events_no_content_is_lost_and_a_finish_is_repeated_only_behind_content(
    events: list[Delta],
) -> None:
    stream = joiner()
    passed = fed(stream, *events)
    assert [delta for delta in passed if delta.has_content] == [delta for delta in events if delta.has_content]
    firsts = [delta for delta in passed if delta.index == 0 and (delta.has_content or delta.finish_reason is not None)]
    assert not any(left.finish_reason and right.finish_reason for left, right in itertools.pairwise(firsts))
    assert (STOP in passed) == (STOP in events)
    if passed:
        assert stream.shown or stream.finished
