"""Streams through faults at every event of an answer: the text is the uninterrupted answer, or the caller is told.

The real `openai` SDK asks, the upstream breaks, and whatever happens one thing never does: a truncated answer that
ends as if it were whole. The other wires, and the managers without a gateway, are in `test_stream_faults`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import openai
import psutil
import pytest
import requests

from engine.core.messages import Role
from engine.providers.answers import Continuation, answer_text
from tests.engine.drivers import outstanding
from tests.engine.gateway.conftest import Serve
from tests.engine.gateway.running import FLASH, PRO, Running, about
from tests.patience import eventually
from tests.upstream import Fault, Upstream

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

KINDS = ["openai", "google-generativeai", "google-genai"]
PROMPT = "Why is the sky blue?"
WORDS = 9
SHORT = Fault(words=WORDS, words_per_event=2)
TEXT = answer_text(PROMPT, WORDS)
EVENTS = 5
"""Text events of the short answer: ten words with its mark, two an event."""

FAULTS = {
    "cut": lambda at: replace(SHORT, cut_after=at),
    "stall": lambda at: replace(SHORT, stall_after=at),
    "malformed": lambda at: replace(SHORT, malformed_at=at),
    "error object": lambda at: replace(SHORT, error_at=at),
    "cut, split bytes": lambda at: replace(SHORT, cut_after=at, split=7),
}
CLOCKS = 'first_token = "30s"\nanswer = "30s"\nidle = "30s"\ntotal = "60s"'
QUICK = {CLOCKS: CLOCKS.replace('"30s"', '"500ms"')}
PATIENT = "[managers.chat.breaker]\nmin_calls = 1000\nconsecutive_failures = 1000"
PREFILL = 'capabilities = ["tools", "vision", "json_schema", "system", "prefill"]'
NO_PREFILL = 'capabilities = ["tools", "vision", "json_schema", "system"]'

SECONDARIES = {
    "takes prefill": (PREFILL, replace(SHORT, continuation=Continuation.CONTINUE)),
    "refuses prefill": (PREFILL, replace(SHORT, continuation=Continuation.REFUSE)),
    "takes history": (NO_PREFILL, replace(SHORT, continuation=Continuation.CONTINUE)),
    "starts over": (NO_PREFILL, replace(SHORT, continuation=Continuation.START_OVER)),
    "repeats its tail": (NO_PREFILL, replace(SHORT, continuation=Continuation.REPEAT_TAIL)),
}


@dataclass
class Got:
    """What the SDK's user has in hand."""

    text: str = ""
    finish: str | None = None
    error: Exception | None = None

    @property
    def whole(self) -> bool:
        return self.error is None and self.finish is not None


def read(gateway: Running, **given: Any) -> Got:
    """Stream by the real SDK."""
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=60)
    got = Got()
    asked: Any = {"model": "chat", "messages": [{"role": "user", "content": PROMPT}], "stream": True, **given}
    try:
        for chunk in client.chat.completions.create(**asked):
            for choice in chunk.choices:
                got.text += choice.delta.content or ""
                got.finish = choice.finish_reason or got.finish
    except openai.APIError as error:
        got.error = error
    finally:
        client.close()
    return got


def honest(gateway: Running, got: Got) -> str:
    """Hold what the caller got to the law of streams; says which of the two it was."""
    last = gateway.rows("requests")[-1]
    if got.whole:
        assert got.text == TEXT, got.text
        assert (last["status_code"], last["outcome"]) == (200, "ok")
        return "whole"
    assert got.error is not None, f"a truncated answer ended as if it were whole: {got}"
    assert got.finish is None
    assert TEXT.startswith(got.text)
    assert (last["outcome"], last["status_code"] >= 500) == ("error", True)
    return "told"


def _serve(serve: Serve, kind: str, flash: str = PREFILL, **given: Any) -> Running:
    gateway = serve(kind, flash=flash, rest=PATIENT, replace=QUICK, **given)
    if kind == "google-genai":
        # The library takes longer to make a client than these clocks allow; that is what the first calls are for.
        for role in ("secondary", "primary"):
            gateway.act("POST", "/override", {"role": role, "reason": "warm up", "strict": True})
            eventually(lambda: gateway.ask().ok)
        gateway.act("DELETE", "/override?reason=warm")
        gateway.upstream.forget()
    return gateway


def _attempts(gateway: Running) -> list[dict[str, Any]]:
    """Of the last request."""
    return gateway.rows("attempts", f"request_id = '{gateway.rows('requests')[-1]['id']}'")


