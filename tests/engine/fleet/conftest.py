"""The coordinators' servers, one of each kind for the whole run; every test gets a corner of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from engine.fleet.base import Coordinator
from engine.fleet.registry import open_coordinator
from engine.recorder import Recorder
from engine.store import Store
from tests.engine.fleet.servers import EtcdServer, RedisServer, Server, ZooKeeperServer

KINDS: dict[str, type[Server]] = {"redis": RedisServer, "etcd": EtcdServer, "zookeeper": ZooKeeperServer}
_corners = count()


def corner(url: str, name: str) -> str:
    """The URL with keys of its own."""
    return f"{url}?prefix={name}" if url.startswith("redis") else f"{url}/{name}"


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Start a server of a kind once; for tests that leave it alone."""
    running: dict[str, Server] = {}

    def get(kind: str) -> Server:
        if kind not in running:
            running[kind] = KINDS[kind](tmp_path_factory.mktemp(kind) / "server").start()
        return running[kind]

    yield get
    for server in running.values():
        server.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Start a server that the test may kill, freeze and start again."""
    running: list[Server] = []

    def start(kind: str) -> Server:
        running.append(KINDS[kind](tmp_path / f"server{len(running)}").start())
        return running[-1]

    yield start
    for server in running:
        server.kill()


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Callable[..., Coordinator]]:
    """Open coordinators that are closed after the test; each has a recorder of its own, as processes do."""
    opened: list[tuple[Coordinator, Recorder]] = []

    def open_one(url: str, name: str = "a", **options: Any) -> Coordinator:
        recorder = Recorder(Store(tmp_path / "store.db").open())
        opened.append((open_coordinator(url, instance=name, recorder=recorder, **options), recorder))
        return opened[-1][0]

    yield open_one
    for coordinator, recorder in opened:
        coordinator.close()
        recorder.close()


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of server."""
    return str(request.param)


@pytest.fixture(params=["store", *KINDS])
def url(request: pytest.FixtureRequest, shared_server: Callable[[str], Server]) -> str:
    """Every coordinator: the test's own store, and a corner of its own on the shared server of each kind."""
    kind = str(request.param)
    return "store" if kind == "store" else corner(shared_server(kind).url, f"test{next(_corners)}")
