"""A small client of etcd v3 over its JSON gateway: ranges, transactions, leases and one watch.

The Python clients of etcd are abandoned (etcd3), bound to one host (etcd3gw) or asynchronous; the gateway needs
none. Keys and values are base64, numbers are strings, a stream is one JSON object a line.

A call goes to the endpoint that answered last and moves on to the next one when it cannot be reached. A call that
may have been carried out without an answer raises like any other trouble: what happened is unknown, so callers that
changed something read again. No call takes longer than `CONNECT` + `OPERATION` seconds over all endpoints.
"""

from __future__ import annotations

import json
import ssl
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError

from engine.fleet.base import CoordinatorUnavailable
from engine.fleet.tls import remedy

CONNECT: Final = 2.0
"""Seconds to reach an endpoint."""
OPERATION: Final = 2.0
"""Seconds for one answer."""

UNAUTHENTICATED: Final = 16
"""gRPC's code for a missing, wrong or expired token."""
NOT_FOUND: Final = 5
"""gRPC's code for a lease that is gone."""
_REFUSED: Final = frozenset({3, 7, UNAUTHENTICATED})
"""Codes of refused credentials: etcd says INVALID_ARGUMENT for a wrong password."""
_ELSEWHERE: Final = frozenset({14})
"""Codes after which another endpoint may do better: UNAVAILABLE, as without a leader."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as etcd holds it."""

    key: str
    value: bytes
    mod_revision: int
    lease: int


