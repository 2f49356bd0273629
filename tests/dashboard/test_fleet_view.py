"""The fleet's card: votes with their evidence, who is behind, and what the quorum makes of it."""

from dashboard.fleet_view import card, quorum
from engine.core.agreement import Opinion, Verdict
from engine.fleet.view import Count, FleetState, Seat

DOWN = Opinion(Verdict.DOWN, samples=14, failures=9, reason="open")
UP = Opinion(Verdict.UP, samples=20, failures=0)


def fleet(*seats: Seat, **changes: object) -> FleetState:
    told = {
        "epoch": 19,
        "at_ms": 0,
        "quorum": 0.5,
        "live_hosts": 3,
        "lost_hosts": (),
        "primary": Count(down=1, up=2, lost=0, opinions=3, needed=2, is_down=False),
        "secondary": Count(down=0, up=0, lost=0, opinions=0, needed=0, is_down=False),
        "ready_hosts": 0,
        "ready": False,
    }
    return FleetState(**{**told, "seats": seats, **changes})  # type: ignore[arg-type]


def test_the_quorum_is_one_line_that_says_what_is_missing() -> None:
    seen = quorum(fleet(Seat("a", "h")))
    assert seen == "3 hosts alive · primary not down (1 of 3 say down, 2 needed) · secondary no opinion"


def test_silent_hosts_that_still_count_are_named() -> None:
    assert "3 hosts alive, 2 silent and still counted" in quorum(fleet(Seat("a", "h"), lost_hosts=("x", "y")))


def test_a_vote_comes_with_its_evidence() -> None:
    html = str(card(fleet(Seat("a", "h", voted=True, primary=DOWN, secondary=UP, epoch=18, lag=1))))
    assert "Down" in html
    assert "64.3 % of 14 failed" in html
    assert "18 (1 behind)" in html


def test_who_has_not_voted_and_who_cannot_reach_the_coordinator_is_seen() -> None:
    html = str(card(fleet(Seat("a", "h", coordinator_up=False), Seat("b", "h2", alive=False))))
    assert html.count("no vote") == 4
    assert "Coordinator away" in html
    assert "Lost" in html


def test_a_name_is_text_and_never_markup() -> None:
    assert "<script>" not in str(card(fleet(Seat("<script>alert(1)</script>", "h"))))


def test_an_empty_fleet_is_a_sentence() -> None:
    assert "No instance has reported yet." in str(card(None))
