"""One model at a glance: its breaker, traffic, figures, the last probes, and what is left before it serves again.

Values only; `dashboard.parts` draws them. A card counts failures as the breaker does, so that what it shows explains
what the breaker did: a rate limit or a caller's mistake is not an error of the model here either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dashboard import wording
from dashboard.availability import ANSWERED_WELL
from dashboard.breakers import Breaker, breaker, refused
from dashboard.reading import SPARK_MINUTES, WINDOW_MS, Latency, Live
from dashboard.times import MINUTE_MS, about, milliseconds, percent
from dashboard.wording import Tone
from engine.core.agreement import Document
from engine.core.messages import Role
from engine.core.outcomes import RULES, Category, Effect
from engine.queries import AttemptPoint, TrafficPoint

WINDOW_MINUTES: Final = WINDOW_MS / MINUTE_MS


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold before traffic returns to primary."""

    label: str
    value: str
    done: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of a card: what it is, how much, and how much it was an hour ago."""

    label: str
    value: str
    before: str = ""
    tone: Tone = Tone.MUTED
    help: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute of a sparkline."""

    at_ms: int
    good: int
    bad: int


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model at a glance.

    Attributes:
        role: The model's.
        model: The provider's name of it.
        active: Whether it serves.
        breaker: Over all instances.
        per_minute: Attempts a minute in the window.
        share: Of all answers in the window.
        bars: The last hour, a bar a minute.
        figures: How it does, now and an hour ago.
        probes: The last ones, oldest first: whether it was good, and its category in words.
        conditions: What is left before primary serves again.
        refused: Why it is not asked, empty when it is.
        spare: What happens if it fails too, empty for the one that stands by.
    """

    role: str
    model: str
    active: bool
    breaker: Breaker
    per_minute: float
    share: float
    bars: tuple[Bar, ...]
    figures: tuple[Figure, ...]
    probes: tuple[tuple[bool, str], ...] = ()
    conditions: tuple[Condition, ...] = ()
    refused: str = ""
    spare: tuple[str, Tone] = ("", Tone.MUTED)


def model_card(live: Live, role: str) -> ModelCard:
    """One model's card."""
    recent = live.recent_traffic
    answered = sum(row.n for row in recent if row.role == role and row.outcome == "ok")
    everything = sum(row.n for row in recent if row.outcome == "ok")
    return ModelCard(
        role,
        live.model(role),
        _is_active(live.document, role),
        breaker(live, role),
        sum(row.n for row in live.recent_tries(role)) / WINDOW_MINUTES,
        answered / everything if everything else 0.0,
        _bars(live, role),
        _figures(live, role, recent),
        tuple((probe.good, wording.advice(probe.category).label) for probe in reversed(live.probes.get(role, ()))),
        recovery(live) if role == "primary" else (),
        refused(live, role),
        _spare(live, role),
    )


def recovery(live: Live) -> tuple[Condition, ...]:
    """What is left before primary serves again; empty while it does."""
    document = live.document
    if document is None or (_is_active(document, "primary") and document.stage is None):
        return ()
    if document.override is not None:
        left = about(max(0.0, (document.override.expires_ms - live.now_ms) / 1000))
        return (Condition("Override", f"released, or over in {left}", False),)
    closed = breaker(live, "primary").state == "closed"
    hold = max(0.0, (document.hold_until_ms - live.now_ms) / 1000)
    ramping = document.stage is not None
    return (
        Condition("Hold", "over" if not hold else f"{about(hold)} left", not hold),
        Condition("Breaker", "closed" if closed else "not closed", closed),
        _good_probes([said for _, said in live.reports], ramping=ramping),
        Condition("Ramp", f"{percent(document.share, 0)} on primary" if ramping else "not begun", False),
    )


def error_rate(rows: Sequence[AttemptPoint]) -> float | None:
    """Share of attempts that failed, among those that count for the breaker; `None` when none does."""
    failures = sum(row.n for row in rows if _effect(row.category) is Effect.FAILURE)
    counted = failures + sum(row.n for row in rows if _effect(row.category) is Effect.OK)
    return failures / counted if counted else None


def _is_active(document: Document | None, role: str) -> bool:
    return document is not None and str(document.active) == role


def _good_probes(gates: Sequence[Mapping[str, Any]], *, ramping: bool) -> Condition:
    """The gate before the ramp, as the instance that is furthest sees it; behind it once the ramp has begun."""
    good = max((int(gate.get("gate_good") or 0) for gate in gates), default=0)
    needed = max((int(gate.get("gate_of") or 0) for gate in gates), default=0)
    if not needed:
        return Condition("Good probes", "passed" if ramping else "collecting", ramping)
    return Condition("Good probes", f"{needed if ramping else good} of {needed}", ramping or good >= needed)


def _spare(live: Live, role: str) -> tuple[str, Tone]:
    document = live.document
    if document is None or not _is_active(document, role):
        return "", Tone.MUTED
    other = str(Role(role).other)
    if document.override is not None and document.override.strict:
        return "No spare: pinned without fallback, callers get errors if it fails", Tone.WARN
    if breaker(live, other).is_open or refused(live, other):
        return f"No spare: {other} is not available, callers get errors if this one fails", Tone.BAD
    return f"Spare ready: requests go to {other} if this one fails", Tone.OK


def _figures(live: Live, role: str, recent: Sequence[TrafficPoint]) -> tuple[Figure, ...]:
    now, before = live.recent_tries(role), [row for row in live.tries_before if row.role == role]
    errors, limited = error_rate(now), _rate_limited(now)
    latency, latency_before = live.latency.get(role, Latency()), live.latency_before.get(role, Latency())
    cost = sum(row.cost_usd for row in recent if row.role == role) / WINDOW_MINUTES
    return (
        Figure(
            "Error rate",
            percent(errors),
            percent(error_rate(before)),
            Tone.BAD if errors and errors > 1 - ANSWERED_WELL else Tone.MUTED,
            "Failed attempts among those that count for the breaker, 5 min",
        ),
        Figure(
            "p95",
            milliseconds(latency.p95),
            milliseconds(latency_before.p95),
            help="95 % of answers took at most this long, 5 min",
        ),
        Figure(
            "First token p95",
            milliseconds(latency.ttft_p95),
            milliseconds(latency_before.ttft_p95),
            help="95 % of streams began within this, 5 min",
        ),
        Figure(
            "429 share",
            percent(limited),
            percent(_rate_limited(before)),
            Tone.WARN if limited else Tone.MUTED,
            "Attempts the provider refused for its rate limit, 5 min",
        ),
        Figure("Cost", f"${cost:.3f}/min" if cost else "–", help="USD a minute over 5 min"),
    )


def _rate_limited(rows: Sequence[AttemptPoint]) -> float | None:
    total = sum(row.n for row in rows)
    return sum(row.n for row in rows if row.category == "rate_limited") / total if total else None


def _effect(category: str) -> Effect:
    try:
        return RULES[Category(category)].breaker
    except ValueError:
        return Effect.NEUTRAL


def _bars(live: Live, role: str) -> tuple[Bar, ...]:
    good: dict[int, int] = {}
    bad: dict[int, int] = {}
    for row in live.tries:
        if row.role == role:
            into = good if _effect(row.category) is Effect.OK else bad
            into[row.start_ms] = into.get(row.start_ms, 0) + row.n
    last = live.now_ms // MINUTE_MS * MINUTE_MS
    minutes = range(last - (SPARK_MINUTES - 1) * MINUTE_MS, last + 1, MINUTE_MS)
    return tuple(Bar(minute, good.get(minute, 0), bad.get(minute, 0)) for minute in minutes)
