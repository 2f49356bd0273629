"""People who look at the dashboard, without their screens: each a session that speaks Streamlit's protocol.

A viewer opens a page and runs its script as a browser does, and runs the parts that refresh by themselves again when
they are due. What the server does for it is all it does for a browser; what a browser costs is left out, because it
runs on the viewer's machine and not on the server's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import aiohttp
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg


@dataclass(slots=True)
class Viewer:
    """One session.

    Attributes:
        port: The dashboard's.
        query: The page's state, as in its address.
        runs: Script runs that ended, the refreshing ones too.
        failures: Messages that tell of an exception.
        looking: Whether parts are refreshed; cleared, the viewer rests.
    """

    port: int
    query: str = ""
    runs: int = 0
    failures: list[str] = field(default_factory=list)
    looking: asyncio.Event = field(default_factory=asyncio.Event)
    _page: str = ""
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def look(self) -> None:
        """Open the page and keep it open until cancelled."""
        url = f"ws://127.0.0.1:{self.port}/_stcore/stream"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=("streamlit",), max_msg_size=0) as socket,
        ):
            await self._ask(socket, ClientState(query_string=self.query))
            try:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        self._hear(socket, ForwardMsg.FromString(message.data))
            finally:
                for task in self._tasks.values():
                    task.cancel()

    def _hear(self, socket: aiohttp.ClientWebSocketResponse, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self._page = message.new_session.page_script_hash
        elif kind == "script_finished":
            self.runs += 1
        elif kind == "auto_rerun":
            part = message.auto_rerun
            if part.fragment_id not in self._tasks:
                self._tasks[part.fragment_id] = asyncio.create_task(
                    self._refresh(socket, part.fragment_id, part.interval)
                )
        elif kind == "delta" and message.delta.new_element.WhichOneof("type") == "exception":
            self.failures.append(message.delta.new_element.exception.message)

    async def _refresh(self, socket: aiohttp.ClientWebSocketResponse, fragment: str, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            await self.looking.wait()
            await self._ask(socket, ClientState(query_string=self.query, fragment_id=fragment, is_auto_rerun=True))

    async def _ask(self, socket: aiohttp.ClientWebSocketResponse, state: ClientState) -> None:
        state.page_script_hash = self._page
        await socket.send_bytes(BackMsg(rerun_script=state).SerializeToString())
