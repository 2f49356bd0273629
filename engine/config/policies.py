"""From the file's sections to the frozen policies of the pure core.

A setting that was written holds as written. A default that does not fit beside it gives way: with `total = "10s"`
the default of 60 s for `answer` becomes 5 s, because the other half is the other model's, and with `open_for = "1m"`
the default `open_max` becomes a minute.
Two written settings that contradict each other are refused by `engine.config.checks`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from engine.config.facts import model_facts
from engine.config.sections import (
    BreakerSection,
    FleetSection,
    ManagerSection,
    ModelSection,
    ModelTimeoutsSection,
    RetrySection,
    Section,
    Settings,
    TimeoutsSection,
)
from engine.core.policy import (
    BreakerPolicy,
    FleetPolicy,
    ManagerPolicy,
    ModelFacts,
    RecoveryPolicy,
    RetryPolicy,
    SpillPolicy,
    Timeouts,
    ValidationPolicy,
)

BOUNDS = (
    ("answer", "total"),
    ("first_token", "total"),
    ("idle", "total"),
    ("connect", "answer"),
    ("connect", "first_token"),
)
"""Pairs of clocks of which the first may not be longer than the second."""

SILENCES = ("answer", "first_token", "idle")
"""Clocks after which a silent model is left for the other one."""


def manager_policy(name: str, settings: Settings) -> ManagerPolicy:
    """Everything that decides one manager's behaviour.

    Args:
        name: A key of `settings.managers`.
        settings: The validated file.
    """
    section = settings.managers[name]
    clocks = manager_timeouts(section.timeouts)
    return ManagerPolicy(
        name=name,
        primary=_facts(section.primary, section, settings),
        secondary=_facts(section.secondary, section, settings),
        on_rate_limit=section.on_rate_limit,
        rate_limit_wait=section.rate_limit_wait,
        on_content_filter=section.on_content_filter,
        on_auth_error=section.on_auth_error,
        on_broken_stream=section.on_broken_stream,
        when_both_open=section.when_both_open,
        continuation_instruction=section.continuation_instruction.strip(),
        timeouts=clocks,
        retry=_retry(section.retry),
        breaker=_breaker(section.breaker),
        recovery=RecoveryPolicy(**_values(section.recovery)),
        spill=SpillPolicy(**_values(section.spill)),
        validation=ValidationPolicy(**_values(section.validation)),
        fleet=fleet_policy(settings.fleet),
    )


def fleet_policy(section: FleetSection) -> FleetPolicy:
    """How instances agree."""
    return FleetPolicy(quorum=section.quorum, vote_ttl=section.vote_ttl, member_grace=section.member_grace)


def manager_timeouts(section: TimeoutsSection) -> Timeouts:
    """A manager's clocks, defaults cut to what was written.

    A model that is silent for as long as the deadline is cut by the deadline, which is nobody's failure: its breaker
    would stay closed and nobody be failed over. So a default takes at most half of `total`.
    """
    clocks, written = Timeouts(**_values(section)), section.model_fields_set
    halved = {clock: min(getattr(clocks, clock), clocks.total / 2) for clock in SILENCES if clock not in written}
    return _fitted(replace(clocks, **halved), written)


def model_timeouts(manager: TimeoutsSection, model: ModelTimeoutsSection) -> Timeouts:
    """One model's clocks: the manager's, overridden by its own table; never longer than the manager's deadline.

    A model may serve several managers, so what is too long for one of them is cut there and not refused.
    """
    deadline = manager_timeouts(manager).total
    own = {clock: min(seconds, deadline) for clock, seconds in model.model_dump(exclude_none=True).items()}
    return _fitted(replace(manager_timeouts(manager), **own), own.keys())


def _facts(key: str, manager: ManagerSection, settings: Settings) -> ModelFacts:
    section: ModelSection = settings.models[key]
    return model_facts(key, section, model_timeouts(manager.timeouts, section.timeouts))


def _values(section: Section) -> dict[str, Any]:
    return {name: getattr(section, name) for name in type(section).model_fields}


def _fitted(clocks: Timeouts, written: Collection[str]) -> Timeouts:
    for shorter, longer in BOUNDS:
        if shorter not in written:
            clocks = replace(clocks, **{shorter: min(getattr(clocks, shorter), getattr(clocks, longer))})
    return clocks


def _retry(section: RetrySection) -> RetryPolicy:
    policy = RetryPolicy(**_values(section))
    base, most = _pair(policy.base_delay, policy.max_delay, "max_delay" in section.model_fields_set)
    return replace(policy, base_delay=base, max_delay=most)


def _breaker(section: BreakerSection) -> BreakerPolicy:
    policy = BreakerPolicy(**_values(section))
    first, most = _pair(policy.open_for, policy.open_max, "open_max" in section.model_fields_set)
    return replace(policy, open_for=first, open_max=most)


def _pair(first: float, most: float, most_is_written: bool) -> tuple[float, float]:
    return (min(first, most), most) if most_is_written else (first, max(first, most))
