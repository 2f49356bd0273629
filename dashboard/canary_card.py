"""What the canaries found last: a line for each model, and for a canary that failed what its answer lacks."""

from __future__ import annotations

from collections.abc import Sequence

from dashboard import parts
from dashboard.markup import Html, div, span
from dashboard.parts import badge, role_tag
from dashboard.times import Clockface
from dashboard.wording import Face, Tone
from engine.queries import CanaryResult


def card(found: Sequence[CanaryResult], face: Clockface) -> Html | None:
    """The whole card; `None` where no canary was ever asked."""
    if not found:
        return None
    failed = sum(not one.passed for one in found)
    note = f"{failed} of {len(found)} failed" if failed else f"all {len(found)} passed"
    rows = [
        _row(role, [one for one in found if one.role == role], face) for role in dict.fromkeys(o.role for o in found)
    ]
    return div("sg-card", parts.heading("Canaries", note=note), *rows)


def _row(role: str, found: Sequence[CanaryResult], face: Clockface) -> Html:
    """One model's canaries, and when it was asked last."""
    missing = [f"{one.canary}: {one.detail}" for one in found if not one.passed and one.detail]
    return div(
        "sg-row sg-row-tall",
        span("sg-row-time", role_tag(role)),
        span(
            "sg-row-two",
            span("sg-canaries", *(badge(_face(one), title=face.text(one.ts_ms)) for one in found)),
            span("sg-note sg-text-bad", "missing ", "; ".join(missing)) if missing else None,
        ),
        span("sg-note sg-row-end", "asked ", face.ago(max(one.ts_ms for one in found))),
    )


def _face(one: CanaryResult) -> Face:
    if one.passed:
        return Face(f"{one.canary} passed", "check_circle", Tone.OK)
    return Face(f"{one.canary} failed", "error", Tone.BAD)
