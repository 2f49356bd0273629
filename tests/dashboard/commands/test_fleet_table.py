"""The fleet on the command line."""

from __future__ import annotations

from rich.console import Console

from dashboard.commands.fleet_table import fleet_table
from engine.core.agreement import Document, Member, Opinion, Verdict, Vote
from engine.core.policy import FleetPolicy
from engine.fleet.view import fleet_state

NOW = 1_800_000_000_000


def test_it_shows_votes_with_evidence_what_the_quorum_needs_who_lags_and_who_is_in_trouble() -> None:
    fresh = {"epochs": {"chat": 7}, "at_ms": NOW, "agreement_ms": NOW}
    members = [
        Member("a-1", "alpha", "1.0", gauges=fresh),
        Member("b-1", "beta", "1.1", gauges={**fresh, "epochs": {"chat": 5}, "trouble": "redis://x cannot be reached"}),
        Member("c-1", "gamma", "1.1", alive=False, lost_for=40.0),
    ]
    votes = [Vote("a-1", "alpha", 7, Opinion(Verdict.DOWN, 12, 9, "open"), ready=True)]
    state = fleet_state("chat", Document(epoch=7, writer="x"), votes, members, FleetPolicy(), NOW)
    console = Console(width=160, record=True, color_system=None)
    console.print(fleet_table(state.to_body(), NOW + 60_000))
    said = console.export_text()
    for part in (
        "2 hosts alive, silent and still counted: beta, gamma; primary: 1 of 3 say down, 2 needed; ",
        "; as seen 1 min ago",
        "down 9/12 failed, open, gate passed",
        "5 (2 behind)",
        "redis://x cannot be reached",
        "lost 40 s ago",
        "no vote",
    ):
        assert part in said, said


def test_a_fleet_of_nobody_has_no_table() -> None:
    state = fleet_state("chat", Document(epoch=1, writer="x"), [], [], FleetPolicy(), NOW)
    console = Console(width=160, record=True, color_system=None)
    console.print(fleet_table(state.to_body(), NOW))
    assert console.export_text().strip() == "0 hosts alive"
