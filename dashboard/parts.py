"""The parts that screens are built from, as markup: headline, model card, ribbon, lists, tables, chips.

Each takes values of the view models and returns `Html`; `show` puts it on the page. Nothing here reads or decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import streamlit as st

from dashboard import wording
from dashboard.freshness import Chip
from dashboard.headline import Headline
from dashboard.markup import Child, Html, div, icon, join, link, span, tag
from dashboard.model_card import Bar, Condition, Figure, ModelCard
from dashboard.ribbon import Lane, Segment
from dashboard.times import number, percent
from dashboard.wording import Advice, Face, Owner, Tone


def show(*pieces: Child) -> None:
    """Put markup on the page."""
    st.html(join(*pieces))


def badge(face: Face, *, title: str | None = None) -> Html:
    """A state: icon and word on its colour."""
    return span(f"sg-badge sg-{face.tone}", icon(face.icon), face.word, title=title)


def role_tag(role: str, *, text: str | None = None) -> Html:
    """A model's role with its colour."""
    return span(f"sg-role sg-role-{role}", span("sg-dot"), text or role.capitalize())


def heading(text: str, *, more: Html | None = None, note: str = "") -> Html:
    """The title of a card, with a link at its end."""
    return div("sg-heading", tag("h3", text), span("sg-note", note) if note else None, more)


def more(href: str, text: str) -> Html:
    """A link to the page that explains a card."""
    return link(href, text, icon("arrow_forward"), cls="sg-more")


def empty(sentence: str, *, symbol: str = "inbox") -> Html:
    """What a card says when there is nothing to show."""
    return div("sg-empty", icon(symbol), tag("p", sentence))


def empty_card(sentence: str, *, symbol: str = "inbox") -> Html:
    """A card of its own that says why there is nothing."""
    return div("sg-card", empty(sentence, symbol=symbol))


def advice_line(advice: Advice) -> Html:
    """Who can fix it, and what to do next."""
    return div("sg-advice", owner(advice.owner), span("", tag("b", advice.label), ". ", advice.next))


def owner(who: Owner) -> Html:
    """Who can do something about a cause."""
    return span("sg-owner", icon(wording.OWNER_ICONS[who]), who)


def headline(told: Headline, figures: Sequence[Html] = ()) -> Html:
    """The sentence at the top of the first page."""
    sentence = join(*(tag("strong", part) if strong else part for part, strong in told.lead))
    return tag(
        "section",
        div("sg-headline-word", icon(told.face.icon), told.face.word),
        div(
            "sg-headline-body",
            tag("h1", sentence),
            tag("p", *(tag("bdi", f"{one} ") for one in told.details)),
            advice_line(wording.advice(told.cause)) if told.cause else None,
        ),
        div("sg-headline-figures", *figures) if figures else None,
        cls=f"sg-headline sg-{told.face.tone}",
        aria_label="State of the service",
    )


def big_figure(label: str, value: str, note: str = "", *, href: str | None = None) -> Html:
    """A large number with its name, leading to what explains it."""
    inside = join(span("sg-big-value", value), span("sg-big-label", label), span("sg-note", note) if note else None)
    return link(href, inside, cls="sg-big") if href else div("sg-big", inside)


def model_card(card: ModelCard, *, requests_href: str, breaker_href: str) -> Html:
    """One model: role, breaker, traffic, figures, probes and what is left before it serves."""
    return tag(
        "article",
        _model_top(card, breaker_href),
        _model_why(card),
        div(
            "sg-model-traffic",
            div(
                "sg-model-rate",
                span("sg-big-value", number(card.per_minute)),
                span("sg-big-label", "attempts / min"),
                span("sg-note", f"{percent(card.share, 0)} of answers"),
            ),
            sparkline(card.bars, card.role),
        ),
        div("sg-figures", *(figure(one, requests_href) for one in card.figures)),
        probe_row(card.probes) if card.probes else None,
        conditions(card.conditions) if card.conditions else None,
        _spare(*card.spare) if card.spare[0] else None,
        cls=f"sg-card sg-model sg-model-{card.role}{' sg-model-active' if card.active else ''}",
        aria_label=f"{card.role} model",
    )


