"""What rules see, against a plain count over the same records: exact edges, roles, synthetic calls, level starts."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts import outbox, queries
from alerts.expression import LevelTest
from alerts.observations import LETTERS_LAST_MS, Reading, together
from alerts.shelf import Shelf
from alerts.spans import plan
from alerts.vocabulary import Query
from engine.core.events import RequestRecord
from engine.percentiles import RELATIVE_ERROR
from tests.alerts.world import START_MS, World, breaker, move, request


def ask(world: World, *queries: Query, now_ms: int = START_MS, manager: str = "chat") -> list[Any]:
    with world.recorder.store.reader() as connection:
        reading = Reading(connection, queries, ["chat", "other"], now_ms)
        return [reading.ask(manager, query) for query in queries]


@given(st.lists(st.integers(1, 400_000), min_size=1, max_size=8), st.integers(0, 10**6))
def test_the_pieces_of_a_window_are_the_window(lengths_ms: list[int], offset: int) -> None:
    now_ms = START_MS + offset
    cut = plan([ms / 1000 for ms in lengths_ms], now_ms)
    for ms in lengths_ms:
        parts = [(cut.spans[part], sign) for part, sign in cut.parts[ms / 1000]]
        added, taken = (
            sorted((span for span, sign in parts if sign == wanted), key=lambda span: span.from_ms)
            for wanted in (1, -1)
        )
        for spans in (added, taken):
            assert all(one.to_ms == other.from_ms for one, other in pairwise(spans))
            assert all(span.from_ms % 60_000 == span.to_ms % 60_000 == 0 for span in spans if span.whole)
        assert added[-1].to_ms == now_ms + 1
        assert (taken[-1].to_ms if taken else added[0].from_ms) == now_ms - ms + 1
        assert not taken or taken[0].from_ms == added[0].from_ms == (now_ms - ms + 1) // 60_000 * 60_000


def test_windows_are_left_open_and_right_closed_to_the_millisecond(world: World) -> None:
    for offset in (-300_000, -299_999, -60_000, -1, 0, 1):
        world.record(request(START_MS + offset))
    assert ask(world, Query("requests", 300), Query("requests", 0.001), Query("requests", 60)) == [4, 1, 2]


def test_every_window_function_equals_a_plain_count(world: World) -> None:
    rand = random.Random(7)
    records = []
    for _ in range(600):
        ts_ms = START_MS - rand.randrange(0, 1_200_000)
        role = rand.choice(["primary", "secondary"])
        outcome, status = rand.choice(ENDINGS)
        attempts = [(role, rand.choice(TRIED))]
        one = request(
            ts_ms,
            role="none" if outcome == "shed" else role,
            outcome=outcome,
            status_code=status,
            synthetic=rand.random() < 0.1,
            attempts=[] if outcome == "shed" else attempts,
            duration_ms=rand.lognormvariate(6, 1),
            ttft_ms=rand.choice([None, rand.lognormvariate(5, 1)]),
            cost_usd=0.25,
        )
        records.append(one)
    world.record(*records)
    for now_ms in (START_MS, START_MS - 12_345, START_MS - 60_000):
        for seconds in (1, 59.5, 60, 61, 300, 777.777, 1200):
            inside = [one for one in records if now_ms - round(seconds * 1000) < one.ts_ms <= now_ms]
            for name in PLAIN:
                for role in ("", "primary", "secondary") if name not in ONE_ROLE else ("",):
                    (ours,) = ask(world, Query(name, seconds, role), now_ms=now_ms)
                    plain = PLAIN[name](inside, role)
                    tolerance = 2 * RELATIVE_ERROR if name.endswith(("50", "95", "99")) else 1e-9
                    assert (ours is None) == (plain is None), (name, role, seconds)
                    assert ours is None or ours == pytest.approx(plain, rel=tolerance), (name, role, seconds)


ENDINGS = (*[("ok", 200)] * 6, ("error", 502), ("error", 400), ("shed", 429), ("cancelled", 499))
TRIED = ("ok", "server_error", "timeout", "rate_limited", "auth", "semantic", "cancelled")
ONE_ROLE = ("secondary_share",)
FAILED = ("server_error", "timeout", "connection", "truncated")


def _real(records: list[RequestRecord], role: str = "") -> list[RequestRecord]:
    return [one for one in records if not one.synthetic and role in ("", one.role)]


def _tries(records: list[RequestRecord], role: str, *categories: str) -> int:
    return sum(a.category in categories and role in ("", a.role) for one in records for a in one.attempts)


def _errors(records: list[RequestRecord], role: str) -> float:
    if role:
        return _tries(_real(records), role, *FAILED)
    return sum(one.outcome == "error" and one.status_code >= 500 for one in _real(records))


def _error_rate(records: list[RequestRecord], role: str) -> float | None:
    ok = _tries(_real(records), role, "ok") if role else sum(one.outcome == "ok" for one in _real(records))
    errors = _errors(records, role)
    return errors / (ok + errors) if ok + errors else None


def _share(records: list[RequestRecord], role: str) -> float | None:
    ok = [one for one in _real(records) if one.outcome == "ok"]
    return sum(one.role == "secondary" for one in ok) / len(ok) if ok else None


def _quantile(name: str, q: float) -> Any:
    def plain(records: list[RequestRecord], role: str) -> float | None:
        values = sorted(
            value
            for one in _real(records, role)
            if one.outcome in ("ok", "error") and one.role != "none" and (value := getattr(one, name)) is not None
        )
        return values[max(0, -(-len(values) * round(q * 100) // 100) - 1)] / 1000 if values else None

    return plain


PLAIN: dict[str, Any] = {
    "requests": lambda records, role: len(_real(records, role)),
    "shed": lambda records, role: sum(one.outcome == "shed" for one in _real(records, role)),
    "errors": _errors,
    "error_rate": _error_rate,
    "secondary_share": _share,
    "rate_limited": lambda records, role: _tries(_real(records), role, "rate_limited"),
    "auth_errors": lambda records, role: _tries(records, role, "auth"),
    "semantic_failures": lambda records, role: _tries(records, role, "semantic"),
    "p50": _quantile("duration_ms", 0.5),
    "p95": _quantile("duration_ms", 0.95),
    "p99": _quantile("duration_ms", 0.99),
    "ttft_p95": _quantile("ttft_ms", 0.95),
}


def test_cost_and_tokens_count_what_is_paid_for_probes_too(world: World) -> None:
    world.record(request(START_MS, cost_usd=0.5), request(START_MS - 90_000, cost_usd=0.25, synthetic=True))
    assert ask(world, Query("cost_usd", 300), Query("tokens", 300), Query("cost_usd", 60)) == [0.75, 30, 0.5]


def test_failovers_are_automatic_moves_away_from_primary(world: World) -> None:
    world.record(
        move(START_MS - 1000, 1),
        move(START_MS - 900, 2, to="primary", cause="failback"),
        move(START_MS - 800, 3, cause="override"),
    )
    assert ask(world, Query("failovers", 600)) == [1]
    assert ask(world, Query("failovers", 600), manager="other") == [0]


def test_breaker_transitions_are_counted_by_role(world: World) -> None:
    world.record(breaker(START_MS, "open"), breaker(START_MS - 61_000, "closed", role="secondary"))
    assert ask(world, *(Query("breaker_transitions", 300, role) for role in ("", "primary", "secondary"))) == [2, 1, 1]


def test_a_breaker_trips_where_it_was_closed_and_not_where_a_probe_fails(world: World) -> None:
    world.record(breaker(START_MS, "open"), breaker(START_MS - 1000, "open", role="secondary"))
    for second in range(2, 9):
        world.record(breaker(START_MS - second * 1000, "half_open", "open"))
        world.record(breaker(START_MS - second * 1000 + 500, "open", "half_open"))
    for instance in ("j", "k"):
        world.record(*(breaker(START_MS - second, "open", instance=instance) for second in (3000, 2000)))
    assert ask(world, *(Query("breaker_trips", 300, role) for role in ("", "primary", "secondary"))) == [2, 2, 1]
    assert ask(world, Query("breaker_transitions", 300)) == [20]
    assert ask(world, Query("breaker_trips", 300), manager="other") == [0]


def test_ratios_of_nothing_have_no_value_and_counts_of_nothing_are_zero(world: World) -> None:
    names = ("error_rate", "secondary_share", "p95", "requests", "failovers", "cost_usd")
    assert ask(world, *(Query(name, 300) for name in names)) == [None, None, None, 0, 0, 0]


def test_levels_come_from_the_agreement_and_the_live_instances(world: World) -> None:
    levels = [Query("active_model"), Query("primary_traffic_ratio"), Query("override_active"), Query("instances")]
    assert ask(world, *levels) == [None, None, False, 0]
    world.agree("secondary", override_for=60)
    world.beat("i", {"primary": "open", "secondary": "closed"}, queue_length=7, agreement_ms=START_MS - 5000)
    now_ms = START_MS + 1000
    assert ask(world, *levels, now_ms=now_ms) == ["secondary", 1.0, True, 1]
    assert ask(world, Query("override_active"), now_ms=START_MS + 60_000) == [False]
    assert ask(world, Query("breaker", role="primary"), Query("breaker", role="secondary")) == ["open", "closed"]
    assert ask(world, Query("recorder_queue"), Query("agreement_age")) == [7, 5.0]


def test_what_another_machine_wrote_is_judged_by_its_own_clock(world: World) -> None:
    for name, off in (("ahead", 300_000), ("behind", -300_000)):
        said = START_MS + off
        world.beat(name, {}, at_ms=said, agreement_ms=said - 2000, regressed_ms=said - 60_000)
    world.beat("well", {}, at_ms=START_MS, agreement_ms=START_MS, regressed_ms=START_MS - 301_000)
    asked = Query("agreement_age"), Query("agreement_regressed")
    assert ask(world, *asked, now_ms=START_MS) == [2.0, 2.0]


def test_a_letter_has_waited_since_it_was_made_or_replayed_whatever_the_clock_does(world: World) -> None:
    """A replay of an old letter, and a clock set forward, looked like a receiver that takes nothing for hours."""
    now = START_MS
    row = ("a", now - 90_000, "ops", "webhook", "", "", "text/plain", "", now, now - 90_000 + LETTERS_LAST_MS)
    world.recorder.execute(lambda connection: queries.add_outbox(connection, row)).result(30)
    assert ask(world, Query("outbox_age")) == [90.0]
    world.recorder.execute(lambda connection: outbox.shift(connection, 7_200_000)).result(30)
    assert ask(world, Query("outbox_age"), now_ms=now + 7_200_000) == [90.0]
    later = now + 86_400_000
    world.execute("UPDATE outbox SET state = 'dead'")
    world.recorder.execute(lambda connection: outbox.replay(connection, later)).result(30)
    assert ask(world, Query("outbox_age"), now_ms=later + 5000) == [5.0]


def test_a_breaker_of_many_instances_is_the_worst_that_half_of_them_are_in() -> None:
    assert together(["open", "closed", "closed"]) == "closed"
    assert together(["open", "closed"]) == "open"
    assert together(["open", "half_open", "closed"]) == "half_open"
    assert together([]) == "closed"


def test_a_breaker_is_open_since_the_recorded_transition(world: World) -> None:
    world.record(
        breaker(START_MS - 90_000, "open"),
        breaker(START_MS - 60_000, "half_open", "open"),
        breaker(START_MS - 59_000, "open", "half_open"),
    )
    world.beat("i", {"primary": "open"})
    test = LevelTest(Query("breaker", role="primary"), lambda value: value == "open")
    bad = LevelTest(Query("breaker", role="primary"), lambda value: value != "closed")
    with world.recorder.store.reader() as connection:
        reading = Reading(connection, [test.query], ["chat"], START_MS)
        assert reading.since("chat", test) == START_MS - 59_000
        assert reading.since("chat", bad) == START_MS - 90_000


def test_a_reading_takes_a_handful_of_statements_however_many_rules_ask(world: World) -> None:
    queries = [Query(name, seconds) for name in PLAIN for seconds in range(60, 6000, 60)]
    queries += [Query("failovers", 600), Query("breaker", role="primary")]
    queries += [Query("active_model"), Query("breaker_transitions", 60)]
    with world.recorder.store.reader() as connection:
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        Reading(connection, queries, ["chat"], START_MS)
        connection.set_trace_callback(None)
    assert len(statements) <= 20


def test_records_of_another_manager_are_not_seen(world: World) -> None:
    world.record(replace(request(START_MS), manager="other"))
    assert ask(world, Query("requests", 60)) == [0]
    assert ask(world, Query("requests", 60), manager="other") == [1]


def test_what_is_kept_between_readings_never_hides_records_that_are_written_late(world: World) -> None:
    shelf = Shelf()
    queries = [
        Query(name, seconds) for name in ("requests", "error_rate", "p95", "failovers") for seconds in (600, 7200)
    ]
    rand = random.Random(3)

    def read(now_ms: int, kept: Shelf | None) -> list[Any]:
        with world.recorder.store.reader() as connection:
            reading = Reading(connection, queries, ["chat"], now_ms, shelf=kept)
            return [reading.ask("chat", query) for query in queries]

    for step in range(40):
        now_ms = START_MS + step * 15_000
        for _ in range(rand.randrange(3)):
            late = rand.choice([0, 0, 1000, 200_000, 3_600_000])
            outcome = rand.choice(["ok", "error"])
            world.record(request(now_ms - late, outcome=outcome, status_code=200 if outcome == "ok" else 500))
        if rand.random() < 0.2:
            world.record(move(now_ms - 1_000_000, step))
        assert read(now_ms, shelf) == read(now_ms, None)
