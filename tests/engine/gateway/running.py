"""A gateway on a free port in a thread, in front of the tests' upstream; asked over real HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import uvicorn

from engine.config import Config, parse
from engine.core.messages import Role
from engine.exchange import Exchange
from engine.gateway.app import Companion, build
from engine.gateway.protocol import GatewayProtocol
from engine.instance import Instance
from tests.engine.drivers import rows
from tests.patience import PATIENCE_S, eventually
from tests.upstream import Upstream

PRO, FLASH = "gemini-2.5-pro", "gemini-2.5-flash"

BASE = """
[server]
port = 0
[providers.main]
kind = "{kind}"
api_key_env = "MAIN_KEY"
base_url = "{url}"
[providers.other]
kind = "{other_kind}"
api_key_env = "OTHER_KEY"
base_url = "{other_url}"
[models.pro]
provider = "main"
name = "gemini-2.5-pro"
context_window = 100_000
input_price = 1.0
output_price = 10.0
{pro}
[models.flash]
provider = "other"
name = "gemini-2.5-flash"
context_window = 100_000
input_price = 0.1
output_price = 1.0
{flash}
[managers.chat]
primary = "pro"
secondary = "flash"
{chat}
[managers.chat.retry]
base_delay = "5ms"
max_delay = "10ms"
[managers.chat.timeouts]
first_token = "30s"
answer = "30s"
idle = "30s"
total = "60s"
{rest}
"""


def settings(
    folder: Path,
    upstream: Upstream,
    kind: str = "openai",
    other_kind: str | None = None,
    *,
    chat: str = "",
    pro: str = "",
    flash: str = "",
    rest: str = "",
    replace: Mapping[str, str] | None = None,
) -> Config:
    """A configuration of two models behind the upstream; with long clocks, to be replaced by short ones."""
    urls = {"openai": upstream.openai_url}
    other = other_kind or kind
    text = BASE.format(
        kind=kind,
        url=urls.get(kind, upstream.gemini_url),
        other_kind=other,
        other_url=urls.get(other, upstream.gemini_url),
        pro=pro,
        flash=flash,
        chat=chat,
        rest=rest,
    )
    for old, new in (replace or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    os.environ.setdefault("MAIN_KEY", "main-key")
    os.environ.setdefault("OTHER_KEY", "other-key")
    path = folder / "switchgear.toml"
    path.write_text(text, encoding="utf-8")
    return parse(tomllib.loads(text), path)


class Running:
    """A gateway that serves, and everything that can be known about it from outside and inside."""

    def __init__(
        self,
        config: Config,
        upstream: Upstream,
        *,
        serve_models: bool = True,
        companions: Sequence[Companion] = (),
    ) -> None:
        self.config = config
        self.upstream = upstream
        self.instance = Instance.open(config)
        app = build(self.instance, serve_models=serve_models, companions=companions)
        self.routes = app.routes
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=GatewayProtocol,
                log_config=None,
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=10,
            )
        )
        self.server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self.loop: asyncio.AbstractEventLoop | None = None
        self._listener = listener
        self.thread = threading.Thread(target=self._serve, name="gateway-under-test", daemon=True)
        self.thread.start()
        eventually(lambda: self.server.started or not self.thread.is_alive())
        assert self.server.started
        self.session = requests.Session()
        self.session.trust_env = False

    def _serve(self) -> None:
        async def run() -> None:
            self.loop = asyncio.get_running_loop()
            await self.server.serve(sockets=[self._listener])

        asyncio.run(run())

    def close(self) -> None:
        self.session.close()
        self.server.should_exit = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def call(self, method: str, path: str, **given: Any) -> requests.Response:
        return self.session.request(method, self.url + path, timeout=60, **given)

    # -- asking --------------------------------------------------------------------------------------------------------

    def ask(self, prompt: str = "Why is the sky blue?", *, headers: Any = None, **given: Any) -> requests.Response:
        body = {"model": "chat", "messages": [{"role": "user", "content": prompt}], **given}
        return self.call("POST", "/v1/chat/completions", json=body, headers=headers)

    def stream(self, prompt: str = "Why is the sky blue?", **given: Any) -> requests.Response:
        """A streamed answer, read to its end."""
        return self.ask(prompt, stream=True, **given)

    def act(self, method: str, path: str, body: Any = None, **given: Any) -> requests.Response:
        return self.call(method, f"/api/v1/managers/chat{path}", json=body, **given)

    # -- looking -------------------------------------------------------------------------------------------------------

    @property
    def exchange(self) -> Exchange:
        return self.instance.exchanges["chat"]

    def rows(self, table: str, where: str = "1") -> list[dict[str, Any]]:
        return rows(self.instance.recorder.store, table, where)

    def metrics(self) -> dict[str, float]:
        """Every sample of the exposition by its name with labels."""
        text = self.call("GET", "/metrics").text
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(number) for name, number in pairs}

    def counted(self, family: str, **labels: str) -> float:
        """The sum of a family's samples that have these labels."""
        total = 0.0
        for name, number in self.metrics().items():
            head, _, tail = name.partition("{")
            found = dict(re.findall(r'(\w+)="([^"]*)"', tail))
            if head == f"dualmodelmanager_{family}" and labels.items() <= found.items():
                total += number
        return total

    def breaker(self, role: str = "primary") -> Any:
        now = self.exchange.clock.monotonic()
        with self.exchange.lock:
            return self.exchange.board.lines[Role(role)].breaker.snapshot(now)

    def tasks(self) -> int:
        """Tasks on the gateway's loop."""
        assert self.loop is not None

        async def count() -> int:
            return len(asyncio.all_tasks()) - 1

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(PATIENCE_S)


@contextmanager
def running(config: Config, **given: Any) -> Iterator[Running]:
    """Serve, and stop at the end."""
    gateway = Running(config, **given)
    try:
        yield gateway
    finally:
        gateway.close()


def error_of(response: requests.Response) -> dict[str, Any]:
    """The error of OpenAI's envelope; the envelope holds nothing else."""
    body = response.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"message", "type", "code", "param"}, body
    found: dict[str, Any] = body["error"]
    return found


def about(response: requests.Response) -> dict[str, str]:
    """What the headers say about how a request was handled, without the prefix."""
    prefix = "x-switchgear-"
    return {name[len(prefix) :]: value for name, value in response.headers.items() if name.startswith(prefix)}


def settled(upstream: Upstream) -> list[Any]:
    """What the upstream saw, once all of it has ended."""
    eventually(lambda: all(one.ended for one in upstream.seen()))
    return upstream.seen()
