"""One manager on one instance: what it adopts, where requests go, what it votes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.core.agreement import Document, Force, Override, Verdict
from engine.core.breaker import BreakerState, Permit
from engine.core.messages import Role
from engine.core.outcomes import Category, Cause, Effect
from engine.core.policy import ManagerPolicy, ModelFacts, RecoveryPolicy
from engine.core.switchboard import LONGEST_AGE, Hop, Switchboard

POLICY = ManagerPolicy(
    "chat",
    ModelFacts("pro", "gemini-2.5-pro", "gemini"),
    ModelFacts("flash", "gemini-2.5-flash", "gemini"),
    recovery=RecoveryPolicy(hold=15.0, gate=2, sustain=4.0, stage_for=10.0, stage_samples=5),
)
PRIMARY, SECONDARY = Role.PRIMARY, Role.SECONDARY
NORMAL = (Hop(PRIMARY), Hop(SECONDARY))
AWAY = (Hop(SECONDARY), Hop(PRIMARY))
PROBING = (Hop(PRIMARY, Cause.PROBE), Hop(SECONDARY))
RAMPING = (Hop(PRIMARY, Cause.RAMP), Hop(SECONDARY))

MOVED = Document(epoch=2, active=SECONDARY, share=0.0, hold=15.0, cause="quorum", writer="x")
STAGE = Document(epoch=3, active=SECONDARY, share=0.5, stage=1, ramp=3, cause="ramp", writer="x")


def pinned(role: Role, *, strict: bool = False, ttl: float = 60.0, epoch: int = 2) -> Document:
    """A document with an operator's pin."""
    pin = Override(role, strict, "maintenance", "ana", ttl, 0, epoch)
    return Document(epoch=epoch, active=role, share=float(role is PRIMARY), override=pin, writer="x")


def board(*documents: Document, at: float = 100.0) -> Switchboard:
    """A switchboard that adopted these."""
    made = Switchboard(POLICY, 0.0)
    for document in documents:
        assert made.adopt(document, at) is not None
    return made


def call(made: Switchboard, role: Role, effect: Effect, now: float) -> None:
    """One call that passed the breaker."""
    breaker = made.lines[role].breaker
    permit, _ = breaker.ask(now, 0.0)
    assert isinstance(permit, Permit)
    breaker.report(permit, effect, now, 0.0)


def break_line(made: Switchboard, role: Role, now: float) -> None:
    """Fail until the breaker opens."""
    for _ in range(POLICY.breaker.consecutive_failures):
        call(made, role, Effect.FAILURE, now)
    assert made.lines[role].breaker.state is BreakerState.OPEN


# -- adopting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_older_or_equal_epoch_changes_nothing(epoch: int) -> None:
    made = board(MOVED)
    assert made.adopt(Document(epoch=epoch, writer="other"), 200.0) is None
    assert made.document is MOVED
    assert made.document_seen == 100.0


def test_only_a_change_of_the_active_model_restarts_its_clock() -> None:
    made = board(MOVED, at=100.0)
    adoption = made.adopt(STAGE, 150.0)
    assert adoption is not None
    assert not adoption.moved
    assert (made.active_seen, made.document_seen) == (100.0, 150.0)
    back = made.adopt(Document(epoch=9, writer="x"), 200.0)
    assert back is not None
    assert back.moved
    assert made.active_seen == 200.0


def test_a_pin_lasts_by_the_observers_own_clock_from_when_it_was_seen() -> None:
    made = board(pinned(SECONDARY, ttl=60.0), at=100.0)
    assert made.override(159.9) is not None
    assert made.override(160.0) is None


def test_another_change_does_not_prolong_a_pin_and_the_same_pin_again_does() -> None:
    first = pinned(SECONDARY)
    made = board(first, at=100.0)
    made.adopt(Document(epoch=3, active=SECONDARY, share=0.0, override=first.override, writer="x"), 150.0)
    assert made.override(160.0) is None
    made.adopt(pinned(SECONDARY, epoch=4), 155.0)
    assert made.override(214.9) is not None


