"""`AsyncDualModelManager`: two models behind one call, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from engine.canaries import Canary
from engine.config import Config
from engine.control import Actor
from engine.core.agreement import Document
from engine.core.effects import (
    Attempt,
    Outcome,
    Verdict,
    Wait,
)
from engine.core.errors import SwitchgearError
from engine.core.messages import JSON, Call, Chunk, Completion, Reply, Request, Role
from engine.core.outcomes import ProviderFailure
from engine.deadlines import deadlines, timeout
from engine.endings import LimitPassed, answer_limit, failed, succeeded
from engine.exchange import COMMIT_WITHIN, Flight
from engine.feeds import AsyncFeed, PassedTime, open_async_feed
from engine.instance import Instance
from engine.judging import judged
from engine.managed import Managed
from engine.passage import Passage
from engine.providers.base import Provider
from engine.recording import answer_of
from engine.status import ManagerStatus, status_of
from engine.tickets import Ticket
from engine.validation import Validator

log = logging.getLogger(__name__)


class AsyncDualModelManager(Managed):
    """A primary and a secondary model behind one awaitable call, for one event loop.

    Args:
        config: A configuration, its path, or `None` for `$SWITCHGEAR_CONFIG` or `./data/switchgear.toml`.
        name: The manager's name in it.
        providers: Providers by name that replace configured ones.
        validators: `check(request, reply)` callables that raise `SemanticFailure` to reject an answer.
        instance: The process this manager belongs to; by default one of its own.

    Raises:
        ConfigurationError: The configuration cannot work; says what to change. No network call is made here.
    """

    def __init__(
        self,
        config: Config | Path | str | None,
        name: str,
        *,
        providers: Mapping[str, Provider] | None = None,
        validators: Sequence[Validator] = (),
        instance: Instance | None = None,
    ) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._probes: set[asyncio.Task[None]] = set()
        super().__init__(config, name, providers=providers, validators=validators, instance=instance)

    @property
    def total(self) -> float:
        """Seconds after which a request is given up."""
        return self._exchange.policy.timeouts.total

    async def start(self) -> None:
        """Begin to agree with other instances; the first call does it too."""
        self._loop = asyncio.get_running_loop()
        if not self._instance.started:
            await asyncio.to_thread(self._instance.start)

    # -- calls -------------------------------------------------------------------------------------------------

    async def generate(self, prompt: str | Sequence[JSON] | Request) -> Reply:
        """Ask, and get the whole answer.

        Args:
            prompt: A string, OpenAI-shaped messages, or a `Request`.

        Returns:
            The answer with who gave it, after its record is committed (durability `commit`).

        Raises:
            SwitchgearError: One of its kinds, with `code`, `request_id` and, where it helps, `retry_after`.
        """
        if self._loop is not asyncio.get_running_loop() or not self._instance.started:
            await self.start()
        return await self._generate(prompt)

    async def _generate(
        self, prompt: str | Sequence[JSON] | Request, only: Role | None = None, canary: Canary | None = None
    ) -> Reply:
        flight = self._exchange.begin(prompt, only=only, canary=canary)
        try:
            step = flight.start()
            while not isinstance(step, Verdict):
                step = flight.resume(
                    await self._ask(flight, step) if isinstance(step, Attempt) else await self._pause(step)
                )
        except asyncio.CancelledError:
            flight.leave()
            raise
        except Exception as error:
            flight.crash(error)
            raise
        except BaseException:
            flight.abandon()
            raise
        landed, ticket = flight.land(step)
        await _settle(flight, step, ticket)
        return answer_of(landed)

    async def _pause(self, wait: Wait) -> float:
        clock = self._instance.clock
        await asyncio.sleep(max(0.0, wait.until - clock.monotonic()))
        return clock.monotonic()

    async def _ask(self, flight: Flight, attempt: Attempt) -> Outcome:
        """One attempt on one model."""
        self._still_open()
        clock = self._instance.clock
        provider, call = self._exchange.provider(attempt.line), flight.call(attempt)
        started = clock.monotonic()
        try:
            completion = await self._complete(provider, call, answer_limit(attempt))
        except (ProviderFailure, LimitPassed) as error:
            return failed(error, started, clock.monotonic())
        return judged(flight, attempt, succeeded(completion, started, clock.monotonic()), started)

    async def _complete(self, provider: Provider, call: Call, limit: LimitPassed) -> Completion:
        if self._exchange.keeps_limits(provider):
            return await provider.generate(call)
        try:
            async with timeout(limit.seconds) as clock:
                if self._exchange.is_async(provider):
                    return await provider.generate(call)
                return await self._in_thread(provider, call)
        except TimeoutError:
            if clock.expired:
                raise limit from None
            raise

    async def _in_thread(self, provider: Provider, call: Call) -> Completion:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended.set)

        job = self._workers.submit(lambda: provider.generate(call), tell)
        try:
            await ended.wait()
        except BaseException:
            job.give_up()
            raise
        completion = job.result()
        assert isinstance(completion, Completion)
        return completion

    # -- streams -----------------------------------------------------------------------------------------------

    async def stream(self, prompt: str | Sequence[JSON] | Request) -> AsyncGenerator[Chunk, None]:
        """Ask, and get the answer piece by piece.

        Delivered text is never altered: where a model breaks off, the other one goes on behind it. The last chunk,
        the one with the finish reason, comes after the record is committed. Close the iterator (`aclose`, or
        `contextlib.aclosing`) to leave early; the model's connection is closed with it.

        Raises:
            SwitchgearError: Before the first chunk, as `generate` does; after it `StreamBroken`, when the answer
                could not be finished.
        """
        await self.start()
        flight = self._exchange.begin(prompt, streamed=True)
        passage = Passage(flight)
        try:
            step = flight.start()
            while not isinstance(step, Verdict):
                if isinstance(step, Wait):
                    step = flight.resume(await self._pause(step))
                    continue
                self._still_open()
                feed = open_async_feed(self._exchange.provider(step.line), passage.begin(step), self._workers)
                async with contextlib.aclosing(_passing(passage, feed)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                step = flight.resume(passage.outcome())
        except (GeneratorExit, asyncio.CancelledError):
            passage.left()
            raise
        except Exception as error:
            flight.crash(error)
            raise
        except BaseException:
            flight.abandon()
            raise
        landed, ticket = passage.land(step)
        await _settle(flight, step, ticket)
        answer_of(landed)
        for chunk in passage.last(landed):
            yield chunk

    # -- probes ------------------------------------------------------------------------------------------------

    def _aside(self, request: Request, role: Role, canary: Canary | None, done: Callable[[], None]) -> None:
        async def run() -> None:
            try:
                await self._generate(request, role, canary)
            except SwitchgearError as error:
                self._unanswered(canary, role, error)
            finally:
                done()

        def spawn() -> None:
            task = asyncio.ensure_future(run())
            self._probes.add(task)
            task.add_done_callback(self._probes.discard)

        try:
            if self._loop is not None and not self._closed:
                self._loop.call_soon_threadsafe(spawn)
                return
        except RuntimeError:
            pass  # the loop is closed
        done()

    # -- looking and acting ------------------------------------------------------------------------------------

    async def status(self) -> ManagerStatus:
        """What is active, since when and why; breakers, override and the way back, as this process knows them."""
        await self.start()
        return status_of(self._exchange, self._instance)

    async def override(
        self,
        role: Role | str,
        *,
        reason: str,
        ttl: float | str | None = None,
        by: str = "library",
        strict: bool = False,
        epoch: int | None = None,
    ) -> Document:
        """Pin a model on every instance; arguments as for `DualModelManager.override`."""
        await self.start()
        control = self._instance.control()
        return await asyncio.to_thread(
            control.set_override, self.name, role, reason=reason, ttl=ttl, actor=Actor(by), strict=strict, epoch=epoch
        )

    async def clear_override(
        self, *, reason: str = "cleared", by: str = "library", epoch: int | None = None
    ) -> Document:
        """Return to automatic, through gate and ramp where that leads back to primary."""
        await self.start()
        control = self._instance.control()
        return await asyncio.to_thread(control.clear_override, self.name, reason=reason, actor=Actor(by), epoch=epoch)

    async def close(self) -> None:
        """Commit what is queued and close connections; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        probes = list(self._probes)
        for task in probes:
            task.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        if self._own:
            await asyncio.to_thread(self._instance.close)
        for provider in self._exchange.providers.values():
            await _close(provider)
        self._workers.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


