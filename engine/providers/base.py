"""The protocol every provider follows, and the one place that knows which kinds there are.

A provider turns one `Call` into one answer with exactly one HTTP request. It translates its library's errors into
`ProviderFailure` and lets everything else through: a `TypeError` of ours or a cancellation surfaces as itself. It may
be plain or asynchronous; `is_async` says which, and drivers run either. Building one makes no network call and does
not import its library, so an application pays only for what it uses.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType, ModuleType
from typing import Any, Protocol, TypeGuard, cast

from engine.core.errors import ConfigurationError
from engine.core.messages import Call, Completion, Delta
from engine.core.outcomes import Category, ProviderFailure


class Provider(Protocol):
    """What a driver needs. `close()` or `aclose()` are called where a provider has them.

    `generate` raises `ProviderFailure` when the provider failed, a missing finish reason included (`truncated`). A
    stream that ends without a `Delta.finish_reason` is a broken one: the driver says so, because only it knows
    whether the caller has seen something. Closing the iterator early closes the upstream connection.
    """

    def generate(self, call: Call) -> Completion | Awaitable[Completion]:
        """Answer as a whole; plain or `async def`."""
        ...

    def stream(self, call: Call) -> Iterator[Delta] | AsyncIterator[Delta]:
        """Answer event by event; a generator, plain or asynchronous."""
        ...


class SyncProvider(Protocol):
    """A provider whose methods block."""

    def generate(self, call: Call) -> Completion:
        """Answer as a whole."""
        ...

    def stream(self, call: Call) -> Iterator[Delta]:
        """Answer event by event."""
        ...


class AsyncProvider(Protocol):
    """A provider whose methods are awaited. It serves the one event loop it is first used from."""

    async def generate(self, call: Call) -> Completion:
        """Answer as a whole."""
        ...

    def stream(self, call: Call) -> AsyncIterator[Delta]:
        """Answer event by event."""
        ...


class Limit(StrEnum):
    """Which clock of `Limits` ran out; the `code` of a `timeout` failure.

    `TOTAL` is our caller's deadline and says nothing about the provider; drivers judge it apart.
    """

    CONNECT = "connect"
    FIRST_TOKEN = "first_token"  # noqa: S105  # no password
    ANSWER = "answer"
    IDLE = "idle"
    TOTAL = "total"


def timed_out(limit: Limit, seconds: float | None = None) -> ProviderFailure:
    """The failure of an attempt whose clock `limit`, set to `seconds`, ran out."""
    after = f" after {seconds:g} s" if seconds is not None else ""
    return ProviderFailure(Category.TIMEOUT, detail=f"{limit} limit{after}", code=limit.value)


def cut_by(failure: ProviderFailure) -> ProviderFailure:
    """The failure of an answer that an error inside its stream has cut short after content.

    It is truncated, whatever the error says, unless a safety rule cut it: that is no failure of the model, and going
    on at another one would be a way round the rule.
    """
    if failure.category is not Category.CONTENT_FILTER:
        failure.category = Category.TRUNCATED
    return failure


def is_async(provider: Provider) -> TypeGuard[AsyncProvider]:
    """Whether a provider is awaited.

    Raises:
        ConfigurationError: One of its two methods is asynchronous and the other is not.
    """
    generate = inspect.iscoroutinefunction(_function(provider.generate))
    stream = inspect.isasyncgenfunction(_function(provider.stream)) or inspect.iscoroutinefunction(
        _function(provider.stream)
    )
    if generate != stream:
        msg = (
            f"{type(provider).__name__}: generate() and stream() must both be plain or both be asynchronous; "
            f"generate() is {_manner(generate)}, stream() is {_manner(stream)}"
        )
        raise ConfigurationError(msg)
    return generate


def keeps_limits(provider: Provider) -> TypeGuard[AsyncProvider]:
    """Whether a provider's `generate` ends at every limit of its call by itself, by the event loop's clock.

    It says so by an attribute `keeps_limits`; a driver then sets no second clock. Drivers time all others themselves.
    """
    return bool(getattr(provider, "keeps_limits", False)) and is_async(provider)


def _function(method: Any) -> Any:
    """The function under partials and bound methods."""
    while hasattr(method, "func"):
        method = method.func
    return inspect.unwrap(method)


def _manner(asynchronous: bool) -> str:
    return "asynchronous" if asynchronous else "plain"


_KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "google-generativeai": ("engine.providers.gemini_legacy", "GeminiLegacyProvider"),
        "google-genai": ("engine.providers.gemini", "GeminiProvider"),
        "openai": ("engine.providers.openai_compatible", "OpenAIProvider"),
        "simulated": ("engine.providers.simulated", "SimulatedProvider"),
    }
)

KINDS: tuple[str, ...] = tuple(_KINDS)
"""The values that `providers.*.kind` may have."""


def build(kind: str, *, api_key: str | None = None, base_url: str = "", name: str = "") -> Provider:
    """Make the provider of one manager; no network call is made and no SDK imported until its first use.

    Args:
        kind: One of `KINDS`.
        api_key: The key, `None` where the endpoint wants none.
        base_url: Another endpoint than the provider's own, without a trailing slash; empty for its own. For
            `simulated` it picks the world: `simulated:NAME?seed=7&latency=0`.
        name: The provider's name in the configuration; a simulated one without `base_url` lives in the world of
            that name.

    Returns:
        A provider that belongs to the caller, who closes it.

    Raises:
        ConfigurationError: The kind is unknown.
    """
    try:
        attribute = _KINDS[kind][1]
    except KeyError:
        msg = f"providers.{name or '?'}.kind: {kind!r} is not a kind of provider; use one of {', '.join(KINDS)}"
        raise ConfigurationError(msg) from None
    factory = getattr(_module(kind), attribute)
    return cast("Provider", factory(api_key=api_key, base_url=base_url.rstrip("/"), name=name))


def load_library(kind: str) -> None:
    """Import what a kind is built on now, where the first call would: that takes a second or two of the call's clocks.

    Args:
        kind: One of `KINDS`.
    """
    load = getattr(_module(kind), "load_library", None)
    if load is not None:
        load()


def _module(kind: str) -> ModuleType:
    return importlib.import_module(_KINDS[kind][0])
