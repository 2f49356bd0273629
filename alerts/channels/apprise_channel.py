"""Everything apprise knows (mail, chat, push), by its URLs; an optional extra, behind our outbox.

Apprise opens its own connections, so each message is sent by a process of its own that vets every address as it is
connected to (`alerts.channels.apprise_process`), and that is ended when it takes too long.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from urllib.parse import urlsplit

from alerts import net
from alerts.channels.channel import Channel, compact_json
from alerts.notices import Notice, Status
from engine import standstill

SELF_HOSTED = tuple(
    name + ending for name in ("json", "xml", "form", "apprise", "gotify", "ntfy") for ending in ("", "s")
)
"""Schemes whose host is the receiver itself; others name an account at a public service."""

PROGRAM = "alerts.channels.apprise_process"
TIMEOUT_S = net.TOTAL_TIMEOUT_S


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
    parts = urlsplit(url)
    if parts.scheme in SELF_HOSTED and parts.hostname:
        secure = parts.scheme.endswith("s") and parts.scheme[:-1] in SELF_HOSTED
        try:
            net.vet(f"{'https' if secure else 'http'}://{parts.netloc.rpartition('@')[2]}", allow_private=allow_private)
        except (net.Refused, net.Unreachable) as error:
            return str(error)
    order = {"url": url, "message": json.loads(body), "allow_private": allow_private}
    try:
        said = _run(json.dumps(order))
        if said is None:
            return f"apprise did not come to an end within {TIMEOUT_S:g} s"
        error_text = json.loads(said.splitlines()[-1])["error"]
    except (OSError, ValueError, IndexError, KeyError):
        return "apprise broke off"
    return None if error_text is None else str(error_text)


def _run(order: str) -> str | None:
    """Run the program with its order; returns what it said, `None` when it did not end in time."""
    command = [sys.executable, "-P", "-m", PROGRAM]
    given, said = iter([order]), list[str]()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:  # noqa: S603 - ours

        def ended(seconds: float) -> bool:
            with suppress(subprocess.TimeoutExpired):
                said.append(process.communicate(next(given, None), timeout=seconds)[0])
            return bool(said)

        try:
            return said[0] if standstill.wait(ended, TIMEOUT_S) else None
        finally:
            process.kill()


CHANNEL = Channel("apprise", render, send=send)
