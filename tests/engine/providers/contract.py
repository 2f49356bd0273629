"""What all four providers are held to: one way to ask them, and the faults each can be given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.core.messages import Call, Completion, Delta, Limits, Request
from engine.core.outcomes import ProviderFailure
from engine.providers.base import Provider, build, is_async
from tests.upstream import Upstream

HTTP_KINDS = ("google-generativeai", "google-genai", "openai")
MODEL = "gemini-2.5-flash"


@dataclass
class Streamed:
    """What came out of a stream, and what ended it."""

    deltas: list[Delta] = field(default_factory=list)
    failure: ProviderFailure | None = None

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def finish_reason(self) -> Any:
        return next((delta.finish_reason for delta in self.deltas if delta.finish_reason), None)


def call(prompt: str = "Why is the sky blue?", model: str = MODEL, limits: Limits | None = None, **given: Any) -> Call:
    """A call of one user message; keyword arguments are fields of the request or of the call."""
    of_call = {key: given.pop(key) for key in ("prefill", "attempt") if key in given}
    messages = given.pop("messages", ({"role": "user", "content": prompt},))
    return Call(Request(messages=messages, **given), model, limits or Limits(30, 30, 30, 30, 60), **of_call)


class Asked:
    """A provider of any manner, asked from synchronous tests on one event loop."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._loop = asyncio.new_event_loop()

    def generate(self, asked: Call) -> Completion:
        if is_async(self.provider):
            return self._loop.run_until_complete(self.provider.generate(asked))
        return self.provider.generate(asked)  # type: ignore[return-value]

    def stream(self, asked: Call) -> Iterator[Delta]:
        events = self.provider.stream(asked)
        if not isinstance(events, AsyncIterator):
            yield from events
            return
        try:
            while (event := self._loop.run_until_complete(anext(events, None))) is not None:
                yield event
        finally:
            self._loop.run_until_complete(events.aclose())  # type: ignore[attr-defined]

    def streamed(self, asked: Call) -> Streamed:
        got = Streamed()
        try:
            for delta in self.stream(asked):
                got.deltas.append(delta)
        except ProviderFailure as failure:
            got.failure = failure
        return got

    def failure(self, asked: Call) -> ProviderFailure:
        try:
            answer = self.generate(asked)
        except ProviderFailure as failure:
            return failure
        msg = f"expected a failure, got {answer}"
        raise AssertionError(msg)

    def close(self) -> None:
        for name in ("close", "aclose"):
            if hasattr(self.provider, name):
                made = getattr(self.provider, name)()
                if made is not None:
                    self._loop.run_until_complete(made)
        self._loop.close()


def asked(kind: str, upstream: Upstream, key: str = "test-key") -> Asked:
    """A provider of a kind against the upstream."""
    base_url = upstream.openai_url if kind == "openai" else upstream.gemini_url
    if kind == "simulated":
        base_url = "simulated:contract?latency=0"
    return Asked(build(kind, api_key=key, base_url=base_url, name="tested"))
