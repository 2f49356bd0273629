"""Incidents: what went wrong, how long, why, how it ended; and one of them with all its evidence."""

from __future__ import annotations

import streamlit as st

from dashboard import charts, export, look, parts, shared, wording
from dashboard.availability import Health, Summary, summary
from dashboard.casefile import ENDINGS, CaseFile, Line, advices_of, before_during_after, what_failed
from dashboard.charts import Series
from dashboard.frame import address, banner_row, clock, guarded, named, page, pager, script, theme, title
from dashboard.markup import Html, div, icon, join, link, span, tag
from dashboard.timeline import evidence_table, sentence, timeline
from dashboard.times import DAY_MS, MINUTE_MS, Clockface, about, number, percent, whole
from dashboard.wording import Face, Tone

SPANS = {"24h": 1, "7d": 7, "30d": 30}
SPAN_LABELS = {"24h": "24 h", "7d": "7 days", "30d": "30 days"}
REFRESH_EVERY = 10.0
"""Seconds; while an incident goes on."""
PAGE_ROWS = 50
GAP_BINS = 3
"""Bins without an answer from which on latency is not known any more."""


@page
def incidents() -> None:
    """The list, or the one the address names."""
    chosen = st.query_params.get("incident") or st.query_params.get("at")
    manager, running = title(
        "Incidents",
        "Derived from breakers, failovers and alerts",
        live=lambda manager: bool(chosen) and _goes_on(shared.case(manager, chosen or "")),
    )
    banner_row(manager)
    if running:
        script(look.HOLD)
    if chosen:
        _detail(manager, chosen, refreshing=running)
    else:
        _list(manager)


def _goes_on(case: CaseFile | None) -> bool:
    return case is not None and case.incident.end_ms is None


def _degraded_note(totals: Summary, bin_minutes: int) -> str:
    """The share, and that over a week or more an hour below what is expected counts whole."""
    return percent(totals.degraded_share) + (", hours below 99 % whole" if bin_minutes >= 60 else "")


def _list(manager: str) -> None:
    chosen = named("span", SPAN_LABELS, "7d")
    picked = st.segmented_control("Span", label_visibility="collapsed", required=True, **chosen) or "7d"
    days = SPANS[picked]
    found, face = shared.incident_lines(manager, days * DAY_MS), clock()
    past = shared.past(manager, days * DAY_MS, sums_only=True)
    totals = summary(past)
    parts.show(
        div(
            "sg-card sg-tiles",
            parts.big_figure("incidents", str(len(found))),
            parts.big_figure("on secondary", about(totals.on_secondary_ms / 1000), percent(totals.secondary_share)),
            parts.big_figure("degraded", about(totals.degraded_ms / 1000), _degraded_note(totals, past.bin_minutes)),
            parts.big_figure("requests hurt", number(sum(line.harm.hurt for line in found)), "failed or shed"),
            parts.big_figure(
                "rescued", number(sum(line.harm.rescued for line in found)), "answered by the other model"
            ),
        )
    )
    if not found:
        parts.show(
            parts.empty_card(
                f"No incident in {SPAN_LABELS[picked]}: no breaker opened, nothing failed over, no alert fired.",
                symbol="verified",
            )
        )
        return
    cursor = whole(st.query_params.get("before"))
    older = [line for line in found if cursor is None or line.incident.start_ms < cursor]
    rows = [_row(line, face) for line in older[:PAGE_ROWS]]
    columns = ("Started", "Lasted", "Cause", "Who can fix it", "Ended", "Hurt", "Rescued", "Moves")
    parts.show(div("sg-card sg-flush", parts.table(columns, rows, label="Incidents")))
    pager(older[PAGE_ROWS - 1].incident.start_ms if len(older) > PAGE_ROWS else None)


def _row(line: Line, face: Clockface) -> list[Html | str]:
    incident, advices = line.incident, advices_of(line)
    href = address("incidents", incident=incident.id)
    lasted = about(incident.duration_ms(face.now_ms) / 1000)
    return [
        link(href, face.at(incident.start_ms), cls="sg-link"),
        span("sg-num", lasted),
        link(href, tag("b", wording.named(advices))),
        div("sg-owners", *(parts.owner(one) for one in dict.fromkeys(advice.owner for advice in advices))),
        parts.badge(ending_face(line)),
        span("sg-num" + (" sg-text-bad" if line.harm.hurt else ""), number(line.harm.hurt)),
        span("sg-num", number(line.harm.rescued)),
        span("sg-num", str(incident.moves)),
    ]


def ending_face(line: Line | CaseFile) -> Face:
    """How an incident ended, as a state."""
    word = ENDINGS[line.incident.ending]
    if line.incident.end_ms is None:
        return Face(word.capitalize(), "priority_high", Tone.BAD)
    return Face(word.capitalize(), "check_circle", Tone.OK)


def _detail(manager: str, chosen: str, *, refreshing: bool) -> None:
    parts.show(link(address("incidents"), icon("arrow_back"), "All incidents", cls="sg-back"))

    @st.fragment(run_every=REFRESH_EVERY if refreshing else None)
    def body() -> None:
        guarded(lambda: _picture(manager, chosen))

    body()