# -- every fault at every event ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("secondary", SECONDARIES)
def test_a_stream_that_breaks_anywhere_ends_as_the_answer_it_would_have_been(
    serve: Serve, upstream: Upstream, secondary: str
) -> None:
    capabilities, flash = SECONDARIES[secondary]
    gateway = _serve(serve, "openai", capabilities)
    upstream.set(FLASH, flash)
    names = list(FAULTS) if secondary == "takes prefill" else ["cut"]
    for name in names:
        for at in range(EVENTS):
            if name == "stall" and at not in (0, EVENTS - 1):
                continue
            upstream.set(PRO, FAULTS[name](at))
            got = read(gateway)
            assert honest(gateway, got) == "whole", (name, at, got)
            row, attempts = gateway.rows("requests")[-1], _attempts(gateway)
            assert attempts[-1]["role"] == "secondary"
            assert sum(one["output_tokens"] or 0 for one in attempts) == row["output_tokens"]
            if at:
                assert attempts[0]["usage_estimated"] == 1, "the broken one did not get to say what it spent"
    assert outstanding(gateway.exchange) == gateway.exchange.in_flight == 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_anybody_able_to_go_on_the_caller_is_told(serve: Serve, upstream: Upstream, kind: str) -> None:
    gateway = _serve(serve, kind)
    upstream.set(FLASH, replace(SHORT, error="gateway_timeout"))
    for name, fault in FAULTS.items():
        for at in (1,) if name == "stall" else (0, 1, EVENTS - 1):
            upstream.set(PRO, fault(at))
            got = read(gateway)
            assert honest(gateway, got) == "told", (name, at, got)
            if at and name != "error object":
                assert got.text, (name, at)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_ends_without_a_finish_is_broken_and_continued(
    serve: Serve, upstream: Upstream, kind: str
) -> None:
    gateway = _serve(serve, kind)
    upstream.set(FLASH, SHORT)
    upstream.set(PRO, replace(SHORT, no_finish=True))
    got = read(gateway)
    assert honest(gateway, got) in ("whole", "told")
    assert _attempts(gateway)[0]["category"] == "truncated"


@pytest.mark.parametrize("kind", KINDS)
def test_both_models_breaking_is_told_however_much_was_shown(serve: Serve, upstream: Upstream, kind: str) -> None:
    gateway = _serve(serve, kind)
    for first in range(EVENTS):
        upstream.set(PRO, replace(SHORT, cut_after=first))
        upstream.set(FLASH, replace(SHORT, cut_after=1))
        assert honest(gateway, read(gateway)) == "told"


@pytest.mark.parametrize("kind", KINDS)
def test_styles_of_streams_are_no_faults(serve: Serve, upstream: Upstream, kind: str) -> None:
    gateway = serve(kind)
    for style in ("crlf", "comments", "multiline", "split", "no_done", "no_usage", "thoughts"):
        if (style, kind) == ("comments", "google-genai"):
            continue  # Gemini sends none, and its library takes one for an event
        fault: Any = {"split": 5, "thoughts": 3}.get(style, True)
        upstream.set(PRO, replace(SHORT, **{style: fault}))
        assert honest(gateway, read(gateway)) == "whole", style
        assert [attempt["role"] for attempt in _attempts(gateway)] == ["primary"], style


def test_where_continuing_is_switched_off_the_caller_is_told(serve: Serve, upstream: Upstream) -> None:
    gateway = _serve(serve, "openai", chat='on_broken_stream = "error"')
    upstream.set(PRO, replace(SHORT, cut_after=2))
    assert honest(gateway, read(gateway)) == "told"
    assert upstream.seen(FLASH) == []
    upstream.set(PRO, replace(SHORT, cut_after=0))
    upstream.set(FLASH, SHORT)
    assert honest(gateway, read(gateway)) == "whole", "before content it is an ordinary failover"


def test_an_incapable_secondary_is_not_asked_to_go_on(serve: Serve, upstream: Upstream) -> None:
    gateway = _serve(serve, "openai", 'capabilities = ["system"]')
    tool = {"type": "function", "function": {"name": "unused", "parameters": {"type": "object"}}}
    upstream.set(PRO, replace(SHORT, cut_after=2))
    got = read(gateway, tools=[tool])
    assert honest(gateway, got) == "told"
    assert upstream.seen(FLASH) == []