def test_a_force_reaches_the_breaker_and_leaves_it_through_half_open() -> None:
    force = Force("forced_open", "bad answers", "ana", 60.0, 0, 2)
    made = Switchboard(POLICY, 0.0)
    adoption = made.adopt(Document(epoch=2, forced={"primary": force}, writer="x"), 100.0)
    assert adoption is not None
    assert [(role, moved.to_state) for role, moved in adoption.transitions] == [(PRIMARY, BreakerState.FORCED_OPEN)]
    assert "ana" in adoption.transitions[0][1].reason
    assert made.forces_ended(159.0) == ()
    assert made.forces_ended(160.0) == ("primary",)
    ended = made.adopt(Document(epoch=3, writer="x"), 161.0)
    assert ended is not None
    assert [moved.to_state for _, moved in ended.transitions] == [BreakerState.HALF_OPEN]


# -- after a restart, when only the wall clock knows ------------------------------------------------------------


def test_a_restart_continues_a_hold_where_it_was() -> None:
    made = Switchboard(POLICY, 5.0)
    made.adopt(replace(MOVED, since_ms=1_000_000), 5.0, wall_ms=1_010_000)
    assert (made.active_seen, made.hold_until) == (-5.0, 10.0)
    made.adopt(replace(STAGE, since_ms=1_000_000), 6.0, wall_ms=1_011_000)
    assert made.active_seen == -5.0


@pytest.mark.parametrize(
    ("since_ms", "age", "why"),
    [
        (0, 0.0, "it never changed, as far as anybody wrote"),
        (2_000_000, 0.0, "the writer's clock is ahead by minutes"),
        (1, LONGEST_AGE, "this machine's clock is years ahead"),
    ],
)
def test_an_age_by_the_wall_clock_stays_within_reason(since_ms: int, age: float, why: str) -> None:
    made = Switchboard(POLICY, 0.0)
    made.adopt(replace(MOVED, since_ms=since_ms), 0.0, wall_ms=1_000_000 if since_ms != 1 else 10**12)
    assert made.active_seen == -age, why


@pytest.mark.parametrize(
    ("wall_ms", "left", "why"),
    [
        (1_020_000, 40.0, "twenty seconds are over"),
        (900_000, 60.0, "this clock is behind: never longer than it was given"),
        (2_000_000, 0.0, "this clock is ahead: over, and no less than that"),
    ],
)
def test_a_restart_knows_how_much_is_left_of_a_pin_and_of_a_force(wall_ms: int, left: float, why: str) -> None:
    pin = Override(SECONDARY, False, "maintenance", "ana", 60.0, 1_060_000, 2)
    force = Force("forced_open", "bad answers", "ana", 60.0, 1_060_000, 2)
    document = Document(epoch=3, active=SECONDARY, share=0.0, override=pin, forced={"primary": force}, writer="x")
    made = Switchboard(POLICY, 100.0)
    made.adopt(document, 100.0, wall_ms=wall_ms)
    assert made.override_seen + pin.ttl == made.force_ends(PRIMARY) == 100.0 + left, why
    assert made.override_ended(100.0 + left)
    assert made.forces_ended(100.0 + left) == ("primary",)


def test_an_estimated_end_is_left_to_those_who_saw_the_beginning() -> None:
    document = pinned(SECONDARY, ttl=60.0)
    made = Switchboard(POLICY, 0.0)
    made.adopt(document, 0.0, wall_ms=10**12)
    assert not made.override_ended(119.0, allowance=120.0)
    assert made.override_ended(120.0, allowance=120.0)
    made.adopt(pinned(SECONDARY, ttl=60.0, epoch=3), 200.0)
    assert made.override_ended(260.0, allowance=120.0), "this one was seen to begin"


# -- where requests go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "hops"),
    [
        (Document(epoch=2, writer="x"), NORMAL),
        (MOVED, AWAY),
        (pinned(PRIMARY), NORMAL),
        (pinned(SECONDARY), AWAY),
        (pinned(PRIMARY, strict=True), (Hop(PRIMARY),)),
        (pinned(SECONDARY, strict=True), (Hop(SECONDARY),)),
    ],
)
def test_the_agreement_says_who_is_asked_first(document: Document, hops: tuple[Hop, ...]) -> None:
    assert board(document).route("key", 101.0) == hops


