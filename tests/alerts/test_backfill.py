"""A backfilled past is what an evaluator would have left behind, had one been running."""

from __future__ import annotations

import json
import random
from typing import Any

from alerts import queries
from alerts.backfill import STEP_MS, backfill
from alerts.rules import Rule, parse_rules
from alerts.tick import Ticker
from engine.ids import time_of
from tests.alerts.world import World, breaker, request

STEP_S = STEP_MS / 1000
RULES = """
[[rules]]
alert = "Errors"
expr = 'error_rate("2m") > 0.3'
for = "1m"
keep_firing_for = "1m"
annotations = { summary = "{{ value | percent }} of {{ manager }} for {{ duration }}" }
[[rules]]
alert = "Secondary"
expr = 'active_model == "secondary"'
for = "2m"
labels = { severity = "critical" }
[[rules]]
alert = "Restless"
expr = 'breaker_transitions("3m") > 2'
[[rules]]
alert = "Always"
expr = "true"
scope = "store"
[[rules]]
alert = "Queue"
expr = 'recorder_queue >= 0'
scope = "store"
"""


def rules(*without: str) -> tuple[Rule, ...]:
    return tuple(rule for rule in parse_rules(RULES).rules if rule.alert not in without)


def agree(world: World, active: str) -> None:
    world.agree(active)
    world.execute(
        "INSERT INTO agreements SELECT manager, epoch, updated_ms, 'i', ?, 1.0, NULL, 'quorum', 0, document"
        " FROM fleet_state",
        [active],
    )


def live(world: World, steps: int, ticker: Ticker | None = None) -> None:
    """Let things happen, and look as often as a backfill does."""
    chance = random.Random(5)
    for step in range(steps):
        start = world.clock.wall_ms()
        world.clock.pass_(STEP_S)
        bad = step % 40 in range(8, 20)
        for n in range(4):
            failed = chance.random() < (0.6 if bad else 0.1)
            outcome = {"outcome": "error", "status_code": 503} if failed else {}
            world.record(request(start + 1 + n, **outcome))
        if step % 40 in (9, 19):
            agree(world, "secondary" if step % 40 == 9 else "primary")
        if bad and step % 3 == 0:
            world.record(breaker(start + 9, "open"), breaker(start + 10, "closed", "open"))
        if ticker is not None:
            ticker.tick(rules("Queue"))


def transitions(world: World) -> list[tuple[Any, ...]]:
    return world.rows(
        "SELECT ts_ms, rule, fingerprint, manager, from_state, to_state, value, annotations FROM alert_transitions"
        " ORDER BY seq"
    )


def states(world: World) -> list[tuple[Any, ...]]:
    with world.recorder.store.reader() as connection:
        return sorted(queries.alert_states(connection))


def test_it_leaves_what_an_evaluator_would_have_left(world: World) -> None:
    agree(world, "primary")
    begin = world.clock.wall_ms()
    world.clock.wall -= 1  # looks are at the last millisecond of a step
    live(world, 100, Ticker(world.recorder, world.clock, ["chat"], (), "https://x", "a"))
    watched, remembered = transitions(world), states(world)
    for table in ("alert_transitions", "alert_states", "marks"):
        world.execute(f"DELETE FROM {table}")
    told = backfill(world.recorder, rules(), ["chat"], begin, world.clock.wall_ms() + 1)
    assert transitions(world) == watched
    assert states(world) == remembered
    assert len(told) == len(watched)
    assert {(rule, after) for _, rule, *_, after, _, _ in watched} >= {
        ("Errors", "firing"), ("Errors", "resolved"), ("Secondary", "firing"), ("Restless", "firing"),
        ("Always", "firing"),
    }  # fmt: skip


def test_ids_hold_the_time_of_the_past(world: World) -> None:
    agree(world, "primary")
    begin = world.clock.wall_ms()
    live(world, 30)
    backfill(world.recorder, rules(), ["chat"], begin, world.clock.wall_ms())
    rows = world.rows("SELECT id, ts_ms FROM alert_transitions ORDER BY seq")
    assert len(rows) > 3
    assert [time_of(identifier) for identifier, _ in rows] == [ts_ms for _, ts_ms in rows]


def test_what_only_the_present_knows_has_no_past(world: World) -> None:
    agree(world, "primary")
    begin = world.clock.wall_ms()
    live(world, 10)
    backfill(world.recorder, rules(), ["chat"], begin, world.clock.wall_ms())
    assert world.rows("SELECT 1 FROM alert_transitions WHERE rule = 'Queue'") == []


def test_an_evaluator_goes_on_from_it_and_fires_nothing_again(world: World) -> None:
    agree(world, "secondary")
    begin = world.clock.wall_ms()
    world.clock.pass_(600)
    backfill(world.recorder, rules(), ["chat"], begin, world.clock.wall_ms())
    before = transitions(world)
    assert ("Secondary", "firing") in {(row[1], row[5]) for row in before}
    world.clock.pass_(15)
    report = Ticker(world.recorder, world.clock, ["chat"], (), "https://x", "a").tick(rules("Queue", "Errors"))
    assert report.transitions == ()
    body = next(json.loads(row[-1]) for row in states(world) if row[1] == "Secondary")
    assert body["alert"]["active_ms"] == begin


def test_it_says_how_far_it_is(world: World) -> None:
    agree(world, "primary")
    begin = world.clock.wall_ms()
    world.clock.pass_(300)
    seen: list[float] = []
    backfill(world.recorder, rules(), ["chat"], begin, world.clock.wall_ms(), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