# -- what cannot be continued ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(4))
def test_inside_a_tool_call_nothing_is_continued_blindly(serve: Serve, upstream: Upstream, at: int) -> None:
    gateway = _serve(serve, "openai")
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    }
    upstream.set(PRO, Fault(cut_after=at))
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0)
    asked: Any = {"model": "chat", "messages": [{"role": "user", "content": PROMPT}], "tools": [tool]}
    arguments, finish, error = "", None, None
    try:
        for chunk in client.chat.completions.create(**asked, tool_choice="required", stream=True):
            for choice in chunk.choices:
                for call in choice.delta.tool_calls or ():
                    arguments += (call.function.arguments or "") if call.function else ""
                finish = choice.finish_reason or finish
    except openai.APIError as caught:
        error = caught
    if error is None:
        assert finish == "tool_calls"
        assert json.loads(arguments) == {"place": "text"}
    else:
        assert finish is None
    assert (error is None) == (at in (0, 3)), "restarted where nothing was shown; whole once all of it is"
    assert upstream.seen(FLASH) == [] or at in (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_inside_a_json_document_nothing_is_continued_blindly(serve: Serve, upstream: Upstream, kind: str) -> None:
    gateway = _serve(serve, kind)
    upstream.set(PRO, replace(SHORT, cut_after=2))
    upstream.set(FLASH, SHORT)
    got = read(gateway, response_format={"type": "json_object"})
    assert got.error is not None
    assert got.finish is None
    assert [one.model for one in upstream.seen()] == [PRO]
    upstream.set(PRO, replace(SHORT, cut_after=0))
    got = read(gateway, response_format={"type": "json_object"})
    assert json.loads(got.text)["answer"]


# -- on the wire -------------------------------------------------------------------------------------------------------


def test_a_broken_stream_is_an_error_event_and_then_nothing(serve: Serve, upstream: Upstream) -> None:
    gateway = _serve(serve, "openai")
    upstream.set("*", replace(SHORT, cut_after=2))
    answer = gateway.stream(PROMPT)
    assert answer.status_code == 200
    assert "[DONE]" not in answer.text
    events = [block for block in answer.text.split("\n\n") if block]
    assert events[-1].startswith("event: error\ndata: ")
    error = json.loads(events[-1].split("data: ", 1)[1])["error"]
    assert (error["code"], "whole answer" in error["message"]) == ("stream_broken", True)
    assert '"finish_reason":"stop"' not in answer.text
    (row,) = gateway.rows("requests")
    assert (row["id"], row["status_code"], row["code"]) == (about(answer)["request-id"], 502, "stream_broken")


def test_the_last_comment_tells_what_the_headers_could_not_know(serve: Serve, upstream: Upstream) -> None:
    gateway = _serve(serve, "openai")
    upstream.set(PRO, replace(SHORT, cut_after=2))
    upstream.set(FLASH, SHORT)
    answer = gateway.stream(PROMPT)
    assert about(answer).items() >= {"role": "primary", "attempts": "1"}.items()
    assert "failover" not in about(answer)
    said = [line for line in answer.text.splitlines() if line.startswith(": switchgear")][-1]
    assert f"model={FLASH} role=secondary attempts=2 failover=truncated" in said


def test_the_finish_and_done_wait_for_the_commit(serve: Serve, upstream: Upstream) -> None:
    gateway = _serve(serve, "openai")
    upstream.set(PRO, SHORT)
    body = {"model": "chat", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
    for _ in range(20):
        with requests.post(f"{gateway.url}/v1/chat/completions", json=body, stream=True, timeout=60) as answer:
            for line in answer.iter_lines():
                if b'"finish_reason":"stop"' in line:
                    identity = about(answer)["request-id"]
                    assert gateway.rows("requests", f"id = '{identity}'"), "what a caller has seen is on record"


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_reader_does_not_make_memory_grow(serve: Serve, upstream: Upstream, kind: str) -> None:
    gateway = _serve(serve, kind)
    upstream.set(PRO, SHORT)
    eventually(lambda: read(gateway).whole)
    upstream.forget()
    upstream.set(PRO, Fault(words=3000, words_per_event=1, extra={"pad": "x" * 10_000}))
    process = psutil.Process()
    body = {"model": "chat", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
    with requests.post(f"{gateway.url}/v1/chat/completions", json=body, stream=True, timeout=60) as answer:
        next(answer.iter_lines())
        before = process.memory_info().rss

        def stands_still() -> bool:
            sent = upstream.seen()[0].events
            time.sleep(0.5)
            return upstream.seen()[0].events == sent

        eventually(stands_still)  # the model's stream waits, too
        assert upstream.seen()[0].events < 3000
        assert process.memory_info().rss - before < 20_000_000


# -- what is left behind -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_path_leaves_a_task_a_socket_a_thread_or_a_permit(serve: Serve, upstream: Upstream, kind: str) -> None:
    gateway = _serve(serve, kind)
    process = psutil.Process()
    read(gateway)
    read(gateway)

    def connections() -> int:
        """Of the gateway to the upstream."""
        return sum(one.raddr != () and one.raddr.port == upstream.port for one in process.net_connections("tcp"))

    tasks, threads = gateway.tasks(), threading.active_count()
    for name, fault in FAULTS.items():
        for at in (0, 2):
            upstream.set(PRO, fault(at))
            upstream.set(FLASH, SHORT if name != "malformed" else replace(SHORT, cut_after=1))
            read(gateway)
            with contextlib.suppress(requests.RequestException):
                body = {"model": "chat", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
                url = f"{gateway.url}/v1/chat/completions"
                requests.post(url, json=body, stream=True, timeout=0.1).close()
    eventually(lambda: gateway.exchange.in_flight == 0)
    assert outstanding(gateway.exchange) == 0
    eventually(lambda: gateway.tasks() <= tasks, told=gateway.tasks)
    eventually(lambda: all(one.ended for one in upstream.seen()))
    eventually(lambda: connections() <= 8)  # kept-alive ones only
    eventually(lambda: threading.active_count() <= threads + 4)  # idle ones only
    assert {gateway.breaker(role).outstanding for role in Role} == {0}
