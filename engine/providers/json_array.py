"""The elements of a JSON array as they arrive, out of bytes in any pieces.

Gemini's REST stream is one array whose elements are the events. An element is given out when its last brace comes;
what stands between elements is not judged, because the end of the array proves nothing: a finish reason does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_MARK = re.compile(rb'["\\{}]')
_QUOTE, _ESCAPE, _OPEN, _CLOSE = b'"\\{}'


class ArrayParser:
    """Feed bytes, take out the objects of an array as text."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._depth = 0
        self._begin = 0
        self._in_string = False
        self._started = False

    @property
    def within(self) -> bool:
        """Whether an element has begun and not ended."""
        return self._depth > 0

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The elements that `chunk` completes, in order.

        Raises:
            ValueError: The body is no array, or an element is not UTF-8.
        """
        self._buffer += chunk
        if not self._started:
            head = bytes(self._buffer[:64]).lstrip()
            if head[:1] not in (b"[", b""):
                msg = "the body is not a JSON array"
                raise ValueError(msg)
            self._started = bool(head)
        while match := _MARK.search(self._buffer, self._at):
            mark = self._buffer[match.start()]
            if mark == _ESCAPE:
                if match.end() == len(self._buffer):
                    self._at = match.start()
                    break
                self._at = match.end() + 1
                continue
            self._at = match.end()
            if mark == _QUOTE:
                self._in_string = not self._in_string
            elif not self._in_string:
                if mark == _OPEN:
                    self._begin = match.start() if self._depth == 0 else self._begin
                    self._depth += 1
                elif self._depth:
                    self._depth -= 1
                    if self._depth == 0:
                        yield self._taken(match.end())
        else:
            self._at = len(self._buffer)

    def _taken(self, end: int) -> str:
        element = bytes(self._buffer[self._begin : end])
        del self._buffer[:end]
        self._at = 0
        return element.decode()
