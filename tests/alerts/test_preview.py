"""Previews say what the tick would have said: the same values at every moment, the same firings."""

from __future__ import annotations

import random

import pytest

from alerts import outbox
from alerts import preview as previews
from alerts.channels import CHANNELS
from alerts.evaluator import State
from alerts.expression import Value, compile_expression
from alerts.grouping import Audience
from alerts.observations import Reading
from alerts.outbox import Letter
from alerts.past import Grid, Past, pieces
from alerts.preview import NoPreview, Preview, falls, preview, whom
from alerts.receivers import Receiver
from alerts.rules import NoData, Rule, read_rules
from alerts.tick import Ticker
from alerts.vocabulary import WINDOWS, Query, Scope
from engine.ids import new_id
from engine.retention import delete_old
from engine.shipped import shipped
from engine.sqlite import Connection
from tests.alerts.world import START_MS, FakeClock, World, breaker, move, request

MINUTE_MS = 60_000
STORE_WIDE = {"dead_letters"}


def rule(expression: str, *, hold: int = 0, keep: int = 0, no_data: NoData = NoData.OK) -> Rule:
    return Rule("Draft", compile_expression(expression), hold=hold, keep=keep, no_data=no_data)


def look(world: World, one: Rule, minutes: int, manager: str | None = "chat", **more: float | None) -> Preview:
    now_ms = world.clock.wall_ms()
    with world.recorder.store.reader() as connection:
        return preview(connection, one, manager, now_ms - minutes * MINUTE_MS, now_ms, **more)  # type: ignore[arg-type]


def agreed(world: World, active: str, override_for: float | None = None) -> None:
    """An agreement as the store's coordinator records it."""
    world.agree(active, override_for=override_for)
    now_ms = world.clock.wall_ms()
    world.execute(
        "INSERT INTO agreements SELECT manager, epoch, ?, 'i', ?, 1.0, NULL, 'quorum', 0, document FROM fleet_state",
        [now_ms, active],
    )


def events(world: World, chance: random.Random, until_ms: int) -> None:
    """A minute of what may happen."""
    for _ in range(chance.choice((0, 1, 3, 6))):
        failed = chance.random() < 0.3
        role = chance.choice(("primary", "primary", "secondary"))
        world.record(
            request(
                until_ms - chance.randrange(MINUTE_MS),
                role=role,
                outcome="error" if failed else chance.choice(("ok", "ok", "shed", "cancelled")),
                status_code=503 if failed else 200,
                attempts=[(role, chance.choice(("ok", "rate_limited", "auth", "semantic", "timeout")))],
                duration_ms=chance.lognormvariate(7, 1),
                ttft_ms=chance.choice((None, 200.0)),
                cost_usd=chance.choice((None, 0.1, 0.7)),
                synthetic=chance.random() < 0.1,
            )
        )
    if chance.random() < 0.15:
        world.record(move(until_ms - chance.randrange(MINUTE_MS), world.epoch * 1000 + chance.randrange(1000)))
    if chance.random() < 0.2:
        world.record(breaker(until_ms - chance.randrange(MINUTE_MS), chance.choice(("open", "half_open", "closed"))))


@pytest.mark.parametrize("step_ms", [MINUTE_MS, 5 * MINUTE_MS])
def test_every_window_has_the_value_that_a_tick_reads(world: World, step_ms: int) -> None:
    chance = random.Random(step_ms)
    for minute in range(150):
        events(world, chance, START_MS + minute * MINUTE_MS)
    asked = [
        Query(name, seconds, role)
        for name, window in WINDOWS.items()
        if name not in STORE_WIDE
        for seconds in (30.0, 60.0, 90.0, 300.0, 3600.0, 10_800.0)
        for role in (("", "primary") if window.by_role else ("",))
    ]
    start = (START_MS + 40 * MINUTE_MS) // step_ms * step_ms
    grid = Grid(start, start + 90 * MINUTE_MS, step_ms)
    with world.recorder.store.reader() as connection:
        past = Past(connection, asked, "chat", grid)
        for now_ms in grid.moments():
            past.move(now_ms)
            reading = Reading(connection, asked, ["chat"], now_ms)
            assert [past.ask("chat", one) for one in asked] == pytest.approx(
                [reading.ask("chat", one) for one in asked]
            )


