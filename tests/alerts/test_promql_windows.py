"""Windows mean the same to Prometheus: the same traffic is recorded, exposed, scraped, and asked about in both ways."""

from __future__ import annotations

import json
import operator
import random
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from alerts import outbox
from alerts.channels import CHANNELS
from alerts.expression import NoValue, compile_expression
from alerts.grouping import Audience
from alerts.observations import Reading
from alerts.outbox import Letter, Result
from alerts.promql import twin_of
from alerts.receivers import Receiver
from alerts.vocabulary import PERCENTILES, ROLES, Query, Scope
from engine.config import parse
from engine.core.agreement import Document
from engine.core.events import FailoverRecord, Record
from engine.core.events import Scope as Reach
from engine.core.messages import Role
from engine.ids import new_id
from engine.metrics import Exposition
from engine.percentiles import BOUNDARIES_S
from engine.sqlite import Connection
from tests.alerts.conditions import Conditions
from tests.alerts.world import World, breaker, move, open_recorder, request
from tests.conftest import SIMULATED
from tests.programs import require_program

MANAGERS = ("chat", "search")
MINUTE_MS = 60_000
MINUTES = 24
WINDOWS_MIN = (1, 2, 3, 5, 10)
CONFIG = (
    SIMULATED.replace("gemini-2.5-pro", "primary").replace("gemini-2.5-flash", "secondary")
    + '[managers.search]\nprimary = "pro"\nsecondary = "flash"\n'
    + '[[alerts.receivers]]\nname = "ops"\nkind = "webhook"\nurl = "https://example.com"\n'
)
OPS = Receiver(Audience("ops"), CHANNELS["webhook"], "https://example.com", None)
ENDINGS = (*[("ok", 200)] * 6, ("error", 500), ("error", 502), ("error", 504), ("error", 400), ("cancelled", 499))
TRIED = ("ok", "server_error", "timeout", "connection", "truncated", "rate_limited", "quota_exhausted", "auth",
         "semantic", "content_filter", "cancelled")  # fmt: skip
# 503 counts differently (`promql.REFUSED`), so does a canary that is rejected (`CANARIES`): neither happens here.


