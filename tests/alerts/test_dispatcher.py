"""Delivery to real receivers: isolation, order, the schedule, what is dead at once, and a receiver that is gone."""

from __future__ import annotations

import itertools
import threading
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from alerts import outbox, queries
from alerts.channels import CHANNELS
from alerts.dispatcher import LANES, Dispatcher, send_test
from alerts.grouping import Audience
from alerts.notices import Line, Notice, Reason, Status
from alerts.observations import LETTERS_LAST_MS
from alerts.outbox import SCHEDULE_S, Letter, delay_s
from alerts.receivers import Receiver
from engine.clock import SystemClock
from engine.ids import new_id
from engine.sqlite import Connection
from tests.alerts.listener import Letter as Heard
from tests.alerts.listener import Listener, RawServer
from tests.alerts.world import World
from tests.patience import eventually, never

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"


def receiver(name: str, url: str, kind: str = "webhook", secret: str | None = None) -> Receiver:
    return Receiver(Audience(name), CHANNELS[kind], url, secret, allow_private=True)


def letter(world: World, to: str, body: str, order: str = "group") -> Letter:
    now = world.clock.wall_ms()
    one = Letter(new_id(), now, to, "webhook", order, new_id(), "application/json", body)
    world.recorder.execute(lambda connection: outbox.put(connection, one)).result(30)
    return one


def states(world: World) -> list[str]:
    return [row[0] for row in world.rows("SELECT state FROM outbox ORDER BY seq")]


def deliver_all(dispatcher: Dispatcher, one: Receiver) -> None:
    for _ in range(50):
        if dispatcher.deliver_next(one) > 0:
            return


@given(st.integers(0, 60), st.floats(0, 1, exclude_max=True), st.one_of(st.none(), st.floats(0, 10**6)))
def test_the_schedule_has_its_steps_jitter_and_floor(attempts: int, rand: float, retry_after: float | None) -> None:
    base = SCHEDULE_S[min(attempts, len(SCHEDULE_S) - 1)]
    delay = delay_s(attempts, retry_after, rand)
    assert delay >= base
    assert delay >= min(retry_after or 0, outbox.LONGEST_RETRY_AFTER_S)
    if not retry_after:
        assert delay <= base * 1.2


def test_a_letter_is_tried_after_0_s_5_s_30_s_2_m_and_so_on_for_a_day_and_then_it_is_dead(world: World) -> None:
    with Listener(lambda letter, n: (500, {}, b"broken")) as server:
        ops = receiver("ops", server.url)
        dispatcher = Dispatcher(world.recorder, world.clock, [ops], "d")
        letter(world, "ops", "{}")
        times = []
        for _ in range(60):
            assert dispatcher.deliver_next(ops) == 0.0
            times.append(world.clock.wall)
            state, due = world.rows("SELECT state, next_attempt_ms FROM outbox")[0]
            if state == "dead":
                break
            world.clock.pass_((due - world.clock.wall) / 1000)
    assert state == "dead"
    assert times[-1] - times[0] <= LETTERS_LAST_MS
    assert len(times) >= 24
    for gap, base in zip(itertools.pairwise(times), SCHEDULE_S[1:], strict=False):
        assert base * 1000 <= gap[1] - gap[0] <= base * 1200 + 1
    ids = {one.headers["webhook-id"] for one in server.letters}
    assert len(ids) == 1
    assert len({one.body for one in server.letters}) == 1
    assert len(world.rows("SELECT * FROM deliveries")) == len(times)


def test_a_receiver_that_was_down_for_an_hour_gets_what_it_missed_in_order(world: World) -> None:
    up = threading.Event()
    with Listener(lambda letter, n: (200, {}, b"") if up.is_set() else (503, {}, b"")) as server:
        ops = receiver("ops", server.url)
        dispatcher = Dispatcher(world.recorder, world.clock, [ops], "d")
        for minute in range(60):
            letter(world, "ops", f'"{minute}"')
            deliver_all(dispatcher, ops)
            world.clock.pass_(60)
        failed = len(server.letters)
        assert {one.body for one in server.letters} == {b'"0"'}
        up.set()
        world.clock.pass_(2 * 3600)  # with its jitter the next try may be later than in one
        for _ in range(70):
            dispatcher.deliver_next(ops)
    assert [one.body for one in server.letters[failed:]] == [f'"{minute}"'.encode() for minute in range(60)]
    assert set(states(world)) == {"delivered"}


