"""Why a model cannot take a request, known without asking it: it lacks something, serves nobody, or answers nonsense.

Looking takes nothing: no permit, no slot, no budget. So it is done before every hop, and of the other model too before
anything is spent on a way there. Breaker and throttle are not looked at: whoever asks them takes what they give.
"""

from __future__ import annotations

from engine.core.capability import Needs, lack
from engine.core.drift import RECHECK_EVERY
from engine.core.outcomes import Cause
from engine.core.refusal import Refused
from engine.core.switchboard import Line, Switchboard


def lacking(line: Line, needs: Needs) -> Refused | None:
    """What a request needs and a model does not have; `None` when it has everything."""
    missing = lack(needs, line.model, line.calibration.ratio)
    if missing is None:
        return None
    only_length = missing.too_long and not missing.features
    cause = Cause.CONTEXT_LENGTH if only_length else Cause.CAPABILITY
    return Refused(line.role, cause, reason=missing.reason, missing=missing.features)


def barred(board: Switchboard, line: Line, needs: Needs, now: float, canary: str = "") -> Refused | None:
    """Why a model cannot take a request at all.

    Args:
        board: The manager's local state.
        line: The model.
        needs: What the request needs of it.
        now: Monotonic seconds.
        canary: The canary's name when the request is one, which a failing canary does not stop.

    Returns:
        The refusal, with the time at which asking again makes sense where one is known; `None` when it can take it.
    """
    missing = lacking(line, needs)
    if missing is not None:
        return missing
    refused = line.unavailable(now)
    if refused is not None:
        reason = f"{line.model.name}: {refused.category.replace('_', ' ')}"
        return Refused(line.role, Cause(refused.category), retry_at=refused.until, reason=reason)
    failing = None if canary else board.drifted(line.role, now)
    if failing is not None:
        retry_at = line.breaker.retry_at or now + RECHECK_EVERY
        return Refused(
            line.role, Cause.CANARY, retry_at=retry_at, reason=f"{line.model.name} fails the canary {failing}"
        )
    return None
