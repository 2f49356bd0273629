"""What goes wrong, as values: which model, from when, for how long, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.core.messages import Role
from engine.core.outcomes import Category
from engine.providers.world import Faults, Flap

MINUTE: Final = 60.0

BACKGROUND: Final = Faults(errors={Category.SERVER_ERROR: 0.004, Category.CONNECTION: 0.001}, no_finish=0.001)
"""What a healthy service does on a good day."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One thing that goes wrong with one model.

    Attributes:
        name: What people call it.
        lasts: Seconds.
        faults: Gives the faults, from the requests a minute that the model gets at that hour.
        role: Whose model.
        recovers: Seconds until everything is expected to be as before.
    """

    name: str
    lasts: float
    faults: Callable[[float], Faults]
    role: Role = Role.PRIMARY
    recovers: float = 10 * MINUTE


@dataclass(frozen=True, slots=True)
class Pin:
    """An operator's override."""

    name: str
    lasts: float
    role: Role = Role.SECONDARY
    reason: str = "the provider announced maintenance"
    by: str = "ana"
    clears: bool = True
    recovers: float = 10 * MINUTE


@dataclass(frozen=True, slots=True)
class Scheduled:
    """An incident or a pin with its place in the run; `at` is a share of the run's length, 0..1."""

    at: float
    what: Incident | Pin = field()


def outage(lasts: float) -> Incident:
    """Every call fails with 503."""
    return Incident("outage", lasts, lambda _: Faults(outage=1.0))


def rate_limit_storm(lasts: float, share: float = 0.55) -> Incident:
    """The provider takes a share of the usual requests a minute and answers the others with 429."""
    return Incident("429 storm", lasts, lambda demand: Faults(rate_limit=max(2.0, share * demand)))


def flapping(lasts: float, up: float = 5.0, down: float = 20.0) -> Incident:
    """The model comes and goes."""
    return Incident("flapping", lasts, lambda _: Faults(outage=1.0, flap=Flap(up, down)), recovers=30 * MINUTE)


def slowness(lasts: float, factor: float = 4.0) -> Incident:
    """Every answer takes a multiple of its time."""
    return Incident("slow answers", lasts, lambda _: Faults(latency_factor=factor))


def bad_credentials(lasts: float) -> Incident:
    """The key is refused: a rotation that was not announced."""
    return Incident("refused credentials", lasts, lambda _: Faults(outage=1.0, outage_as=Category.AUTH))


def quota_exhausted(lasts: float) -> Incident:
    """The day's quota is used up until it is renewed."""
    faults = Faults(outage=1.0, outage_as=Category.QUOTA_EXHAUSTED, retry_after=lasts)
    return Incident("daily quota exhausted", lasts, lambda _: faults)


def broken_streams(lasts: float, share: float = 0.15) -> Incident:
    """Connections break in the middle of answers."""
    return Incident("broken streams", lasts, lambda _: Faults(cut_after=3, cut_share=share))


A_DAY: Final[Sequence[Scheduled]] = (
    Scheduled(0.09, bad_credentials(4 * MINUTE)),
    Scheduled(0.24, slowness(14 * MINUTE)),
    Scheduled(0.36, outage(9 * MINUTE)),
    Scheduled(0.47, broken_streams(8 * MINUTE)),
    Scheduled(0.56, rate_limit_storm(12 * MINUTE)),
    Scheduled(0.66, flapping(8 * MINUTE)),
    Scheduled(0.76, Pin("override", 20 * MINUTE)),
    Scheduled(0.84, quota_exhausted(25 * MINUTE)),
    Scheduled(0.94, outage(90.0)),
)
"""A day that has a bit of everything, in an order that leaves time to recover in between."""
