"""The alert page as values: each rule with where it stands, how far it is from firing, and why, in a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alerts.labels import all_match, parse_matchers
from alerts.rules import Rule
from alerts.vocabulary import PERCENTILES
from dashboard.times import Clockface, dollars, number, percent
from dashboard.wording import WATCHDOG
from engine.durations import describe
from engine.queries.control_room import AlertRow, Silence

SHARES = frozenset({"error_rate", "secondary_share", "primary_traffic_ratio"})
SECONDS = frozenset({*PERCENTILES, "agreement_age", "outbox_age"})
ORDER = ("firing", "pending", "resolved", "inactive", "watching")


@dataclass(frozen=True, slots=True)
class Row:
    """One rule for one manager.

    Attributes:
        rule: The rule.
        state: Where it stands; a rule nobody has written down is inactive, and one that fires while all is well, for
            whoever waits for its absence, is `watching` then.
        since_ms: When it came to this state, or when its condition began to hold; `None` while inactive.
        value: The last value, in words.
        progress: Share of its FOR that is over, 0..1.
        silenced: Whether a silence covers it.
        summary: What it says while it is pending or firing; empty otherwise.
        description: What it says besides; while there is nothing to fill it from, names stand in the place of values.
    """

    rule: Rule
    state: str
    since_ms: int | None
    value: str
    progress: float
    silenced: bool
    summary: str = ""
    description: str = ""


def rows(
    rules: Sequence[Rule], states: Iterable[AlertRow], silences: Sequence[Silence], manager: str, now_ms: int
) -> list[Row]:
    """Rules with their states, those that need attention first.

    Args:
        rules: Of the rule file.
        states: Of the store.
        silences: In force.
        manager: Whose page it is.
        now_ms: Wall time.
    """
    known: dict[str, AlertRow] = {}
    for state in states:
        seen = known.get(state.rule)
        if seen is None or ORDER.index(state.state) < ORDER.index(seen.state):
            known[state.rule] = state
    found = [_row(rule, known.get(rule.alert), silences, manager, now_ms) for rule in rules]
    return sorted(found, key=lambda one: (ORDER.index(one.state), one.rule.alert))


def _row(rule: Rule, state: AlertRow | None, silences: Sequence[Silence], manager: str, now_ms: int) -> Row:
    labels = dict(state.labels) if state else rule.labels_for(manager)
    covered = any(_covers(one, labels, now_ms) for one in silences)
    template = _without_values(rule.annotations.get("description", ""))
    if state is None or state.state == "inactive":
        return Row(rule, "inactive", None, "–", 0.0, covered, description=template)
    value = shown(rule, state.value)
    held = now_ms - state.since_ms
    progress = 1.0 if state.state != "pending" or not rule.hold else min(1.0, held / rule.hold)
    stands = "watching" if state.state == "firing" and state.severity == WATCHDOG else state.state
    said = _said(state) if stands in ("pending", "firing") else {}
    summary, description = said.get("summary", ""), said.get("description", template)
    return Row(rule, stands, state.since_ms, value, progress, covered, summary, description)


def _covers(one: Silence, labels: dict[str, str], now_ms: int) -> bool:
    try:
        return one.starts_ms <= now_ms < one.ends_ms and all_match(parse_matchers(one.matchers), labels)
    except ValueError:
        return False


def shown(rule: Rule, value: float | None) -> str:
    """The number an alert has looked at, in the unit of what it is of."""
    name = _looked_at(rule)
    if value is None or is_share(rule):
        return percent(value)
    if name in SECONDS:
        return describe(round(value, 1 if value < 10 else 0))
    return dollars(value) if name == "cost_usd" else number(value)


def is_share(rule: Rule) -> bool:
    """Whether the number of a rule is a share, 0..1."""
    return _looked_at(rule) in SHARES


def _looked_at(rule: Rule) -> str:
    """The name that its number is of; empty where that differs, for then the number has no one unit."""
    names = {one.shown.name if one.shown else "" for one in rule.expression.alternatives}
    return names.pop() if len(names) == 1 else ""


def _said(state: AlertRow) -> dict[str, str]:
    """What an alert says of itself, as whoever is told reads it."""
    annotations = state.body.get("annotations")
    return {name: str(text) for name, text in annotations.items()} if isinstance(annotations, dict) else {}


def explain(one: Row, face: Clockface) -> str:
    """Why an alert stands where it stands."""
    hold = describe(one.rule.hold / 1000)
    if one.since_ms is None:
        return "Its condition does not hold."
    if one.state == "pending":
        due = face.text(one.since_ms + one.rule.hold)
        return f"Its condition has held since {face.text(one.since_ms)}; it fires at {due} if it holds for {hold}."
    if one.state == "watching":
        return f"Firing since {face.text(one.since_ms)}, as it should: a service outside notices when it ceases to."
    if one.state == "firing":
        before = (
            f"its condition held for {hold} before that" if one.rule.hold else "it fires as soon as its condition holds"
        )
        return f"Firing since {face.text(one.since_ms)}: {before}."
    return f"It was resolved at {face.text(one.since_ms)}."


def _without_values(template: str) -> str:
    """A rule's text while there is no alert to fill it from: names in the place of values."""
    return re.sub(r"\{\{\s*(\w+)[^}]*\}\}", r"‹\1›", template)
