"""Five instances with real models, callers and coordinators: how fast they agree, and what one of them cannot do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.config import Config
from engine.core.breaker import BreakerState
from engine.core.messages import Role
from tests.engine.drivers import rows
from tests.engine.fleet.fleets import FLASH, PRO, QUICK, Fleet, Station
from tests.patience import eventually, never, seconds_until

pytestmark = pytest.mark.server

LONG_HOLD = QUICK.replace('hold = "1s"', 'hold = "1m"')


@pytest.fixture
def fleet(url: str, make_config: Callable[..., Config], tmp_path: Path) -> Iterator[Fleet]:
    """On every coordinator."""
    with Fleet(make_config(LONG_HOLD), url, tmp_path) as made:
        yield made


def is_open(station: Station) -> bool:
    return station.exchange.board.lines[Role.PRIMARY].breaker.state is BreakerState.OPEN


def test_from_the_death_of_primary_to_agreement_everywhere_is_under_a_second_beyond_detection(
    fleet: Fleet, record_property: Callable[[str, object], None]
) -> None:
    stations = fleet.five()
    before = {station.document.epoch for station in stations}
    assert len(before) == 1
    fleet.traffic()
    for station in stations:
        station.broken = {PRO}
    eventually(lambda: sum(map(is_open, stations)) >= 3)
    took = seconds_until(lambda: all(station.active is Role.SECONDARY for station in stations))
    record_property("seconds", took)
    print(f"{fleet.url.partition(':')[0]}: agreed {took * 1000:.0f} ms after the third breaker had opened")
    assert took < 1.0
    fleet.quiet()
    assert fleet.errors() == []
    assert {station.document.epoch for station in stations} == {before.pop() + 1}
    for station in stations:
        eventually(station.moves)
        (move,) = station.moves()
        assert (move["epoch"], move["cause"], move["to_role"]) == (station.document.epoch, "quorum", "secondary")


def test_one_instance_cut_off_from_primary_moves_nobody_and_its_callers_are_answered(fleet: Fleet) -> None:
    stations = fleet.five()
    lonely = stations[2]
    lonely.broken = {PRO}
    fleet.traffic()
    eventually(lambda: is_open(lonely))
    never(lambda: any(station.active is not Role.PRIMARY for station in stations), during=1.2)
    fleet.quiet()
    assert fleet.errors() == []
    reply = lonely.ask()
    assert reply is not None
    assert reply.model == FLASH
    assert all(station.moves() == [] for station in stations)
    assert rows(lonely.place, "failovers", "scope = 'request'")


def test_an_operators_pin_reaches_all_survives_who_typed_it_and_ends_everywhere_together(
    fleet: Fleet, record_property: Callable[[str, object], None]
) -> None:
    stations = fleet.five()
    typed_on, others = stations[0], stations[1:]
    began = time.monotonic()
    typed_on.manager.override("secondary", reason="maintenance", ttl=1.8, by="ana")
    reached = seconds_until(lambda: all(station.active is Role.SECONDARY for station in others))
    typed_on.die()
    record_property("seconds", reached)
    print(f"{fleet.url.partition(':')[0]}: a pin reached all in {reached * 1000:.0f} ms")
    assert reached < 1.0
    never(lambda: any(station.document.override is None for station in others), during=1.0)
    ends: dict[str, float] = {}

    def note() -> bool:
        for station in others:
            if station.document.override is None:
                ends.setdefault(station.host, time.monotonic() - began)
        return len(ends) == len(others)

    eventually(note, every=0.005)
    assert min(ends.values()) > 1.7
    assert max(ends.values()) - min(ends.values()) < 1.0
    eventually(lambda: any(rows(station.place, "overrides", "action = 'expired'") for station in others))


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_wall_clocks_that_differ_by_minutes_change_nothing(fleet: Fleet) -> None:
    ahead = fleet.add("ahead", skew=300.0)
    right = fleet.add("right")
    behind = fleet.add("behind", skew=-300.0)
    stations = [ahead, right, behind]
    eventually(lambda: all(station.exchange.board.instances == 3 for station in stations))
    began = time.monotonic()
    behind.manager.override("secondary", reason="maintenance", ttl=3.0, by="ana")
    assert seconds_until(lambda: all(station.active is Role.SECONDARY for station in stations)) < 2.0
    ahead.close()
    ahead.open()
    ahead.start()
    eventually(lambda: ahead.active is Role.SECONDARY)
    eventually(lambda: all(station.document.override is None for station in stations))
    assert time.monotonic() - began > 2.9, "a restart on a machine whose clock is ahead ends no pin early"
    hold = max(station.exchange.board.hold_until - time.monotonic() for station in stations)
    assert hold <= 0.0


@pytest.mark.parametrize("url", ["store", "redis"], indirect=True)
def test_a_restart_in_the_middle_of_an_outage_doubles_no_hold_and_records_no_second_move(fleet: Fleet) -> None:
    station = fleet.add("only")
    station.broken = {PRO}
    moved = time.monotonic()
    eventually(lambda: station.ask() and station.active is Role.SECONDARY)
    eventually(station.moves)
    time.sleep(1.0)
    station.close()
    station.open()
    station.start()
    eventually(lambda: station.instance.agent.reachable)
    board = station.exchange.board
    assert board.document.active is Role.SECONDARY
    assert board.hold_until - moved < 61.0, "a minute from the move, not from the restart"
    assert len(station.moves()) == 1


def test_eight_workers_on_one_host_with_a_broken_network_move_nobody(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    with Fleet(make_config(LONG_HOLD), "store", tmp_path) as fleet:
        for number in range(8):
            fleet.add("broken", name=f"broken-{number}", start=False).broken = {PRO}
        well = [fleet.add(host, start=False) for host in ("one", "two")]
        starting = [threading.Thread(target=station.start) for station in fleet.stations]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        eventually(lambda: all(station.exchange.board.instances == 10 for station in fleet.stations))
        fleet.traffic(every=0.1)
        eventually(lambda: all(map(is_open, fleet.stations[:8])))
        never(lambda: any(station.active is not Role.PRIMARY for station in fleet.stations), during=1.5)
        fleet.quiet()
        assert fleet.errors() == []
        assert well[0].moves() == []
