"""Event streams are read the same however the network cuts them."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.sse import Event, EventParser, MalformedEvent

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=30)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def parsed(*chunks: bytes) -> list[Event]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def data(*chunks: bytes) -> list[str]:
    return [event.data for event in parsed(*chunks)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data\n\n", [""]),
        (b"data:\ndata:\n\n", ["\n"]),
        (b": comment\n\n", []),
        (b": OPENROUTER PROCESSING\ndata: a\n\n", ["a"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"event: x\n\n", []),
        (b"unknown: x\nretry: 5\ndata: a\n\n", ["a"]),
        (b"data: a\n", []),
        (b"\n\n\n", []),
        (b'data: {"a": "b: c"}\n\n', ['{"a": "b: c"}']),
    ],
)  # fmt: skip
def test_the_cases_of_the_standard(stream: bytes, expected: list[str]) -> None:
    assert data(stream) == expected
    assert data(*(bytes([byte]) for byte in stream)) == expected


def test_event_and_id_fields_are_kept() -> None:
    events = parsed(b"event: error\nid: 7\ndata: a\n\ndata: b\n\n")
    assert events == [Event("a", "error", "7"), Event("b", "message", "7")]


def test_comments_are_counted_so_that_a_driver_can_take_them_as_life() -> None:
    parser = EventParser()
    assert parser.feed(b": keep-alive\n\n:\n\n") == []
    assert parser.comments == 2


def test_a_code_point_split_between_reads_is_whole_again() -> None:
    stream = "data: 😀é\n\n".encode()
    for cut in range(len(stream) + 1):
        assert data(stream[:cut], stream[cut:]) == ["😀é"]


def test_what_came_before_a_malformed_event_is_given_however_it_was_cut() -> None:
    """An answer was lost with its finish when what followed `[DONE]` came in the same read."""
    parser = EventParser()
    assert [event.data for event in parser.feed(b"data: a\n\ndata: [DONE]\n\ndata: \xff\n\ndata: b\n\n")] == [
        "a",
        "[DONE]",
    ]
    with pytest.raises(MalformedEvent, match="UTF-8"):
        parser.feed(b"data: c\n\n")
    with pytest.raises(MalformedEvent, match="UTF-8"):
        parser.close()


def test_text_that_is_not_utf8_raises() -> None:
    with pytest.raises(MalformedEvent, match="UTF-8"):
        parsed(b"data: \xff\n\n")


def test_a_last_event_without_its_empty_line_is_given_at_the_end() -> None:
    parser = EventParser()
    assert parser.feed(b"data: [DONE]\n") == []
    assert parser.unfinished
    assert parser.close() == [Event("[DONE]")]


def test_half_a_line_is_never_given() -> None:
    parser = EventParser()
    assert parser.feed(b'data: {"half') == []
    assert parser.unfinished
    assert parser.close() == []
    assert not parser.unfinished


def test_an_event_without_end_raises_before_it_fills_the_memory() -> None:
    parser = EventParser(largest=1000)
    for _ in range(17):
        parser.feed(b"data: " + b"x" * 50 + b"\n")
    with pytest.raises(MalformedEvent, match="1000 bytes"):
        parser.feed(b"data: " + b"x" * 50 + b"\n")


def test_the_size_limit_is_for_one_event_and_not_for_the_stream() -> None:
    parser = EventParser(largest=1000)
    for _ in range(100):
        assert len(parser.feed(b"data: " + b"x" * 50 + b"\n\n")) == 1


def test_keep_alives_never_count_towards_the_size_of_an_event() -> None:
    parser = EventParser(largest=100)
    for _ in range(100):
        assert parser.feed(b": keep-alive\n\n") == []


def test_an_event_of_megabytes_in_small_reads_takes_linear_time() -> None:
    stream = b"data: " + b"x" * 8_000_000 + b"\n\n"
    parser, found = EventParser(), 0
    before = time.perf_counter()
    for start in range(0, len(stream), 1024):
        found += len(parser.feed(stream[start : start + 1024]))
    assert found == 1
    assert time.perf_counter() - before < 2.0


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=3), max_size=6), LINE_ENDS, st.data())
def test_any_cuts_and_line_ends_give_the_same_events(events: list[list[str]], end: str, draw: st.DataObject) -> None:
    stream = "".join("".join(f"data: {line}{end}" for line in lines) + end for lines in events).encode()
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[start:stop] for start, stop in itertools.pairwise(edges)]
    assert data(*chunks) == ["\n".join(lines) for lines in events]