def test_groups_of_one_receiver_do_not_wait_for_each_other(world: World) -> None:
    with Listener(lambda letter, n: (500 if letter.body == b'"bad"' else 200, {}, b"")) as server:
        ops = receiver("ops", server.url)
        dispatcher = Dispatcher(world.recorder, world.clock, [ops], "d")
        for body, order in (('"bad"', "a"), ('"after bad"', "a"), ('"good"', "b")):
            letter(world, "ops", body, order)
        deliver_all(dispatcher, ops)
    assert states(world) == ["pending", "pending", "delivered"]


@pytest.mark.parametrize(
    ("status", "headers", "state", "wait_s"),
    [
        (204, {}, "delivered", 0),
        (400, {}, "dead", 0),
        (404, {}, "dead", 0),
        (408, {}, "pending", 5),
        (429, {"Retry-After": "77"}, "pending", 77),
        (503, {"Retry-After": "2"}, "pending", 5),
        (500, {}, "pending", 5),
        (301, {"Location": "http://127.0.0.1:1/"}, "pending", 5),
    ],
)
def test_what_an_answer_does(world: World, status: int, headers: dict[str, str], state: str, wait_s: float) -> None:
    with Listener(lambda letter, n: (status, headers, b"")) as server:
        ops = receiver("ops", server.url)
        letter(world, "ops", "{}")
        Dispatcher(world.recorder, world.clock, [ops], "d").deliver_next(ops)
    ((found, due),) = world.rows("SELECT state, next_attempt_ms FROM outbox")
    assert found == state
    assert wait_s * 1000 <= due - world.clock.wall <= wait_s * 1200 + 1
    ((attempts, code),) = world.rows("SELECT n, status_code FROM deliveries")
    assert (attempts, code) == (1, status)
    outcome = {"pending": "failed"}.get(state, state)
    assert world.rows("SELECT labels FROM totals WHERE name = 'notifications'") == [
        (f'{{"receiver":"ops","outcome":"{outcome}"}}',)
    ]


def test_retry_after_may_be_a_date(world: World) -> None:
    until = format_datetime(datetime.fromtimestamp(world.clock.wall / 1000 + 100, UTC), usegmt=True)
    with Listener(lambda letter, n: (429, {"Retry-After": until}, b"")) as server:
        ops = receiver("ops", server.url)
        letter(world, "ops", "{}")
        Dispatcher(world.recorder, world.clock, [ops], "d").deliver_next(ops)
    assert 99_000 <= world.rows("SELECT next_attempt_ms FROM outbox")[0][0] - world.clock.wall <= 101_000


def test_410_stops_the_receiver_until_it_is_resumed_and_its_letters_can_be_replayed(world: World) -> None:
    answers = [410]
    with Listener(lambda letter, n: (answers[0], {}, b"")) as server:
        ops = receiver("ops", server.url)
        dispatcher = Dispatcher(world.recorder, world.clock, [ops], "d")
        first = [letter(world, "ops", f'"{n}"') for n in range(3)]
        deliver_all(dispatcher, ops)
        assert len(server.letters) == 1
        assert states(world) == ["dead"] * 3
        with world.recorder.store.reader() as connection:
            assert outbox.stopped(connection, [ops]) == {"ops"}
            assert outbox.stopped(connection, [receiver("ops", "https://corrected.example")]) == set()
            assert queries.dead_letters(connection, world.clock.wall - 1, world.clock.wall) == [world.clock.wall] * 3
        answers[0] = 200
        now = world.clock.wall
        with world.recorder.store.reader() as connection:
            assert outbox.stopped(connection, [ops])
        assert world.recorder.execute(lambda c: outbox.replay(c, now, identifier=first[0].id)).result(30) == 1
        assert world.recorder.execute(lambda c: outbox.replay(c, now, receiver="ops")).result(30) == 2
        deliver_all(dispatcher, ops)
    assert [one.headers["webhook-id"] for one in server.letters[1:]] == [one.id for one in first]
    tried = world.rows("SELECT n, status_code FROM deliveries WHERE outbox_id = ? ORDER BY n", first[0].id)
    assert tried == [(1, 410), (2, 200)], "a replay overwrites what was tried before"


