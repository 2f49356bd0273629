"""What is going on, as values: the headline, the model cards, the ribbon and the freshness strip.

Pure functions from what was read to what is shown. What counts as degraded is decided here, once, for every page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dashboard import wording
from dashboard.happenings import Happening
from dashboard.reading import ROLES, WINDOW_MS, Latency, Live, Past
from dashboard.times import MINUTE_MS, about, milliseconds, number, percent
from dashboard.wording import Face, Tone
from engine.core.outcomes import RULES, Category, Effect
from engine.queries import AttemptPoint, InstanceRow, TrafficPoint

ANSWERED_WELL: Final = 0.99
"""Share of answered requests below which a stretch of time counts as degraded."""

ANSWERED_BADLY: Final = 0.9
"""Share below which it is shown in red."""

STALE_REQUEST_MS: Final = 5 * MINUTE_MS
STALE_EVALUATION_MS: Final = 2 * MINUTE_MS
QUEUE_BEHIND: Final = 1000


@dataclass(frozen=True, slots=True)
class Health:
    """Counts of a stretch of time; cancelled requests and the callers' own mistakes are in neither."""

    answered: int = 0
    failed: int = 0
    shed: int = 0

    @property
    def share(self) -> float | None:
        """Share that got an answer; `None` without traffic."""
        total = self.answered + self.failed + self.shed
        return self.answered / total if total else None

    @property
    def total(self) -> int:
        """Requests that count."""
        return self.answered + self.failed + self.shed


def health(traffic: Iterable[TrafficPoint]) -> Health:
    """Add up how requests ended."""
    answered = failed = shed = 0
    for row in traffic:
        if row.outcome == "ok":
            answered += row.n
        elif row.outcome == "shed":
            shed += row.n
        elif row.outcome == "error":
            failed += row.errors
    return Health(answered, failed, shed)


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


@dataclass(frozen=True, slots=True)
class Breaker:
    """One model's breaker over all instances."""

    face: Face
    state: str
    detail: str
    open_on: int = 0
    instances: int = 0
    retry_in: float | None = None
    probe_due: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold before traffic returns to primary."""

    label: str
    value: str
    done: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of a card: what it is, how much, and how much it was an hour ago."""

    label: str
    value: str
    before: str = ""
    tone: Tone = Tone.MUTED
    help: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute of a sparkline."""

    at_ms: int
    good: int
    bad: int


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model at a glance."""

    role: str
    model: str
    active: bool
    breaker: Breaker
    per_minute: float
    share: float
    bars: tuple[Bar, ...]
    figures: tuple[Figure, ...]
    probes: tuple[tuple[bool, str], ...] = ()
    conditions: tuple[Condition, ...] = ()
    refused: str = ""
    spare: tuple[str, Tone] = ("", Tone.MUTED)


def breaker(live: Live, role: str) -> Breaker:
    """A model's breaker: what the instances say of themselves, else the last recorded transition."""
    lines = [
        (line, instance)
        for instance in live.instances
        if instance.alive(live.now_ms)
        if (line := line_of(instance, live.manager, role))
    ]
    if not lines:
        event = live.breakers.get(role)
        state = event.after or "closed" if event else "closed"
        wait = event.evidence.get("retry_in") if event and state == "open" else None
        left = max(0.0, float(wait) - (live.now_ms - event.ts_ms) / 1000) if event and wait is not None else None
        return Breaker(wording.face(wording.BREAKERS, state), state, _why(event), retry_in=left, probe_due=left == 0.0)
    states = [str(line.get("state", "closed")) for line, _ in lines]
    rank = ("forced_open", "open", "half_open", "forced_closed", "closed")
    state = min(states, key=lambda word: rank.index(word) if word in rank else len(rank))
    waits = [
        max(0.0, float(line["retry_in"]) - (live.now_ms - instance.updated_ms) / 1000)
        for line, instance in lines
        if line.get("retry_in") is not None
    ]
    return Breaker(
        wording.face(wording.BREAKERS, state),
        state,
        _why(live.breakers.get(role)) if state != "closed" else _window(lines[0][0]),
        sum(word in ("open", "forced_open") for word in states),
        len(lines),
        min(waits, default=None),
        any(line.get("probe_due") for line, _ in lines) or (bool(waits) and min(waits) == 0.0),
    )


def line_of(instance: InstanceRow, manager: str, role: str) -> Mapping[str, Any]:
    """What an instance says of one of its models; empty when it says nothing."""
    found = instance.gauges.get("managers", {}).get(manager, {}).get("lines", {}).get(role, {})
    return found if isinstance(found, Mapping) else {}


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


