"""Whether an answer means what the caller asked for: the caller's JSON schema, and validators of the application.

An answer that breaks the schema is a semantic failure of the model; a schema that is itself broken is the caller's
invalid request. What is said about a rejected answer names keywords and places of the schema and never quotes the
answer or the prompt, because it is stored and shown.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.protocols import Validator as SchemaValidator
from jsonschema.validators import extend, validator_for
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # it ships no types
from referencing.exceptions import Unresolvable

from engine.core.errors import InvalidRequest, SemanticFailure
from engine.core.messages import JSON, FinishReason, Reply, Request
from engine.core.policy import ManagerPolicy
from engine.patterns import KEYWORDS, PatternRefused, check_patterns, without_dialects

Validator = Callable[[Request, Reply], None]
"""`check(request, reply)`; raises `SemanticFailure` to reject an answer, anything else reaches the caller as itself."""

LONGEST_DETAIL = 200
"""Characters of an explanation."""

_PARAMETER = "response_format"


class SchemaMismatch(SemanticFailure):
    """An answer breaks the caller's JSON schema; the message is safe to store."""


def check_reply(request: Request, reply: Reply, policy: ManagerPolicy, validators: Sequence[Validator] = ()) -> None:
    """Check a whole answer, the schema first, then every validator in order.

    An answer that consists of tool calls, a refusal, or an answer that a content filter cut is not held to the schema:
    none pretends to be the document, and going on to another model would be a way round a safety rule.

    Args:
        request: What the caller asked.
        reply: The answer as the caller would get it.
        policy: `validation.json_schema` says whether the schema is enforced.
        validators: The application's own checks.

    Raises:
        SemanticFailure: The answer is rejected.
        InvalidRequest: The schema in the request is no valid schema.
    """
    schema = request.json_schema if policy.validation.json_schema else None
    filtered = reply.finish_reason is FinishReason.CONTENT_FILTER or bool(reply.refusal)
    if schema is not None and not filtered and not (reply.tool_calls and not reply.text):
        check_document(schema, reply.text)
    for validator in validators:
        result: Any = validator(request, reply)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            msg = f"validator {_name(validator)} is asynchronous, so its verdict would be lost: make it plain"
            raise TypeError(msg)


def check_schema(request: Request, policy: ManagerPolicy) -> None:
    """Refuse a request whose schema is broken, before a model is paid for an answer to it.

    Raises:
        InvalidRequest: The schema is no valid schema.
    """
    schema = request.json_schema if policy.validation.json_schema else None
    if schema is not None:
        compiled(schema)


def check_document(schema: JSON, text: str) -> None:
    """Hold a text to a JSON schema.

    Raises:
        SchemaMismatch: The text is no JSON (cut short, for one), or breaks the schema.
        InvalidRequest: The schema is no valid schema.
    """
    validator = compiled(schema)
    document = _document(text)
    try:
        error = best_match(validator.iter_errors(document))
    except Unresolvable:
        msg = "the JSON schema refers to something outside itself: put the definition under $defs"
        raise InvalidRequest(msg, param=_PARAMETER) from None
    except RecursionError:
        msg = "the JSON schema and the answer nest too deeply to be compared: flatten the schema"
        raise InvalidRequest(msg, param=_PARAMETER) from None
    if error is not None:
        raise SchemaMismatch(_brief(error))


def compiled(schema: JSON) -> SchemaValidator:
    """The validator of a schema; the most recent 256 are kept.

    A schema without `$schema` is read as Draft 2020-12. References are looked up in the schema itself and never
    fetched: a caller must not be able to make this server open addresses.

    Raises:
        InvalidRequest: The schema is no valid schema.
    """
    try:
        return _compiled(json.dumps(schema, sort_keys=True))
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"the JSON schema is no JSON document: {type(error).__name__}"
        raise InvalidRequest(msg, param=_PARAMETER) from None


@lru_cache(maxsize=256)
def _compiled(source: str) -> SchemaValidator:
    schema = json.loads(source)
    kind: Any = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema, format_checker=None)  # patterns are checked below
    except SchemaError as error:
        msg = _cut(f"the JSON schema is not valid at {_path(error.absolute_path) or 'its top'}: {error.validator}")
        raise InvalidRequest(msg, param=_PARAMETER) from None
    try:
        check_patterns(schema)
    except PatternRefused as refused:
        msg = f"the JSON schema is refused: {refused}"
        raise InvalidRequest(msg, param=_PARAMETER) from None
    return _bounded(kind)(without_dialects(schema), registry=REGISTRY)


@lru_cache(maxsize=16)
def _bounded(kind: type[SchemaValidator]) -> type[SchemaValidator]:
    """A draft's validator with keywords that match patterns in bounded time."""
    made: type[SchemaValidator] = extend(kind, KEYWORDS)  # type: ignore[no-untyped-call]  # its stubs lack it
    return made


def _document(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        ends = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        what = "ends before its JSON document does" if ends and text.strip() else "is no JSON document"
        msg = f"the answer {what}: {error.msg.removesuffix(' starting at')} at character {error.pos} of {len(text)}"
        raise SchemaMismatch(_cut(msg)) from None
    except (ValueError, RecursionError) as error:
        msg = f"the answer is no JSON document: {type(error).__name__}"
        raise SchemaMismatch(msg) from None


def _no_constant(_word: str) -> NoReturn:
    raise ValueError


def _brief(error: ValidationError) -> str:
    place = _path(error.absolute_schema_path)
    return _cut(f"the answer breaks the JSON schema at {place}")


def _path(steps: Iterable[object]) -> str:
    return "/".join(str(step) for step in steps)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_DETAIL else text[: LONGEST_DETAIL - 1] + "…"


def _name(validator: Validator) -> str:
    return str(getattr(validator, "__qualname__", type(validator).__name__))
