"""kill -9 anywhere between a transition and its 2xx: nothing is lost, nothing invented, the order holds."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from engine.store import Store
from tests.alerts.listener import Letter, Listener
from tests.alerts.world import evaluator_settings
from tests.conftest import SIMULATED
from tests.patience import PATIENCE_S, eventually

PROCESS = Path(__file__).with_name("evaluator_process.py")
ROOT = PROCESS.parents[2]
ALERTS = ("One", "Two", "Three")
RULES = "".join(f'[[rules]]\nalert = "{name}"\nexpr = \'active_model == "secondary"\'\n' for name in ALERTS)


class Slaughter:
    """Kills the process at a stage: before the answer, right after it, or at any moment."""

    def __init__(self, seed: int) -> None:
        self.rand = random.Random(seed)
        self.process: subprocess.Popen[str] | None = None
        self.armed: str | None = None
        self.killed = threading.Event()

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.armed = None
        self.killed.set()

    def answer(self, letter: Letter, n: int) -> tuple[int, dict[str, str], bytes] | None:
        if self.armed == "before the answer":
            self.kill()
            return None
        if self.armed == "after the answer":
            threading.Timer(self.rand.random() * 0.004, self.kill).start()
            self.armed = None
        return 200, {}, b"ok"


def lives(tmp_path: Path, kills: int, seed: int = 1) -> tuple[list[Letter], Store]:
    """Let the process live and die so often, then live until everything is delivered."""
    slaughter = Slaughter(seed)
    (tmp_path / "alerts.toml").write_text(RULES)
    path = tmp_path / "switchgear.toml"
    with Listener(slaughter.answer) as ops:
        path.write_text(SIMULATED + evaluator_settings("kill", ops.url, every="40ms"))
        store = Store(tmp_path / "kill.db")
        for life in range(kills + 1):
            slaughter.killed.clear()
            command = [sys.executable, "-W", "error", str(PROCESS), str(path), "0.06" if life < kills else "3600"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}) as process:
                slaughter.process = process
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                try:
                    if life == kills:
                        settled(store)
                        break
                    time.sleep(slaughter.rand.random() * 0.2)
                    if life % 3 == 2:
                        slaughter.kill()
                    else:
                        slaughter.armed = ("before the answer", "after the answer")[life % 3]
                    assert slaughter.killed.wait(PATIENCE_S)
                finally:
                    process.kill()
        return list(ops.letters), store


def settled(store: Store) -> None:
    """Wait until what the last process found is delivered."""
    calm = 0

    def delivered() -> bool:
        nonlocal calm
        with store.reader() as connection:
            (left,) = connection.execute("SELECT count(*) FROM outbox WHERE state <> 'delivered'").fetchone()
        calm = 0 if left else calm + 1
        return calm > 8

    eventually(delivered, every=0.1)


def check(letters: list[Letter], store: Store) -> None:
    """Each of the groups, which are under way side by side, has its own order."""
    with store.reader() as connection:
        told = connection.execute("SELECT rule, to_state FROM alert_transitions ORDER BY seq").fetchall()
        outbox = connection.execute("SELECT id, body FROM outbox ORDER BY seq").fetchall()
    for name in ALERTS:
        mine = [letter for letter in letters if letter.json["groupLabels"]["alertname"] == name]
        waiting = [(id_, body) for id_, body in outbox if json.loads(body)["groupLabels"]["alertname"] == name]
        check_group(mine, [state for rule, state in told if rule == name], waiting)


def check_group(letters: list[Letter], transitions: list[str], outbox: list[tuple[str, str]]) -> None:
    first: dict[str, Letter] = {}
    for letter in letters:
        known = first.setdefault(letter.headers["webhook-id"], letter)
        assert letter.body == known.body, "a repetition has other bytes"
    assert [letter.json["status"] for letter in first.values()] == transitions, (
        "something is lost, invented or overtaken"
    )
    assert [(id_, body.encode()) for id_, body in outbox] == [(id_, letter.body) for id_, letter in first.items()]
    assert all(one != other for one, other in pairwise(transitions))
    last_seen: dict[str, int] = {}
    for index, letter in enumerate(letters):
        last_seen[letter.headers["webhook-id"]] = index
    assert list(last_seen) == sorted(last_seen, key=lambda one: last_seen[one]), "a repetition overtook a later letter"


def test_a_few_kills_lose_and_invent_nothing(tmp_path: Path) -> None:
    letters, store = lives(tmp_path, kills=4)
    check(letters, store)
    assert len(letters) >= 4


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_hundred_kills_lose_and_invent_nothing(tmp_path: Path) -> None:
    letters, store = lives(tmp_path, kills=100, seed=2)
    check(letters, store)
    assert len({letter.headers["webhook-id"] for letter in letters}) >= 50
