"""A real Alertmanager that is told our alerts, and a real Prometheus that scrapes us and fires the shipped rules."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from alerts.service import AlertService
from engine.clock import SystemClock
from engine.config import Config
from engine.metrics import Exposition
from engine.shipped import shipped
from tests import patience
from tests.alerts.listener import Listener
from tests.alerts.world import World, move, open_recorder
from tests.programs import free_port, require_program

RULES = '[[rules]]\nalert = "OnSecondary"\nexpr = \'active_model == "secondary"\'\nlabels = { severity = "critical" }\n'


@contextmanager
def running(folder: Path, *command: str) -> Iterator[None]:
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


eventually = partial(patience.eventually, within=60.0, every=0.1, despite=(OSError,))
"""Waits for servers that take their time, and are not there at first."""


@pytest.mark.server
def test_alertmanager_shows_our_alerts_and_their_resolution(make_config: Callable[..., Config], tmp_path: Path) -> None:
    program, port = require_program("alertmanager"), free_port()
    (tmp_path / "alerts.toml").write_text(RULES)
    with Listener() as ops:
        (tmp_path / "am.yml").write_text(
            "route: {receiver: ops, group_wait: 0s, group_interval: 1s}\n"
            f"receivers: [{{name: ops, webhook_configs: [{{url: '{ops.url}'}}]}}]\n"
        )
        command = [
            program,
            "--config.file=am.yml",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            "--storage.path=am",
        ]
        config = make_config(
            '[alerts]\nevaluate_every = "200ms"\n[[alerts.receivers]]\nname = "am"\nkind = "alertmanager"\n'
            f'url = "http://127.0.0.1:{port}"\nallow_private = true\n'
        )
        recorder = open_recorder(tmp_path)
        world = World(recorder, SystemClock())
        with running(tmp_path, *command):
            base = f"http://127.0.0.1:{port}/api/v2"
            eventually(lambda: get(f"{base}/status"))
            service = AlertService(config, recorder)
            service.start()
            try:
                world.agree("secondary")
                (alert,) = eventually(lambda: get(f"{base}/alerts"))
                assert alert["labels"] == {"alertname": "OnSecondary", "manager": "chat", "severity": "critical"}
                (row,) = world.rows("SELECT fingerprint FROM alert_states")
                assert alert["fingerprint"] == row[0]
                assert ops.wait_for(1)[0].json["status"] == "firing"
                world.agree("primary")
                eventually(lambda: get(f"{base}/alerts") == [])
                assert ops.wait_for(2)[-1].json["status"] == "resolved"
            finally:
                service.stop()
                recorder.close()


@pytest.mark.server
def test_prometheus_scrapes_us_fires_the_shipped_rules_and_answers_the_grafana_board(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    program, port = require_program("prometheus"), free_port()
    config = make_config('[[alerts.receivers]]\nname = "ops"\nkind = "webhook"\nurl = "https://example.com"\n')
    recorder = open_recorder(tmp_path)
    world = World(recorder, SystemClock())
    world.agree("primary")
    world.beat("w", {"primary": "closed", "secondary": "closed"}, queue_length=0, coordinator_up=True)
    world.execute("INSERT INTO marks (name, ts_ms) VALUES ('evaluation', ?)", [world.clock.wall_ms()])
    exposition = Exposition(recorder.store, config)
    with Listener(
        lambda letter, n: (200, {"Content-Type": "text/plain; version=0.0.4"}, exposition.render()[0])
    ) as metrics:
        (tmp_path / "p.yml").write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n"
            f"rule_files: ['{shipped('prometheus') / 'rules.yml'}']\n"
            f"scrape_configs: [{{job_name: switchgear, static_configs: [{{targets: ['127.0.0.1:{metrics.port}']}}]}}]\n"
        )
        command = [program, "--config.file=p.yml", f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.path=tsdb"]

        def firing() -> set[str]:
            found = get(f"http://127.0.0.1:{port}/api/v1/alerts")["data"]["alerts"]
            return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

        def health() -> set[str]:
            groups = get(f"http://127.0.0.1:{port}/api/v1/rules")["data"]["groups"]
            return {rule["health"] for group in groups for rule in group["rules"]}

        with running(tmp_path, *command):
            eventually(lambda: "Watchdog" in firing())
            eventually(lambda: health() == {"ok"}, told=health)
            assert firing() == {"Watchdog"}
            # Two scrapes first, so that increase() has a beginning.
            query = "min(count_over_time(dualmodelmanager_failover_events_total[1m])) >= 2"
            look = f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}"
            eventually(lambda: get(look)["data"]["result"])
            now = world.clock.wall_ms()
            world.record(*(move(now, epoch) for epoch in range(1, 6)))
            world.beat("w", {"primary": "open", "secondary": "forced_open"}, queue_length=0, coordinator_up=True)
            eventually(lambda: {"FailoverStorm", "BothModelsUnavailable"} <= firing(), told=firing)
            silent = {
                query
                for query in panels()
                if not get(f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}")["data"]["result"]
            }
            assert silent == set(), "a panel shows nothing"
    recorder.close()


def panels() -> set[str]:
    """Every query of the Grafana board, as Grafana asks it."""
    board = json.loads((shipped("grafana") / "switchgear.json").read_text())
    found = {target["expr"] for panel in board["panels"] for target in panel["targets"]}
    for variable, value in (("$manager", ".*"), ("$__rate_interval", "1m"), ("$__interval", "1m")):
        found = {query.replace(variable, value) for query in found}
    assert len(found) > 20
    assert not any("$" in query for query in found)
    return found


def test_every_metric_that_rules_and_the_dashboard_name_is_exposed(config: Config, tmp_path: Path) -> None:
    recorder = open_recorder(tmp_path)
    text = Exposition(recorder.store, config).render()[0].decode()
    recorder.close()
    exposed = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    for path in (shipped("prometheus") / "rules.yml", shipped("grafana") / "switchgear.json"):
        named = set(re.findall(r"dualmodelmanager_\w+", path.read_text()))
        assert len(named) > 10
        assert {name for name in named if re.sub(r"_bucket$", "", name) not in exposed} == set()


def test_the_dashboard_is_what_grafana_imports() -> None:
    board = json.loads((shipped("grafana") / "switchgear.json").read_text())
    assert board["uid"] == "switchgear"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 15
    for panel in board["panels"]:
        assert panel["title"]
        assert all(target["expr"] for target in panel["targets"])
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
