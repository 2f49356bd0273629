"""Rounds of agreement against a coordinator in memory, by hand-turned clocks: restarts, regressions, absences."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.config import Config
from engine.core.agreement import Document, DocumentError, Force, Member, Opinion, Override, Verdict, Vote
from engine.core.breaker import BreakerState
from engine.core.effects import Attempt
from engine.core.events import FailoverRecord, Record, Records, listed
from engine.core.messages import Completion, FinishReason, Role, Usage
from engine.core.switchboard import Switchboard
from engine.endings import succeeded
from engine.exchange import Exchange, Identity
from engine.fleet.base import CoordinatorUnavailable
from engine.fleet.rounds import SKEW, Rounds
from engine.fleet.view import FleetState
from engine.providers.simulated import SimulatedProvider
from engine.tickets import Ticket

PRIMARY, SECONDARY = Role.PRIMARY, Role.SECONDARY
WALL = 1_800_000_000_000
TWO_MANAGERS = '\n[managers.other]\nprimary = "pro"\nsecondary = "flash"\n'


class Hand:
    """Clocks that are turned by hand."""

    def __init__(self, wall_ms: int = WALL) -> None:
        self.now, self.wall = 100.0, wall_ms

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return self.wall

    def turn(self, seconds: float) -> None:
        self.now += seconds
        self.wall += round(seconds * 1000)


class Memory:
    """A coordinator in memory that can be away, slow to say so, or hold garbage."""

    def __init__(self, clock: Hand) -> None:
        self.clock = clock
        self.documents: dict[str, Document | str] = {}
        self.all_votes: dict[tuple[str, str], Vote] = {}
        self.all_members: dict[str, Member] = {}
        self.away: set[str] = set()
        self.takes = 0.0
        self.reads: list[str] = []

    def _touch(self, manager: str = "") -> None:
        if "" in self.away or (manager and manager in self.away):
            self.clock.turn(self.takes)
            msg = "memory://x cannot be reached: check fleet.url"
            raise CoordinatorUnavailable(msg)

    def read(self, manager: str) -> Document | None:
        self.reads.append(manager)
        self._touch(manager)
        found = self.documents.get(manager)
        if isinstance(found, str):
            raise DocumentError(found)
        return found and Document.from_json(found.to_json())

    def swap(self, manager: str, expected_epoch: int | None, document: Document) -> bool:
        stored = self.read(manager)
        if (stored.epoch if stored else None) != expected_epoch:
            return False
        self.documents[manager] = document
        return True

    def subscribe(self, on_change: Callable[[str], None]) -> None: ...

    def vote(self, manager: str, vote: Vote, ttl: float) -> None:
        self._touch(manager)
        self.all_votes[manager, vote.instance] = vote

    def votes(self, manager: str) -> list[Vote]:
        self._touch(manager)
        return [vote for (name, _), vote in self.all_votes.items() if name == manager]

    def register(self, member: Member, ttl: float) -> None:
        self._touch()
        self.all_members[member.instance] = member

    def members(self) -> list[Member]:
        self._touch()
        return list(self.all_members.values())

    def lease(self, name: str, owner: str, ttl: float) -> bool:
        return True

    def close(self) -> None: ...


class Notes:
    """A sink that keeps everything."""

    full = False

    def __init__(self) -> None:
        self.records: list[Record] = []

    def submit(self, records: Records, *, here: bool = False) -> Ticket:
        self.records += listed(records)
        return Ticket()

    @property
    def moves(self) -> list[tuple[int, str, str]]:
        found = [record for record in self.records if isinstance(record, FailoverRecord)]
        return [(record.epoch, record.to_role, record.cause) for record in found]


class Process(Rounds):
    """One process by hand."""

    def __init__(
        self, config: Config, store: Memory, clock: Hand, name: str = "a", local: Memory | None = None
    ) -> None:
        self.sink, self.name = Notes(), name
        super().__init__(store, self.sink, clock, local=local)
        self.exchanges = {
            manager: Exchange(
                config.manager_policy(manager),
                identity=Identity(name, f"host-{name}"),
                sink=self.sink,
                providers={},
                clock=clock,
            )
            for manager in config.managers
        }
        for exchange in self.exchanges.values():
            self.add(exchange)
        self.recall()

    def member(self) -> Member:
        return Member(self.name, f"host-{self.name}", gauges={"instances": self.board.instances})

    @property
    def board(self) -> Switchboard:
        return self.exchanges["chat"].board

    @property
    def document(self) -> Document:
        return self.exchanges["chat"].board.document


AWAY = Document(
    epoch=7, active=SECONDARY, share=0.0, cause="quorum", since_ms=WALL - 10_000, hold=15.0, moved=7, moved_by="quorum",
    writer="b/1",
)  # fmt: skip


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def store(clock: Hand) -> Memory:
    return Memory(clock)


# -- a store that went back in time ------------------------------------------------------------------------------


def test_another_document_of_the_same_epoch_is_refused_told_and_written_over_one_epoch_later(
    config: Config, clock: Hand, store: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    store.documents["chat"] = AWAY
    one = Process(config, store, clock)
    one.turn()
    store.documents["chat"] = replace(AWAY, active=PRIMARY, share=1.0, writer="c/9")
    one.turn()
    assert (one.document.epoch, one.document.active, one.document.cause) == (8, SECONDARY, "regressed")
    assert one.document.evidence == {"refused_epoch": 7, "refused_writer": "c/9"}
    assert one.document.is_same(store.documents["chat"])  # type: ignore[arg-type]
    assert one.trouble is not None
    assert "went back to epoch 7 by c/9" in one.trouble
    assert one.regressed_ms == WALL
    for _ in range(20):
        clock.turn(0.5)
        one.turn()
    assert "went back" in (one.trouble or ""), "people have minutes to see it"
    assert sum("went back" in line for line in caplog.messages) == 1
    clock.turn(301.0)
    one.turn()
    assert one.trouble is None


def test_both_sides_of_a_forked_epoch_end_on_one_document(config: Config, clock: Hand, store: Memory) -> None:
    one, two = Process(config, store, clock, "a"), Process(config, store, clock, "b")
    store.documents["chat"] = AWAY
    one.turn()
    store.documents["chat"] = replace(AWAY, active=PRIMARY, share=1.0, writer="c/9")
    two.turn()
    for process in (one, two, one, two):
        process.turn()
    assert one.document.is_same(two.document)
    assert one.document.epoch == 8


def test_a_lower_epoch_is_refused_and_a_lost_document_written_again(config: Config, clock: Hand, store: Memory) -> None:
    store.documents["chat"] = AWAY
    one = Process(config, store, clock)
    one.turn()
    store.documents["chat"] = Document(epoch=3, writer="c/1")
    one.turn()
    assert (one.document.epoch, one.document.active) == (8, SECONDARY)
    del store.documents["chat"]
    one.turn()
    assert one.document.is_same(store.documents["chat"])  # type: ignore[arg-type]
    assert "lost the agreement" in (one.trouble or "")


def test_an_act_between_reading_and_looking_is_no_regression(config: Config, clock: Hand, store: Memory) -> None:
    store.documents["chat"] = AWAY
    one = Process(config, store, clock)
    one.turn()
    later = AWAY.following(cause="override", writer="op/1")
    plain = store.read
    seen: list[Document | None] = []

    def read_between(manager: str) -> Document | None:
        found = plain(manager)
        if not seen:
            seen.append(found)
            store.documents["chat"] = later
            one.exchanges["chat"].adopt(later)
        return found

    store.read = read_between  # type: ignore[method-assign]
    one.turn()
    assert one.trouble is None
    assert one.document.epoch == 8


# -- a restart ---------------------------------------------------------------------------------------------------


def test_a_restart_neither_begins_a_hold_anew_nor_forgets_health(config: Config, clock: Hand, store: Memory) -> None:
    store.documents["chat"] = AWAY
    one = Process(config, store, clock)
    one.turn()
    board = one.board
    assert board.hold_until == pytest.approx(clock.now + 5.0)
    clock.turn(1.0)
    store.documents["chat"] = replace(AWAY, epoch=8, active=PRIMARY, share=1.0, writer="b/2", moved=8)
    one.turn()
    assert board.active_seen == clock.now, "what it saw itself it measures itself"


@pytest.mark.parametrize(("neighbours", "more"), [(False, 0.0), (True, SKEW)])
def test_a_restarted_process_ends_a_pin_alone_only_where_nobody_saw_it_begin(
    config: Config, clock: Hand, store: Memory, neighbours: bool, more: float
) -> None:
    pin = Override(SECONDARY, False, "maintenance", "ana", 60.0, WALL + 20_000, 8)
    force = Force("forced_open", "bad answers", "ana", 60.0, WALL + 20_000, 8)
    store.documents["chat"] = replace(AWAY, epoch=8, override=pin, forced={"primary": force}, writer="b/2")
    if neighbours:
        store.all_members["b"] = Member("b", "host-b")
    one = Process(config, store, clock)
    one.turn()
    clock.turn(19.0 + more)
    one.turn()
    assert one.document.override == pin
    clock.turn(1.0)
    one.turn()
    one.turn()
    left = store.documents["chat"]
    assert isinstance(left, Document)
    assert left.override is None
    assert not left.forced


def test_a_move_is_recorded_once_under_its_own_epoch_whoever_missed_it(
    config: Config, clock: Hand, store: Memory
) -> None:
    one = Process(config, store, clock)
    store.documents["chat"] = Document(epoch=1, writer="b/1")
    one.turn()
    moved = Document(epoch=1, writer="b/1").following(active=SECONDARY, share=0.0, cause="quorum", writer="b/2")
    store.documents["chat"] = moved.following(cause="force", writer="op/1")
    one.turn()
    assert one.sink.moves == [(2, "secondary", "quorum")]


def test_a_restart_records_a_fresh_move_at_its_time_and_no_old_one(config: Config, clock: Hand, store: Memory) -> None:
    store.documents["chat"] = AWAY.following(cause="force", writer="b/2")
    one = Process(config, store, clock)
    one.turn()
    (record,) = [record for record in one.sink.records if isinstance(record, FailoverRecord)]
    assert (record.epoch, record.cause, record.ts_ms) == (7, "quorum", AWAY.since_ms)
    clock.turn(7200.0)
    late = Process(config, store, clock, "late")
    late.turn()
    assert late.sink.moves == []


def test_the_last_agreement_and_the_fleets_size_survive_a_start_without_the_coordinator(
    config: Config, clock: Hand, store: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Memory(clock)
    store.documents["chat"] = AWAY
    for host in "bcd":
        store.all_members[host] = Member(host, f"host-{host}")
    one = Process(config, store, clock, local=disk)
    for _ in range(3):
        one.turn()
        clock.turn(2.0)
    store.away = {""}
    again = Process(config, store, clock, local=disk)
    for _ in range(5):
        again.turn()
        clock.turn(0.5)
    assert again.document.is_same(AWAY)
    assert again.board.instances == 4
    assert again.board.hold_until < clock.now + 15.0 - 10.0
    assert again.reachable is False
    assert sum("the last agreement stands until it is back" in line for line in caplog.messages) == 1


def test_a_manager_that_is_added_later_remembers_too(config: Config, clock: Hand, store: Memory) -> None:
    disk = Memory(clock)
    disk.documents["chat"] = AWAY
    one = Process(config, store, clock, local=disk)
    store.away = {""}
    late = Exchange(
        config.manager_policy("chat"), identity=Identity("a", "h"), sink=one.sink, providers={}, clock=clock
    )
    one.add(late)
    assert late.board.document.is_same(AWAY)


# -- a coordinator that is away ------------------------------------------------------------------------------------


def test_while_it_is_away_nothing_advances_and_it_is_said(
    config: Config, clock: Hand, store: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store.documents["chat"] = AWAY
    store.all_members["b"] = Member("b", "host-b")
    one = Process(config, store, clock)
    one.turn()
    agreed = one.agreed_ms
    store.away = {""}
    for _ in range(100):
        clock.turn(2.0)
        one.turn()
    assert one.document.is_same(AWAY)
    assert one.board.instances == 2, "spill stays divided"
    assert (one.reachable, one.agreed_ms) == (False, agreed)
    assert "cannot be reached" in (one.trouble or "")
    store.away = set()
    one.turn()
    assert (one.reachable, one.agreed_ms, one.trouble) == (True, clock.wall, None)
    assert len(caplog.messages) == 2, caplog.messages


def test_waiting_for_a_dead_coordinator_is_no_pause_of_the_process(config: Config, clock: Hand, store: Memory) -> None:
    store.documents["chat"] = AWAY
    one = Process(config, store, clock)
    store.away, store.takes = {""}, 4.0
    one.turn()
    one.stood_still(0.01)
    store.away = set()
    one.turn()
    assert ("chat", "a") in store.all_votes, "it votes at once when the coordinator is back"


def test_a_probe_that_is_under_way_while_the_process_stands_still_decides_afterwards(
    config: Config, clock: Hand
) -> None:
    """It counted as lost, and the model that had answered stayed shut."""
    policy, stood = config.manager_policy("chat"), 0.0
    exchange = Exchange(
        policy,
        identity=Identity("a", "h"),
        sink=Notes(),
        providers={policy.primary.provider: SimulatedProvider()},
        clock=clock,
        stood_still=lambda: stood,
    )
    exchange.trip(Role.PRIMARY, "test")
    clock.turn(policy.breaker.open_max)
    probing, sent = exchange.begin("Why?"), clock.now
    assert isinstance(probing.start(), Attempt)
    clock.turn(900.0)
    stood = 899.0
    exchange.vote()
    probing.resume(succeeded(Completion("blue", FinishReason.STOP, Usage(3, 1)), sent, clock.now))
    assert exchange.board.lines[Role.PRIMARY].breaker.state is BreakerState.CLOSED


def test_a_process_that_was_paused_in_a_round_decides_nothing_from_old_votes_and_abstains(
    config: Config, clock: Hand, store: Memory
) -> None:
    one = Process(config, store, clock)
    one.turn()
    epoch = one.document.epoch
    down = Opinion(Verdict.DOWN, 9, 9, "open")
    store.all_votes = {("chat", name): Vote(name, f"host-{name}", epoch, down) for name in "bc"}
    plain = store.votes

    def paused(manager: str) -> list[Vote]:
        found = plain(manager)
        clock.turn(60.0)
        return found

    store.votes = paused  # type: ignore[method-assign]
    one.turn()
    assert one.document.active is PRIMARY
    store.votes = plain  # type: ignore[method-assign]
    store.all_votes.clear()
    one.turn()
    assert store.all_votes == {}, "what it found before the pause is too old to vote on"
    clock.turn(31.0)
    one.turn()
    assert ("chat", "a") in store.all_votes


def test_one_managers_refused_document_keeps_no_other_waiting(
    make_config: Callable[..., Config], clock: Hand, store: Memory
) -> None:
    one = Process(make_config(TWO_MANAGERS), store, clock)
    store.documents = {"chat": AWAY, "other": AWAY}
    store.away = {"chat"}
    one.turn()
    assert one.exchanges["other"].board.document.epoch == 7
    assert one.document.epoch == 0
    assert one.reachable is False


def test_where_nothing_answers_a_turn_waits_once_and_begins_elsewhere_the_next_time(
    make_config: Callable[..., Config], clock: Hand, store: Memory
) -> None:
    one = Process(make_config(TWO_MANAGERS), store, clock)
    store.away, store.takes = {"chat", "other"}, 4.0
    began = clock.now
    one.turn()
    one.turn()
    assert clock.now - began == 8.0
    assert store.reads == ["chat", "other"]


@pytest.mark.parametrize(
    "text", ["not an agreement document: x", "the document was written by a newer version (9 > 1)"]
)
def test_what_cannot_be_read_leaves_the_last_good_agreement_unconfirmed_and_one_line(
    config: Config, clock: Hand, store: Memory, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.documents["chat"] = AWAY
    one = Process(config, store, clock)
    one.turn()
    agreed = one.agreed_ms
    store.documents["chat"] = text
    for _ in range(10):
        clock.turn(0.5)
        one.turn()
    assert one.document.is_same(AWAY)
    assert (one.reachable, one.agreed_ms) == (True, agreed), "so the alert on a stale agreement comes"
    assert text in (one.trouble or "")
    assert sum(text in line for line in caplog.messages) == 1


# -- what the quorum sees ------------------------------------------------------------------------------------------


def test_each_process_tells_its_own_store_what_the_quorum_sees(config: Config, clock: Hand, store: Memory) -> None:
    disk = Memory(clock)
    store.documents["chat"] = AWAY
    store.all_members["b"] = Member(
        "b", "host-b", "1.2", gauges={"epochs": {"chat": 5}, "at_ms": 9000, "agreement_ms": 2000}
    )
    one = Process(config, store, clock, local=disk)
    one.turn()
    clock.turn(3.0)
    one.turn()
    assert "fleet" not in store.all_members["a"].gauges, "what everybody sees need not be sent to everybody"
    view = FleetState.from_body(disk.all_members["a"].gauges["fleet"]["chat"])
    assert view is not None
    assert (view.epoch, view.live_hosts, view.primary.opinions) == (7, 2, 1), (
        "a host alive that does not vote counts as lost"
    )
    b = next(seat for seat in view.seats if seat.instance == "b")
    assert (b.version, b.epoch, b.lag, b.agreement_age, b.voted) == ("1.2", 5, 2, 7.0, False)
