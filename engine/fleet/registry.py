"""Which coordinator a `fleet.url` names. Libraries that come as extras are imported only when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.core.errors import ConfigurationError
from engine.fleet.base import Coordinator
from engine.fleet.tls import NOTHING_SAID, Tls

if TYPE_CHECKING:
    from engine.recorder import Recorder

KINDS = "store, redis://host:6379, etcd://host:2379,host2:2379, zookeeper://host:2181, or rediss://, etcds://, zookeepers://"

PACKAGES = {
    "redis": "switchgear[redis]",
    "rediss": "switchgear[redis]",
    "etcd": "urllib3",
    "etcds": "urllib3",
    "zookeeper": "switchgear[zookeeper]",
    "zookeepers": "switchgear[zookeeper]",
}

SECURE = {"redis": "rediss", "etcd": "etcds", "zookeeper": "zookeepers"}
"""Schemes without TLS, and the same with it."""


def open_coordinator(url: str, *, instance: str, recorder: Recorder, tls: Tls = NOTHING_SAID) -> Coordinator:
    """Build the coordinator that a URL names, without touching the network.

    Args:
        url: `store`, `redis://`, `etcd://` or `zookeeper://`, the last three also with TLS as `rediss://`, `etcds://`
            and `zookeepers://`; may hold credentials.
        instance: This instance's name.
        recorder: Whose store is used for `store`.
        tls: The certificates for TLS.

    Raises:
        ConfigurationError: The URL names nothing known, is malformed, its library is not installed, or a certificate
            cannot be used.
    """
    scheme = urlsplit(url).scheme
    if url == "store":
        from engine.fleet.store import StoreCoordinator  # noqa: PLC0415

        return StoreCoordinator(recorder)
    _check(url, scheme)
    if tls != NOTHING_SAID and scheme in SECURE:
        msg = f"fleet.ca and fleet.cert are for TLS, and {scheme}:// is without: write {SECURE[scheme]}://"
        raise ConfigurationError(msg)
    try:
        return _server(url, scheme, instance, tls)
    except ImportError as error:
        missing = PACKAGES[scheme]
        msg = f"fleet.url: {scheme}:// needs a library that is not installed: pip install '{missing}'"
        raise ConfigurationError(msg) from error


def _check(url: str, scheme: str) -> None:
    """Refuse what cannot be an address, without repeating what may be a password."""
    if scheme not in PACKAGES:
        msg = f"fleet.url: {scheme or 'this'!r} is no known kind of coordinator: use {KINDS}"
        raise ConfigurationError(msg)
    hosts = urlsplit(url).netloc.rpartition("@")[2]
    for host in hosts.split(","):
        name, _, port = host.rpartition(":")
        if not host or (name and not host.endswith("]") and not (port.isdigit() and int(port) < 65_536)):
            msg = f"fleet.url: {hosts!r} is no address: write {scheme}://host:port"
            raise ConfigurationError(msg)


def _server(url: str, scheme: str, instance: str, tls: Tls) -> Coordinator:
    if scheme in ("redis", "rediss"):
        from engine.fleet.redis_store import RedisCoordinator  # noqa: PLC0415

        return RedisCoordinator(url, instance=instance, tls=tls)
    if scheme in ("etcd", "etcds"):
        from engine.fleet.etcd import EtcdCoordinator  # noqa: PLC0415

        return EtcdCoordinator(url, instance=instance, tls=tls)
    from engine.fleet.zookeeper import ZooKeeperCoordinator  # noqa: PLC0415

    return ZooKeeperCoordinator(url, instance=instance, tls=tls)
