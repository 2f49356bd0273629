"""Requests and time are counted once, and only where they say something about the service."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from snapshots import MINUTE, NOW, move, traffic

from dashboard.availability import covered, health, summary
from dashboard.reading import Past, read_past
from dashboard.times import DAY_MS
from engine.hours import roll_up_due
from tests.alerts.world import START_MS, World, open_recorder, request


def test_callers_mistakes_and_cancellations_are_not_counted() -> None:
    found = health([traffic(), traffic(outcome="cancelled"), replace(traffic(outcome="error"), errors=0)])
    assert (found.answered, found.failed, found.total) == (100, 0, 100)


def test_the_two_figures_every_team_asks_for() -> None:
    past = Past(NOW - 60 * MINUTE, NOW, 5, "chat", moves=(move(10, "primary", "failback"), move(30, "secondary")))
    found = summary(past)
    assert found.on_secondary_ms == 20 * MINUTE
    assert found.degraded_ms == 20 * MINUTE
    assert found.moves == 1


def test_a_planned_stay_on_the_secondary_is_not_degraded() -> None:
    past = Past(
        NOW - 60 * MINUTE, NOW, 5, "chat", moves=(move(10, "primary", "override"), move(30, "secondary", "override"))
    )
    assert summary(past).degraded_ms == 0
    assert summary(past).on_secondary_ms == 20 * MINUTE


def test_stretches_that_overlap_count_once() -> None:
    assert covered([(0, 10), (5, 20), (30, 40), (32, 35)]) == 30


@pytest.mark.parametrize(("days", "degraded"), [(1, 2 * 5 * MINUTE), (7, 2 * 60 * MINUTE), (30, 2 * 60 * MINUTE)])
def test_a_few_bad_minutes_are_no_bad_hour_but_over_a_week(tmp_path: Path, days: int, degraded: int) -> None:
    world = World(open_recorder(tmp_path))
    begin = START_MS // (5 * MINUTE) * 5 * MINUTE
    now = begin + DAY_MS // 2
    for minute in range(180):
        bad = minute in (62, 63, 118)  # two five-minute bins of three hours
        ended = {"outcome": "error", "status_code": 503} if bad else {}
        world.record(*(request(begin + minute * MINUTE + n, **ended) for n in range(3)))
    roll_up_due(world.recorder, now_ms=now)
    with world.recorder.store.reader() as connection:
        found = summary(read_past(connection, "chat", now, days * DAY_MS, sums_only=True))
    world.recorder.close()
    assert found.degraded_ms == degraded
    assert (found.health.answered, found.health.failed) == (177 * 3, 9)
    assert found.degraded_share == found.degraded_ms / found.span_ms
