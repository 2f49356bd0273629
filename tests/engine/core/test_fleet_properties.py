"""What holds for the agreement's rules in every fleet, found by random fleets instead of by example."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.core.agreement import Document, Member, Opinion, Override, Verdict, Vote
from engine.core.fleet import Observation, decide
from engine.core.messages import Role
from engine.core.outcomes import Cause
from engine.core.policy import FleetPolicy, RecoveryPolicy

FLEET = FleetPolicy()
RECOVERY = RecoveryPolicy()

Fleet = tuple[list[Vote], list[Member]]

opinions = st.builds(Opinion, st.sampled_from(Verdict), st.integers(0, 50), st.integers(0, 50))
overrides = st.builds(
    Override,
    st.sampled_from(Role),
    st.booleans(),
    st.just("why"),
    st.just("ana"),
    st.just(60.0),
    st.just(0),
    st.just(1),
)
observations = st.builds(
    Observation,
    now=st.floats(1000.0, 9000.0),
    wall_ms=st.just(1_800_000_000_000),
    active_seen=st.floats(0.0, 1000.0),
    document_seen=st.floats(900.0, 1000.0),
    writer=st.just("me/1"),
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """A document the rules can come to, without a pin."""
    epoch = draw(st.integers(1, 1000))
    flaps, hold = draw(st.integers(0, 40)), draw(st.floats(0.0, 3600.0))
    shape = draw(st.sampled_from(["primary", "secondary", "ramp"]))
    if shape == "primary":
        return Document(epoch=epoch, flaps=flaps, hold=hold, writer="x")
    stage = draw(st.integers(0, 2)) if shape == "ramp" else None
    share = 0.0 if stage is None else RECOVERY.stages[stage]
    return Document(epoch, Role.SECONDARY, share, stage, ramp=1, cause="quorum", flaps=flaps, hold=hold, writer="x")


@st.composite
def fleets(draw: st.DrawFn, *, least: int = 1) -> Fleet:
    """Up to six hosts with up to three workers each: voting, idle, or lost."""
    votes, members = [], []
    for host in range(draw(st.integers(least, 6))):
        for worker in range(draw(st.integers(1, 3))):
            name = f"h{host}/{worker}"
            living = (worker == 0 and host < least) or draw(st.booleans())
            members.append(Member(name, f"h{host}", alive=living, lost_for=0.0 if living else draw(st.floats(0, 300))))
            if living and draw(st.booleans()):
                votes.append(
                    Vote(
                        name, f"h{host}", draw(st.integers(1, 3)), draw(opinions), draw(opinions), draw(st.booleans()),
                        draw(st.integers(0, 20)), draw(st.integers(0, 20)),
                    )
                )  # fmt: skip
    return votes, members


def says_down(votes: list[Vote], members: list[Member], role: Role) -> bool:
    """The quorum as ENGINE.md has it, counted a second time and by other means."""
    said: dict[str, list[bool]] = defaultdict(list)
    for vote in votes:
        if vote.opinion(role).verdict is not Verdict.ABSTAIN:
            said[vote.host].append(vote.opinion(role).verdict is Verdict.DOWN)
    down = len([host for host, workers in said.items() if workers.count(True) > workers.count(False)])
    live = {member.host for member in members if member.alive} | {vote.host for vote in votes}
    known = live | {member.host for member in members if member.lost_for < FLEET.member_grace}
    silent = known - {vote.host for vote in votes}
    return down / max(1, len(said) + len(silent)) > FLEET.quorum and down >= min(2, len(live))


def run(document: Document, fleet: Fleet, seen: Observation) -> Document | None:
    """Decide with the standing policies."""
    return decide(document, *fleet, seen, RECOVERY, FLEET)


@given(documents(), fleets(), observations)
def test_a_change_is_one_epoch_later_and_says_who_and_why(document: Document, fleet: Fleet, seen: Observation) -> None:
    following = run(document, fleet, seen)
    if following is not None:
        assert following.epoch == document.epoch + 1
        assert following.writer == "me/1"
        assert following.cause
        assert replace(following, epoch=document.epoch, writer=document.writer) != document
        assert Document.from_json(following.to_json()) == following


@given(documents(), fleets(), observations)
def test_a_document_is_always_whole(document: Document, fleet: Fleet, seen: Observation) -> None:
    following = run(document, fleet, seen)
    if following is not None:
        assert 0.0 <= following.share <= 1.0
        assert (following.share == 1.0) is (following.active is Role.PRIMARY)
        assert (following.stage is not None) is (0.0 < following.share < 1.0)


@given(documents(), fleets(), observations)
def test_the_active_model_never_becomes_one_that_is_voted_down(
    document: Document, fleet: Fleet, seen: Observation
) -> None:
    following = run(document, fleet, seen)
    if following is not None and following.active is not document.active:
        assert not says_down(*fleet, following.active)
        if following.active is Role.SECONDARY or following.cause == Cause.QUORUM:
            assert says_down(*fleet, document.active)


@given(documents(), fleets(), observations)
def test_primary_is_left_exactly_when_it_is_down_and_secondary_is_not(
    document: Document, fleet: Fleet, seen: Observation
) -> None:
    assume(document.active is Role.PRIMARY)
    moves = run(document, fleet, seen) is not None
    assert moves is (says_down(*fleet, Role.PRIMARY) and not says_down(*fleet, Role.SECONDARY))


@given(documents(), fleets(), observations, overrides)
def test_a_pin_wins_until_it_is_over(document: Document, fleet: Fleet, seen: Observation, override: Override) -> None:
    pinned = replace(document, override=override)
    assert run(pinned, fleet, seen) is None
    freed = run(pinned, fleet, replace(seen, override_over=True))
    assert freed is not None
    assert (freed.override, freed.active, freed.epoch) == (None, document.active, document.epoch + 1)


@given(documents(), fleets(), observations, st.data())
def test_a_minority_moves_nobody_within_the_grace(
    document: Document, fleet: Fleet, seen: Observation, data: st.DataObject
) -> None:
    """The others are cut off from the coordinator: they cannot vote, and were seen less than the grace ago."""
    votes, members = fleet
    hosts = sorted({member.host for member in members})
    assume(len(hosts) >= 2)
    here = set(data.draw(st.permutations(hosts))[: len(hosts) // 2])
    gone = [
        member if member.host in here else replace(member, alive=False, lost_for=data.draw(st.floats(0, 119)))
        for member in members
    ]
    assume(any(member.alive for member in gone))
    following = run(document, ([vote for vote in votes if vote.host in here], gone), seen)
    # hosts of the smaller half that were lost themselves make it smaller still
    assert following is None or following.active is document.active or following.cause == Cause.FAILBACK
    if following is not None and document.active is Role.PRIMARY:
        assert following.active is Role.PRIMARY


@given(documents(), fleets(), observations, st.integers(1, 9))
def test_one_host_has_one_vote(document: Document, fleet: Fleet, seen: Observation, copies: int) -> None:
    """More workers that say the same as their host's others change nothing."""
    votes, members = fleet
    said: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        said[vote.host].append(vote)
    crowd = [
        replace(vote, instance=f"{vote.instance}+{number}", stage_ok=0, stage_failed=0)
        for host in list(said)[:1]
        for vote in said[host]
        for number in range(copies)
    ]
    extra = [Member(vote.instance, vote.host) for vote in crowd]
    before, after = run(document, fleet, seen), run(document, (votes + crowd, members + extra), seen)
    assert _essence(before) == _essence(after)


