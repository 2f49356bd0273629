"""What the rules of one tick ask, read from the store in a handful of statements and one snapshot.

Guarantees: window edges are exact to the millisecond (whole minutes come from the sums by minute, the rest from raw
rows); counts of nothing are 0; ratios and percentiles of nothing have no value; the start of a level is the moment
that is on record.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from alerts import queries
from alerts.expression import LevelTest, Value
from alerts.histograms import total
from alerts.queries import Agreed, Feed
from alerts.shelf import Groups, Shelf
from alerts.spans import plan
from alerts.vocabulary import BREAKER_STATES, PERCENTILES, ROLES, Query
from engine.core.outcomes import RULES, Effect
from engine.percentiles import quantile
from engine.queries import InstanceRow, instances
from engine.sqlite import Connection

STOPPED_MARK = "receiver stopped: "
LETTERS_LAST_MS = 24 * 3_600_000
"""How long after it was made, or made due again, a notification is given up."""
LETTERS_KEPT_MS = 14 * 86_400_000
"""How long after it was made one that was settled is kept."""
FAILURES = frozenset(str(category) for category, rule in RULES.items() if rule.breaker is Effect.FAILURE)
LIMITED = frozenset({"rate_limited", "quota_exhausted"})
SEVERITY = ("open", "forced_open", "half_open", "forced_closed", "closed")
"""Breaker states, the worst first."""

_BY_REQUESTS = frozenset({"requests", "errors", "error_rate", "secondary_share", "shed", "cost_usd", "tokens"})
_BY_ATTEMPTS = frozenset({"rate_limited", "auth_errors", "semantic_failures"})
_BY_FAILOVERS = frozenset({"failovers", "request_failovers"})


class Observations(Protocol):
    """Answers to what rules ask, at one moment."""

    def ask(self, manager: str | None, query: Query) -> Value:
        """The value of a query for a manager, or for the store; `None` for no value."""

    def since(self, manager: str | None, test: LevelTest) -> int | None:
        """Since when, in milliseconds, a level has fulfilled a test that it fulfils now; `None` when unknown."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """What the coordinator says: who is alive with which gauges, and what is agreed."""

    beats: Sequence[InstanceRow] = ()
    agreed: Sequence[Agreed] = ()


class Reading:
    """The store at one moment.

    Args:
        connection: In a read transaction.
        asked: Everything that will be asked.
        managers: Of whom.
        now_ms: The moment.
        fleet: What the coordinator says, where that is more than the store knows.
        shelf: What earlier readings of this store have kept.
    """

    def __init__(
        self,
        connection: Connection,
        asked: Iterable[Query],
        managers: Sequence[str],
        now_ms: int,
        fleet: FleetView | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self._connection = connection
        self._managers = tuple(managers)
        self._now_ms = now_ms
        self._shelf = shelf or Shelf()
        self._shelf.open(connection, self._managers, now_ms)
        asked = frozenset(asked)
        self._counts: dict[tuple[str, Query], float | None] = {}
        self._marks = queries.marks(connection, STOPPED_MARK)
        beats = instances(connection) if fleet is None else fleet.beats
        self._live = [beat for beat in beats if beat.alive(now_ms)]
        self._agreed = {one.manager: one for one in queries.agreed(connection)}
        for one in fleet.agreed if fleet else ():
            if one.manager not in self._agreed or self._agreed[one.manager].epoch < one.epoch:
                self._agreed[one.manager] = one
        for source in sources(asked):
            if source.feed.name == queries.LATENCY.name:
                self._read_latency(source.asked)
            else:
                self._read(source)
        self._read_ramp_aborts(_of(asked, {"ramp_aborts"}))
        self._read_trips(_of(asked, {"breaker_trips"}))
        self._breakers = {
            (manager, query.role): self._breaker(manager, query.role)
            for query in asked
            if query.name == "breaker"
            for manager in managers
        }
        self._dead = self._read_dead_letters(asked)
        self._store = {query: self._store_wide(query) for query in asked if query.name in _STORE_WIDE}

    def ask(self, manager: str | None, query: Query) -> Value:
        """See `Observations.ask`."""
        if query.name in _STORE_WIDE:
            return self._store[query]
        if manager is None:
            return None
        if query.is_window:
            return self._counts.get((manager, query), 0.0)
        if query.name == "manager":
            return manager
        if query.name == "breaker":
            return self._breakers[manager, query.role][0]
        return level_of(self._agreed.get(manager), query.name, self._now_ms)

    def since(self, manager: str | None, test: LevelTest) -> int | None:
        """See `Observations.since`."""
        agreed = self._agreed.get(manager or "")
        if manager is None:
            return None
        if test.query.name == "breaker":
            return self._breaker_since(manager, test)
        if agreed is None:
            return None
        if test.query.name == "active_model":
            return agreed.since_ms or None
        if test.query.name == "override_active" and test.holds(True):
            return queries.override_started(self._connection, manager)
        return None

    def _store_wide(self, query: Query) -> Value:
        live = self._live
        match query.name:
            case "instances":
                return float(len(live))
            case "agreement_age":
                return self._agreement_age(live)
            case "agreement_regressed":
                return float(self._regressed(live))
            case "recorder_queue":
                return float(sum(beat.gauges.get("queue_length") or 0 for beat in live))
            case "receivers_stopped":
                return float(len(self._marks))
            case "outbox_age":
                oldest = queries.oldest_due(self._connection, LETTERS_LAST_MS)
                return 0.0 if oldest is None else max(0.0, (self._now_ms - oldest) / 1000)
            case "dead_letters":
                start = self._now_ms - round(query.seconds * 1000)
                return float(len(self._dead) - bisect_right(self._dead, start))
        return None

    def _agreement_age(self, live: Sequence[InstanceRow]) -> float | None:
        """Seconds since the agreement was last confirmed, of the instance for which it is longest ago.

        What an instance wrote is taken from its own clock's time of writing, which may be minutes away from ours.
        """
        ages = []
        for beat in live:
            read, said = beat.gauges.get("agreement_ms"), beat.gauges.get("at_ms", beat.updated_ms)
            if read is not None:
                ages.append(max(0.0, (said - read) / 1000) + max(0.0, (self._now_ms - beat.updated_ms) / 1000))
        return max(ages, default=None)

    def _regressed(self, live: Sequence[InstanceRow]) -> int:
        """How many instances have lately found that the coordinator had gone back in time."""
        found = 0
        for beat in live:
            when, said = beat.gauges.get("regressed_ms"), beat.gauges.get("at_ms", beat.updated_ms)
            found += when is not None and said - when < REGRESSED_FOR_MS
        return found

    def _windows(self, asked: Sequence[Query], feed: Feed) -> Iterator[tuple[str, list[Query], Groups]]:
        """The groups of every window that is asked for, for each manager, with those who ask."""
        by_window: dict[float, list[Query]] = defaultdict(list)
        for query in asked:
            by_window[query.seconds].append(query)
        cut = plan(by_window, self._now_ms)
        table = self._shelf.fetch(feed, self._connection, cut.spans)
        for manager in self._managers:
            for seconds, those in by_window.items():
                groups = [
                    group if sign > 0 else (group[0], tuple(-amount for amount in group[1]))
                    for part, sign in cut.parts[seconds]
                    for group in table.get((manager, part), ())
                ]
                yield manager, those, groups

    def _read(self, source: Source) -> None:
        for manager, those, groups in self._windows(source.asked, source.feed):
            for query in those:
                self._counts[manager, query] = source.value(query, groups)

    def _read_latency(self, asked: Sequence[Query]) -> None:
        """Percentiles; those that differ in their share alone have one histogram."""
        for manager, those, groups in self._windows(asked, queries.LATENCY):
            merged: dict[tuple[str, str], list[tuple[int, int]]] = {}
            for query in those:
                metric, share = PERCENTILES[query.name]
                key = (metric, query.role)
                if key not in merged:
                    merged[key] = _merged(groups, metric, query.role)
                middle = quantile(merged[key], share)
                self._counts[manager, query] = None if middle is None else middle / 1000

    def _read_ramp_aborts(self, asked: Sequence[Query]) -> None:
        """Ramps are few: they are read as they are."""
        if not asked:
            return
        starts = {query: self._now_ms - round(query.seconds * 1000) for query in asked}
        found = queries.ramp_aborts(self._connection, self._managers, min(starts.values()) + 1, self._now_ms + 1)
        for manager in self._managers:
            for query, start in starts.items():
                self._counts[manager, query] = float(sum(who == manager and ts > start for who, ts in found))

    def _read_trips(self, asked: Sequence[Query]) -> None:
        """Trips are few, too; the breaker that tripped most often counts, not how many processes there are."""
        if not asked:
            return
        starts = {query: self._now_ms - round(query.seconds * 1000) for query in asked}
        found = queries.breaker_trips(self._connection, self._managers, min(starts.values()) + 1, self._now_ms + 1)
        for query, start in starts.items():
            every = Counter((who, at, role) for who, at, role, ts in found if ts > start and query.role in ("", role))
            for manager in self._managers:
                self._counts[manager, query] = float(
                    max((n for key, n in every.items() if key[0] == manager), default=0)
                )

    def _read_dead_letters(self, asked: Iterable[Query]) -> list[int]:
        """When those of the longest window were given up."""
        longest = max((query.seconds for query in asked if query.name == "dead_letters"), default=0.0)
        start = self._now_ms - round(longest * 1000)
        return queries.dead_letters(self._connection, start, self._now_ms) if longest else []

    def _breaker(self, manager: str, role: str) -> tuple[str, frozenset[str]]:
        """The state of a breaker over all live instances, and which instances those are."""
        states: dict[str, str] = {}
        for beat in self._live:
            line = beat.gauges.get("managers", {}).get(manager, {}).get("lines", {}).get(role)
            if isinstance(line, dict) and line.get("state") in BREAKER_STATES:
                states[beat.instance] = line["state"]
        for _, instance, _, to_state in reversed(queries.breaker_history(self._connection, manager, role, 200)):
            if instance in states:
                states[instance] = to_state
        return together(states.values()), frozenset(states)

    def _breaker_since(self, manager: str, test: LevelTest) -> int | None:
        """Walk the recorded changes backwards for as long as the test holds."""
        _, live = self._breakers[manager, test.query.role]
        return breaker_since(queries.breaker_history(self._connection, manager, test.query.role), live, test)


def breaker_since(history: Iterable[tuple[int, str, str, str]], live: Collection[str], test: LevelTest) -> int | None:
    """Since when the breakers of some instances together have fulfilled a test, as far as it is recorded.

    Args:
        history: Changes, newest first: time, instance, from, to.
        live: The instances that count.
        test: What the state of all fulfils now.
    """
    states = dict.fromkeys(live, "closed")
    rows = [row for row in history if row[1] in live]
    for _, instance, _, to_state in reversed(rows):
        states[instance] = to_state
    since = None
    for ts_ms, instance, from_state, _ in rows:
        if not test.holds(together(states.values())):
            break
        since = ts_ms
        states[instance] = from_state
    else:
        return since if not rows or not test.holds(together(states.values())) else None
    return since


def level_of(agreed: Agreed | None, name: str, now_ms: int) -> Value:
    """A level that is agreed: the active model, the ratio of traffic, or whether an override is on."""
    if name == "override_active":
        override = agreed.override if agreed else None
        return override is not None and override.get("expires_ms", 0) > now_ms
    if agreed is None:
        return None
    return agreed.active if name == "active_model" else float(agreed.share)


def together(states: Iterable[str]) -> str:
    """One state for many instances' breakers: the worst that at least half of them are in, or worse than."""
    known = list(states)
    for worst in SEVERITY:
        bad = SEVERITY[: SEVERITY.index(worst) + 1]
        if 2 * sum(state in bad for state in known) >= len(known) > 0:
            return worst
    return "closed"


