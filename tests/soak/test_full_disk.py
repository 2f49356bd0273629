"""A gateway whose disk is full says so, serves again when there is space, and has lost nothing that it answered."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import uvloop

from engine.sqlite import sqlite3
from tests.patience import eventually
from tests.rig import Answer, FastModel, Gateway
from tests.rig.load import Client, body_of

BODY = body_of()
STREAM = body_of(stream=True, events=3, pause=0.0)


def ask(gateway: Gateway, body: bytes = BODY) -> Answer:
    """One request on a connection of its own."""

    async def once() -> Answer:
        client = Client(gateway.port)
        try:
            return await client.ask(body)
        finally:
            client.close()

    return uvloop.run(once())


def fill(gateway: Gateway) -> None:
    """Let no file of the gateway grow any more, which is what a full disk does to it."""
    _limit(gateway, 4096)


def free(gateway: Gateway) -> None:
    """Give the space back."""
    _limit(gateway, resource.RLIM_INFINITY)


def _limit(gateway: Gateway, size: int) -> None:
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def recorded(gateway: Gateway, status: int) -> set[str]:
    """Ids on record with this status."""
    connection = sqlite3.connect(str(gateway.store))
    rows = connection.execute("SELECT id FROM requests WHERE status_code = ?", [status]).fetchall()
    connection.close()
    return {identifier for (identifier,) in rows}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux'")
def test_with_a_full_disk_answers_are_refused_until_there_is_space(tmp_path: Path) -> None:
    with FastModel(tmp_path) as model, Gateway(tmp_path, model.url) as gateway:
        before = ask(gateway)
        assert before.whole
        fill(gateway)
        refused = ask(gateway)
        assert refused.status == 503
        assert b'"store_unavailable"' in refused.body
        assert not ask(gateway, STREAM).whole
        free(gateway)
        eventually(lambda: ask(gateway).whole, every=0.05)
        assert before.request_id in recorded(gateway, 200)
        eventually(lambda: refused.request_id in recorded(gateway, 503), every=0.05)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux'")
def test_under_batch_a_full_disk_keeps_nobody_from_an_answer_and_nothing_is_lost(tmp_path: Path) -> None:
    with FastModel(tmp_path) as model, Gateway(tmp_path, model.url, durability="batch") as gateway:
        fill(gateway)
        answers = [ask(gateway) for _ in range(5)]
        assert all(answer.whole for answer in answers)
        free(gateway)
        eventually(lambda: {answer.request_id for answer in answers} <= recorded(gateway, 200), every=0.05)