class EtcdError(Exception):
    """etcd answered with an error: its gRPC code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class LeaseGone(CoordinatorUnavailable):
    """The lease of a write has expired; a new one helps."""


class EtcdClient:
    """Talks to one etcd cluster; safe to share between threads, connects on first use.

    Args:
        endpoints: Base URLs such as `http://host:2379`.
        user: Whom to authenticate as, empty for nobody.
        password: The user's password.
        context: What TLS is spoken with; `None`: the usual.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        user: str = "",
        password: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.place = ", ".join(endpoints)
        self._endpoints = tuple(endpoints)
        self._user = user
        self._password = password
        self._pool = urllib3.PoolManager(retries=False, maxsize=4, ssl_context=context)
        self._lock = Lock()
        self._current = 0
        self._token = ""

    # -- keys --------------------------------------------------------------------------------------------------

    def get(self, key: str) -> KeyValue | None:
        """One key, linearisable."""
        found = _pairs(self._call("kv/range", {"key": _b64(key)}))
        return found[0] if found else None

    def prefix(self, prefix: str) -> list[KeyValue]:
        """All keys that begin with `prefix`, by key."""
        return _pairs(self._call("kv/range", {"key": _b64(prefix), "range_end": _b64_after(prefix)}))

    def put(self, key: str, value: str, *, lease: int = 0) -> None:
        """Set a key, on a lease if one is given."""
        self._call("kv/put", _put(key, value, lease))

    def put_if(self, key: str, mod_revision: int, value: str, *, lease: int = 0) -> bool:
        """Set a key if its modification revision still is this; 0: if it does not exist."""
        compare = {"key": _b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(mod_revision)}
        body = {"compare": [compare], "success": [{"request_put": _put(key, value, lease)}]}
        return bool(self._call("kv/txn", body).get("succeeded", False))

    def delete(self, key: str) -> None:
        """Remove a key."""
        self._call("kv/deleterange", {"key": _b64(key)})

    # -- leases ------------------------------------------------------------------------------------------------

    def grant(self, ttl: float) -> int:
        """A new lease of at least `ttl` seconds; etcd counts whole ones and has a minimum of its own."""
        return int(self._call("lease/grant", {"TTL": str(max(1, -int(-ttl // 1)))})["ID"])

    def keep_alive(self, lease: int) -> bool:
        """Renew a lease; False: it has expired."""
        answer = self._call("lease/keepalive", {"ID": str(lease)})
        return int(answer.get("result", answer).get("TTL", 0)) > 0

    def remaining(self, lease: int) -> tuple[float, float]:
        """Seconds left of a lease and seconds granted; (0, 0) when it is gone."""
        answer = self._call("lease/timetolive", {"ID": str(lease)})
        return max(0.0, float(answer.get("TTL", 0))), float(answer.get("grantedTTL", 0))

    def revoke(self, lease: int) -> None:
        """End a lease and remove its keys."""
        self._call("lease/revoke", {"ID": str(lease)})

    # -- the watch ---------------------------------------------------------------------------------------------

    def watch(self, prefix: str, *, silence: float) -> Watch:
        """Begin to watch all keys below a prefix, from now on.

        Args:
            prefix: Beginning of the keys.
            silence: Seconds without any message after which the watch ends, so that a dead connection is noticed.

        Raises:
            CoordinatorUnavailable: It could not be begun.
        """
        create = {"key": _b64(prefix), "range_end": _b64_after(prefix), "progress_notify": True}
        return Watch(self._send("watch", {"create_request": create}, silence=silence))

    def close(self) -> None:
        """Let go of all connections."""
        self._pool.clear()

    # -- the wire ----------------------------------------------------------------------------------------------

    def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._send(path, body)
        try:
            found = json.loads(answer.data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            msg = f"{self.place} does not speak etcd's JSON: fleet.url must name etcd's client port"
            raise CoordinatorUnavailable(msg)
        return found

    def _send(self, path: str, body: Mapping[str, Any], *, silence: float | None = None) -> urllib3.BaseHTTPResponse:
        """Try the endpoints in turn; translates all trouble into `CoordinatorUnavailable`."""
        deadline = monotonic() + CONNECT + OPERATION
        trouble = told = ""
        renewed = False
        tries = 2 * len(self._endpoints)
        while tries and (left := deadline - monotonic()) > 0:
            tries -= 1
            endpoint = self._endpoints[self._current % len(self._endpoints)]
            try:
                if self._user and not self._token:
                    self._authenticate(endpoint, left)
                return self._post(endpoint, path, body, left, silence=silence)
            except EtcdError as error:
                trouble = str(error)
                if error.code == UNAUTHENTICATED and self._user and not renewed:
                    renewed, self._token = True, ""
                    continue
                if error.code not in _ELSEWHERE:
                    raise self._refusal(error) from None
            except (HTTPError, OSError) as error:
                trouble, told = _brief(error), remedy(error) if endpoint.startswith("https:") else ""
            self._move_on(endpoint)
        if told:
            msg = f"{self.place}: {told}"
            raise CoordinatorUnavailable(msg)
        msg = f"{self.place} cannot be reached ({trouble}): check fleet.url and that etcd runs with a leader"
        raise CoordinatorUnavailable(msg)

    def _post(
        self, endpoint: str, path: str, body: Mapping[str, Any], left: float, *, silence: float | None = None
    ) -> urllib3.BaseHTTPResponse:
        answer = self._pool.request(
            "POST",
            f"{endpoint}/v3/{path}",
            body=json.dumps(body).encode(),
            headers={"content-type": "application/json"} | ({"authorization": self._token} if self._token else {}),
            timeout=urllib3.Timeout(connect=min(CONNECT, left), read=silence or min(OPERATION, left)),
            preload_content=silence is None,
        )
        if answer.status >= 400:
            raise _error_of(answer)
        return answer

    def _authenticate(self, endpoint: str, left: float) -> None:
        body = {"name": self._user, "password": self._password}
        self._token = str(self._post(endpoint, "auth/authenticate", body, left).json().get("token", ""))

    def _move_on(self, endpoint: str) -> None:
        with self._lock:
            if self._endpoints[self._current % len(self._endpoints)] == endpoint:
                self._current += 1

    def _refusal(self, error: EtcdError) -> CoordinatorUnavailable:
        if error.code == NOT_FOUND:
            return LeaseGone(f"{self.place}: {error}")
        if error.code in _REFUSED:
            msg = f"{self.place} refused our credentials ({error}): check the user and password in the URL"
        else:
            msg = f"{self.place} refused an operation: {error}"
        return CoordinatorUnavailable(msg)


class Watch:
    """The messages of one watch, one a line whatever chunks they arrive in.

    Ends when etcd cancels it (after a compaction, a lost leader), when the connection breaks or is silent for too
    long; whoever reads it reads the keys again then and begins anew, so nothing is missed.
    """

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[list[str]]:
        """The keys of each message; an empty list when it was only a sign of life."""
        rest = b""
        with suppress(HTTPError, OSError, ValueError):
            while chunk := self._answer.read1(65_536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    message = json.loads(line).get("result", {})
                    if message.get("canceled") or "compact_revision" in message:
                        return
                    yield [b64decode(event["kv"]["key"]).decode() for event in message.get("events", [])]

    def close(self) -> None:
        """End it from any thread, also while another one waits for a message."""
        with suppress(HTTPError, OSError, ValueError, RuntimeError):
            self._answer.shutdown()

    def release(self) -> None:
        """Drop the connection; by the thread that reads it."""
        with suppress(HTTPError, OSError):
            self._answer.close()


def _error_of(answer: urllib3.BaseHTTPResponse) -> EtcdError:
    try:
        body = json.loads(answer.data)
        found = body.get("error", body)
        if isinstance(found, dict):
            return EtcdError(
                int(found.get("grpc_code", 2)), _cut(str(found.get("message", "")) or f"HTTP {answer.status}")
            )
        return EtcdError(int(body.get("code", 2)), _cut(str(found)))
    except (ValueError, AttributeError, TypeError):
        return EtcdError(2, f"HTTP {answer.status}")


def _pairs(answer: Mapping[str, Any]) -> list[KeyValue]:
    return [
        KeyValue(
            key=b64decode(found["key"]).decode(),
            value=b64decode(found.get("value", "")),
            mod_revision=int(found["mod_revision"]),
            lease=int(found.get("lease", 0)),
        )
        for found in answer.get("kvs", [])
    ]


def _put(key: str, value: str, lease: int) -> dict[str, str]:
    return {"key": _b64(key), "value": _b64(value), "lease": str(lease)}


def _b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def _b64_after(prefix: str) -> str:
    """The first key after all those that begin with `prefix`, which ends in `/`."""
    raw = prefix.encode()
    return b64encode(raw[:-1] + bytes([raw[-1] + 1])).decode()


def _cut(text: str) -> str:
    return " ".join(text.split())[:120]


def _brief(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error.__cause__ or error
    return (
        "no answer in time" if isinstance(reason, TimeoutError | urllib3.exceptions.TimeoutError) else _cut(str(reason))
    )
