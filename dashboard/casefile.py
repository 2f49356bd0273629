"""Everything about one incident, read in one snapshot: what the page shows and the export writes down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dashboard import wording
from dashboard.availability import Health, health
from dashboard.causes import SHED_AS, VOTED
from dashboard.happenings import Happening, happenings
from dashboard.times import DAY_MS, MINUTE_MS, whole
from dashboard.wording import Advice
from engine import incidents, queries
from engine.incidents import Ending, Incident
from engine.queries import Event, EventKind, LatencyPoint, TrafficPoint
from engine.queries.spans import SpanSums, span_sums
from engine.sqlite import Connection

EVENTS_MOST: Final = 5000
LOOKBACK_MS: Final = 30 * DAY_MS
AROUND_MS: Final = 10 * MINUTE_MS

ENDINGS: Final[Mapping[Ending, str]] = {
    Ending.ONGOING: "still going on",
    Ending.RECOVERED: "recovered by itself",
    Ending.OPERATOR: "ended by an operator",
    Ending.ALERT_RESOLVED: "alert resolved",
}


@dataclass(frozen=True, slots=True)
class Harm:
    """What callers noticed.

    Attributes:
        health: How their requests ended.
        rescues: Answered by the other model than the active one, by cause.
        categories: Failed attempts by category, most first.
    """

    health: Health
    rescues: Mapping[str, int]
    categories: tuple[tuple[str, int], ...]

    @property
    def rescued(self) -> int:
        """Requests answered by the other model than the active one."""
        return sum(self.rescues.values())

    @property
    def hurt(self) -> int:
        """Requests that got an error or were shed."""
        return self.health.failed + self.health.shed


@dataclass(frozen=True, slots=True)
class Line:
    """One incident in the list.

    Attributes:
        incident: The incident.
        harm: What callers noticed.
        cause: What lies behind it, as a key of the wording's causes where it is one.
        also: What lies behind a good part of it besides: a storm of 429s merges with the outage that it meets.
    """

    incident: Incident
    harm: Harm
    cause: str
    also: str | None = None


TOLD_WITHIN_MS: Final = MINUTE_MS
"""A notification is on its way for some seconds before one can say that there is none."""


@dataclass(frozen=True, slots=True)
class CaseFile:
    """One incident with everything around it.

    Attributes:
        incident: The incident.
        cause: What lies behind it; see `Line`.
        also: What else does.
        harm: What callers noticed.
        timeline: What happened, oldest first.
        start_ms: Start of the charts, some time before it.
        end_ms: End of the charts.
        bin_minutes: Length of a bin of the charts.
        traffic: Requests by bin.
        latency: Percentiles by bin and role.
        similar: Earlier ones of the same cause.
    """

    incident: Incident
    cause: str
    harm: Harm
    timeline: tuple[Happening, ...]
    start_ms: int
    end_ms: int
    bin_minutes: int
    traffic: Sequence[TrafficPoint] = ()
    latency: Mapping[str, Sequence[LatencyPoint]] = field(default_factory=dict)
    similar: tuple[Line, ...] = ()
    also: str | None = None

    @property
    def alerts(self) -> list[Happening]:
        """The first time that each alert fired, in the order of time."""
        first: dict[str, Happening] = {}
        for one in self.timeline:
            if one.kind is EventKind.ALERT and _trips(one):
                first.setdefault(one.who, one)
        return list(first.values())

    @property
    def evidence(self) -> Happening | None:
        """The event that tripped it: the first breaker that opened, else the first move, else the first alert."""
        kinds = (EventKind.BREAKER, EventKind.FAILOVER, EventKind.ALERT)
        within = [one for one in self.timeline if one.ts_ms >= self.incident.start_ms]
        return next((one for kind in kinds for one in within if one.kind is kind and _trips(one)), None)

    @property
    def untold(self) -> bool:
        """Whether an alert fired in it and no notification is on record: there is no receiver, or one elsewhere."""
        told = any(one.kind is EventKind.DELIVERY for one in self.timeline)
        return not told and any(self.end_ms - one.ts_ms > TOLD_WITHIN_MS for one in self.alerts)


def _trips(one: Happening) -> bool:
    return one.after in ("open", "secondary", "firing")


def read_incidents(connection: Connection, manager: str, now_ms: int, span_ms: int = LOOKBACK_MS) -> list[Incident]:
    """The incidents of a manager, newest first."""
    return incidents.derive(_events(connection, manager, now_ms - span_ms, now_ms), now_ms)


def read_lines(connection: Connection, manager: str, found: Sequence[Incident], now_ms: int) -> list[Line]:
    """Incidents with what callers noticed of them, all read at once."""
    spans = [(one.start_ms, one.end_ms if one.end_ms is not None else now_ms) for one in found]
    sums = span_sums(connection, manager, spans)
    return [_line(incident, sum_) for incident, sum_ in zip(found, sums, strict=True)]


def read_case(connection: Connection, manager: str, incident_id: str, now_ms: int) -> CaseFile | None:
    """One incident by its id, or by a moment in it written as milliseconds; `None` when there is none.

    Args:
        connection: Of `Store.reader()`.
        manager: Whose.
        incident_id: As in `Incident.id`, or a moment.
        now_ms: Wall time.
    """
    known = read_incidents(connection, manager, now_ms)
    found = next((one for one in known if one.id == incident_id), None)
    if found is None and (moment := whole(incident_id)) is not None:
        found = incidents.at(known, moment)
    if found is None:
        return None
    end = found.end_ms if found.end_ms is not None else now_ms
    start_ms, end_ms = found.start_ms - AROUND_MS, min(end + AROUND_MS, now_ms)
    step = max(1, (end_ms - start_ms) // (120 * MINUTE_MS))
    line, *similar = read_lines(connection, manager, [found, *incidents.similar(found, known)], now_ms)
    deliveries = [one for one in _deliveries(connection, found.start_ms, end + AROUND_MS) if _about(one, found)]
    return CaseFile(
        incident=found,
        cause=line.cause,
        harm=line.harm,
        timeline=tuple(sorted([*happenings(found.events), *deliveries], key=lambda one: one.ts_ms)),
        start_ms=start_ms,
        end_ms=end_ms,
        bin_minutes=step,
        traffic=queries.traffic_series(connection, manager, start_ms, end_ms, step_minutes=step),
        latency={
            role: queries.latency_series(connection, manager, start_ms, end_ms, role=role, step_minutes=step)
            for role in ("primary", "secondary")
        },
        similar=tuple(similar),
        also=line.also,
    )


def _events(connection: Connection, manager: str, start_ms: int, now_ms: int) -> Sequence[Event]:
    kinds = [EventKind.FAILOVER, EventKind.BREAKER, EventKind.OVERRIDE, EventKind.AGREEMENT, EventKind.ALERT]
    page = queries.timeline(
        connection, start_ms=start_ms, end_ms=now_ms + 1, manager=manager, kinds=kinds, limit=EVENTS_MOST
    )
    return page.events


def _deliveries(connection: Connection, start_ms: int, end_ms: int) -> tuple[Happening, ...]:
    page = queries.timeline(connection, start_ms=start_ms, end_ms=end_ms, kinds=[EventKind.DELIVERY], limit=200)
    return happenings(page.events)


def _about(delivery: Happening, incident: Incident) -> bool:
    """Whether a delivery is of this incident: it tells of an alert in it, or may do so."""
    rule = delivery.evidence.get("rule")
    ours = delivery.manager in ("", incident.manager)
    return bool(incident.alerts) and ours and (rule is None or rule in incident.alerts)


def _line(incident: Incident, sums: SpanSums) -> Line:
    harm = Harm(
        Health(sums.answered, sums.failed, sums.shed),
        sums.rescues,
        tuple(sorted(sums.failures.items(), key=lambda item: -item[1])),
    )
    return Line(incident, harm, *_causes(incident, harm))


def _causes(incident: Incident, harm: Harm) -> tuple[str, str | None]:
    """What lies behind an incident, and what else does.

    What a model refuses is seen in calls that were shed or went to the other one, too: many made no attempt. Where no
    model was found failing, the few failures of every day do not explain what an alert has found.
    """
    weights = dict(harm.categories)
    for word in REFUSALS:
        calls = harm.rescues.get(word, 0) + (harm.health.shed if word == SHED_AS else 0)
        if calls > weights.get(word, 0):
            weights[word] = calls
    ranked = sorted(weights.items(), key=lambda item: -item[1])
    if incident.moves and incident.cause not in _VAGUE:
        cause = incident.cause
    else:
        least = 0 if incident.trips else NOTICED * harm.health.total
        cause = next((category for category, n in ranked if n >= least), _by_hand(incident) or incident.cause)
    enough = max(ALSO_LEAST, ALSO_SHARE * sum(weights.values()))
    others = [(category, n) for category, n in ranked if category != cause]
    if incident.trips and cause in REFUSALS:  # a breaker opened for something that is no refusal, however few it were
        return cause, next((category for category, _ in others if category not in REFUSALS), None)
    return cause, next((category for category, n in others if n >= enough), None)


def _by_hand(incident: Incident) -> str | None:
    """The cause of a move that an operator made, where there is one."""
    moves = (event.detail for event in incident.events if event.kind is EventKind.FAILOVER)
    return next((str(row["cause"]) for row in moves if (row["cause"], row["to_role"]) == BY_HAND), None)


BY_HAND: Final = ("override", "secondary")
_VAGUE: Final = VOTED | {"failure_rate", "slow_rate", "consecutive_failures"}
REFUSALS: Final = (SHED_AS, "quota_exhausted", "auth", "model_unavailable")
"""Causes that keep calls away from a model without asking it."""
NOTICED: Final = 0.02
"""Share of requests below which failures are those of every day."""
ALSO_SHARE: Final = 0.2
"""Share of what failed from which on a second cause is named."""
ALSO_LEAST: Final = 5


def advices_of(found: Line | CaseFile) -> list[Advice]:
    """The words of what lies behind an incident, the foremost first."""
    return [wording.advice(cause) for cause in (found.cause, found.also) if cause is not None]


def what_failed(harm: Harm) -> list[tuple[str, int]]:
    """What failed, and how often: attempts by category, and the calls that a model's refusal kept away from it."""
    found = [(wording.advice(category).label, n) for category, n in harm.categories]
    if harm.health.shed:
        found.append(("Shed to keep within a limit", harm.health.shed))
    kept = [(wording.advice(word).label.lower(), harm.rescues[word]) for word in REFUSALS if harm.rescues.get(word)]
    return [*found, *((f"To the other model: {label}", n) for label, n in kept)]


def before_during_after(case: CaseFile) -> tuple[tuple[str, Any], ...]:
    """The three stretches of a case with how requests ended in each."""
    incident = case.incident
    end = incident.end_ms if incident.end_ms is not None else case.end_ms
    first = incident.start_ms // MINUTE_MS * MINUTE_MS

    def part(start_ms: int, end_ms: int) -> Health:
        return health(row for row in case.traffic if start_ms <= row.start_ms < end_ms)

    after = part(end, case.end_ms) if incident.end_ms is not None else None
    return (("Before", part(case.start_ms, first)), ("During", part(first, end)), ("After", after))
