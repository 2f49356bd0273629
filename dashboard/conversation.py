"""One prompt through the gateway over HTTP, as any caller sends it: the Playground has no way round.

The answer's pieces come as they arrive; afterwards `Exchange` holds who answered and why, from the gateway's headers.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from engine.config import Config

TIMEOUT_S: Final = 150.0
LONGEST_LINE: Final = 1_000_000


class GatewayTroubleError(Exception):
    """The gateway did not answer, or answered with an error; the message says what to do."""


@dataclass(slots=True)
class Exchange:
    """What became known about one call; filled while the answer is read.

    Attributes:
        headers: The gateway's own, without their prefix: `request-id`, `model`, `role`, …
        first_s: Seconds until the first piece.
        total_s: Seconds until the end.
        usage: Tokens, as the gateway counts them.
        finish_reason: Why the model stopped.
    """

    headers: dict[str, str] = field(default_factory=dict)
    first_s: float | None = None
    total_s: float | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None


def stream(config: Config, manager: str, prompt: str, exchange: Exchange, *, system: str = "") -> Iterator[str]:
    """Send a prompt and yield the answer's pieces.

    Args:
        config: Where the gateway is, and a key for it.
        manager: Named as the model.
        prompt: What to say.
        exchange: Filled along the way.
        system: Instructions before it.

    Raises:
        GatewayTroubleError: There is no answer, or it is an error.
    """
    host = "127.0.0.1" if config.server.host in ("0.0.0.0", "::") else config.server.host  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(host, config.server.port, timeout=TIMEOUT_S)
    started = time.monotonic()
    try:
        connection.request("POST", "/v1/chat/completions", _body(manager, prompt, system), _headers(config))
        answer = connection.getresponse()
        exchange.headers = {
            name.lower().removeprefix("x-switchgear-"): value
            for name, value in answer.getheaders()
            if name.lower().startswith("x-switchgear-")
        }
        if answer.status != http.client.OK:
            raise GatewayTroubleError(_refusal(answer.status, answer.read(LONGEST_LINE)))
        for piece in _pieces(answer, exchange):
            if exchange.first_s is None:
                exchange.first_s = time.monotonic() - started
            yield piece
    except (OSError, http.client.HTTPException) as error:
        msg = (
            f"The gateway at http://{host}:{config.server.port} does not answer ({error}): start it "
            f"with `switchgear serve`."
        )
        raise GatewayTroubleError(msg) from error
    finally:
        exchange.total_s = time.monotonic() - started
        connection.close()


def _body(manager: str, prompt: str, system: str) -> bytes:
    messages = [{"role": "system", "content": system}] if system.strip() else []
    messages.append({"role": "user", "content": prompt})
    asked = {"model": manager, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked).encode()


def _headers(config: Config) -> dict[str, str]:
    keys = config.api_keys()
    return {"content-type": "application/json"} | ({"authorization": f"Bearer {keys[0]}"} if keys else {})


def _pieces(answer: http.client.HTTPResponse, exchange: Exchange) -> Iterator[str]:
    while line := answer.readline(LONGEST_LINE):
        name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        if name != "data" or value.strip() == "[DONE]":
            continue
        try:
            chunk = json.loads(value)
        except ValueError:
            continue
        if "error" in chunk:
            raise GatewayTroubleError(str(chunk["error"].get("message", "the stream broke")))
        exchange.usage = chunk.get("usage") or exchange.usage
        for choice in chunk.get("choices", ()):
            exchange.finish_reason = choice.get("finish_reason") or exchange.finish_reason
            text = (choice.get("delta") or {}).get("content")
            if text:
                yield str(text)


def _refusal(status: int, body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return f"{error['message']} ({error['code']}, {status})"
    except (ValueError, KeyError, TypeError):
        return f"The gateway answered {status} with something that is not its own: is another program on its port?"