@dataclass
class Traffic:
    """Two managers whose every minute is random, on a real record."""

    world: World
    rand: random.Random
    share: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MANAGERS, 1.0))
    documents: dict[str, Document] = field(default_factory=lambda: dict.fromkeys(MANAGERS, Document()))

    def minute(self) -> None:
        """What happens in one."""
        self.world.clock.pass_(60)
        for manager in MANAGERS:
            records = [*self._requests(manager), *self._turns(manager)]
            self.world.record(*(replace(one, manager=manager) for one in records))
            self._agree(manager)
        for _ in range(self.rand.choice([0, 0, 0, 1, 2])):
            self._letter()

    def _moment(self) -> int:
        """Some moment of the minute that ends now: the last one is part of it, and the first one is not."""
        return self.world.clock.wall - self.rand.choice([0, MINUTE_MS - 1, self.rand.randrange(MINUTE_MS)])

    def _requests(self, manager: str) -> Iterator[Record]:
        rand = self.rand
        for _ in range(rand.choice([0, 0, 0, 1, 2, 3, 9])):
            role = rand.choice(ROLES)
            outcome, status = rand.choice(ENDINGS)
            synthetic = rand.random() < 0.1
            tries = [(rand.choice(ROLES), rand.choice(TRIED)) for _ in range(rand.choice([1, 1, 2, 3]))]
            yield request(
                self._moment(),
                role=role,
                outcome=outcome,
                status_code=status,
                synthetic=synthetic,
                attempts=[(role, "ok")] if synthetic else tries,
                duration_ms=min(80_000.0, rand.lognormvariate(7, 1.5)),
                ttft_ms=rand.choice([None, min(80_000.0, rand.lognormvariate(6, 1.5))]),
                cost_usd=rand.choice([None, 0.25, 1.5]),
            )
        for _ in range(rand.choice([0, 0, 1, 2])):
            nothing = {"attempts": [], "input_tokens": None, "output_tokens": None}
            yield request(self._moment(), role="none", model="none", outcome="shed", status_code=429, **nothing)

    def _turns(self, manager: str) -> Iterator[Record]:
        for _ in range(self.rand.choice([0, 0, 0, 1, 3])):
            before, to = self.rand.sample(["closed", "open", "half_open"], 2)
            yield breaker(self._moment(), to, before, self.rand.choice(ROLES))
        for _ in range(self.rand.choice([0, 0, 1, 4])):
            away, to = self.rand.sample(ROLES, 2)
            cause = self.rand.choice(["timeout", "breaker_open"])
            yield FailoverRecord(new_id(), self._moment(), manager, "i", Reach.REQUEST, away, to, cause, None, 1)

    def _agree(self, manager: str) -> None:
        """At most one step a minute: away from primary, up the ramp, down from it, or back."""
        rand, known = self.rand, self.documents[manager]
        if rand.random() < 0.4:
            return
        now, aborted = self.world.clock.wall, False
        if known.share == 1.0:
            document = known.following(active=Role.SECONDARY, share=0.0, since_ms=now)
            cause = rand.choice(["quorum", "override"])
            self.world.record(replace(move(now, document.epoch, cause=cause), manager=manager))
        elif known.share == 0.5 and rand.random() < 0.5:
            document = known.following(active=Role.PRIMARY, share=1.0, since_ms=now)
            self.world.record(replace(move(now, document.epoch, to="primary", cause="failback"), manager=manager))
        elif known.share > 0 and rand.random() < 0.6:
            document, aborted = known.following(share=0.0), True
        else:
            document = known.following(share=0.25 if known.share == 0 else 0.5)
        self.documents[manager] = document
        text, values = document.to_json(), (manager, document.epoch, now)

        def write(connection: Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO fleet_state VALUES (?, ?, ?, ?)", [*values, text])
            row = [*values, "i", str(document.active), document.share, None, "x", int(aborted), text]
            connection.execute(f"INSERT INTO agreements VALUES ({', '.join('?' * len(row))})", row)

        self.world.recorder.execute(write).result(30)

    def _letter(self) -> None:
        """A notification that is given up, sometimes because its receiver is gone, with another one that waits."""
        now, gone = self.world.clock.wall, self.rand.random() < 0.3

        def write(connection: Connection) -> None:
            for _ in range(2 if gone else 1):
                body = Letter(new_id(), now, "ops", "webhook", new_id(), new_id(), "application/json", "{}")
                outbox.put(connection, body)
            claimed = outbox.claim(connection, "ops", "d", now, 1000)
            assert claimed is not None
            outbox.settle(connection, claimed, Result(delivered=False, status=404, final=True), now, 0.0)
            if gone:
                outbox.stop(connection, OPS, now)

        self.world.recorder.execute(write).result(30)


class Inventor(Conditions):
    """Conditions about windows, of every name, compared in every way."""

    DEPTH = 2
    SIMPLE = 0.3

    def simple(self) -> str:
        rand = self.rand
        sign, order = rand.choice(["<", "<=", ">", ">=", "==", "!="]), rand.choice(["<", "<=", ">", ">="])
        match rand.randrange(7):
            case 0 | 1:
                return f"{self._counts()} {sign} {rand.randint(0, 12)}"
            case 2:
                return f"{self._counts()} {sign} {self._counts()}"
            case 3:  # a fraction is compared where none of them lies
                rate = self._call(rand.choice(["error_rate", "secondary_share"]))
                return f"{rate} {order} {rand.choice([0.2003, 0.5003, 0.8003])}"
            case 4:
                return f"{self._count()} / {self._count()} {order} {rand.choice([0.3003, 1.0003, 2.5003])}"
            case 5:
                return f"{self._call('cost_usd')} {order} {rand.randint(0, 9) + 0.1}"
        # Where a bound of Prometheus' histograms is asked about, its estimate is on the right side of it.
        bound = rand.choice(BOUNDARIES_S[4:12]) * 1.00001
        return f"{self._call(rand.choice(['p50', 'p95', 'p99', 'ttft_p95']))} {order} {bound!r}"

    def _counts(self) -> str:
        rand = self.rand
        match rand.randrange(5):
            case 0:
                return f"{self._count()} {rand.choice('+-')} {self._count()}"
            case 1:
                return f"{self._count()} {rand.choice('+-')} {rand.randint(1, 3)}"
            case 2:
                return f"{rand.randint(2, 3)} * {self._count()}"
        return self._count()

    def _count(self) -> str:
        return self._call(self.rand.choice(COUNTS))

    def _call(self, name: str) -> str:
        role = self.rand.choice(["", "", ', "primary"', ', "secondary"']) if name in BY_ROLE else ""
        return f'{name}("{self.rand.choice(WINDOWS_MIN)}m"{role})'


COUNTS = ("requests", "errors", "failovers", "ramp_aborts", "request_failovers", "rate_limited", "shed", "tokens",
          "breaker_transitions", "auth_errors", "semantic_failures")  # fmt: skip
BY_ROLE = ("requests", "errors", "error_rate", "request_failovers", "rate_limited", "breaker_transitions",
           "auth_errors", "semantic_failures", "p50", "p95", "p99", "ttft_p95")  # fmt: skip


def exact(promql: str) -> str:
    """A twin whose windows hold the sample on their left edge in every version: before Prometheus 3.0 they all do.

    With a sample on both edges `increase` extrapolates by this millisecond alone.
    """
    for minutes in WINDOWS_MIN:
        promql = promql.replace(f"[{minutes}m]", f"[{minutes * MINUTE_MS + 1}ms]")
    return promql


@pytest.mark.server
def test_a_twin_about_windows_is_true_whenever_the_original_is(tmp_path: Path) -> None:
    promtool = require_program("promtool")
    files, compared, held = [], 0, 0
    for seed in range(12):
        inventor = Inventor(seed)
        asked = [(inventor.condition(), Scope.MANAGER) for _ in range(24)]
        asked += [(f'dead_letters("{minutes}m") > {limit}', Scope.STORE) for minutes in (1, 5) for limit in (0, 2)]
        folder = tmp_path / str(seed)
        folder.mkdir()
        series, answers = lived(folder, list(dict.fromkeys(asked)), random.Random(seed))
        compared, held = compared + len(answers), held + sum(value for *_, value in answers)
        test = {"interval": "1m", "input_series": series, "promql_expr_test": expected(answers)}
        path = folder / "test.yml"
        path.write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}))
        files.append(str(path))
    done = subprocess.run([promtool, "test", "rules", *files], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[:4000]
    assert compared > 10_000
    assert 0.2 < held / compared < 0.8


def lived(
    folder: Path, asked: list[tuple[str, Scope]], rand: random.Random
) -> tuple[list[dict[str, str]], list[tuple[str, Scope, int, str, bool]]]:
    """What Prometheus would have scraped once a minute, and what ours says after every scrape but the first."""
    config = parse(tomllib.loads(CONFIG), folder / "switchgear.toml")
    world = World(open_recorder(folder))
    traffic = Traffic(world, rand)
    exposition = Exposition(world.recorder.store, config, wall_ms=world.clock.wall_ms)
    expressions = [(text, scope, compile_expression(text, scope)) for text, scope in asked]
    queries = frozenset(query for *_, one in expressions for query in one.queries)
    scraped: dict[str, list[str]] = {}
    answers = []
    for minute in range(MINUTES):
        if minute:
            traffic.minute()
        for sample in samples(exposition):
            scraped.setdefault(sample[0], []).append(sample[1])
        if not minute:
            continue
        with world.recorder.store.reader() as connection:
            reading = Reading(connection, queries, MANAGERS, world.clock.wall)
            tied = {
                query for query in queries if query.name in PERCENTILES and is_tied(connection, query, world.clock.wall)
            }
            for text, scope, expression in expressions:
                if expression.queries & tied:
                    continue
                for manager in MANAGERS if scope is Scope.MANAGER else (None,):
                    answers.append((text, scope, minute, manager or "", holds(expression, reading, manager)))
    world.recorder.close()
    late = {name for name, values in scraped.items() if len(values) < MINUTES}
    assert late == set(), "these were not there from the beginning, so that increase() misses what made them"
    return [{"series": name, "values": " ".join(values)} for name, values in scraped.items()], answers


def holds(expression: Any, seen: Any, manager: str | None) -> bool:
    try:
        met, _ = expression.run(lambda query: seen.ask(manager, query))
    except NoValue:
        return False
    return bool(met)


def is_tied(connection: Connection, query: Query, now_ms: int) -> bool:
    """Whether a percentile lies exactly between two answers of a manager, where the last bit of a float decides."""
    metric, share = PERCENTILES[query.name]
    asked = "role <> 'none'" if not query.role else f"role = '{query.role}'"
    found = connection.execute(
        f"SELECT count(*) FROM requests WHERE ts_ms > ? AND ts_ms <= ? AND {asked} AND {metric}_ms IS NOT NULL"
        " AND outcome IN ('ok', 'error') AND NOT synthetic GROUP BY manager",
        [now_ms - round(query.seconds * 1000), now_ms],
    )
    return any(n * round(share * 100) % 100 == 0 for (n,) in found)


def samples(exposition: Exposition) -> Iterator[tuple[str, str]]:
    for family in text_string_to_metric_families(exposition.render()[0].decode()):
        for sample in family.samples:
            if sample.name.endswith("_created") or family.name.endswith("commit_seconds"):
                continue
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            yield f"{sample.name}{{{labels}}}", repr(sample.value)


def expected(answers: list[tuple[str, Scope, int, str, bool]]) -> list[dict[str, Any]]:
    """For each expression and minute: whom its twin finds."""
    found: dict[tuple[str, Scope, int], list[str]] = {}
    for text, scope, minute, manager, met in answers:
        found.setdefault((text, scope, minute), []).extend([manager] if met else [])
    return [
        {
            "expr": f"count by (manager) ({exact(twin_of(text, scope).text)})",
            "eval_time": f"{minute}m",
            "exp_samples": [
                {"labels": f'{{manager="{manager}"}}' if manager else "{}", "value": 1} for manager in managers
            ],
        }
        for (text, scope, minute), managers in found.items()
    ]


SCRAPE_S, SPAN_S = 15, 300


@pytest.mark.server
def test_extrapolation_changes_no_comparison_of_counts_up_to_half_as_many_as_scrapes(tmp_path: Path) -> None:
    """As a note beside each twin says, and why counts are compared with halves: scrapes lie anywhere in a window."""
    promtool = require_program("promtool")
    rand = random.Random(1)
    scrapes = SPAN_S // SCRAPE_S
    moments = range(SPAN_S + 7, 3600, SCRAPE_S)
    cases, twins = [], set()
    for n in range(12):
        events = sorted(rand.uniform(0, 3600) for _ in range(rand.choice([5, 20, 60, 90])))
        counter = [sum(event <= scrape for event in events) for scrape in range(0, 3600, SCRAPE_S)]
        wanted = []
        for moment in moments:
            seen = [event for event in events if moment - SPAN_S < event <= moment]
            first, last = moment - SPAN_S + SCRAPE_S - 7, moment - 7  # the scrapes in the window
            if len(seen) > (scrapes - 1) / 2 or any(event <= first or event > last for event in seen):
                continue
            for sign, met in SIGNS.items():
                limit = max(0, len(seen) + rand.choice([-1, 0, 1]))
                twin = twin_of(f'request_failovers("{SPAN_S}s") {sign} {limit}').text
                twins.add(twin)
                found = [{"labels": "{}", "value": 1}] if met(len(seen), limit) else []
                wanted.append({"expr": f"count({twin})", "eval_time": f"{moment}s", "exp_samples": found})
        series = {
            "series": 'dualmodelmanager_request_failovers_total{manager="chat"}',
            "values": " ".join(map(str, counter)),
        }
        cases.append({"interval": f"{SCRAPE_S}s", "input_series": [series], "promql_expr_test": wanted})
        assert len(wanted) > 50, n
    path = tmp_path / "test.yml"
    path.write_text(json.dumps({"evaluation_interval": f"{SCRAPE_S}s", "tests": cases}))
    done = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[:4000]
    assert len(twins) > 30


SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