RULES = [
    rule('active_model == "secondary"', hold=3 * MINUTE_MS, keep=2 * MINUTE_MS),
    rule('active_model == "secondary"', hold=90_000),
    rule("override_active", hold=4 * MINUTE_MS),
    rule('error_rate("5m") > 0.3 && requests("5m") >= 4', hold=2 * MINUTE_MS),
    rule('error_rate("2m") > 0.3', keep=3 * MINUTE_MS, no_data=NoData.ALERTING),
    rule('p95("3m") > 2', no_data=NoData.KEEP),
    rule('failovers("10m") > 1 || (breaker_transitions("5m") > 1 && active_model != "primary")', hold=MINUTE_MS),
    rule('requests("4m") < 5', hold=3 * MINUTE_MS),
    rule('cost_usd("6m") / 6 > 0.4 && !(secondary_share("6m") < 0.2)'),
]


@pytest.mark.parametrize("one", RULES, ids=[one.expression.text for one in RULES])
def test_it_fires_when_ticks_at_the_same_moments_fired(world: World, one: Rule) -> None:
    clock = FakeClock(START_MS - 1)  # ticks at the last millisecond of every minute
    world.clock = clock
    ticker = Ticker(world.recorder, clock, ["chat"], (), "https://x", "a")
    chance = random.Random(one.expression.text)
    agreed(world, "primary")
    ticker.tick([one])
    for minute in range(160):
        clock.pass_(60)
        events(world, chance, clock.wall_ms())
        if chance.random() < 0.12:
            agreed(world, chance.choice(("primary", "secondary")), chance.choice((None, None, 200.0, 900.0)))
            world.execute(
                "INSERT INTO overrides (id, ts_ms, manager, action, role, strict, reason, actor, expires_ms, epoch)"
                " VALUES (?, ?, 'chat', 'set', 'primary', 0, 'r', 'ana', 0, ?)",
                [f"o{minute}", clock.wall_ms(), world.epoch],
            )
        ticker.tick([one])
    rows = world.rows("SELECT ts_ms, from_state, to_state FROM alert_transitions ORDER BY seq")
    begun = [ts_ms for ts_ms, _, after in rows if after == "firing"]
    over = [ts_ms for ts_ms, before, after in rows if before == "firing" and after != "firing"]
    clock.pass_(0.001)
    found = look(world, one, 165, every_s=60)
    assert [firing.start_ms for firing in found.firings] == begun
    assert [firing.end_ms for firing in found.firings if firing.end_ms is not None] == over
    assert len(begun) >= 2, "nothing is compared"


def test_a_level_is_judged_as_often_as_the_evaluator_does_and_its_start_is_exact(world: World) -> None:
    agreed(world, "primary")
    world.clock.pass_(1000)
    agreed(world, "secondary")
    moved = world.clock.wall_ms()
    world.clock.pass_(40)
    agreed(world, "primary")
    world.clock.pass_(500)
    (firing,) = look(world, rule('active_model == "secondary"', hold=20_000), 20).firings
    assert firing.since_ms == moved
    assert 20_000 <= firing.start_ms - moved < 35_000
    assert firing.end_ms is not None
    assert firing.end_ms - moved <= 55_000


