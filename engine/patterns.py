r"""Regular expressions that callers write in their schemas, matched in time linear in the text.

Python's `re` backtracks: `^(a+)+$` against forty letters takes minutes, holds the interpreter lock, and stops every
other request of the process. RE2 never backtracks, so a caller can write no pattern that does. What it cannot match
in bounded time, looking around and back-references, is refused before a model is asked. The keywords of JSON Schema
that take patterns are replaced here, all of them, so `re` never sees a caller's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]  # it ships no types
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator as SchemaValidator

LONGEST_PATTERN = 2000
"""Characters; a pattern costs memory by its length."""

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # its log would show a caller's pattern

_UNICODE = re.compile(r"(?<!\\)((?:\\\\)*)\\u([0-9a-fA-F]{4})")
"""ECMAScript's escape of a code unit, which RE2 writes otherwise."""

_VALUES = frozenset({"const", "enum", "default", "examples"})
"""Keywords that hold values and not schemas."""


class PatternRefused(ValueError):
    """A pattern is no regular expression, or none that can be matched in bounded time."""


@lru_cache(maxsize=1024)
def compiled_pattern(pattern: str) -> Any:
    """A pattern, ready to `search`.

    Raises:
        PatternRefused: See the class.
    """
    if len(pattern) > LONGEST_PATTERN:
        msg = f"a pattern is longer than {LONGEST_PATTERN} characters"
        raise PatternRefused(msg)
    try:
        return re2.compile(_UNICODE.sub(r"\1\\x{\2}", pattern), _OPTIONS)
    except re2.error:
        msg = "a pattern looks around, refers back, repeats too often or is no regular expression"
        raise PatternRefused(msg) from None


def check_patterns(schema: Any) -> None:
    """Refuse a schema with a pattern that cannot be matched in bounded time.

    Raises:
        PatternRefused: See the class.
    """
    beside = False
    for part in _parts(schema):
        pattern, named = part.get("pattern"), part.get("patternProperties")
        if isinstance(pattern, str):
            compiled_pattern(pattern)
        if isinstance(named, Mapping):
            beside = True
            for name in named:
                compiled_pattern(name)
    if beside and any("unevaluatedProperties" in part for part in _parts(schema)):
        msg = "patternProperties and unevaluatedProperties do not go together here: use additionalProperties"
        raise PatternRefused(msg)


def without_dialects(schema: Any) -> Any:
    """A schema without `$schema` in any of its parts, which would make jsonschema choose its own keywords again."""
    if isinstance(schema, Mapping):
        kept = {key: value for key, value in schema.items() if key != "$schema" or not isinstance(value, str)}
        return {key: value if key in _VALUES else without_dialects(value) for key, value in kept.items()}
    return [without_dialects(part) for part in schema] if isinstance(schema, list) else schema


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every object of a schema that may be a schema."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield part
            waiting.extend(value for key, value in part.items() if key not in _VALUES)
        elif isinstance(part, list | tuple):
            waiting.extend(part)


def _pattern(_: SchemaValidator, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _found(pattern, instance):
        yield ValidationError("does not match")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        for name, value in instance.items():
            if _found(pattern, name):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in known or any(_found(pattern, name) for pattern in patterns):
            continue
        if isinstance(allowed, Mapping):
            yield from validator.descend(value, allowed, path=name)
        elif not allowed:
            yield ValidationError("is one too many")
            return


def _found(pattern: str, text: str) -> bool:
    return compiled_pattern(pattern).search(text.encode("utf-8", "replace").decode()) is not None


KEYWORDS = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
"""The keywords of JSON Schema that match patterns, for `jsonschema.validators.extend`."""
