"""A Slack incoming webhook: a coloured message; success is 200 with the body `ok`."""

from __future__ import annotations

from alerts.channels.channel import Channel, compact_json
from alerts.notices import Line, Notice, Status

SECTION_LIMIT = 3000
LINES_LIMIT = 20
_COLOURS = {"critical": "#c0392b", "warning": "#d68910", "info": "#2471a3"}
_RESOLVED = "#1e8449"


def render(notice: Notice) -> str:
    """The message; what does not fit is counted."""
    firing = sum(line.status is Status.FIRING for line in notice.lines)
    name = notice.group.get("alertname", "alert")
    where = f" · {notice.group['manager']}" if notice.group.get("manager") else ""
    word = f"FIRING {firing}" if firing > 1 else str(notice.status).upper()
    title = f"[{word}] {name}{where}"
    shown = notice.lines[:LINES_LIMIT]
    text = "\n\n".join(_text(notice, line) for line in shown)
    if len(notice.lines) > len(shown):
        text += f"\n\n… and {len(notice.lines) - len(shown)} more"
    severity = notice.lines[0].labels.get("severity", "")
    colour = _COLOURS.get(severity, "#7f8c8d") if notice.status is Status.FIRING else _RESOLVED
    section = {"type": "section", "text": {"type": "mrkdwn", "text": _cut(text)}}
    header = {"type": "section", "text": {"type": "mrkdwn", "text": f"*{_escaped(title)}*"}}
    return compact_json({"text": title, "attachments": [{"color": colour, "blocks": [header, section]}]})


def _text(notice: Notice, line: Line) -> str:
    links = [f"<{notice.alert_url(line)}|rule>", f"<{notice.incident_url(line)}|incident>"]
    if line.status is Status.FIRING:
        links.append(f"<{notice.silence_url(line)}|silence>")
    if runbook := line.annotations.get("runbook_url"):
        links.append(f"<{runbook}|runbook>")
    description = line.annotations.get("description", "")
    more = f"\n{_escaped(description)}" if description else ""
    return f"{_escaped(line.summary)}{more}\n{' · '.join(links)}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str) -> str:
    return text if len(text) <= SECTION_LIMIT else text[: SECTION_LIMIT - 1] + "…"


def accepts(status: int, body: bytes) -> bool:
    """Slack says `ok`."""
    return status == 200 and body.strip() == b"ok"


CHANNEL = Channel("slack", render, accepts=accepts)
