"""One tick: read what rules ask, judge them, decide who is told, and commit it all in one transaction.

Guarantees: an alert's transition, its new state and what receivers are told about it are committed together or not
at all; a tick that was overtaken by another evaluator commits nothing; a stepped wall clock changes no duration.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from alerts import outbox, queries, silences
from alerts.grouping import Round, decide_all
from alerts.judgement import Judged, Transition, judge
from alerts.memory import Remembered, from_rows
from alerts.notices import Notice
from alerts.observations import FleetView, Reading
from alerts.receivers import Receiver
from alerts.rules import Rule
from alerts.shelf import Shelf
from engine.clock import Clock
from engine.ids import new_id
from engine.recorder import Recorder
from engine.sqlite import Connection

log = logging.getLogger(__name__)

EVALUATION_MARK = "evaluation"
STEP_MS = 5_000
COMMIT_TIMEOUT_S = 30.0


Mark = tuple[int, str]
"""When rules were last evaluated in a store, and which tick wrote to it last."""


class Overtaken(Exception):
    """Another evaluator committed since this tick read the store, or is free to."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """Both clocks at the last tick of this process, and the mark that stood after it."""

    mark: Mark | None
    now_ms: int
    monotonic: float


@dataclass(frozen=True, slots=True)
class TickReport:
    """What a tick did: its time, transitions, notices, and when the next notice is due."""

    now_ms: int
    transitions: tuple[Transition, ...] = ()
    notices: tuple[Notice, ...] = ()
    due_ms: int | None = None
    errors: Mapping[str, str] = field(default_factory=dict)


class Ticker:
    """Runs ticks against a store.

    Args:
        recorder: Writes; its store is read.
        clock: Both clocks.
        managers: Whom rules are evaluated for.
        receivers: Who may be told.
        base_url: What links begin with.
        owner: This evaluator's name.
        fleet: What the coordinator says; `None` when it cannot be asked.
        speaks: Whether this one announces what every machine of a fleet sees alike.
        leads: Whether this process is still the evaluator; asked when a tick is about to be committed.
    """

    def __init__(
        self,
        recorder: Recorder,
        clock: Clock,
        managers: Sequence[str],
        receivers: Sequence[Receiver],
        base_url: str,
        owner: str,
        fleet: Callable[[], FleetView | None] = lambda: None,
        speaks: Callable[[], bool] = lambda: True,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._managers = tuple(managers)
        self.receivers = tuple(receivers)
        self._base_url = base_url
        self._owner = owner
        self._fleet = fleet
        self._speaks = speaks
        self._leads = leads
        self._last: _Reference | None = None
        self._turn = threading.Lock()
        self._shelf = Shelf()

    def tick(self, rules: Sequence[Rule] | None, lost: Callable[[str], bool] = lambda _: False) -> TickReport:
        """Evaluate and notify.

        Args:
            rules: The rules in force; `None` only notifies, from what the last evaluation found.
            lost: Whether a rule of a name cannot be read: its alerts stay as they are.

        Raises:
            Overtaken: Another evaluator was faster; nothing was written.
            engine.core.errors.StoreUnavailable: The store cannot be read or written.
        """
        with self._turn:
            return self._tick(rules, lost)

    def _tick(self, rules: Sequence[Rule] | None, lost: Callable[[str], bool]) -> TickReport:
        now_ms = self._clock.wall_ms()
        fleet = self._fleet() if rules is not None else None
        with self._recorder.store.reader() as connection:
            mark = queries.marks(connection, EVALUATION_MARK).get(EVALUATION_MARK)
            monotonic = self._clock.monotonic()
            shift_ms = self._stepped(now_ms, monotonic, mark)
            before = from_rows(queries.alert_states(connection))
            memory = {mark: self._current(one, shift_ms) for mark, one in before.items()}
            judged = Judged(memory)
            if rules is not None:
                asked = frozenset(query for rule in rules for query in rule.expression.queries)
                reading = Reading(connection, asked, self._managers, now_ms, fleet, self._shelf)
                judged = judge(rules, self._managers, memory, reading, now_ms, lost)
            round_ = self._decide(connection, judged.memory, now_ms, shift_ms)
        mark = self._commit(before, judged, round_, mark, now_ms, shift_ms, evaluated=rules is not None)
        self._last = _Reference(mark, now_ms, monotonic)
        errors = {f"{one.rule} {one.manager or ''}".strip(): one.error for one in round_.memory.values() if one.errors}
        return TickReport(now_ms, judged.transitions, round_.notices, round_.due_ms, errors)

    def _current(self, one: Remembered, shift_ms: int) -> Remembered:
        """What is remembered, without receivers that are no more and on the clock that is."""
        names = {receiver.name for receiver in self.receivers}
        if not one.told.keys() <= names:
            one = replace(one, told={name: told for name, told in one.told.items() if name in names})
        return one.shifted(shift_ms) if shift_ms else one

    def _stepped(self, now_ms: int, monotonic: float, mark: Mark | None) -> int:
        """By how much the wall clock was stepped since the last tick, 0 for a mere drift.

        A process that did not make the last tick itself knows of it what is recorded: it cannot be in the future. What
        this process saw before that is no measure, as the other one has moved everything by the steps until then.
        """
        last = self._last
        if last is not None and last.mark == mark:
            shift_ms = round((now_ms - last.now_ms) - (monotonic - last.monotonic) * 1000)
        else:
            shift_ms = min(0, now_ms - mark[0]) if mark is not None else 0
        if abs(shift_ms) < STEP_MS:
            return 0
        log.warning("the wall clock was stepped by %.1f s: durations of alerts go on as they were", shift_ms / 1000)
        return shift_ms

    def _decide(self, connection: Connection, memory: Mapping[str, Remembered], now_ms: int, shift_ms: int) -> Round:
        stopped = outbox.stopped(connection, self.receivers)
        audiences = [receiver.audience for receiver in self.receivers if receiver.name not in stopped]
        labels = {mark: one.labels for mark, one in memory.items()}
        then_ms = now_ms - shift_ms  # silences are moved with the commit
        quiet = silences.silenced(silences.read(connection, then_ms), labels, then_ms)
        if not self._speaks():  # as if silenced: nothing is announced here, and what was is ended here
            quiet |= {mark for mark, one in memory.items() if one.fleet}

        def may_repeat(notice: Notice) -> bool:
            return not queries.waiting(connection, notice.receiver, notice.key)

        return decide_all(audiences, memory, quiet, now_ms, self._base_url, may_repeat)

    def _commit(
        self,
        before: Mapping[str, Remembered],
        judged: Judged,
        round_: Round,
        mark: Mark | None,
        now_ms: int,
        shift_ms: int,
        *,
        evaluated: bool,
    ) -> Mark | None:
        """Write what a tick found, if it found anything; returns the mark that stands after it."""
        changed = [one.row() for mark_, one in round_.memory.items() if one != before.get(mark_)]
        gone = [mark_ for mark_ in before if mark_ not in round_.memory]
        if not (evaluated or changed or gone or round_.notices or shift_ms):
            return mark
        after = now_ms if evaluated or mark is None else mark[0], f"{self._owner} {new_id()}"
        letters = [
            letter for notice in round_.notices for letter in outbox.letters(self._receiver(notice.receiver), notice)
        ]

        def write(connection: Connection) -> None:
            if not self._leads() or queries.marks(connection, EVALUATION_MARK).get(EVALUATION_MARK) != mark:
                raise Overtaken
            if shift_ms:
                outbox.shift(connection, shift_ms)
                queries.shift_silences(connection, shift_ms, now_ms - shift_ms)
            for row in changed:
                queries.save_alert(connection, row)
            for fingerprint in gone:
                queries.forget_alert(connection, fingerprint)
            for transition in judged.transitions:
                queries.add_transition(connection, transition.row(new_id()))
            for letter in letters:
                outbox.put(connection, letter)
            queries.set_mark(connection, EVALUATION_MARK, *after)

        self._recorder.execute(write, durable=bool(judged.transitions or letters)).result(COMMIT_TIMEOUT_S)
        return after

    def _receiver(self, name: str) -> Receiver:
        return next(receiver for receiver in self.receivers if receiver.name == name)
