"""The database file: how it is opened, by whom it may be written, and what is said when it cannot be.

Guarantees: everyone who reads gets a short-lived read-only connection in one snapshot; only the recorder holds a
connection that writes. A path that cannot work, another program's file and a file of a newer Switchgear are refused
in one line that says what to change.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from engine import posting, sqlite
from engine.core.errors import ConfigurationError, StoreUnavailable
from engine.schema import APPLICATION_ID, SCHEMA_VERSION, migrate
from engine.sqlite import Connection, sqlite3

BUSY_TIMEOUT_MS = 5000
WAL_LIMIT_BYTES = 64 * 1024 * 1024

PAGE_BYTES = 2048
"""Half of SQLite's usual size: a request touches about ten pages, and its commit writes and sums up each of them."""


class Store:
    """One database file.

    Building it touches nothing; `open` creates and migrates the file.

    Args:
        path: The database file; its folder must exist.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self._lock_file: int | None = None

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def open(self) -> Store:
        """Create the file where it is missing and bring its tables to this version.

        Returns:
            Itself, so that `Store(path).open()` reads well.

        Raises:
            ConfigurationError: The path cannot hold our database; the message says why and what to change.
        """
        self._check_path()
        with self._opened("rwc") as connection:
            self._prepare(connection)
        return self

    def check(self) -> None:
        """Find what `open` would refuse, and change nothing.

        Raises:
            ConfigurationError: As for `open`.
        """
        self._check_path()
        if self.path.exists():
            with self._opened("ro") as connection:
                self._check_owner(connection)

    @contextmanager
    def _opened(self, mode: str) -> Iterator[Connection]:
        """A connection whose errors say what is wrong with the path."""
        try:
            with closing(self._connect(f"file:{quote(str(self.path))}?mode={mode}")) as connection:
                yield connection
        except sqlite.OperationalError as error:
            unmade = f"store.url: {self.path} cannot be created ({error}): name a place where this user can make files"
            raise ConfigurationError(self._explain(error) if self.path.exists() else unmade) from error
        except sqlite.DatabaseError as error:
            msg = f"store.url: {self.path} is not a SQLite database ({error}): move it away or change store.url"
            raise ConfigurationError(msg) from error

    def writer(self) -> Connection:
        """A connection that may write, with autocheckpoint off; for the recorder only, whose lock guards it.

        Raises:
            engine.sqlite.Error: The file cannot be opened.
        """
        connection = self._connect(f"file:{quote(str(self.path))}?mode=rw")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        posting.prepare(connection)
        return connection

    @contextmanager
    def reader(self) -> Iterator[Connection]:
        """A read-only connection for one short read; everything inside sees one snapshot.

        Raises:
            StoreUnavailable: There is no database yet, or it cannot be read.
        """
        try:
            connection = self._connect(f"file:{quote(str(self.path))}?mode=ro")
        except sqlite.OperationalError as error:
            raise StoreUnavailable(self._explain(error)) from error
        try:
            connection.execute("PRAGMA query_only = 1")
            connection.execute("BEGIN")
            yield connection
        except sqlite.DatabaseError as error:
            raise StoreUnavailable(self._explain(error)) from error
        finally:
            connection.close()

    def claim_writing(self) -> None:
        """Where this SQLite has the WAL-reset bug, make sure that no other process writes the same file.

        With a safe SQLite it does nothing: any number of processes may write.

        Raises:
            ConfigurationError: Another process writes the file already.
        """
        if sqlite.many_writers_safe() or self._lock_file is not None:
            return
        handle = os.open(f"{self.path}-writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            msg = (
                f"another process writes {self.path}, and SQLite {sqlite.version()} can corrupt a database that "
                "several processes write: install pysqlite3 0.6.1 or newer, or run one process"
            )
            raise ConfigurationError(msg) from error
        self._lock_file = handle

    def release_writing(self) -> None:
        """Let another process write; the opposite of `claim_writing`."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def wal_bytes(self) -> int:
        """Size of the write-ahead log in bytes; 0 when there is none."""
        try:
            return Path(f"{self.path}-wal").stat().st_size
        except OSError:
            return 0

    def _connect(self, uri: str) -> Connection:
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, cached_statements=512, check_same_thread=False
        )
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        return connection

    def _check_owner(self, connection: Connection) -> tuple[int, int]:
        """Check whose file it is and of which version; returns its number of tables and its version."""
        # The tables first: another process may be migrating, and its tables and its id appear together.
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application not in (0, APPLICATION_ID) or (application == 0 and tables):
            msg = f"store.url: {self.path} is another program's database: choose another file"
            raise ConfigurationError(msg)
        if version > SCHEMA_VERSION:
            msg = (
                f"store.url: {self.path} was written by a newer Switchgear (tables of version {version}, this one "
                f"knows {SCHEMA_VERSION}): upgrade Switchgear here, or choose another file"
            )
            raise ConfigurationError(msg)
        return tables, version

    def _prepare(self, connection: Connection) -> None:
        """Check whose file it is and of which version, then migrate it."""
        tables, version = self._check_owner(connection)
        if not tables:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if version < SCHEMA_VERSION:
            connection.execute("PRAGMA journal_mode = WAL")
            migrate(connection)

    def _check_path(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            msg = f"store.url: the folder {folder} does not exist: create it or change store.url"
            raise ConfigurationError(msg)
        if self.path.is_dir():
            msg = f"store.url: {self.path} is a folder: name a file in it"
            raise ConfigurationError(msg)
        if not os.access(folder, os.W_OK) or (self.path.exists() and not os.access(self.path, os.W_OK)):
            msg = f"store.url: {self.path} is not writable by this user: give access to the file and its folder"
            raise ConfigurationError(msg)

    def _explain(self, error: sqlite.Error) -> str:
        """One line about what is wrong with the file and what to do about it."""
        text = str(error)
        if not self.path.exists():
            return f"there is no database at {self.path} yet: start Switchgear once, or correct store.url"
        if "locked" in text or "busy" in text:
            return f"{self.path} is locked by another program ({text}): end its transaction"
        if "full" in text:
            return f"the disk of {self.path} is full: free some space"
        if "readonly" in text or "read-only" in text:
            return f"{self.path} is read-only ({text}): give write access to the file and its folder"
        if self.path.is_dir():
            return f"{self.path} is a folder: name a file in store.url"
        if "malformed" in text or "not a database" in text:
            return (
                f"{self.path} is damaged ({text}): restore a copy, or move it away and restart, which begins a new one"
            )
        return f"{self.path} cannot be used: {text}"

    def explain(self, error: Exception) -> str:
        """What an error of this file means to an operator, in one line."""
        return self._explain(error) if isinstance(error, sqlite.Error) else f"{self.path} cannot be used: {error}"
