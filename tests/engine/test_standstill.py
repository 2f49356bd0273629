"""A process that was stopped for a while, as a paused machine is, blames no model for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import standstill
from tests.children import child, standing_still
from tests.engine.standing import EACH
from tests.upstream import Fault, Upstream

CONFIG = """
[store]
url = "sqlite:///switchgear.db"
[providers.local]
kind = "{kind}"
base_url = "{url}"
api_key_env = "STANDING_KEY"
[models.pro]
provider = "local"
name = "{model}"
[models.flash]
provider = "local"
name = "flash"
[managers.chat]
primary = "pro"
secondary = "flash"
[managers.chat.timeouts]
first_token = "1s"
idle = "1s"
answer = "2500ms"
"""
APPLICATIONS = [
    ("threads", "openai"),
    ("threads", "google-genai"),
    ("threads", "google-generativeai"),
    ("asyncio", "openai"),
    ("asyncio", "google-generativeai"),
]
STOPPED_S = 3.0
"""Longer than any clock of the configuration; meanwhile the models have answered."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.mark.parametrize(("driver", "kind"), APPLICATIONS)
def test_what_came_while_a_process_stood_still_came_in_time(
    upstream: Upstream, tmp_path: Path, driver: str, kind: str
) -> None:
    model, config = f"pro-{driver}-{kind}", tmp_path / "switchgear.toml"
    url = upstream.openai_url if kind == "openai" else upstream.gemini_url
    config.write_text(CONFIG.format(kind=kind, url=url, model=model), encoding="utf-8")
    command = [sys.executable, "-m", "tests.engine.standing", driver, str(config)]
    with child(command, env={**os.environ, "STANDING_KEY": "k"}) as application:
        assert application.stdout is not None
        while (line := application.stdout.readline()) != "ready\n":
            assert line, "it did not start"
        upstream.set(model, Fault(event_delay=0.1, words=45, drip=0.15))
        while len(upstream.seen(model)) < 1 + 2 * EACH:
            time.sleep(0.005)
        with standing_still(application.pid):
            time.sleep(STOPPED_S)
        assert application.stdout.read().splitlines() == ["primary 1"] * 2 * EACH


def test_a_wait_that_ends_in_time_is_not_repeated() -> None:
    asked = list[float]()

    def blocking(seconds: float) -> bool:
        asked.append(seconds)
        time.sleep(seconds)
        return False

    assert not standstill.wait(blocking, 0.01)
    assert asked == [0.01]


def test_a_wait_that_begins_when_its_time_is_long_over_looks_twice() -> None:
    asked = list[float]()
    assert not standstill.wait(asked.append, -1.0)  # type: ignore[arg-type]
    assert asked == [0.0, standstill.CATCH_UP]


@pytest.mark.parametrize("comes", [True, False])
def test_a_wait_that_ends_late_looks_once_more(comes: bool) -> None:
    asked = list[float]()

    def blocking(seconds: float) -> bool:
        asked.append(seconds)
        if len(asked) == 1:
            time.sleep(2 * standstill.STOOD_STILL)
            return False
        return comes

    assert standstill.wait(blocking, 0.01) is comes
    assert asked == [0.01, standstill.CATCH_UP]


def test_a_heart_counts_what_is_missing_between_two_beats_at_once_and_only_once() -> None:
    now = 100.0
    heart = standstill.Heart(lambda: now)
    for _ in range(8):
        now += standstill.BEAT_EVERY + standstill.STOOD_STILL / 2  # a busy machine is late now and then
        assert heart.stood_still() == 0.0
        heart.beat()
    now += standstill.BEAT_EVERY + 60.0
    assert heart.stood_still() == pytest.approx(60.0)  # whoever is on before the next beat knows it too
    heart.beat()
    assert heart.stood_still() == pytest.approx(60.0)
    now += standstill.BEAT_EVERY + 7.0
    heart.beat()
    assert heart.stood_still() == pytest.approx(67.0)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock here counts sleep")
def test_a_machine_that_sleeps_stands_still_although_the_monotonic_clock_does_not_count_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heart, clock = standstill.Heart(), time.clock_gettime
    assert heart.stood_still() < 60.0
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + 8 * 3600 * (which == time.CLOCK_BOOTTIME))
    assert heart.stood_still() >= 8 * 3600 - standstill.BEAT_EVERY


def test_a_process_knows_how_long_it_stood_still() -> None:
    program = "from engine import standstill as s; s.watch(); s.watch(); print(0); input(); print(s.seconds())"
    with child([sys.executable, "-uc", program]) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        with standing_still(process.pid):
            time.sleep(1.5)
        process.stdin.write("\n")
        process.stdin.flush()
        assert float(process.stdout.readline()) > 1.5 - 2 * standstill.BEAT_EVERY


FORKED = """
import os, sys, time
from engine import standstill

standstill.watch()
time.sleep(0.1)
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
time.sleep(2 * (standstill.BEAT_EVERY + standstill.STOOD_STILL))  # nobody beats here
assert standstill.seconds() == 0.0
standstill.watch()
time.sleep(2 * (standstill.BEAT_EVERY + standstill.STOOD_STILL))
os._exit(standstill.seconds() != 0.0)
"""


def test_a_forked_process_does_not_listen_to_the_heart_of_its_parent() -> None:
    ended = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
