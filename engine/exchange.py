"""One manager in one process: its switchboard under a lock, and the flights of its requests.

A `Flight` is one request between a driver and the plan. The driver asks it for the next step, does the I/O, and
tells it what came of it; the flight keeps the lock, the clock and the books. So drivers hold nothing but I/O, and
the threaded manager, the asynchronous one and the simulation keep exactly the same books.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard

from engine.canaries import Canary
from engine.clock import Clock, SystemClock
from engine.core.agreement import Document, Vote
from engine.core.breaker import Transition
from engine.core.capability import Needs, needs_of, text_tokens
from engine.core.continuation import INSTRUCTION, continue_with
from engine.core.effects import (
    Attempt,
    BreakerMoved,
    Effects,
    Emit,
    ModelRefused,
    Outcome,
    PlanRequest,
    RequestMoved,
    Tried,
    Verdict,
    Wait,
)
from engine.core.errors import Cancelled, InternalError, InvalidRequest, Overloaded, StoreUnavailable, SwitchgearError
from engine.core.events import BreakerRecord, CanaryRecord, Record, Records
from engine.core.messages import JSON, Account, Call, Completion, Reply, Request, Role, Usage
from engine.core.plan import plan
from engine.core.policy import ManagerPolicy
from engine.core.switchboard import Adoption, Line, Switchboard
from engine.endings import cancelled
from engine.ids import new_id
from engine.providers.base import AsyncProvider, Provider, is_async, keeps_limits
from engine.recording import UNTRIED, Landed, account_of, request_record
from engine.tickets import Ticket
from engine.validation import Validator, check_schema

COMMIT_WITHIN = 30.0
"""Seconds an answer waits for its record under durability `commit`."""

QUEUE_RETRY_AFTER = 1.0
"""Seconds; the recorder empties a full queue in far less once the store takes records again."""

Step = Attempt | Wait | Verdict


class Sink(Protocol):
    """Where records go: the recorder, or a simulated world's."""

    @property
    def full(self) -> bool:
        """Whether the queue takes no further request."""
        ...

    def submit(self, records: Records, *, here: bool = False) -> Ticket:
        """Hand records over; never drops. `here`: the caller waits for the commit and may do it itself."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is to the fleet.

    Attributes:
        instance: Unique name of this process.
        host: The machine; a host has one vote.
    """

    instance: str
    host: str


