"""Server-sent events out of bytes that arrive in any pieces.

Follows the WHATWG specification of event streams as far as models use it: `data` lines joined by line feeds, LF, CRLF
or CR line ends, comments skipped, a leading byte-order mark ignored. Lines may be of any length: an inline image is
one line of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator

_BOM = b"\xef\xbb\xbf"


class EventParser:
    """Feed bytes, take out the data of complete events.

    An event is complete with its blank line only; one that the end of the stream cuts is never given out.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._data: list[bytes] = []
        self._after_cr = False
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of the events that `chunk` completes, in order.

        Raises:
            UnicodeDecodeError: An event is not UTF-8.
        """
        if not chunk:
            return
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return
        self._after_cr = chunk.endswith(b"\r")
        if b"\n" not in chunk and b"\r" not in chunk:
            self._pieces.append(chunk)
            return
        text = b"".join((*self._pieces, chunk)).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._pieces = [rest] if rest else []
        for line in lines:
            if not self._started:
                self._started = True
                line = line.removeprefix(_BOM)  # noqa: PLW2901  # the first line only
            if not line:
                if self._data:
                    yield b"\n".join(self._data).decode()
                    self._data.clear()
            elif line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif line == b"data":
                self._data.append(b"")