def test_in_a_ramp_a_fixed_share_of_sessions_asks_primary() -> None:
    made = board(MOVED, STAGE)
    routes = {key: made.route(key, 101.0) for key in map(str, range(1000))}
    assert set(routes.values()) == {RAMPING, AWAY}
    assert 400 < sum(route == RAMPING for route in routes.values()) < 600
    assert all(made.route(key, 105.0) == route for key, route in routes.items())


def test_a_strict_pin_ends_with_its_time_even_while_nobody_says_so() -> None:
    made = board(pinned(SECONDARY, strict=True))
    assert made.route("key", 160.0) == PROBING, "without the pin the way back is looked for"


# -- probes ----------------------------------------------------------------------------------------------------


def test_the_first_probe_waits_for_the_hold() -> None:
    made = board(MOVED)
    assert made.route("key", 114.9) == AWAY
    assert made.route("key", 115.0) == PROBING


def test_a_dead_secondary_ends_the_wait_for_a_probe() -> None:
    made = board(MOVED)
    break_line(made, SECONDARY, 101.0)
    assert made.probe_due(102.0)


def test_a_probe_waits_for_the_open_breaker() -> None:
    made = board(MOVED)
    break_line(made, PRIMARY, 110.0)
    assert not made.probe_due(124.9)
    assert made.probe_due(125.0)


def test_a_probe_waits_for_a_model_that_said_when_to_come_back() -> None:
    made = board(MOVED)
    made.lines[PRIMARY].refuse(Category.QUOTA_EXHAUSTED, 100.0, 300.0)
    assert made.probe_due_at(120.0) == 400.0


def test_one_probe_is_out_at_a_time() -> None:
    made = board(MOVED)
    permit, _ = made.lines[PRIMARY].breaker.ask(120.0, 0.0)
    assert isinstance(permit, Permit)
    assert not made.probe_due(120.0)
    made.lines[PRIMARY].breaker.report(permit, Effect.OK, 121.0, 0.0)
    assert made.probe_due(121.0)


@pytest.mark.parametrize("document", [Document(epoch=2, writer="x"), STAGE, pinned(SECONDARY)])
def test_nobody_probes_where_no_way_back_is_looked_for(document: Document) -> None:
    assert board(document).probe_due_at(150.0) is None


def test_a_forced_breaker_is_not_probed() -> None:
    made = board(MOVED)
    made.lines[PRIMARY].breaker.force(BreakerState.FORCED_OPEN, 101.0, "ana")
    assert made.probe_due_at(150.0) is None


def test_the_gate_is_voted_when_it_is_passed_and_forgotten_with_the_next_failover() -> None:
    made = board(MOVED)
    for now in (120.0, 124.0):
        assert made.probe_due(now)
        made.probe_started(now, synthetic=False)
        made.sample(ok=True, now=now)
    assert made.vote("a", "h", 124.0).ready
    assert not made.probe_due(130.0), "a passed gate needs no more probes"
    made.adopt(Document(epoch=3, writer="x"), 130.0)
    made.adopt(Document(epoch=4, active=SECONDARY, share=0.0, hold=30.0, writer="x"), 131.0)
    assert not made.vote("a", "h", 131.0).ready


def test_a_synthetic_probe_makes_up_only_where_traffic_is_too_thin() -> None:
    made = board(MOVED)
    assert not made.synthetic_due(134.9), "hold 15 s, then twice stage_for"
    assert made.synthetic_due(135.0)
    made.probe_started(135.0, synthetic=True)
    made.sample(ok=True, now=135.0)
    assert made.synthetic_due(141.0), "once it makes up, it does not wait that long again after a probe is due"


def test_real_probes_keep_synthetic_ones_away() -> None:
    made = board(MOVED)
    made.probe_started(130.0, synthetic=False)
    made.sample(ok=True, now=130.0)
    assert not made.synthetic_due(149.9)


