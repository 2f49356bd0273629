"""Who tells what: each machine what only its own store knows, and one by the coordinator's lease what all see alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from alerts import service
from alerts.service import AlertService, Part
from engine.config import Config
from tests.alerts.listener import Listener
from tests.alerts.world import request
from tests.engine.fleet.conftest import corner
from tests.engine.fleet.fleets import Fleet, Station
from tests.engine.fleet.servers import Server
from tests.patience import seconds_until

pytestmark = pytest.mark.server

RULES = """
[[rules]]
alert = "OnSecondary"
expr = 'active_model == "secondary"'
labels = { severity = "critical" }
annotations = { summary = "{{ manager }} is on its secondary" }
[[rules]]
alert = "Errors"
expr = 'errors("5m") > 0'
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LEASE_TTL_S", 2.0)
    monkeypatch.setattr(service, "LEASE_RENEW_S", 0.3)
    monkeypatch.setattr(service, "PULSE_S", 0.2)


@pytest.fixture
def pager() -> Iterator[Listener]:
    with Listener() as made:
        yield made


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "kind",
    ["redis", *(pytest.param(other, marks=pytest.mark.soak) for other in ("etcd", "zookeeper"))],
    indirect=True,
)
def test_machines_with_stores_of_their_own_page_once_about_what_all_see_and_each_about_its_own_traffic(
    kind: str,
    shared_server: Callable[[str], Server],
    make_config: Callable[..., Config],
    tmp_path: Path,
    pager: Listener,
) -> None:
    (tmp_path / "alerts.toml").write_text(RULES)
    settings = f"""
[alerts]
evaluate_every = "200ms"
group_wait = 0
[[alerts.receivers]]
name = "ops"
kind = "webhook"
url = "{pager.url}"
allow_private = true
"""
    url = corner(shared_server(kind).url, f"lease{time.monotonic_ns()}")
    with Fleet(make_config(settings), url, tmp_path) as fleet, ExitStack() as ends:
        stations = [fleet.add(f"host{number}") for number in range(3)]
        services = [evaluator(station) for station in stations]
        for one in services:
            ends.callback(one.stop)
            one.start()
        stations[0].manager.override("secondary", reason="maintenance", ttl=600.0, by="ana")
        pager.wait_for(1)
        time.sleep(1.0)
        assert len(pager.letters) == 1
        assert [one.health().part for one in services] == [Part.EVALUATOR] * 3
        (voice,) = [one for one in services if one.health().speaks]
        silent = next(place for place, one in enumerate(services) if one is not voice)
        assert "another speaks for all" in services[silent].health().detail
        failed = request(time.time_ns() // 1_000_000, outcome="error", status_code=502)
        stations[silent].instance.recorder.submit([failed]).wait(30)
        own = pager.wait_for(2)[1].json
        assert own["commonLabels"] == {"alertname": "Errors", "manager": "chat", "host": f"host{silent}"}
        voice.stop()
        rest = [one for one in services if one is not voice]
        took = seconds_until(lambda: [one.health().speaks for one in rest].count(True) == 1)
        print(f"{kind}: handed over in {took:.1f} s")
        again = pager.wait_for(3)[2].json
        assert again["commonLabels"]["alertname"] == "OnSecondary", "what still fires is not announced again"
        time.sleep(1.0)
        assert len(pager.letters) == 3


def evaluator(station: Station) -> AlertService:
    instance = station.instance
    return AlertService(
        station.config,
        instance.recorder,
        instance.coordinator,
        owner=station.name,
        local=instance.local_agreement,
        host=station.host,
    )