def _model_top(card: ModelCard, breaker_href: str) -> Html:
    state = span("sg-badge sg-active", icon("bolt"), "Active") if card.active else span("sg-badge sg-muted", "Standby")
    breaker = badge(
        replace(card.breaker.face, word=f"Breaker {card.breaker.face.word.lower()}"), title=card.breaker.detail
    )
    return div(
        "sg-model-top",
        div("sg-model-name", role_tag(card.role), tag("h2", card.model)),
        div("sg-model-state", state, link(breaker_href, breaker, cls="sg-plain")),
    )


def _model_why(card: ModelCard) -> Html:
    wait = "probe due" if card.breaker.probe_due else ""
    if card.breaker.retry_in:
        wait = f"next probe in {card.breaker.retry_in:.0f} s"
    return div(
        "sg-model-why",
        card.refused or card.breaker.detail or "no calls yet",
        span("sg-countdown", " · ", wait) if wait else None,
    )


def _spare(text: str, tone: Tone) -> Html:
    symbols = {Tone.OK: "shield", Tone.WARN: "gpp_maybe", Tone.BAD: "gpp_bad"}
    return div(f"sg-spare sg-{tone}", icon(symbols.get(tone, "shield")), text)


def figure(one: Figure, href: str | None = None) -> Html:
    """A small number with its name and how it was an hour ago, leading to what explains it."""
    before = f"1 h ago {one.before}" if one.before and one.before != "–" else ""
    inside = join(
        span("sg-figure-label", one.label),
        span(f"sg-figure-value sg-text-{one.tone}", one.value),
        span("sg-note", before),
    )
    title = one.help or None
    return link(href, inside, cls="sg-figure", title=title) if href else div("sg-figure", inside, title=title)


def sparkline(bars: Sequence[Bar], role: str) -> Html:
    """An hour of attempts by minute; failures sit on top in red, so height is traffic."""
    top = max((bar.good + bar.bad for bar in bars), default=0) or 1
    columns = []
    for bar in bars:
        good, bad = 100 * bar.good / top, 100 * bar.bad / top
        columns.append(
            div(
                "sg-bar",
                tag("i", cls="sg-bar-bad", style=f"height:{max(bad, 3):.1f}%") if bar.bad else None,
                tag("i", cls=f"sg-bar-{role}", style=f"height:{max(good, 2):.1f}%") if bar.good else None,
            )
        )
    failed = sum(bar.bad for bar in bars)
    told = f"{sum(bar.good for bar in bars)} good and {failed} other attempts by minute over the last hour"
    axis = div(
        "sg-spark-axis",
        span("", "1 h ago"),
        span("sg-text-bad", f"{failed} failed or refused") if failed else None,
        span("", "now"),
    )
    return div("sg-spark", div("sg-bars", *columns, role="img", aria_label=told, title=told), axis)


def probe_row(probes: Sequence[tuple[bool, str]]) -> Html:
    """The last probes as marks, oldest first."""
    marks = [
        span(f"sg-probe sg-probe-{'good' if good else 'bad'}", "✓" if good else "✕", title=label)
        for good, label in probes
    ]
    good = sum(ok for ok, _ in probes)
    return div(
        "sg-probes",
        span("sg-figure-label", "Last probes"),
        span("sg-probe-marks", *marks, role="img", aria_label=f"{good} of {len(probes)} probes succeeded"),
        span("sg-note", f"{good} of {len(probes)} good"),
    )


