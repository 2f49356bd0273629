"""The resolved contract under whatever may happen at once: restarts, steps of the clock, silences, edits, hand-over."""

from __future__ import annotations

import json
import random
from collections import defaultdict

import pytest

from alerts import silences
from alerts.rules import parse_rules
from tests.alerts.test_tick import Desk, receiver
from tests.alerts.world import World, request

RULES = """
[[rules]]
alert = "Level"
expr = 'active_model == "secondary"'
for = "{hold}"
keep_firing_for = "{keep}"
labels = {{ severity = "{severity}" }}
[[rules]]
alert = "Window"
expr = 'errors("1m") > {limit}'
labels = {{ severity = "{severity}" }}
"""
CALM = {"hold": "0s", "keep": "0s", "severity": "critical", "limit": 0}


class Chaos:
    """Two receivers, two rules, and one thing after another."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rand = random.Random(seed)
        self.desk = Desk(
            world, RULES.format(**CALM), receiver("ops"), receiver("some", matchers=['severity="critical"'])
        )
        self.silences: list[str] = []

    def act(self) -> None:
        rand, world, desk = self.rand, self.world, self.desk
        match rand.randrange(11):
            case 0 | 1:
                world.agree(rand.choice(["primary", "secondary"]))
            case 2 | 3:
                world.record(request(world.clock.wall, outcome="error", status_code=502))
            case 4:
                speaks = desk.speaks
                desk.restart(rand.choice("abc"))
                desk.speaks = speaks
            case 5:
                world.clock.step(rand.choice([-7200, -60, 60, 7200]))
                if rand.random() < 0.5:
                    desk.restart()
            case 6:
                found = silences.add(
                    world.recorder,
                    [rand.choice(['alertname="Level"', 'alertname="Window"', 'manager="chat"'])],
                    seconds=rand.choice([30, 300]),
                    author="ana",
                    reason="r",
                    now_ms=world.clock.wall,
                )
                self.silences.append(found.id)
            case 7:
                desk.rules = parse_rules(
                    RULES.format(
                        hold=rand.choice(["0s", "30s"]),
                        keep=rand.choice(["0s", "40s"]),
                        severity=rand.choice(["critical", "warning"]),
                        limit=rand.choice([0, 1]),
                    )
                ).rules
                if rand.random() < 0.3:
                    desk.rules = desk.rules[:1]
            case 8:
                desk.speaks = rand.random() < 0.6
            case 9:  # another configuration, with which a process begins
                matchers = rand.choice([[], ['severity="critical"'], ['severity="info"']])
                desk.receivers = (desk.receivers[0], receiver("some", matchers=matchers))
                desk.restart()
        self.tick(rand.choice([1, 15, 40]))

    def tick(self, after: float) -> None:
        self.desk.tick(after)
        self.world.execute("UPDATE outbox SET state = 'delivered' WHERE state = 'pending'")

    def calm_down(self) -> None:
        self.desk.speaks = True
        self.desk.rules = parse_rules(RULES.format(**CALM)).rules
        self.world.agree("primary")
        for _ in range(30):
            self.tick(60)

    def told(self) -> dict[tuple[str, str], list[str]]:
        """What each receiver was told about each alert, in order."""
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, body in self.world.rows("SELECT receiver, body FROM outbox ORDER BY seq"):
            for one in json.loads(body)["alerts"]:
                found[name, one["fingerprint"]].append(one["status"])
        return found


@pytest.mark.parametrize("seed", range(25))
def test_who_was_told_firing_is_told_resolved_once_and_nobody_else(world: World, seed: int) -> None:
    chaos = Chaos(world, seed)
    for _ in range(60):
        chaos.act()
    chaos.calm_down()
    told = chaos.told()
    assert told
    for words in told.values():
        assert words[0] == "firing", "the end of what nobody was told of"
        assert words[-1] == "resolved", "nobody is told that it is over"
        assert all(words[n - 1] == "firing" for n, word in enumerate(words) if word == "resolved"), "told twice"
    left = world.rows("SELECT rule, state FROM alert_states WHERE state <> 'resolved'")
    assert left == []
