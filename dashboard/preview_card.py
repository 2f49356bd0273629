"""The preview on the page of alerts: an expression over what is recorded, its firings, its PromQL twin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

import streamlit as st

from alerts.evaluator import State
from alerts.preview import NoPreview, Preview, draft, falls
from alerts.promql import NoTwin, twin_of
from alerts.rules import Rule
from alerts.syntax import SyntaxProblem
from dashboard import alert_board, charts, parts, shared
from dashboard.frame import address, theme
from dashboard.markup import Html, div, icon, link, span, tag
from dashboard.ribbon import Lane, Segment
from dashboard.times import DAY_MS, Clockface
from engine.durations import DurationError, compact, describe, parse_duration

SPANS: Final = {"1d": 1, "7d": 7, "30d": 30}
SPAN_LABELS: Final = {"1d": "1 day", "7d": "7 days", "30d": "30 days"}
SHOWN: Final = 8
POINTS: Final = 360
Worst = Callable[[Iterable[tuple[float, int]]], tuple[float, int]]
EXAMPLE: Final = 'error_rate("5m") > 0.05'


def preview_address(rule: Rule) -> str:
    """The page with a rule in its preview."""
    more = {"for": compact(rule.hold / 1000)} if rule.hold else {}
    return address("alerts", expr=rule.expression.text, **more)


def preview_card(rules: Sequence[Rule], manager: str, face: Clockface) -> None:
    """The form, and what came of the expression in the address.

    Args:
        rules: Those of the file; one with the same expression lends its other keys.
        manager: Whose past it is.
        face: Renders moments.
    """
    asked = st.query_params.get("expr", "")
    parts.show(parts.heading("Preview", note="when a rule would have fired, from what is recorded"))
    _form(asked, st.query_params.get("for", "0s"), st.query_params.get("since", "7d"))
    if not asked.strip():
        parts.show(parts.empty(f"Write a condition, such as {EXAMPLE}, or choose a rule above.", symbol="history"))
        return
    try:
        hold = parse_duration(st.query_params.get("for") or "0s")
    except DurationError as error:
        parts.show(_mistake(f"For: {error}"))
        return
    known = next((rule for rule in rules if rule.expression.text == asked), None)
    try:
        rule = draft(known or asked, hold)
    except SyntaxProblem as problem:
        parts.show(_mistake(problem.message, asked, problem.at))
        return
    days = SPANS.get(st.query_params.get("since", "7d"), 7)
    try:
        found = shared.preview(rule, manager, days * DAY_MS)
    except NoPreview as error:
        parts.show(_mistake(f"{str(error)[:1].upper()}{str(error)[1:]}."))
    else:
        _result(found, rule, face)
    _twin(rule)


def _form(asked: str, hold: str, since: str) -> None:
    with st.form("preview", border=False, enter_to_submit=True):
        st.text_input("Condition", value=asked, key="preview-expr", placeholder=EXAMPLE)
        left, middle, right = st.columns([1, 2, 1], vertical_alignment="bottom")
        left.text_input("For", value=hold, key="preview-for")
        middle.segmented_control(
            "Look back",
            list(SPANS),
            default=since if since in SPANS else "7d",
            format_func=SPAN_LABELS.__getitem__,
            key="preview-since",
            required=True,
        )
        right.form_submit_button("Preview", type="primary", key="do-preview", on_click=_ask, width="stretch")


def _ask() -> None:
    """The form's content becomes the address, and the page is that of the address."""
    st.query_params["expr"] = st.session_state["preview-expr"]
    st.query_params["for"] = st.session_state["preview-for"] or "0s"
    st.query_params["since"] = st.session_state["preview-since"] or "7d"


def _mistake(message: str, text: str = "", at: int = 0) -> Html:
    pointed = None
    if text:
        found = re.match(r"\w+|.|$", text[at:])
        end = at + (found.end() if found else 0)
        pointed = tag("p", text[:at], tag("mark", text[at:end] or "∎"), text[end:], cls="sg-mono sg-pointed")
    place = f"Column {at + 1}: " if text else ""
    return div("sg-trouble", tag("p", icon("error"), f" {place}{message}"), pointed, role="alert")


def _result(found: Preview, rule: Rule, face: Clockface) -> None:
    parts.show(
        tag("p", tag("b", found.sentence), cls="sg-below-pairs"),
        parts.ribbon([Lane("Alert", tuple(_segments(found, face)))], face.ticks(found.from_ms, found.to_ms)),
        _legend(),
    )
    points = list(_points(found, worst=min if falls(rule.expression.text) else max))
    if points:
        scale, unit = (100, " %") if alert_board.is_share(rule) else (1, "")
        series = charts.Series(f"value{unit and f',{unit}'}", "accent", [(at, scale * value) for at, value in points])
        drawn = charts.lines(face, theme(), [series], unit=unit)
        charts.show(drawn, "preview-values", f"The value over time. {found.sentence}")
    rows = [
        link(
            address("incidents", at=one.start_ms),
            span("sg-row-time", face.at(one.start_ms)),
            span("sg-row-main", f"for {describe(((one.end_ms or found.to_ms) - one.start_ms) / 1000)}"),
            span("sg-note", "would still fire" if one.end_ms is None else ""),
            span("sg-note", "" if one.peak is None else f"at worst {alert_board.shown(rule, one.peak)}"),
            cls="sg-row",
        )
        for one in found.firings[: -SHOWN - 1 : -1]
    ]
    before = len(found.firings) - len(rows)
    parts.show(
        div("", *rows),
        tag("p", f"And {before} before.", cls="sg-note") if before else None,
        *(tag("p", limit, cls="sg-note") for limit in (found.looked, *found.limits)),
    )


def _segments(found: Preview, face: Clockface) -> Iterator[Segment]:
    whole = max(1, found.to_ms - found.from_ms)
    at = found.from_ms
    for state, group in groupby(found.samples, key=lambda sample: sample.state):
        last = max(sample.ts_ms for sample in group)
        kind = {State.PENDING: "warn", State.FIRING: "bad"}.get(state, "none")
        title = f"{state if kind != 'none' else 'quiet'}: {face.text(at)} – {face.text(last)}"
        yield Segment((at - found.from_ms) / whole, (last - at) / whole, kind, title, at, last)
        at = last


def _legend() -> Html:
    items = (("bad", "Firing"), ("warn", "Pending"), ("none", "Quiet"))
    return div("sg-legend", *(span("", tag("i", cls=f"sg-seg-{kind}"), text) for kind, text in items))


def _points(found: Preview, *, worst: Worst) -> Iterator[tuple[int, float]]:
    """The worst value of each of some hundred stretches, so that a chart of weeks hides no peak."""
    size = max(1, (found.to_ms - found.from_ms) // POINTS)
    for _, group in groupby(found.samples, key=lambda sample: (sample.ts_ms - found.from_ms) // size):
        values = [(sample.value, sample.ts_ms) for sample in group if sample.value is not None]
        if values:
            value, at = worst(values)
            yield at, value


def _twin(rule: Rule) -> None:
    try:
        twin = twin_of(rule.expression.text, rule.scope)
    except NoTwin as error:
        parts.show(tag("p", tag("b", "No PromQL: "), f"{error}.", cls="sg-note"))
        return
    parts.show(tag("p", "The same in PromQL, over /metrics", cls="sg-figure-label sg-below"))
    st.code(twin.text, language="promql", wrap_lines=True)
    for note in twin.notes:
        parts.show(tag("p", f"{note[:1].upper()}{note[1:]}.", cls="sg-note"))