class Exchange:
    """One manager in one process.

    Args:
        policy: The manager's settings.
        identity: Who this process is.
        sink: Where finished requests and transitions are recorded.
        providers: Providers by their name in the configuration.
        clock: Where time comes from.
        rng: Where random numbers come from.
        validators: Callables that may reject an answer.
        on_event: Called with the manager's name when a breaker moved, outside the lock.
        refuses: Says why no request can be taken on now, `None` when it can.
        stood_still: Seconds that this process stood still so far; only differences count.
        ids: Where ids of requests and records come from; ascending.
    """

    def __init__(
        self,
        policy: ManagerPolicy,
        *,
        identity: Identity,
        sink: Sink,
        providers: Mapping[str, Provider],
        clock: Clock | None = None,
        rng: random.Random | None = None,
        validators: Sequence[Validator] = (),
        on_event: Callable[[str], None] | None = None,
        refuses: Callable[[], SwitchgearError | None] | None = None,
        stood_still: Callable[[], float] = lambda: 0.0,
        ids: Callable[[], str] = new_id,
    ) -> None:
        self.policy = policy
        self.identity = identity
        self.sink = sink
        self.providers = providers
        self._asynchronous = {id(provider) for provider in providers.values() if is_async(provider)}
        self._punctual = {id(provider) for provider in providers.values() if keeps_limits(provider)}
        self.clock = clock or SystemClock()
        self.validators = tuple(validators)
        self.on_event = on_event
        self.refuses = refuses
        self.stood_still = stood_still
        self._excused = stood_still()
        self.new_id = ids
        self.random = (rng or random.Random()).random  # noqa: S311 - jitter, not a secret
        self.lock = threading.Lock()
        self.board = Switchboard(policy, self.clock.monotonic())
        self.in_flight = 0

    @property
    def name(self) -> str:
        """The manager's name."""
        return self.policy.name

    def provider(self, line: Line) -> Provider:
        """Who serves a line's model."""
        return self.providers[line.model.provider]

    def is_async(self, provider: Provider) -> TypeGuard[AsyncProvider]:
        """Whether a provider of this manager is awaited; looked up once, for asking costs more than a call."""
        return id(provider) in self._asynchronous

    def keeps_limits(self, provider: Provider) -> TypeGuard[AsyncProvider]:
        """Whether a provider's own clocks are as sure as the driver's, so that one of them is enough."""
        return id(provider) in self._punctual

    def begin(
        self,
        prompt: str | Sequence[JSON] | Request,
        *,
        streamed: bool = False,
        only: Role | None = None,
        canary: Canary | None = None,
    ) -> Flight:
        """Take a request on.

        Args:
            prompt: A string, messages, or a request.
            streamed: Whether the caller streams.
            only: Ask this role and no other: synthetic probes and canaries. An operator's test says so in the request.
            canary: What the answer is held to.

        Raises:
            Overloaded: The record queue is full, because the store does not take records.
            StoreUnavailable: The store cannot be written, and durability is `commit`.
        """
        request = Request.of(prompt, self.new_id)
        if request.only is not None:
            request, only = replace(request, synthetic=True), request.only
        refusal = self.refuses() if self.refuses is not None else None
        if refusal is None and self.sink.full:
            msg = "the record queue is full because the store is not keeping up; try again later"
            refusal = Overloaded(msg, retry_after=QUEUE_RETRY_AFTER)
        if refusal is not None:
            refusal.request_id = request.id
            refusal.account = Account(request.id, self.name, UNTRIED, UNTRIED, 0, None, self.board.document.epoch, 0)
            raise refusal
        return Flight(self, request, streamed=streamed, only=only, canary=canary)

    # -- what the fleet agent asks for, under the lock ---------------------------------------------------------

    def adopt(self, document: Document, *, estimate: bool = False) -> Adoption | None:
        """Take over a newer agreement; forced breakers are recorded.

        Args:
            document: The agreement.
            estimate: This process has just started: how long things have lasted is what the wall clock says.
        """
        wall_ms = self.clock.wall_ms() if estimate else None
        with self.lock:
            adoption = self.board.adopt(document, self.clock.monotonic(), wall_ms=wall_ms)
        if adoption is not None:
            self._record_moves(adoption.transitions)
        return adoption

    def vote(self) -> Vote:
        """This instance's opinion, and housekeeping with it."""
        with self.lock:
            self.excuse()
            now = self.clock.monotonic()
            moved = self.board.tick(now, self.random())
            vote = self.board.vote(self.identity.instance, self.identity.host, now)
        self._record_moves(moved)
        return vote

    def trip(self, role: Role, reason: str, request_id: str = "") -> None:
        """Open a breaker on an outside finding."""
        with self.lock:
            moved = self.board.lines[role].breaker.trip(self.clock.monotonic(), self.random(), reason, request_id)
        self._record_moves(tuple((role, transition) for transition in moved))

    def judged(self, role: Role, canary: str, *, passed: bool, request_id: str = "") -> None:
        """Take in what a canary found that another process of this host has asked."""
        with self.lock:
            self.excuse()
            now, rand = self.clock.monotonic(), self.random()
            moved = self.board.judged(role, canary, passed=passed, now=now, rand=rand, request_id=request_id)
        self._record_moves(tuple((role, transition) for transition in moved))

    def excuse(self) -> None:
        """Let no permit expire by the time that this process stood still; under the lock, before a breaker is asked."""
        stood_still = self.stood_still()
        if stood_still > self._excused:
            self.board.stood_still(stood_still - self._excused, self.clock.monotonic())
            self._excused = stood_still

    def _record_moves(self, moved: Sequence[tuple[Role, Transition]]) -> None:
        if moved:
            self.sink.submit([self.breaker_record(role, transition) for role, transition in moved])
            self.poke()

    def poke(self) -> None:
        """Tell the agent that there may be something to agree on."""
        if self.on_event is not None:
            self.on_event(self.name)

    def breaker_record(self, role: Role, transition: Transition) -> BreakerRecord:
        """A transition as the record keeps it."""
        return BreakerRecord(
            id=self.new_id(),
            ts_ms=self.clock.wall_ms(),
            manager=self.name,
            instance=self.identity.instance,
            role=role,
            model=self.policy.model(role).name,
            from_state=transition.from_state,
            to_state=transition.to_state,
            reason=transition.reason,
            evidence=transition.evidence,
        )


