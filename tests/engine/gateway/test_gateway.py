"""The gateway as its callers and operators meet it: real HTTP, the real SDK, a real upstream."""

from __future__ import annotations

import gzip
import hmac
import json
import socket
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import requests

from engine.core.messages import Role
from engine.gateway import access
from engine.gateway.app import Companion
from engine.gateway.health import Check
from engine.providers.answers import answer_text
from tests.engine.drivers import outstanding
from tests.engine.gateway.conftest import Serve
from tests.engine.gateway.running import FLASH, PRO, Running, about, error_of
from tests.patience import PATIENCE_S, eventually
from tests.upstream import Fault, Upstream

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

PROMPT = "Why is the sky blue?"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
KEYS = '[server]\nport = 0\napi_keys_env = "CALLERS"\noperator_keys_env = "OPERATORS"\nviewer_keys_env = "VIEWERS"\n'


@pytest.fixture
def gateway(serve: Serve) -> Running:
    return serve()


def sdk(gateway: Running, **given: Any) -> openai.OpenAI:
    given = {"api_key": "any", "max_retries": 0, "timeout": 15, **given}
    return openai.OpenAI(base_url=f"{gateway.url}/v1", **given)


# -- bad input ---------------------------------------------------------------------------------------------------------

BODIES = [
    (b"", "JSON"),
    (b"{", "JSON"),
    (b"\xff\xfe", "JSON"),
    (b"[" * 100_000, "JSON"),
    (b"[]", "object"),
    (b"null", "object"),
    (b'{"messages": [{"role": "user", "content": "x"}]}', "model"),
    (b'{"model": 7, "messages": [{"role": "user", "content": "x"}]}', "model"),
    (b'{"model": "chat"}', "messages"),
    (b'{"model": "chat", "messages": []}', "messages"),
    (b'{"model": "chat", "messages": "hi"}', "messages"),
    (b'{"model": "chat", "messages": ["hi"]}', "messages[0]"),
    (b'{"model": "chat", "messages": [{"content": "hi"}]}', "messages[0]"),
    (b'{"model": "chat", "messages": [{"role": "user", "content": 7}]}', "messages[0].content"),
    (b'{"model": "chat", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}', "stream"),
    (b'{"model": "chat", "messages": [{"role": "user", "content": "x"}], "stream_options": 1}', "stream_options"),
    (b'{"model": "chat", "messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}', "max_tokens"),
    (b'{"model": "chat", "messages": [{"role": "user", "content": "x"}], "max_tokens": NaN}', "JSON"),
    (b'{"model": "chat", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0}', "max_tokens"),
    (b'{"model": "chat", "messages": [{"role": "user", "content": "x"}], "tools": {}}', "tools"),
    (
        b'{"model": "chat", "messages": [{"role": "user", "content": "x"}], "response_format": "json"}',
        "response_format",
    ),
    (
        b'{"model":"chat","messages":[{"role":"user"}],"response_format":{"type":"json_schema","json_schema":1}}',
        "json_schema",
    ),
]


