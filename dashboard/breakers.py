"""A model's breaker over all instances, as one state.

Whoever shows, judges or forces a breaker asks here, so that no two pages disagree about it. The living processes' own
word counts; only where none lives it is the last recorded transition. The worst state of all instances is the state,
because callers of one instance are hurt however well the others do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dashboard import wording
from dashboard.happenings import Happening
from dashboard.reading import Live
from dashboard.times import about
from dashboard.wording import Face

OPEN: Final = frozenset({"open", "forced_open"})
WORST_FIRST: Final = ("forced_open", "open", "half_open", "forced_closed", "closed")


@dataclass(frozen=True, slots=True)
class Breaker:
    """One model's breaker over all instances.

    Attributes:
        face: Its state in a word, with icon and tone.
        state: Its state, as the engine calls it.
        detail: What the state rests on, in words.
        open_on: How many instances keep calls away from the model.
        instances: How many say anything of it.
        retry_in: Seconds until the next probe, `None` when none is planned.
        probe_due: Whether the next request is a probe.
    """

    face: Face
    state: str
    detail: str
    open_on: int = 0
    instances: int = 0
    retry_in: float | None = None
    probe_due: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it keeps callers away from the model."""
        return self.state in OPEN


def breaker(live: Live, role: str) -> Breaker:
    """A model's breaker: what the instances say of themselves, else the last recorded transition."""
    lines = [(instance, line) for instance, said in live.reports if (line := said.get("lines", {}).get(role))]
    if not lines:
        return _recorded(live, role)
    states = [str(line.get("state", "closed")) for _, line in lines]
    state = min(states, key=lambda word: WORST_FIRST.index(word) if word in WORST_FIRST else len(WORST_FIRST))
    waits = [
        _left(live, line["retry_in"], instance.updated_ms)
        for instance, line in lines
        if line.get("retry_in") is not None
    ]
    return Breaker(
        wording.face(wording.BREAKERS, state),
        state,
        _why(live.breakers.get(role)) if state != "closed" else _window(lines[0][1]),
        sum(word in OPEN for word in states),
        len(lines),
        min(waits, default=None),
        any(line.get("probe_due") for _, line in lines) or min(waits, default=None) == 0.0,
    )


def refused(live: Live, role: str) -> str:
    """Why an instance does not ask the model although its breaker lets it, empty when all do."""
    for _, said in live.reports:
        if found := said.get("lines", {}).get(role, {}).get("unavailable"):
            return f"{wording.advice(str(found.get('category'))).label}: not asked for {about(found.get('for') or 0.0)}"
    return ""


def _recorded(live: Live, role: str) -> Breaker:
    event = live.breakers.get(role)
    state = event.after or "closed" if event else "closed"
    wait = event.evidence.get("retry_in") if event and state == "open" else None
    left = _left(live, wait, event.ts_ms) if event and wait is not None else None
    return Breaker(wording.face(wording.BREAKERS, state), state, _why(event), retry_in=left, probe_due=left == 0.0)


def _left(live: Live, wait: float, said_ms: int) -> float:
    """Seconds that are left of a wait that was told at a moment."""
    return max(0.0, wait - (live.now_ms - said_ms) / 1000)


def _window(line: Mapping[str, Any]) -> str:
    if not line.get("samples"):
        return "no calls in its window"
    return f"{line.get('failures', 0)} of {line['samples']} calls failed in its window"


def _why(event: Happening | None) -> str:
    if event is None:
        return ""
    evidence = event.evidence
    if event.after == "open" and evidence.get("samples"):
        return f"{wording.reason(event.reason)}: {evidence.get('failures', 0)} of {evidence['samples']} calls failed"
    return wording.reason(event.reason)
