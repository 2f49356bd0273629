"""One aiohttp session per provider and event loop, and what can be known about each exchange on it.

An `Exchange` is filled by the session's connector and responses, also where a library sits between us and the
request: whether the connection stands, whether it was an old one, and the response itself, so that a stream that is
given up closes its connection at once instead of whenever a garbage collector finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from urllib.request import getproxies
from weakref import WeakSet

import aiohttp

from engine.core.messages import Limits
from engine.providers.base import Limit, timed_out

_KEEP_ALIVE = 15.0
_READ_BUFFER = 2**18


class Exchange:
    """One HTTP request under its clocks.

    Args:
        limits: Of the attempt; the clocks start now.

    Attributes:
        connected: Whether a connection stands.
        reused: Whether that is a kept-alive one, which the server may have closed meanwhile.
        response: The response, once its headers came.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.connected = False
        self.reused = False
        self.response: aiohttp.ClientResponse | None = None
        self._began = asyncio.get_running_loop().time()
        self._scope: asyncio.Timeout | None = None
        self._watched = self._binding = Limit.TOTAL

    @asynccontextmanager
    async def within(self, limit: Limit) -> AsyncIterator[None]:
        """Run a step under a clock; until a connection stands, under `connect` too, and always under `total`.

        Raises:
            ProviderFailure: A clock ran out.
        """
        self._watched = limit
        when, self._binding = self._deadline(limit)
        scope = asyncio.timeout_at(when)
        try:
            async with scope:
                self._scope = scope
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise timed_out(self._binding, getattr(self.limits, self._binding.value)) from None
        finally:
            self._scope = None

    def stands(self, *, reused: bool) -> None:
        """A connection stands: the connect clock gives way to the step's own."""
        self.connected, self.reused = True, reused
        if self._scope is not None and not self._scope.expired():
            when, self._binding = self._deadline(self._watched)
            self._scope.reschedule(when)

    def close(self) -> None:
        """Close the connection unless the answer was read to its end."""
        if self.response is not None:
            self.response.close()

    def _deadline(self, limit: Limit) -> tuple[float | None, Limit]:
        """The loop time the current step must end by, and the clock that says so."""
        begin = asyncio.get_running_loop().time() if limit is Limit.IDLE else self._began
        clocks = [(begin, limit), (self._began, Limit.TOTAL)]
        if not self.connected:
            clocks.append((self._began, Limit.CONNECT))
        given = [
            (start + seconds, clock)
            for start, clock in clocks
            if (seconds := getattr(self.limits, clock.value)) is not None
        ]
        return min(given, default=(None, limit), key=lambda entry: entry[0] or 0.0)


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@contextmanager
def tracing(exchange: Exchange) -> Iterator[None]:
    """Let requests of this context fill an exchange. The request must be made inside one step of a generator."""
    token = _current.set(exchange)
    try:
        yield
    finally:
        _current.reset(token)


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


class _Connector(aiohttp.TCPConnector):
    """Tells the current exchange when its connection stands.

    aiohttp's trace hooks say it too, but they call a dozen signals for every request, a tenth of its cost.
    """

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=_KEEP_ALIVE)
        self._used: WeakSet[asyncio.BaseProtocol] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> aiohttp.connector.Connection:
        """Get a connection from the pool, or a new one."""
        connection = await super().connect(req, traces, timeout)
        exchange, protocol = _current.get(), connection.protocol
        if exchange is not None and protocol is not None:
            exchange.stands(reused=protocol in self._used)
            self._used.add(protocol)
        return connection


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
        connector=_Connector(),
        response_class=_Response,
        # The clocks are ours: aiohttp's default would end every stream after five minutes.
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=_READ_BUFFER,
        # Proxies are honoured where there are any; looking for them again at every request costs a millisecond.
        trust_env=bool(getproxies()),
    )
