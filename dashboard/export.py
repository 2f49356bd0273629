"""An incident as a document to hand over: Markdown, HTML that stands alone, and JSON."""

from __future__ import annotations

import json
from typing import Any

from dashboard import wording
from dashboard.casefile import ENDINGS, CaseFile, advices_of, before_during_after, what_failed
from dashboard.happenings import Happening
from dashboard.markup import tag
from dashboard.timeline import again, evidence_numbers, evidence_requests, evidence_votes, quieten, sentence
from dashboard.times import Clockface, about, iso, number, percent, utc


def facts(case: CaseFile, face: Clockface) -> list[tuple[str, str]]:
    """The incident in name and value, the same in every format."""
    incident, advices = case.incident, advices_of(case)
    found = [
        ("Manager", incident.manager),
        ("Began", utc(incident.start_ms)),
        ("Ended", utc(incident.end_ms) if incident.end_ms is not None else "not yet"),
        ("Lasted" if incident.end_ms is not None else "So far", about(incident.duration_ms(face.now_ms) / 1000)),
        ("Cause", wording.named(advices)),
        ("Who can fix it", "; ".join(dict.fromkeys(advice.owner for advice in advices))),
        ("What to do", " ".join(advice.next for advice in advices)),
        ("How it ended", ENDINGS[incident.ending]),
        ("Requests hurt", f"{number(case.harm.hurt)} failed or shed"),
        ("Requests rescued", f"{number(case.harm.rescued)} answered by the other model"),
        ("Moves to secondary", str(incident.moves)),
        ("Alerts", ", ".join(incident.alerts) or "none fired"),
    ]
    if case.untold:
        found.append(("Notifications", "none on record here"))
    for name, health in before_during_after(case):
        if health is not None and health.total:
            found.append((f"Answered {name.lower()}", f"{percent(health.share)} of {number(health.total)}"))
    return found


def markdown(case: CaseFile, face: Clockface) -> str:
    """The incident for a ticket or a chat."""
    lines = [f"# {_title(case)}", "", "| | |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in facts(case, face)]
    if failed := what_failed(case.harm):
        lines += ["", "## What failed", "", "| attempts, and calls kept away | |", "|---|---:|"]
        lines += [f"| {_cell(name)} | {count} |" for name, count in failed]
    if case.evidence is not None:
        lines += ["", "## What tripped it", "", _cell(sentence(case.evidence)), ""]
        lines += [f"- {_cell(name)}: {_cell(value)}" for name, value in _evidence(case.evidence, face)]
    lines += ["", "## Timeline (UTC)", ""]
    lines += [
        f"- `{utc(one.ts_ms)}` {_cell(sentence(one))}{again(one, times)}" for one, times in quieten(case.timeline)
    ]
    return "\n".join(lines) + "\n"


def html(case: CaseFile, face: Clockface) -> str:
    """The incident as a page that needs nothing else."""
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in facts(case, face)]
    failed = [tag("tr", tag("th", name, scope="row"), tag("td", count)) for name, count in what_failed(case.harm)]
    events = [
        tag("li", tag("time", utc(one.ts_ms), datetime=iso(one.ts_ms)), " ", sentence(one), again(one, times))
        for one, times in quieten(case.timeline)
    ]
    tripped = case.evidence
    evidence = [
        tag("tr", tag("th", name, scope="row"), tag("td", value))
        for name, value in (_evidence(tripped, face) if tripped is not None else ())
    ]
    body = tag(
        "body",
        tag("h1", _title(case)),
        tag("table", *rows),
        tag("h2", "What failed") if failed else None,
        tag("table", *failed) if failed else None,
        tag("h2", "What tripped it") if tripped is not None else None,
        tag("p", sentence(tripped)) if tripped is not None else None,
        tag("table", *evidence) if evidence else None,
        tag("h2", "Timeline (UTC)"),
        tag("ol", *events),
    )
    head = f'<head><meta charset="utf-8">{tag("title", _title(case))}<style>{_STYLE}</style></head>'
    return f'<!doctype html><html lang="en">{head}{body}</html>\n'


def as_json(case: CaseFile, face: Clockface) -> str:
    """The incident for a program."""
    incident = case.incident
    document: dict[str, Any] = {
        "id": incident.id,
        "manager": incident.manager,
        "start": iso(incident.start_ms),
        "end": iso(incident.end_ms) if incident.end_ms is not None else None,
        "duration_seconds": incident.duration_ms(face.now_ms) / 1000,
        "cause": case.cause,
        "also": case.also,
        "ending": str(incident.ending),
        "moves": incident.moves,
        "alerts": list(incident.alerts),
        "requests_hurt": case.harm.hurt,
        "requests_shed": case.harm.health.shed,
        "requests_rescued": case.harm.rescued,
        "failed_attempts": dict(case.harm.categories),
        "timeline": [
            {"at": iso(one.ts_ms), "kind": str(one.kind), "text": sentence(one), "evidence": dict(one.evidence)}
            for one in case.timeline
        ],
    }
    return json.dumps(document, indent=2, default=str) + "\n"


def _title(case: CaseFile) -> str:
    return f"Incident on {case.incident.manager}, {utc(case.incident.start_ms)}: {wording.named(advices_of(case))}"


def _evidence(one: Happening, face: Clockface) -> list[tuple[str, str]]:
    found = evidence_numbers(one, face)
    for name, several in (("Votes", evidence_votes(one)), ("Requests", evidence_requests(one))):
        if several:
            found.append((name, ", ".join(several)))
    return found


def _cell(text: str) -> str:
    """Text that stays text in Markdown: no table breaks, no markup, no links."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    for sign in "`*_[]<>#":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#12161d}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem "
    ".6rem;border-bottom:1px solid #dfe3ea;"
    "vertical-align:top;font-weight:400}th{color:#545d6b;width:14rem}time{color:#545d6b;font-variant-numeric:tabular-nums}"
    "ol{padding-left:1.2rem}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:1.6rem}"
)
