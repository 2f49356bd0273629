from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.providers.json_array import ArrayParser
from engine.providers.sse import EventParser

TEXT = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=20)
JSON_OBJECT = st.dictionaries(
    TEXT, st.recursive(TEXT | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=5)
)


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    st.lists(st.lists(TEXT, min_size=1, max_size=3)), st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0))
)
def test_events_are_the_same_however_their_bytes_are_cut(events: list[list[str]], end: str, places: list[int]) -> None:
    lines = [line for event in events for line in [*(f"data: {data}" for data in event), ": comment", ""]]
    parser = EventParser()
    given_out = [
        data for chunk in _cut("".join(line + end for line in lines).encode(), places) for data in parser.feed(chunk)
    ]
    # A CR at the very end may be half of a CRLF, yet the line it ends is complete.
    assert given_out == ["\n".join(event) for event in events]


def test_an_event_without_its_blank_line_is_not_given_out() -> None:
    assert list(EventParser().feed(b"data: 1\n\ndata: 2\n")) == ["1"]


def test_comments_and_other_fields_and_a_byte_order_mark_are_skipped() -> None:
    data = b"\xef\xbb\xbf: hello\n\nevent: x\nid: 1\nretry: 5\ndata:{}\n\n"
    assert list(EventParser().feed(data)) == ["{}"]


def test_a_line_of_megabytes_is_cheap_and_whole() -> None:
    parser, image = EventParser(), "x" * 5_000_000
    data = f"data: {image}\n\n".encode()
    found = [event for start in range(0, len(data), 4096) for event in parser.feed(data[start : start + 4096])]
    assert found == [image]


@given(st.lists(JSON_OBJECT), st.booleans(), st.lists(st.integers(0)))
def test_elements_are_the_same_however_their_bytes_are_cut(
    elements: list[dict[str, object]], pretty: bool, places: list[int]
) -> None:
    data = json.dumps(elements, indent=1 if pretty else None, ensure_ascii=pretty).encode()
    parser = ArrayParser()
    found = [json.loads(text) for chunk in _cut(data, places) for text in parser.feed(chunk)]
    assert found == elements
    assert not parser.within


def test_a_cut_element_is_noticed() -> None:
    parser = ArrayParser()
    assert list(parser.feed(b'[{"a": 1},\r\n{"b": "}')) == ['{"a": 1}']
    assert parser.within


def test_a_body_that_is_no_array_is_refused() -> None:
    with pytest.raises(ValueError, match="not a JSON array"):
        list(ArrayParser().feed(b"<html>"))
