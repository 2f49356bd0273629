"""How long a page's script takes on millions of requests: every page as it opens, and at its heaviest.

What is measured is the processor time of Streamlit's script thread for one whole run of the app, from the URL to the
last element, in a process that is warm. Snapshots that viewers share are forgotten before every run, so each run reads
the store as the first viewer's does; the runs of all others are cheaper. Processor time, because other programs on the
machine hardly change it; it is all there is, for the thread waits for nobody and the file is in the system's cache.
Garbage, nearly all of it this test's own, is collected between runs and not in them.

A page's time is the median of its runs. Growth is judged by the quickest runs on a small and on a large store, taken
in turns: noise only ever adds, and a busy minute hits both.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import APP
from history import CONFIG
from streamlit.runtime.scriptrunner.script_runner import ScriptRunner
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from dashboard import shared
from engine.config.config import PATH_VARIABLE
from engine.store import Store
from tests.benchmarks.measuring import say
from tests.largestore import BUSY, SPARE

LONGEST_S = 0.3
GROWTH = 1.3
CROWD = "incidents of a month, fifteen hundred"
CROWDED = 1.6
"""The same for a month half of which is incidents: what each did is summed from its own minutes, and where traffic is
denser a minute has more sorts of requests to add up."""

PATIENCE = 5
"""How many times as many runs are made before growth is believed, for other programs can slow a few of them."""

SMALL = 100_000
DAY = 86_400_000

Parameters = dict[str, str]
Visit = tuple[str, Parameters]


def visits(store: Store) -> dict[str, Visit]:
    """Every page as it opens, and with what makes it read most."""
    now = time.time_ns() // 1_000_000
    month = {"from": str(now - 30 * DAY), "to": str(now)}
    with store.reader() as connection:

        def one(question: str) -> str:
            return str(connection.execute(question).fetchone()[0])

        move = one("SELECT ts_ms FROM failovers WHERE scope = 'active' ORDER BY ts_ms LIMIT 1 OFFSET 90")
        slow = one("SELECT ts_ms FROM alert_transitions WHERE rule = 'LatencyHigh' ORDER BY ts_ms LIMIT 1 OFFSET 901")
        request = one("SELECT request_id FROM failovers WHERE scope = 'request' ORDER BY ts_ms DESC LIMIT 1")
        letter = one("SELECT id FROM outbox WHERE state = 'dead' ORDER BY seq LIMIT 1 OFFSET 500")
        place = one("SELECT seq FROM outbox ORDER BY seq LIMIT 1 OFFSET 300")
        old = one(f"SELECT ts_ms || '_' || id FROM requests WHERE manager = '{BUSY}' ORDER BY ts_ms LIMIT 1 OFFSET 900")
    return {
        "now": ("now", {}),
        "now, the other manager": ("now", {"manager": SPARE}),
        "incidents": ("incidents", {}),
        "incidents of a day": ("incidents", {"span": "24h"}),
        "incidents of a month": ("incidents", {"span": "30d"}),
        CROWD: ("incidents", {"span": "30d", "manager": SPARE}),
        "one incident": ("incidents", {"at": move}),
        "one incident of fifteen hundred": ("incidents", {"at": slow, "manager": SPARE}),
        "requests": ("requests", {}),
        "requests of a week": ("requests", {"span": "7d"}),
        "requests of a month": ("requests", month),
        "requests of a month, at its beginning": ("requests", {**month, "before": old}),
        "requests of a month, by cause": ("requests", {**month, "cause": "timeout"}),
        "requests of a month, shed": ("requests", {**month, "outcome": "shed"}),
        "requests of a month, shed by secondary: none": (
            "requests",
            {**month, "outcome": "shed", "role": "secondary"},
        ),
        "requests of a month, slow": ("requests", {**month, "slower": "29"}),
        "requests of a month, as slow as none": ("requests", {**month, "slower": "99"}),
        "one request": ("requests", {"request": request}),
        "alerts": ("alerts", {}),
        "alerts, the history of one": ("alerts", {"rule": "LatencyHigh", "manager": SPARE}),
        "deliveries": ("deliveries", {}),
        "deliveries, long ago": ("deliveries", {"state": "dead", "receiver": "chat-room", "before": place}),
        "one delivery": ("deliveries", {"notification": letter}),
        "control": ("control", {}),
        "playground": ("playground", {}),
    }


class Viewer:
    """Opens pages on one store and says how long their scripts took.

    Args:
        store: One of `large_store`.
        times: What `script_times` collects.
    """

    def __init__(self, store: Store, times: list[float]) -> None:
        self.visits = visits(store)
        self._times = times
        self._config = store.path.with_name("switchgear.toml")
        other = f'[managers.{SPARE}]\nprimary = "pro"\nsecondary = "flash"\n'
        self._config.write_text(CONFIG.format(port=8501, gateway_port=8080) + other, encoding="utf-8")

    def open(self, name: str, monkeypatch: pytest.MonkeyPatch) -> float:
        """Seconds of the script of one page."""
        page, parameters = self.visits[name]
        monkeypatch.setenv(PATH_VARIABLE, str(self._config))
        monkeypatch.setenv("SWITCHGEAR_DEMO", "0")
        shared.forget()
        at = AppTest.from_file(str(APP), default_timeout=60)
        for key, value in parameters.items():
            at.query_params[key] = value
        if page != "now":
            at._page_hash = calc_hash(page)
        self._times.clear()
        gc.collect()
        gc.disable()
        try:
            at.run()
        finally:
            gc.enable()
        assert not at.exception, at.exception
        assert set(parameters) <= set(at.query_params), "a filter that is not understood is taken out of the address"
        assert len(self._times) == 1
        return self._times[0]


@contextmanager
def script_times() -> Iterator[list[float]]:
    """The processor time of every script run meanwhile, seconds."""
    times: list[float] = []
    run = ScriptRunner._run_script

    def timed(runner: ScriptRunner, data: Any) -> None:
        began = time.thread_time()
        try:
            run(runner, data)
        finally:
            times.append(time.thread_time() - began)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptRunner, "_run_script", timed)
        yield times


QUICK = (
    "now",
    "incidents",
    CROWD,
    "one incident",
    "requests",
    "requests of a month, by cause",
    "requests of a month, as slow as none",
    "alerts, the history of one",
    "deliveries",
    "control",
    "playground",
)
"""What the quick test opens: every page, and what once was slowest."""


def quickest(turns: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The quickest run on the small store and on the large one."""
    return min(small for small, _ in turns), min(large for _, large in turns)


