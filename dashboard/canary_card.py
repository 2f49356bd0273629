"""What canaries found last, per model: a fallback that answers nonsense is seen before anybody is served by it."""

from __future__ import annotations

from collections.abc import Sequence

from dashboard import parts
from dashboard.markup import Child, Html, div, span
from dashboard.parts import badge, role_tag
from dashboard.times import Clockface
from dashboard.wording import Face, Tone
from engine.queries import CanaryResult

_PASSED = Face("Passed", "check_circle", Tone.OK)
_FAILED = Face("Failed", "error", Tone.BAD)


def card(found: Sequence[CanaryResult], face: Clockface) -> Html | None:
    """The whole card; `None` where no canary was ever asked."""
    if not found:
        return None
    failed = sum(not one.passed for one in found)
    note = f"{failed} of {len(found)} failed" if failed else f"all {len(found)} passed"
    rows: list[list[Child]] = [
        [
            role_tag(one.role),
            span("sg-mono", one.canary),
            badge(_PASSED if one.passed else _FAILED),
            one.detail or "–",
            face.ago(one.ts_ms),
        ]
        for one in found
    ]
    table = parts.table(("Model", "Canary", "Found", "What is missing", "Asked"), rows, label="Canaries")
    return div("sg-card sg-flush-top", parts.heading("Canaries", note=note), table)
