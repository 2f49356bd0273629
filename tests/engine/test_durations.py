"""Durations are read strictly and said plainly."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.durations import LONGEST, DurationError, compact, describe, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("15m", 900),
        ("4h", 14_400),
        ("7d", 604_800),
        ("1h30m", 5_400),
        ("1.5h", 5_400),
        (" 2s ", 2),
        (0, 0),
        (2.5, 2.5),
    ],
)
def test_durations_are_seconds_or_number_and_unit(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "s",
        "5",
        "5 s",
        "5x",
        "-5s",
        "1m1h",
        "1s1s",
        "1e3s",
        "infs",
        "nan",
        True,
        None,
        [],
        math.nan,
        math.inf,
        -1,
        -0.1,
        1e300,
        10**400,
    ],
)
def test_anything_else_is_refused(wrong: object) -> None:
    with pytest.raises(DurationError):
        parse_duration(wrong)


def test_a_number_in_quotes_is_told_how_to_be_written() -> None:
    with pytest.raises(DurationError, match='write 30 without quotes, or "30s"'):
        parse_duration("30")


@given(st.integers(min_value=0, max_value=int(LONGEST)), st.integers(min_value=0, max_value=999))
def test_what_compact_writes_is_read_back_to_the_millisecond(seconds: int, milliseconds: int) -> None:
    value = min(seconds + milliseconds / 1000, LONGEST)
    assert parse_duration(compact(value)) == pytest.approx(value, abs=0.000_6)


SAID = """
    -3: 0 s | 0: 0 s | 0.35: 350 ms | 0.9999: 1 s | 1.25: 1.2 s | 12: 12 s | 59.4: 59 s | 59.9: 1 min | 61: 1 min 1 s
    1020: 17 min | 3599.9: 1 h | 7500: 2 h 5 min | 86399: 1 d | 273600: 3 d 4 h
"""


@pytest.mark.parametrize("case", [case.strip() for line in SAID.strip().splitlines() for case in line.split("|")])
def test_people_are_told_two_units_at_most(case: str) -> None:
    seconds, said = case.split(": ")
    assert describe(float(seconds)) == said


@given(st.floats(min_value=0, max_value=1e9))
def test_no_unit_is_ever_full(seconds: float) -> None:
    said = describe(seconds).split()
    sizes = {"ms": 1000, "s": 60, "min": 60, "h": 24, "d": math.inf}
    assert all(float(number) < sizes[unit] for number, unit in zip(said[::2], said[1::2], strict=True))
