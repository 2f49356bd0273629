"""One finished request as its caller sees it and as the record keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.core.effects import (
    Tried,
    Verdict,
)
from engine.core.errors import Cancelled, RateLimited, SwitchgearError
from engine.core.events import AttemptRecord, FailoverRecord, RequestOutcome, RequestRecord, Scope
from engine.core.messages import Account, Reply, Request, Usage
from engine.core.outcomes import Category, Cause
from engine.core.policy import ManagerPolicy, ModelFacts
from engine.core.value import value

if TYPE_CHECKING:
    from engine.exchange import Flight

UNTRIED = "none"
OK_STATUS = 200


def cost_of(model: ModelFacts, usage: Usage | None) -> float | None:
    """What tokens cost, USD; `None` when a price or a count is unknown."""
    if usage is None or model.input_price is None or model.output_price is None:
        return None
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    return ((usage.input_tokens or 0) * model.input_price + (usage.output_tokens or 0) * model.output_price) / 1e6


@value
class Landed:
    """What a request came to.

    Attributes:
        reply: The answer, `None` when there is an error.
        error: What the caller gets instead.
        usage: Tokens over all attempts.
        cost_usd: Price of the attempts whose price and usage are known.
        overhead_us: Time spent in Switchgear, microseconds.
    """

    reply: Reply | None
    error: SwitchgearError | None
    usage: Usage
    cost_usd: float | None
    overhead_us: int

    @classmethod
    def of(cls, verdict: Verdict, request: Request, policy: ManagerPolicy, *, overhead_us: int) -> Landed:
        """Sum up a verdict."""
        usage, cost = _sums(verdict.tried)
        completion = verdict.completion
        if verdict.error is not None or completion is None or verdict.role is None:
            if verdict.error is not None:
                verdict.error.account = account_of(verdict, request, policy, overhead_us=overhead_us)
            return cls(None, verdict.error, usage, cost, overhead_us)
        reply = Reply(
            text=completion.text,
            model=policy.model(verdict.role).name,
            role=verdict.role,
            attempts=len(verdict.tried),
            usage=usage,
            request_id=request.id,
            finish_reason=completion.finish_reason,
            tool_calls=completion.tool_calls,
            failover=str(verdict.cause) if verdict.cause else None,
            epoch=verdict.epoch,
            cost_usd=cost,
            overhead_us=overhead_us,
            raw=completion.raw,
            refusal=completion.refusal,
        )
        return cls(reply, None, usage, cost, overhead_us)


def account_of(verdict: Verdict, request: Request, policy: ManagerPolicy, *, overhead_us: int) -> Account:
    """How a request was handled, for headers and errors."""
    return Account(
        request_id=request.id,
        manager=policy.name,
        model=policy.model(verdict.role).name if verdict.role else UNTRIED,
        role=str(verdict.role or UNTRIED),
        attempts=len(verdict.tried),
        failover=str(verdict.cause) if verdict.cause else None,
        epoch=verdict.epoch,
        overhead_us=overhead_us,
    )


def answer_of(landed: Landed) -> Reply:
    """The answer, or the error raised."""
    if landed.error is not None:
        raise landed.error
    assert landed.reply is not None
    return landed.reply


def _sums(tried: Sequence[Tried]) -> tuple[Usage, float | None]:
    if len(tried) == 1:
        spent = tried[0].outcome.spent
        return spent or Usage(), cost_of(tried[0].attempt.line.model, spent)
    usage = Usage()
    cost: float | None = None
    for one in tried:
        spent = one.outcome.spent
        if spent is None:
            continue
        usage += spent
        price = cost_of(one.attempt.line.model, spent)
        if price is not None:
            cost = price if cost is None else cost + price
    return usage, cost


def request_record(flight: Flight, verdict: Verdict, landed: Landed, now: float, wall_ms: int) -> RequestRecord:
    """The row of a finished request with its attempts.

    Args:
        flight: The request's flight.
        verdict: What the plan decided.
        landed: What the caller gets.
        now: Monotonic seconds of its finish.
        wall_ms: The same as wall time, milliseconds.
    """
    exchange, request, error = flight.exchange, flight.request, landed.error
    last = verdict.tried[-1] if verdict.tried else None
    first = flight.first_content
    reply = landed.reply
    return RequestRecord(
        id=request.id,
        ts_ms=wall_ms,
        manager=exchange.name,
        instance=exchange.identity.instance,
        epoch=verdict.epoch,
        active_role=verdict.active,
        role=last.attempt.role if last else UNTRIED,
        model=last.attempt.line.model.name if last else UNTRIED,
        status_code=error.status_code if error is not None else OK_STATUS,
        outcome=_outcome(error, verdict),
        code=error.code if error is not None else None,
        failover_cause=str(verdict.cause) if verdict.cause else None,
        attempts=tuple(_attempt(one, now, wall_ms) for one in verdict.tried),
        streamed=flight.streamed,
        duration_ms=(now - flight.started) * 1000,
        ttft_ms=None if first is None else (first - flight.started) * 1000,
        overhead_us=landed.overhead_us,
        input_tokens=landed.usage.input_tokens,
        output_tokens=landed.usage.output_tokens,
        cost_usd=landed.cost_usd,
        finish_reason=str(reply.finish_reason) if reply is not None and reply.finish_reason else None,
        synthetic=request.synthetic,
        prompt_text=prompt_text(request),
        answer_text=reply.text if reply is not None else None,
        failovers=_failovers(flight, verdict, landed, wall_ms),
    )


def prompt_text(request: Request) -> str:
    """The prompt as one text; hashed for the record, stored only when the configuration says so."""
    return "\n".join(str(message.get("content", "")) for message in request.messages)


def _outcome(error: SwitchgearError | None, verdict: Verdict) -> RequestOutcome:
    if error is None:
        return RequestOutcome.OK
    if isinstance(error, Cancelled):
        return RequestOutcome.CANCELLED
    if isinstance(error, RateLimited) and verdict.shed:
        return RequestOutcome.SHED
    return RequestOutcome.ERROR


def _attempt(one: Tried, now: float, wall_ms: int) -> AttemptRecord:
    attempt, outcome = one.attempt, one.outcome
    failure, spent = outcome.failure, outcome.spent
    ok = outcome.category is Category.OK
    return AttemptRecord(
        n=attempt.n,
        ts_ms=wall_ms - round((now - outcome.now) * 1000),
        role=attempt.role,
        model=attempt.line.model.name,
        status_code=OK_STATUS if ok else (failure.status_code if failure is not None else None),
        category=outcome.category,
        duration_ms=outcome.duration * 1000,
        waited_ms=attempt.waited * 1000,
        breaker_state=attempt.breaker,
        error=None if ok or failure is None else " ".join(filter(None, (failure.code, failure.detail)))[:200],
        input_tokens=spent.input_tokens if spent else None,
        output_tokens=spent.output_tokens if spent else None,
        cost_usd=cost_of(attempt.line.model, spent),
        usage_estimated=spent.estimated if spent else False,
    )


def _failovers(flight: Flight, verdict: Verdict, landed: Landed, wall_ms: int) -> tuple[FailoverRecord, ...]:
    """The row of a single request answered by the other model; probes and a ramp's share are none."""
    moved = flight.moved
    if landed.reply is None or moved is None or verdict.cause in (None, Cause.PROBE, Cause.RAMP):
        return ()
    record = FailoverRecord(
        id=flight.exchange.new_id(),
        ts_ms=wall_ms,
        manager=flight.exchange.name,
        instance=flight.exchange.identity.instance,
        scope=Scope.REQUEST,
        from_role=moved.from_role,
        to_role=moved.to_role,
        cause=verdict.cause or moved.cause,
        request_id=flight.request.id,
        epoch=verdict.epoch,
        evidence=moved.evidence,
    )
    return (record,)
