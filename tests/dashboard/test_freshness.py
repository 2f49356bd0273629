"""The freshness strip says what is late."""

from __future__ import annotations

from dataclasses import replace

from snapshots import CALM, CLOSED, MINUTE, NOW, instance

from dashboard.freshness import freshness
from dashboard.wording import Tone


def test_the_freshness_strip_says_what_is_late() -> None:
    late = replace(
        CALM, last_evaluation_ms=NOW - 10 * MINUTE, instances=(instance(CLOSED, CLOSED, coordinator_up=False),)
    )
    tones = {chip.label: chip.face.tone for chip in freshness(late)}
    assert tones["Last evaluation"] is Tone.WARN
    assert tones["Agreement"] is Tone.WARN
    assert tones["Last request"] is Tone.OK
