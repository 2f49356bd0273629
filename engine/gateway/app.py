"""The gateway's ASGI application: which route does what, and what lives as long as the server does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from engine.async_manager import AsyncDualModelManager
from engine.config import Config
from engine.core.errors import InternalError, SwitchgearError, UnknownManager
from engine.gateway.access import Access
from engine.gateway.chat import ChatCompletions
from engine.gateway.control import control_routes
from engine.gateway.health import Check, health_routes, store_check
from engine.gateway.responses import error_response, json_response
from engine.gateway.wire import headers_of, unasked
from engine.ids import new_id
from engine.instance import Instance
from engine.metrics import Exposition
from engine.providers.base import load_library
from engine.turns import computing

CHAT_PATH: Final = "/v1/chat/completions"


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
    chat = ChatCompletions(managers, gateway.access, instance.config.server.max_body) if serve_models else None
    if chat is not None:
        routes = [Route(CHAT_PATH, chat, methods=["POST"]), *_model_routes(gateway), *routes]

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(instance.start)
        if managers:
            await asyncio.to_thread(_load_libraries, instance.config)
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

    return _Application(
        chat,
        routes=routes,
        lifespan=lifespan,
        exception_handlers={SwitchgearError: _on_error, 404: _on_missing, 405: _on_method, Exception: _on_mistake},
    )


def _load_libraries(config: Config) -> None:
    """Before the first request, whose clocks would run meanwhile."""
    for kind in {config.providers[key].kind for key in config.providers_in_use}:
        load_library(kind)


class _Application(Starlette):
    """Starlette with chat completions ahead of its middleware and routes, which cost a sixth of a request.

    Args:
        chat: The endpoint, `None` where models are not served.
        settings: Starlette's.
    """

    def __init__(self, chat: ChatCompletions | None, **settings: Any) -> None:
        super().__init__(**settings)
        self._chat = chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        chat = self._chat
        if chat is not None and scope["type"] == "http" and scope["path"] == CHAT_PATH and scope["method"] == "POST":
            await chat(scope, receive, send)
        else:
            named = scope["type"] == "http" and scope["path"].startswith("/v1/")
            await super().__call__(scope, receive, _named(send) if named else send)


def _named(send: Send) -> Send:
    """Give an answer of /v1 that asks no model the headers that every one has."""
    headers = headers_of(unasked(new_id()))

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return named


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
    instance = gateway.instance
    exposition = Exposition(instance.recorder.store, instance.config, own=instance.gauges)

    render = computing()(exposition.render)

    async def metrics(request: HTTPRequest) -> Response:
        body, content_type = await asyncio.to_thread(render, request.headers.get("accept", ""))
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
    serves_models = any(getattr(route, "path", None) == CHAT_PATH for route in request.app.routes)
    where = f"chat completions are at {CHAT_PATH}" if serves_models else "`switchgear watch` serves no models"
    msg = f"there is nothing at {request.url.path}; {where}, the control API is described at /openapi.json"
    return await _on_error(request, _NotFound(msg))


async def _on_method(request: HTTPRequest, error: Exception) -> Response:
    response = await _on_error(request, _WrongMethod(f"{request.url.path} does not take {request.method}"))
    response.headers.update(getattr(error, "headers", None) or {})  # `Allow`
    return response


async def _on_mistake(request: HTTPRequest, error: Exception) -> Response:
    msg = f"internal error ({type(error).__name__}); the gateway's log has the details"
    return await _on_error(request, InternalError(msg))
