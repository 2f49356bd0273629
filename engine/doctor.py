"""Is this machine fit to run this configuration? Every check does the real thing once and gives a value.

A check never raises for what it looks for; each finding says what was seen and what to do. Rendering is for the
command line.
"""

from __future__ import annotations

import errno
import importlib
import os
import secrets
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from engine import sqlite
from engine.config import Config, ProviderKind, Surface, load
from engine.core.agreement import Document, DocumentError
from engine.core.errors import ConfigurationError, SwitchgearError
from engine.durations import describe
from engine.fleet.base import Coordinator
from engine.store import Store

SCRATCH: Final = "_doctor"
"""The key that the coordinator is tried with; no manager can have this name."""

LITTLE_SPACE: Final = 1_000_000_000
NO_SPACE: Final = 100_000_000
SKEW: Final = 0.05
LOCK_WAIT: Final = 2.0

_LIBRARIES: Final = {
    ProviderKind.GOOGLE_GENERATIVEAI: "google.generativeai",
    ProviderKind.GOOGLE_GENAI: "google.genai",
    ProviderKind.OPENAI: "aiohttp",
}

Connect = Callable[[Config], Coordinator]


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw.

    Attributes:
        name: What was checked.
        level: Whether it is fine, worth knowing, or in the way.
        detail: What was seen.
        remedy: What to do; empty when it is fine.
    """

    name: str
    level: Level
    detail: str
    remedy: str = ""


def examine(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    connect: Connect | None = None,
    demo: bool = False,
) -> list[Finding]:
    """Run every check.

    Args:
        path: The configuration file; `None`: the usual one.
        environ: The environment that holds the keys.
        connect: Opens the configured coordinator; not needed where the store is the coordinator.
        demo: Whether it is about the demo on this configuration, with simulated models and a store of its own.

    Returns:
        The findings in a fixed order. When the configuration cannot be read, only what needs none is checked.
    """
    try:
        config = load(path, environ).as_demo() if demo else load(path, environ)
    except ConfigurationError as error:
        unread = [Finding("configuration", Level.FAIL, line, "correct the file") for line in error.message.splitlines()]
        return [*unread, sqlite_version(), clocks()]
    managers = ", ".join(config.managers)
    return [
        Finding("configuration", Level.OK, f"{config.source} is valid; managers: {managers}"),
        *keys(config, environ),
        *providers(config),
        rules(config),
        store(config),
        sqlite_version(),
        disk(config.store_path),
        clocks(),
        *ports(config),
        coordinator(config, connect, environ=environ),
    ]


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among findings."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.FAIL, Level.WARN) if level in levels), Level.OK)


def keys(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether every variable that the file names is set, and open addresses have keys."""
    wrong: dict[str, str] = {}
    for key in config.providers:
        settings = config.provider_settings(key, environ)
        if settings.key_fault is not None:
            wrong[settings.api_key_env] = f"{settings.key_fault}: providers.{key} has no key"
    for receiver in config.alerts.receivers:
        for variable in (receiver.url_env, receiver.secret_env):
            if variable and not environ.get(variable):
                wrong[variable] = f"is not set: receiver {receiver.name} cannot be reached"
    for variable, trouble in wrong.items():
        yield Finding("keys", Level.FAIL, f"${variable} {trouble}", f"export {variable}=…")
    try:
        config.operator_keys(environ)
        config.viewer_keys(environ)
        config.refuse_exposed(*Surface, environ=environ)
    except ConfigurationError as error:
        for line in error.message.splitlines():
            yield Finding("keys", Level.FAIL, line, "set the keys, or listen on 127.0.0.1")
    else:
        if not wrong:
            yield Finding("keys", Level.OK, "every key that the file names is set")


def providers(config: Config) -> Iterator[Finding]:
    """Whether the providers' libraries can be imported."""
    for kind in dict.fromkeys(provider.kind for provider in config.providers.values()):
        module = _LIBRARIES.get(kind)
        if module is None:
            yield Finding("providers", Level.OK, f"{kind} needs no library")
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        except Exception as error:  # noqa: BLE001  # a broken installation can raise anything at import
            detail = f"{kind}: {module} cannot be imported: {type(error).__name__}: {error}"
            yield Finding("providers", Level.FAIL, detail, "install Switchgear again with its dependencies")
        else:
            yield Finding("providers", Level.OK, f"{kind}: {module} can be imported")


def rules(config: Config) -> Finding:
    """Whether the alert rules are there; `switchgear alerts check` reads them."""
    try:
        path = config.alert_rules_path
    except FileNotFoundError as error:
        return Finding("alert rules", Level.WARN, str(error), "without rules nobody is told anything")
    if path.is_file():
        return Finding("alert rules", Level.OK, str(path))
    return Finding("alert rules", Level.FAIL, f"there is no file {path}", "create it, or correct alerts.rules")


