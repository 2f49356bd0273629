"""The headline says the worst thing that is true, and nothing that is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from snapshots import CALM, CLOSED, MINUTE, MOVED, NOW, OPEN, instance, traffic, tries

from dashboard.headline import headline
from dashboard.reading import Live
from dashboard.wording import Tone
from engine.core.agreement import Document, Override
from engine.core.messages import Role


def test_all_is_well() -> None:
    told = headline(CALM)
    assert (told.face.word, told.face.tone) == ("Healthy", Tone.OK)
    assert told.text == "Serving from primary (pro) for 1 h"
    assert told.cause is None


def test_serving_from_the_secondary_names_the_model_the_breaker_and_the_cause() -> None:
    told = headline(MOVED)
    assert told.face.word == "Degraded"
    assert told.text == "Serving from secondary (flash) for 17 min"
    assert told.details == ("99.2 % answered in 5 min, 8 failed.", "Primary breaker open, next probe in 12 s.")
    assert told.cause == "timeout"


def test_both_models_unavailable_is_down_with_the_time_of_the_next_probe() -> None:
    told = headline(replace(MOVED, instances=(instance(OPEN, OPEN),)))
    assert told.face.word == "Down"
    assert "Next probe in 12 s" in told.text


def test_not_one_answer_is_down() -> None:
    assert headline(replace(CALM, traffic=(traffic(outcome="error"),))).face.word == "Down"


def test_many_errors_are_degraded_although_primary_is_active() -> None:
    told = headline(
        replace(
            CALM, traffic=(traffic(n=90), traffic(outcome="shed", n=10)), tries=(tries("primary", "rate_limited", 10),)
        )
    )
    assert told.face.word == "Degraded"
    assert told.cause == "rate_limited"


def test_what_was_shed_without_an_attempt_is_explained_by_the_limit_and_not_by_the_errors_of_every_day() -> None:
    told = headline(
        replace(CALM, traffic=(traffic(n=90), traffic(outcome="shed", n=30)), tries=(tries("primary", "timeout", 2),))
    )
    assert told.cause == "rate_limited"


def test_an_outage_of_half_an_hour_ago_does_not_explain_what_fails_now() -> None:
    old = replace(tries("primary", "server_error", 80), start_ms=NOW - 30 * MINUTE)
    found = replace(CALM, traffic=(traffic(n=90), traffic(outcome="error", n=9)))
    assert headline(replace(found, tries=(old, tries("primary", "timeout", 9)))).cause == "timeout"
    assert headline(replace(found, tries=(old,))).cause == "server_error"


def test_no_traffic_is_quiet_and_not_healthy() -> None:
    assert headline(replace(CALM, traffic=())).face.word == "Quiet"


def test_a_pin_is_told_with_who_and_why() -> None:
    pin = Override(Role.SECONDARY, True, "maintenance", "ana", 1800.0, NOW + 1_800_000, 9)
    told = headline(replace(MOVED, document=replace(MOVED.document or Document(), override=pin)))
    assert told.face.word == "Pinned"
    assert "without fallback by ana" in told.text
    assert told.details[0] == "“maintenance”."


def test_nothing_recorded_is_said_and_not_guessed() -> None:
    assert headline(Live(NOW, "chat")).face.word == "Nothing recorded"


def test_a_breaker_that_is_open_on_one_of_three_is_told_as_such() -> None:
    live = replace(
        CALM, instances=(instance(OPEN, CLOSED), instance(CLOSED, CLOSED, "b"), instance(CLOSED, CLOSED, "c"))
    )
    assert "Primary breaker open on 1 of 3 instances, next probe in 12 s." in headline(live).details


@pytest.mark.parametrize("found", ["quorum", "breaker_open"], ids=["several hosts", "one host"])
def test_the_cause_of_a_move_is_what_the_model_failed_with_and_not_that_it_was_voted_down(found: str) -> None:
    assert MOVED.last_move is not None
    moved = replace(MOVED, last_move=replace(MOVED.last_move, what=found), tries=(tries("primary", "server_error", 9),))
    assert headline(moved).cause == "server_error"
