"""uvicorn's HTTP protocol, sending a response's head together with the beginning of its body, and with cheaper timers.

uvicorn writes the head when it is started and the body when it comes: two system calls and two packets for every
answer, which cost the gateway a twelfth of a request, and its callers two wake-ups. So a head waits for what is written
in the same turn of the event loop, and no longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.deadlines import deadlines

HEAD: Final = b"HTTP/1.1 "


class GatewayProtocol(HttpToolsProtocol):
    """One connection of a caller."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.loop = _Loop(self.loop)  # type: ignore[assignment] # it needs no more of it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin on a transport that joins heads with bodies."""
        super().connection_made(Joining(transport))


class _Loop:
    """As much of an event loop as a connection uses: every answer begins a wait for the next request."""

    __slots__ = ("call_later", "create_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.create_task = loop.create_task
        self.call_later = deadlines().call_later


class Joining(asyncio.Transport):
    """A transport that holds a head until something follows, or the event loop turns.

    Args:
        transport: Where it is written to.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._soon = asyncio.get_running_loop().call_soon
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send data behind what is held, or hold it when it is a head."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data[:9] == HEAD:
            self._held = bytes(data)
            self._soon(self._let_go)
            return
        self._transport.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Close once all is sent."""
        self._let_go()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._held = b""
        self._transport.abort()

    def _let_go(self) -> None:
        """Send what is held, because nothing has followed."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known about the connection."""
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand what is received to another protocol."""
        self._transport.set_protocol(protocol)

    def pause_reading(self) -> None:
        """Receive no more for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Receive again."""
        self._transport.resume_reading()