NANO = 9
"""Decimals of a cost: what is left of a dollar's rounding must not decide whether a threshold is exceeded."""

REGRESSED_FOR_MS = 300_000
"""Milliseconds that a coordinator which went back in time counts as news; it is put right within a second."""

_TRIED = frozenset({"errors", "error_rate", "cost_usd", "tokens"})
_STORE_WIDE = frozenset(
    {
        "instances",
        "agreement_age",
        "agreement_regressed",
        "recorder_queue",
        "receivers_stopped",
        "outbox_age",
        "dead_letters",
    }
)


@dataclass(frozen=True, slots=True)
class Source:
    """What some queries are answered from: sums of a feed, and the arithmetic on the groups of a window."""

    feed: Feed
    asked: Sequence[Query]
    value: Callable[[Query, Groups], float | None]


def sources(asked: Collection[Query]) -> list[Source]:
    """Where windows are answered from, for those that sums answer."""
    tried = [q for q in asked if q.name in _BY_ATTEMPTS or (q.role and q.name in _TRIED)]
    return [
        Source(queries.REQUESTS, _of(asked, _BY_REQUESTS), _request_value),
        Source(queries.ATTEMPTS, tried, _attempt_value),
        Source(queries.FAILOVERS, _of(asked, _BY_FAILOVERS), _failover_value),
        Source(queries.BREAKER_CHANGES, _of(asked, {"breaker_transitions"}), _breaker_value),
        Source(queries.LATENCY, _of(asked, PERCENTILES.keys()), _latency_value),
    ]