def conditions(found: Sequence[Condition]) -> Html:
    """What must hold before traffic returns to primary."""
    steps = [
        div(
            f"sg-step{' sg-step-done' if one.done else ''}",
            icon("check_circle" if one.done else "radio_button_unchecked"),
            span("sg-step-label", one.label),
            span("sg-step-value", one.value),
        )
        for one in found
    ]
    return div("sg-steps", span("sg-figure-label", "Back on primary when"), div("sg-step-row", *steps))


def ribbon(
    lanes: Iterable[Lane], ticks: Sequence[tuple[float, str]], marks: Sequence[tuple[float, str, str, str]] = ()
) -> Html:
    """Lanes over one time axis; marks are moves of the active model: place, role, words, address."""
    rows = [
        div(
            "sg-lane",
            span("sg-lane-label", lane.label),
            div(
                "sg-lane-track", *(_segment(one) for one in lane.segments), role="img", aria_label=_lane_in_words(lane)
            ),
        )
        for lane in lanes
    ]
    flags = [link(href, span("", words), cls=f"sg-mark sg-mark-{kind}", title=words) for _, kind, words, href in marks]
    placed = [
        tag("span", flag, cls="sg-mark-at", style=f"left:{100 * at:.2f}%")
        for (at, *_), flag in zip(marks, flags, strict=True)
    ]
    labels = [tag("span", text, style=f"left:{100 * at:.2f}%") for at, text in ticks]
    return div(
        "sg-ribbon",
        div("sg-lane", span("sg-lane-label", "Moves"), div("sg-lane-marks", *placed)) if marks else None,
        *rows,
        div("sg-lane", span("sg-lane-label"), div("sg-axis", *labels, aria_hidden="true")),
    )


def _segment(one: Segment) -> Html:
    return tag(
        "i",
        cls=f"sg-seg sg-seg-{one.kind}",
        style=f"left:{100 * one.start:.3f}%;width:{100 * one.width:.3f}%",
        title=one.title,
    )


def _lane_in_words(lane: Lane) -> str:
    shares: dict[str, float] = {}
    for one in lane.segments:
        shares[one.kind] = shares.get(one.kind, 0.0) + one.width
    told = ", ".join(f"{kind} {percent(share)}" for kind, share in sorted(shares.items(), key=lambda item: -item[1]))
    return f"{lane.label}: {told}"


def chips(found: Iterable[Chip]) -> Html:
    """The freshness strip."""
    return div(
        "sg-chips",
        *(
            div(
                f"sg-chip sg-{chip.face.tone}",
                icon(chip.face.icon),
                span("sg-chip-label", chip.label),
                span("sg-chip-value", chip.value),
                title=chip.face.word,
            )
            for chip in found
        ),
        role="group",
        aria_label="Freshness of this page",
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Child]], *, cls: str = "", label: str = "") -> Html:
    """A plain table; numbers are aligned by the class `sg-num` of a cell's content."""
    head = tag("thead", tag("tr", *(tag("th", name, scope="col", data_label=name) for name in columns)))
    body = tag(
        "tbody",
        *(
            tag("tr", *(tag("td", cell, data_label=name) for name, cell in zip(columns, row, strict=True)))
            for row in rows
        ),
    )
    return div("sg-table-wrap", tag("table", head, body, cls=f"sg-table {cls}".strip(), aria_label=label or None))


def progress(share: float, label: str, tone: Tone) -> Html:
    """A bar that fills up."""
    width = 100 * min(1.0, max(0.0, share))
    return div(
        "sg-progress",
        tag("i", cls=f"sg-fill-{tone}", style=f"width:{width:.1f}%"),
        role="img",
        aria_label=label,
        title=label,
    )


def pairs(found: Iterable[tuple[str, Child]]) -> Html:
    """Names and values, as a description list."""
    return tag("dl", *(div("", tag("dt", name), tag("dd", value)) for name, value in found), cls="sg-pairs")


def prefix(href: str, parameter: str) -> str:
    """An address that waits for the value of one more parameter."""
    return f"{href}{'&' if '?' in href else '?'}{parameter}="
