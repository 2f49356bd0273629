"""How many retries are affordable: a share of the requests of the last minute, plus a small floor.

Without a budget every layer's retries multiply exactly when a model has least to give. The shape is Finagle's
`RetryBudget` (deposits that expire, a floor for thin traffic) with a minute instead of ten seconds, because calls
to language models are few and slow. At every withdrawal, the withdrawals of the last 60 s including this one are
at most `share * requests of the last 60 s + floor`.
"""

from __future__ import annotations

from collections import deque

from engine.core.window import SlidingCounts

SPAN = 60.0
BUCKETS = 60


class RetryBudget:
    """A sliding minute of requests and retries.

    Args:
        share: Retries each request pays for; 0.1 is one retry per ten requests.
        floor_per_minute: Retries a minute that are free of that.
    """

    __slots__ = ("_deposits", "_floor", "_share", "_withdrawals")

    def __init__(self, share: float, floor_per_minute: float) -> None:
        self._share = share
        self._floor = floor_per_minute
        self._deposits = SlidingCounts(SPAN, buckets=BUCKETS)
        self._withdrawals: deque[float] = deque()

    def deposit(self, now: float) -> None:
        """Count one request (not a retry) that starts at `now`, seconds."""
        self._deposits.add(now)

    def balance(self, now: float) -> float:
        """Retries that can be paid for at `now`; never negative, a fraction is the beginning of the next one."""
        return max(0.0, self._allowance(now) - self._spent(now))

    def withdraw(self, now: float) -> bool:
        """Pay for one retry.

        Returns:
            Whether it could be paid; if not, nothing was taken and the retry must not be made.
        """
        if self._spent(now) + 1 > self._allowance(now):
            return False
        self._withdrawals.append(now)
        return True

    def _allowance(self, now: float) -> float:
        return self._share * self._deposits.slide(now)[0] + self._floor

    def _spent(self, now: float) -> int:
        withdrawals = self._withdrawals
        while withdrawals and now - withdrawals[0] >= SPAN:
            withdrawals.popleft()
        return len(withdrawals)
