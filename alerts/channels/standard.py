"""The Standard Webhooks envelope: `{type, timestamp, data}`; types `alert.firing` and `alert.resolved`."""

from __future__ import annotations

from alerts.channels.channel import Channel, compact_json
from alerts.notices import Notice, Reason, iso


def render(notice: Notice) -> str:
    """The body of one alert."""
    (line,) = notice.lines
    return compact_json(
        {
            "type": "alert.test" if notice.reason is Reason.TEST else f"alert.{line.status}",
            "timestamp": iso(line.ends_ms if line.ends_ms is not None else line.starts_ms),
            "data": {
                "alertname": line.labels.get("alertname", ""),
                "manager": line.labels.get("manager"),
                "severity": line.labels.get("severity"),
                "status": line.status,
                "reason": notice.reason,
                "labels": dict(sorted(line.labels.items())),
                "annotations": dict(sorted(line.annotations.items())),
                "value": line.value,
                "starts_at": iso(line.starts_ms),
                "ends_at": None if line.ends_ms is None else iso(line.ends_ms),
                "fingerprint": line.fingerprint,
                "episode": line.episode,
                "links": {
                    "alert": notice.alert_url(line),
                    "incident": notice.incident_url(line),
                    "silence": notice.silence_url(line),
                },
            },
        }
    )


CHANNEL = Channel("standard", render, per_alert=True, signed=True)
