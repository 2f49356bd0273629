"""When an open breaker may be probed: waits that double on every reopen, up to a maximum, and forget slowly.

The exponent falls by one per interval of sustained health instead of at the first success (Envoy's outlier
detection decrements likewise), so a model that works for a moment between failures still earns longer waits.
"""

from __future__ import annotations

from engine.core.policy import BreakerPolicy

# Seconds of closed operation that take one reopen off the exponent. A trip sooner than this after closing counts as
# a reopen itself.
SUSTAINED_HEALTH = 60.0
# Jitter takes away up to this share of a wait, so that instances do not probe in step; it never adds, so that
# `open_max` bounds the time until a recovered model is probed.
JITTER = 0.2
# Past this exponent every sane wait is at its maximum; without a clamp 2.0**1024 raises OverflowError.
MAX_EXPONENT = 62


class ProbeTimer:
    """The waits of one breaker. All times are seconds of one monotonic clock.

    Args:
        policy: `open_for` and `open_max`, seconds.

    Attributes:
        retry_at: When the wait ends or ended; kept from opening until closing, and it only moves later.
        reopens: Openings without sustained health in between, beyond the first.
    """

    __slots__ = ("_ceiling", "_closed_since", "_healthy_since", "_policy", "reopens", "retry_at")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._ceiling = 0  # the doublings at which a wait reaches `open_max`; more change nothing
        while 0 < policy.open_for * 2.0**self._ceiling < policy.open_max and self._ceiling < MAX_EXPONENT:
            self._ceiling += 1
        self._closed_since: float | None = None  # only after having been open
        self._healthy_since: float | None = None  # where the next interval of sustained health begins
        self.retry_at: float | None = None
        self.reopens = 0

    def opened(self, now: float, rand: float, silent: float = 0.0) -> float:
        """Start a wait, counted from `now`; one that was promised is never shortened.

        Args:
            now: When the breaker opens.
            rand: In [0, 1); 0 is the longest wait.
            silent: Seconds that the failed probe took. The model had them to itself, so they count towards what a
                wait has grown beyond `open_for`; else a model that hangs is left alone longer than one that refuses.

        Returns:
            When it ends.
        """
        self.decay(now)
        failed_again = self.retry_at is not None
        back_too_soon = self._closed_since is not None and now - self._closed_since < SUSTAINED_HEALTH
        if failed_again or back_too_soon:
            self.reopens += 1
        self._healthy_since = None
        longest = min(self._policy.open_max, self._policy.open_for * 2.0 ** min(self.reopens, self._ceiling))
        wait = max(min(longest, self._policy.open_for), longest - silent)
        until = now + wait * (1 - JITTER * rand)
        self.retry_at = until if self.retry_at is None else max(self.retry_at, until)
        return self.retry_at

    def closed(self, now: float) -> None:
        """The model is well: the wait is over, and health begins to count."""
        if self.retry_at is not None:
            self._closed_since = now
        self._healthy_since = now
        self.retry_at = None

    def interrupted(self) -> None:
        """The breaker left closed: what follows is no longer proven health."""
        self._healthy_since = None

    def decay(self, now: float) -> None:
        """Forget one reopen per interval of sustained health, from the number at which waits stopped growing."""
        if not self.reopens or self._healthy_since is None:
            return
        intervals = int((now - self._healthy_since) // SUSTAINED_HEALTH)
        if intervals > 0:
            self._healthy_since += intervals * SUSTAINED_HEALTH
            self.reopens = max(0, min(self.reopens, self._ceiling) - intervals)
