"""The exposition: correct by Prometheus' own judgement, complete from the first scrape, and the store's numbers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from engine.config import Config
from engine.core.agreement import Document, Member, Override
from engine.core.errors import StoreUnavailable
from engine.core.events import RequestOutcome, Scope
from engine.core.messages import Role
from engine.fleet.store import StoreCoordinator
from engine.ledger import add_total
from engine.metrics import Exposition
from engine.recorder import Recorder
from engine.store import Store
from tests.engine.records import FLASH, NOON, PRO, attempt, move, request, transition
from tests.programs import require_program

WORKER = "host-1"
GAUGES = {
    "queue_length": 4,
    "coordinator_up": True,
    "managers": {
        "chat": {
            "epoch": 2,
            "in_flight": 3,
            "lines": {"primary": {"state": "open"}, "secondary": {"state": "closed"}},
        }
    },
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "switchgear.db").open()


def scrape(store: Store, config: Config) -> Samples:
    body, _ = Exposition(store, config, wall_ms=lambda: NOON).render()
    found: Samples = {}
    for family in parse_text(body.decode()):
        for sample in family.samples:
            key = (sample.name.removeprefix("dualmodelmanager_"), frozenset(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def fill(store: Store) -> None:
    recorder = Recorder(store)
    recorder.submit(
        [
            request(duration_ms=640.0, ttft_ms=100.0),
            request(duration_ms=641.0, synthetic=True),
            request(
                duration_ms=90_000.0, role="secondary", model=FLASH, outcome=RequestOutcome.ERROR, status_code=502,
                attempts=(attempt(1, category="timeout"), attempt(2, role="secondary", model=FLASH, category="auth")),
                failovers=(move(scope=Scope.REQUEST, cause="timeout"),),
            ),
            request(role="none", model="none", attempts=(), outcome=RequestOutcome.SHED, status_code=429),
            move(epoch=2),
            transition(),
        ]
    )  # fmt: skip
    fleet = StoreCoordinator(recorder, wall_ms=lambda: NOON)
    pin = Override(Role.SECONDARY, False, "why", "ana", 60.0, NOON + 1000, 2)
    fleet.swap("chat", None, Document(epoch=2, active=Role.SECONDARY, share=0.0, since_ms=NOON - 5000, override=pin))
    fleet.register(Member(WORKER, "host", gauges=GAUGES), 10.0)
    recorder.execute(lambda found: add_total(found, "notifications", ("ops", "delivered"))).result()
    recorder.close()


def test_a_fresh_store_shows_every_known_label_set_as_zero(store: Store, config: Config) -> None:
    found = scrape(store, config)
    for role, model in (("primary", PRO), ("secondary", FLASH)):
        assert value(found, "requests_total", manager="chat", role=role, model=model, status_code="200") == 0
        assert value(found, "attempts_total", manager="chat", role=role, model=model, category="ok") == 0
        assert value(found, "request_duration_seconds_count", manager="chat", role=role, model=model) == 0
        assert value(found, "override_active", manager="chat", role=role) == 0
        assert value(found, "shed_total", manager="chat", role=role) == 0
    moved = {"manager": "chat", "from_role": "primary", "to_role": "secondary", "cause": "quorum"}
    assert value(found, "failover_events_total", **moved) == 0
    assert value(found, "request_failovers_total", **moved) == 0
    assert value(found, "active_model", manager="chat", role="primary", model=PRO) == 1
    assert value(found, "active_model", manager="chat", role="secondary", model=FLASH) == 0
    assert value(found, "primary_traffic_ratio", manager="chat") == 1
    assert (value(found, "active_model_since_timestamp_seconds", manager="chat") or 0) > 0


def test_the_numbers_are_those_of_the_store(store: Store, config: Config) -> None:
    fill(store)
    found = scrape(store, config)
    pro = {"manager": "chat", "role": "primary", "model": PRO}
    flash = {"manager": "chat", "role": "secondary", "model": FLASH}
    assert value(found, "active_model", **pro) == 0
    assert value(found, "active_model", **flash) == 1
    assert value(found, "active_model_since_timestamp_seconds", manager="chat") == (NOON - 5000) / 1000
    assert value(found, "requests_total", **pro, status_code="200") == 1, "the synthetic one is none of the callers'"
    assert value(found, "requests_total", **flash, status_code="502") == 1
    assert value(found, "attempts_total", **pro, category="timeout") == 1
    moved = {"manager": "chat", "from_role": "primary", "to_role": "secondary"}
    assert value(found, "failover_events_total", **moved, cause="quorum") == 1
    assert value(found, "request_failovers_total", **moved, cause="timeout") == 1
    assert value(found, "shed_total", manager="chat", role="primary") == 1
    changed = {"manager": "chat", "role": "primary", "from_state": "closed", "to_state": "open"}
    assert value(found, "breaker_transitions_total", **changed) == 1
    assert value(found, "override_active", manager="chat", role="secondary") == 1
    state = {"manager": "chat", "role": "primary", "worker": WORKER}
    assert value(found, "breaker_state", **state, state="open") == 1
    assert value(found, "breaker_state", **state, state="closed") == 0
    assert value(found, "requests_in_flight", manager="chat", worker=WORKER) == 3
    assert value(found, "recorder_queue_length", worker=WORKER) == 4
    assert value(found, "coordinator_up") == 1
    assert value(found, "notifications_total", receiver="ops", outcome="delivered") == 1
    assert value(found, "tokens_total", manager="chat", model=PRO, direction="input") == 300
    assert value(found, "recorder_commit_seconds_count") == 1


def test_histograms_are_exact_on_their_boundaries(store: Store, config: Config) -> None:
    fill(store)
    found = scrape(store, config)
    pro = {"manager": "chat", "role": "primary", "model": PRO}
    flash = {"manager": "chat", "role": "secondary", "model": FLASH}
    assert value(found, "request_duration_seconds_bucket", **pro, le="0.32") == 0
    assert value(found, "request_duration_seconds_bucket", **pro, le="0.64") == 1
    assert value(found, "request_duration_seconds_sum", **pro) == pytest.approx(0.64)
    assert value(found, "request_duration_seconds_bucket", **flash, le="81.92") == 0
    assert value(found, "request_duration_seconds_bucket", **flash, le="+Inf") == 1
    assert value(found, "time_to_first_token_seconds_count", **pro) == 1


def test_a_process_that_stopped_reporting_is_left_out(store: Store, config: Config) -> None:
    fill(store)
    body, _ = Exposition(store, config, wall_ms=lambda: NOON + 11_000).render()
    text = body.decode()
    assert WORKER not in text
    assert "dualmodelmanager_coordinator_up 0.0" in text


def test_an_override_past_its_end_is_not_active(store: Store, config: Config) -> None:
    fill(store)
    body, _ = Exposition(store, config, wall_ms=lambda: NOON + 1001).render()
    assert 'override_active{manager="chat",role="secondary"} 0.0' in body.decode()


def test_alerts_and_the_outbox_are_read_from_their_tables(store: Store, make_config: Callable[..., Config]) -> None:
    config = make_config('[[alerts.receivers]]\nname = "ops"\nkind = "webhook"\nurl = "https://example.org/hook"\n')
    assert value(scrape(store, config), "outbox_pending", receiver="ops") == 0
    writer = store.writer()
    writer.execute(
        "INSERT INTO alert_states (fingerprint, rule, manager, severity, labels, state, since_ms) VALUES "
        "('f', 'FailoverStorm', 'chat', 'warning', '{}', 'firing', 1), ('g', 'Watchdog', NULL, '', '{}', 'resolved', 1)"
    )
    writer.execute(
        "INSERT INTO outbox (id, created_ms, receiver, kind, body, state, next_attempt_ms) "
        "VALUES ('o', 1, 'ops', 'webhook', '{}', 'pending', 1)"
    )
    writer.execute("INSERT INTO marks VALUES ('evaluation', 5000, '')")
    writer.close()
    found = scrape(store, config)
    storm = {"manager": "chat", "alertname": "FailoverStorm", "severity": "warning", "state": "firing"}
    assert value(found, "alerts", **storm) == 1
    assert sum(name == "alerts" for name, _ in found) == 1
    assert value(found, "outbox_pending", receiver="ops") == 1
    assert value(found, "last_evaluation_timestamp_seconds") == 5.0


def test_prometheus_finds_nothing_to_complain_about(store: Store, config: Config) -> None:
    promtool = require_program("promtool")
    for fresh in (True, False):
        if not fresh:
            fill(store)
        body, content_type = Exposition(store, config, wall_ms=lambda: NOON).render("text/plain")
        checked = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
        assert content_type.startswith("text/plain")


def test_openmetrics_is_given_to_who_asks_for_it(store: Store, config: Config) -> None:
    fill(store)
    body, content_type = Exposition(store, config).render("application/openmetrics-text; version=1.0.0; q=0.9, */*")
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name for family in parse_openmetrics(body.decode())}
    assert {"dualmodelmanager_requests", "dualmodelmanager_request_duration_seconds"} <= families


def test_counters_survive_a_restart_and_go_on(store: Store, config: Config) -> None:
    for expected in (1, 2, 3):
        recorder = Recorder(store)
        recorder.submit([request()])
        recorder.close()
        labels = {"manager": "chat", "role": "primary", "model": PRO, "status_code": "200"}
        assert value(scrape(Store(store.path), config), "requests_total", **labels) == expected


def test_a_store_that_cannot_be_read_is_an_error_and_not_an_empty_page(tmp_path: Path, config: Config) -> None:
    with pytest.raises(StoreUnavailable):
        Exposition(Store(tmp_path / "missing.db"), config).render()
