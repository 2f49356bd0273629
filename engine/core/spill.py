"""How much rate-limited demand may go to the other model.

Moving everything when one model answers 429 makes two overloaded models out of one. So only a bounded overflow
moves, counted per manager and exactly: at every take, the takes of the last 60 s including this one are at most
`share * requests of the last 60 s + floor / instances`. Each instance sees only its own requests, so the share
divides itself among instances; the floor is divided by their number.
"""

from __future__ import annotations

from collections import deque

from engine.core.policy import SpillPolicy
from engine.core.window import SlidingCounts

SPAN = 60.0
BUCKETS = 60


class SpillBudget:
    """A sliding minute of requests and spilled requests of one manager on one instance.

    Args:
        policy: `share` of this instance's requests, and `floor` per minute for the whole fleet.
    """

    __slots__ = ("_policy", "_seen", "_takes")

    def __init__(self, policy: SpillPolicy) -> None:
        self._policy = policy
        self._seen = SlidingCounts(SPAN, buckets=BUCKETS)
        self._takes: deque[float] = deque()

    def seen(self, now: float) -> None:
        """Count one request of the manager that starts at `now`, seconds, whether or not it will be limited."""
        self._seen.add(now)

    def allowance(self, now: float, instances: int) -> float:
        """Requests this instance may spill per minute at `now`, with so many live instances (0 counts as 1)."""
        return self._policy.share * self._seen.slide(now)[0] + self._policy.floor / max(1, instances)

    def take(self, now: float, instances: int) -> bool:
        """Ask to send one request to the other model.

        Args:
            now: Seconds.
            instances: Live instances that share the floor.

        Returns:
            Whether it may go; it is then counted.
        """
        takes = self._takes
        while takes and now - takes[0] >= SPAN:
            takes.popleft()
        if len(takes) + 1 > self.allowance(now, instances):
            return False
        takes.append(now)
        return True
