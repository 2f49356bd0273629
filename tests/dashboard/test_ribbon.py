"""The ribbon covers the whole time it stands for."""

from __future__ import annotations

import pytest
from snapshots import MINUTE, NOW, move

from dashboard.reading import Past
from dashboard.ribbon import ribbon
from engine.queries import EndsPoint


def test_a_ribbon_has_no_gaps() -> None:
    start = NOW // (5 * MINUTE) * 5 * MINUTE - 60 * MINUTE
    past = Past(
        start, NOW, 5, "chat", (EndsPoint(start, 100, 0, 0),), moves=(move(10, "primary"), move(30, "secondary"))
    )
    for lane in ribbon(past, str):
        assert sum(one.width for one in lane.segments) == pytest.approx(1.0)
        assert lane.segments[0].start == 0