def headline(live: Live) -> Headline:
    """Say whether users are served, by which model, since when and why."""
    document = live.document
    if document is None:
        return Headline(
            Face("Nothing recorded", "hourglass_empty", Tone.MUTED),
            (("No request has been recorded yet.", False),),
            ("Start the gateway, or embed DualModelManager, and this page comes to life.",),
        )
    active = str(document.active)
    window = health(row for row in live.traffic if row.start_ms >= live.now_ms - WINDOW_MS)
    both_open = all(breaker(live, role).state in ("open", "forced_open") for role in ROLES)
    details = [_answered(window), *_primary_detail(live)]
    lead = (
        ("Serving from ", False),
        (active, True),
        (f" ({model_name(live, active)}) for {about((live.now_ms - document.since_ms) / 1000)}", False),
    )
    if both_open:
        wait = min((w for role in ROLES if (w := breaker(live, role).retry_in) is not None), default=None)
        told = f" Next probe in {about(wait)}." if wait is not None else ""
        return Headline(
            Face("Down", "cancel", Tone.BAD),
            ((f"Both models are unavailable: callers get an error at once.{told}", False),),
            tuple(details),
            _cause(live),
        )
    if window.total and window.share == 0:
        return Headline(
            Face("Down", "cancel", Tone.BAD),
            (("No request has been answered in five minutes.", True),),
            tuple(details),
            _cause(live),
        )
    if document.override is not None:
        pin = document.override
        how = " without fallback" if pin.strict else ""
        return Headline(
            Face("Pinned", "push_pin", Tone.WARN),
            (
                ("Pinned to ", False),
                (str(pin.role), True),
                (f" ({model_name(live, str(pin.role))}){how} by {pin.by}", False),
            ),
            (f"“{pin.reason.rstrip('.')}”.", *details),
        )
    if active == "secondary":
        return Headline(Face("Degraded", "warning", Tone.WARN), lead, tuple(details), _cause(live))
    if window.share is not None and window.share < ANSWERED_WELL:
        return Headline(Face("Degraded", "warning", Tone.WARN), lead, tuple(details), _worst_category(live))
    if breaker(live, "primary").state in ("open", "half_open"):
        return Headline(Face("Degraded", "warning", Tone.WARN), lead, tuple(details), _worst_category(live))
    if not window.total:
        return Headline(
            Face("Quiet", "bedtime", Tone.MUTED), lead, ("No traffic in the last five minutes.", *details[1:])
        )
    return Headline(Face("Healthy", "verified", Tone.OK), lead, tuple(details))


def _answered(window: Health) -> str:
    if window.share is None:
        return "No traffic in the last five minutes."
    missing = f", {number(window.shed)} shed" if window.shed else ""
    missing += f", {number(window.failed)} failed" if window.failed else ""
    return f"{percent(window.share)} answered in 5 min{missing}."


def _primary_detail(live: Live) -> list[str]:
    found = breaker(live, "primary")
    if found.state == "open":
        where = f" on {found.open_on} of {found.instances} instances" if found.instances > 1 else ""
        probe = (
            "probe due"
            if found.probe_due
            else f"next probe in {about(found.retry_in)}"
            if found.retry_in is not None
            else ""
        )
        return [f"Primary breaker open{where}{', ' + probe if probe else ''}."]
    if found.state != "closed":
        return [f"Primary breaker {found.face.word.lower()}."]
    document = live.document
    if document is not None and document.stage is not None:
        return [f"Coming back: {percent(document.share, 0)} of traffic is on primary again."]
    return []


def _cause(live: Live) -> str | None:
    move = live.last_move
    if move is None or move.after != "secondary":
        return _worst_category(live)
    return cause_of(move, live.tries, 60)


def _worst_category(live: Live) -> str | None:
    return worst(row for row in live.tries if row.role == "primary")


def worst(tries: Iterable[AttemptPoint]) -> str | None:
    """The category most of the attempts failed with; `None` when none failed."""
    counts: dict[str, int] = {}
    for row in tries:
        if row.category not in ("ok", "cancelled"):
            counts[row.category] = counts.get(row.category, 0) + row.n
    return max(counts, key=lambda word: counts[word]) if counts else None


VOTED = frozenset({"quorum", "breaker_open"})
"""Causes of a move that say that hosts, or the only one there is, found a model failing; not what it failed with."""


def cause_of(move: Happening, tries: Iterable[AttemptPoint], bin_minutes: int) -> str:
    """What lies behind a move: where models were voted down, what their attempts failed with around that time.

    Args:
        move: Of the active model.
        tries: Attempts by bin.
        bin_minutes: How far around the move to look.
    """
    if move.what not in VOTED:
        return move.what
    reach = bin_minutes * MINUTE_MS
    near = [row for row in tries if row.role == move.before and abs(row.start_ms - move.ts_ms) <= reach]
    return worst(near) or move.what


