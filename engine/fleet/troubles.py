"""What is wrong with the agreement, in words: found in this turn, or minutes ago and still worth being seen."""

from __future__ import annotations

import logging
from typing import Final

log = logging.getLogger(__name__)

SHOWN_FOR: Final = 300.0
"""Seconds that a trouble which heals itself at once, such as a store that went back in time, stays in sight."""


class Troubles:
    """Collects what one process found; says each new thing once in the log."""

    def __init__(self) -> None:
        self._now: list[str] = []
        self._standing: dict[str, float] = {}
        self._said: str | None = None
        self.unread = False

    def begin(self, now: float) -> None:
        """A new turn begins; `now` is monotonic seconds."""
        self._now.clear()
        self.unread = False
        self._standing = {text: until for text, until in self._standing.items() if until > now}

    def note(self, text: str) -> None:
        """Something is wrong as long as it is noted in every turn."""
        self._now.append(text)

    def note_unread(self, text: str) -> None:
        """An agreement could not be read, so it is not confirmed either."""
        self.unread = True
        self.note(text)

    def keep(self, text: str, now: float) -> None:
        """Something happened that is over at once and matters; said in the log here."""
        if text not in self._standing:
            log.error("%s", text)
        self._standing[text] = now + SHOWN_FOR

    def text(self) -> str | None:
        """All of it in a line, `None` when nothing is wrong."""
        found = dict.fromkeys([*self._now, *self._standing])
        return "; ".join(found) or None

    def say(self) -> None:
        """Log what this turn found, when it is something else than before."""
        said = "; ".join(dict.fromkeys(self._now)) or None
        if said is not None and said != self._said:
            log.error("%s", said)
        self._said = said