def test_breakers_are_those_of_the_instances_that_answered_then(world: World) -> None:
    for minute in range(60):
        world.record(*(request(START_MS + minute * MINUTE_MS + n, instance=f"i{n}") for n in (1, 2)))
    for minute in range(20, 60):  # dead since the twentieth minute, and its breaker open for ever
        world.record(request(START_MS + minute * MINUTE_MS, instance="i3"))
    world.record(breaker(START_MS + 5 * MINUTE_MS, "open", instance="gone"))
    world.record(*(breaker(START_MS + 30 * MINUTE_MS, "open", instance=one) for one in ("i1", "i2")))
    world.record(*(breaker(START_MS + 40 * MINUTE_MS, "closed", "open", instance=one) for one in ("i1", "i2")))
    world.clock.pass_(3600)
    found = look(world, rule('breaker("primary") == "open"'), 55)
    (firing,) = found.firings
    assert firing.since_ms == START_MS + 30 * MINUTE_MS
    assert firing.end_ms is not None
    assert abs(firing.end_ms - START_MS - 40 * MINUTE_MS) <= 15_000
    assert any("processes" in limit for limit in found.limits)


def test_flapping_is_told_by_the_trips_of_one_breaker_and_not_by_an_outage_of_all(world: World) -> None:
    once, often = START_MS, START_MS + 30 * MINUTE_MS
    for instance in ("a", "b", "c"):
        world.record(breaker(once, "open", instance=instance))
        for n in range(20):
            world.record(breaker(once + n * 30_000 + 1, "half_open", "open", instance=instance))
            world.record(breaker(once + n * 30_000 + 2, "open", "half_open", instance=instance))
        world.record(*(breaker(often + n * MINUTE_MS, "open", instance=instance) for n in range(3)))
    world.clock.pass_(60 * 60)
    shipped_rules = {one.alert: one for one in read_rules(shipped("alerts.toml")).rules}
    found = look(world, shipped_rules["BreakerFlapping"], 60)
    (firing,) = found.firings
    assert often + 2 * MINUTE_MS <= firing.start_ms <= often + 3 * MINUTE_MS
    assert firing.peak == 3


def test_the_peak_is_the_worst_value_while_the_condition_held(world: World) -> None:
    for minute, count in enumerate((9, 9, 30, 12, 9, 9, 9, 1, 9)):
        at_ms = START_MS + minute * MINUTE_MS
        world.record(*(request(at_ms + n) for n in range(count)))
    world.clock.pass_(9 * 60)
    (high,) = look(world, rule('requests("1m") > 10'), 9).firings
    assert high.peak == 30
    low = look(world, rule('requests("1m") < 9'), 9).firings
    assert low[-1].peak == 1


def test_what_fires_at_the_beginning_began_before(world: World) -> None:
    agreed(world, "secondary")
    began = world.clock.wall_ms()
    world.clock.pass_(7200)
    (firing,) = look(world, rule('active_model == "secondary"', hold=10 * MINUTE_MS), 30).firings
    assert firing.since_ms == began
    assert firing.end_ms is None


def test_what_nobody_recorded_is_refused(world: World) -> None:
    with pytest.raises(NoPreview, match=r"agreement_age and recorder_queue"):
        look(world, rule("agreement_age > 60 || recorder_queue > 9 || override_active"), 60)


def test_it_says_where_records_begin(world: World) -> None:
    world.record(request(START_MS))
    world.clock.pass_(600)
    found = look(world, rule('requests("5m") > 0'), 1000)
    assert found.from_ms == START_MS
    assert "nothing it needs is kept from before" in found.limits[0]
    assert "10 min" in found.sentence


@pytest.mark.parametrize("days", [1, 30, 900])
def test_a_short_record_is_judged_as_finely_however_long_ago_one_asks_for(world: World, days: int) -> None:
    """On a new store "the last 30 days" were judged twice in ten minutes, and two years not once."""
    world.record(request(START_MS))
    world.clock.pass_(600)
    found = look(world, rule('requests("5m") > 0'), days * 1440)
    assert (found.step_ms, len(found.samples), len(found.firings)) == (MINUTE_MS, 10, 1)


