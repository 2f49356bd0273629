"""What the gateway costs, against a proxy of Starlette and aiohttp that does nothing else, on the same machine and run.

Requests a second depend on everything that runs beside; processor time per request depends less, so that both are
shown and the first is judged by the best of several pairs.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import uvloop

from tests.benchmarks.measuring import say
from tests.rig import BareProxy, FastModel, Gateway, Process, Streams, hold_streams, load, time_streams

MEGABYTE = 1_000_000
CLIENTS = 16
EVENTS = 20
PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class Rig:
    """The three processes."""

    model: FastModel
    bare: BareProxy
    gateway: Gateway


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("rig")
    with FastModel(folder) as model, BareProxy(folder, model.url) as bare, Gateway(folder, model.url) as gateway:
        for process in (bare, gateway):
            uvloop.run(load(process.port, clients=CLIENTS, seconds=1.0))
        yield Rig(model, bare, gateway)


def paired(rig: Rig, *, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """Gateway over bare proxy, round by round: requests a second, and processor time a request the other way round."""
    speeds, costs = [], []
    for _ in range(rounds):
        speed, cost = zip(*(_measured(process, seconds) for process in (rig.bare, rig.gateway)), strict=True)
        speeds.append(speed[1] / speed[0])
        costs.append(cost[0] / cost[1])
    return speeds, costs


def _measured(process: Process, seconds: float) -> tuple[float, float]:
    before = process.processor_seconds
    found = uvloop.run(load(process.port, clients=CLIENTS, seconds=seconds))
    assert found.failures == 0, process.log[-2000:]
    return found.per_second, (process.processor_seconds - before) / len(found.latencies)


@pytest.mark.bench
def test_requests_a_second(rig: Rig) -> None:
    speeds, costs = paired(rig, rounds=8, seconds=2.0)
    say(
        "gateway over a bare proxy, requests a second",
        f"{statistics.median(speeds):.2f} (best {max(speeds):.2f})",
        "≥ 0.5",
    )
    say("bare proxy over gateway, processor time a request", f"{statistics.median(costs):.2f}", "")
    assert max(speeds) >= 0.5


@pytest.mark.bench
def test_memory_after_load(rig: Rig) -> None:
    used = rig.gateway.memory
    say("gateway, resident memory after load", f"{used / MEGABYTE:.0f} MB", "< 150 MB")
    assert used < 150 * MEGABYTE


@pytest.mark.bench
def test_what_a_stream_waits_for(rig: Rig) -> None:
    def streamed(process: Process) -> Streams:
        return uvloop.run(time_streams(process.port, streams=60, events=EVENTS, pause=PAUSE))

    streamed(rig.gateway)
    direct, through = streamed(rig.model), streamed(rig.gateway)
    first = statistics.median(through.first) - statistics.median(direct.first)
    chunk = statistics.median(through.gaps) - statistics.median(direct.gaps)
    say("first text of a healthy stream, added", f"{first * 1e3:.2f} ms", "< 1 ms")
    say("each further event, added", f"{chunk * 1e6:.0f} µs", "< 150 µs")
    assert first < 3e-3
    assert chunk < 450e-6


@pytest.mark.bench
def test_memory_of_a_thousand_slow_streams(rig: Rig) -> None:
    answers = uvloop.run(hold_streams(rig.gateway.port, streams=1000, events=10, pause=0.5))
    assert all(answer.whole for answer in answers)
    say("gateway, a thousand streams at once", f"{rig.gateway.memory / MEGABYTE:.0f} MB", "< 400 MB")
    assert rig.gateway.memory < 400 * MEGABYTE


def test_the_gateway_keeps_up_with_a_bare_proxy(rig: Rig) -> None:
    speeds, costs = paired(rig, rounds=3, seconds=0.7)
    assert max(*speeds, *costs) > 0.2
    assert rig.gateway.memory < 200 * MEGABYTE
