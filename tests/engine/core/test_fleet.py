"""The agreement's rules, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from engine.core.agreement import Document, Force, Member, Opinion, Override, Verdict, Vote
from engine.core.fleet import FLAP_MEMORY, MAX_HOLD, Ballot, Observation, Tally, decide, force, pin, release
from engine.core.messages import Role
from engine.core.outcomes import Cause
from engine.core.policy import FleetPolicy, RecoveryPolicy

RECOVERY = RecoveryPolicy()
FLEET = FleetPolicy()
UP = Opinion(Verdict.UP, 20, 0)
DOWN = Opinion(Verdict.DOWN, 20, 15, "open")
IDLE = Opinion()

ON_PRIMARY = Document(epoch=3, writer="x")
ON_SECONDARY = Document(epoch=7, active=Role.SECONDARY, share=0.0, hold=15.0, cause="quorum", writer="x")
IN_RAMP = replace(ON_SECONDARY, epoch=9, stage=0, share=0.1, ramp=9)
PIN = Override(Role.SECONDARY, False, "maintenance", "ana", 60.0, 0, 4)


def at(now: float = 1000.0, *, active: float = 0.0, document: float = 0.0, **more: object) -> Observation:
    """What an observer knows: when it saw `active` and the document change."""
    return Observation(now, int(now * 1000), active, document, "me/1", **more)  # type: ignore[arg-type]


def vote(host: str, primary: Opinion = IDLE, secondary: Opinion = IDLE, **more: object) -> Vote:
    """A vote of a host's first worker, or of the worker named as `host/worker`."""
    instance = host if "/" in host else f"{host}/0"
    return Vote(instance, host.partition("/")[0], more.pop("epoch", 9), primary, secondary, **more)  # type: ignore[arg-type]


def alive(*hosts: str) -> list[Member]:
    """One instance on each host."""
    return [Member(f"{host}/0", host) for host in hosts]


def lost(host: str, seconds: float) -> Member:
    """An instance lost a while ago."""
    return Member(f"{host}/0", host, alive=False, lost_for=seconds)


def ask(
    document: Document, votes: Sequence[Vote], members: Sequence[Member] | None = None, seen: Observation | None = None
) -> Document | None:
    """Decide, with everybody who votes alive unless told."""
    present = alive(*sorted({vote.host for vote in votes})) if members is None else members
    return decide(document, votes, present, seen or at(), RECOVERY, FLEET)


# -- away from primary -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "live", "moves", "why"),
    [
        ({"a": DOWN}, "a", True, "a fleet of one host decides alone"),
        ({"a": DOWN}, "ab", False, "two live hosts: one finding is not enough, even when the other is idle"),
        ({"a": DOWN, "b": DOWN}, "ab", True, "both of two"),
        ({"a": DOWN, "b": UP}, "ab", False, "one of two is not more than half"),
        ({"a": DOWN, "b": DOWN, "c": UP}, "abc", True, "two of three"),
        ({"a": DOWN, "b": DOWN, "c": UP, "d": UP}, "abcd", False, "two of four is not more than half"),
        ({"a": DOWN, "b": DOWN, "c": IDLE, "d": IDLE, "e": IDLE}, "abcde", True, "idle hosts abstain"),
        ({"a": DOWN, "b": DOWN}, "abcde", False, "hosts whose votes have run out are silent, not idle"),
        ({"a": DOWN, "b": UP, "c": UP, "d": UP, "e": UP}, "abcde", False, "one broken machine moves nobody"),
        ({}, "abc", False, "nobody says anything"),
    ],
)
def test_the_quorum(findings: dict[str, Opinion], live: str, moves: bool, why: str) -> None:
    following = ask(ON_PRIMARY, [vote(host, found) for host, found in findings.items()], alive(*live))
    assert (following is not None) is moves, why


