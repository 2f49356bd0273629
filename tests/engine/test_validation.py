"""Answers are held to the caller's schema and to the application's validators."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import InvalidRequest, SemanticFailure
from engine.core.messages import FinishReason, Reply, Request, Role, Usage
from engine.core.policy import ManagerPolicy, ModelFacts, ValidationPolicy
from engine.validation import SchemaMismatch, check_document, check_reply, check_schema, compiled

MODEL = ModelFacts("m", "m", "p")
STRICT = ManagerPolicy("chat", MODEL, MODEL, validation=ValidationPolicy(json_schema=True))
LAX = replace(STRICT, validation=ValidationPolicy())
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def asking(schema: Any) -> Request:
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    return Request(messages=({"role": "user", "content": "a secret prompt"},), response_format=wanted)


def saying(text: str, **fields: Any) -> Reply:
    reply = Reply(text, "m", Role.PRIMARY, 1, Usage(), "r", FinishReason.STOP)
    return replace(reply, **fields)


def test_an_answer_that_follows_the_schema_passes() -> None:
    check_reply(asking(PERSON), saying('{"name": "Ada", "age": 36}'), STRICT)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"age": 36}', "required"),
        ('{"name": 7}', "properties/name/type"),
        ('{"name": "Ada", "age": -1}', "properties/age/minimum"),
        ('{"name": "Ada", "secret": 1}', "additionalProperties"),
        ("[]", "type"),
        ('{"name": "Ad', "ends before"),
        ('{"name": "Ada",', "ends before"),
        ("", "no JSON document"),
        ("Sure! Here is the JSON: {}", "no JSON document"),
        ('{"name": "Ada"} and more', "no JSON document"),
        ('{"name": NaN}', "no JSON document"),
        ("[" * 100_000, "no JSON document"),
        ("1" * 5_000, "no JSON document"),
    ],
)
def test_an_answer_that_breaks_the_schema_is_a_semantic_failure(text: str, said: str) -> None:
    with pytest.raises(SemanticFailure, match=said) as caught:
        check_reply(asking(PERSON), saying(text), STRICT)
    assert len(caught.value.message) <= 200


@given(st.text("abcdefgh", min_size=6, max_size=12))
def test_what_is_said_never_quotes_the_answer(word: str) -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}, "propertyNames": {"maxLength": 40}}
    for text in (json.dumps({word: word}), json.dumps({word * 10: 1}), json.dumps([word]), f'{{"{word}": "{word}'):
        with pytest.raises(SchemaMismatch) as caught:
            check_document(schema, text)
        assert word not in caught.value.message


def test_a_deep_place_is_cut_to_two_hundred_characters() -> None:
    schema: dict[str, Any] = {"type": "string"}
    document: Any = 1
    for _ in range(30):
        schema, document = {"properties": {"a_rather_long_name": schema}}, {"a_rather_long_name": document}
    with pytest.raises(SchemaMismatch) as caught:
        check_document(schema, json.dumps(document))
    assert len(caught.value.message) == 200


def test_nothing_is_checked_unless_the_policy_says_so() -> None:
    check_reply(asking(PERSON), saying("no JSON"), LAX)
    check_schema(asking({"type": "nonsense"}), LAX)


def test_a_request_without_a_schema_has_nothing_to_break() -> None:
    check_reply(Request(messages=(), response_format={"type": "json_object"}), saying("no JSON"), STRICT)


def test_tool_calls_are_not_the_document() -> None:
    check_reply(asking(PERSON), saying("", tool_calls=({"id": "1"},)), STRICT)


def test_a_refusal_is_not_the_document() -> None:
    check_reply(asking(PERSON), saying("", refusal="I cannot help with that."), STRICT)


def test_an_answer_cut_by_a_content_filter_passes_with_its_finish_reason() -> None:
    check_reply(asking(PERSON), saying('{"name', finish_reason=FinishReason.CONTENT_FILTER), STRICT)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"required": "name"},
        {"properties": {"a": {"minimum": "x"}}},
        {"pattern": "("},
        {"const": {1, 2}},
    ],
)
def test_a_broken_schema_is_the_callers_invalid_request(schema: Any) -> None:
    with pytest.raises(InvalidRequest, match="schema") as caught:
        check_schema(asking(schema), STRICT)
    assert caught.value.param == "response_format"
    with pytest.raises(InvalidRequest, match="schema"):
        check_reply(asking(schema), saying("{}"), STRICT)


def test_a_schema_that_never_ends_is_the_callers_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match="nest too deeply"):
        check_document({"$ref": "#"}, "{}")


def test_references_are_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        pytest.fail("a schema made the server open a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    for address in ("http://127.0.0.1:9/schema", "file:///etc/passwd", "other.json"):
        with pytest.raises(InvalidRequest, match="outside itself"):
            check_document({"$ref": address}, "{}")


def test_references_inside_the_schema_work() -> None:
    schema = {"$ref": "#/$defs/person", "$defs": {"person": PERSON}}
    check_document(schema, '{"name": "Ada"}')
    with pytest.raises(SchemaMismatch):
        check_document(schema, "{}")


def test_the_draft_that_a_schema_names_is_the_one_it_is_read_by() -> None:
    tuple_form = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    with pytest.raises(SchemaMismatch):
        check_document(tuple_form, "[1]")


def test_equal_schemas_are_compiled_once() -> None:
    assert compiled(PERSON) is compiled(dict(reversed(PERSON.items())))


def test_validators_see_request_and_reply_in_order() -> None:
    seen: list[str] = []
    request = Request.of("hello")

    def first(given_request: Request, given_reply: Reply) -> None:
        assert given_request is request
        seen.append(given_reply.text)

    def second(_request: Request, _reply: Reply) -> None:
        seen.append("second")

    check_reply(request, saying("hi"), LAX, (first, second))
    assert seen == ["hi", "second"]


def test_a_validators_rejection_is_the_failure_itself() -> None:
    failure = SemanticFailure("too rude")

    def reject(_request: Request, _reply: Reply) -> None:
        raise failure

    with pytest.raises(SemanticFailure) as caught:
        check_reply(Request.of("hello"), saying("hi"), LAX, (reject,))
    assert caught.value is failure


def test_any_other_exception_of_a_validator_surfaces_as_itself() -> None:
    def broken(_request: Request, reply: Reply) -> None:
        reply.text.nonsense()  # type: ignore[attr-defined]

    with pytest.raises(AttributeError):
        check_reply(Request.of("hello"), saying("hi"), LAX, (broken,))


def test_an_asynchronous_validator_is_refused_instead_of_accepting_everything() -> None:
    async def check(_request: Request, _reply: Reply) -> None:
        raise SemanticFailure("never heard")

    with pytest.raises(TypeError, match="asynchronous"):
        check_reply(Request.of("hello"), saying("hi"), LAX, (check,))  # type: ignore[arg-type]
