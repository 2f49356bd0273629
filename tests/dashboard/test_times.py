"""Moments and numbers read well and never lie by rounding."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dashboard.times import HOUR_MS, Clockface, about, dollars, milliseconds, number, percent

NOON = 1_790_000_000_000


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0.0, "0 %"), (1.0, "100 %"), (0.99999, "99.9 %"), (0.00001, "0.1 %"), (0.5, "50.0 %")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (12.4, "12 s"), (119, "1 min 59 s"), (1044, "17 min"), (7500, "2 h 5 min")]
)
def test_a_duration_in_a_sentence_has_no_needless_digits(seconds: float, text: str) -> None:
    assert about(seconds) == text


def test_a_moment_is_shown_in_the_viewers_zone_with_utc_on_hover() -> None:
    face = Clockface(NOON, "Asia/Tokyo")
    assert face.text(NOON) == face.local(NOON).strftime("%H:%M:%S")
    assert "UTC" in face.at(NOON)
    assert Clockface(NOON, "No/Where").local(NOON).utcoffset() is not None


def test_numbers_are_short() -> None:
    assert number(1234) == "1,234"
    assert number(2_400_000) == "2.4 M"
    assert milliseconds(840) == "840 ms"
    assert milliseconds(1420) == "1.42 s"
    assert dollars(0.0042) == "$0.0042"


def test_ticks_are_round_in_the_viewers_zone_however_long_the_stretch() -> None:
    noon = round(datetime(2026, 9, 21, 12, tzinfo=UTC).timestamp() * 1000)
    face = Clockface(noon, "Asia/Kolkata")  # half an hour beside UTC
    day = face.ticks(noon - 24 * HOUR_MS - 299_000, noon)
    assert [text for _, text in day] == ["18:00", "21:00", "00:00", "03:00", "06:00", "09:00", "12:00", "15:00"]
    assert day[0][0] == pytest.approx(0.5 / 24, abs=0.005)
    week = face.ticks(noon - 7 * 24 * HOUR_MS, noon)
    assert len(week) == 7
    assert all(text.split()[1].isalpha() for _, text in week)
    month = face.ticks(noon - 30 * 24 * HOUR_MS, noon)
    assert 5 <= len(month) <= 9
    assert all(0 <= place < 1 for place, _ in [*day, *week, *month])
