"""The evaluator's lease: of all processes that share a store, and of all machines of a fleet, one has it."""

from __future__ import annotations

import logging

from engine import standstill
from engine.fleet.base import Coordinator, CoordinatorUnavailable

log = logging.getLogger(__name__)

LEASE = "evaluator"
ALONE_AFTER_S = 60.0
"""Without a coordinator for this long everybody takes it for theirs: two messages are better than none."""


class Lease:
    """A lease, and what is to be thought of it while nobody can be asked.

    Args:
        coordinator: Who gives it; `None`: nobody else wants it.
        owner: Who wants it.
    """

    def __init__(self, coordinator: Coordinator | None, owner: str) -> None:
        self._coordinator = coordinator
        self._owner = owner
        self._unreachable_since: float | None = None
        self._until = 0.0
        self.held = False

    @property
    def stale(self) -> bool:
        """Whether it was held, and may be another's by now: this process stood still, or could not ask."""
        return self.held and standstill.now() >= self._until

    def renew(self, ttl: float) -> bool:
        """Take or keep it for so many seconds; returns whether it is held."""
        now = standstill.now()
        try:
            self.held = self._coordinator is None or self._coordinator.lease(LEASE, self._owner, ttl)
        except CoordinatorUnavailable:  # the agent says why
            awake = standstill.awake()
            if self._unreachable_since is None:
                self._unreachable_since = awake
                log.info("no lease for the evaluator now; after %.0f s without one it goes on alone", ALONE_AFTER_S)
            self.held = self.held or awake - self._unreachable_since >= ALONE_AFTER_S
        else:
            self._unreachable_since = None
        self._until = now + ttl
        return self.held
