"""The flight recorder: one connection writes (`engine.pen`), under one lock, and commits what is waiting in groups.

A writer thread does so. A threaded caller that waits for its commit in any case may do it itself while nobody else
is writing (`submit(…, here=True)`): two thread switches cost as much as the commit. As soon as there is company the
thread takes over, so that many callers share one commit (flat combining; Hendler, Incze, Shavit, Tzafrir, SPAA 2010).

Guarantees: a ticket completes without error only after its records, with every sum they belong to, are committed;
nothing that was submitted is dropped while the process lives: when the store cannot be written, tickets fail
quickly, `error` says why, and the records wait in memory and are written when the store recovers. Only a record that
breaks a rule of its table is given up, with its ticket and a counter saying so, so that it cannot stop the others.

The transaction of a group holds raw rows, rollups, latency buckets and totals together (`engine.ledger`), so a kill
at any moment leaves either all of a group or nothing of it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from engine import sqlite, tickets
from engine.core.errors import InternalError, StoreUnavailable
from engine.core.events import Record, Records, RequestOutcome, RequestRecord, listed
from engine.pen import Pen
from engine.sqlite import Connection
from engine.store import Store
from engine.tickets import Ticket

__all__ = ["Durability", "RecordRejected", "Recorder", "Ticket"]

log = logging.getLogger(__name__)
T = TypeVar("T")

GROUP_RECORDS = 500
LINGER_S = 0.02
IDLE_S = 0.25
CROWDED = 0.1
"""Share of the latest commits that found more records waiting, from which on the writer gathers before it commits:
some hundreds of requests a second, whose threads a commit for each of them would interrupt a dozen times."""
CROWD_COMMITS = 32
GATHER_S = 0.002
"""The longest that is gathered; it ends sooner when nobody has come for a while, for then all wait for the commit."""
GATHER_STEP_S = 0.0001
RETRY_MIN_S = 0.05
RETRY_MAX_S = 0.5


class Durability(StrEnum):
    """When a ticket completes: with the commit, or at once with the commit following within 50 ms."""

    COMMIT = "commit"
    BATCH = "batch"


class RecordRejected(InternalError):
    """A record breaks a rule of its table, or its id is recorded already; it is not written."""


@dataclass(slots=True)
class _Entry:
    given: Records
    ticket: Ticket
    prompt: bool
    records: Sequence[Record] = ()
    interrupted: bool = False
    """Its caller was interrupted while it wrote this itself, so that it may be committed already."""


@dataclass(slots=True)
class _Job:
    run: Callable[[Connection], Any]
    future: Future[Any]
    durable: bool


class _Stop:
    """Ends the writer thread after everything queued before it."""


class Recorder:
    """Writes records and runs write jobs for everybody in this process.

    Args:
        store: An opened store.
        durability: When tickets complete.
        queue_limit: Entries waiting at which `full` becomes true.
        record_content: Whether prompts and answers are stored.
    """

    def __init__(
        self,
        store: Store,
        *,
        durability: str = Durability.COMMIT,
        queue_limit: int = 10_000,
        record_content: bool = False,
    ) -> None:
        self.store = store
        self.durability = Durability(durability)
        self.queue_limit = queue_limit
        self.error: Exception | None = None
        self._pen = Pen(store, record_content=record_content)
        self._items: deque[_Entry | _Job | _Stop] = deque()
        self._writing = threading.Lock()
        self._bell = threading.Lock()  # held while there is nothing to tell the writer thread
        self._bell.acquire()
        self._asleep = self._lingers = self._until_rung = self._hurried = False
        self._backlog: list[_Entry] = []
        self._retry_at = 0.0
        self._retry_after = RETRY_MIN_S
        self._crowd = 0.0
        self._give_up_at: float | None = None
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def queue_length(self) -> int:
        """Entries that are not committed yet."""
        return len(self._items) + len(self._backlog)

    @property
    def full(self) -> bool:
        """Whether new requests should be refused until the writer has caught up."""
        return len(self._items) + len(self._backlog) >= self.queue_limit

    def start(self) -> None:
        """Start the writer thread; the first submission does it too.

        Raises:
            ConfigurationError: This SQLite must not write beside another process, and one is writing.
            StoreUnavailable: The recorder is closed.
        """
        with self._starting:
            if self._closed:
                msg = "the recorder is closed: open the store again"
                raise StoreUnavailable(msg)
            if self._thread is None:
                self.store.claim_writing()
                self._thread = threading.Thread(target=self._run, name="switchgear-recorder", daemon=True)
                self._thread.start()
                atexit.register(self.close)

    def close(self, timeout: float = 10.0) -> None:
        """Commit what is queued and stop; calling it again does nothing.

        Args:
            timeout: Seconds to go on trying while the store cannot be written.
        """
        with self._starting:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
            if thread is not None:
                self._give_up_at = time.monotonic() + timeout
                self._put(_Stop())
        if thread is not None:
            thread.join(timeout + 1.0)
            atexit.unregister(self.close)
            self.store.release_writing()
        if left := self.queue_length:
            log.error("the recorder was closed with %d unwritten entries: %s", left, self.error)

    def submit(self, records: Records, *, committed: bool = False, here: bool = False) -> Ticket:
        """Hand over records; never drops.

        Args:
            records: Written in one transaction, in this order; or a function that makes them, called once.
            committed: Ask for a ticket of the commit under durability `batch` too, as acts of operators need it.
            here: The caller's thread has nothing to do until the commit, so it may do the writing, too.

        Returns:
            The ticket of the commit; under `batch` one that is done already.

        Raises:
            StoreUnavailable: The recorder is closed.
        """
        if self._thread is None or self._closed:
            self.start()
        if not committed and self.durability is Durability.BATCH:
            self._items.append(_Entry(records, tickets.DONE, prompt=False))
            if self._asleep and not self._lingers:
                self._ring()
            return tickets.DONE
        entry = _Entry(records, Ticket(), prompt=True)
        if not here or not self._commit_here(entry):
            self._put(entry)
        return entry.ticket

    def _put(self, item: _Entry | _Job | _Stop) -> None:
        """Hand something to the writer thread that somebody waits for."""
        self._items.append(item)
        self._hurried = True
        if self._asleep:
            self._ring()

    def _ring(self) -> None:
        with suppress(RuntimeError):  # it rings already
            self._bell.release()

    def execute(self, job: Callable[[Connection], T], *, durable: bool = False) -> Future[T]:
        """Run a write job on the writer thread, inside a transaction of its own.

        A job is not repeated: when the store cannot be written the future raises `StoreUnavailable`; what the job
        itself raises rolls its transaction back and is the future's exception.

        Args:
            job: Gets the write connection inside `BEGIN IMMEDIATE`; must be short and must not wait for the recorder.
            durable: Whether the commit must survive a power cut.
        """
        if self._thread is None or self._closed:
            self.start()
        future: Future[T] = Future()
        self._put(_Job(job, future, durable))
        return future

    def _commit_here(self, entry: _Entry) -> bool:
        """Write an entry on its caller's thread, unless somebody else is writing or waiting to."""
        if self._crowd > CROWDED or not self._writing.acquire(blocking=False):
            return False
        try:
            if self._items or self._backlog or self.error is not None or not self._pen.ready or self._closed:
                return False
            self._write([entry] if self._opened(entry) else [])
        except BaseException:
            entry.interrupted = True  # by a signal; the writer thread finds it in the backlog and sees to it
            raise
        finally:
            forgetful = self._asleep and self._until_rung  # it does not know that there is something to tidy up
            self._writing.release()
            if self._backlog or forgetful:
                self._ring()
        return True

    # The writer thread from here on.

    def _run(self) -> None:
        stopping = False
        while not stopping:
            try:
                stopping = self._turn()
            except Exception as error:
                log.exception("the recorder stumbled; it goes on with a fresh connection")
                with self._writing:
                    self._doubt(error)
        with self._writing:
            while self._backlog and time.monotonic() < (self._give_up_at or 0.0):
                time.sleep(max(0.0, min(self._retry_at - time.monotonic(), RETRY_MAX_S)))
                self._retry()
            self._pen.rest()
            self._pen.drop()

    def _turn(self) -> bool:
        """Wait for something to write and write it; returns whether it was the last."""
        self._sleep(self._patience())
        if self._items and not self._closed:
            if self._crowd > CROWDED:
                self._gather()
            elif not self._hurried:
                self._sleep(LINGER_S, lingers=True)
        with self._writing:
            return self._work()

    def _gather(self) -> None:
        """Wait while more keeps coming, so that a crowd shares one commit."""
        until = time.monotonic() + GATHER_S
        before = 0
        while before < len(self._items) and time.monotonic() < until:
            before = len(self._items)
            time.sleep(GATHER_STEP_S)

    def _sleep(self, patience: float | None, *, lingers: bool = False) -> None:
        """Wait for the bell; while it lingers only for those who are in a hurry."""
        self._lingers, self._asleep = lingers, True
        self._until_rung = patience is None
        if not (self._hurried if lingers else self._items):
            self._bell.acquire(timeout=-1 if patience is None else patience)
        self._asleep = self._lingers = False

    def _work(self) -> bool:
        """Take what is waiting and write it; returns whether it was the last."""
        self._hurried = False
        group: list[_Entry] = []
        waiting = 0
        worked = bool(self._items)
        while self._items and waiting < GROUP_RECORDS:
            item = self._items.popleft()
            if isinstance(item, _Stop):
                self._write(group)
                return True
            if isinstance(item, _Job):
                self._write(group)
                group, waiting = [], 0
                self._do(item)
            elif self._opened(item):
                group.append(item)
                waiting += len(item.records)
        if group:
            self._write(group)
            self._crowd += (min(1, len(self._items)) - self._crowd) / CROWD_COMMITS
        elif self._backlog:
            self._retry()
        elif self.error is not None:
            self._probe()
        elif not worked:
            self._pen.pause()
        return False

    def _opened(self, entry: _Entry) -> bool:
        """Make an entry's records; a mistake in that is nobody else's trouble."""
        try:
            entry.records = listed(entry.given)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the ticket
            self._reject(entry, error)
            return False
        return True

    def _patience(self) -> float | None:
        """Seconds to wait for work: until the next retry, until a pause is worth a checkpoint, or for ever."""
        if self._backlog:
            return max(0.001, self._retry_at - time.monotonic())
        if self.error is not None:
            return RETRY_MAX_S
        return IDLE_S if self._pen.dirty else None

    def _write(self, group: list[_Entry]) -> None:
        """Commit a group; what cannot be written now joins the backlog."""
        if not group:
            return
        if self._backlog:
            self._backlog.extend(group)
            if time.monotonic() >= self._retry_at:
                self._retry()
            return
        self._backlog = group
        self._flush()

    def _retry(self) -> None:
        if time.monotonic() >= self._retry_at:
            self._flush()

    def _probe(self) -> None:
        """With nothing left to write: find out whether the store has recovered."""
        with suppress(sqlite.Error):
            self._pen.try_out()
            self._recovered()

    def _flush(self) -> None:
        """Write the backlog in transactions of bounded size, until done or failed."""
        while self._backlog:
            size = records = 0
            while size < len(self._backlog) and (size == 0 or records < GROUP_RECORDS):
                records += len(self._backlog[size].records)
                size += 1
            group = self._backlog[:size]
            try:
                written = self._commit(group)
            except Exception as error:  # noqa: BLE001 - whatever it is, the records are kept and it is reported
                self._failed(error)
                return
            del self._backlog[:size]
            self._recovered()
            tickets.complete([entry.ticket for entry in written], None)
            self._pen.tend()

    def _commit(self, group: list[_Entry]) -> Sequence[_Entry]:
        """Commit a group together, or, where one of them is unacceptable, each alone.

        Returns:
            The entries that are written and whose tickets are still to be completed.
        """
        try:
            if records := [record for entry in group for record in entry.records]:
                self._pen.post(records)
        except Exception as error:
            if not _is_records_fault(error):
                raise
            if len(group) > 1:
                self._commit_singly(group)
                return ()
            if not group[0].interrupted:
                self._reject(group[0], error)
                return ()
        return group

    def _commit_singly(self, group: list[_Entry]) -> None:
        """Write each entry in a transaction of its own; those that were done when one fails are not repeated."""
        for entry in list(group):
            written = self._commit([entry])
            tickets.complete([one.ticket for one in written], None)
            entry.records = ()

    def _reject(self, entry: _Entry, error: Exception) -> None:
        msg = f"a record was not accepted by the store: {error}"
        log.error("%s", msg)
        self._pen.count_rejected()
        rejected = RecordRejected(msg)
        rejected.__cause__ = error
        tickets.complete((entry.ticket,), rejected)

    def _do(self, job: _Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        try:
            result = self._pen.run(job.run, durable=job.durable)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            if isinstance(error, sqlite.Error) and not _is_records_fault(error):
                self._doubt(error)
                job.future.set_exception(self._unavailable(error))
            else:
                job.future.set_exception(error)
            return
        job.future.set_result(result)
        self._recovered()
        self._pen.tend()

    def _failed(self, error: Exception) -> None:
        """Keep the backlog, tell those who wait, and try again soon on a fresh connection."""
        self._doubt(error)
        self._retry_at = time.monotonic() + self._retry_after
        self._retry_after = min(self._retry_after * 2, RETRY_MAX_S)
        for entry in self._backlog:
            if entry.prompt and not entry.ticket.done:
                entry.records = [_refused(record) for record in entry.records]
        tickets.complete([entry.ticket for entry in self._backlog], self.error)

    def _doubt(self, error: Exception) -> None:
        unavailable = self._unavailable(error)
        if self.error is None:
            log.error("the recorder cannot write: %s", unavailable)
        self.error = unavailable
        self._pen.be_patient(False)
        self._pen.drop()

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        unavailable = StoreUnavailable(self.store.explain(error), retry_after=RETRY_MAX_S)
        unavailable.__cause__ = error
        return unavailable

    def _recovered(self) -> None:
        if self.error is None:
            return
        log.warning("the recorder writes again")
        self.error = None
        self._retry_after = RETRY_MIN_S
        self._pen.be_patient(True)


def _refused(record: Record) -> Record:
    """A request's row as its caller knows it once the ticket has failed: refused, whatever the model had said."""
    if not isinstance(record, RequestRecord) or record.outcome is RequestOutcome.CANCELLED:
        return record
    return replace(
        record,
        status_code=StoreUnavailable.status_code,
        outcome=RequestOutcome.ERROR,
        code=StoreUnavailable.code,
        failover_cause=None,
        failovers=(),
    )


def _is_records_fault(error: Exception) -> bool:
    """Whether an error is about what was written and not about the store it was written to."""
    if not isinstance(error, sqlite.Error):
        return not isinstance(error, (OSError, MemoryError))
    faults = (sqlite.IntegrityError, sqlite.ProgrammingError, sqlite.InterfaceError, sqlite.DataError)
    return isinstance(error, faults)