def test_a_stage_with_enough_samples_needs_no_synthetic_probe() -> None:
    made = board(MOVED, STAGE)
    assert not made.synthetic_due(119.9)
    assert made.synthetic_due(120.0)
    for _ in range(5):
        made.sample(ok=True, now=110.0)
    assert not made.synthetic_due(120.0)


def test_a_fallback_that_was_shut_is_probed_while_nobody_asks_it() -> None:
    made = board()
    line = made.lines[SECONDARY]
    assert not made.fallback_due(100.0)
    line.breaker.trip(100.0, 0.0, "down")
    assert not made.fallback_due(114.9), "its breaker's wait"
    assert made.fallback_due(115.0)
    made.fallback_asked(115.0)
    assert not made.fallback_due(115.5), "once a wait, not once a round"
    made.adopt(MOVED, 116.0)
    assert not made.fallback_due(200.0), "requests probe an active model"


# -- votes -----------------------------------------------------------------------------------------------------


def test_without_traffic_it_abstains() -> None:
    vote = board().vote("a", "h", 100.0)
    assert (vote.primary.verdict, vote.secondary.verdict) == (Verdict.ABSTAIN, Verdict.ABSTAIN)


def test_what_works_is_up_with_its_numbers_and_what_is_broken_down() -> None:
    made = board()
    for _ in range(3):
        call(made, SECONDARY, Effect.OK, 100.0)
    break_line(made, PRIMARY, 100.0)
    vote = made.vote("a", "h", 100.0)
    assert (vote.secondary.verdict, vote.secondary.samples, vote.secondary.failures) == (Verdict.UP, 3, 0)
    assert (vote.primary.verdict, vote.primary.samples, vote.primary.failures) == (Verdict.DOWN, 5, 5)
    assert vote.primary.reason == "open"


def test_a_failed_canary_is_a_finding() -> None:
    made = board()
    made.lines[SECONDARY].breaker.trip(100.0, 0.0, "canary failed")
    assert made.vote("a", "h", 100.0).secondary.verdict is Verdict.DOWN


@pytest.mark.parametrize("state", [BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED])
def test_an_operators_force_is_no_finding(state: BreakerState) -> None:
    made = board()
    break_line(made, PRIMARY, 100.0)
    made.lines[PRIMARY].breaker.force(state, 101.0, "ana")
    assert made.vote("a", "h", 102.0).primary.verdict is Verdict.ABSTAIN


def test_samples_of_a_stage_are_voted_with_its_epoch_and_begin_anew_with_the_next() -> None:
    made = board(MOVED, STAGE)
    for ok in (True, True, False):
        made.sample(ok=ok, now=101.0)
    vote = made.vote("a", "h", 102.0)
    assert (vote.epoch, vote.stage_ok, vote.stage_failed) == (3, 2, 1)
    made.adopt(Document(epoch=4, active=SECONDARY, share=0.75, stage=2, ramp=3, writer="x"), 110.0)
    later = made.vote("a", "h", 111.0)
    assert (later.epoch, later.stage_ok, later.stage_failed) == (4, 0, 0)
    assert later.seq > vote.seq


def test_calls_on_an_active_primary_are_no_samples_of_a_ramp() -> None:
    made = board()
    made.sample(ok=False, now=100.0)
    vote = made.vote("a", "h", 100.0)
    assert (vote.stage_ok, vote.stage_failed) == (0, 0)


# -- lines -----------------------------------------------------------------------------------------------------


def test_a_model_that_refuses_everybody_is_asked_again_after_its_time() -> None:
    line = board().lines[PRIMARY]
    line.refuse(Category.QUOTA_EXHAUSTED, 100.0, 60.0)
    found = line.unavailable(159.9)
    assert found is not None
    assert (found.category, found.until) == (Category.QUOTA_EXHAUSTED, 160.0)
    assert line.unavailable(160.0) is None


def test_a_later_refusal_never_shortens_and_a_success_ends_it() -> None:
    line = board().lines[PRIMARY]
    line.refuse(Category.QUOTA_EXHAUSTED, 100.0, 600.0)
    assert line.refuse(Category.MODEL_UNAVAILABLE, 110.0, 5.0).until == 700.0
    line.accept()
    assert line.unavailable(111.0) is None