def test_a_move_says_what_justified_it() -> None:
    following = ask(ON_PRIMARY, [vote("a", DOWN), vote("b", DOWN), vote("c", UP)])
    assert following == Document(
        epoch=4,
        active=Role.SECONDARY,
        share=0.0,
        stage=None,
        cause="quorum",
        since_ms=1_000_000,
        hold=15.0,
        hold_until_ms=1_015_000,
        moved=4,
        moved_by="quorum",
        writer="me/1",
        evidence={
            "role": "primary",
            "down": 2,
            "opinions": 3,
            "live_hosts": 3,
            "quorum": 0.5,
            "votes": {
                "a/0": {"verdict": "down", "samples": 20, "failures": 15},
                "b/0": {"verdict": "down", "samples": 20, "failures": 15},
                "c/0": {"verdict": "up", "samples": 20, "failures": 0},
            },
        },
    )


def test_a_lone_host_moves_by_its_breaker() -> None:
    following = ask(ON_PRIMARY, [vote("a", DOWN)])
    assert following is not None
    assert following.cause == Cause.BREAKER_OPEN


@pytest.mark.parametrize(
    ("workers", "says"),
    [
        ((DOWN, DOWN, UP), 1),
        ((DOWN, UP), 0),
        ((DOWN, IDLE, IDLE, IDLE), 1),
        ((DOWN,) * 8, 1),
    ],
)
def test_a_host_has_one_vote_its_workers_majority(workers: tuple[Opinion, ...], says: int) -> None:
    votes = [vote(f"a/{number}", found) for number, found in enumerate(workers)]
    assert Ballot(votes, (), FLEET).tally(Role.PRIMARY) == Tally(down=says, up=1 - says, lost=0, live=1)


def test_eight_workers_on_a_broken_host_move_nobody() -> None:
    votes = [vote(f"a/{number}", DOWN) for number in range(8)]
    assert ask(ON_PRIMARY, votes, [*alive("b", "c"), *(Member(f"a/{n}", "a") for n in range(8))]) is None


def test_never_towards_a_model_that_is_voted_down() -> None:
    assert ask(ON_PRIMARY, [vote("a", DOWN, DOWN), vote("b", DOWN, DOWN)]) is None
    assert ask(ON_PRIMARY, [vote("a", DOWN, DOWN), vote("b", DOWN, UP)]) is not None, "one host's finding is no verdict"


@pytest.mark.parametrize(
    ("down", "absent", "lost_for", "moves"),
    [
        ("a", "b", 5.0, False),
        ("a", "b", 119.9, False),
        ("a", "b", 120.0, True),
        ("ab", "cd", 5.0, False),
        ("ab", "c", 5.0, True),
        ("ab", "cde", 5.0, False),
        ("ab", "cde", 121.0, True),
    ],
)
def test_lost_hosts_count_among_the_others_for_the_grace(down: str, absent: str, lost_for: float, moves: bool) -> None:
    members = [*alive(*down), *(lost(host, lost_for) for host in absent)]
    assert (ask(ON_PRIMARY, [vote(host, DOWN) for host in down], members) is not None) is moves


def test_a_host_with_one_worker_left_is_not_lost() -> None:
    members = [*alive("a"), Member("b/0", "b"), Member("b/1", "b", alive=False, lost_for=5.0)]
    assert Ballot([vote("a", UP), vote("b", IDLE)], members, FLEET).lost_hosts == set()


# -- holds and flaps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flaps", "healthy", "then", "hold"),
    [
        (0, 10.0, 1, 30.0),
        (2, 10.0, 3, 120.0),
        (2, FLAP_MEMORY, 1, 30.0),
        (2, 5 * FLAP_MEMORY, 0, 15.0),
        (19, 1.0, 20, MAX_HOLD),
        (10**6, 1.0, 10**6 + 1, MAX_HOLD),
    ],
)
def test_a_hold_doubles_with_every_recent_flap(flaps: int, healthy: float, then: int, hold: float) -> None:
    document = replace(ON_PRIMARY, flaps=flaps, hold=15.0)
    following = ask(document, [vote("a", DOWN)], seen=at(10_000.0, active=10_000.0 - healthy))
    assert following is not None
    assert (following.flaps, following.hold) == (then, hold)


