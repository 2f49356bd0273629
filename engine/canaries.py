r"""Canaries: prompts whose answers have known properties, asked of both models on a schedule.

A model can answer quickly, with status 200, and say nonsense. Canaries find that before callers do, on the secondary
above all, which has no traffic that could show it. This module reads them from TOML, says when one is due, and
judges answers; asking, recording and tripping the breaker is the drivers' part.

    [[canaries]]
    name = "arithmetic"
    prompt = "What is 17 + 25? Answer with the number only."
    expect = { regex = '^\s*42\b', finish_reason = "stop" }

A finding names the property that does not hold and never quotes the answer.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from engine.core.errors import ConfigurationError, InvalidRequest
from engine.core.messages import Completion, FinishReason, Request, Role
from engine.validation import SchemaMismatch, check_document, compiled


def _strings(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _pattern(value: Any) -> Any:
    try:
        re.compile(value)
    except (re.error, TypeError) as error:
        msg = f"is no regular expression: {error}"
        raise ValueError(msg) from None
    return value


def _schema(value: Any) -> Any:
    try:
        compiled(value)
    except InvalidRequest as error:
        raise ValueError(error.message) from None
    return value


def _format(value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    schema = Request(messages=(), response_format=value).json_schema
    if schema is not None:
        _schema(schema)
    return value


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expectation(_Table):
    """What must be true of an answer; at least one property.

    Attributes:
        contains: Texts that must occur, in any order; a single one may be written as a string.
        equals: The whole answer, white space around it left out.
        regex: A regular expression that must match somewhere.
        json_schema: The answer is a JSON document that follows this schema.
        min_length: Least characters.
        max_length: Most characters.
        finish_reason: Why the model stopped.
    """

    contains: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_strings)] = ()
    equals: str | None = None
    regex: Annotated[str | None, BeforeValidator(_pattern)] = None
    json_schema: Annotated[Mapping[str, Any] | None, BeforeValidator(_schema)] = None
    min_length: int | None = Field(None, ge=1)
    max_length: int | None = Field(None, ge=0)
    finish_reason: FinishReason | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Expectation:
        if all(value in (None, ()) for value in self.model_dump().values()):
            msg = "expects nothing: any answer would pass; add contains, regex, json_schema, …"
            raise ValueError(msg)
        if self.min_length is not None and self.max_length is not None and self.min_length > self.max_length:
            msg = f"min_length {self.min_length} is more than max_length {self.max_length}: no answer could pass"
            raise ValueError(msg)
        return self


class Canary(_Table):
    """One prompt with what its answer must be like.

    Attributes:
        name: Its name in findings, alerts and the record; unique in its file.
        prompt: What the user says.
        system: The system prompt, none when empty.
        max_output_tokens: The longest answer; thinking models spend their thoughts from it, so leave room.
        response_format: OpenAI's `response_format`, for a canary that asks for JSON.
        options: Other fields of the request, such as `temperature`.
        expect: The properties.
    """

    name: str = Field(min_length=1, max_length=64)
    prompt: str = Field(min_length=1)
    system: str = ""
    max_output_tokens: int | None = Field(None, ge=1)
    response_format: Annotated[Mapping[str, Any] | None, AfterValidator(_format)] = None
    options: Mapping[str, Any] = Field(default_factory=dict)
    expect: Expectation

    def request(self) -> Request:
        """The request to ask; it is marked synthetic and has no id yet."""
        system = ({"role": "system", "content": self.system},) if self.system else ()
        return Request(
            messages=(*system, {"role": "user", "content": self.prompt}),
            max_output_tokens=self.max_output_tokens,
            response_format=self.response_format,
            options=dict(self.options),
            synthetic=True,
        )


class _File(_Table):
    canaries: tuple[Canary, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a canary found.

    Attributes:
        canary: Its name.
        broken: The properties that do not hold, in words, without the answer; empty when all hold.
    """

    canary: str
    broken: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every property holds."""
        return not self.broken

    @property
    def detail(self) -> str:
        """The finding in at most 200 characters."""
        text = "; ".join(self.broken)
        return text if len(text) <= 200 else text[:199] + "…"


def judge(canary: Canary, completion: Completion) -> Finding:
    """Hold a whole answer to a canary's properties."""
    return Finding(canary.name, tuple(_broken(canary.expect, completion)))


def _broken(expect: Expectation, completion: Completion) -> Iterator[str]:
    text, length = completion.text, len(completion.text)
    missing = sum(wanted not in text for wanted in expect.contains)
    if missing:
        yield f"contains: {missing} of {len(expect.contains)} texts missing"
    if expect.equals is not None and text.strip() != expect.equals.strip():
        yield f"equals: another text, of {length} characters"
    if expect.regex is not None and not re.search(expect.regex, text):
        yield "regex: no match"
    if expect.json_schema is not None:
        try:
            check_document(expect.json_schema, text)
        except SchemaMismatch as mismatch:
            yield f"json_schema: {mismatch.message}"
    if expect.min_length is not None and length < expect.min_length:
        yield f"min_length: {length} characters, at least {expect.min_length} expected"
    if expect.max_length is not None and length > expect.max_length:
        yield f"max_length: {length} characters, at most {expect.max_length} expected"
    if expect.finish_reason is not None and completion.finish_reason is not expect.finish_reason:
        yield f"finish_reason: {completion.finish_reason or 'none'}, {expect.finish_reason} expected"