def test_bad_bodies_are_refused_in_the_envelope_and_not_recorded(gateway: Running, upstream: Upstream) -> None:
    for body, names in BODIES:
        answer = gateway.call("POST", "/v1/chat/completions", data=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (body[:80], answer.text)
        error = error_of(answer)
        assert error["code"] == "invalid_request"
        assert names in error["message"] or names == error["param"], (body[:80], error)
        said = about(answer)
        assert said.pop("request-id")
        nothing = {"manager": "none", "model": "none", "role": "none"}
        assert said == {**nothing, "attempts": "0", "epoch": "0", "overhead-us": "0"}
    assert gateway.rows("requests") == []
    assert upstream.seen() == []


ODD: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": ["hi"]}]},
    {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 7}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
    {"messages": [{"role": "user", "content": None}]},
    {"messages": [{"role": "wizard", "content": "hi"}]},
    {"messages": [{"role": "assistant", "tool_calls": "x"}]},
    {"messages": [{"role": "assistant", "tool_calls": [7]}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
    {"messages": [{"role": "tool", "tool_call_id": 7, "content": "x"}]},
    {"tools": [{}]},
    {"tools": [{"type": "function", "function": {}}]},
    {"tools": [TOOL], "tool_choice": 7},
    {"tools": [TOOL], "tool_choice": {"type": "function"}},
    {"temperature": "hot"},
    {"stop": 5},
    {"n": "two"},
    {"n": 0},
    {"seed": 1.5},
    {"response_format": {"type": 7}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string"}, "name": 7}}},
    {"logit_bias": [1], "user": None, "x" * 300: {"deep": [[[[]]]]}},
]


@pytest.mark.parametrize(
    ("kind", "stream"), [("openai", False), ("openai", True), ("google-generativeai", False), ("google-genai", True)]
)
def test_odd_fields_never_make_it_a_mistake_of_ours(serve: Serve, upstream: Upstream, kind: str, stream: bool) -> None:
    gateway = serve(kind, rest="[managers.chat.breaker]\nmin_calls = 1000\nconsecutive_failures = 1000")
    wrong = []
    for fields in ODD:
        answer = gateway.ask(**{"stream": stream, **fields})
        fine = answer.status_code == 200 and '"internal"' not in answer.text
        refused = answer.status_code == 400 and error_of(answer)["code"] in ("invalid_request", "no_capable_model")
        if not fine and not refused:
            wrong.append((fields, answer.status_code, answer.text[-200:]))
    assert not wrong, wrong
    assert outstanding(gateway.exchange) == gateway.exchange.in_flight == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("GET", "/v1/models/nobody"), ("GET", "/v1/chat/completions"), ("POST", "/v1/embeddings")],
)
def test_an_answer_of_v1_that_asks_no_model_says_so_in_the_same_headers(
    gateway: Running, method: str, path: str
) -> None:
    said = about(gateway.call(method, path))
    assert said.pop("request-id")
    assert said == {
        "manager": "none", "model": "none", "role": "none", "attempts": "0", "epoch": "0", "overhead-us": "0"
    }  # fmt: skip


def test_a_compressed_body_is_refused_by_name(gateway: Running) -> None:
    """It was said to be no UTF-8."""
    answer = gateway.call(
        "POST", "/v1/chat/completions", data=gzip.compress(b"{}"), headers={"content-encoding": "gzip"}
    )
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")
    assert "gzip" in error_of(answer)["message"]
    assert gateway.ask(headers={"content-encoding": "identity"}).ok


def test_a_body_over_the_limit_is_refused_before_it_is_read(gateway: Running) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {30_000_000}\r\n\r\n"
        caller.sendall(head.encode())
        caller.settimeout(60)
        answer = b""
        while part := caller.recv(65536):  # head and body may come one by one; then the server closes
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"body_too_large"' in answer
    assert b"server.max_body" in answer
    assert time.monotonic() - began < 30, "the answer does not wait for the body"


def test_a_caller_that_sends_too_much_anyway_gets_the_answer(gateway: Running) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        caller.sendall(head.encode())
        caller.settimeout(60)
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        answer = b""
        try:
            for _ in range(30):
                caller.sendall(chunk)
            answer = caller.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was cut off, which says the same
    assert answer == b"" or b"413" in answer
    assert gateway.ask().ok, "and nobody else is harmed"


def test_an_unknown_manager_is_refused_with_the_known_ones_and_not_recorded(gateway: Running) -> None:
    answer = gateway.ask(model="chatt")
    assert (answer.status_code, error_of(answer)["code"], error_of(answer)["param"]) == (
        404,
        "unknown_manager",
        "model",
    )
    assert "chat" in error_of(answer)["message"]
    assert gateway.rows("requests") == []


def test_wrong_methods_and_paths_are_answered_in_the_envelope(gateway: Running) -> None:
    wrong = gateway.call("GET", "/v1/chat/completions")
    assert (wrong.status_code, error_of(wrong)["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "POST")
    nothing = gateway.call("GET", "/v1/nothing")
    assert (nothing.status_code, error_of(nothing)["code"]) == (404, "not_found")
    head = gateway.call("HEAD", "/healthz")
    assert (head.status_code, head.content) == (200, b"")
    assert gateway.call("HEAD", "/v1/chat/completions").status_code == 405
    act = gateway.call("PUT", "/api/v1/managers/chat/override", json={})
    assert (act.status_code, error_of(act)["code"]) == (405, "method_not_allowed")


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setenv("CALLERS", "caller-key-1,caller-key-2")
    monkeypatch.setenv("OPERATORS", "ana:operator-key")
    monkeypatch.setenv("VIEWERS", "bo:viewer-key")
    return serve(replace={"[server]\nport = 0\n": KEYS})


def _with(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_callers_need_one_of_the_keys(locked: Running, upstream: Upstream) -> None:
    for headers in (
        {},
        _with("wrong"),
        _with(""),
        _with("operator-key"),
        {"authorization": "caller-key-1"},
        _with("ü"),
    ):
        answer = locked.ask(headers={name: value.encode() for name, value in headers.items()})
        assert (answer.status_code, error_of(answer)["code"]) == (401, "unauthorized"), headers
        assert locked.call("GET", "/v1/models", headers=headers if "ü" not in str(headers) else {}).status_code == 401
    assert upstream.seen() == []
    for key in ("caller-key-1", "caller-key-2"):
        assert locked.ask(headers=_with(key)).ok
    for path in ("/metrics", "/healthz", "/readyz"):
        assert locked.call("GET", path).ok, "these need no key"


def test_keys_are_compared_in_constant_time_with_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    real = hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: compared.append(b) or real(a, b))  # type: ignore[func-returns-value]
    keys = access.Access(("one", "two", "three"), (), ())
    keys.admit("Bearer one")
    assert compared == [b"one", b"two", b"three"], "the first hit does not end the comparison"


def test_without_keys_a_page_of_another_site_cannot_spend_money(gateway: Running, upstream: Upstream) -> None:
    for origin in ("https://evil.example", "http://127.0.0.1.evil.example", "null", "http://[", ""):
        answer = gateway.ask(headers={"origin": origin, "content-type": "text/plain"})
        assert (answer.status_code, error_of(answer)["code"]) == (401, "unauthorized"), origin
    assert upstream.seen() == []
    for origin in ("http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443"):
        assert gateway.ask(headers={"origin": origin}).ok, origin


def test_with_keys_any_page_that_has_one_may_call(locked: Running) -> None:
    assert locked.ask(headers={"origin": "https://ours.example", **_with("caller-key-1")}).ok


def test_operators_act_viewers_look_and_others_do_neither(locked: Running) -> None:
    pin = {"role": "secondary", "reason": "test"}
    for headers in ({}, _with("caller-key-1"), _with("wrong")):
        assert locked.call("GET", "/api/v1/status", headers=headers).status_code == 401
        answer = locked.act("POST", "/override", {"nonsense": 1}, headers=headers)
        assert answer.status_code == 401, "who asks comes before what is asked"
    assert locked.call("GET", "/api/v1/status", headers=_with("viewer-key")).ok
    assert locked.act("POST", "/override", pin, headers=_with("viewer-key")).status_code == 401
    assert locked.act("POST", "/override", pin, headers=_with("operator-key")).ok
    (act,) = locked.rows("overrides")
    assert act["actor"] == "ana"


def test_without_keys_a_loopback_caller_is_an_operator_but_a_page_of_another_site_is_not(gateway: Running) -> None:
    assert gateway.call("GET", "/api/v1/status").ok
    for host in (f"localhost:{gateway.port}", "127.0.0.1", "[::1]:80"):
        assert gateway.call("GET", "/api/v1/status", headers={"host": host}).ok, host
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        answer = gateway.call("GET", "/api/v1/status", headers={"host": host})
        assert answer.status_code in (400, 401), host
    pin = json.dumps({"role": "secondary", "reason": "x"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {"content-type": kind}
        answer = gateway.call("POST", "/api/v1/managers/chat/override", data=pin, headers=headers)
        assert answer.status_code == 400, kind
        assert "application/json" in error_of(answer)["message"]
    assert gateway.rows("overrides") == []


# -- the control API ---------------------------------------------------------------------------------------------------


def test_an_override_takes_effect_before_it_is_answered_and_clearing_it_too(gateway: Running) -> None:
    epoch = gateway.call("GET", "/api/v1/status").json()["managers"]["chat"]["epoch"]
    pinned = gateway.act("POST", "/override", {"role": "secondary", "reason": "maintenance", "ttl": "30m"})
    assert pinned.json()["override"]["ttl"] == 1800
    answer = gateway.ask()
    assert about(answer).items() >= {"role": "secondary", "epoch": str(epoch + 1)}.items()
    status = gateway.call("GET", "/api/v1/status").json()["managers"]["chat"]
    assert (status["active_role"], status["override"]["reason"]) == ("secondary", "maintenance")
    assert gateway.counted("override_active", role="secondary") == 1
    stale = gateway.act("POST", "/override", {"role": "primary", "reason": "x", "epoch": epoch})
    assert (stale.status_code, error_of(stale)["code"]) == (409, "conflict")
    stale = gateway.act("DELETE", f"/override?reason=done&epoch={epoch}")
    assert stale.status_code == 409
    assert gateway.act("DELETE", f"/override?reason=done&epoch={epoch + 1}").ok
    assert gateway.act("DELETE", "/override?reason=again").ok, "clearing nothing changes nothing"
    acts = [(act["action"], act["reason"]) for act in gateway.rows("overrides")]
    assert acts == [("set", "maintenance"), ("clear", "done")]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "role"),
        ({"role": "third", "reason": "x"}, "role"),
        ({"role": 1, "reason": "x"}, "role"),
        ({"role": "primary"}, "reason"),
        ({"role": "primary", "reason": "  "}, "reason"),
        ({"role": "primary", "reason": "x", "ttl": "nan"}, "ttl"),
        ({"role": "primary", "reason": "x", "ttl": 0}, "ttl"),
        ({"role": "primary", "reason": "x", "ttl": -1}, "ttl"),
        ({"role": "primary", "reason": "x", "ttl": "for ever"}, "ttl"),
        ({"role": "primary", "reason": "x", "ttl": True}, "ttl"),
        ({"role": "primary", "reason": "x", "ttl": "31d"}, "ttl"),
        ({"role": "primary", "reason": "x", "strict": "yes"}, "strict"),
        ({"role": "primary", "reason": "x", "epoch": "one"}, "epoch"),
        ({"role": "primary", "reason": "x", "epoch": True}, "epoch"),
        ({"role": "primary", "reason": "x", "epoch": 1.5}, "epoch"),
        ({"role": "primary", "reason": "x", "for": "1h"}, "for"),
    ],
)
def test_an_act_with_a_wrong_field_names_it(shared: Running, body: dict[str, Any], param: str) -> None:
    answer = shared.act("POST", "/override", body)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


def test_acts_refuse_what_is_no_json_or_no_manager(shared: Running) -> None:
    headers = {"content-type": "application/json"}
    for body in (b"{", b"[]", b'{"role": "primary", "reason": "x", "ttl": NaN}'):
        answer = shared.call("POST", "/api/v1/managers/chat/override", data=body, headers=headers)
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request"), body[:50]
    large = shared.call("POST", "/api/v1/managers/chat/override", data=b"x" * 100_000, headers=headers)
    assert (large.status_code, error_of(large)["code"]) == (413, "body_too_large")
    body = {"role": "primary", "reason": "x"}
    answer = shared.call("POST", "/api/v1/managers/nobody/override", json=body)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "unknown_manager")
    assert shared.act("DELETE", "/override").status_code == 400, "a reason is required"
    for epoch in ("1.5", "9" * 5000):
        assert shared.act("DELETE", f"/override?reason=x&epoch={epoch}").status_code == 400
    assert shared.act("POST", "/breakers/third", {"state": "auto", "reason": "x"}).status_code == 400
    assert shared.act("POST", "/breakers/primary", {"state": "ajar", "reason": "x"}).status_code == 400
    assert shared.rows("overrides") == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, server: Upstream) -> Any:
    """One gateway for tests that change nothing."""
    from tests.engine.gateway.running import running, settings

    with running(settings(tmp_path_factory.mktemp("shared"), server), upstream=server) as gateway:
        yield gateway


