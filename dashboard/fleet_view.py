"""The fleet as a card: who is alive, what each instance finds and how far it is, and what the quorum makes of it."""

from __future__ import annotations

from dashboard import parts
from dashboard.markup import Child, Html, div, span
from dashboard.parts import badge
from dashboard.times import about, percent
from dashboard.wording import Face, Tone
from engine.core.agreement import Opinion, Verdict
from engine.fleet.view import Count, FleetState, Seat

_ALIVE = Face("Alive", "check_circle", Tone.OK)
_LOST = Face("Lost", "warning", Tone.WARN)
_AWAY = Face("Coordinator away", "cloud_off", Tone.BAD)
_VERDICTS = {
    Verdict.UP: Face("Up", "arrow_upward", Tone.OK),
    Verdict.DOWN: Face("Down", "arrow_downward", Tone.BAD),
}


def card(fleet: FleetState | None) -> Html:
    """The whole card; a sentence while nobody has reported."""
    if fleet is None or not fleet.seats:
        return parts.empty_card("No instance has reported yet.", symbol="dns")
    rows = [_row(seat) for seat in fleet.seats]
    columns = ("Instance", "Host", "State", "On primary", "On secondary", "Epoch", "Agreement read", "Version")
    more = f" and {fleet.left_out} more instances" if fleet.left_out else ""
    return div(
        "sg-card sg-flush-top",
        parts.heading("Instances and their votes", note=f"epoch {fleet.epoch} · {quorum(fleet)}{more}"),
        parts.table(columns, rows, label="Instances"),
    )


def quorum(fleet: FleetState) -> str:
    """What the quorum sees, in one line."""
    hosts = f"{fleet.live_hosts} host{'s' if fleet.live_hosts != 1 else ''} alive"
    lost = f", {len(fleet.lost_hosts)} silent and still counted" if fleet.lost_hosts else ""
    return f"{hosts}{lost} · primary {_count(fleet.primary)} · secondary {_count(fleet.secondary)}"


def _count(count: Count) -> str:
    if not count.opinions:
        return "no opinion"
    verdict = "voted down" if count.is_down else "not down"
    return f"{verdict} ({count.down} of {count.opinions} say down, {count.needed} needed)"


def _row(seat: Seat) -> list[Child]:
    state = _LOST if not seat.alive else (_AWAY if seat.coordinator_up is False else _ALIVE)
    behind = f" ({seat.lag} behind)" if seat.lag else ""
    return [
        span("sg-mono", seat.instance),
        seat.host,
        badge(state),
        _opinion(seat.primary, voted=seat.voted),
        _opinion(seat.secondary, voted=seat.voted),
        span("sg-num", "–" if seat.epoch is None else f"{seat.epoch}{behind}"),
        "–" if seat.agreement_age is None else _ago(seat.agreement_age),
        seat.version or "–",
    ]


def _ago(seconds: float) -> str:
    return "just now" if seconds < 1 else f"{about(seconds)} ago"


def _opinion(found: Opinion, *, voted: bool) -> Child:
    """A verdict with its evidence."""
    if not voted:
        return "no vote"
    face = _VERDICTS.get(found.verdict)
    if face is None:
        return "abstains"
    share = f" {percent(found.failures / found.samples)} of {found.samples} failed" if found.samples else ""
    return span("sg-opinion", badge(face), share)
