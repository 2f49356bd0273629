"""Alerts: which rules stand where, since when, how far from firing; silences; what fired before."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from alerts.labels import split_matchers
from dashboard import acts, alert_board, parts, shared, wording
from dashboard.alert_board import Row
from dashboard.frame import address, banner_row, clock, may_act, page, require_actor, title
from dashboard.happenings import Happening, happenings
from dashboard.markup import Child, Html, div, icon, link, literal, quoted, span, tag
from dashboard.parts import badge
from dashboard.preview_card import preview_address, preview_card
from dashboard.times import DAY_MS, Clockface, about
from dashboard.wording import Tone
from engine import queries
from engine.core.errors import SwitchgearError
from engine.durations import describe
from engine.queries import control_room as ask
from engine.queries.control_room import AlertRow, Silence
from engine.sqlite import Connection

HISTORY_ROWS = 100
HISTORY_SHOWN = 20
DURATIONS = {"1 hour": 3600.0, "4 hours": 14_400.0, "1 day": 86_400.0, "7 days": 604_800.0}


@page
def alert_rules() -> None:
    """Rules, silences, history, and a preview of what a rule would have done."""
    manager, _ = title("Alerts", "Evaluated by Switchgear, not by this page")
    banner_row(manager)
    rules = shared.rules()
    now, face = shared.now_ms(), clock()

    def read(connection: Connection) -> tuple[list[AlertRow], list[Silence], tuple[Happening, ...], int | None]:
        page = queries.timeline(
            connection, start_ms=now - 30 * DAY_MS, end_ms=now, manager=manager, kinds=["alert"], limit=HISTORY_ROWS
        )
        return (
            ask.alert_rows(connection, manager=manager),
            ask.silences(connection, now),
            happenings(page.events),
            ask.last_mark(connection),
        )

    states, silences, history, evaluated = shared.ask(read)
    if rules.problems:
        told = [tag("li", str(problem)) for problem in rules.problems]
        parts.show(div("sg-card sg-trouble", parts.heading("The rule file has mistakes"), tag("ul", *told)))
    rows = alert_board.rows(rules.rules, states, silences, manager, now)
    chosen = st.query_params.get("rule")
    picked = next((one for one in rows if one.rule.alert == chosen), None)
    if picked is not None:  # above the list, because whoever comes by a notification's link came for it
        parts.show(_detail(picked, history, face))
    _board(rows, face, evaluated)
    left, right = st.columns([5, 4])
    with left:
        with st.container(key="card-preview"):
            preview_card(rules.rules, manager, face)
        with st.container(key="card-silences"):
            _silences(silences, face)
    with right:
        parts.show(div("sg-card", parts.heading("History", note="30 days"), _history(history, face)))


def _board(rows: Sequence[Row], face: Clockface, evaluated: int | None) -> None:
    when = (
        f"evaluated {face.since(evaluated)} ago" if evaluated is not None else "not evaluated yet: no scheduler has run"
    )
    cells: list[list[Child]] = []
    for one in rows:
        state = wording.face(wording.ALERTS, one.state)
        name = link(address("alerts", rule=one.rule.alert), tag("b", one.rule.alert), cls="sg-link sg-whole-row")
        silenced = span("sg-note", icon("notifications_paused"), " silenced") if one.silenced else None
        cells.append(
            [
                name,
                div("sg-mode", badge(state), silenced),
                span("sg-note", one.rule.labels.get("severity", "–")),
                span("sg-mono sg-expression", one.rule.expression.text),
                _progress(one, face),
                span("sg-num", one.value),
            ]
        )
    inside = parts.table(
        ("Rule", "State", "Severity", "Condition", "For", "Value"), cells, cls="sg-rows", label="Alert rules"
    )
    parts.show(div("sg-card sg-flush-top", parts.heading(f"{len(rows)} rules", note=when), inside))


def _progress(one: Row, face: Clockface) -> Html:
    if one.since_ms is None:
        return span("sg-note", f"for {describe(one.rule.hold / 1000)}" if one.rule.hold else "at once")
    if one.state == "resolved":
        return span("sg-note", f"{face.since(one.since_ms)} ago")
    text = f"{face.since(one.since_ms)}" + (f" of {describe(one.rule.hold / 1000)}" if one.state == "pending" else "")
    tone = Tone.BAD if one.state == "firing" else Tone.WARN
    bar = parts.progress(one.progress, text, tone) if one.rule.hold else None
    return div("sg-for", span("sg-note", text), bar)


def _detail(one: Row, history: Sequence[Happening], face: Clockface) -> Html:
    rule = one.rule
    own = [event for event in history if event.who == rule.alert]
    matcher = f'alertname="{rule.alert}"'
    return div(
        "sg-card",
        parts.heading(
            rule.alert,
            more=span(
                "sg-mode sg-more",
                link(preview_address(rule), icon("history"), "Preview it", cls="sg-link"),
                link(address("alerts", silence=matcher), icon("notifications_paused"), "Silence it", cls="sg-link"),
            ),
        ),
        div("sg-mode", badge(wording.face(wording.ALERTS, one.state)), span("", alert_board.explain(one, face))),
        tag("p", one.summary, cls="sg-evidence-lead sg-below") if one.summary else None,
        div("sg-code sg-below", rule.expression.text),
        parts.pairs(
            [
                ("For", describe(rule.hold / 1000) if rule.hold else "at once"),
                ("Keeps firing", describe(rule.keep / 1000) if rule.keep else "no longer than it holds"),
                ("Without data", str(rule.no_data)),
                ("Line", str(rule.line)),
            ]
        ),
        tag("p", one.description, cls="sg-note sg-below"),
        _history(own, face, named=False)
        if own
        else parts.empty("It has not changed its state in 30 days.", symbol="history"),
    )


def _history(events: Sequence[Happening], face: Clockface, *, named: bool = True) -> Html:
    """What fired and when it was over, newest first; `named` where several rules are told of."""
    shown = [event for event in events if event.after in ("firing", "resolved")] or list(events)
    if not shown:
        return parts.empty("No alert has fired in 30 days.", symbol="notifications")
    rows = [
        link(
            address("incidents", at=one.ts_ms),
            span("sg-row-time", face.at(one.ts_ms)),
            badge(wording.face(wording.ALERTS, one.after)),
            span("sg-row-two", span("sg-row-main", one.who) if named else None, span("sg-note", _told(one, events))),
            cls="sg-row sg-row-told",
        )
        for one in shown[:HISTORY_SHOWN]
    ]
    return div("", *rows)


def _told(one: Happening, events: Sequence[Happening]) -> str:
    """What an alert said, or for how long it had fired."""
    if one.after != "resolved":
        return one.reason
    same = [event for event in events if event.evidence.get("fingerprint") == one.evidence.get("fingerprint")]
    began = next((event.ts_ms for event in same if event.after == "firing" and event.ts_ms <= one.ts_ms), None)
    return f"after {about((one.ts_ms - began) / 1000)}" if began is not None else ""


def _silences(silences: Sequence[Silence], face: Clockface) -> None:
    allowed = may_act()
    parts.show(parts.heading("Silences", note="who is silenced is still evaluated and shown"))
    if not silences:
        parts.show(parts.empty("Nothing is silenced.", symbol="notifications_active"))
    for one in silences:
        with st.container(horizontal=True, vertical_alignment="center", key=f"silence-{one.id}"):
            with st.container(width="stretch"):
                parts.show(
                    div(
                        "sg-silence",
                        span("sg-mono", ", ".join(one.matchers)),
                        span(
                            "sg-note",
                            f"{one.author}: ",
                            quoted(one.reason),
                            f" · ends in {face.until(one.ends_ms)}",
                        ),
                    )
                )
            if st.button("End", key=f"end-{one.id}", disabled=not allowed):
                try:
                    acts.end_silence(require_actor(), one.id)
                except SwitchgearError as error:
                    st.error(literal(str(error)))
                else:
                    st.rerun()
    asked = st.query_params.get("silence")
    if st.button("New silence", icon=":material/notifications_paused:", key="new-silence", disabled=not allowed) or (
        asked and allowed
    ):
        _silence_dialog(asked or "")


def _forget_silence() -> None:
    st.query_params.pop("silence", None)


@st.dialog("Silence alerts", icon=":material/notifications_paused:", on_dismiss=_forget_silence)
def _silence_dialog(asked: str) -> None:
    text = st.text_area(
        "Matchers, one a line; all must hold",
        value="\n".join(split_matchers(asked)),
        key="matchers",
        height=110,
        placeholder='alertname="LatencyHigh"',
    )
    chosen = st.segmented_control("For", list(DURATIONS), default="1 hour", key="silence-for", required=True)
    reason = st.text_input("Reason", key="silence-reason", placeholder="Why nobody should be told")
    if st.button("Silence", type="primary", key="do-silence"):
        matchers = [line.strip() for line in text.splitlines() if line.strip()]
        try:
            acts.add_silence(require_actor(), matchers, seconds=DURATIONS[chosen or "1 hour"], reason=reason)
        except SwitchgearError as error:
            st.warning(literal(str(error)), icon=":material/edit:")
            return
        _forget_silence()
        st.rerun()