def test_a_forced_breaker_stops_and_allows_and_returns_to_itself(gateway: Running, upstream: Upstream) -> None:
    forced = gateway.act("POST", "/breakers/primary", {"state": "forced_open", "reason": "bad answers", "ttl": 60})
    assert forced.json()["forced"]["primary"]["reason"] == "bad answers"
    assert about(gateway.ask()).items() >= {"role": "secondary", "failover": "breaker_open"}.items()
    assert upstream.seen(PRO) == []
    assert gateway.act("POST", "/breakers/primary", {"state": "auto", "reason": "fixed"}).ok
    assert about(gateway.ask())["role"] == "primary", "half-open lets one through, which closes it"
    moves = [(one["from_state"], one["to_state"]) for one in gateway.rows("breaker_transitions", "role = 'primary'")]
    assert moves == [("closed", "forced_open"), ("forced_open", "half_open"), ("half_open", "closed")]


def test_the_timeline_tells_what_happened_newest_first(gateway: Running) -> None:
    gateway.act("POST", "/override", {"role": "secondary", "reason": "look"})
    gateway.ask()
    events = gateway.call("GET", "/api/v1/timeline?manager=chat").json()["events"]
    assert [event["ts_ms"] for event in events] == sorted((event["ts_ms"] for event in events), reverse=True)
    assert "look" in json.dumps(events)
    assert gateway.call("GET", "/api/v1/timeline?manager=other").json()["events"] == []
    assert gateway.call("GET", "/api/v1/timeline?from=2020-01-01&to=2020-01-02").json()["events"] == []


