"""Where a continuation meets the delivered text, nothing is lost and nothing is said twice."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.seam import CLEAR_RESTART, LEAST_OVERLAP, LEAST_WHOLE, Fit, Seam, periodic


def align(delivered: str, said: str, *, exact: bool = False, size: int = 1) -> tuple[Fit, int]:
    """Say a whole continuation in pieces; the fit and the trim."""
    seam = Seam(delivered, exact=exact)
    for start in range(0, len(said), size):
        if seam.say(said[start : start + size]) is not Fit.OPEN:
            break
    return seam.finish(), seam.trim


LONG = "The sky is blue because short waves scatter more"

CASES = [
    # what it is, delivered, said, exact, trimmed
    ("goes on", "The sky is", " blue.", False, 0),
    ("starts over", "The sky is", "The sky is blue.", False, 10),
    ("starts over, and that is all", "The sky is", "The sky is", False, 10),
    ("repeats a long tail", "Short waves scatter more than", "scatter more than long ones.", False, 17),
    ("repeats a long tail after a prefill", "Short waves scatter more than", "scatter more than long ones.", True, 17),
    ("repeats a short tail: taken for the answer's own", "the cat and the ", "the dog", False, 0),
    ("a short answer started over in a history", "ha ", "ha ha", False, 3),
    ("a short answer that repeats itself after a prefill", "ha ", "ha ha", True, 0),
    ("a short answer started over after a prefill", "Well, ", "Well, yes", True, 6),
    ("an answer in play goes on after a prefill", "haha", "haha!", True, 0),
    ("a new paragraph before a start over", "The sky is", "\n\nThe sky is blue.", False, 12),
    ("a space before a repeated tail may be the answer's own", "So (quite good", " quite good is what", False, 0),
    ("a space before new text", "The sky is", " blue and wide.", False, 0),
    ("a space before a word said twice", "ha", " ha", False, 0),
    ("white space and nothing more", "The sky is", " \n", False, 0),
    ("white space before a start over after a prefill", "The sky is", "\n\nThe sky is", True, 0),
    ("white space before a start over of a long text after a prefill", LONG, "\n\n" + LONG + " x", True, len(LONG) + 2),
    ("white space before the beginning of a start over, and that is all", "The sky is", "\nThe sk", False, 0),
    ("zeros go on", "x" + "0" * 40, "0" * 20 + "1", False, 0),
    ("a table's rule goes on", "Table\n| --- | --- | --- |", " --- | --- | --- |\n", False, 0),
    ("a refrain that came twice comes a third time", "A, row the boat! row the boat! ", "row the boat! B", False, 0),
    ("a table breaks off inside its second row", "<li>Item</li>\n<li>Item<", "/li>\n<li>Item</li>\n", False, 0),
    ("the last line repeats itself, unlike what was before", "one\nsay two words\n", "say two words\nend", False, 14),
    ("begins like an earlier place and leaves it", "one two three four five six", "two three four nine", False, 0),
    ("ends inside a repeat", "one two three four five six", "two three", False, 0),
    ("the longest repeat counts", "abcdefghijkl-abcdefghijkl", "abcdefghijkl-abcdefghijkl!", False, 25),
    ("two words, one letter short", ".abcd fg", "abcd fg!", True, 0),
    ("two words, just long enough", ".abcd fgh", "abcd fgh!", True, 8),
    ("one word, one letter short", ".abcdefghijk", "abcdefghijk!", True, 0),
    ("one word, just long enough", ".abcdefghijkl", "abcdefghijkl!", True, 12),
    ("a word said twice", "Be careful ", "careful and calm.", False, 0),
    ("three short words, the last one cut", "every source ones than b", "ones than because", False, 11),
    ("with its combining mark cut off", "Das Wort heißt cafe", "heißt cafe\u0301.", False, 10),
    ("between base and combining mark", "Das Wort heißt cafe", "Wort heißt cafe\u0301.", False, 15),
    ("between the parts of an emoji", "family: 👩\u200d👩", "family: 👩\u200d👩\u200d👧", False, 11),
]


@pytest.mark.parametrize(
    ("delivered", "said", "exact", "trimmed"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_cases(delivered: str, said: str, exact: bool, trimmed: int, size: int) -> None:
    assert align(delivered, said, exact=exact, size=size) == (Fit.JOINED, trimmed)


def test_a_start_over_in_other_words_is_no_continuation() -> None:
    delivered = "The sky is blue because of the way light is scattered by air"
    said = "The sky is blue because of the way that molecules scatter light"
    for exact in (False, True):
        assert align(delivered, said, exact=exact)[0] is Fit.DIVERGED
        assert align(delivered, delivered[:50], exact=exact)[0] is Fit.DIVERGED


def test_a_beginning_that_the_answer_itself_comes_back_to_is_no_start_over() -> None:
    refrain = "Row, row, row your boat, gently down the stream. "
    delivered = refrain + "First verse, which goes like this. " + refrain + "Second verse. "
    assert align(delivered, refrain + "Third verse.") == (Fit.JOINED, 0)


def test_text_that_occurs_nowhere_is_released_at_once() -> None:
    for exact in (False, True):
        assert Seam("The sky is blue", exact=exact).say("!") is Fit.JOINED
    assert Seam("The sky is blue", exact=True).say("\n") is Fit.JOINED


def test_white_space_is_held_until_it_is_known_what_it_is_before() -> None:
    seam = Seam("The sky is blue", exact=False)
    assert [seam.say(piece) for piece in ("\n", "\n", "The", " sun")] == [Fit.OPEN, Fit.OPEN, Fit.OPEN, Fit.JOINED]
    assert seam.trim == 0


def test_text_is_released_with_the_letter_that_tells_it_apart() -> None:
    seam = Seam("one two three four five six", exact=False)
    assert [seam.say(letter) for letter in "two thn"] == [Fit.OPEN] * 6 + [Fit.JOINED]


def test_after_a_prefill_a_short_text_holds_nothing() -> None:
    assert Seam("ha ", exact=True).say("h") is Fit.JOINED


def test_a_hundred_thousand_characters_said_again_letter_by_letter_take_no_time() -> None:
    texts = ["".join(f"{number} " for number in range(17_000)), "a" * 100_000, "ab" * 50_000]
    before = time.perf_counter()
    for text in texts:
        seam = Seam(text, exact=False)
        for start in range(0, len(text), 4):
            seam.say(text[start : start + 4])
        assert seam.trim == len(text)
    assert align("a" * 50_000 + "b", "a" * 40_000 + "c", size=4) == (Fit.JOINED, 0)
    assert time.perf_counter() - before < 5.0


@pytest.mark.parametrize("text", ["aa", "abab", "ababa", "abcabc", "ha ha ha"])
def test_a_text_said_twice_is_periodic(text: str) -> None:
    assert periodic(text)


@pytest.mark.parametrize("text", ["", "a", "abcab", "aab"])
def test_a_text_said_once_is_not(text: str) -> None:
    assert not periodic(text)


@given(st.text("ab", max_size=14))
def test_periodic_is_what_it_says(text: str) -> None:
    periods = range(1, len(text) // 2 + 1)
    assert periodic(text) == any(text[period:] == text[: len(text) - period] for period in periods)


@given(st.text("ab ", min_size=1, max_size=60), st.text("ab ", max_size=80), st.booleans(), st.data())
def test_the_trim_is_the_longest_repeat_there_is_or_nothing(
    delivered: str, said: str, exact: bool, draw: st.DataObject
) -> None:
    fit, trim = align(delivered, said, exact=exact, size=draw.draw(st.integers(1, 9)))
    overlaps = [size for size in range(1, len(said) + 1) if size <= len(delivered) and delivered.endswith(said[:size])]
    marked = len(delivered) >= LEAST_WHOLE and not periodic(delivered)
    whole = [size for size in overlaps if size == len(delivered) and (marked or not exact)]
    longest = max([size for size in overlaps if size >= LEAST_OVERLAP] + whole, default=0)
    bare = said.lstrip()
    loose = marked and (not exact or len(delivered) >= CLEAR_RESTART)
    behind_space = len(said) - len(bare) + len(delivered) if bare.startswith(delivered) and loose else 0
    assert trim in (0, longest, behind_space)
    if whole:
        assert trim == len(delivered)
    if fit is Fit.DIVERGED:
        assert delivered[:CLEAR_RESTART] in (said[:CLEAR_RESTART], bare[:CLEAR_RESTART])
