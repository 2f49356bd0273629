"""The control API: status, overrides, forced breakers and the timeline, over HTTP.

Nothing is decided here: acts go to `engine.control`, questions to `engine.queries`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine import queries
from engine.core.agreement import Document
from engine.core.errors import BodyTooLarge, InvalidRequest
from engine.durations import parse_duration
from engine.gateway.access import Access
from engine.gateway.openapi import document as openapi
from engine.gateway.responses import json_response
from engine.instance import Instance
from engine.overview import overview

MAX_ACT: Final = 64 * 1024
"""Bytes of a body of the control API."""

DAY_MS: Final = 86_400_000
LATEST_MS: Final = 253_402_300_799_000
"""The end of the year 9999."""

PAGE: Final = 500
EPOCH_DIGITS: Final = 19
"""A longer number is no epoch, nor one that Python reads whatever its length."""


def control_routes(instance: Instance, access: Access) -> list[Route]:
    """The routes of the control API.

    Args:
        instance: The process.
        access: Who may look and act.
    """
    api = _ControlAPI(instance, access)
    return [
        Route("/api/v1/status", api.status),
        Route("/api/v1/timeline", api.timeline),
        Route("/api/v1/managers/{manager}/override", api.set_override, methods=["POST"]),
        Route("/api/v1/managers/{manager}/override", api.clear_override, methods=["DELETE"]),
        Route("/api/v1/managers/{manager}/breakers/{role}", api.force_breaker, methods=["POST"]),
        Route("/openapi.json", lambda _: json_response(openapi())),
    ]


class _ControlAPI:
    """The handlers."""

    def __init__(self, instance: Instance, access: Access) -> None:
        self._instance = instance
        self._access = access

    async def status(self, request: Request) -> Response:
        self._access.actor(request)
        return json_response(await asyncio.to_thread(overview, self._instance.config, self._instance.recorder.store))

    async def timeline(self, request: Request) -> Response:
        self._access.actor(request)
        asked = request.query_params
        end = _time(asked.get("to"), "to", int(time.time() * 1000))
        start = _time(asked.get("from"), "from", end - DAY_MS)
        kinds = asked.getlist("kind") or None
        manager = asked.get("manager")

        def read() -> dict[str, Any]:
            with self._instance.recorder.store.reader() as connection:
                try:
                    page = queries.timeline(
                        connection, start_ms=start, end_ms=end, manager=manager, kinds=kinds, limit=PAGE
                    )
                except ValueError:
                    known = ", ".join(queries.EventKind)
                    raise _wrong(what=f"kind: must be one of {known}", param="kind") from None
            return {"events": [asdict(event) for event in page.events], "more": page.next is not None}

        return json_response(await asyncio.to_thread(read))

    async def set_override(self, request: Request) -> Response:
        control, actor = self._instance.control(), self._access.actor(request)
        body = await _body(request)
        _known(body, {"role", "reason", "ttl", "strict", "epoch"})
        strict = body.get("strict", False)
        if not isinstance(strict, bool):
            raise _wrong(what="strict: must be true or false", param="strict")
        return await self._act(
            lambda: control.set_override(
                request.path_params["manager"],
                _text(body, "role"),
                reason=_text(body, "reason"),
                actor=actor,
                ttl=_ttl(body),
                strict=strict,
                epoch=_epoch(body.get("epoch")),
            )
        )

    async def clear_override(self, request: Request) -> Response:
        control, actor = self._instance.control(), self._access.actor(request)
        asked = request.query_params
        return await self._act(
            lambda: control.clear_override(
                request.path_params["manager"],
                reason=asked.get("reason", ""),
                actor=actor,
                epoch=_query_epoch(asked.get("epoch")),
            )
        )

    async def force_breaker(self, request: Request) -> Response:
        control, actor = self._instance.control(), self._access.actor(request)
        body = await _body(request)
        _known(body, {"state", "reason", "ttl", "epoch"})
        return await self._act(
            lambda: control.force_breaker(
                request.path_params["manager"],
                request.path_params["role"],
                _text(body, "state"),
                reason=_text(body, "reason"),
                actor=actor,
                ttl=_ttl(body),
                epoch=_epoch(body.get("epoch")),
            )
        )

    async def _act(self, act: Callable[[], Document]) -> Response:
        document = await asyncio.to_thread(act)
        return json_response(orjson.loads(document.to_json()))


async def _body(request: Request) -> Mapping[str, Any]:
    """A JSON object; the media type is required, because a form of another site cannot send it."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _wrong(what="send JSON: the header `Content-Type: application/json` is required")
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > MAX_ACT:
            msg = f"the body is larger than the {MAX_ACT} bytes that an act may have"
            raise BodyTooLarge(msg)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _wrong(what=f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise _wrong(what="the body must be a JSON object")
    return body


def _wrong(*, what: str, param: str | None = None) -> InvalidRequest:
    return InvalidRequest(what, param=param)


def _known(body: Mapping[str, Any], fields: set[str]) -> None:
    for key in body:
        if key not in fields:
            raise _wrong(what=f"{key}: unknown field; there are {', '.join(sorted(fields))}", param=key)


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise _wrong(what=f"{key}: must be a string", param=key)
    return value


def _ttl(body: Mapping[str, Any]) -> float | None:
    value = body.get("ttl")
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise _wrong(what=f"ttl: {error}", param="ttl") from None


def _epoch(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise _wrong(what="epoch: must be a whole number", param="epoch")
    return value


def _query_epoch(value: str | None) -> int | None:
    if value is not None and not (value.isdecimal() and len(value) < EPOCH_DIGITS):
        raise _wrong(what="epoch: must be a whole number", param="epoch")
    return None if value is None else int(value)


def _time(value: str | None, param: str, default: int) -> int:
    """A point in time: milliseconds or seconds since 1970, or ISO 8601."""
    if value is None:
        return default
    milliseconds = math.nan
    try:
        number = float(value)
        milliseconds = number if number > 1e11 else number * 1000
    except ValueError:
        with suppress(ValueError, OverflowError):
            milliseconds = datetime.fromisoformat(value).timestamp() * 1000
    if 0 <= milliseconds <= LATEST_MS:  # also refuses NaN
        return int(milliseconds)
    raise _wrong(what=f"{param}: must be milliseconds since 1970 or ISO 8601, not {value!r}", param=param)
