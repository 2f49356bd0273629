"""Label sets: identity as Alertmanager computes it, and its matchers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]  # it ships no types

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_MASK = 0xFFFFFFFFFFFFFFFF
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"$', re.DOTALL)
_ESCAPED = re.compile(r'\\([n"\\])')
_ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_MATCHER = re.compile(r"^\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*(.*?)\s*$", re.DOTALL)


def fingerprint(labels: Mapping[str, str]) -> str:
    """64-bit FNV-1a over the sorted labels, `name 0xFF value 0xFF`, as sixteen hex digits: Prometheus' own."""
    return _fingerprint(tuple(sorted(labels.items())))


@lru_cache(maxsize=65_536)
def _fingerprint(labels: tuple[tuple[str, str], ...]) -> str:
    digest = _FNV_OFFSET
    for name, value in labels:
        for byte in name.encode() + b"\xff" + value.encode() + b"\xff":
            digest = ((digest ^ byte) * _FNV_PRIME) & _MASK
    return f"{digest:016x}"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label; a missing label counts as an empty one, and patterns match whole values."""

    name: str
    sign: str
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set fulfils it."""
        actual = labels.get(self.name, "")
        if self.sign in ("=", "!="):
            return (actual == self.value) is (self.sign == "=")
        return (_pattern(self.value).fullmatch(actual) is not None) is (self.sign == "=~")

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{quoted(self.value)}"


@lru_cache(maxsize=1024)
def _pattern(text: str) -> Any:
    """Alertmanager's own kind of pattern, whose time is linear: a silence must not hold up the evaluator."""
    return re2.compile(text, _OPTIONS)


def quoted(value: str) -> str:
    """A label's value as a matcher has it, between double quotes."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def parse_matcher(text: str) -> Matcher:
    """Read a matcher in Alertmanager's notation, such as `severity=~"critical|warning"`.

    Raises:
        ValueError: It is not one; the message says how to write it.
    """
    found = _MATCHER.match(text)
    if found is None:
        msg = f'{text!r} is no matcher: write severity="critical" or severity=~"critical|warning"'
        raise ValueError(msg)
    name, sign, written = found.groups()
    inside = _QUOTED.fullmatch(written)
    if inside is None and ('"' in written or not written):
        msg = f'{text!r}: put the value into double quotes, {name}{sign}"…", with \\" for one inside'
        raise ValueError(msg)
    value = _ESCAPED.sub(lambda mark: _ESCAPES[mark.group(1)], inside.group(1)) if inside else written
    if "~" in sign:
        try:
            _pattern(value)
        except re2.error:
            msg = f"{text!r}: {value!r} is no pattern: see https://github.com/google/re2/wiki/Syntax"
            raise ValueError(msg) from None
    return Matcher(name, sign, value)


def parse_matchers(texts: Iterable[str]) -> tuple[Matcher, ...]:
    """Read several matchers, which must all hold; a text may have several itself, with commas between them.

    Raises:
        ValueError: See `parse_matcher`.
    """
    return tuple(parse_matcher(part) for text in texts for part in split_matchers(text) or [text])


def split_matchers(text: str) -> list[str]:
    """The single matchers of `a="x",b="y"`, split at commas outside of quotes."""
    parts, current, quoted, escaped = [], "", False, False
    for sign in text:
        if sign == "," and not quoted:
            parts.append(current.strip())
            current = ""
            continue
        if sign == '"' and not escaped:
            quoted = not quoted
        escaped = sign == "\\" and not escaped
        current += sign
    return [part for part in [*parts, current.strip()] if part]


def all_match(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether a label set fulfils every matcher; true for none."""
    return all(matcher.matches(labels) for matcher in matchers)
