"""Gemini by `google-generativeai` 0.8.6, the library many applications still have; plain, over its REST transport.

Every provider has its own client, so two managers with two keys never mix; `genai.configure`, which changes a
module-wide client, is never called. One attempt is one request: the library's retry is off, and so is the session's
repetition after a 401. The library builds and sends requests, but answers are read from the raw JSON, because the
library loses what matters: it parses an error inside a stream into an empty response, an unknown finish reason into
none, thoughts into text; it raises `AttributeError` for the list-wrapped errors of streams, and its own iterator
holds every event back until the next one came.

Its time limit is per socket read, not a deadline: a body that drips outlives it. Drivers enforce deadlines outside.
"""

# ruff: noqa: PLC0415  # the library is imported on first use: it takes about a second

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from engine.core.classification import classify_gemini
from engine.core.messages import Call, Completion, Delta, Limits
from engine.core.outcomes import Category, ProviderFailure
from engine.providers.base import Limit, timed_out
from engine.providers.blocking_line import Line, cuttable_adapter
from engine.providers.gemini_answer import Reader
from engine.providers.gemini_request import request_body
from engine.providers.json_array import ArrayParser

DEFAULT_HOST = "generativelanguage.googleapis.com"

_CHUNK = 2**16
_import_lock = threading.Lock()
_response: ContextVar[Any] = ContextVar("gemini_response", default=None)


class GeminiLegacyProvider:
    """Asks Gemini through the old library; thread-safe.

    Args:
        api_key: Sent as `x-goog-api-key` by this provider's own client.
        base_url: The bare root of another endpoint; empty for Google's.
        name: The provider's name in the configuration, for error messages.
    """

    def __init__(self, *, api_key: str | None = None, base_url: str = "", name: str = "") -> None:
        self._key, self._host, self._name = api_key, base_url or DEFAULT_HOST, name
        self._made: Any = None
        self._lock = threading.Lock()

    def generate(self, call: Call) -> Completion:
        """Answer as a whole.

        Raises:
            ProviderFailure: Gemini failed, blocked the prompt, or said no finish reason.
        """
        client, request = self._client(), _request(call)
        clock, line = _Clock(call.limits, Limit.ANSWER), Line()
        try:
            response = self._send(client.generate_content, request, clock, line)
        finally:
            line.free()
        try:
            body = json.loads(response.content)
        except ValueError:
            raise ProviderFailure(Category.SERVER_ERROR, 200, detail="unreadable body", code="no_json") from None
        return Reader().completion(body)

    def stream(self, call: Call) -> Iterator[Delta]:
        """Answer event by event; the end without a finish reason is the caller's to judge.

        Raises:
            ProviderFailure: Gemini failed before or inside the stream.
        """
        client, request = self._client(), _request(call)
        clock, line = _Clock(call.limits, Limit.FIRST_TOKEN), Line()
        response, reader = None, Reader()
        try:
            response = self._send(client.stream_generate_content, request, clock, line)
            for element in _elements(response, reader, clock):
                deltas = reader.read(element)
                yield from deltas
                if any(delta.alive for delta in deltas):
                    clock.restart(Limit.IDLE)
        finally:
            line.free()
            if response is not None:
                response.close()

    def close(self) -> None:
        """Close the client's connections."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.transport.close()

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _client(self._key, self._host, self._name)
            return self._made

    def _send(self, method: Callable[..., Any], request: Any, clock: _Clock, line: Line) -> Any:
        """Send one request and return the raw `requests.Response`; errors by status were raised by `_checked`."""
        import requests
        import urllib3
        from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

        token = _response.set(None)
        try:
            with line.watched():
                method(request, retry=None, timeout=clock.pass_to)
        except ParseError:
            raise ProviderFailure(Category.SERVER_ERROR, 200, detail="unreadable body", code="no_json") from None
        except requests.exceptions.ConnectTimeout:
            raise timed_out(Limit.CONNECT, clock.limits.connect) from None
        except requests.exceptions.ReadTimeout:
            raise clock.expired() from None
        except requests.exceptions.RequestException as error:
            # A time limit met while a body is read comes as ConnectionError with the real reason inside.
            if error.args and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError):
                raise clock.expired() from None
            raise ProviderFailure(Category.CONNECTION, detail=type(error).__name__, code="transport") from error
        else:
            return _response.get()
        finally:
            _response.reset(token)


class _Clock:
    """Socket time limits that add up to the clocks of a call as far as a blocking read allows."""

    def __init__(self, limits: Limits, limit: Limit) -> None:
        self.limits = limits
        self._began = self._since = time.monotonic()
        self._limit = limit

    def restart(self, limit: Limit) -> None:
        """From now on this clock runs."""
        self._limit, self._since = limit, time.monotonic()

    def left(self) -> float | None:
        """Seconds until a clock runs out, at least a millisecond (0 means non-blocking to a socket)."""
        when = self._when()
        return None if when is None else max(0.001, when - time.monotonic())

    def check(self) -> None:
        """Raise the failure of a clock that ran out between two reads."""
        when = self._when()
        if when is not None and time.monotonic() > when:
            raise self.expired()

    def expired(self) -> ProviderFailure:
        """The failure of the clock that ran out."""
        total = self.limits.total
        if total is not None and self._began + total <= time.monotonic() + 0.01:
            return timed_out(Limit.TOTAL, total)
        return timed_out(self._limit, getattr(self.limits, self._limit.value))

    def pass_to(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The library's form of a time limit, a decorator: (connect, read) as its HTTP library takes them."""

        def limited(*args: Any, **kwargs: Any) -> Any:
            connect = [seconds for seconds in (self.limits.connect, self.left()) if seconds is not None]
            return function(*args, **{**kwargs, "timeout": (min(connect, default=None), self.left())})

        return limited

    def _when(self) -> float | None:
        own, total = getattr(self.limits, self._limit.value), self.limits.total
        given = [
            start + seconds for start, seconds in ((self._since, own), (self._began, total)) if seconds is not None
        ]
        return min(given, default=None)


