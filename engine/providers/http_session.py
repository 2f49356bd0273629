"""One aiohttp session per provider and event loop, and what can be known about each exchange on it.

An `Exchange` is filled by the session's connector and responses, also where a library sits between us and the
request: whether the connection stands, whether it was an old one, and the response itself, so that a stream that is
given up closes its connection at once instead of whenever a garbage collector finds it.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from types import TracebackType
from urllib.request import getproxies

import aiohttp
from aiohttp.client_proto import ResponseHandler

from engine.core.messages import Limits
from engine.deadlines import Alarm
from engine.providers.base import Limit, timed_out

_KEEP_ALIVE = 15.0
_READ_BUFFER = 2**18


class Exchange:
    """One HTTP request under its clocks.

    Args:
        limits: Of the attempt; the clocks start now.

    Attributes:
        reused: Whether it went over a kept-alive connection, which the server may have closed meanwhile.
        response: The response, once its headers came.
    """

    __slots__ = (
        "_alarm",
        "_began",
        "_binding",
        "_connecting",
        "_watched",
        "limits",
        "response",
        "reused",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.reused = True
        self.response: aiohttp.ClientResponse | None = None
        self._began = asyncio.get_running_loop().time()
        self._connecting = False
        self._alarm = Alarm()
        self._watched = self._binding = Limit.TOTAL

    def within(self, limit: Limit) -> AbstractAsyncContextManager[None]:
        """Run a step under a clock, and always under `total`; while a connection is being made under `connect`, too.

        Raises:
            ProviderFailure: On leaving, when a clock ran out.
        """
        return _Step(self, limit)

    def connecting(self, busy: bool) -> None:
        """A connection is being made, because there is none to use again; or it stands now."""
        self.reused, self._connecting = False, busy
        if self._alarm.pending:
            self._alarm.move(self._deadline())

    def close(self) -> None:
        """Close the connection unless the answer was read to its end."""
        if self.response is not None:
            self.response.close()

    def enter(self, limit: Limit) -> None:
        """Begin a step; for `within`."""
        self._watched = limit
        self._alarm.enter(self._deadline())

    def leave(self, error: type[BaseException] | None) -> None:
        """End a step; for `within`."""
        if self._alarm.leave(error):
            raise timed_out(self._binding, self._seconds(self._binding)) from None

    def _deadline(self) -> float | None:
        """The loop time the current step must end by; `_binding` is the clock that says so."""
        watched, began = self._watched, self._began
        begin = asyncio.get_running_loop().time() if watched is Limit.IDLE else began
        when, seconds = None, self._seconds(watched)
        if seconds is not None:
            when, self._binding = begin + seconds, watched
        total = self.limits.total
        if total is not None and (when is None or began + total < when):
            when, self._binding = began + total, Limit.TOTAL
        connect = self.limits.connect
        if self._connecting and connect is not None and (when is None or began + connect < when):
            when, self._binding = began + connect, Limit.CONNECT
        return when

    def _seconds(self, limit: Limit) -> float | None:
        seconds: float | None = getattr(self.limits, limit.value)
        return seconds


class _Step:
    """A step of an exchange under its clocks."""

    __slots__ = ("_exchange", "_limit")

    def __init__(self, exchange: Exchange, limit: Limit) -> None:
        self._exchange, self._limit = exchange, limit

    async def __aenter__(self) -> None:
        self._exchange.enter(self._limit)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exchange.leave(kind)


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


class tracing:  # noqa: N801 - reads as the verb it is, and costs a third of a `contextmanager`
    """Let requests of this context fill an exchange. The request must be made inside one step of a generator."""

    __slots__ = ("_exchange", "_token")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __enter__(self) -> None:
        self._token = _current.set(self._exchange)

    def __exit__(self, *exc_info: object) -> None:
        _current.reset(self._token)


class Sessions:
    """The session of the running event loop, made on first use."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def current(self) -> aiohttp.ClientSession:
        """The session of the running loop; one of a loop that is gone is forgotten."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._session, self._loop = _session(), loop
        return self._session

    async def aclose(self) -> None:
        """Close the session's connections."""
        if self._session is not None and self._loop is asyncio.get_running_loop():
            await self._session.close()
        self._session = None


def named(error: aiohttp.ClientError) -> str:
    """An error of the connection for the record; a certificate's with what is wrong, as an operator can mend that."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "")
        return f"certificate not trusted: {why}; SSL_CERT_FILE names the authorities"
    return type(error).__name__


class _Connector(aiohttp.TCPConnector):
    """Tells the current exchange while its connection is being made.

    aiohttp's trace hooks say it too, but they call a dozen signals for every request, a tenth of its cost.
    """

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        """Make a connection, because the pool has none."""
        exchange = _current.get()
        if exchange is None:
            return await super()._create_connection(req, traces, timeout)
        exchange.connecting(True)
        try:
            return await super()._create_connection(req, traces, timeout)
        finally:
            exchange.connecting(False)


class _Response(aiohttp.ClientResponse):
    """Tells the current exchange that its headers came."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Read the headers."""
        started = await super().start(connection)
        exchange = _current.get()
        if exchange is not None:
            exchange.response = self
        return started


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Connector(limit=0, keepalive_timeout=_KEEP_ALIVE),
        cookie_jar=aiohttp.DummyCookieJar(),
        response_class=_Response,
        # The clocks are ours: aiohttp's default would end every stream after five minutes.
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=_READ_BUFFER,
        # Proxies are honoured where there are any; looking for them again at every request costs a millisecond.
        trust_env=bool(getproxies()),
    )
