"""One request as a waterfall: its waits and attempts on one axis, and in words why it went where it went."""

from __future__ import annotations

from dataclasses import dataclass

from dashboard import wording
from dashboard.markup import Html, div, span, tag
from dashboard.parts import badge, role_tag
from dashboard.times import milliseconds
from dashboard.wording import Tone
from engine.queries import RequestDetail


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt on the axis, as shares of the whole request."""

    n: int
    role: str
    model: str
    category: str
    status: str
    wait_start: float
    wait_width: float
    start: float
    width: float
    waited_ms: float
    duration_ms: float
    breaker_state: str
    error: str


def steps(found: RequestDetail) -> tuple[Step, ...]:
    """Lay the attempts out after each other, waits before them; they are recorded as durations, not as moments."""
    total = max(found.request.duration_ms, sum(one.duration_ms + one.waited_ms for one in found.attempts), 1.0)
    at = 0.0
    laid = []
    for one in found.attempts:
        wait, width = one.waited_ms / total, one.duration_ms / total
        laid.append(
            Step(
                one.n,
                one.role,
                one.model,
                one.category,
                "" if one.status_code is None else str(one.status_code),
                at,
                wait,
                at + wait,
                width,
                one.waited_ms,
                one.duration_ms,
                one.breaker_state,
                one.error or "",
            )
        )
        at += wait + width
    return tuple(laid)


def story(found: RequestDetail) -> str:
    """Why this request was answered as it was, in one sentence or two."""
    one = found.request
    failed = [attempt for attempt in found.attempts if attempt.category != "ok"]
    if one.synthetic and one.failover_cause == "override":
        ended = "and it answered" if one.outcome == "ok" else "and got no answer"
        return f"An operator asked {one.role} alone, {ended}. {one.active_role.capitalize()} was active."
    if one.outcome == "ok" and one.failover_cause:
        cause = wording.advice(one.failover_cause).label.lower()
        return f"{one.active_role.capitalize()} was active. {one.role.capitalize()} answered instead: {cause}."
    if one.outcome == "ok" and failed:
        retried = f"{len(failed)} failed {'attempt' if len(failed) == 1 else 'attempts'}"
        return f"{one.role.capitalize()} was active and answered after {retried}."
    if one.outcome == "ok":
        return f"{one.role.capitalize()} was active and answered."
    if one.outcome == "shed":
        return "Refused at once: demand was over the provider's limit and the spill allowance was used up."
    if one.outcome == "cancelled":
        return "The caller went away before the answer was complete."
    reason = wording.advice(failed[-1].category).label.lower() if failed else (one.code or "refused before any attempt")
    return f"No model could answer: {reason}."


def waterfall(found: RequestDetail) -> Html:
    """The attempts as bars."""
    rows = [_row(one) for one in steps(found)]
    if not rows:
        return tag("p", "No model was tried.", cls="sg-note")
    return div("sg-wf", *rows, div("sg-spark-axis", span("", "0"), span("", milliseconds(found.request.duration_ms))))


def _row(one: Step) -> Html:
    good, advice = one.category == "ok", wording.advice(one.category)
    word = advice.label + (f" {one.status}" if one.status and not good else "")
    return div(
        "sg-wf-row",
        div(
            "sg-wf-head",
            role_tag(one.role, text=f"{one.n}. {one.role.capitalize()}"),
            span("sg-mono sg-note", one.model),
            span(f"sg-badge sg-{_tone(one.category)}", word),
        ),
        _track(one, f"Attempt {one.n} on {one.role}: {advice.label}, {milliseconds(one.duration_ms)}"),
        div(
            "sg-wf-foot sg-note",
            f"{milliseconds(one.duration_ms)}",
            f" · waited {milliseconds(one.waited_ms)}" if one.waited_ms else "",
            f" · breaker {wording.face(wording.BREAKERS, one.breaker_state).word.lower()}",
            f" · {one.error}" if one.error else "",
        ),
    )


def _tone(category: str) -> Tone:
    if category == "ok":
        return Tone.OK
    if category == "cancelled":
        return Tone.MUTED
    return Tone.BAD if wording.advice(category).tone is Tone.BAD else Tone.WARN


def _track(one: Step, label: str) -> Html:
    """The wait and the attempt on the axis."""
    wait = tag(
        "i",
        cls="sg-wf-wait",
        style=f"left:{100 * one.wait_start:.2f}%;width:{100 * one.wait_width:.2f}%",
        title=f"waited {milliseconds(one.waited_ms)}",
    )
    bar = tag(
        "i",
        cls=f"sg-wf-bar sg-fill-{one.role if one.category == 'ok' else 'bad'}",
        style=f"left:{100 * one.start:.2f}%;width:{max(100 * one.width, 0.6):.2f}%",
    )
    return div("sg-wf-track", wait if one.waited_ms else None, bar, role="img", aria_label=label, title=label)


def outcome_badge(outcome: str, status: int) -> Html:
    """How a request ended, with its status."""
    face = wording.face(wording.OUTCOMES, outcome)
    return badge(type(face)(f"{face.word} {status}", face.icon, face.tone))
