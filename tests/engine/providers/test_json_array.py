from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.providers.json_array import ArrayParser

TEXT = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=20)
JSON_OBJECT = st.dictionaries(
    TEXT, st.recursive(TEXT | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=5)
)


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


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
