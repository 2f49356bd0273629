"""The agreement when the coordinator is cut off, killed, split, gone from the start, or holds what it should not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from engine import queries
from engine.config import Config
from engine.core.agreement import Verdict
from engine.core.messages import Role
from engine.fleet import rounds
from engine.gateway.health import agreement_check
from engine.metrics import Exposition
from tests.engine.fleet.conftest import corner
from tests.engine.fleet.fleets import FLASH, PRO, QUICK, Fleet, Station, through
from tests.engine.fleet.servers import RedisServer, Server
from tests.patience import eventually, never
from tests.programs import free_port

pytestmark = pytest.mark.server

Start = Callable[[str], Server]
LONG = pytest.mark.soak
MOSTLY_REDIS = ["redis", pytest.param("etcd", marks=LONG), pytest.param("zookeeper", marks=LONG)]
"""What is decided here does not depend on the store; the others are asked in the long run."""

LOST = '\n[fleet]\nvote_ttl = "1s"\n'


@pytest.fixture
def make_fleet(make_config: Callable[..., Config], tmp_path: Path) -> Iterator[Callable[[str], Fleet]]:
    """Fleets that come back from secondary in about two seconds."""
    made: list[Fleet] = []

    def make(url: str) -> Fleet:
        made.append(Fleet(make_config(QUICK + LOST), url, tmp_path).__enter__())
        return made[-1]

    yield make
    for fleet in made:
        fleet.__exit__()


def metric(station: Station, name: str) -> float:
    """A metric without labels, as this station's store gives it."""
    text = Exposition(station.instance.recorder.store, station.config).render()[0].decode()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def age(station: Station) -> float | None:
    """How long ago the agreement was confirmed, as the alert on it sees it."""
    with station.instance.recorder.store.reader() as connection:
        return queries.agreement_age(connection, station.instance.clock.wall_ms())


def says_up(station: Station) -> int:
    """How many votes say that primary is up."""
    votes = station.instance.coordinator.votes("chat")
    return sum(vote.primary.verdict is Verdict.UP for vote in votes)


def test_one_cut_off_from_the_coordinator_keeps_the_agreement_and_never_goes_back_alone(
    kind: str, shared_server: Start, make_fleet: Callable[[str], Fleet]
) -> None:
    server = shared_server(kind)
    url = corner(server.url, f"cut{time.monotonic_ns()}")
    fleet = make_fleet(url)
    line = fleet.line(server.port)
    one, two = fleet.add("one"), fleet.add("two")
    lonely = fleet.add("lonely", url=through(url, line.port))
    eventually(lambda: all(station.exchange.board.instances == 3 for station in fleet.stations))
    fleet.traffic()
    for station in fleet.stations:
        station.broken = {PRO}
    eventually(lambda: all(station.active is Role.SECONDARY for station in fleet.stations))
    line.cut()
    for station in fleet.stations:
        station.broken = set()
    eventually(lambda: one.active is two.active is Role.PRIMARY)
    eventually(lambda: lonely.instance.agent.reachable is False)
    never(lambda: lonely.active is not Role.SECONDARY, during=0.5)
    check = agreement_check(lonely.instance)()
    assert not check.ok
    assert not check.required
    assert "the last agreement stands" in check.detail
    assert lonely.exchange.board.instances == 3, "its spill stays a third"
    eventually(lambda: metric(lonely, "dualmodelmanager_coordinator_up") == 0.0)
    assert metric(one, "dualmodelmanager_coordinator_up") == 1.0
    assert (age(lonely) or 0.0) > 0.5
    line.heal()
    eventually(lambda: lonely.active is Role.PRIMARY)
    fleet.quiet()
    assert fleet.errors() == []
    eventually(lambda: [move["epoch"] for move in lonely.moves()] == [move["epoch"] for move in one.moves()])


