"""`/healthz` and `/readyz`: alive, and able to serve, each part with its reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.gateway.responses import json_response
from engine.instance import Instance
from engine.version import VERSION


@dataclass(frozen=True, slots=True)
class Check:
    """One part of being ready.

    Attributes:
        name: What was looked at.
        ok: Whether it is well.
        detail: In words; what to do when it is not.
        required: Whether this alone makes the server unready.
    """

    name: str
    ok: bool
    detail: str
    required: bool = True


def store_check(instance: Instance) -> Callable[[], Check]:
    """Whether records can be written."""

    def check() -> Check:
        error = instance.recorder.error
        if error is not None:
            return Check("store", ok=False, detail=str(error))
        waiting = instance.recorder.queue_length
        return Check("store", ok=not instance.recorder.full, detail=f"{waiting} records waiting")

    return check


def agreement_check(instance: Instance) -> Callable[[], Check]:
    """Whether the agreement's store answers; without it the last agreement stands, so this alone refuses nobody."""

    def check() -> Check:
        agent = instance.agent
        if agent.reachable is False:
            return Check("coordinator", ok=False, detail=f"{agent.trouble}; the last agreement stands", required=False)
        return Check("coordinator", ok=agent.trouble is None, detail=agent.trouble or "agreeing", required=False)

    return check


def health_routes(instance: Instance, checks: Sequence[Callable[[], Check]]) -> list[Route]:
    """The two routes.

    Args:
        instance: The process.
        checks: What /readyz looks at besides the agreement.
    """
    every = [*checks, agreement_check(instance)]

    async def healthz(_: Request) -> Response:
        return json_response({"status": "ok", "version": VERSION, "instance": instance.identity.instance})

    async def readyz(_: Request) -> Response:
        found = await asyncio.to_thread(lambda: [check() for check in every])
        ready = all(check.ok for check in found if check.required)
        body = {"status": "ready" if ready else "unready", "checks": [asdict(check) for check in found]}
        return json_response(body, 200 if ready else 503)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
