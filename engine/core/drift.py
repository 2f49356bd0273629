"""Which model answers nonsense: what canaries found, and what that means for everybody else's requests.

A canary that fails shuts its model, and no ordinary request opens it again: an answer with status 200 says nothing
about its meaning. Only canaries are let through meanwhile, and the model is back when all of them pass. Two bounds
keep a bad canary from doing more harm than a bad model:

* A finding stands only while the other model passes its canaries. Where both fail it is likelier that the canary is
  wrong, and turning everybody away would help nobody; it is recorded and alerted all the same.
* A finding that nobody confirms, because whoever ran canaries is gone, ends after two intervals.
"""

from __future__ import annotations

from typing import Final

from engine.core.messages import Role

CANARY_FAILED: Final = "canary failed"
"""How a breaker's reason and a vote's reason begin when canaries are behind it; the canary's name follows."""

RECHECK_EVERY: Final = 30.0
"""Seconds between two runs of a canary that failed: a model that erred once is not shut for a whole interval."""


class Drift:
    """Failing canaries by role.

    Args:
        every: Seconds between two runs of one canary.
    """

    def __init__(self, every: float) -> None:
        self._lasts = 2 * max(every, RECHECK_EVERY)
        self._failing: dict[Role, dict[str, float]] = {role: {} for role in Role}
        self._judged: dict[tuple[Role, str], float] = {}

    def failed(self, role: Role, canary: str, now: float) -> None:
        """A model's answer lacks what a canary expects."""
        self._failing[role][canary] = now + self._lasts
        self._judged[role, canary] = now

    def passed(self, role: Role, canary: str, now: float) -> None:
        """A model's answer is as a canary expects."""
        self._judged[role, canary] = now
        self._failing[role].pop(canary, None)

    def judged_at(self, role: Role, canary: str) -> float | None:
        """When an answer was last held to a canary, monotonic seconds; `None` before the first time."""
        return self._judged.get((role, canary))

    def failing(self, role: Role, now: float) -> tuple[str, ...]:
        """The canaries that a model fails, by name."""
        found = self._failing[role]
        return tuple(sorted(name for name, until in found.items() if now < until)) if found else ()

    def stands(self, role: Role, now: float, *, but: str = "") -> str | None:
        """The canary because of which a model serves nobody.

        Args:
            role: The model.
            now: Monotonic seconds.
            but: A canary that is left out of account.

        Returns:
            Its name; `None` when the model passes all, or the other one fails too.
        """
        if not self._failing[role]:
            return None
        names = [name for name in self.failing(role, now) if name != but]
        return names[0] if names and not self.failing(role.other, now) else None
