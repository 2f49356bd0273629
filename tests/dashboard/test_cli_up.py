"""`switchgear up` as a process: two children, one log, one end."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.dashboard.running import PATIENCE, SWITCHGEAR, Place, Running, ask, listens, running
from tests.patience import eventually


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def child_of(process: Running, module: str) -> psutil.Process:
    """The gateway's or the dashboard's process."""
    children = psutil.Process(process.process.pid).children()
    return next(child for child in children if module in child.cmdline())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_starts_both_and_one_signal_stops_both(place: Place, number: signal.Signals) -> None:
    with running("up", "--config", str(place.path)) as process:
        process.wait_for_line(f"switchgear: dashboard http://127.0.0.1:{place.page_port}")
        assert f"switchgear: gateway   {place.url}  (OpenAI-compatible: /v1)" in process.lines
        ask(place)
        with urllib.request.urlopen(f"http://127.0.0.1:{place.page_port}/", timeout=60) as page:
            assert page.status == 200
        children = psutil.Process(process.process.pid).children(recursive=True)
        assert len(children) >= 2
        assert process.stop(number) == 0
        assert psutil.wait_procs(children, timeout=30)[1] == []
        marks = ("switchgear: ", "  gateway │ ", "dashboard │ ")
        assert [line for line in process.lines if not line.startswith(marks)] == []
        assert "Traceback" not in process.said
    assert not listens(place.port)
    assert not listens(place.page_port)


@pytest.mark.parametrize(("module", "name"), [("dashboard.cli", "gateway"), ("dashboard.serve", "dashboard")])
def test_when_one_dies_the_other_is_stopped_and_the_exit_code_is_1(place: Place, module: str, name: str) -> None:
    with running("up", "--config", str(place.path)) as process:
        process.wait_for_line("switchgear: dashboard http://")
        children = psutil.Process(process.process.pid).children(recursive=True)
        os.kill(child_of(process, module).pid, signal.SIGKILL)
        assert process.end() == 1
        assert psutil.wait_procs(children, timeout=30)[1] == []
        line = f"switchgear: the {name} was ended by SIGKILL; its last lines are above, everything is stopped"
        assert process.lines[-1] == line


def test_it_stops_both_although_nobody_reads_what_it_says(place: Place) -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        [str(SWITCHGEAR), "up", "--config", str(place.path)], stdout=write, stderr=write, start_new_session=True
    )
    os.close(write)
    os.close(read)
    eventually(lambda: listens(place.port) and listens(place.page_port), PATIENCE, every=0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert psutil.wait_procs(children, timeout=30)[1] == []
