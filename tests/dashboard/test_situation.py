"""The headline, the cards and the sums say what is going on, and nothing they do not know."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dashboard.happenings import Happening
from dashboard.reading import Latency, Live, Past
from dashboard.situation import (
    covered,
    freshness,
    headline,
    health,
    model_card,
    recovery,
    ribbon,
    summary,
)
from dashboard.wording import Tone
from engine.core.agreement import Document, Override
from engine.core.messages import Role
from engine.queries import AttemptPoint, EventKind, InstanceRow, TrafficPoint

NOW = 1_790_000_040_000
MINUTE = 60_000
NAMES = {"primary": "pro", "secondary": "flash"}
CLOSED = {"state": "closed", "samples": 20, "failures": 0}
OPEN = {"state": "open", "samples": 14, "failures": 9, "retry_in": 12.0}


def traffic(role: str = "primary", outcome: str = "ok", n: int = 100, at: int = NOW - MINUTE) -> TrafficPoint:
    return TrafficPoint(at, role, NAMES.get(role, "none"), outcome, n, n if outcome == "error" else 0, 0.0, 0, 0.0)


def tries(role: str, category: str, n: int) -> AttemptPoint:
    return AttemptPoint(NOW - MINUTE, role, NAMES[role], category, n)


def instance(primary: dict[str, object], secondary: dict[str, object], name: str = "a", **more: object) -> InstanceRow:
    manager = {"lines": {"primary": primary, "secondary": secondary}, "gate_good": 2, "gate_of": 5}
    return InstanceRow(name, "host", "1", 0, NOW, 15_000, {"managers": {"chat": manager}, "queue_length": 0} | more)


CALM = Live(
    NOW,
    "chat",
    NAMES,
    Document(7, since_ms=NOW - 3_600_000),
    instances=(instance(CLOSED, CLOSED),),
    traffic=(traffic(),),
    tries=(tries("primary", "ok", 100),),
    latency={"primary": Latency(900.0, 2400.0, 700.0)},
    last_request_ms=NOW - 2_000,
    last_evaluation_ms=NOW - 5_000,
)
MOVED = replace(
    CALM,
    document=Document(8, Role.SECONDARY, 0.0, since_ms=NOW - 17 * MINUTE, hold_until_ms=NOW + 9_000),
    instances=(instance(OPEN, CLOSED),),
    traffic=(traffic("secondary", n=992), traffic("secondary", "error", 8)),
    tries=(tries("primary", "timeout", 9), tries("secondary", "ok", 992)),
    last_move=Happening(NOW, EventKind.FAILOVER, "x", "chat", "quorum", "secondary", "primary", "secondary"),
)


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


def test_a_card_counts_as_the_breaker_does() -> None:
    live = replace(
        CALM,
        tries=(tries("primary", "ok", 70), tries("primary", "server_error", 30), tries("primary", "rate_limited", 25)),
    )
    figures = {one.label: one.value for one in model_card(live, "primary").figures}
    assert figures["Error rate"] == "30.0 %"
    assert figures["429 share"] == "20.0 %"
    assert figures["p95"] == "2.40 s"


def test_a_card_without_data_says_so() -> None:
    figures = {one.label: one.value for one in model_card(Live(NOW, "chat", document=Document()), "primary").figures}
    assert set(figures.values()) == {"–"}


def test_the_active_card_says_whether_there_is_a_spare() -> None:
    assert model_card(CALM, "primary").spare[1] is Tone.OK
    assert model_card(MOVED, "secondary").spare[1] is Tone.BAD
    assert model_card(MOVED, "primary").spare[0] == ""


def test_what_is_left_before_primary_serves_again() -> None:
    left = {one.label: (one.value, one.done) for one in recovery(MOVED)}
    assert left["Hold"] == ("9 s left", False)
    assert left["Good probes"] == ("2 of 5", False)
    assert recovery(CALM) == ()


def test_a_breaker_that_is_open_on_one_of_three_is_told_as_such() -> None:
    live = replace(
        CALM, instances=(instance(OPEN, CLOSED), instance(CLOSED, CLOSED, "b"), instance(CLOSED, CLOSED, "c"))
    )
    assert "Primary breaker open on 1 of 3 instances, next probe in 12 s." in headline(live).details


def test_callers_mistakes_and_cancellations_are_not_counted() -> None:
    found = health([traffic(), traffic(outcome="cancelled"), replace(traffic(outcome="error"), errors=0)])
    assert (found.answered, found.failed, found.total) == (100, 0, 100)


def move(minutes_ago: int, to: str, cause: str = "quorum") -> Happening:
    return Happening(NOW - minutes_ago * MINUTE, EventKind.FAILOVER, str(minutes_ago), "chat", cause, to, "", to)


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


def test_a_ribbon_has_no_gaps() -> None:
    start = NOW // (5 * MINUTE) * 5 * MINUTE - 60 * MINUTE
    past = Past(start, NOW, 5, "chat", (traffic(at=start),), moves=(move(10, "primary"), move(30, "secondary")))
    for lane in ribbon(past, str):
        assert sum(one.width for one in lane.segments) == pytest.approx(1.0)
        assert lane.segments[0].start == 0


def test_stretches_that_overlap_count_once() -> None:
    assert covered([(0, 10), (5, 20), (30, 40), (32, 35)]) == 30


def test_the_freshness_strip_says_what_is_late() -> None:
    late = replace(
        CALM, last_evaluation_ms=NOW - 10 * MINUTE, instances=(instance(CLOSED, CLOSED, coordinator_up=False),)
    )
    tones = {chip.label: chip.face.tone for chip in freshness(late)}
    assert tones["Last evaluation"] is Tone.WARN
    assert tones["Agreement"] is Tone.WARN
    assert tones["Last request"] is Tone.OK


@pytest.mark.parametrize("found", ["quorum", "breaker_open"], ids=["several hosts", "one host"])
def test_the_cause_of_a_move_is_what_the_model_failed_with_and_not_that_it_was_voted_down(found: str) -> None:
    assert MOVED.last_move is not None
    moved = replace(MOVED, last_move=replace(MOVED.last_move, what=found), tries=(tries("primary", "server_error", 9),))
    assert headline(moved).cause == "server_error"