# -- when ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One canary to be asked of one model now."""

    canary: Canary
    role: Role


class CanarySchedule:
    """When which canary is asked of which model.

    Every canary is asked of each model once per interval, so a drift is found within one interval. The runs are
    spread evenly over it, so canaries never come as a burst. Runs missed while nobody asked are not made up for.

    Args:
        canaries: The canaries.
        every: The interval, seconds, more than zero.
        start: Monotonic seconds of the first run.
    """

    def __init__(self, canaries: Sequence[Canary], every: float, start: float) -> None:
        self._every = every
        self._runs = [Run(canary, role) for canary in canaries for role in Role]
        self._next = [start + every * place / len(self._runs) for place in range(len(self._runs))]

    @property
    def next_at(self) -> float | None:
        """Monotonic seconds of the next run, `None` without canaries."""
        return min(self._next, default=None)

    def resume(self, since: Mapping[tuple[str, Role], float], now: float) -> None:
        """Go on where another process of the store left off.

        What was asked less than an interval ago waits for the rest of it. The others are spread over the interval,
        the one that waits longest first; so processes that live shorter than an interval ask all of them in turn.

        Args:
            since: Seconds since a canary was last asked of a model, by the canary's name and the role.
            now: Monotonic seconds.
        """
        ages = [since.get((run.canary.name, run.role), math.inf) for run in self._runs]
        order = sorted(range(len(ages)), key=lambda place: -ages[place])
        for turn, place in enumerate(order):
            rest = self._every - ages[place]
            self._next[place] = now + (rest if rest > 0 else self._every * turn / len(order))

    def due(self, now: float) -> tuple[Run, ...]:
        """The runs whose time has come; each is given once."""
        ready = [place for place, at in enumerate(self._next) if at <= now]
        for place in ready:
            missed = math.floor((now - self._next[place]) / self._every)
            following = self._next[place] + self._every * (missed + 1)
            self._next[place] = following if following > now else following + self._every
        return tuple(self._runs[place] for place in ready)


# -- the file --------------------------------------------------------------------------------------------------


def load(path: Path) -> tuple[Canary, ...]:
    """Read a file of canaries.

    Raises:
        ConfigurationError: It cannot be read, or something in it is wrong; one line each with its place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        msg = f"{path}: cannot be read: {reason}"
        raise ConfigurationError(msg) from None
    return parse(text, str(path))


def parse(text: str, source: str = "canaries.toml") -> tuple[Canary, ...]:
    """Read canaries from TOML text; `source` is the file's name for errors.

    Raises:
        ConfigurationError: As `load`.
    """
    try:
        canaries = _File.model_validate(tomllib.loads(text)).canaries
    except tomllib.TOMLDecodeError as error:
        msg = f"{source}: is no TOML: {error}"
        raise ConfigurationError(msg) from None
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A table with a mistake does not count for pydantic, so it misses one more where there is none.
        told = [detail for detail in found if detail["loc"] != ("canaries",)] or found
        raise ConfigurationError("\n".join(f"{source}: {_problem(detail)}" for detail in told)) from None
    names = [canary.name for canary in canaries]
    for place, name in enumerate(names):
        if name in names[:place]:
            msg = f'{source}: canaries[{place}].name: "{name}" is taken by another canary: give each its own name'
            raise ConfigurationError(msg)
    return canaries


def _problem(detail: Any) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    match detail["type"]:
        case "extra_forbidden":
            return f"{place}: unknown key{_nearest(detail['loc'])}"
        case "too_short" | "missing" if place == "canaries":
            return "canaries: there is none: add a [[canaries]] table, or set validation.canaries to an empty string"
        case "tuple_type" if place == "canaries":
            return "canaries: each needs double brackets: [[canaries]]"
        case "missing":
            return f"{place}: is missing"
        case "value_error":
            return f"{place}: {detail['ctx']['error']}"
    message = str(detail["msg"])
    return f"{place}: {message[:1].lower()}{message[1:]}"


def _nearest(location: Sequence[int | str]) -> str:
    table: type[BaseModel] = _File if len(location) == 1 else Expectation if "expect" in location[:-1] else Canary
    near = difflib.get_close_matches(str(location[-1]), list(table.model_fields), n=1, cutoff=0.5)
    return f': did you mean "{near[0]}"?' if near else f"; known are {', '.join(table.model_fields)}"
