"""Requests: find the ones that were hurt, and see attempt by attempt what happened to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard import charts, parts, shared, wording
from dashboard.frame import address, as_shown, banner_row, clock, named, page, pager, theme, title
from dashboard.happenings import Happening, happenings
from dashboard.markup import Child, div, join, link, span
from dashboard.times import MINUTE_MS, Clockface, dollars, milliseconds, number, whole
from dashboard.waterfall import outcome_badge, story, waterfall
from engine import queries
from engine.core.outcomes import Cause
from engine.queries import RequestDetail, RequestFilter, RequestPage, RequestRow, TrafficPoint
from engine.queries.search import filtered_requests
from engine.sqlite import Connection

SPANS = {"15m": 15, "1h": 60, "6h": 360, "24h": 1440, "7d": 10_080}
SPAN_LABELS = {"15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 days"}
PAGE_ROWS = 50
BARS = 72
ANSWERERS = {"primary": "Primary", "secondary": "Secondary", "none": "Nobody"}
OUTCOMES = ("ok", "error", "shed", "cancelled")


@dataclass(frozen=True, slots=True)
class Stretch:
    """The time that is looked at."""

    start_ms: int
    end_ms: int

    @property
    def bin_minutes(self) -> int:
        """Length of a bar, minutes; whole hours from an hour on, because sums of hours are read much faster."""
        minutes = (self.end_ms - self.start_ms) / MINUTE_MS / BARS
        return max(1, round(minutes)) if minutes < 60 else 60 * round(minutes / 60)


@page
def requests() -> None:
    """The explorer."""
    manager, _ = title("Requests", "Every finished call")
    banner_row(manager)
    stretch, where = _filters(manager)
    before = _cursor(st.query_params.get("before"))

    def read(connection: Connection) -> tuple[list[TrafficPoint], tuple[Happening, ...], RequestPage]:
        return (
            queries.traffic_series(
                connection, manager, stretch.start_ms, stretch.end_ms, step_minutes=stretch.bin_minutes
            ),
            happenings(
                queries.timeline(
                    connection,
                    start_ms=stretch.start_ms,
                    end_ms=stretch.end_ms,
                    manager=manager,
                    kinds=["failover"],
                    limit=50,
                ).events
            ),
            filtered_requests(
                connection,
                start_ms=stretch.start_ms,
                end_ms=stretch.end_ms,
                where=where,
                before=before,
                limit=PAGE_ROWS,
            ),
        )

    traffic, moves, rows = shared.ask(read)
    face = clock()
    _histogram(traffic, moves, stretch, face)
    _table(rows, face)
    if chosen := st.query_params.get("request"):
        _drawer(chosen)


def _filters(manager: str) -> tuple[Stretch, RequestFilter]:
    window = _window()
    causes = {str(cause): wording.advice(cause).label for cause in Cause}
    outcomes = {word: wording.face(wording.OUTCOMES, word).word for word in OUTCOMES}
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        span_name = _span(window)
        role = st.selectbox("Answered by", index=None, placeholder="Any model", width=140, **named("role", ANSWERERS))
        outcome = st.selectbox("Outcome", index=None, placeholder="Any", width=130, **named("outcome", outcomes))
        cause = st.selectbox("Failover cause", index=None, placeholder="Any", width=190, **named("cause", causes))
        slower = st.number_input(
            "Slower than, s",
            min_value=0.0,
            value=None,
            step=1.0,
            key="slower",
            bind="query-params",
            width=120,
            on_change=as_shown,
        )
        found = st.text_input("Request id", key="find", placeholder="Paste an id", width=170, on_change=as_shown)
    if found.strip():
        st.query_params["request"] = found.strip()
    now = shared.now_ms()
    stretch = window or Stretch(now - SPANS.get(span_name, 60) * MINUTE_MS, now)
    return stretch, RequestFilter(
        manager=manager,
        role=role,
        outcome=outcome,
        failover_cause=cause,
        min_duration_ms=slower * 1000 if slower else None,
    )


def _span(window: Stretch | None) -> str:
    """The chosen span; where a stretch of time was chosen instead, the way back to spans."""
    if window is not None:
        face = clock()
        told = f"{face.text(window.start_ms)} – {face.text(window.end_ms)}"
        st.button(told, icon=":material/close:", on_click=_clear_window, help="Leave this stretch of time")
        return ""
    picked = st.segmented_control("Time", required=True, **named("span", SPAN_LABELS, "1h"))
    return picked or "1h"


def _window() -> Stretch | None:
    """The stretch of time an address names; `None` when it names none."""
    start, end = whole(st.query_params.get("from")), whole(st.query_params.get("to"))
    return Stretch(start, end) if start is not None and end is not None and start < end else None


def _clear_window() -> None:
    as_shown()
    for name in ("from", "to", "before"):
        st.query_params.pop(name, None)


def _cursor(text: str | None) -> tuple[int, str] | None:
    moment, _, identifier = (text or "").partition("_")
    at = whole(moment)
    return (at, identifier) if at is not None else None


def _histogram(traffic: list[TrafficPoint], moves: tuple[Happening, ...], stretch: Stretch, face: Clockface) -> None:
    series = charts.answers(traffic, stretch.start_ms, stretch.end_ms, stretch.bin_minutes * MINUTE_MS)
    total = sum(row.n for row in traffic)
    with st.container(key="card-histogram"):
        minutes = stretch.bin_minutes
        step = "minute" if minutes == 1 else f"{minutes} min" if minutes < 60 else f"{minutes / 60:.0f} h"
        parts.show(
            parts.heading(f"{number(total)} requests", note=f"all of the chosen time by who answered, per {step}")
        )
        if total:
            charts.show(
                charts.bars(face, theme(), series, charts.flag_moves(moves)),
                "requests-histogram",
                f"{total} requests over time by who answered them or how they failed",
            )
        else:
            parts.show(parts.empty("No request finished in this time.", symbol="bedtime"))


def _table(found: RequestPage, face: Clockface) -> None:
    if found.requests:
        _rows(found.requests, face)
    else:
        told = "No request matches: choose a longer time or fewer filters."
        if found.next is not None:
            told = f"No request matches back to {face.text(found.next[0])}: look at older ones."
        parts.show(parts.empty_card(told, symbol="filter_alt_off"))
    pager(f"{found.next[0]}_{found.next[1]}" if found.next is not None else None)


def _rows(found: Sequence[RequestRow], face: Clockface) -> None:
    columns = ("Time", "Outcome", "Answered by", "Why", "Tries", "Took", "First token", "Tokens", "Cost")
    rows = [_cells(row, face) for row in found]
    parts.show(div("sg-card sg-flush", parts.table(columns, rows, cls="sg-rows", label="Requests, newest first")))


def _cells(row: RequestRow, face: Clockface) -> list[Child]:
    kept = {key: value for key, value in st.query_params.to_dict().items() if key != "request"}
    tokens = (row.input_tokens or 0) + (row.output_tokens or 0)
    why = wording.advice(row.failover_cause).label if row.failover_cause else (row.code or "").replace("_", " ")
    return [
        link(address("requests", **kept, request=row.id), face.at(row.ts_ms), cls="sg-link sg-num sg-whole-row"),
        outcome_badge(row.outcome, row.status_code),
        join(parts.role_tag(row.role), span("sg-note sg-mono", f" {row.model}"))
        if row.role != "none"
        else span("sg-note", "nobody"),
        join(why, span("sg-note", " test") if row.synthetic else None),
        span("sg-num", str(row.attempts)),
        span("sg-num", milliseconds(row.duration_ms)),
        span("sg-num", milliseconds(row.ttft_ms)),
        span("sg-num", number(tokens) if tokens else "–"),
        span("sg-num", dollars(row.cost_usd)),
    ]


def _dismissed() -> None:
    st.query_params.pop("request", None)
    st.session_state.pop("find", None)


@st.dialog("Request", width=640, position="right", icon=":material/account_tree:", on_dismiss=_dismissed)
def _drawer(request_id: str) -> None:
    found = shared.ask(lambda connection: queries.request(connection, request_id))
    if found is None:
        parts.show(
            parts.empty(
                "This request is not recorded: the id may be wrong, or the raw rows are older than the retention.",
                symbol="search_off",
            )
        )
        return
    _request(found, clock())


def _request(found: RequestDetail, face: Clockface) -> None:
    one = found.request
    parts.show(
        div(
            "sg-drawer",
            div("sg-drawer-top", outcome_badge(one.outcome, one.status_code), span("sg-note", face.at(one.ts_ms))),
            div("sg-story", story(found)),
            waterfall(found),
            parts.pairs(
                [
                    ("Answered by", one.model if one.role != "none" else "nobody"),
                    ("Active model then", one.active_role),
                    ("Took", milliseconds(one.duration_ms)),
                    ("First token", milliseconds(one.ttft_ms) if one.streamed else "not streamed"),
                    ("Switchgear's share", f"{one.overhead_us:,} µs"),
                    ("Tokens", f"{number(one.input_tokens)} in, {number(one.output_tokens)} out"),
                    ("Cost", dollars(one.cost_usd)),
                    ("Finish", one.finish_reason or one.code or "–"),
                    ("Epoch", str(one.epoch)),
                    ("Instance", one.instance),
                    ("Made by", "a test: a probe, a canary or an operator's" if one.synthetic else "a caller"),
                    ("Prompt hash", span("sg-mono", (one.prompt_hash or "–")[:12], title=one.prompt_hash)),
                ]
            ),
            div("sg-drawer-links", link(address("incidents", at=one.ts_ms), "The incident around it", cls="sg-link")),
        )
    )
    st.caption("Request id")
    st.code(one.id, language=None)
    for name, text in (("Prompt", found.prompt_text), ("Answer", found.answer_text)):
        if text:
            st.caption(name)
            st.code(text, language=None, wrap_lines=True)
