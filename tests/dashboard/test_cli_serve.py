"""`switchgear serve` and `watch` as processes: they serve, they stop cleanly, and a worker that dies is replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.children import standing_still
from tests.dashboard.running import Place, Running, ask, fetch, listens, running, serving


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_ends_with_0_when_told_to_stop(place: Place, number: signal.Signals) -> None:
    with serving(place) as process:
        assert process.lines[0] == f"switchgear: gateway on {place.url}"
        assert ask(place)["x-switchgear-role"] == "primary"
        assert process.stop(number) == 0
        assert "Traceback" not in process.said
        assert "uvicorn" not in process.said
    assert not listens(place.port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_dashboard_alone_ends_with_0_when_told_to_stop(place: Place, number: signal.Signals) -> None:
    with running("dashboard", "--config", str(place.path)) as process:
        process.wait_for(lambda: listens(place.page_port), "listened")
        assert process.stop(number) == 0
        assert "Traceback" not in process.said
    assert not listens(place.page_port)


IN_A_CALLBACK = """
import signal, weakref
from pathlib import Path
import streamlit.starlette
from dashboard import serve
from engine.config import load

class Thing: pass

class App:
    def __init__(self, *_, **__): pass

    def run(self, **_):
        thing = Thing()
        watched = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
        del thing  # an exception in the callback would be swallowed here
        raise SystemExit("it went on")

streamlit.starlette.App = App
serve.run(load(Path("{config}")))
"""
BEFORE_UVICORN = """
import signal, sys
import uvicorn
from dashboard.cli import main

run = uvicorn.Server.run
uvicorn.Server.run = lambda *args, **given: (signal.raise_signal(signal.SIGTERM), run(*args, **given))
sys.argv = ["switchgear", "serve", "--config", "{config}"]
main()
"""


@pytest.mark.parametrize("program", [IN_A_CALLBACK, BEFORE_UVICORN])
def test_a_signal_at_a_bad_moment_is_obeyed_all_the_same(place: Place, program: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", program.format(config=place.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_stream_that_is_open_is_finished_before_it_stops(place: Place) -> None:
    body = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "tell me a long story"}]}
    request = urllib.request.Request(
        f"{place.url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with serving(place) as process, urllib.request.urlopen(request, timeout=30) as answer:
        first = answer.readline()
        process.process.send_signal(signal.SIGTERM)
        rest = answer.read()
        assert first.startswith(b"data: {")
        assert b"data: [DONE]" in rest
        assert process.end() == 0


def workers_of(place: Place, process: Running) -> set[int]:
    """The two processes that answer."""
    found: set[int] = set()

    def both_answered() -> bool:
        found.add(int(fetch(f"{place.url}/healthz")[1]["instance"].split("-")[-2]))
        return len(found) == 2

    process.wait_for(both_answered, "answered from two processes")
    return found


def test_two_workers_both_serve_and_both_stop(place: Place) -> None:
    with serving(place, "--workers", "2") as process:
        workers_of(place, process)
        ask(place)
        children = psutil.Process(process.process.pid).children(recursive=True)
        assert process.stop() == 0
        assert psutil.wait_procs(children, timeout=30)[1] == []
        assert "Traceback" not in process.said
        assert "uvicorn" not in process.said


def test_a_worker_that_is_stopped_for_some_seconds_is_not_killed_with_all_that_it_serves(place: Place) -> None:
    with serving(place, "--workers", "2") as process:
        workers = workers_of(place, process)
        with standing_still(*workers):
            time.sleep(5.7)
        assert workers_of(place, process) == workers


def test_a_worker_that_is_killed_is_replaced(place: Place) -> None:
    with serving(place, "--workers", "2") as process:
        victim = int(fetch(f"{place.url}/healthz")[1]["instance"].split("-")[-2])
        os.kill(victim, signal.SIGKILL)
        names: set[str] = set()

        def two_others_answered() -> bool:
            _, body, _ = fetch(f"{place.url}/healthz")
            if body is not None:
                names.add(body["instance"])
            return len([name for name in names if f"-{victim}-" not in name]) == 2

        process.wait_for(two_others_answered, "served by two processes again")
        assert f"worker {victim} ended" in process.said
        assert process.stop() == 0


def test_watch_serves_control_and_metrics_and_no_models(place: Place) -> None:
    with running("watch", "--config", str(place.path)) as process:
        process.wait_for(lambda: fetch(f"{place.url}/readyz")[0] == 200, "ready")
        assert fetch(f"{place.url}/api/v1/status")[0] == 200
        assert fetch(f"{place.url}/v1/models")[0] == 404
        with urllib.request.urlopen(f"{place.url}/metrics", timeout=30) as answer:
            assert b"dualmodelmanager_build_info" in answer.read()
        assert process.stop() == 0


def test_port_0_lets_the_system_choose_and_says_what_it_chose(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    place.path.write_text(place.path.read_text().replace(f"port = {place.port}", "port = 0"))
    with running("serve", "--config", str(place.path)) as process:
        process.wait_for_line("switchgear: gateway on http://127.0.0.1:")
        url = next(line for line in process.lines if "gateway on" in line).split()[-1]
        assert not url.endswith(":0")
        process.wait_for(lambda: fetch(f"{url}/healthz")[0] == 200, "alive")
        assert process.stop() == 0
