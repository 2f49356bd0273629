"""Now: are users served, by which model, since when, why, and what happens next."""

from __future__ import annotations

import streamlit as st

from dashboard import alert_board, canary_card, look, parts, shared, wording
from dashboard.alert_board import Row
from dashboard.availability import Summary, summary
from dashboard.causes import cause_of
from dashboard.frame import address, banner_row, clock, guarded, page, script, title
from dashboard.freshness import freshness
from dashboard.happenings import Happening
from dashboard.headline import headline
from dashboard.markup import Html, div, icon, join, link, span, tag
from dashboard.model_card import model_card
from dashboard.reading import Live, Past
from dashboard.ribbon import ribbon
from dashboard.times import Clockface, about, percent
from dashboard.wording import Tone
from engine.durations import describe

REFRESH_EVERY = 2.0
RECENT_MOVES = 6


@page
def now() -> None:
    """The first page."""
    script(look.HOLD)
    manager, running = title("Now", live=lambda _: True)
    banner_row(manager)

    @st.fragment(run_every=REFRESH_EVERY if running else None)
    def body() -> None:
        guarded(lambda: picture(manager))

    body()


def picture(manager: str) -> None:
    """Everything below the title, from snapshots that all viewers share."""
    live, past, face = shared.live(manager), shared.past(manager), clock()
    if live.document is None:
        parts.show(div("sg-stack", parts.headline(headline(live)), _first_steps(manager)))
        return
    cards = [
        parts.model_card(
            model_card(live, role),
            requests_href=address("requests", role=role, span="1h"),
            breaker_href=address("incidents"),
        )
        for role in ("primary", "secondary")
    ]
    parts.show(
        div(
            "sg-stack",
            parts.headline(headline(live), _figures(summary(past))),
            div("sg-models", *cards),
            _day(past, face),
            div("sg-two", _alerts(live, face), _moves(past, face)),
            canary_card.card(live.canaries, face),
            parts.chips(freshness(live)),
        )
    )


def _day(past: Past, face: Clockface) -> Html:
    span_ms = past.to_ms - past.from_ms
    marks = [
        (
            (move.ts_ms - past.from_ms) / span_ms,
            move.after or "",
            _move_words(move, past, face),
            address("incidents", at=move.ts_ms),
        )
        for move in past.moves
    ]
    return div(
        "sg-card",
        parts.heading("Last 24 hours", more=parts.more(address("incidents"), "Incidents")),
        parts.ribbon(ribbon(past, face.text), face.ticks(past.from_ms, past.to_ms), marks),
        _legend(),
    )


def _move_words(move: Happening, past: Past, face: Clockface) -> str:
    cause = wording.advice(cause_of(move, past.failures, past.bin_minutes))
    return f"{cause.label}: {move.before} → {move.after}, {face.text(move.ts_ms)}"


def _legend() -> Html:
    items = (
        ("primary", "Primary"),
        ("secondary", "Secondary"),
        ("ok", "Answered, closed"),
        ("warn", "Below 99 %"),
        ("bad", "Below 90 %, open"),
        ("none", "No traffic"),
    )
    return div("sg-legend", *(span("", tag("i", cls=f"sg-seg-{kind}"), text) for kind, text in items))


def _figures(found: Summary) -> tuple[Html, ...]:
    return (
        parts.big_figure("answered, 24 h", percent(found.health.share), href=address("requests", span="24h")),
        parts.big_figure(
            "on secondary, 24 h",
            percent(found.secondary_share),
            f"{found.moves} {'time' if found.moves == 1 else 'times'}",
            href=address("incidents"),
        ),
        parts.big_figure("degraded, 24 h", about(found.degraded_ms / 1000), href=address("incidents")),
    )


def _alerts(live: Live, face: Clockface) -> Html:
    board = alert_board.rows(shared.rules().rules, live.alerts, (), live.manager, live.now_ms)
    rows = [
        link(
            address("alerts", rule=one.rule.alert),
            parts.badge(wording.face(wording.ALERTS, one.state)),
            span(
                "sg-row-two",
                span("sg-row-main", one.rule.alert),
                span("sg-note", one.summary or alert_board.explain(one, face), title=alert_board.explain(one, face)),
            ),
            parts.progress(one.progress, alert_board.explain(one, face), Tone.WARN) if one.state == "pending" else None,
            span("sg-note sg-row-end", _held(one, face)),
            cls="sg-row sg-row-tall",
        )
        for one in board
        if one.since_ms is not None and one.state in ("firing", "pending")
    ]
    inside = join(*rows) if rows else parts.empty("No alert is pending or firing.", symbol="notifications")
    return div("sg-card", parts.heading("Active alerts", more=parts.more(address("alerts"), "Alerts")), inside)


def _held(one: Row, face: Clockface) -> str:
    held = face.since(one.since_ms or face.now_ms)
    return f"{held} of {describe(one.rule.hold / 1000)}" if one.state == "pending" else f"for {held}"


def _moves(past: Past, face: Clockface) -> Html:
    rows = []
    for move in past.moves[:RECENT_MOVES]:
        cause = wording.advice(cause_of(move, past.failures, past.bin_minutes))
        rows.append(
            link(
                address("incidents", at=move.ts_ms),
                span("sg-row-time", face.at(move.ts_ms)),
                span(
                    "sg-row-main",
                    parts.role_tag(move.before or ""),
                    icon("arrow_forward"),
                    parts.role_tag(move.after or ""),
                ),
                span("sg-note sg-row-why", cause.label),
                cls="sg-row",
            )
        )
    inside = join(*rows) if rows else parts.empty("The active model has not moved in 24 hours.", symbol="swap_horiz")
    return div("sg-card", parts.heading("Recent failovers", more=parts.more(address("incidents"), "Incidents")), inside)


def _first_steps(manager: str) -> Html:
    gateway = shared.config().server
    return div(
        "sg-card",
        parts.heading("Send a first request"),
        tag(
            "pre",
            f"curl http://{gateway.host}:{gateway.port}/v1/chat/completions \\\n  -H 'content-type: "
            f"application/json' \\\n"
            f'  -d \'{{"model": "{manager}", "messages": [{{"role": "user", "content": "Hello"}}]}}\'',
            cls="sg-code",
            tabindex="0",
        ),
        tag("p", "Or start ", tag("code", "switchgear up --demo"), " to see it on simulated models.", cls="sg-note"),
    )