def _of(asked: Iterable[Query], names: Iterable[str]) -> list[Query]:
    names = frozenset(names)
    return sorted(query for query in asked if query.name in names and not (query.role and query.name in _TRIED))


def _request_value(query: Query, groups: Groups) -> float | None:
    """Keys are role, outcome, server's fault, synthetic; amounts number, tokens, USD."""
    ok = errors = requests = shed = secondary = tokens = cost = 0.0
    for (role, outcome, fault, synthetic), (n, used, paid) in groups:
        tokens += used
        cost += paid
        if synthetic or (query.role and query.role != role):
            continue
        requests += n
        shed += n if outcome == "shed" else 0
        errors += n if outcome == "error" and fault else 0
        ok += n if outcome == "ok" else 0
        secondary += n if outcome == "ok" and role == "secondary" else 0
    match query.name:
        case "error_rate":
            return errors / (ok + errors) if ok + errors else None
        case "secondary_share":
            return secondary / ok if ok else None
    plain = {"requests": requests, "errors": errors, "shed": shed, "tokens": tokens, "cost_usd": round(cost, NANO)}
    return plain[query.name]


def _attempt_value(query: Query, groups: Groups) -> float | None:
    """Keys are role, category, synthetic; amounts number, tokens, USD."""
    ok = failures = limited = auth = semantic = tokens = cost = 0.0
    for (role, category, synthetic), (n, used, paid) in groups:
        if query.role and query.role != role:
            continue
        tokens += used
        cost += paid
        auth += n if category == "auth" else 0
        semantic += n if category == "semantic" else 0
        if synthetic:
            continue
        limited += n if category in LIMITED else 0
        failures += n if category in FAILURES else 0
        ok += n if category == "ok" else 0
    if query.name == "error_rate":
        return failures / (ok + failures) if ok + failures else None
    return {
        "errors": failures,
        "rate_limited": limited,
        "auth_errors": auth,
        "semantic_failures": semantic,
        "tokens": tokens,
        "cost_usd": round(cost, NANO),
    }[query.name]


def _failover_value(query: Query, groups: Groups) -> float:
    """Keys are scope, from, to, cause; the amount is their number."""
    if query.name == "failovers":
        return float(sum(n for (*move, cause), (n,) in groups if move == ["active", *ROLES] and cause != "override"))
    return float(sum(n for (scope, role, *_), (n,) in groups if scope == "request" and query.role in ("", role)))


def _breaker_value(query: Query, groups: Groups) -> float:
    """The key is the role, the amount their number."""
    return float(sum(n for (role,), (n,) in groups if query.role in ("", role)))


def _merged(groups: Groups, metric: str, role: str) -> list[tuple[int, int]]:
    """One histogram of all for a metric and a role, empty for both."""
    roles = (role,) if role else ROLES
    return list(total(one for key, (one,) in groups if key[0] == metric and key[1] in roles).counts())


def _latency_value(query: Query, groups: Groups) -> float | None:
    """Keys are metric and role, the amount a histogram."""
    metric, share = PERCENTILES[query.name]
    middle = quantile(_merged(groups, metric, query.role), share)
    return None if middle is None else middle / 1000
