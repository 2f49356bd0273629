"""The agreement in the shared store: the contract of all coordinators, and what only this one promises."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import queries
from engine.core.agreement import Document, Member, Override, Vote
from engine.core.errors import StoreUnavailable
from engine.core.messages import Role
from engine.fleet.base import Coordinator, CoordinatorUnavailable
from engine.fleet.registry import open_coordinator
from engine.fleet.store import StoreCoordinator
from engine.recorder import Recorder
from engine.store import Store
from tests.engine.fleet.test_coordinators import *  # noqa: F403 - the contract, run on this coordinator
from tests.patience import seconds_until

pytestmark: list[pytest.MarkDecorator] = []


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "switchgear.db")


@pytest.fixture
def join() -> Iterator[Callable[..., Coordinator]]:
    """Coordinators with a recorder of their own each, as processes have."""
    opened: list[tuple[Coordinator, Recorder]] = []

    def open_one(url: str, name: str = "a") -> Coordinator:
        recorder = Recorder(Store(url).open())
        opened.append((open_coordinator("store", instance=name, recorder=recorder), recorder))
        return opened[-1][0]

    yield open_one
    for coordinator, recorder in opened:
        coordinator.close()
        recorder.close()


class Clock:
    """Monotonic and wall time that a test sets apart from each other."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = 1_800_000_000_000

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.wall += round(seconds * 1000)


@pytest.fixture
def recorder(url: str) -> Iterator[Recorder]:
    made = Recorder(Store(url).open())
    yield made
    made.close()


def observer(recorder: Recorder, clock: Clock) -> StoreCoordinator:
    return StoreCoordinator(recorder, clock=lambda: clock.now, wall_ms=lambda: clock.wall)


def test_a_wall_clock_that_steps_neither_ends_nor_prolongs_a_vote(recorder: Recorder) -> None:
    clock = Clock()
    one = observer(recorder, clock)
    one.vote("chat", Vote("a", "h", 1), 10.0)
    assert len(one.votes("chat")) == 1
    clock.wall += 86_400_000
    assert len(one.votes("chat")) == 1
    clock.wall -= 2 * 86_400_000
    clock.now += 9.9
    assert len(one.votes("chat")) == 1
    clock.now += 0.2
    assert one.votes("chat") == []


def test_what_was_left_from_before_a_restart_is_not_news(recorder: Recorder) -> None:
    clock = Clock()
    before = observer(recorder, clock)
    before.vote("chat", Vote("a", "h", 1), 10.0)
    before.register(Member("a", "h"), 10.0)
    before.lease("evaluator", "a", 10.0)
    clock.pass_by(60.0)
    after = observer(recorder, clock)
    assert after.votes("chat") == []
    assert [(member.alive, member.lost_for) for member in after.members()] == [(False, pytest.approx(50.0, abs=0.01))]
    assert after.lease("evaluator", "b", 10.0) is True


def test_the_time_in_which_nobody_could_write_makes_nobody_long_lost(recorder: Recorder) -> None:
    """Of hosts that share a store, whoever wrote first was alone, past all grace, and could move the others."""
    clock = Clock()
    one, two = observer(recorder, clock), observer(recorder, clock)
    for _ in range(2):
        one.register(Member("a", "h1"), 10.0)
        two.register(Member("b", "h2"), 10.0)
        assert [member.alive for member in one.members()] == [True, True]
    clock.pass_by(200.0)
    one.register(Member("a", "h1"), 10.0)
    assert [(member.alive, member.lost_for) for member in one.members()] == [(True, 0.0), (False, 0.0)]
    clock.pass_by(5.0)
    assert one.members()[1].lost_for == 5.0


def test_a_member_lost_for_long_is_forgotten(recorder: Recorder) -> None:
    clock = Clock()
    one = observer(recorder, clock)
    one.register(Member("a", "h"), 10.0)
    assert one.members()[0].alive
    clock.pass_by(3700.0)
    assert one.members() == []
    clock.pass_by(86_400.0)
    one.register(Member("b", "h"), 10.0)
    with recorder.store.reader() as connection:
        assert [row.instance for row in queries.instances(connection)] == ["b"]


