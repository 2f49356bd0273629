"""The agreement in etcd: strictly serialisable, so what a swap says is so.

A document is swapped by a transaction that compares its key's modification revision. A transaction without an
answer is unknown, not failed: the key is read again, and the document's writer tells whether it was ours. Votes,
members and the evaluator's place hang on leases; etcd's locks are not used, because a lease may end while its
holder believes in it (Jepsen on 3.4.3). The watch is a hint: whenever it ends, the keys are read anew.

A member has two keys: one on its lease, and one in the roster on a lease of an hour, by which others see that it
is lost and for how long.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread
from typing import Final
from urllib.parse import unquote, urlsplit

from engine.core.agreement import Document, DocumentError, Member, Vote
from engine.fleet.base import CoordinatorUnavailable
from engine.fleet.etcd_client import EtcdClient, LeaseGone, Watch
from engine.fleet.hints import Watcher
from engine.fleet.sightings import MEMORY, Roster
from engine.fleet.tls import NOTHING_SAID, Tls
from engine.fleet.values import document_from, is_ours, member_from, member_text, require_later, votes_from

logger = logging.getLogger(__name__)

POLL: Final = 2.0
"""Seconds between looks while the watch says nothing."""
SILENCE: Final = 10.0
"""Seconds of a silent watch after which it is begun anew, in case its connection is dead."""
PORT: Final = 2379


class EtcdCoordinator:
    """A `Coordinator` on an etcd cluster; building it touches no network.

    Args:
        url: `etcd://[user:password@]host[:port][,host2[:port]…][/prefix]`, or `etcds://` for TLS.
        instance: This instance's name.
        tls: The certificates, for `etcds://`.
    """

    def __init__(self, url: str, *, instance: str, tls: Tls = NOTHING_SAID) -> None:
        parts = urlsplit(url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        scheme = "https" if parts.scheme == "etcds" else "http"
        endpoints = [f"{scheme}://{host if _has_port(host) else f'{host}:{PORT}'}" for host in hosts.split(",") if host]
        self._place = f"{parts.scheme}://{hosts}"
        self._instance = instance
        self._root = f"/{parts.path.strip('/') or 'switchgear'}"
        context = tls.context() if scheme == "https" else None
        self._etcd = EtcdClient(endpoints, user=unquote(user), password=unquote(password), context=context)
        self._roster = Roster()
        self._watcher = Watcher(self._place, self._mark, POLL)
        self._lock = Lock()
        self._granted: dict[str, tuple[float, int]] = {}
        self._listener: Thread | None = None
        self._watch: Watch | None = None

    def __repr__(self) -> str:
        return f"EtcdCoordinator({self._place!r})"

    # -- the document ------------------------------------------------------------------------------------------

    def read(self, manager: str) -> Document | None:
        """See `Coordinator.read`."""
        return self._read(manager)[0]

    def swap(self, manager: str, expected_epoch: int | None, document: Document) -> bool:
        """See `Coordinator.swap`. A refusal is looked up too: an earlier try may have got through unanswered."""
        require_later(expected_epoch, document)
        stored, revision = self._read(manager)
        if (stored.epoch if stored else None) != expected_epoch:
            return False
        with suppress(CoordinatorUnavailable):
            if self._etcd.put_if(self._key("documents", manager), revision, document.to_json()):
                return True
        return is_ours(self.read(manager), document)

    def subscribe(self, on_change: Callable[[str], None]) -> None:
        """See `Coordinator.subscribe`."""
        self._watcher.subscribe(on_change)
        if self._listener is None:
            self._listener = Thread(target=self._listen, name="switchgear-etcd-watch", daemon=True)
            self._listener.start()

    def _read(self, manager: str) -> tuple[Document | None, int]:
        self._watcher.watch(manager)
        key = self._key("documents", manager)
        found = self._etcd.get(key)
        if found is None:
            return None, 0
        try:
            return document_from(found.value), found.mod_revision
        except DocumentError as error:
            msg = f"{self._place}, key {key}: {error}; the last agreement is kept until the key is deleted"
            raise DocumentError(msg) from error

    def _mark(self, manager: str) -> object:
        found = self._etcd.get(self._key("documents", manager))
        return found and found.mod_revision

    def _listen(self) -> None:
        """Wake the watcher on every message; the first one says that the watch is on, so nothing falls between."""
        while not self._watcher.stopping:
            try:
                self._watch = watch = self._etcd.watch(self._key("documents", ""), silence=SILENCE)
            except CoordinatorUnavailable:
                self._watcher.pause(POLL)
                continue
            for _ in watch:
                self._watcher.wake()
            watch.release()
            self._watcher.pause(0.05)

    # -- who says what, who is there -----------------------------------------------------------------------------

    def vote(self, manager: str, vote: Vote, ttl: float) -> None:
        """See `Coordinator.vote`."""
        self._put_leased(self._key("votes", manager, vote.instance), vote.to_json(), ttl)

    def votes(self, manager: str) -> list[Vote]:
        """See `Coordinator.votes`."""
        return votes_from(found.value for found in self._etcd.prefix(self._key("votes", manager, "")))

    def register(self, member: Member, ttl: float) -> None:
        """See `Coordinator.register`."""
        text = member_text(member)
        self._put_leased(self._key("roster", member.instance), json.dumps({"ttl": ttl, "member": text}), MEMORY)
        self._put_leased(self._key("members", member.instance), text, ttl)

    def members(self) -> list[Member]:
        """See `Coordinator.members`."""
        alive: dict[str, Member] = {}
        for found in self._etcd.prefix(self._key("members", "")):
            member = member_from(found.value)
            if member is not None:
                alive[member.instance] = member
        lost: dict[str, Member] = {}
        listed = self._etcd.prefix(self._key("roster", ""))
        for found in listed:
            name = unquote(found.key.rpartition("/")[2])
            if name not in alive and not self._roster.knows_lost(name):
                member = self._lost(found.value, found.lease)
                if member is not None:
                    lost[name] = member
        known = {unquote(found.key.rpartition("/")[2]) for found in listed} | alive.keys()
        return self._roster.observe(alive, lost, self._roster.names - known)

    def _lost(self, value: bytes, lease: int) -> Member | None:
        """A member without its lease, and how long ago that ended by etcd's own clock."""
        try:
            body = json.loads(value)
            ttl, text = float(body["ttl"]), body["member"]
        except (ValueError, TypeError, KeyError):
            return None
        left, granted = self._etcd.remaining(lease)
        return member_from(text, lost_for=max(0.0, granted - left - ttl))

    def lease(self, name: str, owner: str, ttl: float) -> bool:
        """See `Coordinator.lease`."""
        key = self._key("leases", name)
        held = self._etcd.get(key)
        if held is not None:
            return held.value.decode(errors="replace") == owner and self._etcd.keep_alive(held.lease)
        granted = self._etcd.grant(ttl)
        if self._etcd.put_if(key, 0, owner, lease=granted):
            self._granted[key] = (ttl, granted)
            return True
        self._etcd.revoke(granted)
        return False

    def _put_leased(self, key: str, value: str, ttl: float) -> None:
        """Set a key on a lease of its own, renewed with every call and granted anew where it has ended."""
        with self._lock:
            known_ttl, lease = self._granted.get(key, (0.0, 0))
            if known_ttl != ttl or not self._etcd.keep_alive(lease):
                lease = self._grant(key, ttl)
            try:
                self._etcd.put(key, value, lease=lease)
            except LeaseGone:
                self._etcd.put(key, value, lease=self._grant(key, ttl))

    def _grant(self, key: str, ttl: float) -> int:
        lease = self._etcd.grant(ttl)
        self._granted[key] = (ttl, lease)
        return lease

    # -- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """See `Coordinator.close`."""
        self._watcher.stop()
        if self._watch is not None:
            self._watch.close()
        try:
            for _, lease in self._granted.values():
                with suppress(LeaseGone):
                    self._etcd.revoke(lease)
        except CoordinatorUnavailable as error:
            logger.info("left the fleet without saying so: %s", error)
        self._etcd.close()

    def _key(self, *names: str) -> str:
        return "/".join((self._root, *(_quoted(name) for name in names)))


def _quoted(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")


def _has_port(host: str) -> bool:
    return host.rpartition("]")[2].rpartition(":")[2].isdigit() and ":" in host.rpartition("]")[2]
