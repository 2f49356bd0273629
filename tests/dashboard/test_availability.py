"""Requests and time are counted once, and only where they say something about the service."""

from __future__ import annotations

from dataclasses import replace

from snapshots import MINUTE, NOW, move, traffic

from dashboard.availability import covered, health, summary
from dashboard.reading import Past


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
