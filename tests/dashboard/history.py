"""A day in the life of one manager, written through the real recorder: traffic, an outage, a storm of 429s, flapping.

The pages, their tests and the screenshots are tried on it. `Moment.DURING` leaves the last outage open, so that the
secondary is serving and an alert is firing.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from alerts.rules import read_rules
from alerts.template import Facts, expand
from engine.core.agreement import Document, Opinion, Override, Verdict, Vote
from engine.core.events import (
    AttemptRecord,
    BreakerRecord,
    FailoverRecord,
    OverrideRecord,
    Record,
    RequestOutcome,
    RequestRecord,
    Scope,
)
from engine.core.messages import Role
from engine.ids import IdSource, time_of
from engine.recorder import Recorder
from engine.shipped import shipped
from engine.sqlite import Connection, sqlite3
from engine.store import Store

MINUTE = 60_000
HOUR = 60 * MINUTE
MANAGER = "chat"
INSTANCE = "web-1/4711"
HOSTS = {INSTANCE: "web-1", "web-2/812": "web-2"}
MODELS = {"primary": "gemini-2.5-pro", "secondary": "gemini-2.5-flash"}
PRICES = {"primary": (1.25, 10.0), "secondary": (0.30, 2.50)}
"""USD per million tokens in and out."""

CONFIG = """
[server]
port = {gateway_port}
[dashboard]
port = {port}
[store]
url = "sqlite:///switchgear.db"
[providers.gemini]
kind = "simulated"
[models.pro]
provider = "gemini"
name = "gemini-2.5-pro"
[models.flash]
provider = "gemini"
name = "gemini-2.5-flash"
[managers.chat]
primary = "pro"
secondary = "flash"
[[alerts.receivers]]
name = "ops"
kind = "webhook"
url = "https://hooks.example.com/switchgear"
[[alerts.receivers]]
name = "chat-room"
kind = "slack"
url_env = "SLACK_WEBHOOK"
"""


RULES = {rule.alert: rule for rule in read_rules(shipped("alerts.toml")).rules}


def said(rule: str, now_ms: int, active_ms: int, value: float | None = None) -> dict[str, str]:
    """The annotations of an alert, as the evaluator fills them."""
    facts = Facts({"alertname": rule, "manager": MANAGER}, value, active_ms, now_ms)
    return {name: expand(text, facts) for name, text in RULES[rule].annotations.items()}


def remembered(rule: str, now_ms: int, active_ms: int, value: float | None = None) -> str:
    """What is remembered of an alert, as far as a page reads it."""
    return json.dumps({"annotations": said(rule, now_ms, active_ms, value)})


PINNED_FOR = 12 * MINUTE
"""Long enough for alerts about it to be pending, too short for them to fire."""


class Moment(StrEnum):
    """When the page is looked at."""

    EMPTY = "empty"
    CALM = "calm"
    DURING = "during"
    PINNED = "pinned"


@dataclass(frozen=True)
class Outage:
    """Primary fails in this way from `start` to `end`; `moved` and `back` are the moves of the active model."""

    start: int
    end: int
    moved: int
    back: int
    category: str
    status: int | None
    error: str


def write_config(folder: Path, port: int = 8501, gateway_port: int = 8080) -> Path:
    """A configuration with its store beside it."""
    path = folder / "switchgear.toml"
    path.write_text(CONFIG.format(port=port, gateway_port=gateway_port), encoding="utf-8")
    return path


def write_history(path: Path, now_ms: int, moment: Moment = Moment.CALM, *, every_ms: int = 6_000) -> None:
    """Fill a new store.

    Args:
        path: The database file.
        now_ms: The end of the day.
        moment: What is going on at its end.
        every_ms: Distance of two requests.
    """
    store = Store(path).open()
    if moment is Moment.EMPTY:
        return
    recorder = Recorder(store, durability="batch")
    day = Day(now_ms, moment, every_ms)
    batch: list[Record] = []
    for record in day.records():
        batch.append(record)
        if len(batch) >= 200:
            recorder.submit(batch)
            batch = []
    recorder.submit(batch)
    recorder.execute(day.write_state).result(30)
    recorder.close()


@contextmanager
def heartbeat(path: Path) -> Iterator[None]:
    """Keep the instance of the history alive, as a gateway beside the dashboard would."""
    stopped = threading.Event()

    def beat() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            while not stopped.wait(0.5):
                now = time.time_ns() // 1_000_000
                connection.execute("UPDATE instances SET updated_ms = ?", [now])
                connection.execute("UPDATE fleet_votes SET updated_ms = ?", [now])
                connection.execute("UPDATE marks SET ts_ms = ?", [now - 3_000])

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


class Day:
    """Makes the records, in order."""

    def __init__(self, now_ms: int, moment: Moment, every_ms: int) -> None:
        self.now = now_ms
        self.moment = moment
        self.every = every_ms
        self.rng = random.Random(7)
        self.at = now_ms
        self.new_id = IdSource(lambda: self.at, self.rng.getrandbits)
        self.epoch = 1
        self.documents: list[tuple[int, Document]] = []
        self.failed_ids: list[str] = []
        day = now_ms - 24 * HOUR
        self.outages = [
            Outage(
                day + 4 * HOUR,
                day + 4 * HOUR + 11 * MINUTE,
                day + 4 * HOUR + 26_000,
                day + 4 * HOUR + 14 * MINUTE,
                "server_error",
                503,
                "UNAVAILABLE: The model is overloaded. Please try again later.",
            ),
            Outage(
                day + 15 * HOUR,
                day + 15 * HOUR + 3 * MINUTE,
                day + 15 * HOUR + 41_000,
                day + 15 * HOUR + 5 * MINUTE,
                "timeout",
                None,
                "no first token within 30 s",
            ),
            Outage(
                day + 15 * HOUR + 8 * MINUTE,
                day + 15 * HOUR + 10 * MINUTE,
                day + 15 * HOUR + 8 * MINUTE + 39_000,
                day + 15 * HOUR + 14 * MINUTE,
                "timeout",
                None,
                "no first token within 30 s",
            ),
        ]
        if moment is Moment.DURING:
            start = now_ms - 17 * MINUTE - 30_000
            self.outages.append(
                Outage(
                    start,
                    now_ms + HOUR,
                    start + 26_000,
                    now_ms + HOUR,
                    "server_error",
                    503,
                    "UNAVAILABLE: The model is overloaded. Please try again later.",
                )
            )
        self.storm = (day + 19 * HOUR, day + 19 * HOUR + 20 * MINUTE)

    # ---- records

    def records(self) -> Iterator[Record]:
        """Everything the recorder writes, in the order of time."""
        self.at = self.now - 24 * HOUR
        self._agree(Document(1, since_ms=self.at, cause="start"))
        moves = sorted(self._moves(), key=lambda move: move[0])
        while self.at < self.now - 2_000:
            self.at += int(self.every * self.rng.uniform(0.6, 1.4))
            while moves and moves[0][0] <= self.at:
                _, make = moves.pop(0)
                yield from make()
            yield self._request()

    def _moves(self) -> list[tuple[int, Any]]:
        moves: list[tuple[int, Any]] = []
        for outage in self.outages:
            moves.append((outage.moved - 1_000, lambda o=outage: self._trip(o)))
            moves.append((outage.moved, lambda o=outage: self._move("primary", "secondary", "quorum", o)))
            probe = outage.moved + 15_000
            while probe < min(outage.end, self.now):
                moves.append((probe, lambda o=outage: self._reopen(o)))
                probe += 30_000
            if outage.back < self.now:
                moves.append((outage.end + 20_000, lambda o=outage: self._close(o)))
                for n, share in enumerate((0.1, 0.25, 0.5)):
                    moves.append((outage.back - (3 - n) * 18_000, lambda s=share, n=n: self._stage(s, n)))
                moves.append((outage.back, lambda o=outage: self._move("secondary", "primary", "failback", o)))
        start = self.now - 24 * HOUR
        for hours, action, role, reason, actor in (
            (9.0, "set", "secondary", "Checking answers of flash before the launch", "ana"),
            (9.4, "clear", None, "Looks fine, back to automatic", "ana"),
        ):
            moves.append(
                (start + int(hours * HOUR), lambda a=action, r=role, w=reason, by=actor: self._act(a, r, w, by))
            )
        if self.moment is Moment.PINNED:
            moves.append(
                (
                    self.now - PINNED_FOR,
                    lambda: self._act("set", "secondary", "Provider maintenance until 04:00", "ana"),
                )
            )
        return moves

    def _outage(self) -> Outage | None:
        return next((o for o in self.outages if o.start <= self.at < o.end), None)

    def _secondary_active(self) -> bool:
        return self.documents[-1][1].active is Role.SECONDARY

    def _request(self) -> Record:
        rng = self.rng
        outage = self._outage()
        on_secondary = self._secondary_active()
        storm = self.storm[0] <= self.at < self.storm[1]
        number = rng.random()
        attempts: list[AttemptRecord] = []
        started = self.at - int(rng.lognormvariate(7.0, 0.5))
        cause = None
        code: str | None = None
        role, outcome, status = ("secondary" if on_secondary else "primary"), RequestOutcome.OK, 200
        if outage and not on_secondary:
            attempts.append(self._attempt(1, "primary", outage.category, outage.status, outage.error, started))
            if outage.category == "server_error" and rng.random() < 0.6:
                attempts.append(
                    self._attempt(2, "primary", outage.category, outage.status, outage.error, started + 900, 640)
                )
            role, cause = "secondary", outage.category
            if number < 0.06:
                outcome, status, code = RequestOutcome.ERROR, 502, "provider_error"
                attempts.append(
                    self._attempt(len(attempts) + 1, "secondary", "server_error", 500, "INTERNAL", started + 1900)
                )
        elif outage and on_secondary and number < 0.08:
            attempts.append(
                self._attempt(1, "primary", outage.category, outage.status, outage.error, started, breaker="half_open")
            )
            cause = outage.category
        elif storm and number < 0.35:
            attempts.append(
                self._attempt(1, role, "rate_limited", 429, "RESOURCE_EXHAUSTED: quota per minute", started)
            )
            if number < 0.09:
                outcome, status, code = RequestOutcome.SHED, 429, "rate_limited"
            elif number < 0.24:
                role, cause = "secondary", "rate_limited"
        elif number < 0.002:
            attempts.append(self._attempt(1, role, "context_length", 400, "context_length_exceeded", started))
            outcome, status, code = RequestOutcome.ERROR, 400, "context_length_exceeded"
        elif number < 0.006:
            outcome, status, code = RequestOutcome.CANCELLED, 499, "client_cancelled"
            attempts.append(self._attempt(1, role, "cancelled", None, None, started))
        elif number < 0.009:
            attempts.append(self._attempt(1, role, "server_error", 500, "INTERNAL", started))
        if outcome is RequestOutcome.OK:
            attempts.append(
                self._attempt(len(attempts) + 1, role, "ok", 200, None, self.at - 600, 300 if storm and attempts else 0)
            )
        request_id = self.new_id()
        if cause and outage:
            self.failed_ids = [*self.failed_ids[-4:], request_id]
        tokens = rng.randint(200, 3000)
        answered = outcome is RequestOutcome.OK
        duration = max(float(self.at - started), sum(a.duration_ms + a.waited_ms for a in attempts))
        overhead, written = rng.randint(120, 420), rng.randint(50, 900) if answered else 0
        into, out = PRICES[role]
        failover: tuple[FailoverRecord, ...] = ()
        if cause and answered:
            failover = (
                (self._failover("request", "primary", role, cause, request_id, {"category": cause}),)
                if role == "secondary"
                else ()
            )
        return RequestRecord(
            request_id,
            self.at,
            MANAGER,
            INSTANCE,
            self.epoch,
            str(self.documents[-1][1].active),
            role,
            MODELS[role],
            status,
            outcome,
            code,
            cause,
            tuple(attempts),
            number > 0.4,
            duration,
            duration * 0.35 if answered else None,
            overhead,
            tokens if answered else None,
            written if answered else None,
            (tokens * into + written * out) / 1e6 if answered else None,
            "stop" if answered else None,
            failovers=failover,
            prompt_text="Summarise <b>this</b>",
        )

    def _attempt(
        self,
        n: int,
        role: str,
        category: str,
        status: int | None,
        error: str | None,
        at: int,
        waited: float = 0.0,
        breaker: str = "closed",
    ) -> AttemptRecord:
        scale = 30_000.0 if category == "timeout" else 1400.0 if role == "primary" else 620.0
        duration = (
            scale if category == "timeout" else self.rng.lognormvariate(0, 0.35) * (scale if category == "ok" else 210)
        )
        return AttemptRecord(n, at, role, MODELS[role], status, category, duration, waited, breaker, error)

    def _trip(self, outage: Outage) -> Iterator[Record]:
        evidence = {
            "samples": 14,
            "failures": 9,
            "slow": 0,
            "failure_rate": 0.643,
            "slow_rate": 0.0,
            "threshold": 0.5,
            "streak": 5,
            "request_ids": [found for found in self.failed_ids if time_of(found) >= outage.start],
            "retry_in": 15.0,
            "reopens": 0,
        }
        yield self._breaker("closed", "open", "failure_rate", evidence)

    def _reopen(self, outage: Outage) -> Iterator[Record]:
        yield self._breaker("open", "half_open", "probe_due", {})
        evidence = {
            "samples": 15,
            "failures": 10,
            "failure_rate": 0.667,
            "threshold": 0.5,
            "retry_in": 30.0,
            "reopens": 2,
            "request_ids": self.failed_ids[-1:],
        }
        yield self._breaker("half_open", "open", "probe_failed", evidence)

    def _close(self, outage: Outage) -> Iterator[Record]:
        yield self._breaker("open", "half_open", "probe_due", {})
        yield self._breaker("half_open", "closed", "probe_ok", {"samples": 1, "failures": 0})

    def _breaker(self, before: str, after: str, reason: str, evidence: dict[str, Any]) -> BreakerRecord:
        return BreakerRecord(
            self.new_id(), self.at, MANAGER, INSTANCE, "primary", MODELS["primary"], before, after, reason, evidence
        )

    def _move(self, before: str, after: str, cause: str, outage: Outage) -> Iterator[Record]:
        self.epoch += 1
        since = self.at
        hold = 15.0 if after == "secondary" else 0.0
        down = after == "secondary"
        said = {"verdict": "down" if down else "up", "samples": 14, "failures": 9 if down else 0}
        evidence = {
            "role": "primary",
            "down": len(HOSTS) * int(down),
            "opinions": len(HOSTS),
            "live_hosts": len(HOSTS),
            "quorum": 0.5,
            "votes": dict.fromkeys(HOSTS, said),
        }
        self._agree(
            Document(
                self.epoch,
                Role(after),
                0.0 if after == "secondary" else 1.0,
                cause=cause,
                since_ms=since,
                hold=hold,
                hold_until_ms=since + int(hold * 1000),
                writer=INSTANCE,
                evidence=evidence,
            )
        )
        yield self._failover("active", before, after, cause, None, evidence)

    def _stage(self, share: float, stage: int) -> Iterator[Record]:
        self.epoch += 1
        last = self.documents[-1][1]
        self._agree(last.following(share=share, stage=stage, cause="ramp"))
        return iter(())

    def _failover(
        self, scope: str, before: str, after: str, cause: str, request_id: str | None, evidence: dict[str, Any]
    ) -> FailoverRecord:
        return FailoverRecord(
            self.new_id(),
            self.at,
            MANAGER,
            INSTANCE,
            Scope(scope),
            before,
            after,
            cause,
            request_id,
            self.epoch,
            evidence,
        )

    def _act(self, action: str, role: str | None, reason: str, actor: str) -> Iterator[Record]:
        self.epoch += 1
        last = self.documents[-1][1]
        expires = self.at + HOUR if role else None
        before, after = str(last.active), role or "primary"
        if role:
            pin = Override(Role(role), False, reason, actor, 3600.0, expires or 0, self.epoch)
            self._agree(Document(self.epoch, Role(role), 0.0, cause="override", since_ms=self.at, override=pin))
        else:
            self._agree(Document(self.epoch, Role.PRIMARY, 1.0, cause="override", since_ms=self.at))
        yield OverrideRecord(self.new_id(), self.at, MANAGER, action, role, False, reason, actor, expires, self.epoch)
        if before != after:
            yield self._failover("active", before, after, "override", None, {"by": actor, "reason": reason})

    def _agree(self, document: Document) -> None:
        self.documents.append((self.at, document))
        self.epoch = document.epoch

    # ---- what others write: the agreement, who is alive, alerts and deliveries

    def write_state(self, connection: Connection) -> None:
        """Everything that is not the recorder's own."""
        aborted = 0
        for ts_ms, document in self.documents:
            connection.execute(
                "INSERT OR REPLACE INTO agreements VALUES (?,?,?,?,?,?,?,?,?,?)",
                [
                    MANAGER,
                    document.epoch,
                    ts_ms,
                    INSTANCE,
                    str(document.active),
                    document.share,
                    document.stage,
                    document.cause,
                    aborted,
                    document.to_json(),
                ],
            )
        ts_ms, document = self.documents[-1]
        connection.execute(
            "INSERT INTO fleet_state VALUES (?,?,?,?)", [MANAGER, document.epoch, ts_ms, document.to_json()]
        )
        down = self.moment is Moment.DURING
        opinion = Opinion(Verdict.DOWN, 14, 9, "failure_rate") if down else Opinion(Verdict.UP, 22, 0)
        for instance, host in HOSTS.items():
            vote = Vote(instance, host, document.epoch, opinion, Opinion(Verdict.UP, 30, 0))
            connection.execute(
                "INSERT INTO fleet_votes VALUES (?,?,?,?,?,?,?)",
                [MANAGER, instance, host, "1", 10_000, self.now - 900, vote.to_json()],
            )
        gauges = {
            "queue_length": 0,
            "coordinator_up": True,
            "trouble": "",
            "managers": {MANAGER: self._manager_gauges(down)},
        }
        for instance, host in HOSTS.items():
            connection.execute(
                "INSERT INTO instances VALUES (?,?,?,?,?,?,?,?)",
                [instance, host, "0.1.0", self.now - 30 * HOUR, "1", 10_000, self.now - 900, json.dumps(gauges)],
            )
        connection.execute("INSERT INTO leases VALUES ('evaluator', ?, '1', 30000, ?)", [INSTANCE, self.now - 1000])
        connection.execute("INSERT OR REPLACE INTO marks VALUES ('evaluation', ?, '')", [self.now - 4_000])
        self._alerts(connection)
        self._canaries(connection)

    def _canaries(self, connection: Connection) -> None:
        """Asked of both models every five minutes; primary's latest got no answer while it is down."""
        for role, model in MODELS.items():
            for canary, took in (("capital", 612.0), ("invoice-json", 1_340.0)):
                self.at = self.now - 4 * MINUTE
                connection.execute(
                    "INSERT INTO canary_results (id, ts_ms, manager, instance, role, model, canary, passed, detail,"
                    " request_id, duration_ms) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                    [self.new_id(), self.at, MANAGER, INSTANCE, role, model, canary, 1, "", self.new_id(), took],
                )

    def _manager_gauges(self, down: bool) -> dict[str, Any]:
        closed = {
            "state": "closed",
            "probe_due": False,
            "retry_in": None,
            "samples": 22,
            "failures": 0,
            "failure_rate": 0.0,
            "slow_rate": 0.0,
            "streak": 0,
            "reopens": 0,
            "cap": None,
            "limited_for": None,
            "unavailable": None,
        }
        tripped = closed | {
            "state": "open",
            "retry_in": 12.4,
            "samples": 14,
            "failures": 9,
            "failure_rate": 0.643,
            "streak": 5,
        }
        return {
            "epoch": self.epoch,
            "in_flight": 3,
            "lines": {"primary": tripped if down else closed, "secondary": closed},
            "gate_good": 0,
            "gate_of": 5,
            "probe_in": 12.4 if down else None,
        }

    def _alerts(self, connection: Connection) -> None:
        firing = [
            (o, "SecondaryActiveTooLong", "critical")
            for o in self.outages
            if o.moved + 15 * MINUTE < min(o.back, self.now)
        ]
        rows: list[tuple[int, str, str, str, str, float | None]] = []
        for o in self.outages:
            rows.append((o.moved + 10_000, "SecondaryActiveTooLong", "critical", "inactive", "pending", None))
            if o.back < self.now:
                rows.append((o.back + 5_000, "SecondaryActiveTooLong", "critical", "pending", "inactive", None))
        for o, rule, severity in firing:
            rows.append((o.moved + 15 * MINUTE, rule, severity, "pending", "firing", None))
        storm = self.storm[0]
        rows += [
            (storm + 2 * MINUTE, "RateLimited", "warning", "inactive", "pending", 12.0),
            (storm + 7 * MINUTE, "RateLimited", "warning", "pending", "firing", 31.0),
            (storm + 24 * MINUTE, "RateLimited", "warning", "firing", "resolved", 2.0),
        ]
        for ts_ms, rule, severity, before, after, value in sorted(rows):
            self.at = ts_ms
            labels = json.dumps({"alertname": rule, "manager": MANAGER, "severity": severity})
            text = json.dumps(said(rule, ts_ms, ts_ms - (10_000 if after == "pending" else 15 * MINUTE), value))
            connection.execute(
                "INSERT INTO alert_transitions (id, ts_ms, rule, fingerprint, manager, labels, "
                "from_state, to_state, value, annotations)"
                " VALUES (?,?,?,?,?,?,?,?,?,?)",
                [self.new_id(), ts_ms, rule, f"{rule}-{MANAGER}", MANAGER, labels, before, after, value, text],
            )
            if after in ("firing", "resolved"):
                self._notify(connection, ts_ms, rule, severity, after)
        pinned = self.moment is Moment.PINNED
        for rule, severity in (("SecondaryActiveTooLong", "critical"), ("RateLimited", "warning")):
            state, since = ("inactive", self.now - 6 * HOUR)
            if rule == "SecondaryActiveTooLong" and pinned:
                state, since = "pending", self.now - PINNED_FOR
            if rule == "SecondaryActiveTooLong" and firing:
                state, since = "firing", firing[-1][0].moved + 15 * MINUTE
            active = since - 15 * MINUTE if state == "firing" else since
            told = remembered(rule, since if state == "firing" else self.now, active)
            labels = json.dumps({"alertname": rule, "manager": MANAGER, "severity": severity})
            connection.execute(
                "INSERT INTO alert_states VALUES (?,?,?,?,?,?,?,?,?)",
                [f"{rule}-{MANAGER}", rule, MANAGER, severity, labels, state, None, since, told],
            )
        self._standing(connection, "Watchdog", None, "none", "firing", self.now - 30 * HOUR)
        if self.moment is Moment.DURING:
            self._standing(connection, "DeliveryFailing", None, "warning", "firing", firing[-1][0].moved + 16 * MINUTE)
        if pinned:
            self._standing(connection, "OverrideForgotten", MANAGER, "info", "pending", self.now - PINNED_FOR)
        connection.execute(
            "INSERT INTO silences VALUES (?,?,?,?,?,?,?)",
            [
                self.new_id(),
                self.now - 2 * HOUR,
                self.now - 2 * HOUR,
                self.now + 2 * HOUR,
                json.dumps(['alertname="LatencyHigh"']),
                "ana",
                "Load test until noon",
            ],
        )

    def _standing(
        self, connection: Connection, rule: str, manager: str | None, severity: str, state: str, since: int
    ) -> None:
        """An alert that stands somewhere and has told nobody."""
        labels = {"alertname": rule, "severity": severity} | ({"manager": manager} if manager else {})
        told = remembered(rule, self.now, since, 1.0)
        connection.execute(
            "INSERT INTO alert_states VALUES (?,?,?,?,?,?,?,?,?)",
            [f"{rule}-{manager}", rule, manager, severity, json.dumps(labels), state, 1.0, since, told],
        )

    def _notify(self, connection: Connection, ts_ms: int, rule: str, severity: str, state: str) -> None:
        for receiver, kind, attempts, outcome in (
            ("ops", "webhook", 1, "delivered"),
            ("chat-room", "slack", 4, "dead"),
        ):
            outbox_id = self.new_id()
            body = json.dumps(
                {"status": state, "alerts": [{"labels": {"alertname": rule, "manager": MANAGER, "severity": severity}}]}
            )
            code, error = (200, None) if outcome == "delivered" else (500, "500 Internal Server Error")
            connection.execute(
                "INSERT INTO outbox (id, created_ms, receiver, kind, ordering_key, body, state, attempts, "
                "next_attempt_ms, delivered_ms,"
                " last_status, last_error) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                [
                    outbox_id,
                    ts_ms,
                    receiver,
                    kind,
                    f'{{}}:{{alertname="{rule}", manager="{MANAGER}"}}',
                    body,
                    outcome,
                    attempts,
                    ts_ms,
                    ts_ms + 400 if code == 200 else None,
                    code,
                    error,
                ],
            )
            for n in range(1, attempts + 1):
                connection.execute(
                    "INSERT INTO deliveries VALUES (?,?,?,?,?,?)",
                    [outbox_id, n, ts_ms + n * 5_000, code, error, 180.0 + n],
                )
