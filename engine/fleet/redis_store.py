"""The agreement in Redis. Best effort by nature: Redis may forget a write that it acknowledged.

What holds it together: a swap is one Lua script on the server; every document carries its epoch, and instances
refuse one that goes backwards and write the later one again. Publishing is a hint only, because Redis drops
messages while a subscriber reconnects; the watcher also looks every second. Leases of votes and members are judged
by the server's own clock alone.

All keys share one hash tag, so a Redis cluster keeps them in one slot, where scripts need them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,  # noqa: A004  the library's own name
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004
)
from redis.retry import Retry

from engine.core.agreement import DOCUMENT_VERSION, Document, DocumentError, Member, Vote
from engine.fleet.base import CoordinatorUnavailable
from engine.fleet.hints import Watcher
from engine.fleet.sightings import MEMORY, Roster
from engine.fleet.tls import NOTHING_SAID, Tls, remedy
from engine.fleet.values import document_from, is_ours, member_from, member_text, require_later, votes_from

logger = logging.getLogger(__name__)

CONNECT: Final = 2.0
"""Seconds to reach the server."""
OPERATION: Final = 2.0
"""Seconds for one answer."""
POLL: Final = 1.0
"""Seconds between looks while no message comes."""
LISTEN: Final = 0.2
"""Seconds until the subscriber notices that it is to end."""

_SWAP = """
local stored = redis.call('GET', KEYS[1])
if stored then
  local read, body = pcall(cjson.decode, stored)
  if not read or type(body) ~= 'table' or type(body.epoch) ~= 'number'
    or type(body.v) ~= 'number' or body.v > tonumber(ARGV[4]) then
    return redis.error_reply('GARBAGE')
  end
  if tostring(body.epoch) ~= ARGV[1] then return 0 end
elseif ARGV[1] ~= '' then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('PUBLISH', KEYS[2], ARGV[3])
return 1
"""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: values by name, ends of leases by name. ARGV: name, value, ttl ms, memory ms.
_RENEW = (
    _NOW
    + """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3] + ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[3] + ARGV[4])
"""
)

# Names, values and milliseconds since the lease ended (negative: fresh), without those over for longer than ARGV[1].
_FRESH = (
    _NOW
    + """
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[1])
if #old > 0 then
  redis.call('ZREM', KEYS[2], unpack(old))
  redis.call('HDEL', KEYS[1], unpack(old))