def _elements(response: Any, reader: Reader, clock: _Clock) -> Iterator[Any]:
    """The parsed elements of the streamed array, under the clock.

    Raises:
        ProviderFailure: The body is no array, breaks off inside an element, or a clock ran out.
    """
    import urllib3

    parser, raw = ArrayParser(), response.raw
    while True:
        connection = getattr(raw, "connection", None)
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(clock.left())
        try:
            chunk = raw.read1(_CHUNK, decode_content=True)
        except urllib3.exceptions.ReadTimeoutError:
            raise clock.expired() from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise reader.broken(type(error).__name__, status=200) from error
        if not chunk:
            if parser.within:
                raise reader.broken(detail="the body ends inside an event", status=200)
            return
        try:
            for text in parser.feed(chunk):
                yield json.loads(text)
        except ValueError:
            detail = "event is not JSON"
            raise ProviderFailure(Category.TRUNCATED, 200, detail=detail, code="malformed_event") from None
        clock.check()


def _request(call: Call) -> Any:
    """The library's request message.

    Raises:
        ProviderFailure: A field has a value that Gemini's messages cannot hold.
    """
    from google.ai import generativelanguage
    from google.protobuf.json_format import ParseError

    name = call.model if "/" in call.model else f"models/{call.model}"
    body = {"model": name, **request_body(call, json_schema=False)}
    try:
        return generativelanguage.GenerateContentRequest.from_json(json.dumps(body), ignore_unknown_fields=True)
    except ParseError as error:
        field = str(error).split(":", 1)[0]
        raise ProviderFailure(Category.INVALID_REQUEST, 400, detail=field, code="invalid_argument") from None


def load_library() -> None:
    """Import the library, which takes about a second."""
    with _import_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # end of life, and Python 3.11's: both known
        import google.generativeai  # noqa: F401  # the library whose pinned client this is


def _client(key: str | None, host: str, name: str) -> Any:
    """A client of its own with this key and endpoint; imports the library where nobody has.

    Raises:
        ProviderFailure: There is no key.
    """
    if not key:
        detail = f"no API key: set providers.{name or '?'}.api_key_env and that variable"
        raise ProviderFailure(Category.AUTH, detail=detail, code="no_api_key")
    load_library()
    from google.ai import generativelanguage
    from google.ai.generativelanguage_v1beta.services.generative_service.transports import (
        GenerativeServiceRestTransport,
    )
    from google.auth.api_key import Credentials

    credentials = Credentials(key)  # type: ignore[no-untyped-call]
    transport = GenerativeServiceRestTransport(host=host, credentials=credentials)
    # The transport takes no session. Raising in its own one's hook also ends its repetition of what met a 401.
    transport._session.hooks["response"].append(_checked)
    for scheme in ("http://", "https://"):
        transport._session.mount(scheme, cuttable_adapter())
    return generativelanguage.GenerativeServiceClient(transport=transport)


def _checked(response: Any, *_args: Any, **_kwargs: Any) -> None:
    """Keep the raw response for who sent the request, and raise errors before the library misreads them."""
    _response.set(response)
    if response.status_code == 200:
        return
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    finally:
        response.close()
    raise classify_gemini(response.status_code, body, response.headers, time.time())
