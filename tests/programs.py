"""Server programs that tests run for real: found, or the test says why it is not run.

With `CI=true` a missing program fails the test, so that nothing is quietly left out where it counts.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

PACKAGES = {
    "alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "chromium": "chromium",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "postgres": "postgresql",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "redis-server": "redis-server",
    "zkServer.sh": "zookeeperd",
}
ALIASES = {"alertmanager": ("prometheus-alertmanager",), "chromium": ("chromium-browser", "google-chrome")}
FOLDERS = (
    "/usr/share/zookeeper/bin",
    "/usr/sbin",
    "/usr/local/sbin",
    *map(str, Path("/usr/lib/postgresql").glob("*/bin")),
)


def find_program(name: str) -> str | None:
    """The path of a program under its own name or Debian's, also from folders that are not on everybody's path."""
    places = os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS])
    found = (shutil.which(candidate, path=places) for candidate in (name, *ALIASES.get(name, ())))
    return next((path for path in found if path), None)


def require_program(name: str) -> str:
    """The path of a program; without it the test is skipped, or with `CI=true` failed."""
    path = find_program(name)
    if path is None:
        missing(f"{name} is not installed: apt-get install {PACKAGES.get(name, name)}")
    return path


def missing(reason: str) -> None:
    """Skip the test with the reason; with `CI=true` fail it."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
