"""Chaos: a model begins to answer in a wrong shape. Found by canaries before traffic is, or by the first request."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from engine import AsyncDualModelManager, DualModelManager, queries
from engine.clock import SystemClock
from engine.config import Config, parse
from engine.core.errors import ConfigurationError
from engine.core.messages import Role
from engine.gateway.app import build
from engine.instance import Instance
from engine.providers.base import build as build_provider
from engine.queries import CanaryResult
from engine.store import Store
from tests.patience import PATIENCE_S, eventually
from tests.programs import free_port
from tests.upstream.faults import Fault
from tests.upstream.server import Upstream

CANARIES = """
[[canaries]]
name = "shape"
prompt = "Give the colour of a banana."
[canaries.response_format]
type = "json_schema"
[canaries.response_format.json_schema]
name = "colour"
schema = { type = "object", properties = { colour = { type = "string" } }, required = ["colour"] }
[canaries.expect]
json_schema = { type = "object", required = ["colour"] }
"""

CONFIG = """
[providers.local]
kind = "openai"
base_url = "{url}"
[models.pro]
provider = "local"
name = "pro"
[models.flash]
provider = "local"
name = "flash"
[managers.chat]
primary = "pro"
secondary = "flash"
[managers.chat.retry]
attempts = {attempts}
base_delay = "10ms"
[managers.chat.breaker]
open_for = "100ms"
open_max = "100ms"
[managers.chat.validation]
{validation}
"""

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}

NONSENSE = Fault(
    body={
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "colour me impressed"}}
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
    }
)


def chat(url: str, **more: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
    """One call of the gateway: status, our headers without their prefix, and the body."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], **more}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        headers = {name.lower().removeprefix("x-switchgear-"): value for name, value in answer.headers.items()}
        return int(answer.status), headers, json.loads(answer.read())


