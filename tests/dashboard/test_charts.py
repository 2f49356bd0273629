"""Charts count what they show as the rest of the page does."""

from __future__ import annotations

from dataclasses import replace

from snapshots import MINUTE, MOVED, NOW, traffic

from dashboard.charts import Flag, Series, answers, bars, flag_moves
from dashboard.look import palette
from dashboard.times import Clockface
from engine.queries import EventKind

START = NOW // MINUTE * MINUTE - 2 * MINUTE


def test_every_request_is_in_one_bar_and_callers_mistakes_are_no_failures() -> None:
    mixed = replace(traffic(outcome="error", n=10, at=START), errors=3)
    rows = [traffic(n=50, at=START), traffic("secondary", n=20, at=START), mixed, traffic("none", "shed", 4, START)]
    rows.append(traffic(outcome="cancelled", n=5, at=START))
    found = {one.name: one.points[0][1] for one in answers(rows, START, START + MINUTE, MINUTE)}
    assert found == {"primary": 50, "secondary": 20, "failed": 3, "shed": 4, "other": 12}


def test_a_bin_without_requests_is_zero_and_a_kind_without_any_is_left_out() -> None:
    (only,) = answers([traffic(n=7, at=START)], START, START + 3 * MINUTE, MINUTE)
    assert [n for _, n in only.points] == [7, 0, 0]


def test_only_moves_of_the_active_model_are_flags() -> None:
    move = MOVED.last_move
    assert move is not None
    (flag,) = flag_moves([move, replace(move, kind=EventKind.BREAKER)])
    assert (flag.label, flag.colour) == ("primary → secondary", "secondary")


def test_no_line_leads_over_a_time_without_measurements() -> None:
    measured = Series("primary", "primary", [(at * MINUTE, 1.0) for at in (0, 1, 3, 20, 21)])
    values = [value for _, value in measured.broken(3 * MINUTE).points]
    assert values == [1.0, 1.0, 1.0, None, 1.0, 1.0]
    assert Series("primary", "primary", []).broken(MINUTE).points == []


def test_a_move_is_seen_in_front_of_bars_of_its_own_colour() -> None:
    figure = bars(Clockface(NOW), "light", [], [Flag(NOW, "primary → secondary", "secondary")])
    pole, flag = figure.layout.shapes
    assert pole.line.color not in (palette("light").primary, palette("light").secondary)
    assert (flag.type, flag.fillcolor) == ("path", palette("light").secondary)
    assert [trace.text for trace in figure.data] == [("primary → secondary",)]