def model_name(live: Live, role: str) -> str:
    """The provider's name of the model in a role."""
    return live.names.get(role, role)


def model_card(live: Live, role: str) -> ModelCard:
    """One model's card."""
    recent = [row for row in live.traffic if row.start_ms >= live.now_ms - WINDOW_MS]
    answered = sum(row.n for row in recent if row.role == role and row.outcome == "ok")
    everything = sum(row.n for row in recent if row.outcome == "ok")
    document = live.document
    minutes = max(1.0, WINDOW_MS / MINUTE_MS)
    return ModelCard(
        role,
        model_name(live, role),
        document is not None and str(document.active) == role,
        breaker(live, role),
        sum(row.n for row in _tries(live.tries, role, live.now_ms)) / minutes,
        answered / everything if everything else 0.0,
        _bars(live, role),
        _figures(live, role, recent),
        tuple((probe.good, wording.advice(probe.category).label) for probe in reversed(live.probes.get(role, ()))),
        recovery(live) if role == "primary" else (),
        _refused(live, role),
        spare(live, role),
    )


def spare(live: Live, role: str) -> tuple[str, Tone]:
    """What happens if the active model fails too; nothing for the one that stands by."""
    document = live.document
    if document is None or str(document.active) != role:
        return "", Tone.MUTED
    other = "secondary" if role == "primary" else "primary"
    if document.override is not None and document.override.strict:
        return "No spare: pinned without fallback, callers get errors if it fails", Tone.WARN
    found = breaker(live, other)
    if found.state in ("open", "forced_open") or _refused(live, other):
        return f"No spare: {other} is not available, callers get errors if this one fails", Tone.BAD
    return f"Spare ready: requests go to {other} if this one fails", Tone.OK


def _tries(rows: Sequence[AttemptPoint], role: str, now_ms: int) -> list[AttemptPoint]:
    return [row for row in rows if row.role == role and row.start_ms >= now_ms - WINDOW_MS]


def _figures(live: Live, role: str, recent: Sequence[TrafficPoint]) -> tuple[Figure, ...]:
    now, before = _tries(live.tries, role, live.now_ms), [row for row in live.tries_before if row.role == role]
    errors, errors_before = _error_rate(now), _error_rate(before)
    limited, limited_before = _category_share(now, "rate_limited"), _category_share(before, "rate_limited")
    latency, latency_before = live.latency.get(role, Latency()), live.latency_before.get(role, Latency())
    cost = sum(row.cost_usd for row in recent if row.role == role) / (WINDOW_MS / MINUTE_MS)
    return (
        Figure(
            "Error rate",
            percent(errors),
            percent(errors_before),
            Tone.BAD if errors and errors > 1 - ANSWERED_WELL else Tone.MUTED,
            "Failed attempts among those that count for the breaker, 5 min",
        ),
        Figure(
            "p95",
            milliseconds(latency.p95),
            milliseconds(latency_before.p95),
            help="95 % of answers took at most this long, 5 min",
        ),
        Figure(
            "First token p95",
            milliseconds(latency.ttft_p95),
            milliseconds(latency_before.ttft_p95),
            help="95 % of streams began within this, 5 min",
        ),
        Figure(
            "429 share",
            percent(limited),
            percent(limited_before),
            Tone.WARN if limited else Tone.MUTED,
            "Attempts the provider refused for its rate limit, 5 min",
        ),
        Figure("Cost", f"${cost:.3f}/min" if cost else "–", help="USD a minute over 5 min"),
    )


def _error_rate(rows: Sequence[AttemptPoint]) -> float | None:
    failures = sum(row.n for row in rows if _effect(row.category) is Effect.FAILURE)
    counted = failures + sum(row.n for row in rows if _effect(row.category) is Effect.OK)
    return failures / counted if counted else None


def _category_share(rows: Sequence[AttemptPoint], category: str) -> float | None:
    total = sum(row.n for row in rows)
    return sum(row.n for row in rows if row.category == category) / total if total else None


def _effect(category: str) -> Effect:
    try:
        return RULES[Category(category)].breaker
    except ValueError:
        return Effect.NEUTRAL


def card_errors(live: Live, role: str) -> float | None:
    """Share of a model's attempts that failed in the last minutes, as on its card."""
    return _error_rate(_tries(live.tries, role, live.now_ms))


