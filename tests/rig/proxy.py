"""The yardstick: what Starlette and aiohttp cost when they do nothing but pass requests on.

`python -m tests.rig.proxy PORT UPSTREAM_URL`. No record, no keys, no limits, no look into the body.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


def build(upstream: str) -> Starlette:
    """The application.

    Args:
        upstream: The model's `base_url`.
    """
    sessions: list[aiohttp.ClientSession] = []
    url = f"{upstream}/chat/completions"

    async def chat(request: Request) -> Response:
        body = await request.body()
        answer = await sessions[0].post(url, data=body, headers={"content-type": "application/json"})
        kind = answer.headers["content-type"]
        if kind != "text/event-stream":
            async with answer:
                return Response(await answer.read(), answer.status, media_type=kind)

        async def events() -> AsyncIterator[bytes]:
            async with answer:
                async for data in answer.content.iter_any():
                    yield data

        return StreamingResponse(events(), answer.status, media_type=kind)

    async def alive(_: Request) -> Response:
        return Response(b"ok")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
            sessions.append(session)
            yield

    routes = [Route("/v1/chat/completions", chat, methods=["POST"]), Route("/healthz", alive)]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    uvicorn.run(build(sys.argv[2]), port=int(sys.argv[1]), access_log=False, log_level="warning", backlog=4096)
