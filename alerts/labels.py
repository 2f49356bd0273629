"""Label sets: identity as Alertmanager computes it, and its matchers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_MASK = 0xFFFFFFFFFFFFFFFF
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
        return (re.fullmatch(self.value, actual) is not None) is (self.sign == "=~")

    def __str__(self) -> str:
        return f'{self.name}{self.sign}"{self.value}"'


def parse_matcher(text: str) -> Matcher:
    """Read a matcher in Alertmanager's notation, such as `severity=~"critical|warning"`.

    Raises:
        ValueError: It is not one; the message says how to write it.
    """
    found = _MATCHER.match(text)
    if found is None:
        msg = f'{text!r} is no matcher: write severity="critical" or severity=~"critical|warning"'
        raise ValueError(msg)
    name, sign, value = found.groups()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1]) if sign in ("=", "!=") else value[1:-1]
    elif '"' in value or not value:
        msg = f'{text!r}: put the value into double quotes, {name}{sign}"…"'
        raise ValueError(msg)
    if "~" in sign:
        try:
            re.compile(value)
        except re.error as error:
            msg = f"{text!r}: {value!r} is no pattern: {error}"
            raise ValueError(msg) from None
    return Matcher(name, sign, value)


def parse_matchers(texts: Iterable[str]) -> tuple[Matcher, ...]:
    """Read several matchers, which must all hold."""
    return tuple(parse_matcher(text) for text in texts)


def all_match(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether a label set fulfils every matcher; true for none."""
    return all(matcher.matches(labels) for matcher in matchers)