class Flight:
    """One request between its driver and its plan.

    Args:
        exchange: The manager.
        request: The request, with its id.
        streamed: Whether the caller streams.
        only: Ask this role and no other.
        canary: What the answer is held to.

    Attributes:
        finding: What the canary found, once there is an answer.
    """

    def __init__(
        self,
        exchange: Exchange,
        request: Request,
        *,
        streamed: bool,
        only: Role | None = None,
        canary: Canary | None = None,
    ) -> None:
        self.canary = canary
        self.finding: CanaryRecord | None = None
        self.exchange = exchange
        self.request = request
        self.streamed = streamed
        self.started = exchange.clock.monotonic()
        self.deadline = self.started + exchange.policy.timeouts.total
        self.first_content: float | None = None
        self.moved: RequestMoved | None = None
        self.refused: list[ModelRefused] = []
        self.board_epoch = exchange.board.document.epoch
        self._external = 0.0
        self._stepped = self.started
        self._stood_still = 0.0
        self._over = False
        self._step: Step | None = None
        self._tried: list[Tried] = []
        asked = PlanRequest(request, streamed, self.deadline, only, canary.name if canary is not None else "")
        self._effects: Effects[Verdict] = plan(asked, exchange.board, exchange.random, self.started, self._tried)
        with exchange.lock:
            exchange.in_flight += 1

    @property
    def needs(self) -> Needs:
        """What the request needs of a model."""
        return needs_of(self.request)

    def start(self) -> Step:
        """The first thing to do."""
        try:
            check_schema(self.request, self.exchange.policy)
        except InvalidRequest as error:
            error.request_id = self.request.id
            return self._given_up(error)
        return self._advance(None)

    def resume(self, outcome: Outcome | float) -> Step:
        """Tell what came of the last step, and get the next; a cancellation ends any step, and the request."""
        if isinstance(outcome, Outcome) and not isinstance(self._step, Attempt):
            return self._given_up(Cancelled("the caller went away", request_id=self.request.id))
        if isinstance(outcome, Outcome) and (stood_still := self.exchange.stood_still() - self._stood_still) > 0:
            outcome = replace(outcome, stood_still=stood_still)
        now = outcome if isinstance(outcome, float) else outcome.now
        self._external += now - self._stepped
        return self._advance(outcome)

    def _advance(self, answer: Outcome | float | None) -> Step:
        exchange = self.exchange
        records: list[Record] = []
        try:
            with exchange.lock:
                exchange.excuse()
                if answer is None:
                    self.board_epoch = exchange.board.document.epoch
                effect = self._effects.send(answer)
                while isinstance(effect, Emit):
                    self._note(effect, records)
                    effect = self._effects.send(None)
                self._step = effect
                return effect
        except StopIteration as end:
            self._leave()
            verdict: Verdict = end.value
            return verdict
        except BaseException:
            self._leave()
            raise
        finally:
            if records:
                exchange.sink.submit(records)
                exchange.poke()
            self._stepped, self._stood_still = exchange.clock.monotonic(), exchange.stood_still()

    def _note(self, effect: Emit, records: list[Record]) -> None:
        event = effect.event
        if isinstance(event, BreakerMoved):
            records.append(self.exchange.breaker_record(event.role, event.transition))
        elif isinstance(event, RequestMoved):
            self.moved = event
        else:
            self.refused.append(event)

    def abandon(self) -> None:
        """Give back what the plan holds; nothing is recorded."""
        with self.exchange.lock:
            self._effects.close()
        self._leave()

    def leave(self, *, shown: bool = False, usage: Usage | None = None) -> tuple[Landed, Ticket]:
        """The caller went away, in whatever step: neutral for everybody, but on record.

        Args:
            shown: Whether content had reached the caller.
            usage: Tokens of the attempt that was under way, as far as known.
        """
        now = self.exchange.clock.monotonic()
        step = self.resume(cancelled(self._stepped, now, shown=shown, usage=usage))
        assert isinstance(step, Verdict)
        return self.land(step)

    def crash(self, error: Exception) -> None:
        """A mistake in our code, a validator or a provider of the caller's own ends the request.

        What the plan holds is given back, and the request is on record with the error's own code or as `internal`.
        The error itself surfaces unchanged, so it is the caller's to raise.
        """
        told = error if isinstance(error, SwitchgearError) else InternalError(type(error).__name__)
        told.request_id = told.request_id or self.request.id
        with suppress(SwitchgearError):  # a closed recorder must not hide the mistake
            self.land(self._given_up(told))

    def keep(self, attempt: Attempt, outcome: Outcome) -> None:
        """Have an attempt on record although something of ours broke before the plan heard of it."""
        self._tried.append(Tried(attempt, outcome))

    def uncommitted(self, verdict: Verdict, ticket: Ticket) -> SwitchgearError:
        """What the caller gets in place of an answer whose record the store did not take."""
        error = ticket.error
        if isinstance(error, SwitchgearError):  # one for all whose records wait, so everybody gets a copy
            told = type(error)(error.message, request_id=self.request.id, retry_after=error.retry_after)
        else:
            slow = f"the store took more than {COMMIT_WITHIN:.0f} s to commit the record: look at the disk's load"
            told = StoreUnavailable(slow, request_id=self.request.id)
        told.account = account_of(verdict, self.request, self.exchange.policy, overhead_us=0)
        return told

    def _given_up(self, error: SwitchgearError) -> Verdict:
        """The verdict when the plan could not come to one."""
        self._external += self.exchange.clock.monotonic() - self._stepped
        self.abandon()
        last = self._tried[-1].attempt.role if self._tried else None
        active = self.exchange.board.document.active
        return Verdict(active, self.board_epoch, self.needs, role=last, tried=self._tried, error=error)

    def _leave(self) -> None:
        with self.exchange.lock:
            if not self._over:
                self._over = True
                self.exchange.in_flight -= 1

    # -- what a driver needs for an attempt --------------------------------------------------------------------

    def call(self, attempt: Attempt, delivered: str = "") -> Call:
        """The provider's view of an attempt; `delivered` is the text the caller has already got."""
        request, prefill = self.request, ""
        if attempt.continuation is not None:
            instruction = self.exchange.policy.continuation_instruction or INSTRUCTION
            spent = round(text_tokens(delivered))
            request, prefill = continue_with(request, delivered, attempt.continuation, instruction, spent_tokens=spent)
        return Call(request, attempt.line.model.name, attempt.limits, prefill, attempt.n)

    def provisional(self, attempt: Attempt, completion: Completion) -> Reply:
        """The reply a validator looks at."""
        return Reply(
            text=completion.text,
            model=attempt.line.model.name,
            role=attempt.role,
            attempts=attempt.n,
            usage=completion.usage,
            request_id=self.request.id,
            finish_reason=completion.finish_reason,
            tool_calls=completion.tool_calls,
            epoch=self.board_epoch,
            raw=completion.raw,
            refusal=completion.refusal,
        )

    def opening(self, attempt: Attempt) -> Account:
        """How the request was handled up to the first content of a stream."""
        return Account(
            request_id=self.request.id,
            manager=self.exchange.name,
            model=attempt.line.model.name,
            role=attempt.role,
            attempts=attempt.n,
            failover=str(attempt.cause) if attempt.cause else None,
            epoch=self.board_epoch,
            overhead_us=round(max(0.0, self._stepped - self.started - self._external) * 1e6),
        )

    # -- the end -----------------------------------------------------------------------------------------------

    def land(self, verdict: Verdict, *, here: bool = False) -> tuple[Landed, Ticket]:
        """Write the request into the books.

        Args:
            verdict: What the plan decided.
            here: The calling thread waits for the commit next.

        Returns:
            What the caller gets, and the ticket of its record: under durability `commit` wait for that first.
        """
        exchange = self.exchange
        now = exchange.clock.monotonic()
        overhead = max(0.0, now - self.started - self._external)
        landed = Landed.of(verdict, self.request, exchange.policy, overhead_us=round(overhead * 1e6))
        wall_ms = exchange.clock.wall_ms()

        def records() -> tuple[Record, ...]:
            record = request_record(self, verdict, landed, now, wall_ms)
            return (record,) if self.finding is None else (record, self.finding)

        return landed, exchange.sink.submit(records, here=here)
