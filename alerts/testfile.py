"""Rule test files as values. Every mistake is named: with a key that nobody reads, a test could not fail.

Values are in promtool's notation, with words and truth values beside numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alerts.expression import Value
from alerts.lint import unknown
from alerts.notices import brackets
from alerts.vocabulary import LEVELS, ROLES, WINDOWS, Kind
from engine.durations import parse_duration

EPOCH_MS = 1_700_000_040_000
MOST_VALUES = 1_000_000
"""Of one series: more than a year of minutes."""
_NUMBER = r"(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[Ii]nf)"
_ITEM = re.compile(
    rf"^(?:(?P<start>[+-]?{_NUMBER})(?P<step>[+-]{_NUMBER})|(?P<word>[A-Za-z_]+?|[+-]?{_NUMBER}))(?:x(?P<times>\d+))?$"
)
_MISSING = ("_", "stale")
_SERIES = re.compile(r"^\s*(?P<name>[a-z_]\w*)\s*(?:\{(?P<labels>.*)\})?\s*$")
_LABEL = re.compile(r"""\s*([a-z_]\w*)\s*=\s*["']([^"']*)["']\s*(?:,|$)""")


class TestFileError(ValueError):
    """A test file that cannot be used; the message says what to change."""

    __test__ = False


@dataclass(frozen=True, slots=True)
class _Form:
    """What the value of a key must be."""

    words: str
    fits: Callable[[Any], bool]


def _texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


_TEXT = _Form("text", lambda value: isinstance(value, str))
_TEXTS = _Form('a table of texts, such as { manager = "chat" }', _texts)
_NAMES = _Form('a list of texts, such as ["alerts.toml"]', _names)
_SCALAR = _Form("a number, a text, or true or false", lambda value: isinstance(value, int | float | str))
_TABLES = _Form("a list of tables", _tables)
_DURATION = _Form("a duration", lambda _: True)  # whoever reads it says what is wrong

_KEYS: Mapping[str, Mapping[str, _Form]] = {
    "file": {"rule_files": _NAMES, "evaluation_interval": _DURATION, "tests": _TABLES},
    "test": {
        "name": _TEXT, "interval": _DURATION, "input_series": _TABLES, "events": _TABLES, "alert_rule_test": _TABLES,
    },
    "input_series": {"series": _TEXT, "values": _TEXT},
    "events": {"at": _DURATION, "series": _TEXT, "value": _SCALAR},
    "alert_rule_test": {"eval_time": _DURATION, "alertname": _TEXT, "exp_alerts": _TABLES},
    "exp_alerts": {"exp_labels": _TEXTS, "exp_annotations": _TEXTS},
}  # fmt: skip


def check(what: str, table: Mapping[str, Any]) -> None:
    """Check the keys of a table, and of those in it.

    Args:
        what: `file` or `test`; those in it are called like the key they stand behind.
        table: The table.

    Raises:
        TestFileError: A key is unknown, or its value is of the wrong kind.
    """
    known = _KEYS[what]
    place = "" if what in ("file", "test") else f"{what}: "
    for key, value in table.items():
        if key not in known:
            msg = f"{place}{unknown(key, known)}"
            raise TestFileError(msg)
        if not known[key].fits(value):
            msg = f"{place}{key} must be {known[key].words}"
            raise TestFileError(msg)
        for inner in value if key in _KEYS else ():
            check(key, inner)


def values_of(text: str) -> list[Value]:
    """Read promtool's notation, with words and truth values beside numbers.

    `1x3` is one and three times more; `0+1x3` is 0 1 2 3; `_` and `stale` are no value, `_x3` is three of them.

    Raises:
        TestFileError: It is not that notation, or too much.
    """
    found: list[Value] = []
    for item in text.split():
        match = _ITEM.match(item)
        if match is None:
            msg = f'"{item}" is no value: write 1, 1x5, 0+1x5, secondaryx5 or _'
            raise TestFileError(msg)
        times = int(match["times"]) if match["times"] else None
        if len(found) + (times or 0) >= MOST_VALUES:
            msg = f'"{item}" goes beyond a million values: test a shorter time'
            raise TestFileError(msg)
        if match["start"] is not None:
            if times is None:
                msg = f'"{item}" lacks how often: write {item}x5'
                raise TestFileError(msg)
            found += [float(match["start"]) + float(match["step"]) * n for n in range(times + 1)]
        elif match["word"] in _MISSING:
            found += [None] * (times if times is not None else 1)
        else:
            found += [_scalar(match["word"])] * ((times or 0) + 1)
    return found


def _scalar(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


@dataclass(frozen=True, slots=True)
class Series:
    """One input series: what it is of, and its value or its events by millisecond."""

    name: str
    manager: str | None
    role: str
    samples: tuple[tuple[int, Value], ...]


def series_of(test: Mapping[str, Any], step_ms: int) -> list[Series]:
    """The series and events of a test.

    Args:
        test: Its table.
        step_ms: Between two values of a series.

    Raises:
        TestFileError: One cannot be read, or there are two of the same.
    """
    found = [*_series(test.get("input_series", []), step_ms), *_events(test.get("events", []))]
    seen = set()
    for one in found:
        mark = (one.name, one.manager, one.role)
        if mark in seen:
            labels = {"manager": one.manager or "", "role": one.role}
            msg = f"{one.name}{brackets({name: text for name, text in labels.items() if text})} is given twice"
            raise TestFileError(msg)
        seen.add(mark)
    return found


def _series(tables: Sequence[Mapping[str, Any]], step_ms: int) -> Iterator[Series]:
    for table in tables:
        name, labels = _head(table.get("series", ""))
        values = values_of(table.get("values", ""))
        if not values:
            msg = f'{name} has no values: add values = "0x5"'
            raise TestFileError(msg)
        _check_values(name, values)
        samples = tuple((EPOCH_MS + index * step_ms, value) for index, value in enumerate(values))
        yield Series(name, labels.get("manager"), labels.get("role", ""), samples)


def _events(tables: Sequence[Mapping[str, Any]]) -> Iterator[Series]:
    """Recorded events at exact times: `{ at = "90s", series = 'failovers{manager="chat"}', value = 1 }`."""
    found: dict[tuple[str, str | None, str], list[tuple[int, Value]]] = {}
    for table in tables:
        name, labels = _head(table.get("series", ""))
        value = table.get("value", 1)
        _check_values(name, [value if isinstance(value, str | bool) else float(value)])
        at = EPOCH_MS + round(parse_duration(table.get("at", 0)) * 1000)
        found.setdefault((name, labels.get("manager"), labels.get("role", "")), []).append((at, value))
    for (name, manager, role), samples in found.items():
        yield Series(name, manager, role, tuple(sorted(samples, key=lambda pair: pair[0])))


def _head(text: str) -> tuple[str, dict[str, str]]:
    match = _SERIES.match(text)
    if match is None:
        msg = f'"{text}" is no series: write active_model{{manager="chat"}}'
        raise TestFileError(msg)
    name = match["name"]
    if name not in LEVELS and name not in WINDOWS:
        raise TestFileError(unknown(name, [*LEVELS, *WINDOWS]))
    labels = dict(_LABEL.findall(match["labels"] or ""))
    for label in labels:
        if label not in ("manager", "role"):
            raise TestFileError(unknown(label, ("manager", "role")))
    _check_role(name, labels.get("role"))
    return name, labels


def _check_role(name: str, role: str | None) -> None:
    if role is not None and not (LEVELS.get(name) or WINDOWS[name]).by_role:
        msg = f"{name} has no role: leave it out"
    elif role not in (None, *ROLES):
        msg = f'role is "primary" or "secondary", not "{role}"'
    elif role is None and name in LEVELS and LEVELS[name].by_role:
        msg = f'{name} needs a role: write {name}{{role="primary"}}'
    else:
        return
    raise TestFileError(msg)


def _check_values(name: str, values: Sequence[Value]) -> None:
    level = LEVELS.get(name)
    for value in values:
        if value is None:
            continue
        if level is not None and level.kind is Kind.TEXT:
            fits = isinstance(value, str) and (not level.words or value in level.words)
        elif level is not None and level.kind is Kind.TRUTH:
            fits = isinstance(value, bool)
        else:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits:
            words = f": it is one of {', '.join(level.words)}" if level and level.words else ""
            msg = f"{name} is never {value!r}{words}"
            raise TestFileError(msg)