def test_windows_that_need_rows_begin_where_rows_are_kept_and_others_do_not(world: World) -> None:
    for minute in range(120):
        world.record(request(START_MS + minute * MINUTE_MS))
    world.clock.pass_(120 * 60)
    delete_old(world.recorder, keep=3600, now_ms=world.clock.wall_ms(), pause=lambda _: None)
    by_minute, by_rows = (look(world, rule(f'requests("{window}") > 1'), 120) for window in ("2m", "90s"))
    assert by_minute.from_ms == START_MS
    assert by_rows.from_ms >= START_MS + 60 * MINUTE_MS
    assert any("nothing it needs" in limit for limit in by_rows.limits)


def test_a_rule_that_fails_at_some_moments_says_so_and_changes_nothing(world: World) -> None:
    world.record(request(START_MS), request(START_MS + 5 * MINUTE_MS))
    world.clock.pass_(600)
    found = look(world, rule('manager.matches(requests("1m") > 0 ? "chat" : "(")'), 10)
    assert any("failed at" in limit for limit in found.limits)


def test_it_stops_when_its_time_is_over_and_says_so(world: World) -> None:
    world.record(request(START_MS))
    world.clock.pass_(86_400)
    found = look(world, rule('requests("5m") > 0'), 1400, budget_s=0.0)
    assert "stopped" in found.limits[-1]


def test_progress_goes_from_nothing_to_all(world: World) -> None:
    told: list[float] = []
    world.record(request(START_MS))
    world.clock.pass_(36_000)
    with world.recorder.store.reader() as connection:
        preview(connection, rule('requests("5m") > 0'), "chat", START_MS, world.clock.wall_ms(), progress=told.append)
    assert told == sorted(told)
    assert told[0] < 0.01
    assert told[-1] == 1.0


def test_a_rule_of_the_store_is_judged_once(world: World) -> None:
    world.execute("UPDATE store_meta SET value = ? WHERE name = 'created_ms'", [str(START_MS - 10**9)])
    for n, at_ms in enumerate((100_000, 160_000)):
        world.execute(
            "INSERT INTO outbox (id, created_ms, receiver, kind, body, state, next_attempt_ms)"
            " VALUES (?, 0, 'ops', 'webhook', '', 'dead', ?)",
            [f"l{n}", START_MS + at_ms],
        )
    world.clock.pass_(1200)
    one = Rule("Draft", compile_expression('dead_letters("5m") > 1', Scope.STORE), scope=Scope.STORE)
    (firing,) = look(world, one, 20, manager=None).firings
    assert firing.peak == 2
    assert firing.end_ms is not None


def shipped_rule(name: str) -> Rule:
    return next(one for one in read_rules(shipped("alerts.toml")).rules if one.alert == name)


def test_what_waits_or_was_given_up_has_the_values_that_ticks_read(world: World) -> None:
    """Of deliveries everything is on record, so their shipped rule can be previewed."""
    chance = random.Random(3)
    one = shipped_rule("DeliveryFailing")
    asked = sorted(one.expression.queries)
    stops = Receiver(Audience("gone"), CHANNELS["webhook"], "https://example.com", None)
    read: list[tuple[int, list[Value]]] = []
    begin = world.clock.wall_ms()
    world.execute("UPDATE store_meta SET value = ? WHERE name = 'created_ms'", [str(begin - 30 * 86_400_000)])

    def minute(connection: Connection) -> None:
        now_ms = world.clock.wall_ms()
        if chance.random() < 0.5:
            order = chance.choice("abc")
            letter = Letter(new_id(), now_ms, "ops", "webhook", order, new_id(), "application/json", "{}")
            outbox.put(connection, letter)
        claimed = outbox.claim(connection, "ops", "d", now_ms, 1000)
        if claimed is not None:
            delivered, final = chance.random() < 0.3, chance.random() < 0.03
            outbox.settle(connection, claimed, outbox.Result(delivered=delivered, final=final), now_ms, 0.5)

    for n in range(400):
        world.clock.pass_(59.999)
        world.recorder.execute(minute).result(30)
        if n == 390:
            world.recorder.execute(lambda connection: outbox.stop(connection, stops, world.clock.wall_ms())).result(30)
        if n == 50:
            with world.recorder.store.reader() as connection:  # a letter of before counts at the beginning too
                assert Reading(connection, asked, [], world.clock.wall_ms()).ask(None, Query("outbox_age"))
        with world.recorder.store.reader() as connection:
            reading = Reading(connection, asked, [], world.clock.wall_ms())
            read.append((world.clock.wall_ms(), [reading.ask(None, query) for query in asked]))
        world.clock.pass_(0.001)
    assert [len({values[n] for _, values in read}) > 1 for n in range(len(asked))] == [True] * 3
    grid = Grid(begin + 60 * MINUTE_MS, world.clock.wall_ms(), MINUTE_MS)
    with world.recorder.store.reader() as connection:
        past = Past(connection, asked, None, grid)
        for now_ms, values in read[60:]:
            past.move(now_ms)
            assert [past.ask(None, query) for query in asked] == values
    found = look(world, one, 330, manager=None)
    assert found.firings
    assert any("replayed" in limit for limit in found.limits)
    assert any("forgotten when it is told again" in limit for limit in found.limits)


