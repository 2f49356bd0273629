"""Everything apprise knows (mail, chat, push), by its URLs; an optional extra, behind our outbox.

Apprise opens its own connections, so the vetted address cannot be pinned as in `alerts.net`: where the URL names a host
of its own, that host is vetted before each attempt.
"""

from __future__ import annotations

import json
from importlib import import_module
from urllib.parse import urlsplit

from alerts import net
from alerts.channels.channel import Channel, compact_json
from alerts.notices import Notice, Status

SELF_HOSTED = tuple(
    name + ending for name in ("json", "xml", "form", "apprise", "gotify", "ntfy") for ending in ("", "s")
)
"""Schemes whose host is the receiver itself; others name an account at a public service."""


def render(notice: Notice) -> str:
    """Title, text and sort of the message."""
    name = notice.group.get("alertname", "alert")
    where = f" · {notice.group['manager']}" if notice.group.get("manager") else ""
    texts = [f"{line.summary}\n{notice.alert_url(line)}" for line in notice.lines]
    critical = any(line.labels.get("severity") == "critical" for line in notice.lines)
    firing = notice.status is Status.FIRING
    return compact_json(
        {
            "title": f"[{str(notice.status).upper()}] {name}{where}",
            "body": "\n\n".join(texts),
            "type": ("failure" if critical else "warning") if firing else "success",
        }
    )


def send(url: str, body: str, allow_private: bool) -> str | None:
    """Send by apprise; returns what went wrong, `None` for nothing."""
    try:
        apprise = import_module("apprise")
    except ImportError:
        return "apprise is not installed: pip install 'switchgear[apprise]'"
    parts = urlsplit(url)
    if parts.scheme in SELF_HOSTED and parts.hostname:
        secure = parts.scheme.endswith("s") and parts.scheme[:-1] in SELF_HOSTED
        try:
            net.vet(f"{'https' if secure else 'http'}://{parts.netloc.rpartition('@')[2]}", allow_private=allow_private)
        except (net.Refused, net.Unreachable) as error:
            return str(error)
    try:
        sender = apprise.Apprise(asset=apprise.AppriseAsset(async_mode=False))
        if not sender.add(url):
            return "apprise does not understand the address: see https://appriseit.com/services/ for its form"
        message = json.loads(body)
        delivered = sender.notify(title=message["title"], body=message["body"], notify_type=message["type"])
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and its words may hold the address
        return f"apprise failed with {type(error).__name__}"
    return None if delivered else "apprise could not deliver it"


CHANNEL = Channel("apprise", render, send=send)
