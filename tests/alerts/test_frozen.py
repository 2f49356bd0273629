"""An evaluator that is stopped for longer than its lease, as a paused machine is, and goes on."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from engine.clock import SystemClock
from tests.alerts.listener import Listener
from tests.alerts.world import World, evaluator_settings, open_recorder
from tests.children import standing_still
from tests.conftest import SIMULATED
from tests.patience import eventually, never

ROOT = Path(__file__).parents[2]
RULES = """
[[rules]]
alert = "OnSecondary"
expr = 'active_model == "secondary"'
for = "3s"
"""


class Evaluator:
    """`frozen_process` on a store of its own."""

    def __init__(self, folder: Path, name: str, url: str) -> None:
        self._recorder = open_recorder(folder, f"{name}.db")
        self.world = World(self._recorder, SystemClock())
        path = folder / f"{name}.toml"
        path.write_text(SIMULATED + evaluator_settings(name, url, every="500ms"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.alerts.frozen_process", str(path), name, str(folder / "leases.db")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def health(self) -> str:
        """Its part, whether it is well, and whether it speaks for the fleet."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._recorder.close()


@contextmanager
def stopped_between_writes(evaluator: Evaluator, shared: Path) -> Iterator[None]:
    """Not in the middle of one: on a machine that goes on, the file would stay locked for everybody else."""
    with ExitStack() as stopped, closing(sqlite3.connect(shared, timeout=1.0, isolation_level=None)) as connection:

        def between_writes() -> bool:
            stopped.close()
            stopped.enter_context(standing_still(evaluator.process.pid))
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            return True

        eventually(between_writes, despite=(sqlite3.OperationalError,))
        yield


@pytest.fixture
def ops() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


def test_an_evaluator_that_was_stopped_while_another_spoke_for_the_fleet_is_quiet(
    tmp_path: Path, ops: Listener
) -> None:
    """It said that evaluation had stalled, and could announce what the other one had announced."""
    (tmp_path / "alerts.toml").write_text(RULES)
    with ExitStack() as ending:
        first, second = (Evaluator(tmp_path, name, ops.url) for name in ("first", "second"))
        ending.callback(first.end)
        ending.callback(second.end)
        assert (first.health(), second.health()) == ("evaluator well speaks", "evaluator well quiet")
        for one in (first, second):
            one.world.agree("secondary")
        eventually(lambda: first.world.rows("SELECT 1 FROM alert_states WHERE state = 'pending'"))
        with stopped_between_writes(first, tmp_path / "leases.db"):
            eventually(lambda: second.health() == "evaluator well speaks")
            (letter,) = ops.wait_for(1)
            assert letter.json["commonLabels"]["alertname"] == "OnSecondary"
        eventually(lambda: first.health() == "evaluator well quiet")
        never(lambda: len(ops.letters) > 1, during=1.0)
        assert first.world.rows("SELECT to_state FROM alert_transitions") == [("pending",), ("firing",)]


def test_an_evaluator_that_was_stopped_alone_goes_on_and_was_well_all_the_time(tmp_path: Path, ops: Listener) -> None:
    (tmp_path / "alerts.toml").write_text(RULES)
    alone = Evaluator(tmp_path, "alone", ops.url)
    try:
        ticked = "SELECT ts_ms FROM marks WHERE name = 'evaluation'"
        eventually(lambda: alone.world.rows(ticked))
        with standing_still(alone.process.pid):
            time.sleep(2.0)
            ((before,),) = alone.world.rows(ticked)
        assert alone.health() == "evaluator well speaks"
        eventually(lambda: alone.world.rows(ticked) != [(before,)])
        never(lambda: ops.letters or alone.health() != "evaluator well speaks", during=1.0)
    finally:
        alone.end()
