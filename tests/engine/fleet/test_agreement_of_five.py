"""Five instances with the real agent on every coordinator: how fast they agree, and what one of them cannot do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.config import Config
from engine.core.messages import Role
from engine.exchange import Exchange
from engine.fleet.registry import open_coordinator
from engine.fleet.store import StoreCoordinator
from engine.instance import Identity, Instance
from engine.recorder import Recorder
from engine.store import Store

pytestmark = pytest.mark.server

Fleet = list[Exchange]


@pytest.fixture
def five(url: str, make_config: Callable[..., Config], tmp_path: Path) -> Iterator[tuple[list[Instance], Fleet]]:
    """Instances on hosts of their own, each with its own store unless they share one."""
    config = make_config()
    with ExitStack() as cleanup:
        instances = []
        for number in range(5):
            place = tmp_path / ("shared.db" if url == "store" else f"{number}.db")
            recorder = Recorder(Store(place).open())
            name = f"host{number}-1"
            shared = url == "store"
            coordinator = (
                StoreCoordinator(recorder) if shared else open_coordinator(url, instance=name, recorder=recorder)
            )
            instance = Instance(config, recorder, coordinator, Identity(name, f"host{number}"))
            cleanup.callback(instance.close)
            instances.append(instance)
        fleet = [instance.exchange("chat") for instance in instances]
        for instance in instances:
            instance.start()
        eventually(lambda: all(exchange.board.document.epoch >= 1 for exchange in fleet))
        eventually(lambda: all(sum(m.alive for m in i.coordinator.members()) == 5 for i in instances))
        yield instances, fleet


def eventually(check: Callable[[], bool], within: float = 10.0) -> float:
    """Wait until something holds; returns the seconds it took."""
    began = time.monotonic()
    while time.monotonic() < began + within:
        if check():
            return time.monotonic() - began
        time.sleep(0.005)
    pytest.fail(f"did not happen within {within} s")


def test_five_instances_agree_on_secondary_within_a_second_in_one_epoch(
    five: tuple[list[Instance], Fleet], record_property: Callable[[str, object], None]
) -> None:
    instances, fleet = five
    before = {exchange.board.document.epoch for exchange in fleet}
    assert len(before) == 1
    for exchange in fleet:
        exchange.trip(Role.PRIMARY, "primary died")
    for instance in instances:
        instance.agent.poke("chat")
    took = eventually(lambda: all(exchange.board.document.active is Role.SECONDARY for exchange in fleet))
    record_property("seconds", took)
    print(f"agreed in {took * 1000:.0f} ms")
    assert took < 1.0
    assert {exchange.board.document.epoch for exchange in fleet} == {before.pop() + 1}


def test_one_instance_cut_off_from_its_model_moves_nobody(five: tuple[list[Instance], Fleet]) -> None:
    instances, fleet = five
    fleet[2].trip(Role.PRIMARY, "its own network")
    instances[2].agent.poke("chat")
    eventually(lambda: any(v.instance == "host2-1" for v in instances[0].coordinator.votes("chat")))
    time.sleep(1.2)
    assert {exchange.board.document.active for exchange in fleet} == {Role.PRIMARY}