def test_the_first_move_ever_is_no_flap() -> None:
    following = ask(ON_PRIMARY, [vote("a", DOWN)], seen=at(5.0))
    assert following is not None
    assert following.flaps == 0


def test_a_dead_secondary_ends_the_hold_when_primary_answers() -> None:
    early = at(1001.0, active=1000.0)
    following = ask(ON_SECONDARY, [vote("a", UP, DOWN), vote("b", IDLE, DOWN)], seen=early)
    assert following is not None
    assert (following.active, following.share, following.cause) == (Role.PRIMARY, 1.0, Cause.QUORUM)
    assert ask(ON_SECONDARY, [vote("a", IDLE, DOWN), vote("b", IDLE, DOWN)], seen=early) is None, "nobody knows"
    assert ask(ON_SECONDARY, [vote("a", DOWN, DOWN), vote("b", DOWN, DOWN)], seen=early) is None, "both are dead"


# -- the way back ----------------------------------------------------------------------------------------------

READY = [vote("a", UP, ready=True), vote("b", UP, ready=True)]


def test_the_first_stage_needs_hold_and_gate() -> None:
    assert ask(ON_SECONDARY, READY, seen=at(14.9, active=0.0)) is None
    following = ask(ON_SECONDARY, READY, seen=at(15.0, active=0.0))
    assert following is not None
    assert (following.active, following.stage, following.share, following.ramp) == (Role.SECONDARY, 0, 0.1, 8)
    assert following.cause == Cause.RAMP


@pytest.mark.parametrize(
    ("votes", "begins", "why"),
    [
        ([vote("a", UP, ready=True)], True, "a lone host"),
        ([vote("a", UP, ready=True), vote("b", UP)], False, "half is not more than half"),
        ([vote("a", UP, ready=True), vote("b", UP, ready=True), vote("c", DOWN)], True, "two of three"),
        ([vote("a", UP, ready=True), vote("b", DOWN), vote("c", DOWN)], False, "one of three"),
        ([vote("a", UP, ready=True), vote("b"), vote("c")], False, "two live hosts must have looked"),
        ([vote("a"), vote("b")], False, "nobody has looked"),
    ],
)
def test_a_ramp_begins_when_enough_hosts_have_passed_the_gate(votes: list[Vote], begins: bool, why: str) -> None:
    assert (ask(ON_SECONDARY, votes) is not None) is begins, why


def test_a_half_split_off_begins_no_ramp() -> None:
    assert ask(ON_SECONDARY, READY, [*alive("a", "b"), lost("c", 5.0), lost("d", 5.0)]) is None


@pytest.mark.parametrize(("ok", "waited", "advances"), [(5, 15.0, True), (4, 99.0, False), (99, 14.9, False)])
def test_a_stage_needs_samples_and_time(ok: int, waited: float, advances: bool) -> None:
    seen = at(1000.0, document=1000.0 - waited)
    following = ask(IN_RAMP, [vote("a", UP, stage_ok=ok)], seen=seen)
    assert (following is not None) is advances
    if following:
        assert (following.stage, following.share, following.ramp) == (1, 0.25, 9)


def test_samples_of_all_instances_count_together_and_only_of_this_epoch() -> None:
    votes = [vote("a", UP, stage_ok=3), vote("b", UP, stage_ok=2)]
    assert ask(IN_RAMP, votes) is not None
    assert ask(IN_RAMP, [votes[0], replace(votes[1], epoch=8)]) is None


def test_the_last_stage_makes_primary_active() -> None:
    following = ask(replace(IN_RAMP, stage=2, share=0.5), [vote("a", UP, stage_ok=5)])
    assert following is not None
    assert (following.active, following.share, following.stage, following.cause) == (
        Role.PRIMARY,
        1.0,
        None,
        Cause.FAILBACK,
    )
    assert following.since_ms == 1_000_000


