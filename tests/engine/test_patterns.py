"""A caller's pattern can hold up nobody."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from engine.core.errors import InvalidRequest
from engine.validation import SchemaMismatch, check_document, compiled

EVIL = "^(a+)+$"
LONG = "a" * 5000 + "b"

CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "pattern": ({"type": "string", "pattern": EVIL}, LONG),
    "patternProperties": ({"patternProperties": {EVIL: {"type": "string"}}, "additionalProperties": False}, {LONG: 1}),
    "additionalProperties": (
        {"patternProperties": {EVIL: True}, "additionalProperties": {"type": "string"}},
        {LONG: 1},
    ),
    "propertyNames": ({"propertyNames": {"pattern": EVIL}}, {LONG: 1}),
    "another draft at the top": (
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": {"$ref": "#/definitions/a"},
         "definitions": {"a": {"pattern": EVIL}}},
        [LONG],
    ),
    "another draft inside": (
        {"items": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": EVIL}}, [LONG],
    ),
    "through itself": (
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "items": {"$ref": "#"}, "pattern": EVIL}, [[LONG]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_pattern_that_explodes_elsewhere_is_decided_at_once(case: str) -> None:
    schema, document = CASES[case]
    before = time.process_time()
    with pytest.raises(SchemaMismatch):
        check_document(schema, json.dumps(document))
    assert time.process_time() - before < 1.0


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)b", "(?<!a)b", r"(a)\1", "(a{1000}){1000}", "[", "x" * 2001],
    ids=["ahead", "behind", "back", "huge", "broken", "long"],
)
@pytest.mark.parametrize("keyword", ["pattern", "patternProperties"])
def test_what_takes_unbounded_time_is_refused_before_a_model_is_asked(pattern: str, keyword: str) -> None:
    inner: dict[str, Any] = {keyword: pattern if keyword == "pattern" else {pattern: True}}
    with pytest.raises(InvalidRequest, match="the JSON schema is refused: a pattern"):
        compiled({"properties": {"a": {"anyOf": [inner]}}})


def test_a_property_or_a_value_called_pattern_is_no_pattern() -> None:
    check_document({"properties": {"pattern": {"type": "string"}}, "default": {"pattern": "("}}, '{"pattern": "("}')


def test_patterns_and_unevaluated_properties_do_not_go_together() -> None:
    with pytest.raises(InvalidRequest, match="use additionalProperties"):
        compiled({"patternProperties": {"^a": True}, "unevaluatedProperties": False})


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (r"^\d{3}-\d{2}$", "123-45", True),
        (r"^[^\s@]+@[^\s@]+$", "a@b.c", True),
        (r"^\p{L}+$", "Äpfel", True),
        ("^\\u00e9$", "é", True),
        (r"^\\u00e9$", "é", False),
        ("b", "abc", True),
        ("^b", "abc", False),
    ],
)
def test_usual_patterns_mean_what_they_mean_elsewhere(pattern: str, text: str, fits: bool) -> None:
    try:
        check_document({"pattern": pattern}, json.dumps(text))
        found = True
    except SchemaMismatch:
        found = False
    assert found is fits


NAMES = st.sampled_from(["a", "ab", "b1", "x", "1"])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, st.sampled_from([True, {"type": "integer"}]), max_size=2),
            "patternProperties": st.dictionaries(
                st.sampled_from(["^a", "1$", "b"]), st.sampled_from([True, False, {"type": "string"}]), max_size=2
            ),
            "additionalProperties": st.sampled_from([True, False, {"type": "string"}]),
        },
    ),
    st.dictionaries(NAMES, st.integers(0, 3) | st.just("s"), max_size=4),
)
def test_harmless_schemas_are_decided_as_the_library_decides(schema: dict[str, Any], document: dict[str, Any]) -> None:
    expected = Draft202012Validator(schema).is_valid(document)
    assert compiled(schema).is_valid(document) is expected
