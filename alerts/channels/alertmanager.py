"""Alertmanager's API v2, for routing trees, inhibition and rotations that exist already.

A firing alert has no end: Alertmanager forgets it `resolve_timeout` after it was last told, so it is told again every
minute, and an alert of a dead Switchgear goes away by itself.
"""

from __future__ import annotations

from alerts.channels.channel import Channel, compact_json
from alerts.notices import Line, Notice, iso


def render(notice: Notice) -> str:
    """The alerts."""
    return compact_json([_alert(notice, line) for line in notice.lines])


def _alert(notice: Notice, line: Line) -> dict[str, object]:
    alert: dict[str, object] = {
        "labels": dict(sorted(line.labels.items())),
        "annotations": dict(sorted(line.annotations.items())),
        "startsAt": iso(line.starts_ms),
        "generatorURL": notice.alert_url(line),
    }
    return alert if line.ends_ms is None else {**alert, "endsAt": iso(line.ends_ms)}


def address(url: str) -> str:
    """The API below the base URL."""
    return url.rstrip("/") + "/api/v2/alerts"


CHANNEL = Channel("alertmanager", render, address=address)
