"""What is wrong with a configuration file, one line each: file, key, what, and what to write instead.

Values of keys that hold addresses or name variables are never repeated: somebody may have pasted a secret there.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.config.sections import Settings
from engine.core.errors import ConfigurationError

_PLACE = "X"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to change.

    Attributes:
        key: The key's path, such as `managers.chat.breaker.window`; empty for the file as a whole.
        what: What is wrong, and what to write instead.
    """

    key: str
    what: str

    def line(self, source: Path | str) -> str:
        """The problem as one line."""
        place = f"{source}: {self.key}" if self.key else str(source)
        return " ".join(f"{place}: {self.what}".split())


def failure(source: Path | str, problems: Iterable[Problem]) -> ConfigurationError:
    """All problems of a file as one error, a line each."""
    return ConfigurationError("\n".join(problem.line(source) for problem in problems))


def problems_of(error: ValidationError) -> list[Problem]:
    """Translate pydantic's findings, one problem each, in the order of the file's sections."""
    return [_problem(detail) for detail in error.errors(include_url=False, include_context=True)]


def _problem(detail: ErrorDetails) -> Problem:
    location = tuple(str(part) for part in detail["loc"] if part != "[key]")
    key = _dotted(location)
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return Problem(key, _unknown(location))
        case "missing":
            return Problem(key, f"is missing: add {location[-1]} = {_example(location)}")
        case "duration":
            return Problem(key, str(context["reason"]))
        case "string_pattern_mismatch" if location[-1].endswith("_env"):
            return Problem(
                key,
                "does not hold the name of a variable: name an environment variable, "
                'such as "GEMINI_API_KEY", never the secret itself',
            )
        case "string_pattern_mismatch" if detail["loc"][-1] == "[key]":
            return Problem(key, "a name here has up to 64 letters, digits, dots, dashes and underscores")
        case "enum" | "literal_error":
            return Problem(
                key, f"{_shown(location, detail['input'])}is not one of {context['expected']}{_nearest_choice(detail)}"
            )
    return Problem(key, f"{_shown(location, detail['input'])}{_lower_first(detail['msg'])}")


def _dotted(location: tuple[str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if part.isdecimal() else f".{part}" if text else part
    return text


def _shown(location: tuple[str, ...], value: object) -> str:
    if not location or location[-1].endswith(("_env", "url")) or isinstance(value, dict | list | tuple):
        return ""
    text = repr(value)
    return f"{text[:60]}: " if len(text) <= 60 else f"{text[:57]}…: "


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _nearest_choice(detail: ErrorDetails) -> str:
    wanted = detail.get("ctx", {}).get("expected", "")
    choices = [part.strip(" '") for part in str(wanted).replace(" or ", ",").split(",")]
    near = difflib.get_close_matches(str(detail["input"]), choices, n=1)
    return f': did you mean "{near[0]}"?' if near else ""


def _unknown(location: tuple[str, ...]) -> str:
    *parents, key = location
    known = _fields_at(tuple(parents))
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f'unknown key: did you mean "{near[0]}"?'
    elsewhere = [path for path in known_keys() if path.rsplit(".", 1)[-1] == key]
    if elsewhere:
        return f'unknown key: did you mean "{elsewhere[0]}"?'
    nearest = max(known, key=lambda name: difflib.SequenceMatcher(None, key, name).ratio())
    return f'unknown key: the nearest known one is "{nearest}"; remove it or correct it'


def _fields_at(location: tuple[str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    parts = iter(location)
    for part in parts:
        section, many = _section(model.model_fields[part].annotation)
        if section is None:
            break
        model = section
        if many:
            next(parts, None)
    return list(model.model_fields)


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Every key of the file, with `X` for a name of your choice: `managers.X.breaker.window`.

    Args:
        model: The section to start from.
        prefix: What to put before its keys.

    Yields:
        Keys that hold a value; tables are walked into.
    """
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        section, many = _section(field.annotation)
        if section is None:
            yield path
        else:
            yield from known_keys(section, f"{path}{many}.")


def _section(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    arguments = [item for item in typing.get_args(annotation) if isinstance(item, type) and issubclass(item, BaseModel)]
    if not arguments:
        return None, ""
    return arguments[0], f".{_PLACE}" if typing.get_origin(annotation) is dict else "[]"


def _example(location: tuple[str, ...]) -> str:
    examples = {
        "provider": '"gemini" (a key of [providers])',
        "name": '"gemini-2.5-pro"' if location[0] == "models" else '"ops"',
        "primary": '"pro" (a key of [models])',
        "secondary": '"flash" (a key of [models])',
        "kind": '"webhook"' if location[0] == "alerts" else '"google-genai"',
    }
    return examples.get(location[-1], "…")
