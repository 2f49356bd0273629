"""What can be wrong with a rule file, said in one line each: file, line, rule, what, and what to write instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alerts.places import shown
from engine.durations import DurationError, parse_duration

KEYS = ("alert", "expr", "for", "keep_firing_for", "labels", "annotations", "no_data", "scope")
_LABEL = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    Attributes:
        path: The file.
        line: Its line.
        what: What is wrong and what to write.
        rule: The rule's name, when it has one.
    """

    path: Path
    line: int
    what: str
    rule: str = ""

    def __str__(self) -> str:
        place = f"{shown(self.path)}:{self.line}: "
        return " ".join(f"{place}{self.rule + ': ' if self.rule else ''}{self.what}".split())


def unknown(key: str, known: Iterable[str]) -> str:
    """A key nobody reads, with the nearest one that is."""
    known = tuple(known)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f'unknown key "{key}": ' + (f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}")


def pointed(expression: str, at: int) -> str:
    """The part of an expression that a problem is about, with its column, and its line where it has several."""
    rest = " ".join(expression[at : at + 24].split())
    before = expression[:at]
    line = f"line {before.count(chr(10)) + 1}, " if "\n" in expression.strip() else ""
    place = f"expr, {line}column {at - before.rfind(chr(10))}"
    return f"{place} ({rest}{'…' if len(expression) > at + 24 else ''})" if rest else f"{place} (its end)"


def shape(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Mistakes in the keys and types of one rule's table: key and message."""
    for key in table:
        if key not in KEYS:
            yield key, unknown(key, KEYS)
    if not isinstance(table.get("alert"), str) or not table["alert"].strip():
        yield "alert", 'lacks a name: add alert = "SomethingIsWrong"'
    if not isinstance(table.get("expr"), str):
        yield "expr", "lacks a condition: add expr = 'active_model == \"secondary\"'"
    for key in ("for", "keep_firing_for"):
        if key in table:
            try:
                parse_duration(table[key])
            except DurationError as error:
                yield key, f"{key}: {error}"
    yield from _choice(table, "no_data", ("ok", "alerting", "keep"))
    yield from _choice(table, "scope", ("manager", "store"))
    yield from _texts(table)


def _choice(table: Mapping[str, Any], key: str, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if key in table and table[key] not in words:
        near = difflib.get_close_matches(str(table[key]), words, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"write one of {', '.join(words)}"
        yield key, f"{key} is {table[key]!r}: {hint}"


def _texts(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("labels", "annotations"):
        texts = table.get(key, {})
        if not isinstance(texts, dict):
            yield key, f'{key} must be a table: write {key} = {{ severity = "warning" }}'
            continue
        for name, text in texts.items():
            if not _LABEL.match(name):
                yield key, f"{key}.{name}: a name has letters, digits and underscores and does not begin with a digit"
            elif not isinstance(text, str):
                yield key, f'{key}.{name} must be text: write {name} = "{text}"'
            elif key == "labels" and name in ("alertname", "manager"):
                yield key, f"labels.{name} is set by Switchgear: remove it"
