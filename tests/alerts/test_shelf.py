"""What is kept between ticks never changes a value, whatever is recorded late and wherever the clock jumps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from alerts import shelf as shelves
from alerts.histograms import Histogram, total
from alerts.observations import Reading
from alerts.queries import FEEDS
from alerts.shelf import Shelf
from alerts.vocabulary import WINDOWS, Query
from engine.core.events import Record
from tests.alerts.world import START_MS, World, breaker, move, open_recorder, request

MANAGERS = ("chat", "other")
STORE_WIDE = {"dead_letters"}
SECONDS = (7.5, 60.0, 61.234, 420.0, 3600.0, 100_000.0)
ASKED = [
    Query(name, seconds, role)
    for name, window in WINDOWS.items()
    if name not in STORE_WIDE
    for seconds in SECONDS
    for role in (("", "primary") if window.by_role else ("",))
]
MONTH_MS = 31 * 86_400_000
EPOCHS = count(1)
MONTHS = count(1)


@dataclass(frozen=True)
class Step:
    """Time goes on or back, something is recorded with a delay, and the rules look."""

    by_ms: int
    records: tuple[tuple[str, int], ...] = ()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(open_recorder(tmp_path_factory.mktemp("shelf")))
    yield world
    world.recorder.close()


def record(world: World, kind: str, ts_ms: int) -> None:
    made: Record
    match kind:
        case "move":
            made = move(ts_ms, next(EPOCHS))
        case "breaker":
            made = breaker(ts_ms, "open")
        case "abort":
            values = ["chat", next(EPOCHS), ts_ms, "{}"]
            world.execute("INSERT INTO agreements VALUES (?, ?, ?, 'i', 'primary', 1, 0, 'ramp', 1, ?)", values)
            return
        case "long":  # its first try ended long before the request did
            whole = request(ts_ms, attempts=[("primary", "timeout"), ("secondary", "ok")], role="secondary")
            first, second = whole.attempts
            made = replace(whole, attempts=(replace(first, ts_ms=ts_ms - 1_200_000), second))
        case "canary":
            made = request(ts_ms, synthetic=True, attempts=[("primary", "auth")], cost_usd=0.5)
        case "failed":
            made = request(ts_ms, outcome="error", status_code=502, duration_ms=90.0, ttft_ms=30.0)
        case _:
            made = request(ts_ms, cost_usd=0.25, duration_ms=ts_ms % 7919 + 0.5)
    world.record(made)


def values(world: World, now_ms: int, kept: Shelf | None) -> dict[tuple[str, Query], Any]:
    with world.recorder.store.reader() as connection:
        reading = Reading(connection, ASKED, MANAGERS, now_ms, shelf=kept)
        return {(manager, query): reading.ask(manager, query) for manager in MANAGERS for query in ASKED}


KINDS = st.sampled_from(["ok", "ok", "failed", "long", "canary", "move", "breaker", "abort"])
LATE_MS = st.sampled_from([-3000, 0, 0, 1, 2000, 9000, 70_000, 190_000, 3_000_000, 80_000_000])
BY_MS = st.sampled_from([0, 1, 937, 5000, 15_000, 15_000, 15_003, 61_000, 3_600_000, -1, -4000, -70_000, -7_200_000])
STEPS = st.lists(st.builds(Step, BY_MS, st.lists(st.tuples(KINDS, LATE_MS), max_size=4).map(tuple)), max_size=14)


@example([Step(15_000), Step(15_000), Step(15_000, (("long", 0),))])
@example([Step(15_000), Step(200_000, (("canary", 3_000_000),))])
@example([Step(15_000), Step(-7_200_000), Step(3_600_000, (("ok", 2_700_000),))])
@example([Step(15_000, (("ok", 9000),)), Step(1, (("ok", 9000),))])
@example([Step(15_000), Step(-9_000), Step(8_000, (("ok", 2_000),))])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(STEPS)
def test_values_are_those_of_a_reader_that_keeps_nothing(world: World, steps: list[Step]) -> None:
    now_ms = START_MS + next(MONTHS) * MONTH_MS + 37_123
    shelf = Shelf()
    for step in steps:
        now_ms += step.by_ms
        for kind, late_ms in step.records:
            record(world, kind, now_ms - late_ms)
        assert values(world, now_ms, shelf) == pytest.approx(values(world, now_ms, None))


def test_what_a_reading_does_not_change_is_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = START_MS + next(MONTHS) * MONTH_MS
    for second in range(0, 7200, 7):
        record(world, "ok", now_ms - second * 1000)
    shelf = Shelf()
    read: list[int] = []
    values(world, now_ms, shelf)
    for feed in (feed for feed in FEEDS if feed.rows is not None):
        whole = feed.read
        counting = replace(feed, read=lambda c, spans, m, whole=whole: read.append(len(spans)) or whole(c, spans, m))
        monkeypatch.setattr(f"alerts.queries.{feed.name.upper().replace(' ', '_')}", counting)
    values(world, now_ms + 1, shelf)
    edges, unsettled_minutes = 2 * len(SECONDS), 2
    assert len(read) == sum(feed.rows is not None for feed in FEEDS)
    assert max(read) <= edges + unsettled_minutes


def test_no_more_is_kept_than_was_agreed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "MOST_GROUPS", 300)
    now_ms = START_MS + next(MONTHS) * MONTH_MS
    shelf = Shelf()
    for step in range(40):
        record(world, "ok", now_ms + step * 15_000)
        at_ms = now_ms + step * 15_000
        assert values(world, at_ms, shelf) == pytest.approx(values(world, at_ms, None))
    assert len(shelf._kept) < 600


@given(st.lists(st.dictionaries(st.integers(-400, 800), st.integers(1, 10**9), min_size=1), max_size=6))
def test_packed_histograms_add_up(histograms: list[dict[int, int]]) -> None:
    plain: dict[int, int] = {}
    for one in histograms:
        for bucket, n in one.items():
            plain[bucket] = plain.get(bucket, 0) + n
    assert dict(total(map(Histogram.of, histograms)).counts()) == plain
