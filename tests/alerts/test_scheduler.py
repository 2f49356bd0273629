"""Duties go on whatever the clock on the wall does, and whatever one of them does."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apscheduler.executors.base
import apscheduler.schedulers.base
import apscheduler.triggers.interval
import pytest

import alerts.scheduler
from alerts.scheduler import Duty, Scheduler
from alerts.service import AlertService
from engine.config import Config
from tests.alerts.world import open_recorder
from tests.patience import eventually


class Wall(dt.datetime):
    """A wall clock that a test sets."""

    ahead = dt.timedelta()

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
        return dt.datetime.now(tz) + cls.ahead


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Wall]]:
    for module in (
        alerts.scheduler,
        apscheduler.schedulers.base,
        apscheduler.triggers.interval,
        apscheduler.executors.base,
    ):
        monkeypatch.setattr(module, "datetime", Wall)
    yield Wall
    Wall.ahead = dt.timedelta()


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_set_stops_no_duty(wall: type[Wall], hours: int) -> None:
    runs: list[float] = []
    scheduler = Scheduler([Duty("often", 0.1, lambda: runs.append(0.0)), Duty("seldom", 3600.0, lambda: None)])
    scheduler.start()
    try:
        eventually(lambda: len(runs) > 2)
        wall.ahead = dt.timedelta(hours=hours)
        scheduler.mind_the_clock()
        before = len(runs)
        eventually(lambda: len(runs) > before + 3)
    finally:
        scheduler.stop()


def test_what_is_due_in_time_is_left_alone(wall: type[Wall]) -> None:
    del wall
    runs: list[float] = []
    scheduler = Scheduler([Duty("later", 60.0, lambda: runs.append(0.0), at_once=False)])
    scheduler.start()
    try:
        for _ in range(20):
            scheduler.mind_the_clock()
        time.sleep(0.2)
        assert runs == []
    finally:
        scheduler.stop()
    scheduler.mind_the_clock()


def test_rules_are_evaluated_after_the_clock_went_back_two_hours(
    make_config: Callable[..., Config], tmp_path: Path, wall: type[Wall]
) -> None:
    """They were not for two hours: the scheduler waited for a time that had been."""
    (tmp_path / "alerts.toml").write_text("[[rules]]\nalert = \"Always\"\nexpr = 'true'\n")
    recorder = open_recorder(tmp_path)
    service = AlertService(make_config('[alerts]\nevaluate_every = "200ms"\n'), recorder, owner="a")
    ticks = []
    tick = service.ticker.tick
    service.ticker.tick = lambda rules, *lost: (ticks.append(rules is not None), tick(rules, *lost))[1]  # type: ignore[method-assign]
    service.start()
    try:
        eventually(lambda: sum(ticks) > 2)
        wall.ahead = dt.timedelta(hours=-2)
        before = sum(ticks)
        eventually(lambda: sum(ticks) > before + 3)
        assert service.health().ok
    finally:
        service.stop()
        recorder.close()


def test_a_duty_that_fails_or_hangs_stops_no_other() -> None:
    runs: list[float] = []
    go_on = threading.Event()

    def fail() -> None:
        msg = "no"
        raise ValueError(msg)

    scheduler = Scheduler(
        [Duty("fails", 0.05, fail), Duty("hangs", 0.05, go_on.wait), Duty("works", 0.05, lambda: runs.append(0.0))]
    )
    scheduler.start()
    try:
        eventually(lambda: len(runs) > 5 and scheduler.troubles["fails: error"] > 5)
        assert scheduler.troubles["hangs: still running"] > 0
    finally:
        go_on.set()
        scheduler.stop()
