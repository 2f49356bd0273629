"""The ribbon: a stretch of the past as lanes over one time axis.

Each lane covers the whole time without a gap, so that nothing recorded looks different from nothing wrong. What is bad
is not decided here but in `dashboard.availability`; a lane only draws it. Places and widths are shares of the width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from dashboard import wording
from dashboard.availability import ANSWERED_BADLY, ANSWERED_WELL, Health, Stay, bins, stays
from dashboard.reading import Past
from dashboard.times import MINUTE_MS, number, percent

BREAKER_KINDS: Final = {
    "closed": "ok",
    "open": "bad",
    "half_open": "bad",
    "forced_open": "bad",
    "forced_closed": "warn",
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a ribbon, as shares of its width."""

    start: float
    width: float
    kind: str
    title: str
    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class Lane:
    """One row of the ribbon."""

    label: str
    segments: tuple[Segment, ...]


def ribbon(past: Past, text: Callable[[int], str]) -> tuple[Lane, ...]:
    """The day as lanes: which model was active, how requests ended, what primary's breaker did.

    Args:
        past: What was read.
        text: Renders a moment.
    """
    return (
        Lane(
            "Active model",
            tuple(
                _segment(past, text, stay.start_ms, stay.end_ms, stay.role, _stay_title(stay)) for stay in stays(past)
            ),
        ),
        Lane("Answers", tuple(_answers(past, text))),
        Lane("Primary breaker", tuple(_breaker(past, text))),
    )


def _segment(past: Past, text: Callable[[int], str], start: int, end: int, kind: str, title: str) -> Segment:
    span = past.to_ms - past.from_ms
    moments = f"{text(start)} – {text(end)}"
    return Segment((start - past.from_ms) / span, (end - start) / span, kind, f"{title}\n{moments}", start, end)


def _stay_title(stay: Stay) -> str:
    cause = f" · {wording.advice(stay.move.what).label}" if stay.move else ""
    return stay.role.capitalize() + cause


def _answers(past: Past, text: Callable[[int], str]) -> Iterable[Segment]:
    """Bins of one kind after each other are one segment."""
    size = past.bin_minutes * MINUTE_MS
    found = bins(past)
    starts = range(past.from_ms, past.to_ms, size)
    for kind, group in groupby(starts, key=lambda at: _answer_kind(found.get(at))):
        run = list(group)
        whole = sum((found[at] for at in run if at in found), start=Health())
        told = f"{percent(whole.share)} of {number(whole.total)} answered" if whole.total else "No traffic"
        yield _segment(past, text, run[0], min(run[-1] + size, past.to_ms), kind, told)


def _answer_kind(found: Health | None) -> str:
    if found is None or found.share is None:
        return "none"
    return "ok" if found.share >= ANSWERED_WELL else "bad" if found.share < ANSWERED_BADLY else "warn"


def _breaker(past: Past, text: Callable[[int], str]) -> Iterable[Segment]:
    """Half-open between two opens is part of them: it lasts one probe, and the rest of the calls stay away."""
    events = [event for event in reversed(past.breakers) if event.role == "primary"]
    at, shown = past.from_ms, (events[0].before or "closed") if events else "closed"

    def until(end: int) -> Segment:
        word = wording.face(wording.BREAKERS, shown).word
        return _segment(past, text, at, end, BREAKER_KINDS.get(shown, "none"), word)

    for event in events:
        after = event.after or "closed"
        merged = "open" if after == "half_open" else after
        if merged != shown:
            if event.ts_ms > at:
                yield until(event.ts_ms)
            at, shown = event.ts_ms, merged
    yield until(past.to_ms)
