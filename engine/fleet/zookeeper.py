"""The agreement in ZooKeeper, by kazoo: a document is a node that is set only at the version that was read.

Votes and members are ephemeral nodes, so they go with their session. A session also lives while its process hangs,
therefore a vote, a member or a lease counts only while its node keeps changing: each observer measures that on its
own clock. When a session is lost its nodes are made again by the next one. ZooKeeper answers reads from any server,
which may lag: `sync` comes before every read that a decision rests on. While the connection is suspended nothing is
queued, calls fail at once; a write that got no answer is looked up by the document's writer.

kazoo's handlers run on its own event thread, so here they only set flags.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    ConnectionClosedError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
)
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.security import make_digest_acl

from engine.core.agreement import Document, DocumentError, Member, Vote
from engine.fleet.base import CoordinatorUnavailable
from engine.fleet.hints import Watcher
from engine.fleet.sightings import Roster, Sightings
from engine.fleet.tls import BROKEN_OFF, NOTHING_SAID, Tls, remedy
from engine.fleet.values import document_from, is_ours, member_from, member_text, require_later, votes_from

logger = logging.getLogger(__name__)

CONNECT: Final = 2.0
"""Seconds to reach a server."""
OPERATION: Final = 2.0
"""Seconds for one answer."""
POLL: Final = 2.0
"""Seconds between looks while no watch fires."""
SESSION: Final = 10.0
"""Seconds without a sign of life after which the servers end a session."""
PORT: Final = 2181


class ZooKeeperCoordinator:
    """A `Coordinator` on a ZooKeeper ensemble; building it touches no network.

    Args:
        url: `zookeeper://[user:password@]host[:port][,host2[:port]…][/path]`; credentials are of the digest scheme,
            and nodes are then closed to everybody else. `zookeepers://` for TLS.
        instance: This instance's name.
        tls: The certificates, for `zookeepers://`.
        session: Seconds a session outlives its connection, within the servers' limits.
    """

    def __init__(self, url: str, *, instance: str, tls: Tls = NOTHING_SAID, session: float = SESSION) -> None:
        parts = urlsplit(url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        user, password = (unquote(part) for part in [*credentials.split(":", 1), ""][:2])
        self._place = f"{parts.scheme}://{hosts}"
        self._instance = instance
        self._root = f"/{parts.path.strip('/') or 'switchgear'}"
        self._handler = _Handler(tls.context() if parts.scheme == "zookeepers" else None)
        self._client = KazooClient(
            handler=self._handler,
            hosts=",".join(host if ":" in host.rpartition("]")[2] else f"{host}:{PORT}" for host in hosts.split(",")),
            timeout=session,
            auth_data=[("digest", f"{user}:{password}")] if user else None,
            default_acl=[make_digest_acl(user, password, all=True)] if user else None,
            connection_retry={"max_tries": -1, "delay": 0.1, "max_delay": 2.0},
            logger=_quiet(),
        )
        self._client.add_listener(self._state_changed)
        self._lock = Lock()
        self._begun_at: float | None = None
        self._closed = False
        self._connected = Event()
        self._session_lost = Event()
        self._mine: dict[str, tuple[bytes, bool]] = {}
        self._beats = 0
        self._sightings = Sightings()
        self._roster = Roster()
        self._watcher = Watcher(self._place, self._mark, POLL)

    def __repr__(self) -> str:
        return f"ZooKeeperCoordinator({self._place!r})"

    # -- the document ------------------------------------------------------------------------------------------

    def read(self, manager: str) -> Document | None:
        """See `Coordinator.read`."""
        return self._read(manager)[0]

    def swap(self, manager: str, expected_epoch: int | None, document: Document) -> bool:
        """See `Coordinator.swap`. A write that got no answer is looked up."""
        require_later(expected_epoch, document)
        stored, version = self._read(manager)
        if (stored.epoch if stored else None) != expected_epoch:
            return False
        path, value = self._path("documents", manager), document.to_json().encode()
        try:
            if version is None:
                self._create(path, value)
            else:
                self._do("set", path, value, version=version)
        except (BadVersionError, NodeExistsError, NoNodeError):
            return False
        except CoordinatorUnavailable:
            return is_ours(self.read(manager), document)
        return True

    def subscribe(self, on_change: Callable[[str], None]) -> None:
        """See `Coordinator.subscribe`."""
        self._watcher.subscribe(on_change)

    def _read(self, manager: str) -> tuple[Document | None, int | None]:
        self._watcher.watch(manager)
        path = self._path("documents", manager)
        self._do("sync", path)
        found = self._get(path)
        if found is None:
            return None, None
        try:
            return document_from(found[0]), found[1].version
        except DocumentError as error:
            msg = f"{self._place}, node {path}: {error}; the last agreement is kept until the node is deleted"
            raise DocumentError(msg) from error

    def _mark(self, manager: str) -> object:
        """What changes with the document; arms a watch, which fires once, for the next change."""
        self._restore()
        stat = self._do("exists", self._path("documents", manager), watch=self._changed)
        return stat and stat.mzxid

    def _changed(self, _event: object) -> None:
        self._watcher.wake()

    # -- who says what, who is there -----------------------------------------------------------------------------

    def vote(self, manager: str, vote: Vote, ttl: float) -> None:
        """See `Coordinator.vote`."""
        self._beat(self._path("votes", manager, vote.instance), ttl, vote.to_json())

    def votes(self, manager: str) -> list[Vote]:
        """See `Coordinator.votes`."""
        return votes_from(self._fresh(self._path("votes", manager)).values())

    def register(self, member: Member, ttl: float) -> None:
        """See `Coordinator.register`."""
        text = member_text(member)
        roster = self._path("roster", member.instance)
        if roster not in self._mine:
            self._put(roster, text.encode(), ephemeral=False)
        self._beat(self._path("members", member.instance), ttl, text)

    def members(self) -> list[Member]:
        """See `Coordinator.members`; whoever sees a member lost for more than an hour strikes it off the roster."""
        alive: dict[str, Member] = {}
        for name, text in self._fresh(self._path("members")).items():
            member = member_from(text)
            if member is not None:
                alive[name] = member
        listed = self._children(self._path("roster"))
        unknown = [name for name in listed if name not in alive and name not in self._roster.names]
        lost: dict[str, Member] = {}
        for name, (value, _) in self._get_all("roster", unknown).items():
            member = member_from(value)
            if member is not None:
                lost[name] = member
        members = self._roster.observe(alive, lost, self._roster.names - set(listed) - alive.keys())
        for name in set(listed) - {member.instance for member in members} - set(unknown):
            self._delete(self._path("roster", name))
        return members

    def lease(self, name: str, owner: str, ttl: float) -> bool:
        """See `Coordinator.lease`; an owner that stopped renewing is followed by whoever saw that for its time."""
        path = self._path("leases", name)
        self._do("sync", path)
        found = self._get(path)
        value = self._beaten(ttl, owner)
        try:
            if found is None:
                self._create(path, value, ephemeral=True)
                return True
            held_ttl, holder = _opened(found[0])
            mine = found[1].ephemeralOwner == self._session_id()
            if holder != owner and self._sightings.age(path, found[1].mzxid) < held_ttl:
                return False
            if mine:
                self._do("set", path, value, version=found[1].version)
            else:
                self._do("delete", path, version=found[1].version)
                self._create(path, value, ephemeral=True)
        except (BadVersionError, NodeExistsError, NoNodeError):
            return False
        return True

    def _beat(self, path: str, ttl: float, text: str) -> None:
        """Renew an ephemeral node; every renewal changes it, which is what observers measure."""
        self._restore()
        self._put(path, self._beaten(ttl, text), ephemeral=True)

    def _beaten(self, ttl: float, text: str) -> bytes:
        with self._lock:
            self._beats += 1
            return json.dumps({"ttl": ttl, "beat": self._beats, "value": text}).encode()

    def _fresh(self, path: str) -> dict[str, str]:
        """The values below a node that changed within their own time, by name."""
        self._do("sync", path)
        names = self._children(path)
        fresh: dict[str, str] = {}
        for name, (value, stat) in self._get_all(path.removeprefix(f"{self._root}/"), names).items():
            ttl, text = _opened(value)
            if self._sightings.age((path, name), (stat.czxid, stat.mzxid)) < ttl:
                fresh[name] = text
        return fresh

    # -- nodes -------------------------------------------------------------------------------------------------

    def _put(self, path: str, value: bytes, *, ephemeral: bool) -> None:
        """Set a node of ours, or create it; an ephemeral one that an earlier session left is replaced."""
        self._mine[path] = (value, ephemeral)
        found = self._get(path)
        with suppress(NoNodeError):
            if found is not None and ephemeral and found[1].ephemeralOwner != self._session_id():
                self._do("delete", path)
            elif found is not None:
                self._do("set", path, value)
                return
        with suppress(NodeExistsError):
            self._create(path, value, ephemeral=ephemeral)

    def _restore(self) -> None:
        """Make our nodes again after their session was lost."""
        if not self._session_lost.is_set() or not self._connected.is_set():
            return
        self._session_lost.clear()
        try:
            for path, (value, ephemeral) in list(self._mine.items()):
                self._put(path, value, ephemeral=ephemeral)
        except CoordinatorUnavailable:
            self._session_lost.set()
            raise

    def _create(self, path: str, value: bytes, *, ephemeral: bool = False) -> None:
        self._do("create", path, value, ephemeral=ephemeral, makepath=True)

    def _get(self, path: str) -> tuple[bytes, Any] | None:
        try:
            value, stat = self._do("get", path)
        except NoNodeError:
            return None
        return value, stat

    def _get_all(self, group: str, names: list[str]) -> dict[str, tuple[bytes, Any]]:
        """Several nodes at once: all are asked for before the first answer is waited for."""
        with self._errors():
            client = self._ready()
            deadline = monotonic() + OPERATION
            asked = {name: client.get_async(f"{self._root}/{group}/{quote(name, safe='')}") for name in names}
            found: dict[str, tuple[bytes, Any]] = {}
            for name, answer in asked.items():
                with suppress(NoNodeError):
                    found[name] = answer.get(timeout=max(0.0, deadline - monotonic()))
            return found

    def _children(self, path: str) -> list[str]:
        try:
            return sorted(unquote(name) for name in self._do("get_children", path))
        except NoNodeError:
            return []

    def _delete(self, path: str) -> None:
        with suppress(NoNodeError):
            self._do("delete", path)

    def _path(self, *names: str) -> str:
        return "/".join((self._root, *(quote(name, safe="") for name in names)))

    # -- the session, and trouble --------------------------------------------------------------------------------

    def _state_changed(self, state: str) -> None:
        """On kazoo's event thread: set flags, nothing else."""
        if state == KazooState.CONNECTED:
            self._connected.set()
            self._watcher.wake()
            return
        self._connected.clear()
        if state == KazooState.LOST:
            self._session_lost.set()

    def _session_id(self) -> int | None:
        identity = self._client.client_id
        return identity[0] if identity else None

    def _ready(self) -> Any:
        """The client, connected; the first call begins to connect, later ones never wait for a lost connection."""
        with self._lock:
            if self._closed:
                msg = f"{self._place} is closed here"
                raise CoordinatorUnavailable(msg)
            if self._begun_at is None:
                self._begun_at = monotonic()
                self._client.start_async()
            patience = max(0.0, self._begun_at + CONNECT - monotonic())
        if not self._connected.wait(patience):
            if told := self._handler.remedy():
                msg = f"{self._place}: {told}"
                raise CoordinatorUnavailable(msg)
            msg = f"{self._place} cannot be reached: check fleet.url and that ZooKeeper runs with a quorum"
            raise CoordinatorUnavailable(msg)
        return self._client

    def _do(self, verb: str, path: str, *args: Any, **options: Any) -> Any:
        """One operation, bounded in time. Raises kazoo's errors about nodes, and `CoordinatorUnavailable`."""
        with self._errors():
            return getattr(self._ready(), f"{verb}_async")(path, *args, **options).get(timeout=OPERATION)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate the library's errors; the only place that does."""
        try:
            yield
        except (BadVersionError, NodeExistsError, NoNodeError):
            raise
        except (NoAuthError, AuthFailedError) as error:
            msg = f"{self._place} refused our credentials for {self._root}: check the user and password in the URL"
            raise CoordinatorUnavailable(msg) from error
        except KazooTimeoutError as error:
            msg = f"{self._place} does not answer within {OPERATION:g} s: check the network and the servers"
            raise CoordinatorUnavailable(msg) from error
        except (KazooException, ConnectionClosedError, OSError) as error:
            msg = f"{self._place} lost the connection ({type(error).__name__}): check that ZooKeeper runs with a quorum"
            raise CoordinatorUnavailable(msg) from error

    def close(self) -> None:
        """See `Coordinator.close`."""
        self._watcher.stop()
        try:
            if self._connected.is_set():
                for path in self._mine:
                    self._delete(path)
        except CoordinatorUnavailable as error:
            logger.info("left the fleet without saying so: %s", error)
        with self._lock:
            self._closed = True
        ending = Thread(target=self._end, name="switchgear-zookeeper-close", daemon=True)
        ending.start()
        ending.join(OPERATION)

    def _end(self) -> None:
        """Stop kazoo, which waits for a connection in the making for as long as a session."""
        if self._begun_at is not None:
            self._client.stop()
        self._client.close()


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """kazoo's threads, with TLS of ours: kazoo leaves the socket of a failed handshake open and only logs why.

    Attributes:
        context: What TLS is spoken with; `None`: it is not.
        made: Whether the last connection could be made.
        trouble: Why it could not; `None` also where none was tried, as of a name that leads nowhere.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self.context = context
        self.made = False
        self.trouble: OSError | None = None

    def create_connection(self, *args: Any, **options: Any) -> Any:
        """Connect, as kazoo asks."""
        try:
            made = super().create_connection(*args, **options)
            if self.context is not None:
                made = self.context.wrap_socket(made, server_hostname=options["hostname"])
        except OSError as error:
            self.made, self.trouble = False, error
            raise
        self.made, self.trouble = True, None
        return made

    def remedy(self) -> str:
        """What to change about TLS when there is no session; empty when that is not to blame."""
        if self.context is None:
            return ""
        return BROKEN_OFF if self.made else remedy(self.trouble)


def _opened(value: bytes) -> tuple[float, str]:
    """A renewed value's time and text; nothing of ours counts as over."""
    try:
        body: Mapping[str, Any] = json.loads(value)
        return float(body["ttl"]), str(body["value"])
    except (ValueError, TypeError, KeyError):
        return 0.0, ""


def _quiet() -> logging.Logger:
    """Silence kazoo, which logs every reconnect and, at debug level, all it sends; the agent says what matters."""
    log = logging.getLogger("engine.fleet.zookeeper.kazoo")
    log.setLevel(logging.CRITICAL)
    return log
