"""How a manager lives through an outage and through flapping, in simulated time and over many seeds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.messages import Role
from engine.core.outcomes import Category
from engine.providers.world import HEALTHY, OUTAGE, Faults, Flap
from engine.simulation.world import SimulatedWorld
from tests.engine.simulation.worlds import POLICY, trouble

SEEDS = st.integers(0, 2**32 - 1)
HANDFUL = 5

down = [
    pytest.param(Faults(outage=1.0), 5, id="503"),
    pytest.param(Faults(outage=1.0, outage_as=Category.CONNECTION), 5, id="connection"),
    pytest.param(Faults(outage=1.0, outage_as=Category.TIMEOUT), 10, id="504"),
    pytest.param(Faults(no_finish=1.0), 12, id="truncated"),
    pytest.param(Faults(hang=1.0), 50, id="silent"),
]


@pytest.mark.parametrize(("faults", "found"), down)
@settings(max_examples=4, deadline=None)
@given(seed=SEEDS)
def test_a_minute_of_outage_is_answered_by_secondary_and_primary_is_back_soon(
    faults: Faults, found: float, seed: int
) -> None:
    """`found`: seconds until the active model moves; silence is known by its clocks alone, the first after 30 s."""
    run = trouble(seed, faults)

    assert len(run.world.arrivals) == run.world.sent == 420
    assert run.errors == []
    assert [to for _, to, _ in run.moves] == [Role.SECONDARY, Role.PRIMARY]
    moved = run.moves[0][0]
    assert moved < found
    assert run.asked("pro", run.begins + moved, run.ends) <= HANDFUL
    assert run.used is not None
    assert run.used <= 45
    assert run.full is not None
    assert run.full <= 180
    assert max(arrival.took for arrival in run.world.arrivals) < 65, "a silent model costs its clock once"


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS)
def test_one_request_a_minute_is_enough_to_come_back_within_ten_minutes(seed: int) -> None:
    run = trouble(seed, Faults(outage=1.0), gap=60.0, lasts=600.0, after=900.0)

    assert run.errors == []
    assert [to for _, to, _ in run.moves] == [Role.SECONDARY, Role.PRIMARY]
    assert run.full is not None
    assert run.full <= 600
    assert run.synthetic


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS)
def test_a_busy_manager_hardly_needs_synthetic_probes(seed: int) -> None:
    run = trouble(seed, Faults(outage=1.0), gap=0.5, lasts=150.0, after=60.0)

    during = [record for record in run.synthetic if record.status_code >= 500]
    assert during == []


@settings(max_examples=4, deadline=None)
@given(seed=SEEDS)
def test_three_instances_agree_on_one_move_there_and_one_back(seed: int) -> None:
    run = trouble(seed, Faults(outage=1.0), hosts=("a", "b", "c"))

    assert run.errors == []
    assert [to for _, to, _ in run.moves] == [Role.SECONDARY, Role.PRIMARY]
    assert run.full is not None
    assert run.full <= 180
    assert {node.exchange.board.document.epoch for node in run.world.nodes.values()} == {run.world.document().epoch}


@pytest.mark.parametrize("gap", [0.5, 1.0])
@settings(max_examples=3, deadline=None)
@given(seed=SEEDS)
def test_flapping_moves_the_active_model_seldom_and_ever_more_seldom(gap: float, seed: int) -> None:
    run = trouble(seed, Faults(outage=1.0, flap=Flap(5.0, 5.0)), gap=gap, lasts=300.0, after=400.0)

    times = [at for at, _, _ in run.moves]
    assert len(times) <= 4
    stays = [later - earlier for earlier, later in zip(times[::2], times[1::2], strict=False)]
    assert stays == sorted(stays)
    assert run.errors == []
    assert run.world.document().active is Role.PRIMARY


@pytest.mark.soak
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_an_hour_of_slower_flapping_keeps_secondary_longer_each_time(seed: int) -> None:
    run = trouble(seed, Faults(outage=1.0, flap=Flap(100.0, 40.0)), lasts=3600.0, after=1200.0)

    away = [at for at, to, _ in run.moves if to == Role.SECONDARY]
    assert len(away) <= 12
    half = [at for at in away if at > 1800]
    assert len(half) <= len(away) - len(half)
    assert run.errors == []


@pytest.mark.parametrize("seed", range(3))
def test_a_fallback_that_was_down_is_ready_before_it_is_needed_again(seed: int) -> None:
    world = SimulatedWorld(POLICY, seed)
    world.every(0.25, 400.0, lambda: world.send("a-0"))
    for at, model, faults in (
        (60.0, "pro", OUTAGE),
        (90.0, "flash", OUTAGE),
        (110.0, "pro", HEALTHY),
        (130.0, "flash", HEALTHY),
        (300.0, "pro", OUTAGE),
    ):
        world.timeline.at(at, lambda model=model, faults=faults: world.models.set(model, faults, world.timeline.now))
    world.run(410.0)

    assert world.document().active is Role.SECONDARY
    late = [arrival for arrival in world.arrivals if arrival.flight.started > 1000.0 + 180.0]
    assert [arrival.landed.error for arrival in late if arrival.landed.error is not None] == []


def test_the_same_seed_gives_the_same_trace_and_another_one_another() -> None:
    faults = Faults(outage=0.6, flap=Flap(20.0, 10.0))
    first, again, other = (trouble(seed, faults, hosts=("a", "b")) for seed in (1, 1, 2))

    assert first.world.digest == again.world.digest
    assert first.world.digest != other.world.digest
