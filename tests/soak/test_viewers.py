"""People who watch the dashboard do not slow callers down: the real gateway, the real dashboard, ten open pages.

Callers ask the gateway at a modest rate, of models that answer after 30 ms; the same gateway is measured with ten
viewers whose pages refresh by themselves and with the same viewers at rest, in turns of some seconds, so that what else
the machine does meanwhile touches both. What counts is the median of the callers' latency.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.measuring import say
from tests.largestore import Shape, fill
from tests.patience import eventually
from tests.programs import free_port
from tests.rig import FastModel, Gateway, Process
from tests.rig.load import Client, body_of
from tests.rig.viewers import Viewer

VIEWERS = 10
CALLERS = 4
CALL_EVERY = 0.1
ANSWER_AFTER = 0.03
TURNS, TURN_S, SETTLE_S = 12, 4.0, 1.0
BOUND = 1.10
PAGES_OPEN_WITHIN = 60.0


class Dashboard(Process):
    """`switchgear dashboard` on a gateway's configuration."""

    health = "/_stcore/health"

    def __init__(self, folder: Path, config: Path, port: int) -> None:
        super().__init__(folder, ["-m", "dashboard.cli", "dashboard", "--config", str(config)], port)

    @property
    def all_processor_seconds(self) -> float:
        """Of the process and its children."""
        process = psutil.Process(self.pid)
        times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
        return float(sum(one.user + one.system for one in times))


async def call(port: int, seconds: float) -> list[float]:
    """Latencies of some callers who ask again and again with a pause between, seconds."""
    body, found = body_of(pause=ANSWER_AFTER), []
    until = time.perf_counter() + seconds

    async def one(place: int) -> None:
        client = Client(port)
        await asyncio.sleep(place * CALL_EVERY / CALLERS)
        while (began := time.perf_counter()) < until:
            answer = await client.ask(body)
            assert answer.status == 200, answer.body
            found.append(answer.seconds)
            await asyncio.sleep(max(0.0, CALL_EVERY - (time.perf_counter() - began)))
        client.close()

    await asyncio.gather(*(one(place) for place in range(CALLERS)))
    return found


async def measure(gateway: Gateway, dashboard: Dashboard) -> tuple[list[float], list[float], list[Viewer], float]:
    """Latencies without and with viewers, by turn; the viewers; the share of a processor the dashboard took."""
    viewers = [Viewer(dashboard.port) for _ in range(VIEWERS)]
    looks = [asyncio.create_task(viewer.look()) for viewer in viewers]

    def open_pages() -> bool:
        assert not any(look.done() for look in looks), looks
        return all(viewer.runs for viewer in viewers)

    await asyncio.to_thread(eventually, open_pages, PAGES_OPEN_WITHIN, every=0.1, told=lambda: viewers)
    await call(gateway.port, TURN_S)
    alone, watched, busy = [], [], 0.0
    for _ in range(TURNS):
        for found, looking in ((alone, False), (watched, True)):
            for viewer in viewers:
                (viewer.looking.set if looking else viewer.looking.clear)()
            await asyncio.sleep(SETTLE_S)
            before = dashboard.all_processor_seconds
            found.append(statistics.median(await call(gateway.port, TURN_S)))
            if looking:
                busy += dashboard.all_processor_seconds - before
    for look in looks:
        look.cancel()
    await asyncio.gather(*looks, return_exceptions=True)
    return alone, watched, viewers, busy / (TURNS * TURN_S)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_ten_viewers_leave_the_gateways_median_latency_as_it_is(tmp_path: Path) -> None:
    fill(tmp_path / "switchgear.db", Shape(100_000, time.time_ns() // 1_000_000))
    page_port = free_port()
    with FastModel(tmp_path) as model:
        gateway = Gateway(tmp_path, model.url, extra=f"[dashboard]\nport = {page_port}")
        with gateway, Dashboard(tmp_path, gateway.config, page_port) as dashboard:
            alone, watched, viewers, busy = asyncio.run(measure(gateway, dashboard))
    ratio = statistics.median(watched) / statistics.median(alone)
    say(
        f"median latency with {VIEWERS} viewers, dashboard at {100 * busy:.0f} % of a processor",
        f"{1000 * statistics.median(watched):.2f} / {1000 * statistics.median(alone):.2f} ms = {ratio:.3f}",
        f"{BOUND}",
    )
    assert not [failure for viewer in viewers for failure in viewer.failures]
    assert all(viewer.runs > TURNS * TURN_S / 4 for viewer in viewers), [viewer.runs for viewer in viewers]
    assert ratio <= BOUND, "viewers slow callers down"
