"""Gemini by `google-genai`, the library that is maintained; asynchronous.

One client per provider and event loop, on a session of ours, so that connections, clocks and closing are ours too.
The API version is pinned because the library's default changes with its releases, and `attempts=1` switches off both
its retry and its hidden reconnect after a dropped connection: one attempt is one request. No time limit is given to
the library, which would send it to the server and end long streams by it.
"""

# ruff: noqa: PLC0415  # the library is imported on first use: it takes about a second

from __future__ import annotations

import asyncio
import importlib
import json
import time
import warnings
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import aiohttp

from engine.core.classification import classify_gemini
from engine.core.messages import Call, Completion, Delta
from engine.core.outcomes import Category, ProviderFailure
from engine.providers.base import Limit, cut_by
from engine.providers.gemini_answer import Reader
from engine.providers.gemini_request import request_body
from engine.providers.http_session import Exchange, Sessions, named, tracing

if TYPE_CHECKING:
    from google.genai import Client

API_VERSION = "v1beta"


class GeminiProvider:
    """Asks Gemini through `google-genai`; asynchronous, for one event loop.

    Args:
        api_key: Of this provider's own client.
        base_url: The bare root of another endpoint; empty for Google's.
        name: The provider's name in the configuration, for error messages.
    """

    def __init__(self, *, api_key: str | None = None, base_url: str = "", name: str = "") -> None:
        self._key, self._url, self._name = api_key, base_url, name
        self._sessions = Sessions()
        self._made: tuple[aiohttp.ClientSession, Client] | None = None

    async def generate(self, call: Call) -> Completion:
        """Answer as a whole.

        Raises:
            ProviderFailure: Gemini failed, blocked the prompt, or said no finish reason.
        """
        client = await self._client()
        asked = _asked(call)
        exchange = Exchange(call.limits)
        try:
            async with exchange.within(Limit.ANSWER):
                with tracing(exchange):
                    answer = await client.aio.models.generate_content(**asked)
        except _foreign() as error:
            raise _translated(error, Reader(), exchange) from error
        finally:
            exchange.close()
        return Reader().completion(_plain(answer))

    async def stream(self, call: Call) -> AsyncIterator[Delta]:
        """Answer event by event; the end without a finish reason is the caller's to judge.

        Raises:
            ProviderFailure: Gemini failed before or inside the stream.
        """
        client = await self._client()
        asked = _asked(call)
        exchange, reader, limit = Exchange(call.limits), Reader(), Limit.FIRST_TOKEN
        events: Any = None
        try:
            while True:
                try:
                    async with exchange.within(limit):
                        with tracing(exchange):
                            if events is None:
                                events = await client.aio.models.generate_content_stream(**asked)
                            event = await anext(events, None)
                except _foreign() as error:
                    raise _translated(error, reader, exchange) from error
                if event is None:
                    return
                for delta in reader.read(_plain(event)):
                    limit = Limit.IDLE if delta.alive else limit
                    yield delta
        finally:
            # First the connection: the library's generators are nested and close only one level at a time.
            exchange.close()
            if events is not None:
                await events.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        made, self._made = self._made, None
        if made is not None:
            # Both, or its finaliser leaves a task behind in whatever loop runs then.
            await made[1].aio.aclose()
            made[1].close()
        await self._sessions.aclose()

    async def _client(self) -> Client:
        if not self._key:
            detail = f"no API key: set providers.{self._name or '?'}.api_key_env and that variable"
            raise ProviderFailure(Category.AUTH, detail=detail, code="no_api_key")
        session = self._sessions.current()
        if self._made is None or self._made[0] is not session:
            # Too long to hold the loop.
            await asyncio.to_thread(load_library)
            session = self._sessions.current()
            if self._made is None or self._made[0] is not session:
                self._made = (session, self._build(session))
        return self._made[1]

    def _build(self, session: aiohttp.ClientSession) -> Client:
        from google import genai
        from google.genai import types

        # A word newer than the library is kept as it is and read by us; nobody needs to hear of it.
        warnings.filterwarnings("ignore", message=r".+ is not a valid \w+", category=UserWarning)
        options = types.HttpOptions(
            base_url=self._url or None,
            api_version=API_VERSION,
            retry_options=types.HttpRetryOptions(attempts=1),
            aiohttp_client=session,
        )
        return genai.Client(vertexai=False, api_key=self._key, http_options=options)


def _asked(call: Call) -> dict[str, Any]:
    """The library's arguments for a call.

    Raises:
        ProviderFailure: A field has a value that the library refuses.
    """
    from google.genai import types
    from pydantic import ValidationError

    body = request_body(call, json_schema=True)
    # The library calls functions for its user, and logs a line for every request in case it had some to call.
    config = {**body.pop("generationConfig", {}), **body, "automaticFunctionCalling": {"disable": True}}
    contents = config.pop("contents")
    try:
        return {
            "model": call.model,
            "contents": [types.Content.model_validate_json(json.dumps(content)) for content in contents],
            "config": types.GenerateContentConfig.model_validate_json(json.dumps(config)),
        }
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        detail = f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}"
        raise ProviderFailure(Category.INVALID_REQUEST, 400, detail=detail, code="invalid_argument") from None


def load_library() -> None:
    """Import the library, which takes about a second."""
    importlib.import_module("google.genai")


def _plain(answer: Any) -> Any:
    """The library's answer as the JSON it came from."""
    return answer.model_dump(mode="json", by_alias=True, exclude_none=True, warnings=False)


def _foreign() -> tuple[type[Exception], ...]:
    """What the library raises when Gemini fails; nothing else is caught."""
    from google.genai import errors
    from pydantic import ValidationError

    malformed = (errors.UnknownApiResponseError, json.JSONDecodeError, UnicodeDecodeError, ValidationError)
    return (errors.APIError, *malformed, aiohttp.ClientError)


def _translated(error: Exception, reader: Reader, exchange: Exchange) -> ProviderFailure:
    from google.genai import errors

    if isinstance(error, errors.APIError):
        headers = getattr(error.response, "headers", None)
        failure = classify_gemini(error.code, error.details, headers, time.time())
        return cut_by(failure) if reader.begun else failure
    if isinstance(error, aiohttp.ClientError):
        status = None if exchange.response is None else exchange.response.status
        return reader.broken(named(error), status=status)
    if reader.begun or isinstance(error, errors.UnknownApiResponseError):
        return ProviderFailure(Category.TRUNCATED, 200, detail="event is not JSON", code="malformed_event")
    return ProviderFailure(Category.SERVER_ERROR, 200, detail="unreadable body", code="no_json")