@pytest.mark.parametrize(
    ("votes", "aborts", "why"),
    [
        ([vote("a", UP, stage_ok=3, stage_failed=1)], False, "one failure ends nothing"),
        ([vote("a", UP, stage_ok=3, stage_failed=2)], True, "a lone host judges alone"),
        ([vote("a", UP, stage_ok=8, stage_failed=2)], False, "a fifth is not more than a fifth"),
        ([vote("a", UP, stage_failed=1), vote("b", UP, stage_failed=1)], True, "two hosts saw it fail"),
        ([vote("a", DOWN, stage_failed=9), vote("b", UP, stage_ok=4)], False, "one machine's network"),
        ([vote("a", DOWN, stage_failed=9), vote("b")], False, "one machine's network, the other idle"),
        ([vote("a", DOWN), vote("b", DOWN)], True, "primary is voted down"),
    ],
)
def test_a_failing_stage_drops_to_nothing_and_counts_a_flap(votes: list[Vote], aborts: bool, why: str) -> None:
    following = ask(IN_RAMP, votes, seen=at(1000.0, active=900.0, document=999.0))
    assert (following is not None) is aborts, why
    if following:
        assert (following.active, following.share, following.stage) == (Role.SECONDARY, 0.0, None)
        assert (following.flaps, following.cause) == (1, "ramp_abort")
        assert following.since_ms == IN_RAMP.since_ms, "an abort is no move"
        assert following.hold == 100.0 + 30.0, "the hold counts from now, not from the move"


def test_one_machine_with_a_broken_network_does_not_keep_a_ramp_from_advancing() -> None:
    votes = [vote("a", DOWN, stage_failed=9), vote("b", UP, stage_ok=3), vote("c", UP, stage_ok=3)]
    following = ask(IN_RAMP, votes)
    assert following is not None
    assert following.stage == 1


# -- operators -------------------------------------------------------------------------------------------------


def test_a_pin_takes_effect_at_once_and_ends_a_ramp() -> None:
    pinned = pin(IN_RAMP, replace(PIN, role=Role.PRIMARY), at())
    assert (pinned.epoch, pinned.active, pinned.share, pinned.stage) == (10, Role.PRIMARY, 1.0, None)
    assert (pinned.cause, pinned.since_ms) == (Cause.OVERRIDE, 1_000_000)
    again = pin(pinned, PIN, at(2000.0))
    assert (again.active, again.share, again.since_ms) == (Role.SECONDARY, 0.0, 2_000_000)
    assert pin(again, PIN, at(3000.0)).since_ms == 2_000_000, "pinning what is active is no move"


def test_a_pin_beats_every_vote() -> None:
    pinned = pin(ON_PRIMARY, replace(PIN, role=Role.PRIMARY), at())
    assert ask(pinned, [vote("a", DOWN), vote("b", DOWN)]) is None


def test_an_expired_pin_to_secondary_goes_back_by_gate_and_ramp_without_a_hold() -> None:
    pinned = pin(replace(ON_PRIMARY, hold=60.0), PIN, at())
    freed = ask(pinned, READY, seen=at(override_over=True))
    assert freed is not None
    assert (freed.override, freed.active, freed.cause) == (None, Role.SECONDARY, "override expired")
    assert ask(freed, [vote("a", UP), vote("b", UP)], seen=at(active=999.0)) is None, "the gate stands"
    ramping = ask(freed, READY, seen=at(active=999.0))
    assert ramping is not None
    assert ramping.stage == 0


def test_an_expired_pin_to_primary_changes_nothing_else() -> None:
    freed = ask(pin(ON_PRIMARY, replace(PIN, role=Role.PRIMARY), at()), [], seen=at(override_over=True))
    assert freed is not None
    assert (freed.active, freed.share, freed.stage, freed.override) == (Role.PRIMARY, 1.0, None, None)