@pytest.mark.parametrize("kind", MOSTLY_REDIS, indirect=True)
@pytest.mark.parametrize("seconds", [4.0, pytest.param(60.0, marks=LONG)])
def test_a_coordinator_that_is_dead_for_a_while_costs_no_request(
    kind: str, seconds: float, own_server: Start, make_fleet: Callable[[str], Fleet]
) -> None:
    server = own_server(kind)
    fleet = make_fleet(server.url)
    one, two = fleet.add("one"), fleet.add("two")
    eventually(lambda: one.exchange.board.instances == two.exchange.board.instances == 2)
    fleet.traffic()
    one.manager.override("secondary", reason="maintenance", ttl=600.0, by="ana")
    eventually(lambda: two.active is Role.SECONDARY)
    epoch = two.document.epoch
    server.kill()
    killed = time.monotonic()
    eventually(lambda: two.instance.agent.reachable is False)
    eventually(lambda: metric(two, "dualmodelmanager_coordinator_up") == 0.0)
    assert not agreement_check(two.instance)().ok
    time.sleep(max(0.0, seconds - (time.monotonic() - killed)))
    assert (age(two) or 0.0) > seconds - 2.5
    assert two.active is Role.SECONDARY
    server.start()
    eventually(lambda: one.instance.agent.reachable and two.instance.agent.reachable)
    eventually(lambda: metric(two, "dualmodelmanager_coordinator_up") == 1.0)
    assert two.document.epoch >= epoch, "redis forgot everything, and was told again"
    assert two.document.override is not None
    two.manager.clear_override(reason="done", by="ana")
    eventually(lambda: one.document.override is None)
    fleet.quiet()
    assert fleet.errors() == []


