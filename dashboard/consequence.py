"""What an act would do, said before it is done: from what is known of the target, without doing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dashboard import wording
from dashboard.breakers import breaker
from dashboard.model_card import error_rate
from dashboard.reading import Live
from dashboard.times import percent
from dashboard.wording import Tone
from engine.core.errors import SwitchgearError
from engine.core.messages import Role

EXPIRIES: Final = {"15 minutes": 900.0, "1 hour": 3600.0, "4 hours": 14_400.0, "1 day": 86_400.0, "7 days": 604_800.0}
DEFAULT_EXPIRY: Final = "1 hour"
SHORTEST_REASON: Final = 10
"""Characters; less tells the next person on call nothing."""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What will happen.

    Attributes:
        text: In a sentence or two.
        tone: How worrying that is.
        confirm: A word that must be typed first, empty when the act is harmless.
    """

    text: str
    tone: Tone
    confirm: str = ""


def of_pin(live: Live, role: str, *, strict: bool) -> Consequence:
    """Pinning a model."""
    model = live.model(role)
    found = breaker(live, role)
    away = error_rate(live.recent_tries(role))
    fate = (
        "Requests do not fall back: callers get errors while it fails."
        if strict
        else "Single requests still go to the other model when it fails."
    )
    if found.is_open or found.state == "half_open":
        told = f"{role.capitalize()} breaker is {found.face.word.lower()}: {found.detail}. "
        worst = (
            "Callers will get errors." if strict else "Requests that its breaker refuses still go to the other model."
        )
        return Consequence(f"{told}All traffic is sent to {model}. {worst}", Tone.BAD, role)
    state = (
        " Nothing has called it in five minutes, so how well it does is not known."
        if away is None
        else f" It fails {percent(away)} of its calls now."
        if away
        else " It is healthy now."
    )
    moved = live.document is not None and str(live.document.active) != role
    lead = (
        f"All traffic moves to {model} at once." if moved else f"Traffic stays on {model}, and nothing moves it away."
    )
    tone = Tone.WARN if strict or away else Tone.INFO
    return Consequence(f"{lead}{state} {fate}", tone, role if strict else "")


def of_release(live: Live) -> Consequence:
    """Returning to automatic."""
    document = live.document
    if document is not None and str(document.active) == "secondary":
        return Consequence(
            "Automatic decisions resume. Primary gets traffic back step by step: after its hold, good "
            "probes and the ramp.",
            Tone.INFO,
        )
    return Consequence("Automatic decisions resume; nothing changes at once.", Tone.INFO)


def of_force(live: Live, role: str, state: str) -> Consequence:
    """Forcing a breaker, or letting it decide again."""
    model = live.model(role)
    if state == "forced_open":
        other = str(Role(role).other)
        spare = breaker(live, other)
        if spare.is_open:
            return Consequence(
                f"No request reaches {model}, and {other}'s breaker is {spare.face.word.lower()}: callers get errors.",
                Tone.BAD,
                role,
            )
        return Consequence(f"No request reaches {model}; the other model answers everything.", Tone.WARN)
    if state == "forced_closed":
        return Consequence(
            f"Every request may reach {model} however much it fails; nothing protects callers from it.", Tone.WARN, role
        )
    return Consequence(f"The breaker of {model} decides again, beginning with one probe.", Tone.INFO)


def refusal(reason: str, confirm: str, typed: str) -> str:
    """Why the act may not be done yet, empty when it may."""
    if len(reason.strip()) < SHORTEST_REASON:
        return f"Say why, in at least {SHORTEST_REASON} characters: it is what the next person on call reads."
    if confirm and typed.strip().casefold() != confirm.casefold():
        return f"Type {confirm} to confirm."
    return ""


def explain(error: SwitchgearError) -> str:
    """An act that was refused, with what to do."""
    if error.code == "conflict":
        return f"Somebody or something was faster: {error}. What is shown here by now is the new state."
    return str(error)


def act_face(action: str) -> wording.Face:
    """How an act is shown in the audit log."""
    word = {"set": "Pinned", "clear": "Released"}.get(action, action.replace("_", " ").capitalize())
    if action in ("set", "forced_open", "forced_closed"):
        return wording.Face(word, "push_pin" if action == "set" else "front_hand", Tone.WARN)
    return wording.Face(word, "check_circle", Tone.MUTED)
