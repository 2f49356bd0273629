"""Which coordinator a URL names, and what is said when it names none."""

from __future__ import annotations

import sys

import pytest

from engine.core.errors import ConfigurationError
from engine.fleet.registry import open_coordinator


def opened(url: str) -> str:
    """The class that a URL leads to, without any network."""
    coordinator = open_coordinator(url, instance="a", recorder=None)  # type: ignore[arg-type]
    try:
        return repr(coordinator)
    finally:
        coordinator.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://localhost", "RedisCoordinator('redis://localhost:6379')"),
        ("redis://ana:secret@cache:6380/2?prefix=blue", "RedisCoordinator('redis://cache:6380/2')"),
        ("rediss://:secret@cache/0", "RedisCoordinator('rediss://cache:6379/0')"),
        ("etcd://one:2379,two,three:2381/blue", "EtcdCoordinator('etcd://one:2379,two,three:2381')"),
        ("etcds://root:secret@one", "EtcdCoordinator('etcds://one')"),
        ("etcd://[::1]:2379", "EtcdCoordinator('etcd://[::1]:2379')"),
        ("zookeeper://ana:secret@one:2181,two/blue", "ZooKeeperCoordinator('zookeeper://one:2181,two')"),
        ("zookeepers://ana:secret@one/blue", "ZooKeeperCoordinator('zookeepers://one')"),
    ],
)
def test_a_url_names_its_coordinator_which_shows_no_secret(url: str, said: str) -> None:
    assert opened(url) == said


@pytest.mark.parametrize(
    "url", ["", "stoer", "consul://x", "redis://", "etcd://a:b:c", "etcd://one,,two", "zookeeper://x:99999"]
)
def test_a_url_that_names_nothing_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^fleet\.url: .*(use store, redis://|write \w+://host:port)"):
        opened(url)


def test_a_refused_url_does_not_show_its_password() -> None:
    with pytest.raises(ConfigurationError) as raised:
        opened("etcd://root:secret@host:port")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "module", "library", "extra"),
    [
        ("redis://x", "engine.fleet.redis_store", "redis", "redis"),
        ("zookeeper://x", "engine.fleet.zookeeper", "kazoo.client", "zookeeper"),
    ],
)
def test_a_missing_library_names_the_extra_to_install(
    url: str, module: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'switchgear\[{extra}\]'"):
        opened(url)
