"""The names that alert expressions may use, with their types: one table for the linter, the tick and rule tests.

Levels are states that hold until they change (`active_model`); windows are functions of the events of the last so
many seconds (`failovers("10m")`). A count of nothing is 0; a ratio or a percentile of nothing has no value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

ROLES = ("primary", "secondary")
BREAKER_STATES = ("closed", "open", "half_open", "forced_open", "forced_closed")


class Kind(StrEnum):
    """What an expression or a part of it is."""

    NUMBER = "number"
    TEXT = "text"
    TRUTH = "true or false"


class Scope(StrEnum):
    """What a rule is evaluated for: every manager on its own, or the store as a whole."""

    MANAGER = "manager"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Level:
    """A state.

    Attributes:
        kind: Its type.
        words: The values a text may have, empty for any.
        by_role: Whether it is a function of a role.
        scope: `STORE`: it means something without a manager too.
        recorded: Whether its changes are recorded, so that its start is known exactly.
        fleet: Whether every machine of a fleet sees the same, whatever store it has.
    """

    kind: Kind
    words: tuple[str, ...] = ()
    by_role: bool = False
    scope: Scope = Scope.MANAGER
    recorded: bool = False
    fleet: bool = True


@dataclass(frozen=True, slots=True)
class Window:
    """A function of a window.

    Attributes:
        by_role: Whether it takes a role as well.
        scope: `STORE`: it means something without a manager too.
        measured: Whether it is a ratio or a percentile, which has no value without data.
        fleet: Whether every machine of a fleet sees the same, whatever store it has.
    """

    by_role: bool = True
    scope: Scope = Scope.MANAGER
    measured: bool = False
    fleet: bool = False


LEVELS: Mapping[str, Level] = MappingProxyType(
    {
        "manager": Level(Kind.TEXT),
        "active_model": Level(Kind.TEXT, ROLES, recorded=True),
        "primary_traffic_ratio": Level(Kind.NUMBER),
        "override_active": Level(Kind.TRUTH, recorded=True),
        "breaker": Level(Kind.TEXT, BREAKER_STATES, by_role=True, recorded=True),
        "instances": Level(Kind.NUMBER, scope=Scope.STORE),
        "agreement_age": Level(Kind.NUMBER, scope=Scope.STORE),
        "agreement_regressed": Level(Kind.NUMBER, scope=Scope.STORE),
        "recorder_queue": Level(Kind.NUMBER, scope=Scope.STORE),
        "outbox_age": Level(Kind.NUMBER, scope=Scope.STORE, fleet=False),
        "receivers_stopped": Level(Kind.NUMBER, scope=Scope.STORE, fleet=False),
    }
)

WINDOWS: Mapping[str, Window] = MappingProxyType(
    {
        "requests": Window(),
        "errors": Window(),
        "error_rate": Window(measured=True),
        "failovers": Window(by_role=False, fleet=True),
        "ramp_aborts": Window(by_role=False, fleet=True),
        "request_failovers": Window(),
        "secondary_share": Window(by_role=False, measured=True),
        "rate_limited": Window(),
        "shed": Window(),
        "breaker_transitions": Window(),
        "breaker_trips": Window(),
        "auth_errors": Window(),
        "semantic_failures": Window(),
        "p50": Window(measured=True),
        "p95": Window(measured=True),
        "p99": Window(measured=True),
        "ttft_p95": Window(measured=True),
        "cost_usd": Window(),
        "tokens": Window(),
        "dead_letters": Window(by_role=False, scope=Scope.STORE),
    }
)

PERCENTILES: Mapping[str, tuple[str, float]] = MappingProxyType(
    {"p50": ("duration", 0.5), "p95": ("duration", 0.95), "p99": ("duration", 0.99), "ttft_p95": ("ttft", 0.95)}
)
"""Percentile names: the latency they are of, and the share."""

LONGEST_WINDOW_S = 31 * 86_400.0


@dataclass(frozen=True, slots=True, order=True)
class Query:
    """One thing an expression asks: a level, or a function over a window.

    Attributes:
        name: A key of `LEVELS` or `WINDOWS`.
        seconds: The window's length, 0 for a level.
        role: The role asked about, empty for both.
    """

    name: str
    seconds: float = 0.0
    role: str = ""

    @property
    def is_window(self) -> bool:
        """Whether it asks about a window."""
        return self.name in WINDOWS