def store(config: Config) -> Finding:
    """Whether the database is ours and can be written: a real commit beside it, and its own write lock."""
    path = config.store_path
    place = f"the folder of {path}"
    try:
        Store(path).check()
        _commit_beside(path)
        place = str(path)
        if path.exists() and sqlite.many_writers_safe():
            _take_write_lock(path)
    except ConfigurationError as error:
        detail, _, remedy = str(error).removeprefix("store.url: ").rpartition(": ")
        return Finding("store", Level.FAIL, detail, remedy)
    except (OSError, sqlite.Error) as error:
        if "locked" in str(error):
            waited = describe(LOCK_WAIT)
            return Finding("store", Level.WARN, f"{path} was locked for {waited}", "end what holds a transaction open")
        remedy = f"give {_user()} the right to write there, or set store.url to another place"
        return Finding("store", Level.FAIL, f"{place} cannot be written: {error}", remedy)
    return Finding("store", Level.OK, f"{path} can be written")


def _commit_beside(path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix=".doctor-", dir=path.parent) as folder,
        closing(sqlite.sqlite3.connect(Path(folder) / "scratch.db")) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE scratch (value TEXT) STRICT")
        connection.execute("INSERT INTO scratch VALUES ('written')")
        connection.commit()


def _take_write_lock(path: Path) -> None:
    uri = f"{path.as_uri()}?mode=rw"
    with closing(sqlite.sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _user() -> str:
    return f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"


def sqlite_version(version: str | None = None) -> Finding:
    """Whether SQLite is free of the WAL-reset bug, which can corrupt a file that several processes write."""
    version = version or sqlite.version()
    detail = f"SQLite {version} of {sqlite.library()}"
    if sqlite.many_writers_safe(version):
        return Finding("sqlite", Level.OK, detail)
    fixed = ".".join(map(str, sqlite.WAL_RESET_FIXED))
    remedy = f"install pysqlite3, which brings SQLite {fixed} or newer; until then run one process per store"
    return Finding("sqlite", Level.WARN, f"{detail} can corrupt a store that several processes write", remedy)


def disk(path: Path) -> Finding:
    """Whether the store has room to grow."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB free in {folder}"
    if free >= LITTLE_SPACE:
        return Finding("disk", Level.OK, detail)
    level = Level.FAIL if free < NO_SPACE else Level.WARN
    return Finding("disk", level, detail, "free some space, lower store.retention, or set store.url to another disk")


def clocks(
    monotonic: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Finding:
    """Whether the two clocks run alike for a moment, and the wall clock has been set."""
    began, began_wall = monotonic(), wall()
    sleep(0.2)
    skew = abs((wall() - began_wall) - (monotonic() - began))
    if began_wall < 1_700_000_000:
        return Finding("clocks", Level.FAIL, "the wall clock was never set", "start a time service such as chrony")
    if skew > SKEW:
        detail = f"the wall clock moved by {describe(skew)} against the monotonic one"
        remedy = "let one time service set it; records would have wrong times, decisions are not affected"
        return Finding("clocks", Level.WARN, detail, remedy)
    return Finding("clocks", Level.OK, "wall and monotonic clock run alike")


def ports(config: Config) -> Iterator[Finding]:
    """Whether the addresses to listen on are free."""
    for name, section in (("server", config.server), ("dashboard", config.dashboard)):
        address = f"{section.host}:{section.port}"
        reason = _not_free(section.host, section.port)
        if reason is None:
            yield Finding("ports", Level.OK, f"{name}: {address} is free")
        elif reason == errno.EADDRINUSE:
            remedy = f"fine while Switchgear runs; else end what listens there, or set {name}.port"
            yield Finding("ports", Level.WARN, f"{name}: {address} is in use", remedy)
        else:
            detail = f"{name}: cannot listen on {address}: {os.strerror(reason)}"
            yield Finding("ports", Level.FAIL, detail, f"set {name}.host to an address of this machine")


def _not_free(host: str, port: int) -> int | None:
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((bare, port))
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno or errno.EINVAL
    return None


def coordinator(config: Config, connect: Connect | None = None, *, environ: Mapping[str, str] = os.environ) -> Finding:
    """Whether the coordinator agrees to a real compare-and-swap, and refuses a stale one."""
    url = config.fleet_url(environ)
    if url == "store":
        return Finding("coordinator", Level.OK, "the store is the coordinator")
    shown = f"{urlsplit(url).scheme}://{urlsplit(url).netloc.rpartition('@')[2]}"
    if connect is None:
        return Finding("coordinator", Level.WARN, f"{shown} was not tried", "give examine() a way to connect")
    try:
        with closing(connect(config)) as store:
            document = store.read(SCRATCH)
            epoch = document.epoch if document else None
            # An unguessable writer keeps two doctors at one time from taking each other's success for their own.
            following = Document(epoch=(epoch or 0) + 1, cause="doctor", writer=secrets.token_hex(8))
            if not store.swap(SCRATCH, epoch, following):
                return Finding("coordinator", Level.WARN, f"{shown} changed meanwhile", "run this again")
            if store.swap(SCRATCH, epoch, following.following(writer=secrets.token_hex(8))):
                remedy = "do not use it: two instances could both believe they won"
                return Finding("coordinator", Level.FAIL, f"{shown} took a swap of a stale epoch", remedy)
    except (SwitchgearError, DocumentError, OSError) as error:
        remedy = "start it, or correct fleet.url; until then the last agreement holds and nothing fails back"
        return Finding("coordinator", Level.FAIL, f"{shown} cannot be used: {error}", remedy)
    return Finding("coordinator", Level.OK, f"{shown} swaps and refuses stale epochs")
