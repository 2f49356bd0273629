"""The agreement in the shared store, for processes on one machine that share one database file.

Writes go through the recorder's one write connection, so a swap is one SQLite transaction; the document, the log of
all adopted documents (table `agreements`) and the epoch change together. Reads are short read-only snapshots.

Freshness of votes, members and leases is measured on this process's monotonic clock from when it saw the row change
(`beat` differs with every renewal). Only for a row seen for the first time is the wall clock asked how old it is, so
that a vote left over from before a restart does not count as new; a clock that steps later changes nothing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from time import monotonic, time_ns
from typing import Any, TypeVar

from engine.core.agreement import Document, Member, Vote
from engine.core.errors import StoreUnavailable
from engine.core.messages import Role
from engine.fleet.base import CoordinatorUnavailable
from engine.fleet.hints import Watcher
from engine.fleet.sightings import MEMORY, Roster
from engine.fleet.values import require_later, votes_from
from engine.recorder import Recorder
from engine.sqlite import Connection

T = TypeVar("T")

POLL = 0.2
"""Seconds between looks at the documents."""
OPERATION = 5.0
"""Seconds after which a write is given up."""
FORGET_MS = 24 * 3600 * 1000
"""Milliseconds after which rows of votes and members that nobody renews are deleted."""


def _wall_ms() -> int:
    return time_ns() // 1_000_000


class StoreCoordinator:
    """A `Coordinator` on the store that a recorder writes.

    Args:
        recorder: Writes the shared store; it stays open when the coordinator is closed.
        clock: Monotonic seconds.
        wall_ms: The wall clock, milliseconds UTC.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        clock: Callable[[], float] = monotonic,
        wall_ms: Callable[[], int] = _wall_ms,
    ) -> None:
        self._recorder = recorder
        self._store = recorder.store
        self._clock = clock
        self._wall_ms = wall_ms
        self._seen: dict[tuple[str, str], tuple[str, float]] = {}
        self._roster = Roster(clock)
        self._watcher = Watcher(str(self._store.path), self._epoch, POLL)
        self._mine: set[str] = set()
        self._leases: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"StoreCoordinator({str(self._store.path)!r})"

    def read(self, manager: str) -> Document | None:
        """See `Coordinator.read`."""
        self._watcher.watch(manager)
        row = self._one("SELECT document FROM fleet_state WHERE manager = ?", manager)
        return None if row is None else Document.from_json(row[0])

    def swap(self, manager: str, expected_epoch: int | None, document: Document) -> bool:
        """See `Coordinator.swap`."""
        require_later(expected_epoch, document)
        self._watcher.watch(manager)
        now_ms = self._wall_ms()
        swapped = self._write(lambda found: _swap(found, manager, expected_epoch, document, now_ms), durable=True)
        if swapped:
            self._watcher.wake()
        return swapped

    def subscribe(self, on_change: Callable[[str], None]) -> None:
        """See `Coordinator.subscribe`."""
        self._watcher.subscribe(on_change)

    def vote(self, manager: str, vote: Vote, ttl: float) -> None:
        """See `Coordinator.vote`."""
        row = (manager, vote.instance, vote.host, _beat(), round(ttl * 1000), self._wall_ms(), vote.to_json())
        self._mine.add(vote.instance)
        self._write(lambda found: found.execute("INSERT OR REPLACE INTO fleet_votes VALUES (?, ?, ?, ?, ?, ?, ?)", row))

    def votes(self, manager: str) -> list[Vote]:
        """See `Coordinator.votes`."""
        rows = self._all("SELECT instance, beat, ttl_ms, updated_ms, vote FROM fleet_votes WHERE manager = ?", manager)
        fresh = [
            vote
            for instance, beat, ttl_ms, updated_ms, vote in rows
            if self._age(f"vote:{manager}", instance, beat, updated_ms) < ttl_ms / 1000
        ]
        return votes_from(fresh)

    def register(self, member: Member, ttl: float) -> None:
        """See `Coordinator.register`."""
        now_ms = self._wall_ms()
        gauges = json.dumps(dict(member.gauges), separators=(",", ":"), default=str)
        row = (
            member.instance, member.host, member.version, member.started_ms, _beat(), round(ttl * 1000), now_ms, gauges,
        )  # fmt: skip

        def write(found: Connection) -> None:
            found.execute("INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            for table in ("instances", "fleet_votes"):
                found.execute(f"DELETE FROM {table} WHERE updated_ms < ?", (now_ms - FORGET_MS,))  # noqa: S608

        self._mine.add(member.instance)
        self._write(write)

    def members(self) -> list[Member]:
        """See `Coordinator.members`."""
        rows = self._all("SELECT instance, host, version, started_ms, beat, ttl_ms, updated_ms, gauges FROM instances")
        alive: dict[str, Member] = {}
        lost: dict[str, Member] = {}
        for instance, host, version, started_ms, beat, ttl_ms, updated_ms, gauges in rows:
            over = self._age("member", instance, beat, updated_ms) - ttl_ms / 1000
            if over < MEMORY:
                member = Member(instance, host, version, started_ms, over < 0, max(0.0, over), json.loads(gauges))
                (alive if member.alive else lost)[instance] = member
        return self._roster.observe(alive, lost, self._roster.names - alive.keys() - lost.keys())

    def lease(self, name: str, owner: str, ttl: float) -> bool:
        """See `Coordinator.lease`."""
        row = self._one("SELECT owner, beat, ttl_ms, updated_ms FROM leases WHERE name = ?", name)
        known = None if row is None else (str(row[0]), str(row[1]))
        if row is not None and row[0] != owner and self._age("lease", name, row[1], row[3]) < row[2] / 1000:
            return False
        fresh = (owner, _beat(), round(ttl * 1000), self._wall_ms())
        taken = self._write(lambda found: _take(found, name, known, fresh))
        if taken:
            self._leases[name] = owner
        return taken

    def close(self) -> None:
        """See `Coordinator.close`."""
        self._watcher.stop()
        mine, leases = list(self._mine), list(self._leases.items())
        self._mine.clear()
        self._leases.clear()

        def leave(found: Connection) -> None:
            for instance in mine:
                found.execute("DELETE FROM instances WHERE instance = ?", (instance,))
                found.execute("DELETE FROM fleet_votes WHERE instance = ?", (instance,))
            for name, owner in leases:
                found.execute("DELETE FROM leases WHERE name = ? AND owner = ?", (name, owner))

        if mine or leases:
            with suppress(CoordinatorUnavailable):
                self._write(leave)

    def _age(self, kind: str, name: str, beat: str, updated_ms: int) -> float:
        """Seconds since this observer saw a row change; of one it has not seen before, what the wall clock says."""
        now = self._clock()
        key = (kind, name)
        known = self._seen.get(key)
        if known is not None and known[0] == beat:
            return now - known[1]
        age = 0.0 if known is not None else max(0.0, (self._wall_ms() - updated_ms) / 1000)
        self._seen[key] = (beat, now - age)
        return age

    def _epoch(self, manager: str) -> object:
        row = self._one("SELECT epoch FROM fleet_state WHERE manager = ?", manager)
        return None if row is None else row[0]

    def _one(self, statement: str, *values: object) -> Any:
        rows = self._all(statement, *values)
        return rows[0] if rows else None

    def _all(self, statement: str, *values: object) -> list[Any]:
        try:
            with self._store.reader() as connection:
                return connection.execute(statement, values).fetchall()
        except StoreUnavailable as error:
            raise CoordinatorUnavailable(error.message) from error

    def _write(self, job: Callable[[Connection], T], *, durable: bool = False) -> T:
        try:
            future: Future[T] = self._recorder.execute(job, durable=durable)
            return future.result(OPERATION)
        except StoreUnavailable as error:
            raise CoordinatorUnavailable(error.message) from error
        except FutureTimeout as error:
            future.cancel()
            msg = f"{self._store.path} did not take a write within {OPERATION:.0f} s: look at the disk's load"
            raise CoordinatorUnavailable(msg) from error


def _beat() -> str:
    return secrets.token_hex(8)


def _swap(connection: Connection, manager: str, expected_epoch: int | None, document: Document, now_ms: int) -> bool:
    """Replace the document if it is of the expected epoch, and log it as adopted."""
    row = connection.execute("SELECT epoch, document FROM fleet_state WHERE manager = ?", (manager,)).fetchone()
    if (None if row is None else row[0]) != expected_epoch:
        return False
    before = None if row is None else Document.from_json(row[1])
    text = document.to_json()
    connection.execute(
        "INSERT OR REPLACE INTO fleet_state (manager, epoch, updated_ms, document) VALUES (?, ?, ?, ?)",
        (manager, document.epoch, now_ms, text),
    )
    connection.execute(
        """
        INSERT INTO agreements (manager, epoch, ts_ms, instance, active, share, stage, cause, ramp_aborted, document)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (manager, epoch) DO NOTHING
        """,
        (
            manager, document.epoch, now_ms, document.writer.partition("/")[0], document.active, document.share,
            document.stage, document.cause, int(_aborts_ramp(before, document)), text,
        ),
    )  # fmt: skip
    return True


def _aborts_ramp(before: Document | None, after: Document) -> bool:
    """Whether traffic on its way back to primary was taken off it, other than by an operator."""
    return (
        before is not None
        and before.stage is not None
        and after.stage is None
        and after.active is Role.SECONDARY
        and after.override is None
    )


def _take(connection: Connection, name: str, known: tuple[str, str] | None, fresh: tuple[str, str, int, int]) -> bool:
    """Take a lease if it still is what was seen."""
    if known is None:
        done = connection.execute(
            "INSERT INTO leases (owner, beat, ttl_ms, updated_ms, name) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*fresh, name),
        )
    else:
        done = connection.execute(
            "UPDATE leases SET owner = ?, beat = ?, ttl_ms = ?, updated_ms = ?"
            " WHERE name = ? AND owner = ? AND beat = ?",
            (*fresh, name, *known),
        )
    return done.rowcount == 1