def _bars(live: Live, role: str) -> tuple[Bar, ...]:
    good: dict[int, int] = {}
    bad: dict[int, int] = {}
    for row in live.tries:
        if row.role == role:
            into = good if _effect(row.category) is Effect.OK else bad
            into[row.start_ms] = into.get(row.start_ms, 0) + row.n
    last = live.now_ms // MINUTE_MS * MINUTE_MS
    minutes = range(last - 59 * MINUTE_MS, last + 1, MINUTE_MS)
    return tuple(Bar(minute, good.get(minute, 0), bad.get(minute, 0)) for minute in minutes)


def recovery(live: Live) -> tuple[Condition, ...]:
    """What is left before primary serves again; empty while it does."""
    document = live.document
    if document is None or (str(document.active) == "primary" and document.stage is None):
        return ()
    if document.override is not None:
        return (Condition("Override", f"until it ends: {document.override.by}", False),)
    closed = breaker(live, "primary").state == "closed"
    hold = max(0.0, (document.hold_until_ms - live.now_ms) / 1000)
    gates = [
        (instance.gauges.get("managers", {}).get(live.manager, {}))
        for instance in live.instances
        if instance.alive(live.now_ms)
    ]
    good = max((int(gate.get("gate_good") or 0) for gate in gates), default=0)
    needed = max((int(gate.get("gate_of") or 0) for gate in gates), default=0)
    ramping = document.stage is not None
    return (
        Condition("Hold", "over" if not hold else f"{about(hold)} left", not hold),
        Condition("Breaker", "closed" if closed else "not closed", closed),
        Condition(
            "Good probes",
            f"{needed if ramping else good} of {needed}" if needed else ("passed" if ramping else "collecting"),
            ramping or bool(needed and good >= needed),
        ),
        Condition("Ramp", f"{percent(document.share, 0)} on primary" if ramping else "not begun", False),
    )


