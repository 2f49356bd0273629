"""When a rule would have fired: an expression with its `for`, judged at moment after moment of the recorded past.

Compiler, arithmetic and evaluator are those of the tick; what differs is the resolution. Sums are known by the minute,
so rules with windows are judged once a minute (less often over weeks), rules about states alone at the interval of the
evaluator. The answer says at which resolution it looked and what could not be known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from alerts import queries
from alerts.evaluator import Alert, State, Timing, evaluate
from alerts.expression import EvaluationError, compile_expression
from alerts.judgement import observe
from alerts.observations import LETTERS_KEPT_MS, Observations
from alerts.past import Grid, Past, unit_of, unrecorded
from alerts.rules import Rule
from alerts.spans import MINUTE_MS
from alerts.syntax import Binary, Call, Name, Node, parse, walk
from alerts.vocabulary import LEVELS, WINDOWS, Kind, Scope
from engine.durations import describe
from engine.queries import created_ms
from engine.sqlite import Connection

STEPS_MS = tuple(minutes * MINUTE_MS for minutes in (1, 5, 15, 60, 360, 1440))
MOST_STEPS = 12_000
"""Steps with windows: eight days by the minute, forty by five minutes."""
MOST_LOOKS = 60_000
"""Steps without windows, which cost less."""
MOST_PIECES = 80_000
BUDGET_S = 20.0


LIMITS = {
    "breaker": "Which processes ran is not recorded: each counts from its first request to its last.",
    "receivers_stopped": "That a receiver was stopped is forgotten when it is told again: those that still are count.",
    "outbox_age": "What was replayed counts from then on, and not for what became of it before.",
}
"""What cannot be known of the past of some names."""
LETTERS = frozenset({"dead_letters", "outbox_age"})


class NoPreview(Exception):
    """The past of the expression is not known; the message says why."""


@dataclass(frozen=True, slots=True)
class Firing:
    """One time that the alert would have fired.

    Attributes:
        since_ms: When its condition began to hold.
        start_ms: When it would have fired.
        end_ms: When it would have been resolved; `None`: it would still fire.
        peak: The number it shows at its worst, if it shows one.
    """

    since_ms: int
    start_ms: int
    end_ms: int | None
    peak: float | None


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look found; `state` is the alert's after it."""

    ts_ms: int
    state: State
    value: float | None


