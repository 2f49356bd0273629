"""A fleet in trouble: the rules hold at every step, and each of them catches the bug it is there for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import engine.core.admission as admission_module
import engine.core.fleet as fleet_module
import engine.core.lessons as lessons_module
import engine.fleet.rounds as rounds_module
from engine.core.agreement import Document
from engine.core.breaker import Breaker
from engine.core.budget import RetryBudget
from engine.core.messages import Role
from engine.core.outcomes import RULES, Category, Effect
from engine.core.policy import ManagerPolicy, ModelFacts, RecoveryPolicy
from engine.core.ramp import Gate
from engine.core.switchboard import Hop, Switchboard
from engine.exchange import Flight
from engine.fleet.rounds import Rounds
from engine.simulation import fleet_invariants as fleet_rules
from engine.simulation import request_invariants as request_rules
from engine.simulation.chaos import STUCK, Chaos, Drill
from engine.simulation.invariants import Rule, Violation
from engine.simulation.network import SimulatedStore, Swap

TOOLS = frozenset({"tools", "system"})
POLICY = ManagerPolicy(
    "chat",
    ModelFacts("a", "pro", "models", capabilities=TOOLS),
    ModelFacts("b", "flash", "models", capabilities=frozenset({"system"})),
)
HELD = replace(POLICY, recovery=RecoveryPolicy(hold=45.0))
"""A hold that is longer than the gate, so that leaving it out shows."""
SHORT = Drill(seconds=180.0, troubles=9, per_second=1.5)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What goes wrong in a drill is meant to."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("forgetful", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_a_fleet_in_trouble_keeps_every_rule_and_recovers(seed: int, forgetful: bool) -> None:
    Chaos(POLICY, seed, replace(SHORT, forgetful=forgetful)).run()


@pytest.mark.soak
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("forgetful", [False, True])
def test_two_hundred_fleets_keep_every_rule_and_recover(forgetful: bool) -> None:
    first = 1_000 if forgetful else 0
    for seed in range(first, first + 100):
        Chaos(POLICY, seed, Drill(forgetful=forgetful)).run()


def test_a_drill_is_its_seed() -> None:
    first, again, other = (
        Chaos(POLICY, seed, replace(SHORT, seconds=45.0, troubles=4)).run().digest for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


# -- each rule with a bug that it catches ------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]


def applies_older_epochs(patch: pytest.MonkeyPatch) -> None:
    adopt = Switchboard.adopt

    def wrong(board: Switchboard, document: Document, now: float, **more: Any) -> Any:
        if document.epoch < board.document.epoch:
            board.document = document
        return adopt(board, document, now, **more)

    patch.setattr(Switchboard, "adopt", wrong)


def swaps_without_comparing(patch: pytest.MonkeyPatch) -> None:
    commit = SimulatedStore.commit

    def wrong(store: SimulatedStore, swap: Swap, expected: int | None) -> bool:
        current = store.read(swap.manager)
        return commit(store, swap, None if current is None else current.epoch)

    patch.setattr(SimulatedStore, "commit", wrong)


def skips_an_epoch(patch: pytest.MonkeyPatch) -> None:
    decide = fleet_module.decide

    def wrong(*args: Any) -> Document | None:
        following = decide(*args)
        return None if following is None else replace(following, epoch=following.epoch + 1)

    patch.setattr(fleet_module, "decide", wrong)


def follows_one_host(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fleet_module.Tally, "is_down", lambda tally, quorum: tally.down >= 1)


def forgets_silent_hosts(patch: pytest.MonkeyPatch) -> None:
    def wrong(ballot: fleet_module.Ballot) -> set[str]:
        grace = ballot.policy.member_grace
        lost = {member.host for member in ballot.members if not member.alive and member.lost_for < grace}
        return lost - ballot.live_hosts

    patch.setattr(fleet_module.Ballot, "lost_hosts", property(wrong))


def forgets_lost_hosts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fleet_module.Ballot, "lost_hosts", property(lambda ballot: set()))


def ramps_without_a_gate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fleet_module.Ballot, "ready", lambda ballot: True)


def decides_alone_when_cut_off(patch: pytest.MonkeyPatch) -> None:
    lost = Rounds._lost

    def wrong(rounds: Rounds, error: Any) -> None:
        lost(rounds, error)
        for desk in rounds._desks.values():
            known = desk.exchange.board.document
            if known.active is Role.SECONDARY:
                desk.exchange.adopt(known.following(active=Role.PRIMARY, share=1.0, stage=None))

    patch.setattr(Rounds, "_lost", wrong)


def ignores_the_operator(patch: pytest.MonkeyPatch) -> None:
    decide = fleet_module.decide
    patch.setattr(fleet_module, "decide", lambda document, *more: decide(replace(document, override=None), *more))


def ignores_strictness(patch: pytest.MonkeyPatch) -> None:
    route = Switchboard.route

    def wrong(*args: Any, **more: Any) -> tuple[Hop, ...]:
        hops = route(*args, **more)
        return hops if len(hops) == 2 else (*hops, Hop(hops[0].role.other))

    patch.setattr(Switchboard, "route", wrong)


def forgets_the_hold(patch: pytest.MonkeyPatch) -> None:
    start = fleet_module._start_ramp

    def wrong(document: Document, *more: Any, **named: Any) -> Document | None:
        following = start(replace(document, hold=0.0), *more, **named)
        return None if following is None else replace(following, hold=document.hold)

    patch.setattr(fleet_module, "_start_ramp", wrong)
    patch.setattr(Switchboard, "hold_until", property(lambda board: board.active_seen))


def records_no_return(patch: pytest.MonkeyPatch) -> None:
    move_of = rounds_module.move_of

    def wrong(exchange: Any, adoption: Any, **more: Any) -> Any:
        return None if adoption.document.active is Role.PRIMARY else move_of(exchange, adoption, **more)

    patch.setattr(rounds_module, "move_of", wrong)


def records_a_move_twice(patch: pytest.MonkeyPatch) -> None:
    move_of = rounds_module.move_of

    def wrong(*args: Any, **more: Any) -> Any:
        move = move_of(*args, **more)
        if move is not None:
            args[0].sink.submit([move])
        return move

    patch.setattr(rounds_module, "move_of", wrong)


def keeps_permits_of_neutral_results(patch: pytest.MonkeyPatch) -> None:
    report = Breaker.report

    def wrong(breaker: Breaker, permit: Any, effect: Effect, *more: Any, **named: Any) -> Any:
        return () if effect is Effect.NEUTRAL else report(breaker, permit, effect, *more, **named)

    patch.setattr(Breaker, "report", wrong)


def asks_open_breakers(patch: pytest.MonkeyPatch) -> None:
    ask = Breaker.ask

    def wrong(breaker: Breaker, now: float, rand: float) -> Any:
        if breaker.retry_at is not None:
            breaker._timer.retry_at = now
        return ask(breaker, now, rand)

    patch.setattr(Breaker, "ask", wrong)
    patch.setattr(Breaker, "shut", lambda breaker, now: False)


def retries_without_a_budget(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RetryBudget, "withdraw", lambda budget, now: True)


def lands_twice(patch: pytest.MonkeyPatch) -> None:
    land = Flight.land

    def wrong(flight: Flight, verdict: Any) -> Any:
        land(flight, verdict)
        return land(flight, verdict)

    patch.setattr(Flight, "land", wrong)


def asks_models_that_cannot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(admission_module, "lack", lambda needs, model, ratio: None)


def blames_a_model_for_its_limits(patch: pytest.MonkeyPatch) -> None:
    blame = replace(RULES[Category.RATE_LIMITED], breaker=Effect.FAILURE)
    patch.setattr(lessons_module, "RULES", {**RULES, Category.RATE_LIMITED: blame})


def never_passes_the_gate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "ready", lambda gate, now: False)


DOWN = ("outage", "outage", "secondary")


@pytest.mark.parametrize(
    ("bug", "rule", "drill"),
    [
        (applies_older_epochs, fleet_rules.EpochsGrow, replace(SHORT, menu=("primary", "forget", "override"))),
        (
            swaps_without_comparing,
            fleet_rules.OneDecisionPerEpoch,
            replace(SHORT, menu=("outage", "flaky_link", "flaky_link"), troubles=24),
        ),
        (skips_an_epoch, fleet_rules.OneDecisionPerEpoch, replace(SHORT, menu=("outage",), troubles=3)),
        (follows_one_host, fleet_rules.CausesHold, replace(SHORT, menu=("blocked",))),
        (
            forgets_silent_hosts,
            fleet_rules.CausesHold,
            replace(SHORT, menu=("partition", "partition", "outage"), troubles=28),
        ),
        (ramps_without_a_gate, fleet_rules.CausesHold, replace(SHORT, menu=("outage",), troubles=3)),
        (
            forgets_lost_hosts,
            fleet_rules.MinorityMovesNobody,
            replace(SHORT, menu=("partition", "partition", "outage"), troubles=28),
        ),
        (decides_alone_when_cut_off, fleet_rules.FailStatic, replace(SHORT, menu=("partition", "outage"))),
        (ignores_the_operator, fleet_rules.OperatorWins, replace(SHORT, menu=("override", "outage"), troubles=16)),
        (ignores_strictness, fleet_rules.StrictPin, replace(SHORT, menu=("override", *DOWN), troubles=20)),
        (forgets_the_hold, fleet_rules.BoundedFlapping, replace(SHORT, menu=("outage",), troubles=3)),
        (records_no_return, fleet_rules.MovesOnRecord, replace(SHORT, menu=("outage",), troubles=3)),
        (records_a_move_twice, fleet_rules.MovesOnRecord, replace(SHORT, menu=("outage",), troubles=3)),
        (keeps_permits_of_neutral_results, request_rules.PermitsReturn, replace(SHORT, menu=("primary", "leave"))),
        (asks_open_breakers, request_rules.OpenIsOpen, replace(SHORT, menu=DOWN)),
        (
            retries_without_a_budget,
            request_rules.BoundedWork,
            replace(SHORT, seconds=90.0, menu=("partial",), per_second=6.0),
        ),
        (lands_twice, request_rules.OneOutcome, SHORT),
        (asks_models_that_cannot, request_rules.CapabilityKept, replace(SHORT, menu=("primary",))),
        (blames_a_model_for_its_limits, request_rules.LimitsAreNeutral, replace(SHORT, menu=("primary",))),
        (never_passes_the_gate, None, replace(SHORT, seconds=60.0, menu=("outage",), recovery=100.0)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_rule_catches_the_bug_it_is_there_for(
    bug: Patch, rule: type[Rule] | None, drill: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    rules = [] if rule is None else [rule]
    for seed in range(12):
        try:
            Chaos(HELD, seed, drill, rules).run()
        except Violation as violation:
            if violation.rule == (STUCK if rule is None else rule.name):
                return
    pytest.fail("no seed showed it")
