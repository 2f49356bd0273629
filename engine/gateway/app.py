"""The gateway's ASGI application: which route does what, and what lives as long as the server does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from engine.async_manager import AsyncDualModelManager
from engine.core.errors import SwitchgearError, UnknownManager
from engine.gateway.access import Access
from engine.gateway.chat import ChatCompletions
from engine.gateway.control import control_routes
from engine.gateway.health import Check, health_routes, store_check
from engine.gateway.responses import error_response, json_response
from engine.instance import Instance
from engine.metrics import Exposition


@dataclass(frozen=True, slots=True)
class Companion:
    """Something that lives beside the gateway in its process: the scheduler with alerts and canaries.

    Attributes:
        start: Called before the first request.
        stop: Called after the last one.
        checks: Parts of /readyz.
    """

    start: Callable[[], None]
    stop: Callable[[], None]
    checks: Sequence[Callable[[], Check]] = ()


@dataclass(slots=True)
class Gateway:
    """What the routes share.

    Attributes:
        instance: The process.
        managers: Its managers by name; empty where only the control API is served.
        companions: What lives beside it.
    """

    instance: Instance
    managers: Mapping[str, AsyncDualModelManager]
    companions: Sequence[Companion] = ()
    access: Access = field(init=False)

    def __post_init__(self) -> None:
        self.access = Access.of(self.instance.config)


def build(instance: Instance, *, serve_models: bool = True, companions: Sequence[Companion] = ()) -> Starlette:
    """Make the application.

    Args:
        instance: The process.
        serve_models: Whether `/v1` is served; `switchgear watch` serves everything else.
        companions: What starts and stops with it.

    Raises:
        ConfigurationError: A provider's key is missing.
    """
    names = list(instance.config.managers) if serve_models else []
    managers = {name: AsyncDualModelManager(None, name, instance=instance) for name in names}
    gateway = Gateway(instance, managers, companions)
    checks = [store_check(instance), *(check for companion in companions for check in companion.checks)]
    routes = [*_metrics_routes(gateway), *health_routes(instance, checks), *control_routes(instance, gateway.access)]
    if serve_models:
        chat = ChatCompletions(managers, gateway.access, instance.config.server.max_body)
        routes = [Route("/v1/chat/completions", chat, methods=["POST"]), *_model_routes(gateway), *routes]

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(instance.start)
        for manager in managers.values():
            await manager.start()
        for companion in companions:
            await asyncio.to_thread(companion.start)
        try:
            yield
        finally:
            for companion in companions:
                await asyncio.to_thread(companion.stop)
            for manager in managers.values():
                await manager.close()
            await asyncio.to_thread(instance.close)

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={SwitchgearError: _on_error, 404: _on_missing, 405: _on_method},
    )


def _model_routes(gateway: Gateway) -> list[Route]:
    created = int(time.time())

    def described(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": created, "owned_by": "switchgear"}

    async def models(request: HTTPRequest) -> Response:
        gateway.access.admit(request.headers.get("authorization"))
        return json_response({"object": "list", "data": [described(name) for name in gateway.managers]})

    async def model(request: HTTPRequest) -> Response:
        gateway.access.admit(request.headers.get("authorization"))
        name = request.path_params["name"]
        if name not in gateway.managers:
            msg = f"there is no manager named {name!r}; there are {', '.join(sorted(gateway.managers))}"
            raise UnknownManager(msg, param="model")
        return json_response(described(name))

    return [Route("/v1/models", models), Route("/v1/models/{name}", model)]


def _metrics_routes(gateway: Gateway) -> list[Route]:
    exposition = Exposition(gateway.instance.recorder.store, gateway.instance.config)

    async def metrics(request: HTTPRequest) -> Response:
        body, content_type = await asyncio.to_thread(exposition.render, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    return [Route("/metrics", metrics)]


async def _on_error(_: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, SwitchgearError)
    return error_response(error)


class _NotFound(SwitchgearError):
    code = "not_found"
    status_code = 404
    kind = "invalid_request_error"


class _WrongMethod(SwitchgearError):
    code = "method_not_allowed"
    status_code = 405
    kind = "invalid_request_error"


async def _on_missing(request: HTTPRequest, _: Exception) -> Response:
    msg = f"there is nothing at {request.url.path}; chat completions are at /v1/chat/completions"
    return await _on_error(request, _NotFound(msg))


async def _on_method(request: HTTPRequest, _: Exception) -> Response:
    return await _on_error(request, _WrongMethod(f"{request.url.path} does not take {request.method}"))
