"""A stream cut at any byte, in pieces of any size, and continued with any overlap: the text is the same.

All the pure parts together, from the bytes of a connection to what a caller has: the readers of both wires and the
joiner, over text of one to four bytes a letter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.effects import Continuation
from engine.core.messages import Delta, FinishReason, Request
from engine.core.outcomes import ProviderFailure
from engine.core.seam import LEAST_UNBROKEN
from engine.core.sse import EventParser, MalformedEvent
from engine.core.stream import StreamJoiner
from engine.providers.gemini_answer import Reader
from engine.providers.json_array import ArrayParser
from engine.providers.openai_compatible import _deltas
from tests.engine.core.test_stream import answers, pieces_of


def openai_bytes(pieces: Sequence[str], *, ascii_only: bool) -> bytes:
    """A whole answer as server-sent events."""
    choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
    events = [{"choices": [one]} for one in [*choices, {"index": 0, "delta": {}, "finish_reason": "stop"}]]
    return "".join(f"data: {json.dumps(event, ensure_ascii=ascii_only)}\r\n\r\n" for event in events).encode()


def openai_read(reads: Sequence[bytes]) -> Iterator[Delta]:
    parser = EventParser()
    for read in reads:
        for event in parser.feed(read):
            yield from _deltas(event.data, begun=True)
    for event in parser.close():
        yield from _deltas(event.data, begun=True)


def gemini_bytes(pieces: Sequence[str], *, ascii_only: bool) -> bytes:
    """A whole answer as Gemini's array."""
    events = [{"candidates": [{"content": {"parts": [{"text": piece}]}}]} for piece in pieces]
    events.append({"candidates": [{"finishReason": "STOP"}]})  # type: ignore[list-item]  # another shape
    return json.dumps(events, ensure_ascii=ascii_only, indent=1).encode()


def gemini_read(reads: Sequence[bytes]) -> Iterator[Delta]:
    parser, reader = ArrayParser(), Reader()
    for read in reads:
        for element in parser.feed(read):
            yield from reader.read(json.loads(element))


WIRES = {"openai": (openai_bytes, openai_read), "gemini": (gemini_bytes, gemini_read)}


@pytest.mark.parametrize("wire", WIRES)
@given(answers(), st.booleans(), st.data())
def test_cut_at_any_byte_and_continued_the_text_is_the_same(
    wire: str, answer: str, ascii_only: bool, data: st.DataObject
) -> None:
    said, read = WIRES[wire]
    joiner, got, finishes = StreamJoiner(Request.of("hello")), "", list[FinishReason]()
    how: Continuation | None = None
    rest = answer
    for last in (False, False, True):
        whole = said(data.draw(pieces_of(rest)), ascii_only=ascii_only)
        kept = whole if last else whole[: data.draw(st.integers(0, len(whole)))]
        size = data.draw(st.integers(1, 40))
        joiner.begin(how)
        try:
            for delta in read([kept[start : start + size] for start in range(0, len(kept), size)]):
                for passed in joiner.feed(delta):
                    got += passed.text
                    finishes += [passed.finish_reason] if passed.finish_reason else []
        except (ProviderFailure, MalformedEvent, ValueError):
            assert not last, "a whole stream is no break"
        assert got == joiner.delivered == answer[: len(got)]
        if joiner.finished:
            break
        if joiner.shown:
            how = data.draw(st.sampled_from(Continuation))
        overlaps = [0, *range(LEAST_UNBROKEN, len(got) + 1)] if joiner.shown else [0]
        rest = answer[len(got) - data.draw(st.sampled_from(overlaps)) :]
    assert got == answer
    assert finishes == [FinishReason.STOP]