def test_a_lease_that_is_renewed_is_not_taken_however_the_wall_clock_steps(recorder: Recorder) -> None:
    clock = Clock()
    owner, other = observer(recorder, clock), observer(recorder, clock)
    assert owner.lease("evaluator", "a", 10.0)
    assert not other.lease("evaluator", "b", 10.0)
    clock.wall += 86_400_000
    assert not other.lease("evaluator", "b", 10.0)
    clock.now += 9.0
    assert owner.lease("evaluator", "a", 10.0)
    clock.now += 9.0
    assert not other.lease("evaluator", "b", 10.0)


def test_every_adopted_document_is_kept_in_the_log(recorder: Recorder) -> None:
    one = StoreCoordinator(recorder)
    one.swap("chat", None, Document(epoch=1, writer="host-1/abc"))
    one.swap("chat", 1, Document(epoch=2, active=Role.SECONDARY, share=0.0, cause="quorum"))
    one.swap("chat", 1, Document(epoch=2, active=Role.PRIMARY))
    with recorder.store.reader() as connection:
        log = queries.agreement_log(connection, "chat")
        instance = connection.execute("SELECT instance FROM agreements WHERE epoch = 1").fetchone()[0]
    assert [(found.document.epoch, found.document.active) for found in log] == [(2, "secondary"), (1, "primary")]
    assert instance == "host-1"


def test_only_a_ramp_that_the_engine_gave_up_counts_as_aborted(recorder: Recorder) -> None:
    one = StoreCoordinator(recorder)
    pin = Override(Role.SECONDARY, False, "why", "ana", 60.0, 1, 5)
    steps = [
        Document(epoch=1, active=Role.SECONDARY, share=0.0),
        Document(epoch=2, active=Role.SECONDARY, share=0.1, stage=0),
        Document(epoch=3, active=Role.SECONDARY, share=0.0, cause="timeout"),
        Document(epoch=4, active=Role.SECONDARY, share=0.1, stage=0),
        Document(epoch=5, active=Role.SECONDARY, share=0.0, override=pin),
        Document(epoch=6, active=Role.SECONDARY, share=0.5, stage=2),
        Document(epoch=7, active=Role.PRIMARY, share=1.0),
    ]
    before = None
    for document in steps:
        assert one.swap("chat", before, document)
        before = document.epoch
    with recorder.store.reader() as connection:
        aborted = connection.execute("SELECT epoch FROM agreements WHERE ramp_aborted = 1").fetchall()
        facts = queries.facts(connection, "chat", queries.Window(0, 1 << 60))
    assert aborted == [(3,)]
    assert facts.ramp_aborts == 1


def test_a_store_that_is_gone_is_a_coordinator_that_is_unavailable(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.db").open()
    recorder = Recorder(store)
    one = StoreCoordinator(recorder)
    recorder.close()
    with pytest.raises(CoordinatorUnavailable):
        one.swap("chat", None, Document(epoch=1))
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(CoordinatorUnavailable, match="no database at"):
        one.read("chat")
    with pytest.raises(StoreUnavailable):
        recorder.start()
    one.close()


def test_processes_race_for_epochs_and_none_is_lost(url: str, recorder: Recorder) -> None:
    code = f"""
from engine.core.agreement import Document
from engine.fleet.store import StoreCoordinator
from engine.recorder import Recorder
from engine.store import Store
recorder = Recorder(Store({url!r}).open())
one = StoreCoordinator(recorder)
won = 0
while (document := one.read("chat") or Document()).epoch < 60:
    won += one.swap("chat", document.epoch or None, Document(epoch=document.epoch + 1))
print(won)
recorder.close()
"""
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    won = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(won) == 60
    with recorder.store.reader() as connection:
        assert connection.execute("SELECT count(*) FROM agreements").fetchone()[0] == 60


def test_a_change_by_another_process_is_noticed_within_a_second(url: str, recorder: Recorder) -> None:
    one = StoreCoordinator(recorder)
    one.swap("chat", None, Document(epoch=1))
    heard: list[str] = []
    one.subscribe(heard.append)
    time.sleep(0.3)
    heard.clear()
    other = Recorder(Store(url))
    StoreCoordinator(other).swap("chat", 1, Document(epoch=2))
    took = seconds_until(lambda: heard)
    other.close()
    one.close()
    assert took < 1.0