def test_a_letter_of_a_process_that_died_is_sent_again_after_its_lease(world: World) -> None:
    with Listener() as server:
        ops = receiver("ops", server.url)
        sent = letter(world, "ops", "{}")
        now = world.clock.wall
        world.recorder.execute(lambda connection: outbox.claim(connection, "ops", "dead process", now, 20_000)).result(
            30
        )
        dispatcher = Dispatcher(world.recorder, world.clock, [ops], "d")
        assert dispatcher.deliver_next(ops) > 0
        world.clock.pass_(20.1)
        assert dispatcher.deliver_next(ops) == 0
    assert [one.headers["webhook-id"] for one in server.letters] == [sent.id]


def test_a_lost_lease_does_not_overwrite_what_another_wrote(world: World) -> None:
    letter(world, "ops", "{}")
    now = world.clock.wall
    claimed = world.recorder.execute(lambda connection: outbox.claim(connection, "ops", "slow", now, 1)).result(30)
    assert claimed is not None
    world.execute("UPDATE outbox SET state = 'delivered', lease_owner = NULL")
    result = outbox.Result(delivered=False, status=500)
    world.recorder.execute(lambda connection: outbox.settle(connection, claimed, result, now, 0.0)).result(30)
    assert states(world) == ["delivered"]


def test_the_next_of_many_groups_is_found_in_one_look_at_what_waits(world: World) -> None:
    """Every letter was compared with all before it: with a thousand groups a receiver down cost a tenth of a core."""

    def steps(groups: int) -> int:
        now = world.clock.wall

        def fill(connection: Connection) -> None:
            for n in range(2 * groups):
                order = f"{groups} {n % groups}"
                one = Letter(new_id(), now, f"ops{groups}", "webhook", order, new_id(), "text/plain", "")
                outbox.put(connection, one)

        world.recorder.execute(fill).result(30)
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        with world.recorder.store.reader() as connection:
            connection.set_progress_handler(count, 100)
            assert queries.next_due(connection, f"ops{groups}", now) == now
            connection.set_progress_handler(None, 0)
        return counted

    few, many = steps(100), steps(1000)
    assert many < 20 * few


def test_a_signed_letter_is_verified_by_the_reference_package() -> None:
    with Listener() as server:
        for kind in ("webhook", "standard"):
            assert send_test(receiver("ops", server.url, kind, SECRET), "https://x", SystemClock()).delivered
        for one in server.letters:
            Webhook(SECRET).verify(one.body.decode(), one.headers)


def test_a_test_is_sent_once_and_says_what_went_wrong() -> None:
    result = send_test(receiver("ops", "http://127.0.0.1:9/"), "https://x", SystemClock())
    assert not result.delivered
    assert "refused" in str(result.error)
    private = Receiver(Audience("ops"), CHANNELS["webhook"], "https://127.0.0.1/", None)
    assert "allow_private" in str(send_test(private, "https://x", SystemClock()).error)


