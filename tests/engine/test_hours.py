"""Hours are rolled up once they are over; whatever is written when, sums are those of the minutes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import hours, queries
from engine.core.errors import StoreUnavailable
from engine.core.events import Record, RequestOutcome, Scope
from engine.hours import HOUR_MS, ROLLUPS, due, roll_up_due
from engine.queries import Window
from engine.queries.hours import pieces
from engine.recorder import Recorder
from engine.sqlite import Connection
from engine.store import Store
from tests.engine.records import FLASH, NOON, PRO, attempt, move, request, transition

HOUR = NOON // HOUR_MS * HOUR_MS
"""The beginning of the last hour of these tests; they look from its middle."""

NOW = HOUR + HOUR_MS // 2


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(Store(tmp_path / "a.db").open())
    yield recorder
    recorder.close()


def traffic(chance: random.Random, hours_back: int, count: int) -> list[Record]:
    """All sorts of records over some hours up to now, and some moments of the next."""
    found: list[Record] = []
    for _ in range(count):
        at = NOW - chance.randrange(hours_back * HOUR_MS)
        failed = chance.random() < 0.3
        found.append(
            request(
                ts_ms=at,
                manager=chance.choice(["chat", "code"]),
                model=chance.choice([PRO, FLASH]),
                synthetic=chance.random() < 0.1,
                status_code=502 if failed else 200,
                outcome=RequestOutcome.ERROR if failed else RequestOutcome.OK,
                duration_ms=chance.randrange(8, 40_000) / 8,
                ttft_ms=chance.randrange(8, 8_000) / 8,
                attempts=(
                    attempt(ts_ms=at - chance.randrange(5_000), category="server_error"),
                    attempt(2, ts_ms=at),
                ),
            )
        )
        if chance.random() < 0.2:
            found.append(move(ts_ms=at, scope=Scope.REQUEST, request_id="r"))
            found.append(transition(ts_ms=at))
    return found


def without_hours(connection: Connection, window: Window) -> queries.WindowFacts:
    """The same from minutes alone."""
    kept = pieces(connection, "nobody", 0, 1 << 40)
    assert kept.hours == ()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.queries.windows.pieces", lambda _, __, first, last: pieces(connection, "", first, last))
        return queries.facts(connection, "chat", window)


def same(found: queries.WindowFacts, expected: queries.WindowFacts) -> None:
    for name in ("traffic", "attempts", "moves", "breakers", "latency"):
        assert sorted(map(repr, getattr(found, name))) == sorted(map(repr, getattr(expected, name))), name


def compare(store: Store, chance: random.Random, hours_back: int) -> None:
    """Any window, and any series, says the same with hours as without."""
    with store.reader() as connection:
        for _ in range(12):
            end = NOW - chance.randrange(hours_back * HOUR_MS)
            window = Window(end - chance.randrange(hours_back * HOUR_MS), end)
            same(queries.facts(connection, "chat", window), without_hours(connection, window))
        for step in (60, 120, 360):
            for series in (queries.traffic_series, queries.attempt_series, queries.latency_series):
                found = series(connection, "chat", NOW - 9 * HOUR_MS, NOW, step_minutes=step)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(
                        "engine.queries.series.pieces", lambda _, __, first, last: pieces(connection, "", first, last)
                    )
                    assert found == series(connection, "chat", NOW - 9 * HOUR_MS, NOW, step_minutes=step)


def test_windows_and_series_say_the_same_from_hours_as_from_minutes(recorder: Recorder) -> None:
    chance = random.Random(1)
    recorder.submit(traffic(chance, 9, 400)).wait()
    assert roll_up_due(recorder, now_ms=NOW, pause=lambda _: None) == 18
    with recorder.store.reader() as connection:
        assert pieces(connection, "chat", HOUR // 60_000 - 540, HOUR // 60_000).hours
    compare(recorder.store, chance, 9)


def test_a_late_record_is_counted_at_once_and_its_hour_is_rolled_up_again(recorder: Recorder) -> None:
    chance = random.Random(2)
    recorder.submit(traffic(chance, 5, 100)).wait()
    roll_up_due(recorder, now_ms=NOW, pause=lambda _: None)
    recorder.submit(traffic(chance, 5, 30)).wait()
    compare(recorder.store, chance, 5)
    assert roll_up_due(recorder, now_ms=NOW, pause=lambda _: None) > 0
    compare(recorder.store, chance, 5)
    with recorder.store.reader() as connection:
        assert due(connection, NOW) == []


@pytest.mark.parametrize(
    "late",
    [
        request(ts_ms=HOUR - 1, attempts=()),
        request(ts_ms=HOUR, attempts=(attempt(ts_ms=HOUR - 1),)),
        move(ts_ms=HOUR - 1),
        transition(ts_ms=HOUR - 1),
    ],
    ids=["request", "attempt", "move", "transition"],
)
def test_every_kind_of_record_takes_its_hour_off_the_list(recorder: Recorder, late: Record) -> None:
    recorder.submit([request(ts_ms=HOUR - 1000)]).wait()
    roll_up_due(recorder, now_ms=NOW)
    recorder.submit([late]).wait()
    with recorder.store.reader() as connection:
        assert due(connection, NOW) == [("chat", HOUR // HOUR_MS - 1)]


def test_an_hour_that_is_not_over_or_has_only_just_ended_waits(recorder: Recorder) -> None:
    recorder.submit([request(ts_ms=HOUR - 1000)]).wait()
    assert roll_up_due(recorder, now_ms=HOUR - 1) == 0
    assert roll_up_due(recorder, now_ms=HOUR + hours.SETTLED_MS - 1) == 0
    assert roll_up_due(recorder, now_ms=HOUR + hours.SETTLED_MS) == 1
    assert roll_up_due(recorder, now_ms=HOUR + hours.SETTLED_MS) == 0


def test_rolling_up_again_changes_nothing(recorder: Recorder) -> None:
    recorder.submit(traffic(random.Random(3), 4, 60)).wait()
    roll_up_due(recorder, now_ms=NOW, pause=lambda _: None)
    before = dump(recorder.store)
    with recorder.store.reader() as connection:
        rolled = connection.execute("SELECT manager, hour FROM rolled_hours").fetchall()
    for manager, hour in rolled:
        recorder.execute(lambda c, manager=manager, hour=hour: hours.roll_up(c, manager, hour)).result()
    assert dump(recorder.store) == before


def test_a_crash_in_the_middle_of_an_hour_leaves_it_for_the_next_run(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(4)
    recorder.submit(traffic(chance, 3, 60)).wait()
    whole = hours._STATEMENTS
    monkeypatch.setattr(hours, "_STATEMENTS", (*whole[:4], "SELECT no_such_function()"))
    with pytest.raises(StoreUnavailable):
        roll_up_due(recorder, now_ms=NOW)
    compare(recorder.store, chance, 3)
    with recorder.store.reader() as connection:
        assert connection.execute("SELECT count(*) FROM rollup_hour").fetchone() == (0,)
    monkeypatch.setattr(hours, "_STATEMENTS", whole)
    roll_up_due(recorder, now_ms=NOW, pause=lambda _: None)
    compare(recorder.store, chance, 3)


def test_a_long_history_without_hours_is_caught_up_with_and_right_meanwhile(recorder: Recorder) -> None:
    chance = random.Random(5)
    recorder.submit(traffic(chance, 30, 300)).wait()
    with recorder.store.reader() as connection:
        waiting = due(connection, NOW)
    for manager, hour in chance.sample(waiting, len(waiting) // 2):
        recorder.execute(lambda c, manager=manager, hour=hour: hours.roll_up(c, manager, hour)).result()
    compare(recorder.store, chance, 30)


def test_the_tables_by_hour_have_the_columns_of_those_by_minute(recorder: Recorder) -> None:
    with recorder.store.reader() as connection:
        for rollup in ROLLUPS:
            by_minute, by_hour = (
                [row[1:4] for row in connection.execute(f"PRAGMA table_info({table})")]
                for table in (rollup.minutes, rollup.hours)
            )
            assert [("hour", *row[1:]) if row[0] == "minute" else row for row in by_minute] == by_hour
            named = {"manager", "minute", *rollup.labels.split(", "), *rollup.sums.split(", ")}
            assert named == {row[0] for row in by_minute}


def dump(store: Store) -> list[object]:
    with store.reader() as connection:
        return [sorted(connection.execute(f"SELECT * FROM {rollup.hours}")) for rollup in ROLLUPS]
