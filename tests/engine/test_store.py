"""The database file: opened by the right program at the right version, or refused in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from engine import schema, sqlite
from engine.core.agreement import Verdict
from engine.core.breaker import BreakerState
from engine.core.errors import ConfigurationError, StoreUnavailable
from engine.core.events import RequestOutcome, Scope
from engine.core.messages import Role
from engine.core.outcomes import Category, Cause
from engine.sqlite import sqlite3
from engine.store import Store
from tests.benchmarks.measuring import quietest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "switch gear?.db").open()


def test_opening_creates_the_tables_and_opening_again_changes_nothing(store: Store) -> None:
    with store.reader() as connection:
        before = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        key = connection.execute("SELECT value FROM store_meta WHERE name = 'prompt_key'").fetchone()
    Store(store.path).open()
    with store.reader() as connection:
        assert connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == before
        assert connection.execute("SELECT value FROM store_meta WHERE name = 'prompt_key'").fetchone() == key


def test_the_file_is_in_wal_mode_with_incremental_vacuum(store: Store) -> None:
    with store.reader() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 2


def test_a_null_is_written_about_as_fast_as_a_text(store: Store) -> None:
    with store.reader() as connection:
        statement = f"SELECT 1 WHERE 0 AND 1 IN ({', '.join('?' * 100)})"
        nulls = quietest(lambda: connection.execute(statement, (None,) * 100))
        texts = quietest(lambda: connection.execute(statement, ("ok",) * 100))
    assert nulls < 10 * texts


def test_every_table_is_strict(store: Store) -> None:
    with store.reader() as connection:
        rows = connection.execute("SELECT name, strict FROM pragma_table_list WHERE type = 'table'").fetchall()
    assert [name for name, strict in rows if not strict and not name.startswith(("sqlite_", "_sqlite"))] == []


def test_the_words_of_the_checks_are_those_of_the_core() -> None:
    assert set(schema.CATEGORIES) == set(Category)
    assert set(schema.CAUSES) == set(Cause)
    assert set(schema.OUTCOMES) == set(RequestOutcome)
    assert set(schema.ROLES) == set(Role)
    assert set(schema.SCOPES) == set(Scope)
    assert set(schema.BREAKER_STATES) == set(BreakerState)
    assert Verdict.DOWN == "down"


def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match=r"readonly|read-only"), store.reader() as connection:
        connection.execute("DELETE FROM totals")


def test_one_read_sees_one_snapshot(store: Store) -> None:
    writer = store.writer()
    with store.reader() as connection:
        assert connection.execute("SELECT count(*) FROM marks").fetchone()[0] == 0
        writer.execute("INSERT INTO marks VALUES ('late', 1, '')")
        assert connection.execute("SELECT count(*) FROM marks").fetchone()[0] == 0
    writer.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE overrides SET reason = 'another'",
        "DELETE FROM overrides",
        "INSERT OR REPLACE INTO overrides VALUES (2, 'a', 5, 'chat', 'set', 'primary', 0, 'why', 'ana', NULL, 2)",
        "INSERT OR REPLACE INTO overrides VALUES (1, 'b', 5, 'chat', 'set', 'primary', 0, 'why', 'ana', NULL, 2)",
    ],
)
def test_acts_of_operators_can_be_neither_changed_nor_deleted(store: Store, statement: str) -> None:
    writer = store.writer()
    writer.execute("INSERT INTO overrides VALUES (1, 'a', 1, 'chat', 'set', 'primary', 0, 'why', 'ana', NULL, 2)")
    with pytest.raises(sqlite.IntegrityError, match=r"append-only"):
        writer.execute(statement)
    assert writer.execute("SELECT id, ts_ms FROM overrides").fetchall() == [("a", 1)]
    writer.close()


def test_a_file_of_a_newer_version_is_refused(store: Store) -> None:
    writer = store.writer()
    writer.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    writer.close()
    with pytest.raises(ConfigurationError, match=r"written by a newer Switchgear.*upgrade"):
        Store(store.path).open()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"another program's database"):
        Store(path).open()
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at by SQLite as one" * 20)
    with pytest.raises(ConfigurationError, match=r"is not a SQLite database"):
        Store(path).open()


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the folder .*missing does not exist: create it"):
        Store(tmp_path / "missing" / "a.db").open()


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is a folder: name a file in it"):
        Store(tmp_path).open()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_access_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match=r"not writable by this user"):
        Store(tmp_path / "a.db").open()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which nobody can make files, root neither")
def test_a_place_where_no_file_can_be_made_is_named() -> None:
    """It was told that there is no database yet, and to start Switchgear once, which is what somebody was doing."""
    with pytest.raises(ConfigurationError, match=r"(cannot be created|not writable).*"):
        Store("/proc/a.db").open()


def test_checking_refuses_what_opening_refuses_and_makes_nothing(store: Store, tmp_path: Path) -> None:
    store.check()
    with closing(store.writer()) as writer:
        writer.execute("PRAGMA user_version = 999")
    for path, wrong in ((store.path, "newer Switchgear"), (tmp_path / "missing" / "a.db", "does not exist")):
        with pytest.raises(ConfigurationError, match=wrong):
            Store(path).check()
    fresh = Store(tmp_path / "fresh.db")
    fresh.check()
    assert not fresh.path.exists()


def test_reading_before_there_is_a_database_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"there is no database at .* yet"), Store(tmp_path / "a.db").reader():
        pass


def test_processes_that_start_together_all_find_the_tables(tmp_path: Path) -> None:
    code = f"from engine.store import Store; Store({str(tmp_path / 'a.db')!r}).open()"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=Path.cwd())
        for _ in range(6)
    ]
    assert [process.communicate(timeout=60)[1] for process in running] == [""] * 6


def test_an_affected_sqlite_may_be_written_by_one_process_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "many_writers_safe", lambda: False)
    store.claim_writing()
    with pytest.raises(ConfigurationError, match=r"another process writes .* install pysqlite3"):
        Store(store.path).claim_writing()
    store.release_writing()
    other = Store(store.path)
    other.claim_writing()
    other.release_writing()


@pytest.mark.parametrize(
    ("version", "safe"), [("3.40.1", False), ("3.51.2", False), ("3.51.3", True), ("3.53.4", True)]
)
def test_the_versions_with_the_wal_bug_are_known(version: str, *, safe: bool) -> None:
    assert sqlite.many_writers_safe(version) is safe