@dataclass(frozen=True, slots=True)
class Preview:
    """What would have been.

    Attributes:
        from_ms: The first moment that was looked at.
        to_ms: The last.
        step_ms: Between two looks.
        firings: The oldest first.
        samples: What was found, in the order of time.
        limits: What it could not know, a sentence each.
    """

    from_ms: int
    to_ms: int
    step_ms: int
    firings: tuple[Firing, ...]
    samples: tuple[Sample, ...] = field(repr=False)
    limits: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The answer."""
        span = describe((self.to_ms - self.from_ms) / 1000)
        if not self.firings:
            return f"Would not have fired in the last {span}."
        times = {1: "once", 2: "twice"}.get(len(self.firings), f"{len(self.firings)} times")
        lasted = sum((one.end_ms or self.to_ms) - one.start_ms for one in self.firings)
        still = ", and would be firing now" if self.firings[-1].end_ms is None else ""
        return f"Would have fired {times} in the last {span}, for {describe(lasted / 1000)} together{still}."

    @property
    def looked(self) -> str:
        """At which resolution."""
        every = describe(self.step_ms / 1000)
        return f"Judged every {every}, {len(self.samples):,} times: what lasted less may not have been seen."


def preview(
    connection: Connection,
    rule: Rule,
    manager: str | None,
    from_ms: int,
    to_ms: int,
    *,
    every_s: float = 15.0,
    budget_s: float | None = BUDGET_S,
    kept_s: float = math.inf,
    progress: Callable[[float], None] = lambda _: None,
) -> Preview:
    """Judge a rule over the past.

    Args:
        connection: In a read transaction.
        rule: The rule; its `for`, `keep_firing_for` and `no_data` count.
        manager: For whom; `None` for a rule of the store.
        from_ms: Where to begin.
        to_ms: Where to end: the present.
        every_s: The interval of the evaluator, seconds.
        budget_s: Seconds after which it stops and says so.
        kept_s: How long raw rows are kept, seconds.
        progress: Is told the share that is done.

    Raises:
        NoPreview: Something it asks is not recorded.
    """
    if missing := unrecorded(rule.expression.queries):
        msg = (
            f"the past of {' and '.join(missing)} is not recorded: only the present value is known; when a rule about "
            "it has fired is in the history of alerts (`switchgear alerts history`)"
        )
        raise NoPreview(msg)
    limits: list[str] = []
    grid, shown = _grid(connection, rule, manager, (from_ms, to_ms), every_s, kept_s, limits)
    past = Past(connection, rule.expression.queries, manager, grid)
    deadline = None if budget_s is None else time.monotonic() + budget_s
    watch = _Watch(rule)
    for n, now_ms in enumerate(grid.moments()):
        if n % 64 == 0:
            progress((now_ms - grid.from_ms) / max(1, grid.to_ms - grid.from_ms))
            if deadline is not None and time.monotonic() > deadline:
                limits.append(f"It took too long and was stopped at {_utc(now_ms)}: ask for less time.")
                break
        past.move(now_ms)
        watch.look(past, manager, now_ms)
    progress(1.0)
    samples = tuple(sample for sample in watch.samples if sample.ts_ms >= shown)
    firings = tuple(one for one in watch.ended() if one.end_ms is None or one.end_ms >= shown)
    limits += watch.troubles()
    names = {query.name for query in rule.expression.queries}
    limits += [text for name, text in LIMITS.items() if name in names]
    last = samples[-1].ts_ms if samples else grid.to_ms
    return Preview(min(shown, last), last, grid.step_ms, firings, samples, tuple(limits))


def _grid(
    connection: Connection,
    rule: Rule,
    manager: str | None,
    span: tuple[int, int],
    every_s: float,
    kept_s: float,
    limits: list[str],
) -> tuple[Grid, int]:
    """The moments to judge at, as fine as it is recorded and can be afforded, and the first one that is shown.

    Before that it is judged for as long as `for` and `keep_firing_for` may last, so that what fires then does so for
    a reason; but not from before records begin.
    """
    from_ms, to_ms = span
    lengths = [round(query.seconds * 1000) for query in rule.expression.queries if query.is_window]
    longest = max(lengths, default=0)

    def known(since_ms: int) -> tuple[int, int | None]:
        step_ms = _step(to_ms - since_ms, every_s, windows=bool(lengths))
        raw = bool(unit_of(step_ms, lengths) % MINUTE_MS and lengths)
        begins = _begins(connection, rule, manager, longest, raw=raw)
        if LETTERS & {query.name for query in rule.expression.queries}:
            begins = max(to_ms - round(min(LETTERS_KEPT_MS, kept_s * 1000)) + longest, begins or 0)
        return step_ms, begins

    step_ms, begins = known(from_ms)
    if begins is not None and begins > from_ms:
        step_ms, begins = known(begins)  # for a short record the step of a long one is too coarse
    if begins is not None and begins > from_ms:
        limits.append(f"It begins at {_utc(begins)}: nothing it needs is kept from before.")
        from_ms = begins
    unit = unit_of(step_ms, lengths)
    if (to_ms - from_ms) // unit > MOST_PIECES:
        from_ms = to_ms - MOST_PIECES * unit
        limits.append(
            f"Windows of {describe(min(lengths) / 1000)} are too fine for more: it begins at {_utc(from_ms)}."
        )
    end = to_ms // step_ms * step_ms
    first = max(from_ms - rule.hold - rule.keep, begins or 0)
    return Grid(min(first // step_ms * step_ms, end - step_ms), end, step_ms), from_ms


def _step(span_ms: int, every_s: float, *, windows: bool) -> int:
    if not windows:
        every_ms = max(1000, round(every_s * 1000))
        if span_ms // every_ms <= MOST_LOOKS:
            return every_ms
    return next((step for step in STEPS_MS if span_ms // step <= MOST_STEPS), STEPS_MS[-1])


def _begins(connection: Connection, rule: Rule, manager: str | None, longest: int, *, raw: bool) -> int | None:
    """The first moment of which everything that is asked is known."""
    if manager is None:
        return created_ms(connection)
    known = queries.reach(connection, manager)
    names = {query.name for query in rule.expression.queries}
    first = [ms for ms in (known.sums_ms, known.agreed_ms) if ms is not None]
    begins = [min(first)] if first else []
    if (raw or "breaker" in names) and known.rows_ms is not None and known.rows_ms > min(first) + MINUTE_MS:
        begins.append(known.rows_ms + (longest if raw else 0))
    return max(begins, default=None)


class _Watch:
    """One alert, followed through the past."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._timing = Timing(rule.hold, rule.keep)
        self._worst = min if falls(rule.expression.text) else max
        self._alert = Alert()
        self._peak: float | None = None
        self._firings: list[Firing] = []
        self._errors: list[str] = []
        self.samples: list[Sample] = []

    def look(self, seen: Observations, manager: str | None, now_ms: int) -> None:
        try:
            found = observe(self._rule, manager, seen)
        except EvaluationError as error:
            self._errors.append(str(error))
            found = None
        if found is not None:
            before = self._alert
            self._alert, _ = evaluate(self._timing, before, found, now_ms)
            if found.met and found.value is not None:
                known = self._peak if before.met else None
                self._peak = found.value if known is None else self._worst(known, found.value)
            elif not before.met:
                self._peak = None
            self._note(before, now_ms)
        self.samples.append(Sample(now_ms, self._alert.state, found.value if found else None))

    def _note(self, before: Alert, now_ms: int) -> None:
        firing = self._alert.state is State.FIRING
        if firing and before.state is not State.FIRING:
            self._firings.append(Firing(self._alert.active_ms, now_ms, None, self._peak))
        elif before.state is State.FIRING:
            last = self._firings[-1]
            self._firings[-1] = Firing(last.since_ms, last.start_ms, None if firing else now_ms, self._peak)

    def ended(self) -> list[Firing]:
        return self._firings

    def troubles(self) -> Iterator[str]:
        if self._errors:
            yield f"It failed at {len(self._errors)} moments, which change nothing: {self._errors[0]}."


