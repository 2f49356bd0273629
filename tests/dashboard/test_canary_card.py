"""The canaries' card: what failed is counted, named and explained, and without canaries there is none."""

from dashboard.canary_card import card
from dashboard.times import Clockface
from engine.queries import CanaryResult

NOW = 1_795_390_000_000
FACE = Clockface(NOW)


def found(role: str, *, passed: bool, detail: str = "") -> CanaryResult:
    return CanaryResult(1, NOW - 60_000, "i", role, "flash", "capital", passed, detail, "r", 12.0)


def test_a_failed_canary_says_what_is_missing() -> None:
    html = str(card([found("primary", passed=True), found("secondary", passed=False, detail="contains Paris")], FACE))
    assert "1 of 2 failed" in html
    assert "contains Paris" in html
    assert "capital failed" in html


def test_passed_canaries_are_counted() -> None:
    assert "all 1 passed" in str(card([found("primary", passed=True)], FACE))


def test_without_canaries_there_is_no_card() -> None:
    assert card([], FACE) is None
