"""What happened beside the requests: breakers, moves, agreements, alerts, notifications, canaries, who is alive."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from engine.core.agreement import Document, Opinion, Verdict, Vote
from engine.ids import IdSource
from engine.sqlite import Connection
from tests.largestore.kinds import MODELS, PRO
from tests.largestore.shape import BUSY, DAY, HOUR, INSTANCES, MINUTE, SECOND, SPARE, Outage, Shape

PROBE_EVERY = 5 * MINUTE
CANARY_EVERY = 10 * MINUTE
SLOW_EVERY = 30 * MINUTE
RECEIVERS = (("ops", "webhook", "delivered", 1), ("chat-room", "slack", "dead", 3))
Row = tuple[Any, ...]


class Diary:
    """Rows by table, in the order of time."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.at = shape.start_ms
        self._id = IdSource(lambda: self.at, random.Random(11).getrandbits)
        self.moves: list[Row] = []
        self.breakers: list[Row] = []
        self.agreements: list[Row] = []
        self.alerts: list[Row] = []
        self.outbox: list[Row] = []
        self.deliveries: list[Row] = []
        self.canaries: list[Row] = []

    def new_id(self, ts_ms: int) -> str:
        self.at = ts_ms
        return self._id()

    def outage(self, outage: Outage) -> None:
        """A breaker opens, the fleet moves, probes fail, and everything comes back."""
        evidence = {"samples": 14, "failures": 9, "failure_rate": 0.643, "threshold": 0.5, "retry_in": 15.0}
        for instance in INSTANCES:
            self._breaker(outage.start_ms + 20 * SECOND, instance, "closed", "open", "failure_rate", evidence)
            for at in range(outage.start_ms + PROBE_EVERY, outage.back_ms, PROBE_EVERY):
                self._breaker(at, instance, "open", "half_open", "probe_due", {})
                self._breaker(at + SECOND, instance, "half_open", "open", "probe_failed", {"retry_in": 30.0})
            self._breaker(outage.back_ms - SECOND, instance, "open", "half_open", "probe_due", {})
            self._breaker(outage.back_ms, instance, "half_open", "closed", "probes_passed", {})
        for at, document in outage.documents():
            self.agree(BUSY, at, document)
        self._move(outage.moved_ms, "primary", "secondary", "quorum", outage.epoch)
        self._move(outage.back_ms, "secondary", "primary", "failback", outage.epoch + 1)
        self._alert("SecondaryActiveTooLong", "critical", BUSY, outage.moved_ms, outage.moved_ms + 15 * MINUTE,
                    outage.back_ms + MINUTE)  # fmt: skip
        storm = outage.storm_ms
        self._alert("RateLimited", "warning", BUSY, storm + MINUTE, storm + 6 * MINUTE, storm + 25 * MINUTE)

    def agree(self, manager: str, at: int, document: Document) -> None:
        self.agreements.append(
            (manager, document.epoch, at, INSTANCES[0], str(document.active), document.share, document.stage,
             document.cause, 0, document.to_json())
        )  # fmt: skip

    def canary(self, at: int) -> None:
        for role, model in MODELS.items():
            passed = int(role == "primary" or at // CANARY_EVERY % 7 != 0)
            detail = "" if passed else "contains: 42"
            self.canaries.append(
                (self.new_id(at), at, BUSY, INSTANCES[0], role, model, "arithmetic", passed, detail, None, 640.5)
            )

    def slow(self, at: int) -> None:
        self._alert("LatencyHigh", "warning", SPARE, at, at + 5 * MINUTE, at + 12 * MINUTE)

    def _breaker(
        self, at: int, instance: str, before: str, after: str, reason: str, evidence: dict[str, object]
    ) -> None:
        self.breakers.append(
            (self.new_id(at), at, BUSY, instance, "primary", PRO, before, after, reason, json.dumps(evidence))
        )

    def _move(self, at: int, before: str, after: str, cause: str, epoch: int) -> None:
        evidence = json.dumps({"down": 2, "live_hosts": 2})
        self.moves.append(
            (self.new_id(at), at, BUSY, INSTANCES[0], "active", before, after, cause, None, epoch, evidence)
        )

    def _alert(self, rule: str, severity: str, manager: str, pending: int, firing: int, over: int) -> None:
        labels = {"alertname": rule, "manager": manager, "severity": severity}
        for at, before, after in (
            (pending, "inactive", "pending"),
            (firing, "pending", "firing"),
            (over, "firing", "resolved"),
        ):
            self.alerts.append(
                (self.new_id(at), at, rule, f"{rule}-{manager}", manager, json.dumps(labels), before, after, 0.31)
            )
            if after != "pending":
                self._notify(at, labels, after)

    def _notify(self, at: int, labels: dict[str, str], state: str) -> None:
        body = json.dumps({"status": state, "alerts": [{"labels": labels}]})
        for receiver, kind, outcome, tries in RECEIVERS:
            outbox_id = self.new_id(at)
            status, error = (200, None) if outcome == "delivered" else (500, "500 Internal Server Error")
            delivered = at + 400 if outcome == "delivered" else None
            self.outbox.append((outbox_id, at, receiver, kind, body, outcome, tries, at, delivered, status, error))
            for n in range(1, tries + 1):
                self.deliveries.append((outbox_id, n, at + n * 5 * SECOND, status, error, 180.5))


def _diary(shape: Shape) -> Diary:
    diary = Diary(shape)
    start, end = shape.start_ms, shape.edge_ms
    first = Document(epoch=1, since_ms=start)
    for manager in (BUSY, SPARE):
        diary.agree(manager, start, first)
    moments: list[tuple[int, int, Any]] = [(outage.start_ms, 0, outage) for outage in shape.outages()]
    moments += [(at, 1, None) for at in range(start + CANARY_EVERY, end, CANARY_EVERY)]
    moments += [(at, 2, None) for at in range(start + SLOW_EVERY, end - HOUR, SLOW_EVERY)]
    for at, what, outage in sorted(moments, key=lambda one: one[:2]):
        if what == 0:
            diary.outage(outage)
        elif what == 1:
            diary.canary(at)
        else:
            diary.slow(at)
    return diary


def write(connection: Connection, shape: Shape) -> None:
    """Write everything but the requests; the sums are made from the rows afterwards."""
    diary = _diary(shape)
    for table, columns, rows in _tables(diary):
        names = columns.split()
        at = names.index("ts_ms" if "ts_ms" in names else "created_ms")
        ordered = sorted(rows, key=itemgetter(at))
        places = ", ".join("?" * len(names))
        connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", ordered)
    for manager in (BUSY, SPARE):
        epoch, at, document = max(row[1:3] + row[-1:] for row in diary.agreements if row[0] == manager)
        connection.execute("INSERT INTO fleet_state VALUES (?,?,?,?)", [manager, epoch, at, document])
    _present(connection, shape.end_ms)


def _tables(diary: Diary) -> Iterator[tuple[str, str, list[Row]]]:
    yield "failovers", "id ts_ms manager instance scope from_role to_role cause request_id epoch evidence", diary.moves
    yield (
        "breaker_transitions",
        "id ts_ms manager instance role model from_state to_state reason evidence",
        diary.breakers,
    )
    yield "agreements", "manager epoch ts_ms instance active share stage cause ramp_aborted document", diary.agreements
    yield "alert_transitions", "id ts_ms rule fingerprint manager labels from_state to_state value", diary.alerts
    yield (
        "outbox",
        "id created_ms receiver kind body state attempts next_attempt_ms delivered_ms last_status last_error",
        diary.outbox,
    )
    yield "deliveries", "outbox_id n ts_ms status_code error duration_ms", diary.deliveries
    yield (
        "canary_results",
        "id ts_ms manager instance role model canary passed detail request_id duration_ms",
        diary.canaries,
    )


def _present(connection: Connection, now: int) -> None:
    """Who is alive and what he sees, as of the end."""
    line = {
        "state": "closed", "probe_due": False, "retry_in": None, "samples": 22, "failures": 0, "failure_rate": 0.0,
        "slow_rate": 0.0, "streak": 0, "reopens": 0, "cap": None, "limited_for": None, "unavailable": None,
    }  # fmt: skip
    gauges = {"queue_length": 0, "coordinator_up": True, "trouble": "", "managers": {}}
    for manager in (BUSY, SPARE):
        gauges["managers"][manager] = {  # type: ignore[index]
            "epoch": 1, "in_flight": 3, "lines": {"primary": line, "secondary": line}, "gate_good": 0, "gate_of": 5,
            "probe_in": None,
        }  # fmt: skip
    up = Opinion(Verdict.UP, 22, 0)
    for instance in INSTANCES:
        host = instance.partition("/")[0]
        connection.execute(
            "INSERT INTO instances VALUES (?,?,?,?,?,?,?,?)",
            [instance, host, "0.1.0", now - 3 * DAY, "1", 600_000, now, json.dumps(gauges)],
        )
        for manager in (BUSY, SPARE):
            vote = Vote(instance, host, 1, up, up)
            connection.execute(
                "INSERT INTO fleet_votes VALUES (?,?,?,?,?,?,?)",
                [manager, instance, host, "1", 600_000, now, vote.to_json()],
            )
    connection.execute("INSERT INTO leases VALUES ('evaluator', ?, '1', 600000, ?)", [INSTANCES[0], now])
    connection.execute("INSERT OR REPLACE INTO marks VALUES ('evaluation', ?, '')", [now])
    for rule, severity, manager in (
        ("SecondaryActiveTooLong", "critical", BUSY),
        ("RateLimited", "warning", BUSY),
        ("LatencyHigh", "warning", SPARE),
    ):
        labels = json.dumps({"alertname": rule, "manager": manager, "severity": severity})
        connection.execute(
            "INSERT INTO alert_states VALUES (?,?,?,?,?,?,?,?,?)",
            [f"{rule}-{manager}", rule, manager, severity, labels, "resolved", 0.02, now - 2 * HOUR, "{}"],
        )