def test_clearing_is_the_same_as_expiry_under_another_name() -> None:
    pinned = pin(ON_PRIMARY, PIN, at())
    cleared = release(pinned, PIN, at(), "override cleared")
    expired = ask(pinned, [], seen=at(override_over=True))
    assert expired is not None
    assert replace(cleared, cause="") == replace(expired, cause="")


def test_a_pin_to_the_model_that_is_active_lets_a_running_hold_go_on() -> None:
    held = replace(ON_SECONDARY, hold=60.0, hold_until_ms=1_060_000)
    freed = release(pin(held, PIN, at(1020.0)), PIN, at(1030.0), "override cleared")
    assert (freed.hold, freed.hold_until_ms) == (60.0, 1_060_000)
    assert ask(freed, READY, seen=at(1059.0, active=1000.0)) is None, "thirty seconds of it were left"
    assert ask(freed, READY, seen=at(1060.0, active=1000.0)) is not None


def test_a_pin_that_moved_to_secondary_leaves_no_hold_behind() -> None:
    freed = release(pin(replace(ON_PRIMARY, hold=60.0), PIN, at(1000.0)), PIN, at(1010.0), "override cleared")
    assert (freed.active, freed.hold, freed.hold_until_ms) == (Role.SECONDARY, 0.0, 1_000_000)


@pytest.mark.parametrize("flaps", [0, 3])
def test_a_pin_to_primary_that_ended_is_no_flap_when_primary_dies_again(flaps: int) -> None:
    to_primary = replace(PIN, role=Role.PRIMARY)
    away = replace(ON_SECONDARY, hold=60.0, flaps=flaps)
    freed = release(pin(away, to_primary, at(1000.0)), to_primary, at(1010.0), "override expired")
    assert freed.active is Role.PRIMARY
    following = ask(freed, [vote("a", DOWN)], seen=at(1015.0, active=1000.0))
    assert following is not None
    assert (following.flaps, following.hold) == (flaps, 15.0 * 2**flaps)


def test_a_pin_to_primary_while_it_serves_hides_no_flap() -> None:
    to_primary = replace(PIN, role=Role.PRIMARY)
    back = replace(ON_PRIMARY, hold=15.0)
    freed = release(pin(back, to_primary, at(1000.0)), to_primary, at(1010.0), "override expired")
    following = ask(freed, [vote("a", DOWN)], seen=at(1015.0, active=990.0))
    assert following is not None
    assert following.flaps == 1


def test_a_document_names_the_epoch_of_the_last_move_whatever_came_after_it() -> None:
    moved = ask(ON_PRIMARY, [vote("a", DOWN), vote("b", DOWN)])
    assert moved is not None
    later = force(moved, Role.PRIMARY, FORCE, at())
    assert (later.epoch, later.moved, later.moved_by) == (5, 4, "quorum")
    pinned = pin(later, replace(PIN, role=Role.PRIMARY), at())
    assert (pinned.moved, pinned.moved_by) == (6, "override")


FORCE = Force("forced_open", "bad answers", "ana", 60.0, 0, 5)


def test_a_force_is_set_kept_through_moves_and_cleared() -> None:
    forced = force(ON_PRIMARY, Role.PRIMARY, FORCE, at())
    assert forced.forced == {"primary": FORCE}
    both = force(forced, Role.SECONDARY, FORCE, at())
    moved = ask(both, [vote("a", DOWN)])
    assert moved is not None
    assert set(moved.forced) == {"primary", "secondary"}
    assert set(force(moved, Role.PRIMARY, None, at()).forced) == {"secondary"}


def test_an_expired_force_is_cleared_also_under_a_pin() -> None:
    forced = force(pin(ON_PRIMARY, PIN, at()), Role.PRIMARY, FORCE, at())
    following = ask(forced, [], seen=at(forces_over=("primary",)))
    assert following is not None
    assert (following.forced, following.override, following.cause) == ({}, PIN, "force expired")
