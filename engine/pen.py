"""The recorder's pen: the one connection that writes, its transactions, and the log it leaves behind.

Whoever holds the recorder's lock may write; nothing here locks or retries. A transaction holds everything that belongs
together (`engine.ledger`). One with audit rows is committed with `synchronous=FULL`, which survives a power cut, the
others with `NORMAL`, which survives every crash of the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from engine import sqlite
from engine.core.events import Record
from engine.ledger import Ledger, add_latency, add_total, is_audit
from engine.sqlite import Connection
from engine.store import BUSY_TIMEOUT_MS, Store

T = TypeVar("T")

FAILING_BUSY_MS = 250
CHECKPOINT_BUSY_MS = 50
CHECKPOINT_EVERY_S = 0.2
CHECKPOINT_WAL_BYTES = 16 * 1024 * 1024
RESTART_WAL_BYTES = 4 * 1024 * 1024
COMMIT_STATS_EVERY_S = 1.0


class Pen:
    """Writes to a store.

    Args:
        store: An opened store.
        record_content: Whether prompts and answers are stored.
    """

    def __init__(self, store: Store, *, record_content: bool) -> None:
        self._store = store
        self._record_content = record_content
        self._connection: Connection | None = None
        self._ledger = Ledger(b"")
        self._full_sync = self._dirty = self._failing = False
        self._commits = self._commits_seen = 0
        self._commit_ms: list[float] = []
        self._stats_at = self._checkpoint_at = 0.0

    @property
    def ready(self) -> bool:
        """Whether the connection is open, so that writing is quick."""
        return self._connection is not None

    @property
    def dirty(self) -> bool:
        """Whether a pause is worth a checkpoint."""
        return self._dirty

    def post(self, records: Sequence[Record]) -> None:
        """Write records with their sums in one transaction.

        Raises:
            engine.sqlite.Error: The store does not take them; nothing of them is written.
        """
        durable = any(is_audit(record) for record in records)
        started = time.perf_counter()
        connection = self._prepared(durable=durable)
        page = self._ledger.page(records)
        statistics = self._commit_ms if started - self._stats_at >= COMMIT_STATS_EVERY_S else ()
        if page.alone and not statistics:
            page.write(connection)
            self._dirty = True
        else:
            with self._transaction(durable=durable):
                page.write(connection)
                if statistics:
                    self._post_stats(connection)
        self._commits += 1
        self._commit_ms.append((time.perf_counter() - started) * 1000)

    def run(self, job: Callable[[Connection], T], *, durable: bool) -> T:
        """Run a job inside a transaction; what it raises rolls it back.

        Args:
            job: Gets the connection inside `BEGIN IMMEDIATE`.
            durable: Whether the commit must survive a power cut.
        """
        with self._transaction(durable=durable) as connection:
            return job(connection)

    def count_rejected(self) -> None:
        """Count a record that the store did not accept."""
        self.run(lambda connection: add_total(connection, "records_rejected"), durable=False)

    def try_out(self) -> None:
        """Write nothing, to see whether the store can be written.

        Raises:
            engine.sqlite.Error: It cannot.
        """
        with self._transaction(durable=False):
            pass

    def drop(self) -> None:
        """Close the connection; the next one is opened when it is needed."""
        if self._connection is not None:
            with suppress(sqlite.Error):
                self._connection.close()
            self._connection = None

    def be_patient(self, patient: bool) -> None:
        """How long to wait for another process that writes: as usual, or shorter, while the store is failing."""
        self._failing = not patient
        if patient and self._connection is not None:
            self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")

    # -- the log -----------------------------------------------------------------------------------------------

    def tend(self) -> None:
        """Under load: keep the log from growing without bound, in steps short enough for those who wait."""
        now = time.monotonic()
        if now - self._checkpoint_at < CHECKPOINT_EVERY_S:
            return
        self._checkpoint_at = now
        if self._store.wal_bytes() >= CHECKPOINT_WAL_BYTES:
            self._checkpoint("PASSIVE")

    def pause(self) -> None:
        """Nothing came for a while: rest, unless callers have written for themselves meanwhile."""
        if self._commits == self._commits_seen:
            self.rest()
        else:
            self._commits_seen = self._commits
            self.tend()

    def rest(self) -> None:
        """In a pause: write the commit statistics and move the log into the database."""
        if not self._dirty or self._connection is None:
            return
        with suppress(sqlite.Error):
            if self._commit_ms:
                with self._transaction(durable=False) as connection:
                    self._post_stats(connection)
            self._checkpoint("PASSIVE" if self._store.wal_bytes() < RESTART_WAL_BYTES else "TRUNCATE")
        self._dirty = False

    def _checkpoint(self, mode: str) -> None:
        connection = self._connection
        if connection is None:
            return
        with suppress(sqlite.Error):
            connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_BUSY_MS}")
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")

    # -- the connection ----------------------------------------------------------------------------------------

    def _post_stats(self, connection: Connection) -> None:
        add_latency(connection, "commit", self._commit_ms)
        self._commit_ms.clear()
        self._stats_at = time.perf_counter()

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[Connection]:
        connection = self._prepared(durable=durable)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        self._dirty = True

    def _prepared(self, *, durable: bool) -> Connection:
        """The connection, syncing the disk with every commit or not."""
        connection = self._connection or self._connect()
        if durable is not self._full_sync:
            connection.execute("PRAGMA synchronous = FULL" if durable else "PRAGMA synchronous = NORMAL")
            self._full_sync = durable
        return connection

    def _connect(self) -> Connection:
        connection = self._store.writer()
        key = connection.execute("SELECT value FROM store_meta WHERE name = 'prompt_key'").fetchone()[0]
        if self._failing:
            connection.execute(f"PRAGMA busy_timeout = {FAILING_BUSY_MS}")
        self._ledger = Ledger(bytes.fromhex(key), record_content=self._record_content)
        self._full_sync = False
        self._connection = connection
        return connection
