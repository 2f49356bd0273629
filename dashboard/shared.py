"""What all viewers share: the configuration, the store, and one snapshot per question for a moment.

Ten viewers cost as much as one: a snapshot is an immutable value that is read at most once per `*_FOR` seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import streamlit as st

from alerts.preview import Preview, whom
from alerts.preview import preview as preview_of
from alerts.rules import Rule, RuleSet, read_rules
from dashboard.casefile import CaseFile, Line, read_case, read_incidents, read_lines
from dashboard.reading import Live, Past, read_live, read_past
from dashboard.times import DAY_MS
from engine.config import Config, load
from engine.config.config import PATH_VARIABLE
from engine.core.errors import StoreUnavailable
from engine.schema import SCHEMA_VERSION
from engine.sqlite import Connection
from engine.store import Store

LIVE_FOR: Final = 1.5
PAST_FOR: Final = 10.0
PREVIEW_FOR: Final = 120.0
LOCKED_AFTER_MS: Final = 1000
"""How long a page waits for a lock, which no writer of ours holds against readers, before it says that there is one."""
DEMO_VARIABLE: Final = "SWITCHGEAR_DEMO"

T = TypeVar("T")


@st.cache_resource(show_spinner=False, max_entries=4)
def _config(path: str, changed: float, demo: bool) -> Config:  # noqa: ARG001 - `changed` is part of the cache's key
    config = load(Path(path) if path else None)
    return config.as_demo() if demo else config


def config() -> Config:
    """The configuration; read again when the file changes.

    Raises:
        ConfigurationError: It cannot work; the message says what to change.
    """
    path = os.environ.get(PATH_VARIABLE, "")
    changed = Path(path).stat().st_mtime if path and Path(path).is_file() else 0.0
    return _config(path, changed, os.environ.get(DEMO_VARIABLE) == "1")


@st.cache_resource(show_spinner=False, max_entries=4)
def _rules(path: str, changed: float) -> RuleSet:  # noqa: ARG001 - `changed` is part of the cache's key
    return read_rules(Path(path))


def rules() -> RuleSet:
    """The alert rules; read again when their file changes."""
    path = config().alert_rules_path
    return _rules(str(path), path.stat().st_mtime if path.is_file() else 0.0)


def now_ms() -> int:
    """The present, wall time in milliseconds."""
    return time.time_ns() // 1_000_000


def ask(question: Callable[[Connection], T]) -> T:
    """Read the store in one snapshot.

    Raises:
        StoreUnavailable: It is missing, locked, or of another version; the message says what to do.
    """
    with Store(config().store_path).reader() as connection:
        connection.execute(f"PRAGMA busy_timeout = {LOCKED_AFTER_MS}")
        _check_version(connection)
        return question(connection)


def _check_version(connection: Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < SCHEMA_VERSION:
        msg = (
            f"the database has tables of version {version} and this dashboard needs "
            f"{SCHEMA_VERSION}: start the gateway once, it brings them up to date"
        )
        raise StoreUnavailable(msg)
    if version > SCHEMA_VERSION:
        msg = (
            f"the database was written by a newer Switchgear (tables of version {version}, this one "
            f"knows {SCHEMA_VERSION}): upgrade this dashboard"
        )
        raise StoreUnavailable(msg)


@st.cache_resource(ttl=LIVE_FOR, max_entries=32, show_spinner=False)
def _live(store: str, manager: str) -> Live:  # noqa: ARG001 - the store is part of the cache's key
    return ask(lambda connection: read_live(connection, config(), manager, now_ms()))


@st.cache_resource(ttl=PAST_FOR, max_entries=32, show_spinner=False)
def _past(store: str, manager: str, span_ms: int, sums_only: bool) -> Past:  # noqa: ARG001 - as above
    return ask(lambda connection: read_past(connection, manager, now_ms(), span_ms, sums_only=sums_only))


def live(manager: str) -> Live:
    """What changes from second to second."""
    return _live(str(config().store_path), manager)


def past(manager: str, span_ms: int = DAY_MS, *, sums_only: bool = False) -> Past:
    """The last day, or another stretch up to now."""
    return _past(str(config().store_path), manager, span_ms, sums_only)


@st.cache_resource(ttl=PAST_FOR, max_entries=32, show_spinner=False)
def _lines(store: str, manager: str, span_ms: int) -> list[Line]:  # noqa: ARG001 - as above
    def read(connection: Connection) -> list[Line]:
        return read_lines(connection, manager, read_incidents(connection, manager, now_ms(), span_ms), now_ms())

    return ask(read)


@st.cache_resource(ttl=LIVE_FOR, max_entries=32, show_spinner=False)
def _case(store: str, manager: str, incident_id: str) -> CaseFile | None:  # noqa: ARG001 - as above
    return ask(lambda connection: read_case(connection, manager, incident_id, now_ms()))


@st.cache_resource(ttl=PREVIEW_FOR, max_entries=16, show_spinner="Looking back over what is recorded …", show_time=True)
def _preview(store: str, manager: str, span_ms: int, keys: tuple[object, ...], _rule: Rule) -> Preview:  # noqa: ARG001 - as above
    known, now, who = config(), now_ms(), whom(_rule, manager)
    every, kept = known.alerts.evaluate_every, known.store.retention
    return ask(lambda connection: preview_of(connection, _rule, who, now - span_ms, now, every_s=every, kept_s=kept))


def preview(rule: Rule, manager: str, span_ms: int) -> Preview:
    """When a rule would have fired in the last days.

    Raises:
        NoPreview: What it asks is not recorded.
    """
    keys = (rule.expression.text, rule.hold, rule.keep, rule.no_data, rule.scope)
    return _preview(str(config().store_path), manager, span_ms, keys, rule)


def incident_lines(manager: str, span_ms: int) -> list[Line]:
    """The incidents of the last days, newest first."""
    return _lines(str(config().store_path), manager, span_ms)


def case(manager: str, incident_id: str) -> CaseFile | None:
    """One incident with everything around it."""
    return _case(str(config().store_path), manager, incident_id)


def forget() -> None:
    """Read everything again: somebody has just acted."""
    _live.clear()
    _past.clear()
    _lines.clear()
    _case.clear()
