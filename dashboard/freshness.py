"""Whether a page is telling the truth: how old each thing is that it rests on.

A page that shows old numbers as if they were new is worse than none, so this is said of the recording itself and apart
from how the service does: calm figures beside a late recorder are not calm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dashboard.reading import Live
from dashboard.times import MINUTE_MS, about, number
from dashboard.wording import Face, Tone

STALE_REQUEST_MS: Final = 5 * MINUTE_MS
STALE_EVALUATION_MS: Final = 2 * MINUTE_MS
QUEUE_BEHIND: Final = 1000
"""Records waiting to be written, above which the numbers lag behind what happens."""

FINE: Final = Face("fresh", "check_circle", Tone.OK)
LATE: Final = Face("late", "warning", Tone.WARN)
UNKNOWN: Final = Face("never", "help", Tone.MUTED)


@dataclass(frozen=True, slots=True)
class Chip:
    """One part of the freshness strip."""

    label: str
    value: str
    face: Face


def freshness(live: Live) -> tuple[Chip, ...]:
    """The strip: last request, last evaluation of alert rules, recorder, agreement and instances."""
    return (
        _age("Last request", live.last_request_ms, STALE_REQUEST_MS, live.now_ms),
        _age("Last evaluation", live.last_evaluation_ms, STALE_EVALUATION_MS, live.now_ms),
        _recorder(live),
        _agreement(live),
        _instances(live),
    )


def _age(label: str, at_ms: int | None, limit_ms: int, now_ms: int) -> Chip:
    if at_ms is None:
        return Chip(label, "never", UNKNOWN)
    return Chip(label, f"{about(max(0, now_ms - at_ms) / 1000)} ago", FINE if now_ms - at_ms <= limit_ms else LATE)


def _recorder(live: Live) -> Chip:
    queue = max((int(instance.gauges.get("queue_length") or 0) for instance in live.alive), default=0)
    known = LATE if queue > QUEUE_BEHIND else FINE
    return Chip("Recorder", f"{number(queue)} waiting" if queue else "up to date", known if live.alive else UNKNOWN)


def _agreement(live: Live) -> Chip:
    unreachable = any(instance.gauges.get("coordinator_up") is False for instance in live.alive)
    epoch = f"epoch {live.document.epoch}" if live.document else "nothing agreed"
    known = FINE if live.document else UNKNOWN
    return Chip("Agreement", f"{epoch}, unreachable" if unreachable else epoch, LATE if unreachable else known)


def _instances(live: Live) -> Chip:
    alive, gone = len(live.alive), len(live.instances) - len(live.alive)
    told = f"{alive} alive" + (f", {gone} lost" if gone else "")
    return Chip("Instances", told, FINE if alive and not gone else LATE if live.instances else UNKNOWN)
