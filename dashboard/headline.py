"""The one sentence at the top: whether users are served, by which model, since when and why.

The worst thing that is true is what it says: nobody is served, then somebody decided by hand, then users have less than
they should, then all is well. It never says more than was recorded: no traffic is quiet and not healthy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dashboard.availability import ANSWERED_WELL, Health, health
from dashboard.breakers import Breaker, breaker
from dashboard.causes import cause_of, worst
from dashboard.reading import ROLES, Live
from dashboard.times import about, number, percent
from dashboard.wording import Face, Tone
from engine.core.agreement import Document, Override

NOTHING: Final = Face("Nothing recorded", "hourglass_empty", Tone.MUTED)
DOWN: Final = Face("Down", "cancel", Tone.BAD)
PINNED: Final = Face("Pinned", "push_pin", Tone.WARN)
DEGRADED: Final = Face("Degraded", "warning", Tone.WARN)
QUIET: Final = Face("Quiet", "bedtime", Tone.MUTED)
HEALTHY: Final = Face("Healthy", "verified", Tone.OK)

AROUND_MINUTES: Final = 5
"""How far around a move it is looked what the model failed with."""


@dataclass(frozen=True, slots=True)
class Headline:
    """The one sentence.

    Attributes:
        face: State in a word, with icon and tone.
        lead: The sentence as text and emphasised parts.
        details: What explains it, a sentence each.
        cause: The cause to give advice for, `None` when there is nothing to explain.
    """

    face: Face
    lead: tuple[tuple[str, bool], ...]
    details: tuple[str, ...] = ()
    cause: str | None = None

    @property
    def text(self) -> str:
        """The sentence without emphasis."""
        return "".join(part for part, _ in self.lead)


def headline(live: Live) -> Headline:
    """Say whether users are served, by which model, since when and why."""
    document = live.document
    if document is None:
        return Headline(
            NOTHING,
            (("No request has been recorded yet.", False),),
            ("Start the gateway, or embed DualModelManager, and this page comes to life.",),
        )
    window = health(live.recent_traffic)
    primary, secondary = (breaker(live, role) for role in ROLES)
    details = (_answered(window), *_primary_detail(document, primary))
    if primary.is_open and secondary.is_open:
        wait = min((one.retry_in for one in (primary, secondary) if one.retry_in is not None), default=None)
        told = f" Next probe in {about(wait)}." if wait is not None else ""
        lead = f"Both models are unavailable: callers get an error at once.{told}"
        return Headline(DOWN, ((lead, False),), details, _cause(live))
    if window.share == 0:
        return Headline(DOWN, (("No request has been answered in five minutes.", True),), details, _cause(live))
    if document.override is not None:
        pin = document.override
        return Headline(PINNED, _pinned(live, pin), (f"“{pin.reason.rstrip('.')}”.", *details))
    if str(document.active) == "secondary":
        return Headline(DEGRADED, _serving(live, document), details, _cause(live))
    if (window.share is not None and window.share < ANSWERED_WELL) or primary.state in ("open", "half_open"):
        return Headline(DEGRADED, _serving(live, document), details, _failing_with(live))
    return Headline(HEALTHY if window.total else QUIET, _serving(live, document), details)


def _serving(live: Live, document: Document) -> tuple[tuple[str, bool], ...]:
    active = str(document.active)
    held = about((live.now_ms - document.since_ms) / 1000)
    return (("Serving from ", False), (active, True), (f" ({live.model(active)}) for {held}", False))


def _pinned(live: Live, pin: Override) -> tuple[tuple[str, bool], ...]:
    role, how = str(pin.role), " without fallback" if pin.strict else ""
    return (("Pinned to ", False), (role, True), (f" ({live.model(role)}){how} by {pin.by}", False))


def _answered(window: Health) -> str:
    if window.share is None:
        return "No traffic in the last five minutes."
    missing = f", {number(window.shed)} shed" if window.shed else ""
    missing += f", {number(window.failed)} failed" if window.failed else ""
    return f"{percent(window.share)} answered in 5 min{missing}."


def _primary_detail(document: Document, primary: Breaker) -> tuple[str, ...]:
    if primary.state == "open":
        where = f" on {primary.open_on} of {primary.instances} instances" if primary.instances > 1 else ""
        probe = ""
        if primary.probe_due:
            probe = ", probe due"
        elif primary.retry_in is not None:
            probe = f", next probe in {about(primary.retry_in)}"
        return (f"Primary breaker open{where}{probe}.",)
    if primary.state != "closed":
        return (f"Primary breaker {primary.face.word.lower()}.",)
    if document.stage is not None:
        return (f"Coming back: {percent(document.share, 0)} of traffic is on primary again.",)
    return ()


def _cause(live: Live) -> str | None:
    move = live.last_move
    if move is None or move.after != "secondary":
        return _failing_with(live)
    return cause_of(move, live.tries, AROUND_MINUTES)


def _failing_with(live: Live) -> str | None:
    """What callers suffer from now; what primary failed with before that, while its breaker keeps calls away."""
    lately = worst(live.recent_tries("primary"), health(live.recent_traffic).shed)
    return lately or worst(row for row in live.tries if row.role == "primary")
