"""Moments and numbers as a viewer reads them: in their own time zone, with UTC one hover away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dashboard.markup import Html, tag
from engine.durations import describe

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
TICKS_H = (1, 3, 6, 12, 24, 48, 120, 240)
MOST_TICKS = 8
LONGEST_NUMBER = 14
"""Digits; milliseconds until the year 5138, which every clock and every database can tell."""


@dataclass(frozen=True, slots=True)
class Clockface:
    """Renders moments for one viewer at one time.

    Attributes:
        now_ms: The present, wall time in milliseconds.
        zone: Name of the viewer's time zone; an unknown one is UTC.
    """

    now_ms: int
    zone: str = "UTC"

    def local(self, ms: int) -> datetime:
        """A moment in the viewer's zone."""
        try:
            zone: ZoneInfo | None = ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            zone = None
        return datetime.fromtimestamp(ms / 1000, zone or UTC)

    def text(self, ms: int) -> str:
        """`14:03:22` today, `Sat 14:03` within the week, else `12 Nov 14:03`."""
        moment, today = self.local(ms), self.local(self.now_ms)
        if moment.date() == today.date():
            return moment.strftime("%H:%M:%S")
        if 0 <= self.now_ms - ms < 6 * DAY_MS:
            return moment.strftime("%a %H:%M")
        return moment.strftime("%d %b %H:%M").lstrip("0")

    def at(self, ms: int) -> Html:
        """A moment with its UTC time on hover."""
        return tag("time", self.text(ms), datetime=iso(ms), title=utc(ms))

    def ago(self, ms: int) -> Html:
        """How long ago, with the moment on hover."""
        return tag(
            "time",
            f"{self.since(ms)} ago",
            datetime=iso(ms),
            title=f"{self.text(ms)} ({utc(ms)})",
        )

    def since(self, ms: int) -> str:
        """How long since: `17 min`."""
        return about(max(0.0, (self.now_ms - ms) / 1000))

    def until(self, ms: int) -> str:
        """How long until: `12 s`."""
        return about(max(0.0, (ms - self.now_ms) / 1000))

    def ticks(self, from_ms: int, to_ms: int) -> list[tuple[float, str]]:
        """Round hours or days of a stretch of time for an axis: each as a share of its width, and in words."""
        step = next((hours for hours in TICKS_H if to_ms - from_ms < (MOST_TICKS + 1) * hours * HOUR_MS), TICKS_H[-1])
        first = from_ms // MINUTE_MS * MINUTE_MS + (60 - self.local(from_ms).minute) % 60 * MINUTE_MS
        found = []
        for at in range(first, to_ms, HOUR_MS):
            moment = self.local(at)
            if moment.hour % min(step, 24) == 0 and moment.toordinal() % max(1, step // 24) == 0 and at >= from_ms:
                text = moment.strftime("%H:%M") if step < 24 else moment.strftime("%d %b").lstrip("0")
                found.append(((at - from_ms) / (to_ms - from_ms), text))
        return found


def about(seconds: float) -> str:
    """A duration for a sentence: seconds under two minutes, then minutes, then hours and minutes."""
    if seconds < 120:
        return describe(round(seconds)) if seconds >= 1 else "0 s"
    return describe(round(seconds / 60) * 60)


def whole(text: str | None) -> int | None:
    """A moment in milliseconds, or a place in a log, as an address gives it; `None` for anything else."""
    known = text is not None and text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER
    return int(text) if known and text is not None else None


def iso(ms: int) -> str:
    """A moment as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc(ms: int) -> str:
    """A moment in UTC for people."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def percent(share: float | None, digits: int = 1) -> str:
    """A share as `99.2 %`; never rounded up to 100 or down to 0 when it is not."""
    if share is None:
        return "–"
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    smallest = 10**-digits
    value = min(max(share * 100, smallest), 100 - smallest)
    return f"{value:.{digits}f} %"


def milliseconds(value: float | None) -> str:
    """A latency as `840 ms` or `1.42 s`."""
    if value is None:
        return "–"
    if value < 1000:
        return f"{value:.0f} ms"
    return f"{value / 1000:.2f} s" if value < 10_000 else f"{value / 1000:.1f} s"


def number(value: float | None) -> str:
    """A count as `1,204` or `12.4 k`."""
    if value is None:
        return "–"
    if value >= 1_000_000:
        return f"{value / 1_000_000:.1f} M"
    if value >= 100_000:
        return f"{value / 1000:.0f} k"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def dollars(value: float | None) -> str:
    """An amount as `$0.042` or `$12.40`."""
    if value is None:
        return "–"
    if value == 0:
        return "$0"
    return f"${value:.4f}" if value < 0.01 else f"${value:.3f}" if value < 1 else f"${value:,.2f}"
