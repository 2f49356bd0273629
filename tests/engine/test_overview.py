"""What the first page is told about the fleet, whichever store keeps the agreement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.config import Config
from engine.core.agreement import Document, Member, Opinion, Verdict, Vote
from engine.core.messages import Role
from engine.fleet.store import StoreCoordinator
from engine.fleet.view import MOST_SEATS, FleetState, fleet_state
from engine.overview import fleet, overview
from engine.recorder import Recorder
from engine.store import Store

NOW = 1_800_000_000_000
DOWN = Opinion(Verdict.DOWN, 12, 9, "open")
AGREED = Document(epoch=7, active=Role.SECONDARY, share=0.0, cause="quorum", writer="a/1")


def gauges(epoch: int, **more: object) -> dict[str, object]:
    return {"epochs": {"chat": epoch}, "at_ms": NOW, "agreement_ms": NOW - 500, "coordinator_up": True, **more}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(Store(tmp_path / "store.db").open())
    yield made
    made.close()


@pytest.fixture
def kept(recorder: Recorder) -> StoreCoordinator:
    return StoreCoordinator(recorder, wall_ms=lambda: NOW)


def seen(config: Config, recorder: Recorder, now_ms: int = NOW) -> FleetState | None:
    with recorder.store.reader() as connection:
        return fleet(config, connection, "chat", now_ms)


def test_before_anything_is_agreed_there_is_no_fleet(config: Config, recorder: Recorder) -> None:
    assert seen(config, recorder) is None


def test_a_shared_store_shows_every_instance_with_its_vote_evidence_and_lag(
    config: Config, recorder: Recorder, kept: StoreCoordinator
) -> None:
    kept.swap("chat", None, AGREED)
    kept.register(Member("a", "h1", "1.0", gauges=gauges(7)), 15.0)
    kept.register(Member("b", "h2", "1.1", gauges=gauges(5, trouble="x" * 500)), 15.0)
    kept.register(Member("w", "h3", "1.1", gauges={"epochs": {}}), 15.0)
    kept.vote("chat", Vote("a", "h1", 7, DOWN, ready=True), 10.0)
    state = seen(config, recorder)
    assert state is not None
    assert [seat.instance for seat in state.seats] == ["a", "b"], "who serves another manager has no seat"
    a, b = state.seats
    assert (a.version, a.epoch, a.lag, a.agreement_age, a.voted, a.primary, a.ready) == (
        "1.0",
        7,
        0,
        0.5,
        True,
        DOWN,
        True,
    )
    assert (b.epoch, b.lag, b.voted, len(b.trouble or "")) == (5, 2, False, 120)
    assert (state.primary.down, state.primary.opinions, state.primary.needed, state.primary.is_down) == (1, 2, 2, False)
    later = seen(config, recorder, NOW + 60_000)
    assert later is not None
    assert [seat.alive for seat in later.seats] == [False, False]
    assert not any(seat.voted for seat in later.seats)


def test_a_store_beside_a_server_shows_what_an_instance_read_there(
    config: Config, recorder: Recorder, kept: StoreCoordinator
) -> None:
    members = [Member(name, f"h-{name}", gauges=gauges(7)) for name in "abc"]
    told = fleet_state("chat", AGREED, [Vote("b", "h-b", 7, DOWN)], members, config.manager_policy("chat").fleet, NOW)
    kept.swap("chat", None, AGREED)
    kept.register(Member("a", "h-a", gauges=gauges(7, fleet={"chat": told.to_body()})), 15.0)
    assert seen(config, recorder) == told


@pytest.mark.parametrize("body", [{}, {"seats": 3}, {"epoch": 1, "seats": [{}]}])
def test_a_view_of_another_version_is_no_view(body: dict[str, object]) -> None:
    assert FleetState.from_body(body) is None


def test_a_large_fleet_is_cut_to_those_who_say_something(config: Config) -> None:
    members = [Member(f"i{number:03}", f"h{number}") for number in range(200)]
    votes = [Vote(f"i{number:03}", f"h{number}", 7, DOWN) for number in range(190, 200)]
    state = fleet_state("chat", AGREED, votes, members, config.manager_policy("chat").fleet, NOW)
    assert (len(state.seats), state.left_out) == (MOST_SEATS, 150)
    assert {vote.instance for vote in votes} <= {seat.instance for seat in state.seats}
    assert len(state.lost_hosts) <= MOST_SEATS


def test_the_first_page_carries_it(
    make_config: Callable[..., Config], recorder: Recorder, kept: StoreCoordinator
) -> None:
    kept.swap("chat", None, AGREED)
    kept.register(Member("a", "h1", gauges=gauges(7, queue_length=3)), 15.0)
    shown = overview(make_config(), recorder.store, NOW + 2000)
    assert shown["managers"]["chat"]["fleet"]["seats"][0]["instance"] == "a"
    (instance,) = shown["instances"]
    assert (instance["queue"], instance["agreement_age"]) == (3, 2.5)
