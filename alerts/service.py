"""Everything about alerts that runs: rules, ticks, delivery, the watchdog. One call starts it, one stops it.

One evaluator per store works, by a lease; the others stand by and say so. Where machines have stores of their own, each
has its evaluator, for what only its store knows; what all of them see alike is announced by the one that has the
coordinator's lease as well. The watchdog is a thread of its own outside the scheduler, so that a scheduler that hangs
is noticed too. A process that stood still for a while hangs nowhere, but its leases may be another's by now: it asks
before it evaluates, and again when it commits.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum

from alerts import net, outbox, queries
from alerts.dispatcher import Dispatcher
from alerts.labels import fingerprint
from alerts.lease import Lease
from alerts.notices import Line, Notice, Reason, Status
from alerts.observations import LETTERS_KEPT_MS, FleetView
from alerts.queries import Agreed
from alerts.receivers import receivers_of
from alerts.rulebook import RuleBook
from alerts.rules import EVALUATOR_STALLED, RuleSet
from alerts.scheduler import EVALUATION, Duty, Scheduler
from alerts.tick import Overtaken, Ticker, TickReport
from engine import standstill
from engine.clock import Clock, SystemClock
from engine.config import Config
from engine.core.agreement import Document, DocumentError
from engine.core.errors import SwitchgearError
from engine.fleet.base import Coordinator, CoordinatorUnavailable
from engine.ids import new_id
from engine.queries import InstanceRow
from engine.recorder import Recorder
from engine.sqlite import Connection
from engine.turns import computing

log = logging.getLogger(__name__)

LEASE_TTL_S = 15.0
LEASE_RENEW_S = 5.0
STALLED_INTERVALS = 2.5
STALLED_MARK = "stalled evaluation"
STUCK_S = 10.0
"""Without a pulse for this long, or for as long as makes an evaluation stalled, something hangs."""
PULSE_S = 1.0
PRUNE_EVERY_S = 3600.0
HEARTBEAT_TIMEOUT_S = 10.0
FRESH_MS = 60_000
"""How long what the coordinator has just said of an instance counts."""


class Part(StrEnum):
    """What this process does about alerts."""

    EVALUATOR = "evaluator"
    STANDBY = "standby"


@dataclass(frozen=True, slots=True)
class AlertHealth:
    """How it is going.

    Attributes:
        ok: Whether everything that should run runs.
        part: Evaluator or standby.
        speaks: Whether what all machines see alike is announced here.
        reasons: What is not as it should be, a line each; may hold warnings while `ok`.
        last_tick_ms: When rules were last evaluated here, `None` for never.
        rules: How many are in force.
    """

    ok: bool
    part: Part
    reasons: tuple[str, ...]
    last_tick_ms: int | None
    rules: int
    speaks: bool = True

    @property
    def detail(self) -> str:
        """All of it in a line."""
        quiet = "" if self.speaks or self.part is Part.STANDBY else " of this machine, while another speaks for all"
        return "; ".join(self.reasons) or f"{self.part}{quiet}, {self.rules} rules in force"


def _agreed(manager: str, document: Document) -> Agreed:
    override = None if document.override is None else {"expires_ms": document.override.expires_ms}
    return Agreed(manager, str(document.active), document.share, document.since_ms, override, document.epoch)


class AlertService:
    """Evaluates, notifies and delivers for one process.

    Args:
        config: The configuration.
        recorder: Writes; shared with the engine.
        coordinator: Gives the evaluator's lease, and knows who is alive; `None`: this process is alone.
        owner: This process's name, the same as its instance in the fleet.
        local: Gives the lease of this store where the coordinator is one of machines with stores of their own.
        host: The label `host` of what only this machine's store knows, so that others may have the same alert.
        clock: Both clocks.
        duties: More that runs on the same scheduler, such as canaries and retention.
        environ: Where addresses and secrets are.

    Raises:
        ConfigurationError: A receiver cannot be read.
    """

    def __init__(
        self,
        config: Config,
        recorder: Recorder,
        coordinator: Coordinator | None = None,
        owner: str = "",
        *,
        local: Coordinator | None = None,
        host: str = "",
        clock: Clock | None = None,
        duties: Sequence[Duty] = (),
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._config = config
        self._recorder = recorder
        self._coordinator = coordinator
        self._owner = owner or new_id()
        self._clock = clock or SystemClock()
        self._interval = config.alerts.evaluate_every
        self.receivers = receivers_of(config, environ)
        self._host = host if local is not None else ""
        self.rules = RuleBook(config.alert_rules_path, self._host)
        self._voice = Lease(coordinator, self._owner)
        self._lease = self._voice if local is None else Lease(local, self._owner)
        self._base_url = config.dashboard_url
        self._heartbeat_url = environ.get(config.alerts.heartbeat_url_env) if config.alerts.heartbeat_url_env else None
        self.ticker = Ticker(
            recorder,
            self._clock,
            tuple(config.managers),
            self.receivers,
            self._base_url,
            self._owner,
            self._fleet,
            lambda: self._voice.held,
            lambda: not (self._lease.stale or self._voice.stale),
        )
        self.dispatcher = Dispatcher(recorder, self._clock, self.receivers, f"{self._owner} {new_id()}")
        self.scheduler = Scheduler((*self._own_duties(), *duties))
        self._stop = threading.Event()
        self._watchdog: threading.Thread | None = None
        self._part = Part.STANDBY
        self._stalled_ms: int | None = None
        self._telling: Future[None] | None = None
        self._started: float | None = None
        self._pulsed: float | None = None
        self._leading = threading.Lock()
        self._renew_at = 0.0
        self._last_tick: float | None = None
        self._last_tick_ms: int | None = None
        self._due_ms: int | None = None
        self._trouble = ""
        self._failing: Mapping[str, str] = {}

    def start(self) -> None:
        """Read the rules and begin; a rule file with mistakes is reported and its good rules are used."""
        standstill.watch()
        self._started = standstill.awake()
        self.rules.refresh()
        for receiver in self.receivers:
            if receiver.lacks:
                log.error("receiver %s: %s", receiver.name, receiver.lacks)
        self._lead()
        self.dispatcher.start()
        self.scheduler.start()
        self._watchdog = threading.Thread(target=self._watch, name="switchgear-watchdog", daemon=True)
        self._watchdog.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End everything within about so many seconds; what is not delivered is delivered after the next start."""
        self._stop.set()
        self.scheduler.stop(timeout)
        self.dispatcher.stop(timeout)
        if self._watchdog is not None:
            self._watchdog.join(1.0)

    def health(self) -> AlertHealth:
        """How it is going, for /readyz and the dashboard."""
        reasons: list[str] = []
        stalled = self._is_stalled()
        if stalled:
            reasons.append(f"alert rules were not evaluated for {STALLED_INTERVALS:g} intervals")
        stuck = self._is_stuck()
        if stuck:
            reasons.append("alerts have no pulse: their scheduler or the coordinator hangs")
        if self._trouble:
            reasons.append(self._trouble)
        reasons += [str(problem) for problem in self.rules.current.problems]
        reasons += [f"receiver {receiver.name}: {receiver.lacks}" for receiver in self.receivers if receiver.lacks]
        reasons += [f"rule {name} fails: {error}" for name, error in self._failing.items()]
        running = self._started is not None and not self._stop.is_set()
        if not running:
            reasons.append("alerts are not running")
        return AlertHealth(
            running and not stalled and not stuck,
            self._part,
            tuple(reasons),
            self._last_tick_ms,
            len(self.rules.current.rules),
            self._voice.held,
        )

    def _own_duties(self) -> list[Duty]:
        duties = [
            Duty("alerts.tick", self._interval, self._tick, EVALUATION),
            Duty("alerts.pulse", PULSE_S, self._pulse),
            Duty("alerts.prune", PRUNE_EVERY_S, self._prune, at_once=False),
        ]
        if self._heartbeat_url:
            duties.append(Duty("alerts.heartbeat", self._interval, self._heartbeat, at_once=False))
        return duties

    def _tick(self) -> None:
        self._lead()
        if self._part is Part.EVALUATOR:
            self._run(self.rules.refresh())
        else:
            self.rules.refresh()

    def _pulse(self) -> None:
        if not self._is_stalled():  # else the lease runs out, and another one may try
            self._lead()
        due_ms = self._due_ms
        if self._part is Part.EVALUATOR and due_ms is not None and due_ms <= self._clock.wall_ms():
            self._run(None)
        self._pulsed = standstill.awake()

    def _run(self, rules: RuleSet | None) -> None:
        try:
            with computing():
                report = self.ticker.tick(None) if rules is None else self.ticker.tick(rules.rules, rules.lost)
        except Overtaken:
            log.info("another evaluator was faster; this tick wrote nothing")
            return
        except SwitchgearError as error:
            self._trouble = f"alert rules cannot be evaluated: {error}"
            log.warning("%s", self._trouble)
            return
        self._note(report, evaluated=rules is not None)

    def _note(self, report: TickReport, *, evaluated: bool) -> None:
        self._trouble = ""
        self._due_ms = report.due_ms
        if evaluated:
            self._failing = report.errors
            self._last_tick = standstill.awake()
            self._last_tick_ms = report.now_ms
        if report.notices:
            self.dispatcher.wake()

    def _lead(self) -> None:
        """Take, renew or lose the evaluator's part, unless that was done a moment ago."""
        with self._leading:
            now = standstill.now()
            if now < self._renew_at:
                return
            self._renew_at = now + LEASE_RENEW_S
            mine = self._lease.renew(LEASE_TTL_S)
            if mine and self._voice is not self._lease and self._voice.held is not self._voice.renew(LEASE_TTL_S):
                log.info("this machine now %s for the fleet", "speaks" if self._voice.held else "does not speak")
            self._become(Part.EVALUATOR if mine else Part.STANDBY)

    def _become(self, part: Part) -> None:
        if part is not self._part:
            log.info("this process is now the %s of alerts", part)
            self._part = part
            if part is Part.EVALUATOR:
                self._started = standstill.awake()
                self._last_tick = None
                self._stalled_ms = self._told_stalled()
                if not self._config.stands_in:  # for receivers that it does not know
                    self._recorder.execute(self._tidy)
        self.dispatcher.activate(active=part is Part.EVALUATOR)

    def _tidy(self, connection: Connection) -> None:
        if left := outbox.tidy(connection, self.receivers, self._clock.wall_ms()):
            log.warning("%d notifications are left: their receivers are configured no more", left)

    def _told_stalled(self) -> int | None:
        """Since when receivers believe that evaluation has stalled, so that a restart tells them it has not."""
        try:
            with self._recorder.store.reader() as connection:
                mark = queries.marks(connection, STALLED_MARK).get(STALLED_MARK)
        except SwitchgearError:
            return None
        return mark[0] if mark else None

    def _fleet(self) -> FleetView | None:
        if self._coordinator is None:
            return None
        try:
            members = self._coordinator.members()
            documents = {name: self._coordinator.read(name) for name in self._config.managers}
        except (CoordinatorUnavailable, DocumentError):
            return None
        now_ms = self._clock.wall_ms()
        beats = [
            InstanceRow(one.instance, one.host, one.version, one.started_ms, now_ms, FRESH_MS, one.gauges)
            for one in members
            if one.alive
        ]
        return FleetView(beats, [_agreed(name, document) for name, document in documents.items() if document])

    def _is_stalled(self) -> bool:
        if self._part is not Part.EVALUATOR or self._started is None or self._stop.is_set():
            return False
        since = self._last_tick if self._last_tick is not None else self._started
        return standstill.awake() - since > STALLED_INTERVALS * self._interval

    def _is_stuck(self) -> bool:
        """Whether the pulse hangs, by which a process that stands by would take over."""
        if self._started is None or self._stop.is_set():
            return False
        since = self._started if self._pulsed is None else max(self._pulsed, self._started)
        return standstill.awake() - since > max(STUCK_S, STALLED_INTERVALS * self._interval)

    def _watch(self) -> None:
        """The watchdog: tells receivers by itself, because whoever else would is what has stalled."""
        while not self._stop.wait(min(PULSE_S, self._interval / 4)):
            self.scheduler.mind_the_clock()
            stalled = self._is_stalled()
            proven = stalled or self._last_tick is not None
            if self._part is not Part.EVALUATOR or stalled is (self._stalled_ms is not None) or not proven:
                continue
            if self._telling is None or self._telling.done():
                now_ms = self._clock.wall_ms()
                self._telling = self._tell_stalled(self._stalled_ms or now_ms, None if stalled else now_ms, now_ms)

    def _tell_stalled(self, began_ms: int, ended_ms: int | None, now_ms: int) -> Future[None]:
        """Tell everybody; only what is committed counts as told, so what the store did not take is told later."""
        labels = {"alertname": EVALUATOR_STALLED, "severity": "critical"} | ({"host": self._host} if self._host else {})
        texts = {"summary": "alert rules are not evaluated: restart Switchgear and look at its log"}
        status = Status.FIRING if ended_ms is None else Status.RESOLVED
        line = Line(status, labels, texts, began_ms, ended_ms, fingerprint(labels))
        letters = []
        for receiver in self.receivers:
            if all(matcher.matches(labels) for matcher in receiver.audience.matchers):
                group = {"alertname": EVALUATOR_STALLED}
                notice = Notice(receiver.name, Reason.FIRST, group, (line,), self._base_url, now_ms)
                letters += outbox.letters(receiver, notice)

        def write(connection: Connection) -> None:
            for letter in letters:
                outbox.put(connection, letter)
            if ended_ms is None:
                queries.set_mark(connection, STALLED_MARK, began_ms)
            else:
                queries.drop_mark(connection, STALLED_MARK)

        def told(future: Future[None]) -> None:
            if future.exception() is None:
                log.error("the evaluator of alerts %s", "has stalled" if ended_ms is None else "goes on")
                self._stalled_ms = began_ms if ended_ms is None else None
                self.dispatcher.wake()

        telling = self._recorder.execute(write, durable=True)
        telling.add_done_callback(told)
        return telling

    def _prune(self) -> None:
        before_ms = self._clock.wall_ms() - LETTERS_KEPT_MS
        while self._part is Part.EVALUATOR and not self._stop.is_set():
            if not self._recorder.execute(lambda connection: queries.prune(connection, before_ms)).result(30):
                return

    def _heartbeat(self) -> None:
        """Tell a dead-man's-switch service that rules are evaluated."""
        if (
            self._part is Part.EVALUATOR
            and self._voice.held
            and self._heartbeat_url
            and self._last_tick
            and not self._is_stalled()
        ):
            try:
                answer = net.post(
                    self._heartbeat_url,
                    b"",
                    {},
                    allow_private=self._config.alerts.heartbeat_allow_private,
                    method="GET",
                    timeout=HEARTBEAT_TIMEOUT_S,
                )
            except net.Refused as error:
                log.warning("the heartbeat is not sent: %s (here it is alerts.heartbeat_allow_private)", error)
            except net.Unreachable as error:
                log.warning("the heartbeat was not heard: %s", error)
            else:
                if answer.status >= 300:
                    log.warning("the heartbeat was answered %d", answer.status)
