"""Every chart: one template, one palette, one way to draw events on the time axis.

Primary and secondary keep their colours, red and amber are failures; each chart comes with a description in words for
those who do not see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import plotly.graph_objects as go
import streamlit as st

from dashboard.happenings import Happening
from dashboard.look import BODY_FONT, Palette, palette
from dashboard.markup import Html, div, span, tag
from dashboard.times import DAY_MS, Clockface
from engine.queries import EventKind, TrafficPoint

HEIGHT: Final = 190
FLAG: Final = "M -6 0 L 6 0 L 0 -8 Z"
"""Pixels from the top of its pole."""
CONFIG: Final[dict[str, Any]] = {"displayModeBar": False, "responsive": True, "scrollZoom": False}
ANSWERS: Final[Mapping[str, str]] = {
    "primary": "primary",
    "secondary": "secondary",
    "failed": "bad_fill",
    "shed": "warn_fill",
    "other": "faint",
}
"""How a request can have ended, from the bottom of a stack, with its colour."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time; `colour` is a name of the palette."""

    name: str
    colour: str
    points: Sequence[tuple[int, float | None]]

    def broken(self, longest_ms: int) -> Series:
        """The same with nothing between points that are further apart, so that no line leads from one to the other."""
        found = list(self.points[:1])
        for (before, _), (at, value) in pairwise(self.points):
            if at - before > longest_ms:
                found.append((before + 1, None))
            found.append((at, value))
        return replace(self, points=found)


@dataclass(frozen=True, slots=True)
class Flag:
    """An event on the time axis."""

    at_ms: int
    label: str
    colour: str


def bars(
    face: Clockface, theme: str, series: Sequence[Series], flags: Sequence[Flag] = (), *, unit: str = ""
) -> go.Figure:
    """Stacked bars over time."""
    colours = palette(theme)
    traces = [
        {
            "type": "bar",
            "x": [face.local(at) for at, _ in one.points],
            "y": [value for _, value in one.points],
            "name": one.name,
            "marker": {"color": getattr(colours, one.colour), "line": {"width": 0}},
            "hovertemplate": f"%{{y:,.4~g}}{unit} {one.name}<extra></extra>",
        }
        for one in series
    ]
    return _figure(colours, face, traces, flags, barmode="stack", bargap=0.12)


def lines(
    face: Clockface, theme: str, series: Sequence[Series], flags: Sequence[Flag] = (), *, unit: str = ""
) -> go.Figure:
    """Lines over time, broken where a point has no value; a point between two breaks is a dot."""
    colours = palette(theme)
    traces = [
        {
            "type": "scatter",
            "x": [face.local(at) for at, _ in one.points],
            "y": [value for _, value in one.points],
            "name": one.name,
            "mode": "lines+markers",
            "marker": {"color": getattr(colours, one.colour), "size": 4},
            "line": {"color": getattr(colours, one.colour), "width": 2, "shape": "linear"},
            "hovertemplate": f"%{{y:,.3~g}}{unit} {one.name}<extra></extra>",
        }
        for one in series
    ]
    return _figure(colours, face, traces, flags)


def show(figure: go.Figure, key: str, alt: str) -> None:
    """Put a chart on the page, with its legend above it.

    Args:
        figure: Of this module.
        key: Stays the same between refreshes, so that it is drawn over and not anew.
        alt: What it shows, in words.
    """
    st.html(_legend(figure))
    st.plotly_chart(figure, theme=None, key=key, config=CONFIG, alt=alt)


def _legend(figure: go.Figure) -> Html:
    """The names beside their colours, in the order they are stacked; looks like the legends outside of charts."""
    named = [trace for trace in figure.data if trace.showlegend is not False]
    colours = [trace.marker.color if trace.type == "bar" else trace.line.color for trace in named]
    marks = [
        span("", tag("i", style=f"background:{colour}"), trace.name)
        for trace, colour in zip(named, colours, strict=True)
    ]
    return div("sg-legend sg-chart-legend", *marks)


