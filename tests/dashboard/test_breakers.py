"""A breaker over all instances is one state, from whoever knows it best."""

from __future__ import annotations

from dataclasses import replace

import pytest
from snapshots import CALM, CLOSED, NOW, OPEN, instance

from dashboard.breakers import breaker, refused
from dashboard.happenings import Happening
from engine.queries import EventKind

OPENED = Happening(
    NOW - 5_000,
    EventKind.BREAKER,
    "x",
    "chat",
    "open",
    "primary",
    "closed",
    "open",
    reason="failure_rate",
    evidence={"samples": 14, "failures": 9, "retry_in": 12.0},
)


def test_the_worst_instance_decides() -> None:
    found = breaker(replace(CALM, instances=(instance(CLOSED, CLOSED), instance(OPEN, CLOSED, "b"))), "primary")
    assert (found.state, found.is_open, found.open_on, found.instances) == ("open", True, 1, 2)


def test_a_living_process_is_believed_over_the_record() -> None:
    assert breaker(replace(CALM, breakers={"primary": OPENED}), "primary").state == "closed"


def test_where_no_process_lives_the_last_record_counts_and_its_wait_goes_on() -> None:
    lost = replace(instance(CLOSED, CLOSED), updated_ms=NOW - 60_000)
    found = breaker(replace(CALM, instances=(lost,), breakers={"primary": OPENED}), "primary")
    assert (found.state, found.instances) == ("open", 0)
    assert found.retry_in == pytest.approx(7.0)
    assert found.detail == "failure rate over the threshold: 9 of 14 calls failed"


def test_a_model_that_an_instance_may_not_ask_is_told_with_the_reason() -> None:
    closed = CLOSED | {"unavailable": {"category": "auth", "for": 30.0}}
    live = replace(CALM, instances=(instance(CLOSED, CLOSED), instance(closed, CLOSED, "b")))
    assert refused(live, "primary") == "Credentials rejected: not asked for 30 s"
    assert refused(live, "secondary") == ""
