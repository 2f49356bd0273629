"""Responses of the routes that are not the hot path."""

from __future__ import annotations

import math
from typing import Any

import orjson
from starlette.responses import Response

from engine.core.errors import SwitchgearError
from engine.gateway.wire import error_body


def json_response(body: Any, status: int = 200) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")


def error_response(error: SwitchgearError) -> Response:
    """An error in OpenAI's envelope, with Retry-After where it is known."""
    headers = {} if error.retry_after is None else {"retry-after": str(max(1, math.ceil(error.retry_after)))}
    return Response(error_body(error), status_code=error.status_code, headers=headers, media_type="application/json")