@pytest.mark.parametrize("kind", MOSTLY_REDIS, indirect=True)
def test_in_a_split_the_side_with_fewer_hosts_moves_nothing_even_with_the_coordinator(
    kind: str, shared_server: Start, make_fleet: Callable[[str], Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "MEMBER_TTL", 1.5)
    monkeypatch.setattr(rounds, "BEAT_EVERY", 0.5)
    server = shared_server(kind)
    url = corner(server.url, f"split{time.monotonic_ns()}")
    fleet = make_fleet(url)
    line = fleet.line(server.port)
    fewer = [fleet.add(f"near{number}") for number in range(2)]
    more = [fleet.add(f"far{number}", url=through(url, line.port)) for number in range(3)]
    eventually(lambda: all(station.exchange.board.instances == 5 for station in fleet.stations))
    fleet.traffic()
    eventually(lambda: says_up(fewer[0]) == 5)
    line.cut()
    time.sleep(0.3)
    for station in fewer:
        station.broken = {PRO}
    # Votes run out after 1 s, memberships after 1.5.
    never(lambda: any(station.active is not Role.PRIMARY for station in fleet.stations), during=3.5)
    assert fewer[0].exchange.board.instances == 2
    line.heal()
    for station in more:
        station.broken = {PRO}
    eventually(lambda: all(station.active is Role.SECONDARY for station in fleet.stations))
    fleet.quiet()
    assert fleet.errors() == []


# -- at the start ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["redis", "etcd", "zookeeper"])
def test_a_start_without_the_coordinator_serves_primary_and_says_so_in_a_line(
    scheme: str, make_fleet: Callable[[str], Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    station = make_fleet(f"{scheme}://127.0.0.1:{free_port()}").add("one")
    reply = station.ask()
    assert time.monotonic() - began < 3.0
    assert reply is not None
    assert reply.model == PRO
    eventually(lambda: station.instance.agent.reachable is False)
    time.sleep(0.7)
    said = [message for message in caplog.messages if "primary serves, until it is back" in message]
    assert len(said) == 1
    assert "fleet.url" in said[0]


@pytest.mark.parametrize("kind", ["redis", "etcd", pytest.param("zookeeper", marks=LONG)], indirect=True)
def test_a_restart_without_the_coordinator_goes_on_from_the_last_agreement(
    kind: str, own_server: Start, make_fleet: Callable[[str], Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server(kind)
    station = make_fleet(server.url).add("one")
    eventually(lambda: station.document.epoch == 1)
    station.manager.override("secondary", reason="maintenance", ttl=600.0, by="ana")
    server.kill()
    station.close()
    station.open()
    station.start()
    assert station.document.override is not None
    reply = station.ask()
    assert reply is not None
    assert reply.model == FLASH
    eventually(lambda: station.instance.agent.reachable is False)
    assert station.exchange.board.override(station.instance.clock.monotonic()) is not None
    assert any("the last agreement stands until it is back" in message for message in caplog.messages)
    assert len(station.moves()) == 1


def test_wrong_credentials_are_a_line_and_the_service_goes_on(
    tmp_path: Path, make_fleet: Callable[[str], Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path / "locked", password="right").start()
    try:
        station = make_fleet(server.url.replace("right", "wrong-word")).add("one")
        eventually(lambda: station.instance.agent.reachable is False)
        time.sleep(0.7)
        assert station.ask() is not None
        said = [message for message in caplog.messages if "refused our credentials" in message]
        assert len(said) == 1
        assert "wrong-word" not in caplog.text
    finally:
        server.kill()


@pytest.mark.parametrize("text", ["garbage", pytest.param('{"v":99,"epoch":70,"any":["x"]}', marks=LONG)])
def test_what_is_no_document_is_told_and_the_last_good_agreement_kept(
    text: str, shared_server: Start, make_fleet: Callable[[str], Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    server, name = shared_server("redis"), f"bad{time.monotonic_ns()}"
    fleet = make_fleet(corner(server.url, name))
    one, two = fleet.add("one"), fleet.add("two")
    one.manager.override("secondary", reason="maintenance", ttl=600.0, by="ana")
    eventually(lambda: two.active is Role.SECONDARY)
    shell = redis.Redis(port=server.port)
    key = f"{{{name}}}:document:chat"
    caplog.set_level(logging.WARNING)
    caplog.clear()
    shell.set(key, text)
    eventually(lambda: one.instance.agent.trouble and two.instance.agent.trouble)
    time.sleep(2.2)
    assert two.active is Role.SECONDARY
    assert "the last agreement is kept until the key is deleted" in (two.instance.agent.trouble or "")
    assert not agreement_check(two.instance)().ok
    assert (age(two) or 0.0) > 1.5
    assert len(caplog.messages) == 2, "one line from each of the two"
    shell.delete(key)
    eventually(lambda: (age(two) or 9.0) < 1.0)
    assert two.document.override is not None
    one.manager.clear_override(reason="done", by="ana")
    eventually(lambda: two.document.override is None)


def test_a_write_that_redis_forgot_and_took_again_from_another_is_healed(
    shared_server: Start, make_fleet: Callable[[str], Fleet]
) -> None:
    server, name = shared_server("redis"), f"fork{time.monotonic_ns()}"
    fleet = make_fleet(corner(server.url, name))
    one, two = fleet.add("one"), fleet.add("two")
    eventually(lambda: one.exchange.board.instances == two.exchange.board.instances == 2)
    shell, key = redis.Redis(port=server.port), f"{{{name}}}:document:chat"
    before = shell.get(key)
    one.manager.override("secondary", reason="maintenance", ttl=600.0, by="ana")
    eventually(lambda: two.active is Role.SECONDARY)
    known = two.document
    assert isinstance(before, bytes)
    fork = type(known).from_json(before).following(cause="force", writer="three/1")
    assert fork.epoch == known.epoch
    shell.set(key, fork.to_json())
    eventually(lambda: one.document.epoch == two.document.epoch == known.epoch + 1)
    assert one.document.is_same(two.document)
    assert two.document.override == known.override
    told = "is refused and written anew"
    eventually(lambda: any(told in (station.instance.agent.trouble or "") for station in (one, two)))