end
local found = {}
local ends = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for i = 1, #ends, 2 do
  local value = redis.call('HGET', KEYS[1], ends[i])
  if value then
    found[#found + 1] = ends[i]
    found[#found + 1] = value
    found[#found + 1] = now - ends[i + 1]
  end
end
return found
"""
)

_LEASE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class RedisCoordinator:
    """A `Coordinator` on one Redis server; building it touches no network.

    Args:
        url: `redis://[user:password@]host[:port][/db][?prefix=name]`, or `rediss://` for TLS.
        instance: This instance's name.
        tls: The certificates, for `rediss://`.
    """

    def __init__(self, url: str, *, instance: str, tls: Tls = NOTHING_SAID) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        prefix = query.pop("prefix", "switchgear")
        self._place = f"{parts.scheme}://{parts.hostname or 'localhost'}:{parts.port or 6379}{parts.path}"
        self._instance = instance
        self._tag = f"{{{prefix}}}"
        self._redis = redis.Redis.from_url(
            parts._replace(query=urlencode(query)).geturl(),
            socket_connect_timeout=CONNECT,
            socket_timeout=OPERATION,
            retry=Retry(NoBackoff(), 0),
            client_name="switchgear",
            **(_secure(tls) if parts.scheme == "rediss" else {}),
        )
        self._swap_script = self._redis.register_script(_SWAP)
        self._renew_script = self._redis.register_script(_RENEW)
        self._fresh_script = self._redis.register_script(_FRESH)
        self._lease_script = self._redis.register_script(_LEASE)
        self._release_script = self._redis.register_script(_RELEASE)
        self._roster = Roster()
        self._watcher = Watcher(self._place, self._mark, POLL)
        self._listener: Thread | None = None
        self._voted: set[str] = set()
        self._leases: dict[str, str] = {}
        self._registered = False

    def __repr__(self) -> str:
        return f"RedisCoordinator({self._place!r})"

    # -- the document ------------------------------------------------------------------------------------------

    def read(self, manager: str) -> Document | None:
        """See `Coordinator.read`."""
        self._watcher.watch(manager)
        try:
            return document_from(self._raw(manager))
        except DocumentError as error:
            raise self._not_ours(manager, error) from error

    def swap(self, manager: str, expected_epoch: int | None, document: Document) -> bool:
        """See `Coordinator.swap`. An answer that got lost is looked up: the document names its writer."""
        require_later(expected_epoch, document)
        self._watcher.watch(manager)
        expected = "" if expected_epoch is None else str(expected_epoch)
        keys = [self._key("document", manager), self._key("changes")]
        args: list[str | int] = [expected, document.to_json(), manager, DOCUMENT_VERSION]
        try:
            with self._errors():
                return bool(self._swap_script(keys=keys, args=args))
        except CoordinatorUnavailable:
            return is_ours(self.read(manager), document)
        except DocumentError as error:
            raise self._not_ours(manager, error) from error

    def subscribe(self, on_change: Callable[[str], None]) -> None:
        """See `Coordinator.subscribe`."""
        self._watcher.subscribe(on_change)
        if self._listener is None:
            self._listener = Thread(target=self._listen, name="switchgear-redis-hints", daemon=True)
            self._listener.start()

    def _raw(self, manager: str) -> bytes | None:
        with self._errors():
            return _one(self._again(lambda: self._redis.get(self._key("document", manager))))

    def _not_ours(self, manager: str, error: DocumentError) -> DocumentError:
        key = self._key("document", manager)
        return DocumentError(f"{self._place}, key {key}: {error}; the last agreement is kept until the key is deleted")

    def _mark(self, manager: str) -> object:
        try:
            return self._raw(manager)
        except DocumentError as error:
            return str(error)

    def _listen(self) -> None:
        """Wake the watcher on every message, and after every reconnect, since messages were lost meanwhile."""
        while not self._watcher.stopping:
            try:
                with self._redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(self._key("changes"))
                    self._watcher.wake()
                    while not self._watcher.stopping:
                        if channel.get_message(timeout=LISTEN) is not None:
                            self._watcher.wake()
            except (RedisError, OSError):
                self._watcher.pause(POLL)

    # -- who says what, who is there -----------------------------------------------------------------------------

    def vote(self, manager: str, vote: Vote, ttl: float) -> None:
        """See `Coordinator.vote`."""
        self._voted.add(manager)
        self._renew(f"votes:{manager}", vote.instance, vote.to_json(), ttl, memory=ttl)

    def votes(self, manager: str) -> list[Vote]:
        """See `Coordinator.votes`."""
        fresh = [value for _, value, over in self._fresh(f"votes:{manager}", memory=0.0) if over < 0]
        return votes_from(fresh)

    def register(self, member: Member, ttl: float) -> None:
        """See `Coordinator.register`."""
        self._registered = True
        self._renew("members", member.instance, member_text(member), ttl, memory=MEMORY)

    def members(self) -> list[Member]:
        """See `Coordinator.members`; members remembered here stay, even when Redis lost its data."""
        alive: dict[str, Member] = {}
        lost: dict[str, Member] = {}
        left: list[str] = []
        for name, value, over in self._fresh("members", memory=MEMORY):
            if not value:
                left.append(name)
                continue
            member = member_from(value, lost_for=max(0.0, over))
            if member is not None:
                (alive if over < 0 else lost)[name] = member
        return self._roster.observe(alive, lost, left)

    def lease(self, name: str, owner: str, ttl: float) -> bool:
        """See `Coordinator.lease`."""
        with self._errors():
            taken = bool(self._lease_script(keys=[self._key("lease", name)], args=[owner, _ms(ttl)]))
        if taken:
            self._leases[name] = owner
        return taken

    def _renew(self, group: str, name: str, value: str, ttl: float, *, memory: float) -> None:
        keys = [self._key(group), self._key(group, "until")]
        with self._errors():
            self._again(lambda: self._renew_script(keys=keys, args=[name, value, _ms(ttl), _ms(memory)]))

    def _fresh(self, group: str, *, memory: float) -> Iterator[tuple[str, str, float]]:
        keys = [self._key(group), self._key(group, "until")]
        with self._errors():
            found = self._again(lambda: self._fresh_script(keys=keys, args=[_ms(memory)]))
        for at in range(0, len(found), 3):
            yield found[at].decode(), found[at + 1].decode(errors="replace"), int(found[at + 2]) / 1000

    # -- the end, and trouble ------------------------------------------------------------------------------------

    def close(self) -> None:
        """See `Coordinator.close`."""
        self._watcher.stop()
        if self._listener is not None:
            self._listener.join(OPERATION)
        try:
            for manager in self._voted:
                self._renew(f"votes:{manager}", self._instance, "", 0.0, memory=1.0)
            if self._registered:
                self._renew("members", self._instance, "", 0.0, memory=MEMORY)
            for name, owner in self._leases.items():
                with self._errors():
                    self._release_script(keys=[self._key("lease", name)], args=[owner])
        except CoordinatorUnavailable as error:
            logger.info("left the fleet without saying so: %s", error)
        self._redis.close()

    def _key(self, *names: str) -> str:
        return ":".join((self._tag, *names))

    @staticmethod
    def _again(call: Any) -> Any:
        """Repeat a harmless call once when its connection turned out to be dead, as after a server's restart."""
        try:
            return call()
        except TimeoutError:
            raise
        except ConnectionError as error:
            if isinstance(error, AuthenticationError | AuthorizationError):
                raise
            return call()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate the library's errors; the only place that does. None of them shows the URL's password."""
        try:
            yield
        except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
            msg = f"{self._place} refused our credentials ({_brief(error)}): check the user and password in the URL"
            raise CoordinatorUnavailable(msg) from None
        except TimeoutError:
            msg = f"{self._place} does not answer within {OPERATION:g} s: check the address, the network and the server"
            raise CoordinatorUnavailable(msg) from None
        except ReadOnlyError:
            msg = f"{self._place} is a read-only replica: name the master in fleet.url"
            raise CoordinatorUnavailable(msg) from None
        except ResponseError as error:
            if "GARBAGE" in str(error) or "WRONGTYPE" in str(error):
                msg = "not an agreement document"
                raise DocumentError(msg) from None
            msg = f"{self._place} refused an operation: {_brief(error)}"
            raise CoordinatorUnavailable(msg) from None
        except (RedisError, OSError) as error:
            if self._place.startswith("rediss:") and (told := remedy(error)):
                msg = f"{self._place}: {told}"
                raise CoordinatorUnavailable(msg) from None
            msg = f"{self._place} cannot be reached ({_brief(error)}): check fleet.url and that the server runs"
            raise CoordinatorUnavailable(msg) from None


def _secure(tls: Tls) -> dict[str, Any]:
    """The library makes a context of its own for each connection; ours only finds out whether the files are good."""
    tls.context()
    return {
        "ssl_ca_certs": tls.ca and str(tls.ca),
        "ssl_certfile": tls.cert and str(tls.cert),
        "ssl_keyfile": (tls.key or tls.cert) and str(tls.key or tls.cert),
    }


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _one(answer: Any) -> bytes | None:
    return answer if isinstance(answer, bytes) else None
