"""Prompts through the gateway over HTTP, as any caller sends them: the Playground has no way round.

An answer's pieces come as they arrive; `Exchange` holds its text, who answered and why, from the gateway's headers.
Several exchanges at once are for asking each model alone: the gateway takes that as an operator's test.
"""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.config import Config

TIMEOUT_S: Final = 150.0
LONGEST_LINE: Final = 1_000_000


class GatewayTroubleError(Exception):
    """The gateway did not answer, or answered with an error; the message says what to do."""


@dataclass(slots=True)
class Exchange:
    """One call and what became known about it; filled while the answer is read.

    Attributes:
        only: The one role to ask, `None` to ask as callers do.
        text: The answer so far.
        trouble: Why there is no answer, or no whole one; empty while all is well.
        headers: The gateway's own, without their prefix: `request-id`, `model`, `role`, …
        first_s: Seconds until the first piece.
        total_s: Seconds until the end.
        usage: Tokens, as the gateway counts them.
        finish_reason: Why the model stopped.
    """

    only: str | None = None
    text: str = ""
    trouble: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    first_s: float | None = None
    total_s: float | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked.

    Attributes:
        manager: Named as the model.
        text: What to say.
        system: Instructions before it.
    """

    manager: str
    text: str
    system: str = ""


def converse(config: Config, prompt: Prompt, exchanges: Sequence[Exchange]) -> Iterator[None]:
    """Ask all at once, and yield whenever one of them has changed; leaving early closes their connections."""
    changed: queue.Queue[bool] = queue.Queue()
    left = threading.Event()

    def follow(exchange: Exchange) -> None:
        try:
            for piece in stream(config, prompt, exchange):
                exchange.text += piece
                changed.put(True)
                if left.is_set():
                    return
        except GatewayTroubleError as error:
            exchange.trouble = str(error)
        except Exception as error:  # noqa: BLE001 - a thread's mistake must end in a sentence on the page too
            exchange.trouble = f"The answer could not be read ({type(error).__name__})."
        finally:
            changed.put(False)

    for exchange in exchanges:
        threading.Thread(target=follow, args=(exchange,), name="playground", daemon=True).start()
    going = len(exchanges)
    try:
        while going:
            going -= not changed.get()
            yield
    finally:
        left.set()


def stream(config: Config, prompt: Prompt, exchange: Exchange) -> Iterator[str]:
    """Send a prompt and yield the answer's pieces.

    Args:
        config: Where the gateway is, and a key for it.
        prompt: What to ask.
        exchange: Filled along the way.

    Raises:
        GatewayTroubleError: There is no answer, or it is an error.
    """
    host = "127.0.0.1" if config.server.host in ("0.0.0.0", "::") else config.server.host  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(host, config.server.port, timeout=TIMEOUT_S)
    started = time.monotonic()
    try:
        connection.request("POST", "/v1/chat/completions", _body(prompt), _headers(config, exchange.only))
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


def _body(prompt: Prompt) -> bytes:
    messages = [{"role": "system", "content": prompt.system}] if prompt.system.strip() else []
    messages.append({"role": "user", "content": prompt.text})
    asked = {"model": prompt.manager, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked).encode()


def _headers(config: Config, only: str | None) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    keys = list(config.api_keys())
    if only is not None:
        headers["x-switchgear-role"] = only
        keys = [one.key for one in config.operator_keys()] or keys
    if keys:
        headers["authorization"] = f"Bearer {keys[0]}"
    return headers


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
        told = str(error["message"])
        return f"{told[:1].upper()}{told[1:]} ({error['code']}, {status})"
    except (ValueError, KeyError, TypeError):
        return f"The gateway answered {status} with something that is not its own: is another program on its port?"