async def _passing(passage: Passage, feed: AsyncFeed) -> AsyncGenerator[Chunk, None]:
    """One attempt's stream."""
    try:
        while True:
            over = True
            try:
                delta = await feed.next(passage.allowance())
                over = delta is None
                seen = passage.end() if delta is None else passage.take(delta)
            except PassedTime:
                seen = passage.ran_out()
            except ProviderFailure as failure:
                over, seen = True, passage.fail(failure)
            for chunk in seen:
                yield chunk
            if over:
                return
    finally:
        await feed.close()


async def _settle(flight: Flight, verdict: Verdict, ticket: Ticket) -> None:
    """Wait until a request is on record; what a caller has seen is never missing there."""
    if not ticket.done:
        committed = ticket.as_future()
        clock = deadlines().call_later(COMMIT_WITHIN, lambda: _enough(committed))
        try:
            with contextlib.suppress(SwitchgearError):
                await committed
        finally:
            clock.cancel()
    if not ticket.done or ticket.error is not None:
        raise flight.uncommitted(verdict, ticket)


def _enough(committed: asyncio.Future[None]) -> None:
    """Wait no longer; the ticket says that it is not done."""
    if not committed.done():
        committed.set_result(None)


async def _close(provider: object) -> None:
    """Close a provider that can be closed; one that fails must not keep the rest open."""
    try:
        if hasattr(provider, "aclose"):
            await provider.aclose()
        elif hasattr(provider, "close"):
            await asyncio.to_thread(provider.close)
    except Exception:
        log.exception("a provider of type %s could not be closed", type(provider).__name__)