def falls(text: str) -> bool:
    """Whether an expression is about something that is bad when it is low: its worst value is the lowest."""
    for node in walk(parse(text)):
        if isinstance(node, Binary) and node.sign in ("<", "<=", ">", ">="):
            if _asks(node.left):
                return node.sign in ("<", "<=")
            if _asks(node.right):
                return node.sign in (">", ">=")
    return False


def _asks(node: Node) -> bool:
    return any(
        isinstance(part, Name | Call)
        and (part.name in WINDOWS or (part.name in LEVELS and LEVELS[part.name].kind is Kind.NUMBER))
        for part in walk(node)
    )


def draft(expression: str | Rule, hold_s: float | None = None) -> Rule:
    """What to preview: an expression as a rule, or a rule with another `for`.

    Args:
        expression: An expression, or a rule as it is.
        hold_s: `for` in seconds; `None` for that of the rule.

    Raises:
        SyntaxProblem: It is no expression.
    """
    rule = Rule("Preview", compile_expression(expression)) if isinstance(expression, str) else expression
    return rule if hold_s is None else replace(rule, hold=round(hold_s * 1000))


def whom(rule: Rule, manager: str) -> str | None:
    """For whom a rule is judged when a manager is looked at."""
    return None if rule.scope is Scope.STORE else manager


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
