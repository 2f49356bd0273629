"""What a model's recent calls say about it: the counts behind a breaker's decision, and the rule that judges them.

A rate is judged only over at least `min_calls` calls of the sliding window, but also when a success completes
them (as resilience4j does). The streak of failures has no window: on thin traffic it is the only rule that acts.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Any, NamedTuple

from engine.core.policy import BreakerPolicy
from engine.core.window import SlidingCounts

# Request ids kept as evidence.
EVIDENCE_IDS = 5

_SAMPLES, _FAILURES, _SLOW, _VOTE_SAMPLES, _VOTE_FAILURES = range(5)


class Reason(StrEnum):
    """Why a breaker moved by itself; operators and outside findings give their own words."""

    FAILURE_RATE = "failure_rate"
    SLOW_RATE = "slow_rate"
    CONSECUTIVE_FAILURES = "consecutive_failures"
    PROBE_DUE = "probe_due"
    PROBE_OK = "probe_ok"
    PROBE_FAILED = "probe_failed"
    PROBE_SLOW = "probe_slow"
    PROBE_EXPIRED = "probe_expired"


class Crossed(NamedTuple):
    """A threshold that was reached, and the rule it belongs to."""

    reason: Reason
    threshold: float


class Findings:
    """Counts of one model's calls that succeeded or failed; neutral calls never come here.

    Args:
        policy: Window and thresholds.

    Attributes:
        streak: Failures since the last success, of any age.
    """

    __slots__ = ("_bad_ids", "_policy", "_window", "streak")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._window = SlidingCounts(policy.window, kinds=5)
        self._bad_ids: deque[str] = deque(maxlen=EVIDENCE_IDS)
        self.streak = 0

    def count(self, now: float, failed: bool, slow: bool, votes: bool, request_id: str, *, standing: bool) -> None:
        """Count one call.

        Args:
            now: When it ended, seconds.
            failed: Whether it failed; a success ends the streak.
            slow: Whether it took too long, failed or not.
            votes: Whether it may justify a vote about the model.
            request_id: Kept when the call speaks against the model.
            standing: The window stands still: nothing is forgotten, and it does not grow.
        """
        kinds = _KINDS[failed, slow, votes]
        if standing:
            self._window.amend(now, kinds)
        else:
            self._window.add(now, kinds)
        if failed or slow:
            self.note(request_id)
        self.streak = self.streak + 1 if failed else 0

    def note(self, request_id: str) -> None:
        """Keep the id of a request that speaks against the model; empty ids are not kept."""
        if request_id:
            self._bad_ids.append(request_id)

    def crossed(self) -> Crossed | None:
        """The first threshold that the calls reached, `None` while they are within all of them."""
        policy = self._policy
        if 0 < self.streak >= policy.consecutive_failures:
            return Crossed(Reason.CONSECUTIVE_FAILURES, policy.consecutive_failures)
        totals = self._window.totals
        samples = totals[_SAMPLES]
        if samples == 0 or samples < policy.min_calls:
            return None
        if totals[_FAILURES] / samples >= policy.failure_rate:
            return Crossed(Reason.FAILURE_RATE, policy.failure_rate)
        if totals[_SLOW] / samples >= policy.slow_rate:
            return Crossed(Reason.SLOW_RATE, policy.slow_rate)
        return None

    def slide(self, now: float) -> None:
        """Forget calls older than the window."""
        self._window.slide(now)

    def clear(self) -> None:
        """Forget everything."""
        self._window.clear()
        self._bad_ids.clear()
        self.streak = 0

    def counts(self) -> dict[str, Any]:
        """`samples`, `failures`, `slow`, `failure_rate` and `slow_rate` (`None` without samples), and `streak`."""
        samples, failures, slow, _, _ = self._window.totals
        return {
            "samples": samples,
            "failures": failures,
            "slow": slow,
            "failure_rate": failures / samples if samples else None,
            "slow_rate": slow / samples if samples else None,
            "streak": self.streak,
        }

    def votes(self) -> tuple[int, int]:
        """Samples that may justify a vote, and how many of those failed or were slow."""
        return self._window.totals[_VOTE_SAMPLES], self._window.totals[_VOTE_FAILURES]

    def bad_ids(self) -> list[str]:
        """The last requests that failed or were slow, oldest first."""
        return list(self._bad_ids)


def _kinds(failed: bool, slow: bool, votes: bool) -> tuple[int, ...]:
    """The counters that one call adds to."""
    against = failed or slow
    flags = {
        _SAMPLES: True,
        _FAILURES: failed,
        _SLOW: slow,
        _VOTE_SAMPLES: votes,
        _VOTE_FAILURES: votes and against,
    }
    return tuple(kind for kind, counts in flags.items() if counts)


_BOTH = (False, True)
_KINDS = {(failed, slow, votes): _kinds(failed, slow, votes) for failed in _BOTH for slow in _BOTH for votes in _BOTH}
