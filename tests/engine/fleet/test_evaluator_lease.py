"""Who evaluates alerts: one for the whole fleet, by the coordinator's lease, whatever store each machine has."""

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
def test_machines_with_stores_of_their_own_page_once_and_another_goes_on_when_the_evaluator_dies(
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
        (leader,) = [one for one in services if one.health().part is Part.EVALUATOR]
        leader.stop()
        rest = [one for one in services if one is not leader]
        took = seconds_until(lambda: [one.health().part for one in rest].count(Part.EVALUATOR) == 1)
        print(f"{kind}: handed over in {took:.1f} s")
        assert sum(one.health().part is Part.EVALUATOR for one in rest) == 1


def evaluator(station: Station) -> AlertService:
    return AlertService(station.config, station.instance.recorder, station.instance.coordinator, owner=station.name)
