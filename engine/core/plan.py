"""A request's life, from the first look at the models to the verdict, without ever touching one of them.

`plan` is a generator. It yields what is to be done and is sent what came of it:

    Attempt(role, limits, …)  <- Outcome     one HTTP request to one model
    Wait(until, why)          <- float       the time it is now
    Emit(event)               <- None        something happened that is worth recording at once
    returns Verdict                          the answer, or the error the caller gets

Drivers run it under the manager's lock (it never blocks) and do the I/O between two yields, so the threaded
manager, the asynchronous one, the simulation and the backtest all decide by these very lines. Closing the
generator at any point gives back what it holds: a breaker's permit, a send slot not used yet.

The story is told here; what it decides by stands elsewhere: whether a model can take the request at all in
`admission`, whether the request may go on to the other one in `failover`, what an outcome teaches in `lessons`, and
the error at the end in `refusal`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.core.admission import barred, lacking
from engine.core.backoff import full_jitter
from engine.core.breaker import BreakerState, Denied, Permit, Transition
from engine.core.capability import needs_of
from engine.core.effects import (
    Attempt,
    BreakerMoved,
    Continuation,
    Effects,
    Emit,
    Outcome,
    PlanRequest,
    RequestMoved,
    Tried,
    Verdict,
    Wait,
)
from engine.core.failover import PASSING, may_move, may_spill
from engine.core.lessons import learn
from engine.core.messages import Limits, Role
from engine.core.outcomes import RULES, Again, Category, Cause, Effect
from engine.core.policy import WhenBothOpen
from engine.core.refusal import Refused, error_of
from engine.core.switchboard import Hop, Line, Switchboard
from engine.core.throttle import Slot

TIE = 0.001
"""Seconds; a model's fair time that ends with the caller's deadline is cut by the deadline in any case."""


def plan(
    asked: PlanRequest,
    board: Switchboard,
    rng: Callable[[], float],
    now: float,
    tried: list[Tried] | None = None,
) -> Effects[Verdict]:
    """Decide a request's life.

    Args:
        asked: The request, whether it streams, and its deadline.
        board: The manager's local state; changed as outcomes come in.
        rng: Uniform numbers in [0, 1).
        now: Monotonic seconds.
        tried: Filled with the attempts as they end, for a driver that has to give up before there is a verdict.

    Returns:
        By `return`, the verdict; see the module's text for what is yielded.
    """
    life = _Life(asked, board, rng, now)
    if tried is not None:
        life.verdict.tried = tried
    return life.run()


class _Life:
    """The state of one request while its plan runs."""

    __slots__ = (
        "asked", "board", "hop_needs", "needs", "now", "patience", "policy", "refusals", "resumable", "rng", "shown",
        "verdict", "waited", "why",
    )  # fmt: skip

    def __init__(self, asked: PlanRequest, board: Switchboard, rng: Callable[[], float], now: float) -> None:
        self.asked, self.board, self.rng, self.now = asked, board, rng, now
        self.policy = board.policy
        self.needs = self.hop_needs = needs_of(asked.request)
        self.verdict = Verdict(board.document.active, board.document.epoch, self.needs)
        self.patience = self.policy.rate_limit_wait
        self.waited = 0.0
        self.refusals: list[Refused] = []
        self.why: Cause | None = None
        self.shown = False
        self.resumable = False

    # -- the order of models -----------------------------------------------------------------------------------

    def run(self) -> Effects[Verdict]:
        request, board = self.asked.request, self.board
        # The driver's lock is held from here on and was not before.
        self.verdict.active, self.verdict.epoch = board.document.active, board.document.epoch
        if not request.synthetic:
            board.spill.seen(self.now)
        answered = yield from (self._alone() if self.asked.chosen else self._routed())
        if not answered:
            self.verdict.error = error_of(
                self.refusals, self.verdict, self.asked, board.lines, self.now, broken=self.shown
            )
        return self.verdict

    def _routed(self) -> Effects[bool]:
        """Try one model after the other. True when there is an answer."""
        board, request = self.board, self.asked.request
        if self.asked.only is not None:
            hops: tuple[Hop, ...] = (Hop(self.asked.only, Cause.CANARY if self.asked.canary else Cause.PROBE),)
        else:
            hops = board.route(request.session or request.id, self.now)
        for index, hop in enumerate(hops):
            if index and not self._may_move(hop):
                break
            if (yield from self._hop(hop)):
                return True
        anyway = self.policy.when_both_open is WhenBothOpen.TRY_ANYWAY and self.asked.only is None
        return anyway and not self.verdict.tried and (yield from self._try_anyway(hops))

    def _may_move(self, hop: Hop) -> bool:
        """Whether the refusal just met lets the request go to the other model."""
        board, last = self.board, self.refusals[-1]
        from_active = last.role is self.verdict.active
        limited = from_active and last.category is Category.RATE_LIMITED
        spills = limited and may_spill(board, board.lines[hop.role], self.hop_needs, self.now)
        return self.now < self.asked.deadline and may_move(
            last, self.policy, from_active=from_active, shown=self.shown, resumable=self.resumable, spills=spills
        )

    def _hop(self, hop: Hop) -> Effects[bool]:
        """Try one model, with its retries. True when the request is over."""
        line = self.board.lines[hop.role]
        refused = barred(self.board, line, self.hop_needs, self.now, self.asked.canary)
        if refused is not None:
            self._refuse(refused)
            return False
        tries = 0
        continuation = self._continuation(line)
        while True:
            slot, shut = None, line.breaker.shut(self.now)
            free = not shut and line.throttle.take(self.now)
            if not shut and not free:
                slot = yield from self._slot(line)
                if slot is None:
                    return False
            answer, moved = line.breaker.ask(self.now, self.rng())
            if isinstance(answer, Denied):
                self._unsend(line, slot, free=free)
                for one in moved:
                    yield Emit(BreakerMoved(hop.role, one))
                retry_at = answer.retry_at or self.board.force_ends(hop.role)
                self._refuse(Refused(hop.role, Cause.BREAKER_OPEN, retry_at=retry_at, reason=answer.reason))
                return False
            if moved or hop.role is not self.verdict.active:
                yield from self._tell(line, hop, moved, answer, slot, free=free)
            tries += 1
            outcome = yield from self._attempt(line, hop, answer, continuation)
            if continuation is Continuation.PREFILL and outcome.category is Category.INVALID_REQUEST:
                continuation = Continuation.HISTORY
                continue
            if outcome.category is Category.OK or not (yield from self._again(line, outcome, tries)):
                return self._ended(hop, outcome)

    def _alone(self) -> Effects[bool]:
        """Try the model that an operator chose, once. Only its rate limit and a breaker forced open are heeded."""
        assert self.asked.only is not None
        hop = Hop(self.asked.only, Cause.OVERRIDE)
        line = self.board.lines[hop.role]
        if hop.role is not self.verdict.active:
            self.verdict.cause = hop.cause
        refused = lacking(line, self.needs)
        if refused is None and line.breaker.state is BreakerState.FORCED_OPEN:
            reason, ends = f"the breaker of {line.model.name} is forced open", self.board.force_ends(hop.role)
            refused = Refused(hop.role, Cause.BREAKER_OPEN, retry_at=ends, reason=reason)
        if refused is not None:
            self._refuse(refused)
            return False
        if (yield from self._slot(line)) is None:
            return False
        return self._ended(hop, (yield from self._attempt(line, hop, None, None)))

    def _continuation(self, line: Line) -> Continuation | None:
        if not self.shown:
            return None
        return Continuation.PREFILL if "prefill" in line.model.capabilities else Continuation.HISTORY

    # -- before an attempt -------------------------------------------------------------------------------------

    def _slot(self, line: Line) -> Effects[Slot | None]:
        """Wait for the model's send slot within `rate_limit_wait`; `None` after noting why there is none."""
        while True:
            latest = min(self.now + self.patience, self.asked.deadline)
            slot = line.throttle.reserve(self.now, latest)
            if not isinstance(slot, Slot):
                reason = f"{line.model.name} is over its rate limit"
                cause, category = Cause.RATE_LIMITED, Category.RATE_LIMITED
                self._refuse(Refused(line.role, cause, category, slot.retry_at, reason, shed=True))
                return None
            if slot.at > self.now:
                before = self.now
                try:
                    yield from self._wait(slot.at, "rate_limit")
                except GeneratorExit:
                    line.throttle.release(slot)
                    raise
                self.patience = max(0.0, self.patience - (self.now - before))
            if line.throttle.confirm(slot, self.now):
                return slot

    def _try_anyway(self, hops: tuple[Hop, ...]) -> Effects[bool]:
        """Both breakers are open and the policy prefers a doubtful answer: one attempt, drawn on the retry budget."""
        denied = [refused.role for refused in self.refusals if refused.cause in (Cause.BREAKER_OPEN, Cause.CANARY)]
        for hop in hops:
            line = self.board.lines[hop.role]
            forced = line.breaker.state is BreakerState.FORCED_OPEN
            if forced or hop.role not in denied or not line.budget.withdraw(self.now):
                continue
            slot = yield from self._slot(line)
            if slot is None:
                continue
            yield from self._tell(line, hop, (), None, slot, free=False)
            return self._ended(hop, (yield from self._attempt(line, hop, None, None)))
        return False

    # -- an attempt and what follows ---------------------------------------------------------------------------

    def _attempt(
        self, line: Line, hop: Hop, permit: Permit | None, continuation: Continuation | None
    ) -> Effects[Outcome]:
        """Ask a model once and take in what came of it; a permit goes back whatever happens."""
        board, verdict = self.board, self.verdict
        if not self.asked.chosen and (not verdict.tried or verdict.role is not line.role):
            line.budget.deposit(self.now)
        probing = hop.cause is Cause.PROBE
        probe = probing or (permit is not None and permit.probe)
        if probing and line.role is Role.PRIMARY:
            board.probe_started(self.now, synthetic=self.asked.request.synthetic)
        limits, shortened = self._limits(line, probe=probe)
        attempt = Attempt(
            len(verdict.tried) + 1,
            line,
            limits,
            shortened,
            probe,
            continuation,
            self.waited,
            line.breaker.state,
            None if hop.role is verdict.active else hop.cause or self.why,
        )
        self.waited = 0.0
        try:
            outcome = yield attempt
        except BaseException:
            self._return(line, permit)
            raise
        assert isinstance(outcome, Outcome)
        self.now = outcome.now
        verdict.role = line.role
        verdict.tried.append(Tried(attempt, outcome))
        self.shown, self.resumable = self.shown or outcome.shown, outcome.resumable
        if outcome.delivered_tokens:
            self.hop_needs = self.needs.after(outcome.delivered_tokens)
        estimated = self.hop_needs.input_tokens
        for event in learn(board, self.asked, attempt, outcome, permit, self.rng, probing=probing, estimated=estimated):
            yield Emit(event)
        return outcome

    def _limits(self, line: Line, *, probe: bool) -> tuple[Limits, bool]:
        left = max(0.0, self.asked.deadline - self.now)
        clocks = line.model.timeouts
        fair = clocks.first_token if self.asked.streamed else clocks.answer
        patience = min(fair, self.policy.recovery.probe_timeout) if probe else fair
        shortened = left < patience + TIE
        longest = left if shortened else patience
        return Limits(min(clocks.connect, left), longest, longest, min(clocks.idle, left), left), shortened

    def _again(self, line: Line, outcome: Outcome, tries: int) -> Effects[bool]:
        """Whether the same model is asked once more; waits out the backoff."""
        again = RULES[outcome.category].again
        probe = self.verdict.tried[-1].attempt.probe
        spent = tries >= self.policy.retry.attempts or probe or outcome.past_deadline
        if self.shown and self.verdict.tried[-1].attempt.continuation is None:
            return False  # the same model would begin again
        if again is Again.NEVER or spent or line.breaker.state not in PASSING:
            return False
        pause = full_jitter(self.policy.retry, tries, self.rng())
        if again is Again.AFTER_GATE:
            pause = max(0.0, (line.throttle.blocked_until(self.now) or self.now) - self.now)
            if pause > self.patience:
                return False
        elif outcome.retry_after is not None:
            pause = max(pause, outcome.retry_after + 1.0)
        if self.now + pause >= self.asked.deadline or not line.budget.withdraw(self.now):
            return False
        if again is Again.BACKOFF:
            yield from self._wait(self.now + pause, "backoff")
        return True

    def _wait(self, until: float, why: str) -> Effects[None]:
        before = self.now
        woken = yield Wait(until, why)
        assert isinstance(woken, float)
        self.now = max(woken, before)
        self.waited += self.now - before

    # -- notes for the record ----------------------------------------------------------------------------------

    def _refuse(self, refused: Refused) -> None:
        self.refusals.append(refused)
        if self.why is None and refused.role is self.verdict.active:
            self.why = refused.cause

    def _tell(
        self, line: Line, hop: Hop, moved: Sequence[Transition], permit: Permit | None, slot: Slot | None, *, free: bool
    ) -> Effects[None]:
        """Say what is worth recording before an attempt; whoever leaves meanwhile has sent nothing."""
        try:
            for one in moved:
                yield Emit(BreakerMoved(hop.role, one))
            if (why := self._leaving(hop)) is not None:
                last = next(refused for refused in self.refusals if refused.role is self.verdict.active)
                yield Emit(RequestMoved(self.verdict.active, hop.role, why, {"reason": last.reason}))
        except BaseException:
            self._unsend(line, slot, free=free)
            self._return(line, permit)
            raise

    def _leaving(self, hop: Hop) -> Cause | None:
        """Why the request goes to another than the active model now; `None` for a probe or a ramp's share."""
        elsewhere = hop.role is not self.verdict.active and self.verdict.role is not hop.role
        return self.why if elsewhere and hop.cause is None else None

    def _unsend(self, line: Line, slot: Slot | None, *, free: bool) -> None:
        """Give back leave to send that is not used."""
        if slot is not None:
            line.throttle.release(slot)
        elif free:
            line.throttle.give_back(self.now)

    def _return(self, line: Line, permit: Permit | None) -> None:
        """Give back a permit without having found anything out."""
        if permit is not None:
            line.breaker.report(permit, Effect.NEUTRAL, self.now, self.rng(), request_id=self.asked.request.id)

    def _ended(self, hop: Hop, outcome: Outcome) -> bool:
        """Note how a model's last attempt ended. True when it is the answer."""
        if outcome.category is not Category.OK:
            self._refuse(Refused.after(hop.role, outcome))
            return False
        self.verdict.completion = outcome.completion
        if hop.role is not self.verdict.active:
            self.verdict.cause = hop.cause or self.why
        return True
