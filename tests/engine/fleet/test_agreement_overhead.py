"""What agreement costs a call: nothing that depends on where the agreement is kept, or on whether it can be reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import DualModelManager
from engine.config import Config
from engine.core.messages import Call, Completion, Delta, FinishReason, Usage
from engine.exchange import Identity
from engine.fleet.registry import open_coordinator
from engine.instance import Instance
from engine.recorder import Durability, Recorder
from engine.store import Store
from tests.benchmarks.measuring import microseconds, quietest, say
from tests.engine.fleet.conftest import KINDS, corner
from tests.engine.fleet.servers import Server
from tests.patience import eventually
from tests.programs import free_port

pytestmark = [pytest.mark.bench, pytest.mark.server]

ANSWER = Completion("blue", FinishReason.STOP, Usage(3, 1))
PASSES = 4
NOISE = 1.3
"""Times the shared store's overhead that another one may show on a busy machine."""


class Nothing:
    """A provider that answers without doing anything."""

    def generate(self, call: Call) -> Completion:
        return ANSWER

    def stream(self, call: Call) -> Iterator[Delta]:
        yield Delta(finish_reason=FinishReason.STOP)


def test_a_call_costs_the_same_with_every_coordinator(
    make_config: Callable[..., Config], shared_server: Callable[[str], Server], tmp_path: Path
) -> None:
    config = make_config('[store]\ndurability = "batch"\n')
    urls = {"store": "store", **{kind: corner(shared_server(kind).url, f"bench{time.time_ns()}") for kind in KINDS}}
    urls["unreachable"] = f"redis://127.0.0.1:{free_port()}/0"
    best = dict.fromkeys(urls, float("inf"))
    for number in range(PASSES):  # in turn, so that a busy moment meets all of them
        for name, url in urls.items():
            best[name] = min(best[name], measured(config, url, tmp_path / f"{name}{number}.db"))
    for name, seconds in best.items():
        ratio = seconds / best["store"]
        say(f"a call, agreement in {name}", f"{microseconds(seconds)} ({ratio:.2f} of store)", f"≤ {NOISE} of store")
    assert max(best.values()) < NOISE * best["store"]


def measured(config: Config, url: str, place: Path) -> float:
    """Seconds a call takes."""
    recorder = Recorder(Store(place).open(), durability=Durability.BATCH)
    coordinator = open_coordinator(url, instance="bench", recorder=recorder)
    instance = Instance(config, recorder, coordinator, Identity("bench", "bench"))
    manager = DualModelManager(config, "chat", providers={"simulated": Nothing()}, instance=instance)
    try:
        instance.start()
        eventually(lambda: instance.agent.reachable is not None)
        return quietest(lambda: manager.generate("Why is the sky blue?"), windows=40)
    finally:
        manager.close()
        instance.close()
