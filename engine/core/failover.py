"""Whether one request may go to the other model after the first one did not answer it.

What it guarantees:

- A request that was rejected for what it is, or whose caller has gone, goes nowhere.
- A blocked prompt moves only where the policy says so, whichever model blocked it and whatever was shown.
- A text the caller has begun to read is only ever continued, never begun again.
- From a model that was only tried on the way back, a request returns to the active one for every other reason.
- Demand over a limit moves as `on_rate_limit` says. It spends the share of `spill` only when the other model could
  serve the request right now.
"""

from __future__ import annotations

from engine.core.admission import barred
from engine.core.breaker import BreakerState
from engine.core.capability import Needs
from engine.core.outcomes import RULES, Category, Move
from engine.core.policy import ManagerPolicy, OnAuthError, OnBrokenStream, OnContentFilter, OnRateLimit
from engine.core.refusal import Refused
from engine.core.switchboard import Line, Switchboard

PASSING = (BreakerState.CLOSED, BreakerState.FORCED_CLOSED)
"""States in which a breaker lets everybody through."""


def may_move(
    refused: Refused, policy: ManagerPolicy, *, from_active: bool, shown: bool, resumable: bool, spills: bool
) -> bool:
    """Whether a refusal lets the request go to the other model.

    Args:
        refused: Why the model did not answer.
        policy: The manager's settings.
        from_active: Whether it is the active model.
        shown: Whether part of an answer has reached the caller.
        resumable: Whether another model can go on with that part.
        spills: Whether demand over a limit has leave to go.
    """
    category = refused.category
    filtered = category is Category.CONTENT_FILTER
    if refused.final or (filtered and policy.on_content_filter is not OnContentFilter.ROUTE):
        return False
    if shown:
        return resumable and policy.on_broken_stream is OnBrokenStream.CONTINUE
    if category is None or filtered or not from_active:
        return True
    move = RULES[category].move
    if move is not Move.BY_POLICY:
        return move is Move.YES
    return policy.on_auth_error is OnAuthError.ROUTE if category is Category.AUTH else spills


def may_spill(board: Switchboard, other: Line, needs: Needs, now: float) -> bool:
    """Whether demand over the active model's limit has leave to go; under `spill` it is counted when it has.

    Args:
        board: The manager's local state; its spill budget changes.
        other: The other model.
        needs: What the request needs.
        now: Monotonic seconds.
    """
    if board.policy.on_rate_limit is not OnRateLimit.SPILL:
        return board.policy.on_rate_limit is OnRateLimit.FAILOVER
    ready = (
        other.throttle.blocked_until(now) is None
        and other.breaker.state in PASSING
        and barred(board, other, needs, now) is None
    )
    return ready and board.spill.take(now, board.instances)