@contextmanager
def gateway(config: Config) -> Iterator[tuple[str, Instance]]:
    """A gateway on a real port."""
    instance = Instance.open(config)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(build(instance), port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{port}", instance
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def results(store: Store, role: Role) -> list[CanaryResult]:
    with store.reader() as connection:
        return [found for found in queries.canary_results(connection, "chat", 0, 1 << 60) if found.role == role]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def configured(tmp_path: Path, upstream: Upstream) -> Callable[..., Config]:
    """A configuration whose two models are on the upstream server, behind OpenAI's wire format."""

    def make(validation: str, attempts: int = 1) -> Config:
        (tmp_path / "canaries.toml").write_text(CANARIES, encoding="utf-8")
        text = CONFIG.format(url=upstream.openai_url, validation=validation, attempts=attempts)
        path = tmp_path / "switchgear.toml"
        path.write_text(text, encoding="utf-8")
        return parse(tomllib.loads(text), path)

    return make


def test_canaries_find_a_drifted_secondary_before_any_traffic_reaches_it(
    configured: Callable[..., Config], upstream: Upstream
) -> None:
    upstream.set("flash", NONSENSE)
    with gateway(configured('canaries = "canaries.toml"\ncanary_every = "2s"')) as (url, instance):
        store, board = instance.recorder.store, instance.exchanges["chat"].board
        found = eventually(lambda: results(store, Role.SECONDARY))[0]
        assert (found.canary, found.passed, found.model) == ("shape", False, "flash")
        assert found.detail.startswith("json_schema: the answer is no JSON document")
        eventually(lambda: board.drifted(Role.SECONDARY, time.monotonic()))

        upstream.set("pro", Fault(error="unavailable"))
        asked = len(upstream.seen("flash"))
        status, headers, body = chat(url)
        assert (status, headers["model"], body["error"]["code"]) == (502, "pro", "provider_error")
        assert "fails the canary shape" in body["error"]["message"]
        assert len(upstream.seen("flash")) == asked, "no caller's request went to the drifted model"

        with store.reader() as connection:
            made = queries.request(connection, found.request_id or "")
            counted = {(row.name, tuple(row.labels.values())): row.value for row in queries.totals(connection)}
            moves = queries.breaker_transitions(connection, "chat", role="secondary")
        assert made is not None
        assert (made.request.synthetic, made.request.code) == (True, "semantic_failure")
        assert counted["canary_results", ("chat", "secondary", "flash", "failed")] >= 1
        assert "canary failed: shape" in {move.reason for move in moves}
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
            metrics = answer.read().decode()
        assert 'canary_results_total{manager="chat",model="flash",result="failed",role="secondary"}' in metrics

        upstream.set("flash")
        eventually(lambda: results(store, Role.SECONDARY)[0].passed)
        eventually(lambda: board.drifted(Role.SECONDARY, time.monotonic()) is None)
        assert chat(url)[1]["model"] == "flash"


def test_a_drifted_primary_is_left_with_cause_canary(configured: Callable[..., Config], upstream: Upstream) -> None:
    upstream.set("pro", NONSENSE)
    with gateway(configured('canaries = "canaries.toml"\ncanary_every = "2s"')) as (url, instance):
        board = instance.exchanges["chat"].board
        eventually(lambda: board.document.active is Role.SECONDARY)
        assert board.document.cause == "canary"
        assert chat(url)[1]["model"] == "flash"


def test_validation_finds_a_drifted_model_on_the_first_request(
    configured: Callable[..., Config], upstream: Upstream
) -> None:
    upstream.set("pro", NONSENSE)
    with gateway(configured("json_schema = true")) as (url, instance):
        status, headers, body = chat(url, response_format=FORMAT)
        assert (status, headers["model"], headers["failover"]) == (200, "flash", "semantic")
        assert isinstance(json.loads(body["choices"][0]["message"]["content"])["n"], int)
        with instance.recorder.store.reader() as connection:
            made = queries.request(connection, headers["request-id"])
            counted = {(row.name, tuple(row.labels.values())): row.value for row in queries.totals(connection)}
        assert made is not None
        assert [attempt.category for attempt in made.attempts] == ["semantic", "ok"]
        assert "colour" not in str(made.attempts[0].error)
        assert counted["attempts", ("chat", "primary", "pro", "semantic")] == 1


def test_one_callers_impossible_schema_opens_no_breaker(configured: Callable[..., Config]) -> None:
    impossible = {"type": "json_schema", "json_schema": {"name": "n", "schema": {**SCHEMA, "maxProperties": 0}}}
    with gateway(configured("json_schema = true")) as (url, instance):
        for _ in range(12):
            status, _headers, body = chat(url, response_format=impossible)
            assert (status, body["error"]["code"]) == (502, "semantic_failure")
        lines = instance.exchanges["chat"].board.lines
        assert {str(line.breaker.state) for line in lines.values()} == {"closed"}
        assert chat(url)[1]["model"] == "pro"


def test_processes_of_one_store_ask_once_and_all_learn(configured: Callable[..., Config], upstream: Upstream) -> None:
    config = configured('canaries = "canaries.toml"\ncanary_every = "1s"')
    first, second = (DualModelManager.from_config(config, "chat") for _ in range(2))
    try:
        first.status()
        eventually(lambda: results(first._instance.recorder.store, Role.SECONDARY))
        second.status()
        upstream.set("flash", NONSENSE)
        board = second._exchange.board
        eventually(lambda: board.drifted(Role.SECONDARY, time.monotonic()))
        askers = {found.instance for found in results(second._instance.recorder.store, Role.SECONDARY)}
        assert askers == {first._instance.identity.instance}
        upstream.set("flash")
        eventually(lambda: board.drifted(Role.SECONDARY, time.monotonic()) is None)
        eventually(lambda: str(board.lines[Role.SECONDARY].breaker.state) == "closed")
    finally:
        second.close()
        first.close()


class Clock(SystemClock):
    """A clock that a test moves."""

    now = 1000.0

    def monotonic(self) -> float:  # type: ignore[override]
        return self.now

    def wall_ms(self) -> int:
        return round(self.now * 1000)


def test_what_fell_due_while_nobody_held_the_lease_is_asked_at_once(configured: Callable[..., Config]) -> None:
    """A run that a dead process missed waited for the next interval, so a drift was found after two."""
    instance, asked = Instance.open(configured('canaries = "canaries.toml"\ncanary_every = "100s"')), []
    instance.clock = clock = Clock()
    try:
        instance.recorder.start()
        instance.exchange("chat")
        instance.canaries.asks_with("chat", lambda canary, role, _done: asked.append(role))
        assert instance.coordinator.lease("canaries/chat", "another process", 60.0)
        instance.canaries.turn()
        clock.now += 105
        instance.canaries.turn()
        assert asked == []

        assert instance.coordinator.lease("canaries/chat", "another process", 0.0)
        clock.now += 15
        instance.canaries.turn()
        assert asked == [Role.PRIMARY]
        clock.now += 55
        instance.canaries.turn()
        assert asked == [Role.PRIMARY, Role.SECONDARY]
    finally:
        instance.close()


def test_a_canary_that_its_model_refuses_is_told(
    configured: Callable[..., Config], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was ever found, and nobody heard that nothing could be."""
    upstream.set("flash", Fault(error="invalid_argument"))
    with DualModelManager.from_config(configured('canaries = "canaries.toml"\ncanary_every = "1s"'), "chat") as manager:
        manager.status()
        eventually(lambda: "canary shape cannot be asked of the secondary model of chat" in caplog.text)
        eventually(lambda: results(manager._instance.recorder.store, Role.PRIMARY))
    assert "the primary model" not in caplog.text


def test_a_mistake_in_the_file_of_canaries_is_found_at_start(configured: Callable[..., Config], tmp_path: Path) -> None:
    config = configured('canaries = "canaries.toml"')
    (tmp_path / "canaries.toml").write_text('[[canaries]]\nname = "x"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"canaries\.toml: canaries\[0\]\.prompt: is missing"):
        DualModelManager.from_config(config, "chat")


def test_a_stream_in_a_wrong_shape_never_ends_as_a_whole_answer(
    configured: Callable[..., Config], upstream: Upstream
) -> None:
    chunks = [{"index": 0, "delta": {"content": text}} for text in ("colour ", "me ", "impressed")]
    events = [{"choices": [one]} for one in [*chunks, {"index": 0, "delta": {}, "finish_reason": "stop"}]]
    said = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    upstream.set("pro", Fault(body=said, content_type="text/event-stream"))
    asked = {
        "model": "chat",
        "messages": [{"role": "user", "content": "n?"}],
        "response_format": FORMAT,
        "stream": True,
    }
    with gateway(configured("json_schema = true")) as (url, instance):
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(asked).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text, identity = answer.read().decode(), answer.headers["x-switchgear-request-id"]
        assert "impressed" in text
        assert '"finish_reason":"stop"' not in text
        assert "[DONE]" not in text
        assert text.rstrip().split("\n\n")[-1].startswith('event: error\ndata: {"error":{')
        with instance.recorder.store.reader() as connection:
            made = queries.request(connection, identity)
        assert made is not None
        assert (made.request.code, [one.category for one in made.attempts]) == ("stream_broken", ["semantic"])
        assert str(instance.exchanges["chat"].board.lines[Role.PRIMARY].breaker.state) == "closed"


@pytest.mark.parametrize("kind", ["openai", "google-generativeai"])
def test_a_manager_that_is_closed_while_it_asks_leaves_no_thread_and_asks_no_more(
    configured: Callable[..., Config], upstream: Upstream, kind: str
) -> None:
    """What closing broke off was tried again, on threads and connections that nobody closed."""
    upstream.set("pro", Fault(hang=True))
    upstream.set("flash", Fault(hang=True))
    config = configured('canaries = "canaries.toml"\ncanary_every = "1s"', attempts=3)
    url = upstream.openai_url if kind == "openai" else upstream.gemini_url
    before = set(threading.enumerate())
    manager = DualModelManager.from_config(
        config, "chat", providers={"local": build_provider(kind, api_key="k", base_url=url)}
    )
    manager.status()
    eventually(lambda: upstream.seen("pro") and upstream.seen("flash"))
    manager.close()
    asked = len(upstream.seen())
    eventually(lambda: {one.name for one in set(threading.enumerate()) - before} <= {"switchgear-heart"})
    assert len(upstream.seen()) == asked


def test_an_embedded_asynchronous_manager_asks_canaries_before_it_has_a_caller(
    configured: Callable[..., Config], upstream: Upstream
) -> None:
    upstream.set("flash", NONSENSE)

    async def served() -> None:
        manager = AsyncDualModelManager.from_config(
            configured('canaries = "canaries.toml"\ncanary_every = "1s"'), "chat"
        )
        try:
            await manager.start()
            board = manager._exchange.board
            found = await asyncio.to_thread(eventually, lambda: board.drifted(Role.SECONDARY, time.monotonic()))
            assert found == "shape"
        finally:
            await manager.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(served())