@pytest.mark.parametrize("query", ["from=yesterday", "to=nan", "from=inf", "to=1e300", "from=-5", "kind=gossip"])
def test_a_timeline_that_cannot_be_is_refused(shared: Running, query: str) -> None:
    answer = shared.call("GET", f"/api/v1/timeline?{query}")
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")
    name = query.partition("=")[0]
    assert error_of(answer)["message"].startswith(f"{name}: must be ")
    assert error_of(answer)["param"] == name


def test_the_openapi_document_has_every_route_of_the_control_api(shared: Running) -> None:
    document = shared.call("GET", "/openapi.json").json()
    described = {
        (path, method.upper()) for path, item in document["paths"].items() for method in item if method != "parameters"
    }
    served = {
        (route.path, method)
        for route in shared.routes
        if route.path.startswith("/api/")
        for method in route.methods - {"HEAD"}
    }
    assert described == served


def test_watching_serves_control_and_metrics_without_models(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(serve_models=False)
    assert "`switchgear watch` serves no models" in error_of(gateway.call("GET", "/v1/models"))["message"]
    answer = gateway.ask()
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
    assert gateway.act("POST", "/override", {"role": "secondary", "reason": "from the watcher"}).ok
    assert gateway.call("GET", "/api/v1/status").json()["managers"]["chat"]["active_role"] == "secondary"
    assert gateway.counted("override_active", role="secondary") == 1


# -- health ------------------------------------------------------------------------------------------------------------


def test_ready_says_part_by_part_why_not(serve: Serve) -> None:
    ticking = threading.Event()
    started: list[str] = []
    check = lambda: Check("scheduler", ok=ticking.is_set(), detail="ticking" if ticking.is_set() else "has not ticked")  # noqa: E731
    companion = Companion(lambda: started.append("on"), lambda: started.append("off"), (check,))
    gateway = serve(companions=[companion])
    body = gateway.call("GET", "/readyz")
    assert body.status_code == 503
    parts = {part["name"]: part for part in body.json()["checks"]}
    assert (parts["scheduler"]["ok"], parts["scheduler"]["detail"]) == (False, "has not ticked")
    assert parts["store"]["ok"]
    ticking.set()
    assert gateway.call("GET", "/readyz").status_code == 200
    assert gateway.call("GET", "/healthz").json()["status"] == "ok"
    gateway.close()
    assert started == ["on", "off"]


# -- the real SDK ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openai", "google-generativeai", "google-genai"])
def test_the_openai_sdk_gets_answers_streams_usage_and_tool_calls(serve: Serve, upstream: Upstream, kind: str) -> None:
    gateway = serve(kind)
    client = sdk(gateway)
    text = answer_text(PROMPT)
    assert [model.id for model in client.models.list()] == ["chat"]
    assert client.models.retrieve("chat").owned_by == "switchgear"

    whole = client.chat.completions.create(model="chat", messages=MESSAGES)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason, whole.model) == (text, "stop", PRO)
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 50

    chunks = list(client.chat.completions.create(model="chat", messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert [chunk.choices[0].delta.role for chunk in chunks if chunk.choices[0].delta.role] == ["assistant"]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1

    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="chat", messages=MESSAGES, stream=True, stream_options=options))
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens  # type: ignore[union-attr]

    asked: Any = {"model": "chat", "messages": MESSAGES, "tools": [TOOL], "tool_choice": "required"}
    called = client.chat.completions.create(**asked).choices[0]
    assert called.finish_reason == "tool_calls"
    assert called.message.tool_calls[0].function.name == "get_weather"
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.message.tool_calls[0].function.arguments == called.message.tool_calls[0].function.arguments
    assert json.loads(final.message.tool_calls[0].function.arguments) == {"place": "text"}