def _grown(turns: Sequence[tuple[float, float]], growth: float) -> bool:
    small, large = quickest(turns)
    return large > small * growth


def judge(
    large_store: Callable[[int], Store],
    requests: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    runs: int,
    names: Sequence[str] | None = None,
) -> None:
    """Open pages on the small and on the large store, in turns; all of them where none are named."""
    found = []
    with script_times() as times:
        few, many = Viewer(large_store(SMALL), times), Viewer(large_store(requests), times)
        for name in names or few.visits:
            growth = CROWDED if name == CROWD else GROWTH
            turns = [(few.open(name, monkeypatch), many.open(name, monkeypatch)) for _ in range(runs + 1)][1:]
            while _grown(turns, growth) and len(turns) < PATIENCE * runs:
                turns.append((few.open(name, monkeypatch), many.open(name, monkeypatch)))
            small, large = quickest(turns)
            median = statistics.median(turn[1] for turn in turns)
            say(name, f"{1000 * median:.0f} ms", f"{large / small:.2f} × that of {SMALL:,}")
            found.append((name, median, small, large, growth))
    slow = [f"{name}: {1000 * median:.0f} ms" for name, median, *_ in found if median > LONGEST_S]
    assert not slow, f"script time on {requests:,} requests"
    grown = [
        f"{name}: {1000 * small:.0f} → {1000 * large:.0f} ms"
        for name, _, small, large, growth in found
        if large > small * growth
    ]
    assert not grown, f"script time grows with history, {requests:,} requests against {SMALL:,}"


@pytest.mark.timeout(300)
def test_no_page_takes_long_on_two_million_requests(
    large_store: Callable[[int], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(large_store, 2_000_000, monkeypatch, runs=2, names=QUICK)


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_no_page_takes_long_on_ten_million_requests(
    large_store: Callable[[int], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(large_store, 10_000_000, monkeypatch, runs=9)