def answers(traffic: Iterable[TrafficPoint], start_ms: int, end_ms: int, size_ms: int) -> list[Series]:
    """Requests over time by who answered them, or how they failed, as bars to stack; zero where a bin has none.

    What is nobody's failure, a caller's mistake or a cancelled request, is `other`.

    Args:
        traffic: Requests by bin.
        start_ms: Where the axis begins.
        end_ms: Where it ends.
        size_ms: Length of a bin.
    """
    counts: dict[str, dict[int, int]] = {kind: {} for kind in ANSWERS}

    def count(kind: str, at_ms: int, n: int) -> None:
        if n:
            counts[kind][at_ms] = counts[kind].get(at_ms, 0) + n

    for row in traffic:
        if row.outcome == "error":
            count("failed", row.start_ms, row.errors)
            count("other", row.start_ms, row.n - row.errors)
        else:
            kind = row.role if row.outcome == "ok" else row.outcome
            count(kind if kind in ANSWERS else "other", row.start_ms, row.n)
    starts = range(start_ms // size_ms * size_ms, end_ms, size_ms)
    return [
        Series(kind, ANSWERS[kind], [(at, rows.get(at, 0)) for at in starts]) for kind, rows in counts.items() if rows
    ]


def flag_moves(happened: Iterable[Happening]) -> list[Flag]:
    """Moves of the active model on the time axis, in the colour of the model that took over."""
    return [
        Flag(one.ts_ms, f"{one.before} → {one.after}", one.after or "faint")
        for one in happened
        if one.kind is EventKind.FAILOVER
    ]


def _figure(
    colours: Palette, face: Clockface, traces: list[dict[str, Any]], flags: Sequence[Flag], **layout: Any
) -> go.Figure:
    """A figure made in one go: adding to one that exists is five times as slow, as each change is looked over anew."""
    marks, shapes = _flagged(colours, face, flags)
    axis = {
        "gridcolor": colours.line,
        "zeroline": False,
        "linecolor": colours.line,
        "tickfont": {"color": colours.muted, "size": 11},
        "ticks": "",
        "fixedrange": True,
        "automargin": True,
    }
    moments = [at for trace in traces for at in (trace["x"][:1] + trace["x"][-1:])]
    days = bool(moments) and (max(moments) - min(moments)).total_seconds() * 1000 > 1.5 * DAY_MS
    look = {
        "height": HEIGHT,
        "margin": {"l": 4, "r": 8, "t": 8, "b": 4},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": BODY_FONT, "color": colours.text, "size": 12},
        "hovermode": "x unified",
        "hoverlabel": {
            "bgcolor": colours.surface,
            "bordercolor": colours.line,
            "font": {"color": colours.text, "size": 12},
        },
        "xaxis": axis
        | {
            "showgrid": False,
            "hoverformat": "%-d %b %H:%M" if days else "%H:%M",
            "tickformat": "%-d %b" if days else "%H:%M",
            "type": "date",
        },
        "yaxis": axis | {"rangemode": "tozero", "nticks": 4},
        "uirevision": "stay",
        "showlegend": False,
        "shapes": shapes,
    }
    return go.Figure(data=[*traces, *marks], layout=look | layout)


def _flagged(
    colours: Palette, face: Clockface, flags: Sequence[Flag]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Events as a flag and a dotted line each, in front of bars of any colour, and as what a pointer is told there."""
    marks: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for name in dict.fromkeys(flag.colour for flag in flags):
        colour = getattr(colours, name)
        marked = [(face.local(flag.at_ms), flag.label) for flag in flags if flag.colour == name]
        marks.append(
            {
                "type": "scatter",
                "x": [at for at, _ in marked],
                "y": [0] * len(marked),
                "text": [label for _, label in marked],
                "mode": "markers",
                "showlegend": False,
                "marker": {"color": colour, "opacity": 0},
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
        pole = {
            "type": "line",
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": colours.text, "width": 1, "dash": "dot"},
        }
        shapes += [pole | {"x0": at, "x1": at} for at, _ in marked]
        flag = {"type": "path", "path": FLAG, "xsizemode": "pixel", "ysizemode": "pixel", "yref": "paper", "yanchor": 1}
        shapes += [flag | {"xanchor": at, "fillcolor": colour, "line": {"width": 0}} for at, _ in marked]
    return marks, shapes
