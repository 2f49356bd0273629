"""One HTTP request to a receiver, with no way to be tricked: the only place where alerts open a socket.

Guarantees: https unless private addresses are allowed; every address the name resolves to must be public unless they
are; the address that was vetted is the one connected to, with Host, SNI and certificate check on the name; redirects
are not followed; no proxy of the environment is used; time and body are bounded however slowly the other side talks.
"""

from __future__ import annotations

import base64
import http.client
import io
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from typing_extensions import Buffer

from engine.standstill import CATCH_UP, STOOD_STILL

CONNECT_TIMEOUT_S = 3.0
TOTAL_TIMEOUT_S = 15.0
BODY_LIMIT = 64 * 1024
HEADER_LIMIT = 64 * 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_TRANSLATED = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "fec0::/10", "2002::/16")
)


class Refused(Exception):
    """The address is not one we send to; the message says why and what would allow it."""


class Unreachable(Exception):
    """No answer: refused, timed out, a bad certificate; the message names it, never the whole URL."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer: status, headers in lower case, the first bytes of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet.

    `is_global` alone lets multicast, site-local and translated addresses through, so those are refused too; addresses
    that carry another one inside are judged by that one.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public(inner)
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def redacted(url: str) -> str:
    """A URL without what may be secret: scheme and host only."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}/…"
    except ValueError:
        return "(not a URL)"


def vet(url: str, *, allow_private: bool, timeout: float = CONNECT_TIMEOUT_S) -> tuple[SplitResult, list[str]]:
    """Check where a URL leads.

    Args:
        url: The address.
        allow_private: Whether private addresses and plain http are accepted.
        timeout: Seconds the name may take to resolve.

    Returns:
        Its parts, and the addresses to connect to.

    Raises:
        Refused: It is not an address we send to.
        Unreachable: The name does not resolve.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        msg = f"not a URL: {error}"
        raise Refused(msg) from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        msg = f"{redacted(url)} is not an https address"
        raise Refused(msg)
    if parts.scheme == "http" and not allow_private:
        msg = f"{redacted(url)} is not https: use https, or set allow_private = true for a receiver on your own network"
        raise Refused(msg)
    found = _resolve(parts.hostname, port or (443 if parts.scheme == "https" else 80), timeout)
    for text in found:
        judge(parts.hostname, text, allow_private=allow_private)
    return parts, found


def judge(host: str, text: str, *, allow_private: bool) -> None:
    """Check one address.

    Args:
        host: Who it belongs to, for the message.
        text: The address.
        allow_private: Whether private ones are accepted.

    Raises:
        Refused: It is not one we connect to.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if not allow_private and not is_public(address):
        msg = f"{host} leads to the private address {address}: set allow_private = true if that is meant"
        raise Refused(msg)
    if address.is_multicast or address.is_unspecified:
        msg = f"{host} leads to {address}, which is no host"
        raise Refused(msg)


def _resolve(host: str, port: int, timeout: float) -> list[str]:
    """Resolve a name on another thread, as the system's resolver knows no time limit."""
    results: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            results.put(list(dict.fromkeys(str(row[4][0]) for row in rows)))
        except (OSError, UnicodeError) as error:
            results.put(error)

    threading.Thread(target=work, name="switchgear-resolve", daemon=True).start()
    try:
        result = results.get(timeout=timeout)
    except queue.Empty:
        msg = f"{host} did not resolve within {timeout:g} s"
        raise Unreachable(msg) from None
    if isinstance(result, Exception):
        msg = f"{host} does not resolve: {getattr(result, 'strerror', None) or result}"
        raise Unreachable(msg)
    return result


class _Bounded(io.RawIOBase):
    """Reads a socket until a deadline that no drip of bytes extends, and what came while this process stood still."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        self._caught_up = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        now = time.monotonic()
        if now - self._deadline > STOOD_STILL and not self._caught_up:
            self._caught_up, self._deadline = True, now + CATCH_UP
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(memoryview(buffer))


class _Wire:
    """What `http.client` asks of a socket: a file to read from."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._raw = _Bounded(sock, deadline)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The reading side."""
        del mode
        return io.BufferedReader(self._raw, 8192)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        msg = "out of time"
        raise TimeoutError(msg)
    return left


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allow_private: bool = False,
    method: str = "POST",
    timeout: float = TOTAL_TIMEOUT_S,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request.

    Args:
        url: Where to.
        body: What.
        headers: Besides Host, Content-Length and Connection; latin-1.
        allow_private: Whether private addresses and plain http are accepted.
        method: The HTTP method.
        timeout: Seconds for everything: name, connection, TLS, sending, and the answer.
        context: TLS settings; by default the system's authorities, always verified.

    Raises:
        Refused: The address is not one we send to.
        Unreachable: There was no complete answer in time.
    """
    deadline = time.monotonic() + timeout
    parts, addresses = vet(url, allow_private=allow_private, timeout=min(timeout, CONNECT_TIMEOUT_S))
    host = parts.hostname or ""
    try:
        with _connect(parts, addresses, deadline, context) as sock:
            sock.settimeout(_left(deadline))
            sock.sendall(_head(parts, method, {**_credentials(parts), **headers}, len(body)) + body)
            response = http.client.HTTPResponse(_Wire(sock, deadline), method=method)  # type: ignore[arg-type]
            response.begin()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, _body(response))
    except TimeoutError:
        msg = f"{host} did not answer within {timeout:g} s"
        raise Unreachable(msg) from None
    except ssl.SSLCertVerificationError as error:
        msg = f"{host} has a certificate that cannot be trusted: {error.verify_message}"
        raise Unreachable(msg) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        msg = f"{host}: {' '.join(str(error).split())[:120] or type(error).__name__}"
        raise Unreachable(msg) from None


def _connect(
    parts: SplitResult, addresses: list[str], deadline: float, context: ssl.SSLContext | None
) -> socket.socket:
    port = parts.port or (443 if parts.scheme == "https" else 80)
    failure: OSError | None = None
    for address in addresses:
        try:
            sock = socket.create_connection((address, port), timeout=min(CONNECT_TIMEOUT_S, _left(deadline)))
        except OSError as error:
            failure = error
            continue
        if parts.scheme == "http":
            return sock
        try:
            sock.settimeout(_left(deadline))
            return (context or ssl.create_default_context()).wrap_socket(sock, server_hostname=parts.hostname)
        except BaseException:
            sock.close()
            raise
    raise failure or ConnectionError("no address")


def _credentials(parts: SplitResult) -> dict[str, str]:
    """The user and password of a URL, as `https://user:password@host/`, for a receiver that asks who calls."""
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _head(parts: SplitResult, method: str, headers: Mapping[str, str], length: int) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        msg = "a header or the address holds a line break"
        raise ValueError(msg)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _body(response: http.client.HTTPResponse) -> bytes:
    """The first bytes of the body: the status is what counts, so a body that stalls or breaks is left as it is."""
    parts: list[bytes] = []
    size = 0
    try:
        while size < BODY_LIMIT:
            part = response.read1(BODY_LIMIT - size)
            if not part:
                break
            parts.append(part)
            size += len(part)
    except (OSError, http.client.HTTPException, ValueError):
        return b"".join(parts)
    return b"".join(parts)
