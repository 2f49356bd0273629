"""A card counts as the breaker does, and says what it does not know."""

from __future__ import annotations

from dataclasses import replace

from snapshots import CALM, MOVED, NOW, tries

from dashboard.model_card import model_card, recovery
from dashboard.reading import Live
from dashboard.wording import Tone
from engine.core.agreement import Document


def test_a_card_counts_as_the_breaker_does() -> None:
    live = replace(
        CALM,
        tries=(tries("primary", "ok", 70), tries("primary", "server_error", 30), tries("primary", "rate_limited", 25)),
    )
    figures = {one.label: one.value for one in model_card(live, "primary").figures}
    assert figures["Error rate"] == "30.0 %"
    assert figures["429 share"] == "20.0 %"
    assert figures["p95"] == "2.40 s"


def test_a_card_without_data_says_so() -> None:
    figures = {one.label: one.value for one in model_card(Live(NOW, "chat", document=Document()), "primary").figures}
    assert set(figures.values()) == {"–"}


def test_the_active_card_says_whether_there_is_a_spare() -> None:
    assert model_card(CALM, "primary").spare[1] is Tone.OK
    assert model_card(MOVED, "secondary").spare[1] is Tone.BAD
    assert model_card(MOVED, "primary").spare[0] == ""


def test_what_is_left_before_primary_serves_again() -> None:
    left = {one.label: (one.value, one.done) for one in recovery(MOVED)}
    assert left["Hold"] == ("9 s left", False)
    assert left["Good probes"] == ("2 of 5", False)
    assert recovery(CALM) == ()
