"""How long to wait before a retry: exponential backoff with full jitter.

Full jitter spreads a crowd of retries over the whole interval, where a fixed or half-jittered delay would bring
the crowd back together (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
"""

from __future__ import annotations

from engine.core.policy import RetryPolicy

# Past this exponent every sane delay is at its maximum; without the clamp 2.0**1024 raises OverflowError.
MAX_EXPONENT = 62


def full_jitter(policy: RetryPolicy, retry: int, rand: float) -> float:
    """Delay before a retry, uniform between nothing and `min(max_delay, base_delay * 2**(retry - 1))`.

    Args:
        policy: Gives `base_delay` and `max_delay` in seconds.
        retry: Which retry this is; 1 is the first.
        rand: A random number in [0, 1).

    Returns:
        Seconds.

    Raises:
        ValueError: `retry` is less than 1; the first attempt is no retry and waits for nothing.
    """
    if retry < 1:
        msg = f"retry is {retry}, but retries count from 1; the first attempt has no backoff"
        raise ValueError(msg)
    ceiling = min(policy.max_delay, policy.base_delay * 2.0 ** min(retry - 1, MAX_EXPONENT))
    return rand * ceiling
