"""What every coordinator promises, on its real server."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from engine.core.agreement import Document, Force, Member, Opinion, Override, Verdict, Vote
from engine.core.messages import Role
from engine.fleet.base import Coordinator
from tests.patience import eventually, seconds_until

Join = Callable[..., Coordinator]

pytestmark = pytest.mark.server


@pytest.fixture
def short(url: str) -> float:
    """The shortest time to live that is the same everywhere but in etcd, which counts whole seconds."""
    return 1.0 if url.startswith("etcd") else 0.4


def test_there_is_no_document_before_the_first_swap(url: str, join: Join) -> None:
    assert join(url).read("chat") is None


def test_what_was_swapped_in_is_read_by_everybody_in_full(url: str, join: Join) -> None:
    document = Document(
        epoch=1,
        active=Role.SECONDARY,
        share=0.25,
        stage=1,
        ramp=1,
        cause="ramp",
        since_ms=1_800_000_000_000,
        hold=30.0,
        flaps=2,
        override=Override(Role.SECONDARY, True, "Wartung „heute“", "ana", 60.0, 1_800_000_060_000, 1),
        forced={"primary": Force("forced_open", "why not", "ben", 5.0, 1, 1)},
        writer="a/1",
        evidence={"down": 2, "votes": {"a": {"verdict": "down"}}},
    )
    assert join(url).swap("chat", None, document) is True
    assert join(url, "b").read("chat") == document


def test_managers_have_documents_of_their_own(url: str, join: Join) -> None:
    one = join(url)
    one.swap("chat", None, Document(epoch=1, writer="chat"))
    one.swap("chat.v2", None, Document(epoch=7, writer="v2"))
    assert (one.read("chat") or Document()).writer == "chat"
    assert (one.read("chat.v2") or Document()).epoch == 7
    assert one.read("chat.v3") is None


def test_a_swap_needs_the_epoch_that_is_there(url: str, join: Join) -> None:
    one, two = join(url), join(url, "b")
    first = Document(epoch=1, writer="a/1")
    assert one.swap("chat", 1, first.following(writer="a/2")) is False, "there is nothing to follow yet"
    assert one.swap("chat", None, first) is True
    assert two.swap("chat", None, replace(first, writer="b/1")) is False, "there is a document already"
    assert two.swap("chat", 1, first.following(writer="b/2")) is True
    assert one.swap("chat", 1, first.following(writer="a/2")) is False
    assert (one.read("chat") or Document()).writer == "b/2"


def test_an_epoch_may_be_skipped_to_repair_a_store_that_went_backwards(url: str, join: Join) -> None:
    one = join(url)
    one.swap("chat", None, Document(epoch=41, writer="a/1"))
    assert one.swap("chat", 41, Document(epoch=44, writer="a/2")) is True
    assert (one.read("chat") or Document()).epoch == 44


def test_an_epoch_that_does_not_grow_is_a_mistake_of_the_caller(url: str, join: Join) -> None:
    one = join(url)
    one.swap("chat", None, Document(epoch=5, writer="a"))
    with pytest.raises(ValueError, match="epoch 5 does not follow epoch 5"):
        one.swap("chat", 5, Document(epoch=5, writer="b"))


def test_of_many_writers_at_once_one_wins_every_epoch(url: str, join: Join) -> None:
    writers = [join(url, name) for name in "abcdef"]
    writers[0].swap("chat", None, Document(epoch=1, writer="start"))
    together = Barrier(len(writers))

    def race(number: int) -> list[bool]:
        won = []
        for epoch in range(1, 11):
            together.wait()
            won.append(writers[number].swap("chat", epoch, Document(epoch=epoch + 1, writer=f"{number}/{epoch}")))
        return won

    with ThreadPoolExecutor(len(writers)) as pool:
        rounds = zip(*pool.map(race, range(len(writers))), strict=True)
    assert [sum(wins) for wins in rounds] == [1] * 10


def test_one_coordinator_serves_many_threads(url: str, join: Join) -> None:
    one = join(url)
    one.swap("chat", None, Document(epoch=1, writer="a"))

    def work(number: int) -> int:
        one.vote("chat", Vote(f"i{number}", f"h{number}", 1), 30.0)
        one.register(Member(f"i{number}", f"h{number}"), 30.0)
        return (one.read("chat") or Document()).epoch

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(16))) == {1}
    assert len(one.votes("chat")) == len(one.members()) == 16


def test_subscribers_hear_of_a_change_within_a_second(url: str, join: Join) -> None:
    one, two = join(url), join(url, "b")
    one.swap("chat", None, Document(epoch=1, writer="a"))
    two.read("chat")
    heard: list[str] = []
    two.subscribe(heard.append)
    eventually(lambda: "chat" in heard)
    time.sleep(0.3)
    heard.clear()
    one.swap("chat", 1, Document(epoch=2, writer="a"))
    assert seconds_until(lambda: "chat" in heard) < 1.0


def test_subscribers_hear_of_the_first_document_too(url: str, join: Join) -> None:
    one, two = join(url), join(url, "b")
    two.read("chat")
    heard: list[str] = []
    two.subscribe(heard.append)
    time.sleep(0.3)
    heard.clear()
    one.swap("chat", None, Document(epoch=1, writer="a"))
    eventually(lambda: "chat" in heard)


def test_a_listener_that_fails_does_not_end_the_watch(url: str, join: Join, caplog: pytest.LogCaptureFixture) -> None:
    one = join(url)
    heard: list[str] = []

    def fail(manager: str) -> None:
        heard.append(manager)
        raise RuntimeError(manager)

    one.subscribe(fail)
    one.swap("chat", None, Document(epoch=1, writer="a"))
    eventually(lambda: len(heard) >= 1)
    before = len(heard)
    one.swap("chat", 1, Document(epoch=2, writer="a"))
    eventually(lambda: len(heard) > before)
    assert "the watch goes on" in caplog.text


def test_a_vote_is_read_with_its_evidence_and_replaced_by_the_next(url: str, join: Join) -> None:
    one, two = join(url), join(url, "b")
    vote = Vote("a", "h1", 3, primary=Opinion(Verdict.DOWN, 20, 12, "open"), ready=True, stage_ok=2, seq=1)
    one.vote("chat", vote, 30.0)
    assert two.votes("chat") == [vote]
    later = replace(vote, primary=Opinion(Verdict.UP, 3, 0), seq=2)
    one.vote("chat", later, 30.0)
    two.vote("chat", Vote("b", "h2", 3), 30.0)
    assert two.votes("chat") == [later, Vote("b", "h2", 3)]
    assert two.votes("other") == []


def test_a_vote_that_is_not_renewed_ends(url: str, join: Join, short: float) -> None:
    one, two = join(url), join(url, "b")
    one.vote("chat", Vote("a", "h1", 1), short)
    two.vote("chat", Vote("b", "h2", 1), 30.0)
    assert len(two.votes("chat")) == 2
    eventually(lambda: [vote.instance for vote in two.votes("chat")] == ["b"])


def test_a_renewed_vote_stays(url: str, join: Join, short: float) -> None:
    one, two = join(url), join(url, "b")
    for seq in range(4):
        one.vote("chat", Vote("a", "h1", 1, seq=seq), short)
        time.sleep(short * 0.4)
        assert len(two.votes("chat")) == 1


def test_a_member_that_stops_is_remembered_as_lost_and_comes_back(url: str, join: Join, short: float) -> None:
    one, two = join(url), join(url, "b")
    member = Member("a", "h1", "0.1.0", 1_800_000_000_000, gauges={"in_flight": 3})
    one.register(member, short)
    two.register(Member("b", "h2"), 30.0)
    assert two.members() == [member, Member("b", "h2")]
    eventually(lambda: not two.members()[0].alive)
    lost = two.members()[0]
    assert (lost.instance, lost.host, lost.version) == ("a", "h1", "0.1.0")
    assert 0.0 <= lost.lost_for < 3.0
    time.sleep(0.3)
    assert two.members()[0].lost_for >= lost.lost_for + 0.25
    one.register(member, 30.0)
    assert two.members()[0] == member


def test_a_newcomer_learns_of_members_lost_before_it_came(url: str, join: Join, short: float) -> None:
    one, two = join(url), join(url, "b")
    one.register(Member("a", "h1"), short)
    eventually(lambda: not two.members()[0].alive)
    newcomer = join(url, "c")
    eventually(lambda: [(member.instance, member.alive) for member in newcomer.members()] == [("a", False)])


def test_an_instance_that_closes_has_left_and_is_not_lost(url: str, join: Join) -> None:
    one, two = join(url), join(url, "b")
    for coordinator, name in ((one, "a"), (two, "b")):
        coordinator.register(Member(name, f"h-{name}"), 30.0)
        coordinator.vote("chat", Vote(name, f"h-{name}", 1), 30.0)
    assert len(two.members()) == 2
    one.close()
    assert [member.instance for member in two.members()] == ["b"]
    assert [vote.instance for vote in two.votes("chat")] == ["b"]
    assert [member.instance for member in join(url, "c").members()] == ["b"]


def test_a_lease_has_one_owner_at_a_time(url: str, join: Join, short: float) -> None:
    one, two = join(url), join(url, "b")
    assert one.lease("evaluator", "a", short) is True
    assert two.lease("evaluator", "b", short) is False
    assert one.lease("evaluator", "a", short) is True, "the owner renews"
    assert two.lease("another", "b", short) is True
    eventually(lambda: two.lease("evaluator", "b", 30.0))
    assert one.lease("evaluator", "a", short) is False


def test_of_many_that_want_a_lease_at_once_one_gets_it(url: str, join: Join) -> None:
    wanting = [join(url, name) for name in "abcdef"]
    together = Barrier(len(wanting))

    def want(number: int) -> bool:
        together.wait()
        return wanting[number].lease("evaluator", f"i{number}", 30.0)

    with ThreadPoolExecutor(len(wanting)) as pool:
        assert sum(pool.map(want, range(len(wanting)))) == 1


def test_closing_frees_a_lease(url: str, join: Join) -> None:
    one, two = join(url), join(url, "b")
    assert one.lease("evaluator", "a", 30.0)
    one.close()
    assert two.lease("evaluator", "b", 30.0)


def test_names_with_slashes_and_colons_are_names_like_others(url: str, join: Join) -> None:
    one = join(url)
    name = "host/1:4711%"
    one.vote("chat", Vote(name, "h/1", 1), 30.0)
    one.register(Member(name, "h/1"), 30.0)
    assert [vote.instance for vote in one.votes("chat")] == [name]
    assert [member.instance for member in one.members()] == [name]


def test_closing_twice_does_no_harm(url: str, join: Join) -> None:
    one = join(url)
    one.read("chat")
    one.close()
    one.close()


def test_a_coordinator_that_was_never_used_closes(url: str, join: Join) -> None:
    join(url).close()
