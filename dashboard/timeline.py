"""The merged timeline in words: what each event says, and how it looks in a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from dashboard import wording
from dashboard.happenings import Happening
from dashboard.markup import Child, Html, div, icon, join, link, span, tag
from dashboard.times import Clockface, about, milliseconds, percent
from dashboard.wording import Tone
from engine.queries import EventKind

ICONS: Final[Mapping[EventKind, str]] = {
    EventKind.FAILOVER: "swap_horiz",
    EventKind.REQUEST_FAILOVER: "redo",
    EventKind.BREAKER: "bolt",
    EventKind.OVERRIDE: "person",
    EventKind.AGREEMENT: "handshake",
    EventKind.ALERT: "notifications",
    EventKind.DELIVERY: "send",
}

RATES: Final = frozenset({"failure_rate", "slow_rate", "threshold", "quorum", "share"})
HIDDEN: Final = frozenset({"request_ids", "votes", "labels", "fingerprint", "outbox_id", "rule"})
NAMES: Final[Mapping[str, str]] = {
    "samples": "Calls in the window",
    "failures": "Failed",
    "slow": "Slow",
    "failure_rate": "Failure rate",
    "slow_rate": "Slow rate",
    "threshold": "Threshold crossed",
    "streak": "Failures in a row",
    "retry_in": "Wait before a probe",
    "reopens": "Reopened",
    "down": "Hosts that say down",
    "opinions": "Hosts with an opinion",
    "live_hosts": "Live hosts",
    "quorum": "Quorum",
    "role": "Model",
    "expires_ms": "Until",
    "status_code": "Status",
    "duration_ms": "Took",
    "n": "Attempt",
}


def sentence(one: Happening) -> str:
    """An event as one plain sentence, for lists and exports."""
    if one.kind in (EventKind.FAILOVER, EventKind.REQUEST_FAILOVER):
        return f"Active model moved from {one.before} to {one.after}: {wording.advice(one.what).label.lower()}"
    if one.kind is EventKind.BREAKER:
        word = wording.face(wording.BREAKERS, one.after).word.lower()
        return f"{(one.role or '').capitalize()} breaker {word}: {wording.reason(one.reason)}{_counts(one)}"
    if one.kind is EventKind.OVERRIDE:
        return f"{one.who} {wording.act(one.what, one.role)}: “{one.reason}”"
    if one.kind is EventKind.AGREEMENT:
        share = one.evidence.get("share")
        if one.evidence.get("ramp_aborted"):
            return "Ramp aborted: all traffic stays on secondary"
        if one.evidence.get("stage") is not None:
            return f"Ramp: {percent(share, 0)} of traffic on primary"
        return f"Agreed on {one.after}: {wording.advice(one.what).label.lower()}"
    if one.kind is EventKind.ALERT:
        return _alert(one)
    code = one.evidence.get("status_code")
    about_what = f"about {one.evidence['rule']} " if one.evidence.get("rule") else ""
    return (
        f"Notification {about_what}to {one.who} {one.what}"
        + (f" ({code})" if code and str(code) not in (one.reason or "") else "")
        + (f": {one.reason}" if one.reason else "")
    )


def _alert(one: Happening) -> str:
    if one.after == "inactive":
        return f"Alert {one.who} did not fire: its condition ended"
    if one.after not in ("pending", "firing"):
        return f"Alert {one.who} {one.after}"
    value = one.evidence.get("value")
    shown = f", value {value:.3g}" if isinstance(value, int | float) else ""
    return f"Alert {one.who} {one.after}" + (f": {one.reason}" if one.reason else shown)


def _counts(one: Happening) -> str:
    if one.after != "open" or not one.evidence.get("samples"):
        return ""
    return f", {one.evidence.get('failures', 0)} of {one.evidence['samples']} calls failed"


def tone(one: Happening) -> Tone:
    """How an event is coloured."""
    if one.kind is EventKind.FAILOVER:
        return Tone.OK if one.after == "primary" else Tone.WARN
    if one.kind is EventKind.BREAKER:
        return wording.face(wording.BREAKERS, one.after).tone
    if one.kind is EventKind.ALERT:
        return wording.face(wording.ALERTS, one.after).tone
    if one.kind is EventKind.DELIVERY:
        return Tone.OK if one.what == "delivered" else Tone.BAD
    return Tone.INFO if one.kind is EventKind.OVERRIDE else Tone.MUTED


def quieten(events: Iterable[Happening]) -> list[tuple[Happening, int]]:
    """Fold what only repeats into its first line, with a count: probes that fail, tries of a notification that fail."""
    folded: list[tuple[Happening, int]] = []
    lines: dict[tuple[EventKind, object], int] = {}
    for one in events:
        if _goes_without_saying(one):
            continue
        repeated = _repeated(one)
        if repeated is None and one.kind is EventKind.BREAKER:
            lines.pop((one.kind, one.role), None)  # it closed or tripped anew: other probes than those before
        if repeated is not None and repeated in lines:
            first, times = folded[lines[repeated]]
            folded[lines[repeated]] = (first, times + 1)
            continue
        if repeated is not None:
            lines[repeated] = len(folded)
        folded.append((one, 1))
    return folded


def _goes_without_saying(one: Happening) -> bool:
    """Whether what follows tells it: a breaker that lets a probe through, an agreement on a move."""
    if one.kind is EventKind.AGREEMENT:
        return one.evidence.get("stage") is None and not one.evidence.get("ramp_aborted")
    return one.kind is EventKind.BREAKER and one.after == "half_open"


def _repeated(one: Happening) -> tuple[EventKind, object] | None:
    """What an event may be one of many of; `None` for what is told by itself."""
    if one.kind is EventKind.BREAKER and (one.before, one.after) == ("half_open", "open"):
        return one.kind, one.role
    if one.kind is EventKind.DELIVERY and one.what == "failed":
        return one.kind, one.evidence.get("outbox_id")
    return None


def again(one: Happening, times: int) -> str:
    """What `quieten` has folded into a line, in words; empty for nothing."""
    what = ("try", "tries") if one.kind is EventKind.DELIVERY else ("probe", "probes")
    return f" (and {times - 1} more {what[times > 2]} failed)" if times > 1 else ""


def timeline(events: Iterable[Happening], face: Clockface) -> Html:
    """The events as a vertical line, oldest first."""
    rows = []
    for one, times in quieten(events):
        rows.append(
            tag(
                "li",
                span("sg-tl-time", face.at(one.ts_ms)),
                span(f"sg-tl-icon sg-{tone(one)}", icon(ICONS[one.kind])),
                span("sg-tl-text", sentence(one), span("sg-note", again(one, times)), _where(one)),
            )
        )
    return tag("ol", *rows, cls="sg-timeline")


def _where(one: Happening) -> Child:
    place = "" if one.kind in (EventKind.OVERRIDE, EventKind.ALERT, EventKind.DELIVERY) else one.who
    epoch = f"epoch {one.epoch}" if one.epoch is not None else ""
    told = " · ".join(part for part in (place, epoch) if part)
    return span("sg-note sg-tl-where", told) if told else None


def evidence_table(one: Happening, face: Clockface, request_href: str) -> Html:
    """What justified an event: numbers beside the threshold, and the requests it rests on.

    Args:
        one: The event.
        face: The viewer's clock.
        request_href: Address of a request without its id.
    """
    rows = [div("", tag("dt", name), tag("dd", value)) for name, value in evidence_numbers(one, face)]
    links = [
        link(request_href + found, span("sg-mono", found[-12:]), cls="sg-link", title=found)
        for found in evidence_requests(one)
    ]
    said = [div("sg-note", vote) for vote in evidence_votes(one)]
    return join(
        tag("p", sentence(one), cls="sg-evidence-lead"),
        tag("dl", *rows, cls="sg-pairs") if rows else None,
        div("sg-evidence-ids", span("sg-figure-label", "Votes"), *said) if said else None,
        div("sg-evidence-ids", span("sg-figure-label", "Requests"), div("sg-idlist", *links)) if links else None,
    )


def evidence_numbers(one: Happening, face: Clockface) -> list[tuple[str, str]]:
    """The numbers that justified an event, named and written for people."""
    return [
        (NAMES.get(key, key.replace("_", " ").capitalize()), _value(key, value, face))
        for key, value in one.evidence.items()
        if key not in HIDDEN
        and value is not None
        and not isinstance(value, dict | list)
        and not (key == "value" and one.reason)  # an alert's own words say it with its unit
    ]


def evidence_requests(one: Happening) -> list[str]:
    """Ids of the requests an event rests on, each once however many of its attempts count."""
    return list(dict.fromkeys(str(found) for found in one.evidence.get("request_ids") or ()))


def evidence_votes(one: Happening) -> list[str]:
    """What each host said, a line a host."""
    votes = one.evidence.get("votes")
    return [
        f"{who}: {vote.get('verdict')} ({vote.get('failures')} of {vote.get('samples')} failed)"
        for who, vote in (votes.items() if isinstance(votes, dict) else ())
    ]


def _value(key: str, value: Any, face: Clockface) -> str:
    if key in RATES and isinstance(value, int | float) and value <= 1:
        return percent(float(value))
    if key == "retry_in" and isinstance(value, int | float):
        return about(float(value))
    if key == "duration_ms" and isinstance(value, int | float):
        return milliseconds(float(value))
    if key.endswith("_ms") and isinstance(value, int) and value > 10**12:
        return face.at(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
