"""A gateway that is killed under load has every answer on record that a client received completely, exactly once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
import uvloop

from engine.sqlite import sqlite3
from tests.patience import PATIENCE_S
from tests.rig import FastModel, Gateway
from tests.rig.load import Client, body_of

CLIENTS = 8
WHOLE = body_of()
STREAM = body_of(stream=True, events=6, pause=0.004)


async def keep_asking(port: int, place: int, received: list[str]) -> None:
    """Ask until the server is gone; whole answers and streams in turn, some streams left in the middle."""
    chance = random.Random(place)
    client = Client(port)
    try:
        while True:
            answer = await client.ask(STREAM if chance.random() < 0.5 else WHOLE)
            if answer.whole:
                received.append(answer.request_id)
            assert answer.status == 200, answer.body
    except (OSError, asyncio.IncompleteReadError):
        return
    finally:
        client.close()


async def until_killed(gateway: Gateway, after: float) -> list[str]:
    """Load the gateway, kill it after so many seconds, and return the ids of all complete answers."""
    received: list[str] = []
    clients = [asyncio.ensure_future(keep_asking(gateway.port, place, received)) for place in range(CLIENTS)]
    await asyncio.sleep(after)
    await asyncio.to_thread(gateway.kill)
    await asyncio.wait_for(asyncio.gather(*clients), PATIENCE_S)
    return received


def killed(folder: Path, times: int, seed: int) -> None:
    """Kill a gateway again and again on one store, and look at the store at the end."""
    chance = random.Random(seed)
    received: list[str] = []
    with FastModel(folder) as model:
        gateway = Gateway(folder, model.url)
        for _ in range(times):
            gateway.start()
            received += uvloop.run(until_killed(gateway, 0.05 + chance.random()))
    assert len(received) > 10 * times, "the load was too small to say anything"
    examine(gateway.store, received)


def examine(store: Path, received: list[str]) -> None:
    """Every answer once, an intact file, and sums that agree with the rows."""
    connection = sqlite3.connect(str(store))
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = Counter(identifier for (identifier,) in connection.execute("SELECT id FROM requests"))
    assert Counter(received).most_common(1)[0][1] == 1, "two answers had one id"
    missing = [identifier for identifier in received if rows[identifier] != 1]
    assert not missing, f"{len(missing)} of {len(received)} answers are not on record"
    for raw, sums in (("requests", "rollup_minute"), ("attempts", "attempt_minute")):
        counted = connection.execute(f"SELECT count(*) FROM {raw}").fetchone()[0]
        assert connection.execute(f"SELECT sum(n) FROM {sums}").fetchone()[0] == counted
    counter = connection.execute("SELECT sum(value) FROM totals WHERE name = 'requests'").fetchone()[0]
    assert counter == connection.execute("SELECT count(*) FROM requests WHERE synthetic = 0").fetchone()[0]
    connection.close()


def test_what_clients_received_is_on_record_after_three_kills(tmp_path: Path) -> None:
    killed(tmp_path, 3, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_what_clients_received_is_on_record_after_fifty_kills(tmp_path: Path) -> None:
    killed(tmp_path, 50, seed=2)
