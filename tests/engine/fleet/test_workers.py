"""`switchgear serve --workers N` as real processes: one answer for all of them, one evaluator, and a killed one."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.store import Store
from tests.engine.drivers import rows
from tests.patience import eventually, seconds_until
from tests.programs import free_port
from tests.rig import FastModel, Gateway
from tests.rig.load import body_of

ALERTS = """
[alerts]
evaluate_every = "1s"
[fleet]
url = "{url}"
"""


class Workers(Gateway):
    """A gateway of several processes."""

    def __init__(self, folder: Path, upstream: str, *, workers: int, url: str = "store") -> None:
        super().__init__(folder, upstream, extra=ALERTS.format(url=url))
        self._arguments += ["--workers", str(workers)]

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30.0) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith("{") else text

    def ask(self) -> int:
        request = urllib.request.Request(
            f"{self.url}/chat/completions", body_of(), {"content-type": "application/json", "connection": "close"}
        )
        with urllib.request.urlopen(request, timeout=30.0) as answer:
            answer.read()
            return int(answer.status)

    def total(self, name: str) -> float:
        """All series of a metric together."""
        lines = [line for line in self.get("/metrics").splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.split()[-1]) for line in lines)

    def evaluator(self) -> str:
        """Who has the lease."""
        return str(self.one("SELECT owner FROM leases WHERE name = 'evaluator'"))

    def one(self, statement: str) -> Any:
        """The first value of a row, `None` without one."""
        with Store(self.store).reader() as connection:
            row = connection.execute(statement).fetchone()
        return None if row is None else row[0]


@pytest.fixture
def model(tmp_path: Path) -> Iterator[FastModel]:
    with FastModel(tmp_path) as made:
        yield made


def test_two_workers_count_as_one_service_and_hand_the_evaluation_over_when_killed(
    model: FastModel, tmp_path: Path
) -> None:
    with Workers(tmp_path, model.url, workers=2) as served:
        eventually(lambda: len(served.get("/api/v1/status")["instances"]) == 2)
        for _ in range(60):
            assert served.ask() == 200
        status = served.get("/api/v1/status")
        assert status["managers"]["chat"]["requests"] == 60
        assert {seat["host"] for seat in status["managers"]["chat"]["fleet"]["seats"]} == {os.uname().nodename}
        assert status["managers"]["chat"]["fleet"]["live_hosts"] == 1, "processes of a host have one vote"
        for _ in range(6):  # whichever process answers
            assert served.total("dualmodelmanager_requests_total") == 60
            assert served.total("dualmodelmanager_active_model") == 1
        answered_by = {row["instance"] for row in rows(served.store, "requests")}
        assert len(answered_by) > 1, "the load is spread"
        first = served.evaluator()
        changes = "SELECT count(*) FROM alert_transitions WHERE rule = 'Watchdog'"
        eventually(lambda: served.one(changes))
        before = served.one(changes)
        os.kill(int(first.split("-")[-2]), signal.SIGKILL)
        took = seconds_until(lambda: served.evaluator() != first)
        print(f"another one evaluates {took:.1f} s after the evaluator was killed")
        assert served.ask() == 200
        assert served.one(changes) == before, "no alert fires twice"


def test_a_gateway_whose_coordinator_is_not_there_starts_serves_and_says_so_in_a_line(
    model: FastModel, tmp_path: Path
) -> None:
    port = free_port()
    with Workers(tmp_path, model.url, workers=1, url=f"redis://127.0.0.1:{port}/0") as served:
        assert served.ask() == 200
        ready = served.get("/readyz")
        assert ready["status"] == "ready"
        (check,) = [check for check in ready["checks"] if check["name"] == "coordinator"]
        assert check["ok"] is False
        assert f"127.0.0.1:{port}" in check["detail"]
        eventually(lambda: "dualmodelmanager_coordinator_up 0.0" in served.get("/metrics"))
        said = [line for line in served.log.splitlines() if f":{port}" in line]
        assert len(said) == 1, served.log
        assert "fleet.url" in said[0]
        assert "primary serves, until it is back" in said[0]
        assert "Traceback" not in served.log