def test_the_sdk_raises_its_own_errors_for_ours(gateway: Running, upstream: Upstream) -> None:
    client = sdk(gateway)
    upstream.set(PRO, Fault(error="invalid_argument"))
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="chat", messages=MESSAGES)
    assert bad.value.code == "invalid_request"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=MESSAGES)
    upstream.set("*", Fault(error="gateway_timeout"))
    upstream.set(PRO, Fault(error="gateway_timeout"))
    with pytest.raises(openai.APIStatusError) as late:
        client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
    assert late.value.status_code == 504


def test_unknown_fields_pass_through_both_ways(gateway: Running, upstream: Upstream) -> None:
    upstream.set(PRO, Fault(extra={"system_fingerprint": "fp_1", "x_provider": {"zone": "eu"}}))
    answer = gateway.ask(top_k=5, metadata={"a": [1, None]}, max_completion_tokens=400)
    assert answer.json()["x_provider"] == {"zone": "eu"}
    sent = upstream.seen()[0].body
    assert (sent["top_k"], sent["metadata"], sent["max_completion_tokens"]) == (5, {"a": [1, None]}, 400)
    assert "max_tokens" not in sent
    assert '"x_provider":{"zone":"eu"}' in gateway.stream().text


def test_what_is_said_of_usage_beside_the_sums_passes_through_a_stream(gateway: Running, upstream: Upstream) -> None:
    counted = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}}
    events = [
        {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": counted},
    ]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    upstream.set(PRO, Fault(body=body, content_type="text/event-stream"))
    asked: Any = {"include_usage": True, "include_obfuscation": False}
    *_, last = sdk(gateway).chat.completions.create(model="chat", messages=MESSAGES, stream=True, stream_options=asked)
    assert last.usage is not None
    assert last.usage.model_dump(exclude_none=True) == {**counted, "total_tokens": 13}
    assert upstream.seen()[0].body["stream_options"] == asked


def _two_choices(stream: bool) -> Fault:
    """An endpoint that packs both choices into one chunk."""
    head = {"id": "x", "created": 1, "model": PRO}
    if not stream:
        choices = [
            {"index": n, "message": {"role": "assistant", "content": f"{n} is"}, "finish_reason": "stop"}
            for n in (0, 1)
        ]
        return Fault(body={**head, "object": "chat.completion", "choices": choices})
    lines = [
        [{"index": n, "delta": {"role": "assistant", "content": ""}, "finish_reason": None} for n in (0, 1)],
        [{"index": n, "delta": {"content": f"{n} "}, "finish_reason": None} for n in (0, 1)],
        [{"index": n, "delta": {"content": "is"}, "finish_reason": None} for n in (0, 1)],
        [{"index": n, "delta": {}, "finish_reason": "stop"} for n in (0, 1)],
    ]
    events = [{**head, "object": "chat.completion.chunk", "choices": choices} for choices in lines]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return Fault(body=body, content_type="text/event-stream")


def test_several_choices_arrive_each_once(gateway: Running, upstream: Upstream) -> None:
    client = sdk(gateway)
    upstream.set(PRO, _two_choices(stream=False))
    whole = client.chat.completions.create(model="chat", messages=MESSAGES, n=2)
    assert [choice.message.content for choice in whole.choices] == ["0 is", "1 is"]
    upstream.set(PRO, _two_choices(stream=True))
    texts = {0: "", 1: ""}
    finishes = []
    for chunk in client.chat.completions.create(model="chat", messages=MESSAGES, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finishes += [choice.index] if choice.finish_reason else []
    assert texts == {0: "0 is", 1: "1 is"}
    assert sorted(finishes) == [0, 1]


def test_an_answer_of_nothing_but_its_finish_streams_as_one(gateway: Running, upstream: Upstream) -> None:
    event = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": PRO}
    event["choices"] = [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "length"}]
    upstream.set(PRO, Fault(body=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n", content_type="text/event-stream"))
    (chunk,) = list(sdk(gateway).chat.completions.create(model="chat", messages=MESSAGES, stream=True))[-1:]
    assert chunk.choices[0].finish_reason == "length"
    (row,) = gateway.rows("requests")
    assert (row["status_code"], row["finish_reason"]) == (200, "length")


def test_the_headers_of_a_stream_tell_our_own_time_and_not_the_models(gateway: Running, upstream: Upstream) -> None:
    upstream.set(PRO, Fault(first_token=0.3))
    gateway.stream()
    upstream.set(PRO, Fault(first_token=0.3))
    assert int(about(gateway.stream())["overhead-us"]) < 100_000
    assert statistics.median(row["overhead_us"] for row in gateway.rows("requests")) < 100_000


def test_a_session_is_a_header_that_reaches_no_model(gateway: Running, upstream: Upstream) -> None:
    assert gateway.ask(headers={"x-switchgear-session": "conversation-7"}).ok
    assert "conversation-7" not in str(upstream.seen()[0].body) + str(upstream.seen()[0].headers)


# -- mistakes of ours --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_mistake_of_ours_is_internal_with_an_id_on_record(gateway: Running, stream: bool) -> None:
    def check(request: Any, reply: Any) -> None:
        msg = "secret detail"
        raise TypeError(msg)

    gateway.exchange.validators = (check,)
    answer = gateway.ask(stream=stream)
    if stream:
        assert answer.status_code == 200
        assert "[DONE]" not in answer.text
        assert "event: error" in answer.text
    else:
        assert (answer.status_code, error_of(answer)["code"]) == (500, "internal")
    assert "secret detail" not in answer.text
    rows = eventually(lambda: gateway.rows("requests"))
    assert [(row["id"], row["status_code"], row["code"]) for row in rows] == [
        (about(answer)["request-id"], 500, "internal")
    ]
    assert outstanding(gateway.exchange) == gateway.exchange.in_flight == 0


def test_a_mistake_in_the_control_api_is_internal_in_the_envelope(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.gateway.control.overview", lambda *_: 1 / 0)
    answer = gateway.call("GET", "/api/v1/status")
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal")


# -- callers who leave -------------------------------------------------------------------------------------------------

SLOW = {
    "whole": Fault(hang=True),
    "before the first token": Fault(first_token=5),
    "in the middle": Fault(event_delay=0.15, words=200),
    "in a silence": Fault(stall_after=2),
}


def _leave(gateway: Running, *, stream: bool, after: float, once: Callable[[], Any] | None = None) -> float:
    """Ask, close the connection a while after something happened; returns when."""
    body = json.dumps({"model": "chat", "messages": MESSAGES, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
        caller.sendall(head.encode() + body)
        if once is not None:
            eventually(once)
        time.sleep(after)
    return time.monotonic()


@pytest.mark.parametrize("where", SLOW)
@pytest.mark.parametrize("kind", ["openai", "google-genai", "google-generativeai"])
def test_a_caller_who_leaves_closes_the_upstream_within_a_second_and_is_on_record(
    serve: Serve, upstream: Upstream, kind: str, where: str
) -> None:
    gateway = serve(kind)
    upstream.set(PRO, SLOW[where])
    left = _leave(gateway, stream=where != "whole", after=0.3, once=upstream.seen)
    (seen,) = upstream.seen()
    assert eventually(lambda: seen.ended) == "disconnected"
    assert seen.ended_at - left < 1.0
    (row,) = eventually(lambda: gateway.rows("requests"))
    assert (row["outcome"], row["status_code"], row["code"]) == ("cancelled", 499, "client_cancelled")
    (attempt,) = gateway.rows("attempts")
    assert attempt["category"] == "cancelled"
    assert gateway.breaker().samples == 0
    assert outstanding(gateway.exchange) == gateway.exchange.in_flight == 0
    assert gateway.counted("requests_total", status_code="499") == 1


def test_a_caller_who_leaves_while_waiting_for_a_limit_is_on_record(serve: Serve, upstream: Upstream) -> None:
    gateway = serve()
    upstream.set(PRO, Fault(error="rate_limit_bare", headers={"retry-after": "1"}))
    _leave(gateway, stream=False, after=0.4)
    (row,) = eventually(lambda: gateway.rows("requests"))
    assert (row["outcome"], row["attempts"]) == ("cancelled", 1)
    assert outstanding(gateway.exchange) == gateway.exchange.in_flight == 0


def test_a_caller_who_stops_reading_does_not_keep_the_upstream_open_for_ever(serve: Serve, upstream: Upstream) -> None:
    clocks = 'first_token = "30s"\nanswer = "30s"\nidle = "30s"\ntotal = "60s"'
    gateway = serve(replace={clocks: clocks.replace('"30s"', '"700ms"').replace('"60s"', '"700ms"')})
    upstream.set(PRO, Fault(words=600, words_per_event=1, extra={"pad": "x" * 20_000}))
    tasks = gateway.tasks()
    body = json.dumps({"model": "chat", "messages": MESSAGES, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", gateway.port))
        caller.sendall(head.encode() + body)
        rows = eventually(lambda: gateway.rows("requests"))  # the request ended although nobody read it
        assert rows[0]["status_code"] in (499, 502)
        assert rows[0]["duration_ms"] < 700 + 500, "it does not outlive its total"
        eventually(lambda: gateway.tasks() <= tasks)  # nor does a task of it
        eventually(lambda: upstream.seen()[0].ended)
        assert outstanding(gateway.exchange) == gateway.exchange.in_flight == 0


# -- the end -----------------------------------------------------------------------------------------------------------


def test_a_graceful_shutdown_finishes_running_streams_and_refuses_new_callers(serve: Serve, upstream: Upstream) -> None:
    gateway = serve()
    upstream.set(PRO, Fault(event_delay=0.08))
    with ThreadPoolExecutor(3) as pool:
        body = {"model": "chat", "messages": MESSAGES, "stream": True}
        url = f"{gateway.url}/v1/chat/completions"
        streams = [pool.submit(requests.post, url, json=body, timeout=60) for _ in range(3)]
        eventually(lambda: len(upstream.seen()) == 3)
        time.sleep(0.2)
        gateway.server.should_exit = True
        answers = [stream.result() for stream in streams]
    for answer in answers:
        assert answer.text.rstrip().endswith("data: [DONE]")
    gateway.thread.join(PATIENCE_S)
    assert not gateway.thread.is_alive()
    assert [row["status_code"] for row in gateway.rows("requests")] == [200] * 3
    with pytest.raises(requests.ConnectionError):
        gateway.ask()


def test_many_callers_at_once_leave_nothing_behind(gateway: Running, upstream: Upstream) -> None:
    upstream.set(FLASH, Fault())
    upstream.set(PRO, Fault(event_delay=0.005))
    gateway.ask()
    tasks = gateway.tasks()

    def one(number: int) -> int:
        if number % 5 == 4:
            _leave(gateway, stream=number % 2 == 0, after=0.05)
            return 499
        body = {"model": "chat", "messages": MESSAGES, "stream": number % 2 == 0}
        return requests.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(one, range(60)))
    assert set(statuses) == {200, 499}
    eventually(lambda: gateway.exchange.in_flight == 0)
    assert outstanding(gateway.exchange) == 0
    eventually(lambda: len(gateway.rows("requests")) == 61)
    eventually(lambda: gateway.tasks() <= tasks + 1)  # no task is left
    eventually(lambda: all(one.ended for one in upstream.seen()))
    assert {gateway.breaker(role).state for role in Role} == {"closed"}


# -- one model, chosen by an operator ----------------------------------------------------------------------------------


def _alone(role: str) -> dict[str, str]:
    return {"x-switchgear-role": role}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_operator_asks_one_model_and_it_is_on_record_as_a_test(
    gateway: Running, upstream: Upstream, stream: bool
) -> None:
    assert about(gateway.ask(stream=stream, headers=_alone("primary"))).get("failover") is None
    answer = gateway.ask(stream=stream, headers=_alone("secondary"))
    assert answer.ok
    assert about(answer).items() >= {"role": "secondary", "model": FLASH, "failover": "override"}.items()
    assert [len(upstream.seen(model)) for model in (PRO, FLASH)] == [1, 1]
    eventually(lambda: len(gateway.rows("requests")) == 2)
    found = [(row["role"], row["synthetic"], row["failover_cause"]) for row in gateway.rows("requests")]
    assert sorted(found) == [("primary", 1, None), ("secondary", 1, "override")]
    assert gateway.rows("failovers") == []
    assert gateway.counted("requests_total") == 0, "no caller's traffic"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_one_model_says_alone_moves_nothing_however_often_it_fails(
    gateway: Running, upstream: Upstream, stream: bool
) -> None:
    upstream.set(PRO, Fault(error="unavailable"))
    for _ in range(20):
        answer = gateway.ask(stream=stream, headers=_alone("primary"))
        assert (answer.status_code, error_of(answer)["code"]) == (502, "provider_error")
        assert "the model that was asked for could not answer: primary: server_error" in error_of(answer)["message"]
    assert len(upstream.seen(PRO)) == 20, "each is asked once"
    assert upstream.seen(FLASH) == []
    assert gateway.rows("breaker_transitions") == []
    assert gateway.call("GET", "/api/v1/status").json()["managers"]["chat"]["active_role"] == "primary"


def test_an_open_breaker_lets_an_operators_test_through_and_stays_as_it_is(
    gateway: Running, upstream: Upstream
) -> None:
    upstream.set(PRO, Fault(error="unavailable"))
    while not gateway.rows("breaker_transitions", "role = 'primary'"):
        gateway.ask()
    upstream.heal()
    before = len(gateway.rows("breaker_transitions"))
    assert about(gateway.ask(headers=_alone("primary")))["role"] == "primary"
    assert len(gateway.rows("breaker_transitions")) == before
    assert gateway.act("POST", "/breakers/primary", {"state": "forced_open", "reason": "bad answers", "ttl": 60}).ok
    asked = len(upstream.seen(PRO))
    refused = gateway.ask(headers=_alone("primary"))
    assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")
    assert "forced open" in error_of(refused)["message"]
    assert len(upstream.seen(PRO)) == asked, "an operator's promise that nothing reaches it holds for operators too"


def test_a_role_that_does_not_exist_is_refused_and_not_recorded(gateway: Running, upstream: Upstream) -> None:
    for role in ("third", "", "PRIMARY", "primary,secondary", "ü"):
        answer = gateway.ask(headers={"x-switchgear-role": role.encode("latin-1")})  # type: ignore[dict-item]
        assert (answer.status_code, error_of(answer)["param"]) == (400, "x-switchgear-role"), role
        assert "primary, secondary" in error_of(answer)["message"]
    assert upstream.seen() == []
    assert gateway.rows("requests") == []


def test_choosing_a_model_takes_an_operators_key_where_there_are_keys(locked: Running, upstream: Upstream) -> None:
    for key in ("", "wrong", "caller-key-1", "viewer-key"):
        answer = locked.ask(headers={**_with(key), **_alone("secondary")})
        assert (answer.status_code, error_of(answer)["code"]) == (401, "unauthorized"), key
    assert upstream.seen() == []
    assert locked.ask(headers={**_with("operator-key"), **_alone("secondary")}).ok


def test_callers_keys_hold_for_tests_too_where_operators_need_none(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLERS", "caller-key-1")
    gateway = serve(replace={"[server]\nport = 0\n": '[server]\nport = 0\napi_keys_env = "CALLERS"\n'})
    assert gateway.ask(headers=_alone("secondary")).status_code == 401
    assert gateway.ask(headers={**_with("caller-key-1"), **_alone("secondary")}).ok
    elsewhere = {**_with("caller-key-1"), **_alone("secondary"), "host": "evil.example"}
    assert gateway.ask(headers=elsewhere).status_code == 401