def _picture(manager: str, chosen: str) -> None:
    """One incident as it is now."""
    case, face = shared.case(manager, chosen), clock()
    if case is None:
        parts.show(
            parts.empty_card(
                "There is no such incident: it may be older than the raw records that are kept, "
                "or the moment was calm.",
                symbol="search_off",
            )
        )
        return
    parts.show(_summary(case, face, manager))
    with st.container(horizontal=True, vertical_alignment="center", key="exports"):
        name = f"incident-{manager}-{face.local(case.incident.start_ms):%Y%m%d-%H%M}"
        st.download_button(
            "Save as Markdown",
            lambda: export.markdown(case, face),
            f"{name}.md",
            "text/markdown",
            icon=":material/download:",
        )
        st.download_button(
            "Save as HTML", lambda: export.html(case, face), f"{name}.html", "text/html", icon=":material/download:"
        )
        with st.popover("Copy summary", icon=":material/content_copy:"):
            st.code(export.markdown(case, face), language=None, wrap_lines=True)
        parts.show(parts.more(address("requests", **_window(case)), "Requests in it"))
    left, right = st.columns([5, 4])
    with left:
        _answers(case, face)
        parts.show(div("sg-card", parts.heading("Timeline", note="oldest first"), timeline(case.timeline, face)))
    with right:
        for card in (_tripped(case, face), _failed(case)):
            if card is not None:
                parts.show(card)
        _latency(case, face)
        parts.show(_similar(case, face))


def _window(case: CaseFile) -> dict[str, str]:
    return {"from": str(case.incident.start_ms), "to": str(case.incident.end_ms or case.end_ms)}


def _summary(case: CaseFile, face: Clockface, manager: str) -> Html:
    incident, advices = case.incident, advices_of(case)
    tone, hurt = Tone.BAD if incident.end_ms is None else Tone.MUTED, case.harm.hurt
    until = face.text(incident.end_ms) if incident.end_ms is not None else "now"
    three = [_stretch(name, health) for name, health in before_during_after(case)]
    return tag(
        "section",
        div(
            "sg-headline-word",
            icon("priority_high" if incident.end_ms is None else "history"),
            "Ongoing" if incident.end_ms is None else "Over",
        ),
        div(
            "sg-headline-body",
            tag(
                "h1",
                tag("strong", wording.named(advices)),
                f" on {manager} for {about(incident.duration_ms(face.now_ms) / 1000)}",
            ),
            tag(
                "p",
                face.at(incident.start_ms),
                " – ",
                until,
                f" · {ENDINGS[incident.ending]} · {number(hurt)} request{'' if hurt == 1 else 's'} hurt, "
                f"{number(case.harm.rescued)} rescued by the other model",
            ),
            *(parts.advice_line(advice) for advice in advices),
            div("sg-note", "No notification of its alerts is on record here.") if case.untold else None,
        ),
        div("sg-headline-figures", *three),
        cls=f"sg-headline sg-{tone}",
        aria_label="Incident",
    )


def _stretch(name: str, health: Health | None) -> Html:
    value = percent(health.share) if health is not None and health.total else "–"
    return parts.big_figure(
        f"answered {name.lower()}",
        value,
        f"of {number(health.total)} requests" if health is not None else "not over yet",
    )


def _tripped(case: CaseFile, face: Clockface) -> Html | None:
    evidence = case.evidence
    if evidence is None:
        return None
    fired = [one for one in case.alerts if one is not evidence]
    return div(
        "sg-card",
        parts.heading("What tripped it"),
        evidence_table(evidence, face, parts.prefix(address("requests"), "request")),
        div(
            "sg-evidence-ids",
            span("sg-figure-label", "Alerts in it"),
            *(div("sg-note", face.at(one.ts_ms), " ", sentence(one)) for one in fired),
        )
        if fired
        else None,
    )


def _failed(case: CaseFile) -> Html | None:
    found = what_failed(case.harm)
    if not found:
        return None
    rows = [div("", tag("dt", name), tag("dd", number(n))) for name, n in found]
    return div(
        "sg-card", parts.heading("What failed", note="attempts, and calls kept away"), tag("dl", *rows, cls="sg-pairs")
    )


def _answers(case: CaseFile, face: Clockface) -> None:
    ended = charts.answers(case.traffic, case.start_ms, case.end_ms, case.bin_minutes * MINUTE_MS)
    series = [one for one in ended if one.name != "other"]
    with st.container(key="card-answers"):
        parts.show(
            parts.heading(
                "Who answered", note=f"requests per {'minute' if case.bin_minutes == 1 else f'{case.bin_minutes} min'}"
            )
        )
        charts.show(
            charts.bars(face, theme(), series, charts.flag_moves(case.timeline)),
            "incident-answers",
            "Requests by who answered them, before, during and after the incident",
        )


def _latency(case: CaseFile, face: Clockface) -> None:
    latency = [
        Series(role, role, [(point.start_ms, point.p95) for point in points]).broken(
            GAP_BINS * case.bin_minutes * MINUTE_MS
        )
        for role, points in case.latency.items()
        if points
    ]
    if latency:
        with st.container(key="card-latency"):
            parts.show(parts.heading("p95 latency", note="seconds"))
            charts.show(
                charts.lines(face, theme(), latency, charts.flag_moves(case.timeline), unit=" s"),
                "incident-latency",
                "95th percentile of latency by model, before, during and after the incident",
            )


def _similar(case: CaseFile, face: Clockface) -> Html:
    rows = [
        link(
            address("incidents", incident=line.incident.id),
            span("sg-row-time", face.text(line.incident.start_ms)),
            span("sg-row-main", about(line.incident.duration_ms(face.now_ms) / 1000)),
            span("sg-note", f"{ENDINGS[line.incident.ending]}, {number(line.harm.hurt)} hurt"),
            cls="sg-row",
        )
        for line in case.similar
    ]
    inside = join(*rows) if rows else parts.empty("None of this cause in the last 30 days.", symbol="history")
    return div("sg-card", parts.heading("Similar before"), inside)
