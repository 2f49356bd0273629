"""What a fleet is built for, one scenario each: who moves, who does not, and how soon everybody knows."""

from __future__ import annotations

import pytest

from engine.core.breaker import BreakerState
from engine.core.events import BreakerRecord, FailoverRecord, OverrideRecord, Scope
from engine.core.messages import Role
from engine.providers.world import OUTAGE
from engine.simulation.fleet_invariants import FLEET_RULES
from engine.simulation.network import SOUND, LinkFaults
from engine.simulation.request_invariants import REQUEST_RULES
from engine.simulation.world import SimulatedWorld
from tests.engine.simulation.worlds import POLICY

FIVE = ("a", "b", "c", "d", "e")
CUT = LinkFaults(cut=True)
SEEDS = pytest.mark.parametrize("seed", range(2))


def fleet(seed: int, hosts: tuple[str, ...] = FIVE, gap: float = 1.0) -> SimulatedWorld:
    """Every instance gets a request every `gap` seconds, and every rule looks on."""
    world = SimulatedWorld(POLICY, seed, hosts=hosts, watchers=(*FLEET_RULES, *REQUEST_RULES))
    for place, name in enumerate(list(world.nodes)):
        begin = world.timeline.at
        begin(place * gap / len(hosts), lambda name=name: world.every(gap, 10_000.0, lambda: world.send(name)))
    world.run(20.0)
    return world


def active(world: SimulatedWorld) -> set[Role]:
    return {node.exchange.board.document.active for node in world.nodes.values()}


def run_until(world: SimulatedWorld, role: Role, within: float) -> float:
    """World time at which everybody goes by a role."""
    until = world.timeline.now + within
    while active(world) != {role} and world.timeline.now < until:
        world.run(world.timeline.now + 0.02)
    assert active(world) == {role}
    return world.timeline.now


@SEEDS
def test_five_instances_agree_within_a_second_of_detection_by_one_move(seed: int) -> None:
    world = fleet(seed)
    world.models.set("pro", OUTAGE, world.timeline.now)
    agreed = run_until(world, Role.SECONDARY, 30.0)

    opened = [
        note.at
        for note in world.notes
        if isinstance(note.record, BreakerRecord) and note.record.to_state == BreakerState.OPEN
    ]
    assert agreed - sorted(opened)[2] < 1.0
    moves = [record for record in world.records(FailoverRecord) if record.scope is Scope.ACTIVE]
    assert len({record.epoch for record in moves}) == 1
    assert {record.instance for record in moves} == set(world.nodes)
    assert not any(arrival.landed.error for arrival in world.arrivals)


@SEEDS
def test_one_instance_that_does_not_reach_primary_moves_nobody_and_answers_its_callers(seed: int) -> None:
    world = fleet(seed)
    world.block("a-0", "pro")
    world.run(120.0)

    assert active(world) == {Role.PRIMARY}
    assert not any(arrival.landed.error for arrival in world.arrivals)


@SEEDS
def test_eight_workers_of_a_broken_host_move_nobody(seed: int) -> None:
    world = fleet(seed, ("a",) * 8 + ("b", "c"))
    for name, node in world.nodes.items():
        if node.identity.host == "a":
            world.block(name, "pro")
    world.run(120.0)

    assert active(world) == {Role.PRIMARY}
    assert not any(arrival.landed.error for arrival in world.arrivals)


@SEEDS
def test_the_smaller_side_of_a_split_moves_nobody_while_the_grace_runs(seed: int) -> None:
    world = fleet(seed)
    for name in ("c-2", "d-3", "e-4"):
        world.links[name].suffer(CUT)
    world.run(world.timeline.now + 2.0)
    world.models.set("pro", OUTAGE, world.timeline.now)
    world.run(world.timeline.now + POLICY.fleet.member_grace - 5.0)

    assert active(world) == {Role.PRIMARY}
    assert not any(arrival.landed.error for arrival in world.arrivals)


@SEEDS
def test_who_is_cut_off_from_the_coordinator_keeps_the_agreement_and_joins_again(seed: int) -> None:
    world = fleet(seed)
    world.links["a-0"].suffer(CUT)
    world.models.set("pro", OUTAGE, world.timeline.now)
    world.run(world.timeline.now + 30.0)
    alone = world.nodes["a-0"]

    assert alone.rounds.reachable is False
    assert alone.exchange.board.document.active is Role.PRIMARY
    assert {world.nodes[name].exchange.board.document.active for name in list(world.nodes)[1:]} == {Role.SECONDARY}
    assert not any(arrival.landed.error for arrival in world.arrivals)
    world.links["a-0"].suffer(SOUND)
    run_until(world, Role.SECONDARY, 1.0)
    assert alone.rounds.reachable is True


@SEEDS
def test_a_pin_reaches_everybody_survives_its_author_and_ends_everywhere(seed: int) -> None:
    world = fleet(seed)
    set_at = world.timeline.now
    assert world.override(Role.SECONDARY, ttl=60.0, via="a-0") is not None
    assert run_until(world, Role.SECONDARY, 1.0) - set_at < 1.0
    world.crash("a-0")
    world.run(set_at + 59.0)
    assert all(node.exchange.board.override(node.clock.monotonic()) for node in world.nodes.values())
    world.run(set_at + 63.0)
    assert {node.exchange.board.document.override for node in world.nodes.values()} == {None}
    assert [record.action for record in world.records(OverrideRecord)] == ["set", "expired"]
