"""Server-sent events, read incrementally: bytes in as the network cut them, whole events out.

Follows the WHATWG's "event stream interpretation": lines end in LF, CR or CRLF, `data` may have many lines, a colon
begins a comment, one byte order mark is skipped. A code point split between two reads is whole again before it is
decoded, because only complete lines are. Every byte is looked at a fixed number of times, so an event of megabytes
(an inline image) costs time in proportion to its size, however small the reads.

One thing is stricter than a browser: text that is not UTF-8 raises instead of turning into question marks, since a
damaged answer must not pass for a good one.
"""

from __future__ import annotations

from engine.core.value import value

LARGEST_EVENT = 64 * 1024 * 1024
"""Bytes; a server that never ends an event must not fill the memory."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class MalformedEvent(ValueError):
    """The stream is no event stream any more: not UTF-8, or one event without end."""


@value
class Event:
    """One event.

    Attributes:
        data: Its data lines, joined by line feeds.
        kind: The `event` field, `message` when there was none.
        id: The last `id` field seen so far, empty when there was none.
    """

    data: str
    kind: str = "message"
    id: str = ""


class EventParser:
    """Turns the bytes of one response into events.

    Args:
        largest: Most bytes one event may have.

    Attributes:
        comments: Comment lines so far. Servers send them as keep-alives; whether they count as life is the
            caller's decision.
    """

    __slots__ = ("_broken", "_data", "_first", "_id", "_kind", "_largest", "_partial", "_size", "_skip_lf", "comments")

    def __init__(self, largest: int = LARGEST_EVENT) -> None:
        self.comments = 0
        self._largest = largest
        self._partial: list[bytes] = []
        self._data: list[bytes] = []
        self._kind = b""
        self._id = ""
        self._size = 0
        self._first = True
        self._skip_lf = False
        self._broken: MalformedEvent | None = None

    @property
    def unfinished(self) -> bool:
        """Whether part of an event has come that no empty line has ended yet."""
        return bool(self._data) or any(self._partial)

    def feed(self, chunk: bytes) -> list[Event]:
        """Take in the next bytes.

        Returns:
            The events that they complete, in order. A malformed one ends them, and is raised by the next call.

        Raises:
            MalformedEvent: See the class; the parser is of no use afterwards.
        """
        if self._broken is not None:
            raise self._broken
        if not chunk:
            return []
        self._size += len(chunk)
        lines, rest = self._lines(chunk)
        events: list[Event] = []
        for line in lines:
            if line[:6] == b"data: " and not self._first:
                self._data.append(line[6:])
                continue
            try:
                event = self._line(line)
            except MalformedEvent as malformed:
                if not events:
                    raise
                self._broken = malformed
                return events
            if event is not None:
                events.append(event)
        if lines and (events or not self._data):
            self._size = rest + (sum(map(len, self._data)) if self._data else 0)
        if self._size > self._largest:
            msg = f"one event of more than {self._largest} bytes"
            raise MalformedEvent(msg)
        return events

    def _lines(self, chunk: bytes) -> tuple[list[bytes], int]:
        """The lines that a chunk completes, and the bytes behind the last one, which are kept."""
        if self._skip_lf and chunk[0] == 0x0A:
            chunk = chunk[1:]
        self._skip_lf = False
        if b"\r" in chunk:
            self._skip_lf = chunk[-1] == 0x0D
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = chunk.split(b"\n")
        if lines and self._partial:
            self._partial.append(lines[0])
            lines[0] = b"".join(self._partial)
            self._partial = []
        if rest:
            self._partial.append(rest)
        return lines, len(rest)

    def close(self) -> list[Event]:
        """Say that the stream has ended.

        A browser drops an event that no empty line ended. Model servers are known to leave that line out after
        their last event, so an event whose last line is complete is given; half a line never is.
        """
        if self._broken is not None:
            raise self._broken
        self._partial = []
        event = self._line(b"")
        return [event] if event is not None else []

    def _line(self, line: bytes) -> Event | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
        elif not name:
            self.comments += 1
        elif name == b"event":
            self._kind = value
        elif name == b"id" and b"\0" not in value:
            self._id = _text(value)
        return None

    def _dispatch(self) -> Event | None:
        data, kind = self._data, self._kind
        self._data, self._kind = [], b""
        if not data:
            return None
        text = _text(data[0] if len(data) == 1 else b"\n".join(data))
        return Event(text, _text(kind) if kind else "message", self._id)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        msg = f"an event is not UTF-8: {error.reason} at byte {error.start}"
        raise MalformedEvent(msg) from None