def test_a_receiver_that_hangs_delays_no_other_by_more_than_100_ms(world: World) -> None:
    world.clock = SystemClock()
    with RawServer(lambda sock, stopped: stopped.wait(60)) as hanging, Listener() as server:
        bad = [receiver(f"bad{n}", hanging.url) for n in range(3)]
        good = receiver("good", server.url)
        dispatcher = Dispatcher(world.recorder, world.clock, [*bad, good], "d")
        dispatcher.start()
        dispatcher.activate(active=True)
        for one in bad:
            letter(world, one.name, "{}")
        dispatcher.wake()
        time.sleep(0.3)
        delays = []
        for n in range(10):
            began = time.monotonic()
            letter(world, "good", f'"{n}"', order=str(n))
            dispatcher.wake()
            delays.append(server.wait_for(n + 1)[n].at - began)
        hanging.stopped.set()
        dispatcher.stop()
    assert sorted(delays)[len(delays) // 2] < 0.1
    assert [one.body for one in server.letters] == [f'"{n}"'.encode() for n in range(10)]


class Slow:
    """A receiver that answers when it is told to, and how many it was about at once."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.now, self.most = 0, 0
        self.lock = threading.Lock()

    def __call__(self, one: Heard, n: int) -> tuple[int, dict[str, str], bytes]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.go_on.wait(30)
        with self.lock:
            self.now -= 1
        return 200, {}, b""


def test_a_group_does_not_wait_for_one_that_a_slow_receiver_is_about(world: World) -> None:
    """A page waited for as long as the receiver took over other groups, up to 15 s each."""
    world.clock = SystemClock()
    slow = Slow()
    answer = lambda one, n: slow(one, n) if one.body == b'"slow"' else (200, {}, b"")  # noqa: E731
    with Listener(answer) as server:
        ops = receiver("ops", server.url)
        dispatcher = Dispatcher(world.recorder, world.clock, [ops], "d")
        dispatcher.start()
        dispatcher.activate(active=True)
        for n in range(LANES - 1):
            letter(world, "ops", '"slow"', order=f"slow{n}")
            letter(world, "ops", '"after slow"', order=f"slow{n}")
        for n in range(20):
            letter(world, "ops", f'"{n}"', order=f"other{n % 5}")
        dispatcher.wake()
        heard = server.wait_for(LANES - 1 + 20)
        assert slow.now == LANES - 1
        for n in range(5):
            mine = [int(one.json) for one in heard if one.body != b'"slow"' and int(one.json) % 5 == n]
            assert mine == sorted(mine), "a letter overtook one of its own group"
        assert b'"after slow"' not in {one.body for one in heard}
        slow.go_on.set()
        eventually(lambda: set(states(world)) == {"delivered"})
        dispatcher.stop()
    assert len(server.letters) == 20 + 2 * (LANES - 1), "something was sent twice"


@pytest.mark.parametrize("step", [3600.0, -86_400.0])
def test_what_is_under_way_is_not_sent_again_because_the_clock_was_stepped(world: World, step: float) -> None:
    """Its lease seemed to have run out, and another lane of the same process took the letter."""
    slow = Slow()
    with Listener(slow) as server:
        dispatcher = Dispatcher(world.recorder, world.clock, [receiver("ops", server.url)], "d")
        dispatcher.start()
        dispatcher.activate(active=True)
        letter(world, "ops", '"firing"')
        letter(world, "ops", '"resolved"')
        dispatcher.wake()
        server.wait_for(1)
        world.clock.step(step)
        world.execute("UPDATE outbox SET next_attempt_ms = 0 WHERE state = 'pending'")
        dispatcher.wake()
        never(lambda: len(server.letters) > 1, 0.5)
        slow.go_on.set()
        eventually(lambda: set(states(world)) == {"delivered"})
        dispatcher.stop()
    assert [one.json for one in server.letters] == ["firing", "resolved"]


def test_a_slow_receiver_is_sent_a_few_groups_at_once_and_no_more(world: World) -> None:
    world.clock = SystemClock()
    slow = Slow()
    with Listener(slow) as server:
        ops = receiver("ops", server.url)
        dispatcher = Dispatcher(world.recorder, world.clock, [ops], "d")
        dispatcher.start()
        dispatcher.activate(active=True)
        for n in range(3 * LANES):
            letter(world, "ops", "{}", order=str(n))
        dispatcher.wake()
        server.wait_for(LANES)
        time.sleep(0.3)
        assert len(server.letters) == LANES
        slow.go_on.set()
        eventually(lambda: set(states(world)) == {"delivered"})
        dispatcher.stop()
    assert slow.most == LANES


def test_stopping_finishes_what_is_under_way_and_begins_nothing_else(world: World) -> None:
    world.clock = SystemClock()
    slow = Slow()
    with Listener(slow) as server:
        dispatcher = Dispatcher(world.recorder, world.clock, [receiver("ops", server.url)], "d")
        dispatcher.start()
        dispatcher.activate(active=True)
        for n in range(2 * LANES):
            letter(world, "ops", "{}", order=str(n))
        dispatcher.wake()
        server.wait_for(LANES)
        stopping = threading.Thread(target=dispatcher.stop, args=(30.0,))
        stopping.start()
        time.sleep(0.1)
        assert stopping.is_alive()
        slow.go_on.set()
        stopping.join(30)
    assert len(server.letters) == LANES
    assert sorted(states(world)) == ["delivered"] * LANES + ["pending"] * LANES


def test_a_lane_that_was_late_does_not_settle_what_another_lane_has_taken_since(world: World) -> None:
    """A process stands still for longer than a lease: its own lanes take the letter anew, as another process would."""
    letter(world, "ops", "{}")
    ops = receiver("ops", "http://127.0.0.1:9/")
    dispatcher = Dispatcher(world.recorder, world.clock, [ops], "d")
    late, _ = dispatcher._take(ops)
    world.clock.pass_(20.1)
    again, _ = dispatcher._take(ops)
    assert late is not None
    assert again is not None
    dispatcher._settle(ops, late, outbox.Result(delivered=False, status=500))
    assert states(world) == ["leased"]
    dispatcher._settle(ops, again, outbox.Result(delivered=True, status=200))
    assert states(world) == ["delivered"]


def test_what_was_under_way_when_a_receiver_said_it_is_gone_is_given_up_too(world: World) -> None:
    """It stayed pending for ever, and so did the alert that says so."""
    ops = receiver("ops", "http://127.0.0.1:9/")
    dispatcher = Dispatcher(world.recorder, world.clock, [ops], "d")
    for n in range(2):
        letter(world, "ops", "{}", order=str(n))
    first, _ = dispatcher._take(ops)
    other, _ = dispatcher._take(ops)
    assert first is not None
    assert other is not None
    dispatcher._settle(ops, first, outbox.Result(delivered=False, status=410, final=True, gone=True))
    dispatcher._settle(ops, other, outbox.Result(delivered=False, status=500))
    letter(world, "ops", "{}", order="written by a tick that did not know yet")
    assert dispatcher.deliver_next(ops) > 0
    world.clock.pass_(10)
    assert dispatcher.deliver_next(ops) > 0
    assert states(world) == ["dead"] * 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_apprise_sends_to_a_local_receiver_and_refuses_it_where_it_is_not_allowed() -> None:
    pytest.importorskip("apprise")
    with Listener() as server:
        url = f"json://127.0.0.1:{server.port}/hook"
        assert send_test(receiver("ops", url, "apprise"), "https://x", SystemClock()).delivered
        assert "SwitchgearTest" in server.letters[0].body.decode()
        strict = Receiver(Audience("ops"), CHANNELS["apprise"], url, None)
        assert not send_test(strict, "https://x", SystemClock()).delivered


def test_slack_that_says_something_else_than_ok_is_tried_again(world: World) -> None:
    answers = iter([(200, {}, b"no_service"), (200, {}, b"ok")])
    line = Line(Status.FIRING, {"alertname": "A"}, {}, 1, None, "0" * 16)
    with Listener(lambda one, n: next(answers)) as server:
        ops = receiver("ops", server.url, "slack")
        notice = Notice("ops", Reason.FIRST, {"alertname": "A"}, (line,), "https://x", world.clock.wall)
        (one,) = outbox.letters(ops, notice)
        world.recorder.execute(lambda connection: outbox.put(connection, one)).result(30)
        dispatcher = Dispatcher(world.recorder, world.clock, [ops], "d")
        dispatcher.deliver_next(ops)
        assert states(world) == ["pending"]
        world.clock.pass_(6)
        dispatcher.deliver_next(ops)
    assert states(world) == ["delivered"]


def test_a_letter_is_not_sent_by_a_process_that_stood_still_after_it_took_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came a second time, behind the one that took it back."""
    with Listener() as server:
        ops = receiver("ops", server.url)
        frozen, other = (Dispatcher(world.recorder, world.clock, [ops], name) for name in "ab")
        for body in ('"firing"', '"resolved"'):
            letter(world, "ops", body)
        claim = frozen._claim

        def claim_and_stand_still(*arguments: Any) -> Any:
            claimed = claim(*arguments)
            world.clock.pass_(60)
            return claimed

        monkeypatch.setattr(frozen, "_claim", claim_and_stand_still)
        assert frozen.deliver_next(ops) == 0.0
        assert server.letters == []
        deliver_all(other, ops)
        assert [one.body for one in server.letters] == [b'"firing"', b'"resolved"']
        assert states(world) == ["delivered", "delivered"]
        assert [row[0] for row in world.rows("SELECT attempts FROM outbox")] == [1, 1]
