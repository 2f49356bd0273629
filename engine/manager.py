"""`DualModelManager`: two models behind one call, for threads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, Self

from engine import standstill
from engine.canaries import Canary
from engine.config import Config
from engine.control import Actor, Control
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
from engine.endings import LimitPassed, answer_limit, failed, succeeded
from engine.exchange import COMMIT_WITHIN, Flight
from engine.feeds import PassedTime, open_feed
from engine.instance import Instance
from engine.judging import judged
from engine.loop import LoopThread
from engine.managed import Managed
from engine.passage import Passage
from engine.providers.base import AsyncProvider, Provider
from engine.recording import answer_of
from engine.status import ManagerStatus, status_of
from engine.tickets import Ticket
from engine.validation import Validator

log = logging.getLogger(__name__)

CLOSE_WITHIN = 5.0
"""Seconds that closing an asynchronous provider's connections may take."""


class DualModelManager(Managed):
    """A primary and a secondary model behind one call, usable from any number of threads.

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
        self._loop = LoopThread()
        super().__init__(config, name, providers=providers, validators=validators, instance=instance)

    # -- calls -------------------------------------------------------------------------------------------------

    def generate(self, prompt: str | Sequence[JSON] | Request) -> Reply:
        """Ask, and get the whole answer.

        Args:
            prompt: A string, OpenAI-shaped messages, or a `Request`.

        Returns:
            The answer with who gave it, after its record is committed (durability `commit`).

        Raises:
            SwitchgearError: One of its kinds, with `code`, `request_id` and, where it helps, `retry_after`.
        """
        self._instance.start()
        return self._generate(prompt)

    def _generate(
        self, prompt: str | Sequence[JSON] | Request, only: Role | None = None, canary: Canary | None = None
    ) -> Reply:
        flight = self._exchange.begin(prompt, only=only, canary=canary)
        try:
            step = flight.start()
            while not isinstance(step, Verdict):
                step = flight.resume(self._ask(flight, step) if isinstance(step, Attempt) else self._pause(step))
        except Exception as error:
            flight.crash(error)
            raise
        except BaseException:
            flight.abandon()
            raise
        landed, ticket = flight.land(step, here=True)
        _settle(flight, step, ticket)
        return answer_of(landed)

    def _pause(self, wait: Wait) -> float:
        clock = self._instance.clock
        time.sleep(max(0.0, wait.until - clock.monotonic()))
        return clock.monotonic()

    def _ask(self, flight: Flight, attempt: Attempt) -> Outcome:
        """One attempt on one model."""
        self._still_open()
        clock = self._instance.clock
        provider, call = self._exchange.provider(attempt.line), flight.call(attempt)
        started = clock.monotonic()
        try:
            completion = self._complete(provider, call, answer_limit(attempt))
        except (ProviderFailure, LimitPassed) as error:
            return failed(error, started, clock.monotonic())
        outcome = succeeded(completion, started, clock.monotonic())
        return judged(flight, attempt, outcome, started)

    def _complete(self, provider: Provider, call: Call, limit: LimitPassed) -> Completion:
        if self._exchange.is_async(provider):
            future = self._loop.submit(_completed(provider, call))
            try:
                if not standstill.wait(lambda seconds: bool(futures.wait((future,), seconds).done), limit.seconds):
                    raise limit
            finally:
                future.cancel()
            try:
                return future.result()
            except futures.CancelledError:
                self._still_open()
                raise
        job = self._workers.submit(lambda: provider.generate(call))
        ended = False
        try:
            ended = standstill.wait(job.wait, limit.seconds)
        finally:
            if not ended:
                job.give_up()
        if not ended:
            raise limit
        completion = job.result()
        assert isinstance(completion, Completion)
        return completion

    # -- streams -----------------------------------------------------------------------------------------------

    def stream(self, prompt: str | Sequence[JSON] | Request) -> Iterator[Chunk]:
        """Ask, and get the answer piece by piece.

        Delivered text is never altered: where a model breaks off, the other one goes on behind it. The last chunk,
        the one with the finish reason, comes after the record is committed.

        Raises:
            SwitchgearError: Before the first chunk, as `generate` does; after it `StreamBroken`, when the answer
                could not be finished.
        """
        self._instance.start()
        return self._stream(prompt)

    def _stream(self, prompt: str | Sequence[JSON] | Request) -> Iterator[Chunk]:
        flight = self._exchange.begin(prompt, streamed=True)
        passage = Passage(flight)
        try:
            step = flight.start()
            while not isinstance(step, Verdict):
                if isinstance(step, Wait):
                    step = flight.resume(self._pause(step))
                    continue
                yield from self._pass(passage, step)
                step = flight.resume(passage.outcome())
        except GeneratorExit:
            passage.left()
            raise
        except Exception as error:
            flight.crash(error)
            raise
        except BaseException:
            flight.abandon()
            raise
        landed, ticket = passage.land(step, here=True)
        _settle(flight, step, ticket)
        answer_of(landed)
        yield from passage.last(landed)

    def _pass(self, passage: Passage, attempt: Attempt) -> Iterator[Chunk]:
        """One attempt's stream."""
        self._still_open()
        call = passage.begin(attempt)
        feed = open_feed(self._exchange.provider(attempt.line), call, self._workers, self._loop)
        try:
            while True:
                try:
                    delta = feed.next(passage.allowance())
                except PassedTime:
                    yield from passage.ran_out()
                    return
                if delta is None:
                    yield from passage.end()
                    return
                yield from passage.take(delta)
        except ProviderFailure as failure:
            yield from passage.fail(failure)
        except asyncio.CancelledError:
            self._still_open()
            raise
        finally:
            feed.close()

    # -- probes ------------------------------------------------------------------------------------------------

    def _aside(self, request: Request, role: Role, canary: Canary | None, done: Callable[[], None]) -> None:
        def run() -> None:
            try:
                self._generate(request, role, canary)
            except SwitchgearError as error:
                self._unanswered(canary, role, error)
            finally:
                done()

        self._workers.submit(run)

    # -- looking and acting ------------------------------------------------------------------------------------

    def status(self) -> ManagerStatus:
        """What is active, since when and why; breakers, override and the way back, as this process knows them."""
        self._instance.start()
        return status_of(self._exchange, self._instance)

    def override(
        self,
        role: Role | str,
        *,
        reason: str,
        ttl: float | str | None = None,
        by: str = "library",
        strict: bool = False,
        epoch: int | None = None,
    ) -> Document:
        """Pin a model on every instance.

        Args:
            role: `primary` or `secondary`.
            reason: Why; the audit log keeps it.
            ttl: How long it lasts, seconds or text such as `30m`; an hour by default.
            by: Who acts.
            strict: Without fallback to the other model.
            epoch: The epoch this was decided on; `Conflict` when it has moved.
        """
        self._instance.start()
        return self._control().set_override(
            self.name, role, reason=reason, ttl=ttl, actor=Actor(by), strict=strict, epoch=epoch
        )

    def clear_override(self, *, reason: str = "cleared", by: str = "library", epoch: int | None = None) -> Document:
        """Return to automatic, through gate and ramp where that leads back to primary."""
        self._instance.start()
        return self._control().clear_override(self.name, reason=reason, actor=Actor(by), epoch=epoch)

    def _control(self) -> Control:
        return self._instance.control()

    def close(self) -> None:
        """Commit what is queued and end this manager's threads; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._own:
            self._instance.close()
        for provider in self._exchange.providers.values():
            _close(provider, self._loop)
        self._workers.close()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


async def _completed(provider: AsyncProvider, call: Call) -> Completion:
    return await provider.generate(call)


def _settle(flight: Flight, verdict: Verdict, ticket: Ticket) -> None:
    """Wait until a request is on record; what a caller has seen is never missing there."""
    if not standstill.wait(ticket.wait, COMMIT_WITHIN) or ticket.error is not None:
        raise flight.uncommitted(verdict, ticket)


def _close(provider: Any, loop: LoopThread) -> None:
    """Close a provider that can be closed, whichever manner it has; one that fails must not keep the rest open."""
    try:
        if hasattr(provider, "aclose"):
            loop.submit(provider.aclose()).result(CLOSE_WITHIN)
        elif hasattr(provider, "close"):
            provider.close()
    except Exception:
        log.exception("a provider of type %s could not be closed", type(provider).__name__)