def test_a_preview_about_letters_begins_where_they_are_kept(world: World) -> None:
    world.clock.pass_(40 * 86_400)
    world.execute("UPDATE store_meta SET value = ? WHERE name = 'created_ms'", [str(START_MS)])
    days = 24 * 60
    one = shipped_rule("DeliveryFailing")
    kept, less = (look(world, one, 20 * days, manager=None, **more) for more in ({}, {"kept_s": 5 * 86_400.0}))
    for found, minutes in ((kept, 14 * days - 60), (less, 5 * days - 60)):
        assert abs(found.from_ms - (world.clock.wall_ms() - minutes * MINUTE_MS)) <= found.step_ms
        assert "nothing it needs is kept from before" in found.limits[0]


@pytest.mark.parametrize("name", ["AgreementStale", "RecorderBehind"])
def test_what_of_the_shipped_rules_is_not_recorded_is_said_by_name_with_where_to_look(world: World, name: str) -> None:
    one = shipped_rule(name)
    with pytest.raises(NoPreview, match="history of alerts") as found:
        look(world, one, 60, manager=None)
    assert all(query.name in str(found.value) for query in one.expression.queries)


def test_every_other_shipped_rule_can_be_previewed(world: World) -> None:
    world.record(request(START_MS))
    agreed(world, "primary")
    world.clock.pass_(600)
    for one in read_rules(shipped("alerts.toml")).rules:
        if one.alert not in ("AgreementStale", "RecorderBehind"):
            assert look(world, one, 5, manager=whom(one, "chat")).sentence


@pytest.mark.parametrize(
    ("text", "low"),
    [
        ('requests("5m") < 3', True),
        ('3 > requests("5m")', True),
        ('error_rate("5m") > 0.1', False),
        ("override_active", False),
        ('active_model == "primary" && secondary_share("5m") <= 0.5', True),
    ],
)
def test_the_worst_value_is_the_lowest_where_a_rule_is_about_too_little(text: str, low: bool) -> None:
    assert falls(text) is low


def test_time_is_cut_finely_only_where_an_edge_of_a_window_moves() -> None:
    hour = 60 * MINUTE_MS
    spans = pieces(Grid(1000 * hour, 1002 * hour, MINUTE_MS), [30 * 24 * hour, 5 * MINUTE_MS])
    assert len(spans) == 2 * 120 + 5 + 1
    assert [one.to_ms for one in spans[:-1]] == [one.from_ms for one in spans[1:]]
    assert spans[0].from_ms == (1000 - 720) * hour
    assert spans[-1].to_ms == 1002 * hour


def test_weeks_are_judged_in_larger_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "MOST_STEPS", 100)
    world.record(request(START_MS))
    world.clock.pass_(5 * 3600)
    found = look(world, rule('requests("5m") > 0'), 300)
    assert found.step_ms == 5 * MINUTE_MS
    assert "5 min" in found.looked
    assert found.samples[0].state in (State.INACTIVE, State.FIRING)
