"""Where the rest of an answer meets what was delivered: finding what is said a second time.

A model asked to go on may go on exactly, start over, or repeat the tail. The delivered text is known, so a repeat
can only be a beginning of the continuation that equals an end of the delivered text; a start over is that with the
whole of it. Text that begins like this is held until it either has reached the end of the delivered text, and is
trimmed, or differs from it, and is passed on. What is held is never longer than what was delivered, and text that
cannot be a repeat any more is released with the very piece that shows it.

Some repeats cannot be told from an answer that repeats itself: after `ha ` a model may well say `ha ha`. The choice:

* An overlap shorter than `LEAST_OVERLAP` characters is not trimmed, nor a single word shorter than `LEAST_UNBROKEN`.
  It is likelier to be the answer's own (`the cat and the ` … `the dog`).
* Neither is a repetitive overlap, one that repeats inside itself or whose length is a rhythm of the delivered text
  already (rows of a table, zeros, a refrain), because an answer in such a rhythm goes on with exactly that. It is one
  when the last `LEAST_OVERLAP` characters are those of one overlap earlier: a table may break off inside a row.
* The whole delivered text is trimmed however short it is, where the model was given it as history: models that
  start over do it from the top. After a prefill a model goes on by construction, and behind white space that was not
  there before it is less likely to begin again, so in both the whole has to be `LEAST_WHOLE` characters without a
  rhythm, and `CLEAR_RESTART` characters in both at once. White space before anything else is the answer's own.

A start over in other words cannot be joined: once it has followed the delivered text from the top for
`CLEAR_RESTART` characters and then leaves it, passing it on would say the beginning twice.
"""

from __future__ import annotations

from enum import Enum, auto

LEAST_OVERLAP = 8
"""Characters of an overlap of two words or more. Answers do say a word or a syllable twice in a row (`ha ha`, `very,
very`); saying two words twice exactly where a stream broke is far rarer than a model that repeats itself."""

LEAST_UNBROKEN = 12
"""Characters of an overlap inside one word, or in a script without spaces."""

LEAST_WHOLE = 4
"""Characters of a whole text that is said again; no answer but one in play begins with `The The`."""

CLEAR_RESTART = 32
"""Characters; two answers that agree this far from the first letter on are the same answer begun twice."""


class Fit(Enum):
    """What is known of a seam."""

    OPEN = auto()
    """The text so far may be a repeat: hold it."""

    JOINED = auto()
    """Decided: `trim` characters are said a second time, the rest is new."""

    DIVERGED = auto()
    """Decided: the model started over in other words."""


class Seam:
    """Aligns one continuation with the delivered text.

    Args:
        delivered: What the caller has got.
        exact: True after a prefill: the model is bound to go on exactly, so a very short text is never a start over.

    Attributes:
        fit: What is known so far.
        trim: Characters at the beginning of the continuation that were delivered already.
    """

    __slots__ = ("_complete", "_delivered", "_exact", "_said", "_start", "_whole", "fit", "trim")

    def __init__(self, delivered: str, *, exact: bool) -> None:
        self.fit = Fit.OPEN
        self.trim = 0
        self._delivered = delivered
        self._exact = exact
        self._said: list[str] = []
        self._whole = 0
        self._complete = False
        self._start: int | None = 0

    def say(self, text: str) -> Fit:
        """Take in the next piece of the continuation; only while the seam is open.

        Returns:
            What is known now.
        """
        if not text:
            return self.fit
        reached = self._whole
        self._said.append(text)
        self._whole += len(text)
        start = self._start
        known = reached and start is not None and self._whole < len(self._delivered) - start
        if known and self._delivered.startswith(text, (start or 0) + reached):
            return self.fit
        said = "".join(self._said)
        self._start = self._find(said, start or 0)
        if self._start is None:
            return self._decide(0, said)
        overlap = len(self._delivered) - self._start
        if overlap > self._whole:
            return self.fit
        return self._decide(overlap if self._repeats(self._start) else 0, said)

    def finish(self) -> Fit:
        """Say that the continuation is complete: whatever is open is decided by what there is."""
        if self.fit is Fit.OPEN:
            self._complete = True
            said = "".join(self._said)
            start = self._find(said, 0, complete=True)
            self._decide(len(self._delivered) - start if start is not None and self._repeats(start) else 0, said)
        return self.fit

    def _find(self, said: str, start: int, *, complete: bool = False) -> int | None:
        """The first place from `start` on where the delivered text agrees with what was said, up to the end of either.

        Args:
            said: The continuation so far.
            start: Earlier places are known to differ.
            complete: Only places whose rest of the delivered text has been said whole.
        """
        delivered = self._delivered
        if start == 0 and (not self._exact or self._marked()) and _agree(delivered, said, 0, complete=complete):
            return 0
        head, last = said[:LEAST_OVERLAP], len(delivered) - LEAST_OVERLAP
        if complete:
            start = max(start, len(delivered) - len(said))
        place = delivered.find(head, start)
        while 0 <= place <= last:
            if _agree(delivered, said, place, complete=complete):
                return place
            place = delivered.find(head, place + 1)
        return None

    def _repeats(self, start: int) -> bool:
        """Whether the end of the delivered text from `start` on, said again, is a repeat and not a rhythm."""
        if start == 0 and (not self._exact or self._marked()):
            return True
        overlap = self._delivered[start:]
        if len(overlap) < LEAST_UNBROKEN and len(overlap.split(maxsplit=1)) < 2:
            return False
        last = overlap[-LEAST_OVERLAP:]
        return not (periodic(overlap) or self._delivered.endswith(last, 0, start))

    def _marked(self) -> bool:
        """Whether the whole delivered text is one that an answer does not begin with twice."""
        return len(self._delivered) >= LEAST_WHOLE and not periodic(self._delivered)

    def _decide(self, trim: int, said: str) -> Fit:
        self.trim = trim
        bound = self._exact and len(self._delivered) < CLEAR_RESTART
        bare = said if bound else said.lstrip()
        if not trim and bare != said and self._marked():
            if len(bare) < len(self._delivered) and self._delivered.startswith(bare) and not self._complete:
                return self.fit
            self.trim = len(said) - len(bare) + len(self._delivered) if bare.startswith(self._delivered) else 0
        again = self._delivered[:CLEAR_RESTART]
        restarted = not self.trim and len(again) == CLEAR_RESTART and bare.startswith(again)
        self.fit = Fit.DIVERGED if restarted and not self._rhythm() else Fit.JOINED
        self._said.clear()
        return self.fit

    def _rhythm(self) -> bool:
        """Whether the delivered text comes back to its beginning by itself, as a refrain does."""
        beginning = self._delivered[:CLEAR_RESTART]
        return self._delivered.find(beginning, 1) >= 0 or periodic(beginning)


def _agree(delivered: str, said: str, start: int, *, complete: bool) -> bool:
    rest = len(delivered) - start
    if len(said) >= rest:
        return said.startswith(delivered[start:])
    return not complete and delivered.startswith(said, start)


def periodic(text: str) -> bool:
    """Whether a text is some shorter text said at least twice, the last time perhaps in part."""
    half = (len(text) + 1) // 2
    place = text.find(text[:half], 1)
    while 0 < place <= len(text) // 2:
        if text.startswith(text[place:]):
            return True
        place = text.find(text[:half], place + 1)
    return False
