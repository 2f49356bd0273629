"""A provider without a network: models of a `World`, played with real waiting, or none.

Cheap enough for thousands of calls a second: no sockets, no tasks, no timers beyond one sleep per wait, and none at
all where a model has no latency. The time limits of a call are kept exactly, by arithmetic.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

from engine.core.errors import ConfigurationError
from engine.core.messages import JSON, Call, Completion, Delta, Limits, Usage
from engine.core.outcomes import Category, ProviderFailure
from engine.providers.base import Limit, timed_out
from engine.providers.world import INSTANT, TYPICAL, Play, World

_worlds: dict[str, World] = {}
_worlds_lock = threading.Lock()


def world(name: str = "default", *, seed: int = 0, latency: float = 1.0) -> World:
    """The world of that name in this process, made when it is new.

    Args:
        name: Providers with the same name see the same models and faults.
        seed: Decides its draws; only looked at when the world is new.
        latency: Factor on typical speeds (0.35 s to the first token); 0 waits for nothing. Only for a new world.
    """
    with _worlds_lock:
        if name not in _worlds:
            typical = TYPICAL
            scaled = type(typical)(typical.first_token * latency, typical.per_event * latency, typical.spread)
            _worlds[name] = World(seed, scaled if latency else INSTANT)
        return _worlds[name]


class SimulatedProvider:
    """Answers from a world.

    Args:
        api_key: Ignored.
        base_url: `simulated:NAME?seed=7&latency=0`; empty for the world named like the provider.
        name: The provider's name in the configuration.
        inhabits: The world itself, for code that has one at hand.

    Raises:
        ConfigurationError: The base_url has another shape.
    """

    def __init__(
        self, *, api_key: str | None = None, base_url: str = "", name: str = "", inhabits: World | None = None
    ) -> None:
        del api_key
        self.world = inhabits if inhabits is not None else _selected(base_url, name or "default")

    async def generate(self, call: Call) -> Completion:
        """Answer as a whole.

        Raises:
            ProviderFailure: As the world's faults say, or a limit of the call passed.
        """
        play = self.world.play(call, time.monotonic())
        limits = call.limits
        bounds = [(limits.answer, Limit.ANSWER), (limits.total, Limit.TOTAL)]
        given = [(seconds, limit) for seconds, limit in bounds if seconds is not None]
        await _wait(play.duration, *min(given, default=(None, Limit.ANSWER)))
        return completed(play, call.model)

    async def stream(self, call: Call) -> AsyncIterator[Delta]:
        """Answer event by event.

        Raises:
            ProviderFailure: As the world's faults say, or a limit of the call passed.
        """
        play = self.world.play(call, time.monotonic())
        elapsed, begun = 0.0, False
        for beat in play.beats:
            await _wait(beat.after, *_bound(call.limits, elapsed, begun=begun))
            elapsed, begun = elapsed + beat.after, True
            yield beat.delta
        await _wait(None if play.silent else play.after, *_bound(call.limits, elapsed, begun=begun))
        if play.failure is not None:
            raise fresh(play.failure)


def _selected(base_url: str, name: str) -> World:
    if not base_url:
        return world(name)
    scheme, _, rest = base_url.partition(":")
    place, _, query = rest.partition("?")
    try:
        given = {key: float(values[-1]) for key, values in parse_qs(query, strict_parsing=bool(query)).items()}
    except ValueError:
        given = {"": 0.0}
    if scheme != "simulated" or not given.keys() <= {"seed", "latency"}:
        msg = f"providers.{name}.base_url: {base_url!r} names no simulated world; write simulated:NAME?seed=7&latency=0"
        raise ConfigurationError(msg)
    return world(place.strip("/") or name, seed=int(given.get("seed", 0)), latency=given.get("latency", 1.0))


def _bound(limits: Limits, elapsed: float, *, begun: bool) -> tuple[float | None, Limit]:
    """The limit that the next wait meets first, seconds from now."""
    own = (limits.idle, Limit.IDLE) if begun else (limits.first_token, Limit.FIRST_TOKEN)
    total = None if limits.total is None else max(0.0, limits.total - elapsed)
    if total is not None and (own[0] is None or total < own[0]):
        return total, Limit.TOTAL
    return own


async def _wait(seconds: float | None, bound: float | None, limit: Limit) -> None:
    """Sleep; `None` is for ever.

    Raises:
        ProviderFailure: The bound came first.
    """
    if bound is not None and (seconds is None or seconds > bound):
        await asyncio.sleep(bound)
        raise timed_out(limit, bound)
    if seconds is None:
        await asyncio.get_running_loop().create_future()
    elif seconds > 0:
        await asyncio.sleep(seconds)


def completed(play: Play, model: str) -> Completion:
    """A play that is over, as one whole answer.

    Raises:
        ProviderFailure: It ended in one, or without a finish reason.
    """
    if play.failure is not None:
        raise fresh(play.failure, whole=True)
    deltas = [beat.delta for beat in play.beats]
    reason = deltas[-1].finish_reason if deltas else None
    if reason is None:
        raise ProviderFailure(Category.TRUNCATED, 200, detail="no finish reason", code="no_finish_reason")
    return Completion(
        text="".join(delta.text for delta in deltas),
        finish_reason=reason,
        usage=deltas[-1].usage or Usage(),
        tool_calls=tuple(_whole(tool) for delta in deltas for tool in delta.tool_calls),
        model=model,
        native_finish=str(reason),
    )


def fresh(failure: ProviderFailure, *, whole: bool = False) -> ProviderFailure:
    """The failure as a new exception: one that is raised twice would collect tracebacks.

    Args:
        failure: A play's ending.
        whole: Whether a whole answer was asked for; of that nothing was delivered when it breaks.
    """
    category = Category.CONNECTION if whole and failure.category is Category.TRUNCATED else failure.category
    return ProviderFailure(category, failure.status_code, failure.retry_after, failure.detail, code=failure.code)


def _whole(tool: JSON) -> JSON:
    """A tool call without its stream index."""
    return {key: value for key, value in tool.items() if key != "index"}
