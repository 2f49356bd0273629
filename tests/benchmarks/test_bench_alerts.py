"""A tick over 1,000 rules on ten million requests: under 200 ms, and its share of a core at the default interval.

The rules are the shipped ones with windows from seconds to thirty days, for two managers: 2,000 evaluations. Between
two ticks requests come in, a few of them late: at the pace that makes ten million in a month, or a busy gateway's.

What is judged is the processor time of the evaluating thread, so that a busy machine does not decide.
"""

from __future__ import annotations

import gc
import random
import re
import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from alerts.rules import Rule, parse_rules, read_rules
from alerts.tick import Ticker
from engine.core.events import RequestRecord
from engine.durations import parse_duration
from engine.recorder import Recorder
from engine.shipped import shipped as shipped_file
from tests.alerts.world import FakeClock, World, request
from tests.benchmarks.measuring import say
from tests.largestore import BUSY, SPARE, Shape, fill

RULES = 1_000
INTERVAL_S = 15.0
STEADY, BUSY_PACE = 4, 60
"""Requests a second: ten million in a month, and a gateway in its busiest hour."""

END_MS = 1_763_848_740_000
"""A minute before a whole hour, at which most of what is kept is cut anew."""
STRETCHES = (0.1, 0.5, 1, 1.5, 2, 3, 4, 8, 12, 40, 120)
TICK_MS = 200.0
SHARE = 0.02
FIRST_MS = 3_000.0


def thousand_rules() -> tuple[Rule, ...]:
    """The shipped rules again and again, each time with other windows, thresholds and durations."""
    shipped = read_rules(shipped_file("alerts.toml")).rules
    texts = []
    for n in range(RULES):
        rule, turn = shipped[n % len(shipped)], n // len(shipped)
        stretch = STRETCHES[turn % len(STRETCHES)]
        condition = re.sub(
            r'"(\d+[smhd])"', lambda found, by=stretch: f'"{parse_duration(found[1]) * by:.1f}s"', rule.expression.text
        )
        lines = [f'alert = "{rule.alert}{n}"', f"expr = '{condition} && {n} > 0'", f'for = "{turn}m"']
        lines += [f'scope = "{rule.scope}"', "[rules.annotations]", 'summary = "{{ value }} since {{ since }}"']
        texts.append("[[rules]]\n" + "\n".join(lines) + "\n")
    parsed = parse_rules("".join(texts))
    assert parsed.problems == ()
    assert len(parsed.rules) == RULES
    return parsed.rules


def traffic(until_ms: int, chance: random.Random, pace: int) -> list[RequestRecord]:
    """What was recorded since the last tick: every hundredth late, some failed, some from the other model."""
    made = []
    for _ in range(round(pace * INTERVAL_S)):
        late = chance.choice((2_000, 20_000, 400_000)) if chance.random() < 0.01 else 0
        role = "secondary" if chance.random() < 0.1 else "primary"
        failed = chance.random() < 0.02
        one = request(
            until_ms - chance.randrange(round(INTERVAL_S * 1000)) - late,
            role=role,
            outcome="error" if failed else "ok",
            status_code=503 if failed else 200,
            duration_ms=chance.lognormvariate(7.5, 0.7),
            ttft_ms=chance.lognormvariate(6, 0.5),
            cost_usd=0.001,
        )
        made.append(replace(one, manager=chance.choice((BUSY, SPARE))))
    return made


@dataclass
class Times:
    """Milliseconds of ticks: by the clock on the wall, and of the evaluating thread alone."""

    wall: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def tick(self, ticker: Ticker, rules: tuple[Rule, ...]) -> None:
        wall, busy = time.perf_counter(), time.thread_time()
        report = ticker.tick(rules)
        self.wall.append((time.perf_counter() - wall) * 1000)
        self.busy.append((time.thread_time() - busy) * 1000)
        assert report.errors == {}


def measure(path: Path, requests: int, ticks: int, paces: tuple[int, ...] = (BUSY_PACE,)) -> dict[int, Times]:
    """So many ticks at each pace after the first, which is the first of the first pace's times."""
    recorder = Recorder(fill(path, Shape(requests, END_MS)))
    world = World(recorder, FakeClock(END_MS))
    world.beat("web-1/4711", {"primary": "closed", "secondary": "closed"})
    ticker = Ticker(recorder, world.clock, [BUSY, SPARE], (), "https://x", "a")
    rules, chance, found = thousand_rules(), random.Random(4), {pace: Times() for pace in paces}
    gc.freeze()  # as a server's process does (dashboard.serving)
    for pace, times in found.items():
        for _ in range(ticks + 1):
            world.clock.pass_(INTERVAL_S)
            world.record(*traffic(world.clock.wall_ms(), chance, pace))
            times.tick(ticker, rules)
    gc.unfreeze()
    recorder.close()
    return found


def judge(times: Times, requests: int, pace: int, *, slack: float) -> None:
    """Say what was measured and hold it to the target, with so much room for company on the machine."""
    median, busy, mean = (f(t[1:]) for f, t in (
        (statistics.median, times.wall), (statistics.median, times.busy), (statistics.fmean, times.busy)
    ))  # fmt: skip
    share, worst = mean / (INTERVAL_S * 1000), max(times.busy[1:])
    what = f"tick over {RULES:,} rules on {requests:,} requests, {pace} a second"
    say(what, f"{median:.0f} ms, worst {max(times.wall[1:]):.0f} ms", f"{TICK_MS:.0f} ms")
    say("  processor time of the evaluating thread", f"{busy:.0f} ms, worst {worst:.0f} ms", f"{TICK_MS:.0f} ms")
    say("  its share of a core", f"{share:.2%}", f"{SHARE:.0%}")
    say("  the first tick after a start", f"{times.wall[0]:.0f} ms", f"{FIRST_MS:.0f} ms")
    assert busy < TICK_MS * slack
    assert share < SHARE * slack
    assert times.busy[0] < FIRST_MS * slack


def test_a_tick_over_a_thousand_rules_is_no_matter_of_seconds(tmp_path: Path) -> None:
    judge(measure(tmp_path / "alerts.db", 60_000, ticks=9)[BUSY_PACE], 60_000, BUSY_PACE, slack=2)


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_a_tick_over_a_thousand_rules_on_a_million_requests_takes_less_than_200_ms(tmp_path: Path) -> None:
    judge(measure(tmp_path / "alerts.db", 1_000_000, ticks=40)[BUSY_PACE], 1_000_000, BUSY_PACE, slack=1)


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_a_tick_over_a_thousand_rules_on_ten_million_requests_takes_less_than_200_ms(tmp_path: Path) -> None:
    """Filling takes two to five minutes and 5 GB."""
    found = measure(tmp_path / "alerts.db", 10_000_000, ticks=120, paces=(STEADY, BUSY_PACE))
    judge(found[STEADY], 10_000_000, STEADY, slack=1)
    judge(found[BUSY_PACE], 10_000_000, BUSY_PACE, slack=1.5)
    slow = sorted(found[STEADY].busy[1:])[-3]
    assert slow < TICK_MS * 1.5, "what a whole minute or hour cuts anew takes long"
