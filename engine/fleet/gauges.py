"""What belongs to one process, as its heartbeat carries it: any other process can show it from the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.core.breaker import BreakerSnapshot
    from engine.exchange import Exchange
    from engine.instance import Instance


def gauges_of(instance: Instance, exchanges: Sequence[Exchange]) -> dict[str, Any]:
    """The gauges of a process.

    Returns:
        `queue_length`; `instances` (alive in the fleet, as last seen); `in_flight`, `epochs` and `breakers` by manager;
        `coordinator_up`, `agreement_ms` (when the agreement was last read, milliseconds UTC), `regressed_ms` (when the
        coordinator was last found to have gone back in time) and `trouble`; and under `managers` what an operator
        wants to know beyond that, where times are seconds from `at_ms`.
    """
    details = {exchange.name: manager_gauges(exchange) for exchange in exchanges}
    agent = instance.agent
    return {
        "at_ms": instance.clock.wall_ms(),
        "queue_length": instance.recorder.queue_length,
        "instances": max((exchange.board.instances for exchange in exchanges), default=1),
        "in_flight": {name: detail["in_flight"] for name, detail in details.items()},
        "epochs": {name: detail["epoch"] for name, detail in details.items()},
        "breakers": {
            name: {role: line["state"] for role, line in detail["lines"].items()} for name, detail in details.items()
        },
        "coordinator_up": agent.reachable is not False,
        "agreement_ms": agent.agreed_ms,
        "regressed_ms": agent.regressed_ms,
        "trouble": agent.trouble,
        "managers": details,
    }


def manager_gauges(exchange: Exchange) -> dict[str, Any]:
    """The gauges of one manager in this process."""
    with exchange.lock:
        now = exchange.clock.monotonic()
        board = exchange.board
        lines = {
            str(role): {
                **_breaker(line.breaker.snapshot(now), now),
                "cap": line.throttle.cap,
                "limited_for": _left(line.throttle.blocked_until(now), now),
                "unavailable": _refusal(line.unavailable(now), now),
            }
            for role, line in board.lines.items()
        }
        return {
            "epoch": board.document.epoch,
            "in_flight": exchange.in_flight,
            "lines": lines,
            "gate_good": board.gate.good,
            "gate_of": exchange.policy.recovery.gate,
            "probe_in": _left(board.probe_due_at(now), now),
        }


def _breaker(seen: BreakerSnapshot, now: float) -> dict[str, Any]:
    return {
        "state": str(seen.state),
        "probe_due": seen.probe_due,
        "retry_in": _left(seen.retry_at, now),
        "samples": seen.samples,
        "failures": seen.failures,
        "failure_rate": seen.failure_rate,
        "slow_rate": seen.slow_rate,
        "streak": seen.streak,
        "reopens": seen.reopens,
    }


def _refusal(refused: Any, now: float) -> dict[str, Any] | None:
    return None if refused is None else {"category": str(refused.category), "for": _left(refused.until, now)}


def _left(until: float | None, now: float) -> float | None:
    return None if until is None else round(max(0.0, until - now), 3)
