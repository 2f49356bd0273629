"""A stream's passage from its models to its caller, whichever driver carries the events.

It runs the clocks of a stream (first token, idle, total), holds back what must not be seen yet, and turns every
ending into an outcome for the plan. What is held back: everything before the first content, so an early error is an
ordinary failover, and the event with the finish reason, which goes out when the record is committed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from engine.core.capability import text_tokens
from engine.core.continuation import EMPTY, could_end
from engine.core.effects import (
    Attempt,
    Outcome,
    Verdict,
)
from engine.core.messages import JSON, Account, Call, Chunk, Completion, Delta, FinishReason, Usage
from engine.core.outcomes import Category, ProviderFailure
from engine.core.stream import StreamJoiner, unfinished
from engine.core.toolcalls import whole_calls
from engine.endings import LimitPassed, failed
from engine.exchange import Flight
from engine.feeds import PassedTime
from engine.judging import judged
from engine.providers.base import Limit
from engine.recording import Landed, account_of
from engine.tickets import Ticket

AFTER_FINISH: Final = 2.0
"""Seconds that are waited for usage once a finish reason came; its absence is no failure."""


class Passage:
    """One streamed request.

    Args:
        flight: The request's flight.
    """

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._clock = flight.exchange.clock
        self._joiner = StreamJoiner(flight.request)
        self._attempt: Attempt | None = None
        self._started = 0.0
        self._heard = 0.0
        self._ttft: float | None = None
        self._usage: Usage | None = None
        self._usage_event: JSON | None = None
        self._attempt_text = 0.0
        self._said = False
        self._refusal = ""
        self._held: list[tuple[Delta, Attempt]] = []
        self._tool_calls: list[Any] = []
        self._finish: FinishReason | None = None
        self._account: Account | None = None
        self._ended = Outcome(Category.CANCELLED, self._started, 0.0)
        self._whole = False

    # -- one attempt -------------------------------------------------------------------------------------------

    def begin(self, attempt: Attempt) -> Call:
        """Start an attempt, behind whatever was delivered before."""
        self._attempt = attempt
        self._started = self._heard = self._clock.monotonic()
        self._ttft, self._usage, self._attempt_text, self._said = None, None, 0.0, False
        self._held.clear()
        self._refusal = ""
        self._tool_calls.clear()
        self._finish = None
        self._joiner.begin(attempt.continuation)
        return self._flight.call(attempt, self._joiner.delivered)

    def patience(self) -> float:
        """Seconds until the next clock runs out."""
        return max(0.0, self._next_limit()[0] - self._clock.monotonic())

    def allowance(self) -> float:
        """Seconds that may be waited for the next event.

        Raises:
            PassedTime: The deadline is over, whatever a slow reader has left to read.
        """
        if self._clock.monotonic() >= self._flight.deadline:
            raise PassedTime
        return self.patience()

    def _next_limit(self) -> tuple[float, LimitPassed]:
        assert self._attempt is not None
        limits = self._attempt.limits
        total = (self._started + (limits.total or 0.0), LimitPassed(Limit.TOTAL, limits.total or 0.0))
        if self._joiner.complete:
            return min(total, (self._heard + AFTER_FINISH, LimitPassed(Limit.IDLE, AFTER_FINISH)), key=_when)
        if self._ttft is None:
            patience = limits.first_token
            own = (self._started + (patience or 0.0), LimitPassed(Limit.FIRST_TOKEN, patience or 0.0))
        else:
            patience = limits.idle
            own = (self._heard + (patience or 0.0), LimitPassed(Limit.IDLE, patience or 0.0))
        return total if patience is None else min(total, own, key=_when)

    def take(self, delta: Delta) -> list[Chunk]:
        """An event of the provider; returns what the caller may see now."""
        assert self._attempt is not None
        if delta.alive:
            self._heard = self._clock.monotonic()
            if self._ttft is None:
                self._ttft = self._heard - self._started
        if delta.usage is not None:
            self._usage, self._usage_event = delta.usage, delta.raw
        self._attempt_text += text_tokens(delta.text or delta.refusal)
        self._said = self._said or bool(delta.text.strip())
        return self._pass(self._joiner.feed(delta))

    def _pass(self, deltas: tuple[Delta, ...]) -> list[Chunk]:
        assert self._attempt is not None
        seen: list[Chunk] = []
        for delta in deltas:
            if delta.has_content and self._held:
                seen += self._reopened(delta.index)
            if delta.finish_reason is not None or self._joiner.finished:
                self._held.append((delta, self._attempt))
                if delta.index == 0:
                    self._finish = delta.finish_reason or self._finish
            else:
                seen.append(_chunk(delta, self._attempt))
            if delta.index == 0:
                self._tool_calls.extend(delta.tool_calls)
                self._refusal += delta.refusal
        if seen and self._flight.first_content is None:
            self._flight.first_content = self._clock.monotonic()
            seen[0] = replace(seen[0], account=self._flight.opening(self._attempt))
        return seen

    def _reopened(self, index: int) -> list[Chunk]:
        """What was held with a finish of a choice that goes on all the same; returns its content."""
        ended = [held for held in self._held if held[0].index == index and held[0].finish_reason is not None]
        self._held = [held for held in self._held if held not in ended]
        return [_chunk(unfinished(delta), attempt) for delta, attempt in ended if delta.has_content]

    # -- how an attempt ends -----------------------------------------------------------------------------------

    def end(self) -> list[Chunk]:
        """The provider's stream is over: a finish reason makes it whole, anything else is a break."""
        if not self._joiner.finished:
            return self.fail(ProviderFailure(Category.TRUNCATED, 200, detail="stream ended without a finish reason"))
        assert self._attempt is not None
        if self._adds_nothing(self._attempt):
            return self._failed(ProviderFailure(Category.SEMANTIC, 200, detail="nothing was added", code=EMPTY))
        seen = self._pass(self._joiner.flush())
        now = self._clock.monotonic()
        completion = self._completion(self._spent())
        self._ended = Outcome(
            Category.OK, now, now - self._started, ttft=self._ttft, completion=completion, shown=self._joiner.shown
        )
        self._whole = True
        return seen

    def ran_out(self) -> list[Chunk]:
        """No event came in time: the end after a finish reason, a failure before one."""
        if self._joiner.complete:
            return self.end()
        return self.fail(self._next_limit()[1])

    def fail(self, error: ProviderFailure | LimitPassed) -> list[Chunk]:
        """The provider failed; returns what was held at the seam, for it was good."""
        if self._joiner.complete:
            return self.end()
        return self._failed(error)

    def _adds_nothing(self, attempt: Attempt) -> bool:
        """Whether a continuation stopped without a word where the text cannot have ended; white space is no word."""
        if attempt.continuation is None or self._said or self._tool_calls:
            return False
        return self._finish is FinishReason.STOP and not could_end(self._joiner.delivered)

    def _failed(self, error: ProviderFailure | LimitPassed) -> list[Chunk]:
        seen = self._pass(self._joiner.flush())
        self._ended = failed(
            error,
            self._started,
            self._clock.monotonic(),
            ttft=self._ttft,
            shown=self._joiner.shown,
            resumable=self._joiner.resumable,
            usage=self._spent() if self._attempt_text or self._usage else None,
            delivered_tokens=round(text_tokens(self._joiner.delivered)),
        )
        return seen

    def outcome(self) -> Outcome:
        """How the attempt ended; a whole answer is judged now, so what a validator raises is not the provider's."""
        if self._whole:
            assert self._attempt is not None
            self._whole = False
            self._ended = judged(self._flight, self._attempt, self._ended, self._started)
        return self._ended

    def _spent(self) -> Usage:
        """Tokens of this attempt, estimated where the provider did not get to say."""
        told = self._usage or Usage()
        if told.output_tokens is not None:
            return told
        asked = self._flight.needs.input_tokens if told.input_tokens is None else told.input_tokens
        return Usage(asked, max(1, round(self._attempt_text)), estimated=True)

    def _completion(self, usage: Usage) -> Completion:
        finish = self._finish or FinishReason.STOP
        text, calls = self._joiner.delivered, whole_calls(self._tool_calls)
        return Completion(text, finish, usage, calls, refusal=self._refusal)

    # -- how the request ends ----------------------------------------------------------------------------------

    def left(self) -> tuple[Landed, Ticket]:
        """The caller went away: neutral for everybody, but on record."""
        usage = self._spent() if self._attempt_text else None
        return self._flight.leave(shown=self._joiner.shown, usage=usage)

    def land(self, verdict: Verdict, *, here: bool = False) -> tuple[Landed, Ticket]:
        """Write the request into the books; arguments as for `Flight.land`."""
        landed, ticket = self._flight.land(verdict, here=here)
        flight = self._flight
        self._account = account_of(verdict, flight.request, flight.exchange.policy, overhead_us=landed.overhead_us)
        return landed, ticket

    def last(self, landed: Landed) -> list[Chunk]:
        """What was held until the record was committed: the finish, and the usage of all attempts."""
        reply = landed.reply
        assert reply is not None
        chunks = [_chunk(delta, attempt) for delta, attempt in self._held]
        if chunks and self._flight.first_content is None:
            chunks[0] = replace(chunks[0], account=self._account)
        raw = self._usage_event if reply.attempts == 1 else None
        last = Chunk("", reply.model, reply.role, usage=landed.usage, raw=raw, account=self._account, reply=reply)
        return [*chunks, last]


def _when(limit: tuple[float, LimitPassed]) -> float:
    return limit[0]


def _chunk(delta: Delta, attempt: Attempt) -> Chunk:
    return Chunk(
        text=delta.text,
        model=attempt.line.model.name,
        role=attempt.role,
        finish_reason=delta.finish_reason,
        tool_calls=delta.tool_calls,
        index=delta.index,
        raw=delta.raw,
    )
