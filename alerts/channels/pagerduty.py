"""PagerDuty Events v2: one event an alert; the key makes firing and resolved one incident."""

from __future__ import annotations

import json

from alerts.channels.channel import Channel, compact_json
from alerts.notices import Notice, Status, iso

ENQUEUE = "https://events.pagerduty.com/v2/enqueue"
KEY_PLACE = "$ROUTING_KEY"
SUMMARY_LIMIT = 1024
_SEVERITIES = ("critical", "error", "warning", "info")


def render(notice: Notice) -> str:
    """The event of one alert, with a place for the routing key."""
    (line,) = notice.lines
    severity = line.labels.get("severity", "")
    name = line.labels.get("alertname", "alert")
    event: dict[str, object] = {
        "routing_key": KEY_PLACE,
        "event_action": "trigger" if line.status is Status.FIRING else "resolve",
        "dedup_key": line.episode[:255],
        "payload": {
            "summary": line.summary[:SUMMARY_LIMIT],
            "source": line.labels.get("manager") or "switchgear",
            "severity": severity if severity in _SEVERITIES else "warning",
            "timestamp": iso(line.starts_ms),
            "component": "switchgear",
            "group": line.labels.get("manager", ""),
            "class": name,
            "custom_details": {
                "labels": dict(sorted(line.labels.items())),
                "annotations": dict(sorted(line.annotations.items())),
                "value": line.value,
                "reason": notice.reason,
            },
        },
        "links": [
            {"href": notice.incident_url(line), "text": "Incident"},
            {"href": notice.silence_url(line), "text": "Silence"},
        ],
        "client": "Switchgear",
        "client_url": notice.alert_url(line),
    }
    return compact_json(event)


def complete(body: str, secret: str | None) -> str:
    """Put the routing key in; it is not kept in the store."""
    event = json.loads(body)
    event["routing_key"] = secret or ""
    return compact_json(event)


CHANNEL = Channel("pagerduty", render, per_alert=True, complete=complete, default_url=ENQUEUE)
