"""Alertmanager's webhook body, version 4, so that every receiver of it works (`notify/webhook/webhook.go`)."""

from __future__ import annotations

from alerts.channels.channel import Channel, compact_json
from alerts.notices import Line, Notice, iso


def render(notice: Notice) -> str:
    """The body; `links` and `value` in an alert are ours, others ignore them."""
    return compact_json(
        {
            "receiver": notice.receiver,
            "status": notice.status,
            "alerts": [_alert(notice, line) for line in notice.lines],
            "notification_reason": notice.reason,
            "groupLabels": dict(sorted(notice.group.items())),
            "commonLabels": notice.common("labels"),
            "commonAnnotations": notice.common("annotations"),
            "routeLabels": {},
            "externalURL": notice.base_url,
            "version": "4",
            "groupKey": notice.key,
            "truncatedAlerts": 0,
        }
    )


def _alert(notice: Notice, line: Line) -> dict[str, object]:
    return {
        "status": line.status,
        "labels": dict(sorted(line.labels.items())),
        "annotations": dict(sorted(line.annotations.items())),
        "startsAt": iso(line.starts_ms),
        "endsAt": iso(line.ends_ms),
        "generatorURL": notice.alert_url(line),
        "fingerprint": line.fingerprint,
        "value": line.value,
        "links": {"incident": notice.incident_url(line), "silence": notice.silence_url(line)},
    }


CHANNEL = Channel("webhook", render, signed=True)
