"""Texts with `{{ name }}` in them, for annotations and labels. A failing one never stops an alert.

Names: `manager`, `alertname`, `value`, `duration` (since when the condition holds), `since` (the same as a time, UTC),
`labels.NAME`. After a bar: `percent`, `duration`, `round`, `usd`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from engine.durations import describe

_PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_INSIDE = re.compile(r"^\s*([a-z]+(?:\.[a-zA-Z_]\w*)?)\s*(?:\|\s*([a-z]+)\s*)?$")
NAMES = ("manager", "alertname", "value", "duration", "since")
FILTERS: Mapping[str, Callable[[float], str]] = MappingProxyType(
    {
        "percent": lambda value: f"{value * 100:.3g} %",
        "duration": describe,
        "round": lambda value: f"{value:.3g}",
        "usd": lambda value: f"${value:.2f}",
    }
)


class TemplateError(ValueError):
    """A template that cannot be expanded; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a template may speak of; times are milliseconds."""

    labels: Mapping[str, str]
    value: float | None
    active_ms: int
    now_ms: int


def check(text: str, *, in_label: bool = False) -> None:
    """Check a template without expanding it.

    Args:
        text: The template.
        in_label: Labels identify an alert, so only what never changes may stand in them.

    Raises:
        TemplateError: It has an unknown name or filter, or is not closed.
    """
    rest = _PLACE.sub("", text)
    if "{{" in rest or "}}" in rest:
        msg = "{{ and }} must come in pairs"
        raise TemplateError(msg)
    for inside in _PLACE.findall(text):
        name, filter_ = _read(inside)
        if in_label and name != "manager":
            msg = f"{{{{ {name} }}}} changes over time and would make a new alert each time: move it to the annotations"
            raise TemplateError(msg)
        if filter_ and name != "value":
            msg = f"{filter_} is for {{{{ value }}}}"
            raise TemplateError(msg)


def expand(text: str, facts: Facts) -> str:
    """Fill a template; what fails is said in its place, as Prometheus does."""
    try:
        return _PLACE.sub(lambda found: _fill(found.group(1), facts), text)
    except (TemplateError, ValueError, OverflowError) as error:
        return f"<error expanding template: {error}>"


def label_text(text: str, manager: str | None) -> str:
    """Fill a label's text, in which only the manager may stand."""
    return _PLACE.sub(lambda _: manager or "", text)


def _read(inside: str) -> tuple[str, str | None]:
    found = _INSIDE.match(inside)
    name = found.group(1) if found else ""
    if found is None or (name not in NAMES and not name.startswith("labels.")):
        msg = f"{{{{{inside}}}}} is unknown: write one of {', '.join(NAMES)} or labels.NAME"
        raise TemplateError(msg)
    filter_ = found.group(2)
    if filter_ is not None and filter_ not in FILTERS:
        msg = f"there is no filter {filter_}: write one of {', '.join(FILTERS)}"
        raise TemplateError(msg)
    return name, filter_


def _fill(inside: str, facts: Facts) -> str:
    name, filter_ = _read(inside)
    if name.startswith("labels."):
        label = name.removeprefix("labels.")
        if label not in facts.labels:
            msg = f"there is no label {label}"
            raise TemplateError(msg)
        return facts.labels[label]
    if name == "value":
        if facts.value is None:
            return "no value"
        return FILTERS[filter_ or "round"](facts.value)
    if name == "duration":
        return describe((facts.now_ms - facts.active_ms) / 1000)
    if name == "since":
        return datetime.fromtimestamp(facts.active_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return facts.labels.get(name, "")