def _refused(live: Live, role: str) -> str:
    for instance in live.instances:
        refused = line_of(instance, live.manager, role).get("unavailable")
        if refused and instance.alive(live.now_ms):
            left = float(refused.get("for") or 0.0)
            return f"{wording.advice(str(refused.get('category'))).label}: not asked for {about(left)}"
    return ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a ribbon, as shares of its width."""

    start: float
    width: float
    kind: str
    title: str
    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class Lane:
    """One row of the ribbon."""

    label: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """The two figures every team asks for, and what they rest on."""

    on_secondary_ms: int
    degraded_ms: int
    span_ms: int
    moves: int
    health: Health

    @property
    def secondary_share(self) -> float:
        """Share of the time the secondary was the active model."""
        return self.on_secondary_ms / self.span_ms if self.span_ms else 0.0


def active_stretches(past: Past) -> list[tuple[int, int, str, Happening | None]]:
    """When which model was active: start, end, role and the move that began it."""
    stretches: list[tuple[int, int, str, Happening | None]] = []
    at, role, began = past.from_ms, past.active_before, None
    for move in reversed(past.moves):
        if move.ts_ms > at:
            stretches.append((at, move.ts_ms, role, began))
        at, role, began = move.ts_ms, move.after or role, move
    stretches.append((at, past.to_ms, role, began))
    return stretches


def summary(past: Past) -> Summary:
    """How long the secondary was active, and how long users had less than they should."""
    size = past.bin_minutes * MINUTE_MS
    secondary = [(start, end) for start, end, role, move in active_stretches(past) if role == "secondary"]
    unplanned = [
        (start, end)
        for start, end, role, move in active_stretches(past)
        if role == "secondary" and (move is None or move.what != "override")
    ]
    bad = [
        (at, at + size) for at, found in bins(past).items() if found.share is not None and found.share < ANSWERED_WELL
    ]
    return Summary(
        sum(end - start for start, end in secondary),
        covered([*unplanned, *bad]),
        max(1, past.to_ms - past.from_ms),
        sum(move.after == "secondary" for move in past.moves),
        health(past.traffic),
    )


def covered(stretches: Iterable[tuple[int, int]]) -> int:
    """Length of the union of stretches of time."""
    total, reach = 0, -1
    for start, end in sorted(stretches):
        total += max(0, end - max(start, reach))
        reach = max(reach, end)
    return total


def bins(past: Past) -> dict[int, Health]:
    """How requests ended, by bin."""
    rows: dict[int, list[TrafficPoint]] = {}
    for row in past.traffic:
        rows.setdefault(row.start_ms, []).append(row)
    return {at: health(found) for at, found in rows.items()}


def ribbon(past: Past, text: Callable[[int], str]) -> tuple[Lane, ...]:
    """The day as lanes: which model was active, how requests ended, what primary's breaker did.

    Args:
        past: What was read.
        text: Renders a moment.
    """
    return (
        Lane(
            "Active model",
            tuple(
                _stretch(past, text, start, end, role, role.capitalize() + _by(move))
                for start, end, role, move in active_stretches(past)
            ),
        ),
        Lane("Answers", tuple(_answer_segments(past, text))),
        Lane("Primary breaker", tuple(_breaker_segments(past, text))),
    )


def _by(move: Happening | None) -> str:
    return f" · {wording.advice(move.what).label}" if move else ""


def _stretch(past: Past, text: Callable[[int], str], start: int, end: int, kind: str, title: str) -> Segment:
    span = past.to_ms - past.from_ms
    moments = f"{text(start)} – {text(end)}"
    return Segment((start - past.from_ms) / span, (end - start) / span, kind, f"{title}\n{moments}", start, end)


def _answer_segments(past: Past, text: Callable[[int], str]) -> Iterable[Segment]:
    """Bins of one kind after each other are one segment."""
    size = past.bin_minutes * MINUTE_MS
    found = bins(past)
    at = past.from_ms
    while at < past.to_ms:
        kind, end = _answer_kind(found.get(at)), at + size
        counted = [found[at]] if at in found else []
        while end < past.to_ms and _answer_kind(found.get(end)) == kind:
            counted += [found[end]] if end in found else []
            end += size
        total = sum(one.total for one in counted)
        answered = sum(one.answered for one in counted) / total if total else None
        told = "No traffic" if answered is None else f"{percent(answered)} of {number(total)} answered"
        yield _stretch(past, text, at, min(end, past.to_ms), kind, told)
        at = end


def _answer_kind(found: Health | None) -> str:
    if found is None or found.share is None:
        return "none"
    return "ok" if found.share >= ANSWERED_WELL else "bad" if found.share < ANSWERED_BADLY else "warn"


def _breaker_segments(past: Past, text: Callable[[int], str]) -> Iterable[Segment]:
    events = [event for event in reversed(past.breakers) if event.role == "primary"]
    at, state = past.from_ms, (events[0].before or "closed") if events else "closed"
    kinds = {"closed": "ok", "open": "bad", "half_open": "bad", "forced_open": "bad", "forced_closed": "warn"}
    shown = state
    for event in events:
        merged = {"half_open": "open"}.get(event.after or "", event.after or "closed")
        if merged != shown:
            if event.ts_ms > at:
                yield _stretch(
                    past, text, at, event.ts_ms, kinds.get(shown, "none"), wording.face(wording.BREAKERS, shown).word
                )
            at, shown = event.ts_ms, merged
    yield _stretch(past, text, at, past.to_ms, kinds.get(shown, "none"), wording.face(wording.BREAKERS, shown).word)


@dataclass(frozen=True, slots=True)
class Chip:
    """One part of the freshness strip."""

    label: str
    value: str
    face: Face


def freshness(live: Live) -> tuple[Chip, ...]:
    """Whether this page is telling the truth: how old each thing is that it rests on."""
    fine, late = Face("fresh", "check_circle", Tone.OK), Face("late", "warning", Tone.WARN)
    unknown = Face("never", "help", Tone.MUTED)
    alive = [instance for instance in live.instances if instance.alive(live.now_ms)]
    queue = max((int(instance.gauges.get("queue_length") or 0) for instance in alive), default=0)
    unreachable = [instance for instance in alive if instance.gauges.get("coordinator_up") is False]

    def age(ms: int | None, limit: int) -> tuple[str, Face]:
        if ms is None:
            return "never", unknown
        return f"{about(max(0, live.now_ms - ms) / 1000)} ago", fine if live.now_ms - ms <= limit else late

    request, evaluation = age(live.last_request_ms, STALE_REQUEST_MS), age(live.last_evaluation_ms, STALE_EVALUATION_MS)
    epoch = f"epoch {live.document.epoch}" if live.document else "nothing agreed"
    gone = len(live.instances) - len(alive)
    return (
        Chip("Last request", *request),
        Chip("Last evaluation", *evaluation),
        Chip(
            "Recorder",
            f"{number(queue)} waiting" if queue else "up to date",
            (late if queue > QUEUE_BEHIND else fine) if alive else unknown,
        ),
        Chip(
            "Agreement",
            f"{epoch}{', unreachable' if unreachable else ''}",
            late if unreachable else fine if live.document else unknown,
        ),
        Chip(
            "Instances",
            f"{len(alive)} alive" + (f", {gone} lost" if gone else ""),
            fine if alive and not gone else late if live.instances else unknown,
        ),
    )
