"""What one observer saw change, and how long ago, by its own monotonic clock.

Machines' wall clocks may differ by minutes, so no time that another machine wrote is ever compared with ours. A
writer changes a mark with every renewal; the value is fresh while its mark changed less than a time ago *here*.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import replace
from threading import Lock
from time import monotonic

from engine.core.agreement import Member

MEMORY = 3600.0
"""Seconds a lost member is remembered; longer than any sensible `member_grace`."""


class Sightings:
    """When each key's mark was last seen to change.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: dict[Hashable, tuple[object, float]] = {}

    def age(self, key: Hashable, mark: object) -> float:
        """Seconds since `key` was first seen with this mark; 0 when it is new."""
        now = self._clock()
        known = self._seen.get(key)
        if known is None or known[0] != mark:
            self._seen[key] = (mark, now)
            return 0.0
        return now - known[1]

    def keep(self, keys: Collection[Hashable]) -> None:
        """Forget every other key."""
        for key in self._seen.keys() - set(keys):
            self._seen.pop(key, None)


class Roster:
    """Members as one observer knows them: alive, or lost for how long; safe to share between threads.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._known: dict[str, Member] = {}
        self._lost_at: dict[str, float] = {}
        self._lock = Lock()

    def observe(self, alive: Mapping[str, Member], lost: Mapping[str, Member], left: Collection[str]) -> list[Member]:
        """Merge what the store says now with what was seen before.

        Args:
            alive: Members with a fresh lease.
            lost: Members without one; `lost_for` is the least time since, as far as the store knows. It is believed of
                those who were never seen here: of others it may be the time in which a store that stood still, or was
                out of reach, heard from nobody, and whoever came back first would take all the others for long gone.
            left: Instances that went on purpose. One that the store does not mention at all counts as lost,
                because a store may lose its data while a network is split.

        Returns:
            All members of the last hour that did not leave, by name.
        """
        with self._lock:
            now = self._clock()
            for name in left:
                self._drop(name)
            for name in lost.keys() - self._known.keys():
                self._lost_at[name] = now - lost[name].lost_for
            for name, member in alive.items():
                self._known[name] = replace(member, alive=True, lost_for=0.0)
                self._lost_at.pop(name, None)
            self._known.update(lost)
            for name in self._known.keys() - alive.keys():
                if now - self._lost_at.setdefault(name, now) > MEMORY:
                    self._drop(name)
            return [self._seen_from(now, self._known[name]) for name in sorted(self._known)]

    @property
    def names(self) -> set[str]:
        """Instances remembered."""
        return set(self._known)

    def knows_lost(self, name: str) -> bool:
        """Whether it is known here since when an instance is lost."""
        return name in self._lost_at

    def _seen_from(self, now: float, member: Member) -> Member:
        lost_at = self._lost_at.get(member.instance)
        return member if lost_at is None else replace(member, alive=False, lost_for=max(0.0, now - lost_at))

    def _drop(self, name: str) -> None:
        self._known.pop(name, None)
        self._lost_at.pop(name, None)