@given(documents(), fleets(least=2), observations, st.integers(1, 3))
def test_idle_instances_change_no_decision(document: Document, fleet: Fleet, seen: Observation, idle: int) -> None:
    votes, members = fleet
    silent = [Vote(f"idle{number}/0", f"idle{number}", 1) for number in range(idle)]
    extra = [Member(vote.instance, vote.host) for vote in silent]
    before, after = run(document, fleet, seen), run(document, (votes + silent, members + extra), seen)
    assert _essence(before) == _essence(after)


@given(documents(), fleets(least=2), observations, st.data())
def test_one_host_alone_moves_nobody(document: Document, fleet: Fleet, seen: Observation, data: st.DataObject) -> None:
    """Whatever one host says, with another one alive, a model that only this host finds down stays active."""
    votes, members = fleet
    host = data.draw(st.sampled_from(sorted({member.host for member in members})))
    quiet = [
        vote if vote.host == host else replace(vote, primary=Opinion(), secondary=Opinion(), stage_failed=0)
        for vote in votes
    ]
    following = run(document, (quiet, members), seen)
    if following is not None:
        assert following.active is document.active or following.cause == Cause.FAILBACK
        assert following.cause != "ramp_abort"


@pytest.mark.parametrize("hosts", [1, 3])
@pytest.mark.parametrize("healthy_for", [0.0, 60.0, 590.0])
def test_flapping_is_bounded_whatever_the_model_does(hosts: int, healthy_for: float) -> None:
    """A model that dies `healthy_for` seconds after every return and recovers at once moves the fleet ever less."""
    document, now, active_seen, document_seen = Document(epoch=1, writer="x"), 0.0, 0.0, 0.0
    moves: list[float] = []
    while now < 4 * 3600.0:
        down = document.active is Role.PRIMARY and now >= active_seen + healthy_for
        found = Opinion(Verdict.DOWN if down else Verdict.UP, 20, 20)
        votes = [Vote(f"h{n}/0", f"h{n}", document.epoch, found, ready=not down, stage_ok=9) for n in range(hosts)]
        members = [Member(vote.instance, vote.host) for vote in votes]
        seen = Observation(now, 0, active_seen, document_seen, "me/1")
        following = decide(document, votes, members, seen, RECOVERY, FLEET)
        if following is not None:
            if following.active is not document.active:
                active_seen = now
                moves += [now] if following.active is Role.SECONDARY else []
            document, document_seen = following, now
        now += 3.0
    # 15 s · 2^k, at most an hour each: eight doublings in the first hour, then one an hour or less
    assert len(moves) <= 8 + 4
    gaps = [later - earlier for earlier, later in pairwise(moves)]
    assert gaps == sorted(gaps), "every hold is at least as long as the one before"


def _essence(document: Document | None) -> object:
    """A document without what merely lists the votes."""
    return None if document is None else replace(document, evidence={}, cause="")
