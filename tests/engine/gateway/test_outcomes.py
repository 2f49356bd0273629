"""Each class of outcome through the real gateway, as four witnesses tell it: caller, upstream, tables, metrics.

What a class of outcome does is written in the table below, once; `agree` then holds everything that can be known
about a request to everything else, whatever the table says.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from engine.core.messages import Role
from tests.engine.gateway.conftest import Serve
from tests.engine.gateway.running import FLASH, PRO, Running, about, error_of, settled
from tests.patience import PATIENCE_S, eventually
from tests.upstream import Fault, Upstream

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

WAYS = [("openai", False), ("openai", True), ("google-generativeai", False), ("google-genai", True)]
SHORT = {'first_token = "30s"\nanswer = "30s"': 'first_token = "250ms"\nanswer = "250ms"'}
SHORTER = {'first_token = "30s"\nanswer = "30s"': 'first_token = "800ms"\nanswer = "800ms"'}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
LONG = "word " * 400


def agree(gateway: Running, upstream: Upstream, response: requests.Response, *, alone: bool = True) -> dict[str, Any]:
    """Hold what caller, upstream, tables and metrics say about a request to each other; returns its row.

    Args:
        gateway: The gateway.
        upstream: The upstream; it saw nothing but this gateway.
        response: What the caller got.
        alone: Whether this was the gateway's only request, so that sums can be compared, too.
    """
    said = about(response)
    (row,) = gateway.rows("requests", f"id = '{said['request-id']}'")
    attempts = gateway.rows("attempts", f"request_id = '{row['id']}'")
    assert (row["manager"], row["role"], row["model"]) == (said["manager"], said["role"], said["model"])
    assert row["status_code"] == response.status_code
    assert row["code"] == (None if response.ok else error_of(response)["code"])
    assert row["attempts"] == len(attempts) == int(said["attempts"])
    assert row["epoch"] == int(said["epoch"])
    assert [attempt["n"] for attempt in attempts] == list(range(1, len(attempts) + 1))
    if response.ok:
        assert row["failover_cause"] == said.get("failover")
        assert row["outcome"] == "ok"
        if row["streamed"]:
            assert response.text.rstrip().endswith("data: [DONE]")
            assert f"attempts={row['attempts']} failover={row['failover_cause'] or 'none'}" in response.text
        else:
            assert response.json()["model"] == row["model"]
    moves = gateway.rows("failovers", f"request_id = '{row['id']}'")
    assert [move["cause"] for move in moves] == ([row["failover_cause"]] if row["failover_cause"] else [])
    seen = settled(upstream)
    if alone:
        assert [one.model for one in seen] == [attempt["model"] for attempt in attempts], "one attempt is one request"
        _sums_agree(gateway)
    return row


def _sums_agree(gateway: Running) -> None:
    """Hold the metrics to the tables they are sums of."""
    every, tries = gateway.rows("requests"), gateway.rows("attempts")
    for (role, model, status), number in Counter((r["role"], r["model"], r["status_code"]) for r in every).items():
        assert gateway.counted("requests_total", role=role, model=model, status_code=str(status)) == number
    assert gateway.counted("requests_total") == len(every)
    for (role, model, category), number in Counter((a["role"], a["model"], a["category"]) for a in tries).items():
        assert gateway.counted("attempts_total", role=role, model=model, category=category) == number
    assert gateway.counted("attempts_total") == len(tries)
    moves = gateway.rows("failovers")
    assert gateway.counted("request_failovers_total") == sum(move["scope"] == "request" for move in moves)
    assert gateway.counted("failover_events_total") == sum(move["scope"] == "active" for move in moves)
    assert gateway.counted("breaker_transitions_total") == len(gateway.rows("breaker_transitions"))
    assert gateway.counted("shed_total") == sum(request["outcome"] == "shed" for request in every)
    tokens = sum((one["input_tokens"] or 0) + (one["output_tokens"] or 0) for one in every)
    assert gateway.counted("tokens_total") == tokens


@dataclass(frozen=True)
class Row:
    """One class of outcome.

    Attributes:
        pro: What primary does; flash is healthy unless said otherwise.
        tried: Categories in order, primary's in lower case, secondary's with a leading `>`.
        status: The caller's.
        code: The error's code.
        failover: The cause, where the other model answered.
        counts: How many attempts primary's breaker counts as failed.
        streams: Whether a stream would meet it before its first content.
        everywhere: Whether every wire says it in its own words, so that all of them are tried.
    """

    pro: Fault | list[Fault]
    tried: str
    status: int = 200
    code: str | None = None
    failover: str | None = None
    counts: int = 0
    flash: Fault = field(default_factory=Fault)
    chat: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    retry_after: tuple[float, float] | None = None
    streams: bool = True
    everywhere: bool = False


BAD = "unavailable"
ROWS = {
    "healthy": Row(Fault(), "ok"),
    "server_error": Row(
        Fault(error=BAD), "server_error server_error server_error >ok", failover="server_error", counts=3
    ),
    "an internal error": Row(
        Fault(error="internal"), "server_error server_error server_error >ok", failover="server_error", counts=3
    ),
    "a proxy's error page": Row(
        Fault(status=502, body="<html><h1>502 Bad Gateway</h1></html>", content_type="text/html"),
        "server_error server_error server_error >ok",
        failover="server_error",
        counts=3,
        everywhere=True,
    ),
    "a server error that passes": Row([Fault(error=BAD)], "server_error ok", counts=1),
    "connection": Row(Fault(reset=True), "connection connection connection >ok", failover="connection", counts=3),
    "timeout of ours": Row(Fault(hang=True), "timeout >ok", failover="timeout", counts=1, config={"replace": SHORT}),
    "timeout of ours, where only the deadline is written": Row(
        Fault(hang=True),
        "timeout >ok",
        failover="timeout",
        counts=1,
        config={"replace": {'first_token = "30s"\nanswer = "30s"\nidle = "30s"\ntotal = "60s"': 'total = "3s"'}},
    ),
    "headers and then silence": Row(
        Fault(first_token=5, drip=0.5),
        "timeout >ok",
        failover="timeout",
        counts=1,
        config={"replace": SHORTER},
        everywhere=True,
    ),
    "timeout of theirs": Row(Fault(error="gateway_timeout"), "timeout >ok", failover="timeout", counts=1),
    "truncated": Row(Fault(no_finish=True), "truncated >ok", failover="truncated", counts=1, streams=False),
    "cut in the middle of its body": Row(
        Fault(cut_after=1), "connection connection connection >ok", failover="connection", counts=3, streams=False
    ),
    "rate limit, spill": Row(Fault(error="rate_limit_minute"), "rate_limited >ok", failover="rate_limited"),
    "rate limit, shed": Row(
        Fault(error="rate_limit_minute"),
        "rate_limited",
        429,
        "rate_limited",
        chat='on_rate_limit = "shed"',
        retry_after=(58, 61),
    ),
    "rate limit, failover": Row(
        Fault(error="rate_limit_minute"), "rate_limited >ok", failover="rate_limited", chat='on_rate_limit = "failover"'
    ),
    "rate limit that can be waited out": Row(
        [Fault(error="rate_limit_bare", headers={"retry-after": "0"})], "rate_limited ok"
    ),
    "rate limit that says nothing of when": Row([Fault(error="rate_limit_bare")], "rate_limited ok"),
    "quota of a day": Row(Fault(error="quota_day"), "quota_exhausted >ok", failover="quota_exhausted", everywhere=True),
    "quota of zero": Row(Fault(error="limit_zero"), "quota_exhausted >ok", failover="quota_exhausted", everywhere=True),
    "rate limit beyond the horizon": Row(
        Fault(error="rate_limit_bare", headers={"retry-after": "400"}),
        "quota_exhausted >ok",
        failover="quota_exhausted",
    ),
    "quota of both": Row(
        Fault(error="quota_day"),
        "quota_exhausted >quota_exhausted",
        429,
        "rate_limited",
        flash=Fault(error="quota_day"),
        retry_after=(1, 86_400),
    ),
    "auth, fail": Row(Fault(error="api_key_invalid"), "auth", 502, "provider_auth", everywhere=True),
    "auth, not signed in": Row(Fault(error="unauthorized"), "auth", 502, "provider_auth"),
    "auth by a wrong key, route": Row(
        Fault(error="api_key_invalid"), "auth >ok", failover="auth", chat='on_auth_error = "route"', everywhere=True
    ),
    "auth, route": Row(Fault(error="unauthorized"), "auth >ok", failover="auth", chat='on_auth_error = "route"'),
    "forbidden": Row(Fault(error="forbidden"), "auth", 502, "provider_auth"),
    "invalid request": Row(Fault(error="invalid_argument"), "invalid_request", 400, "invalid_request"),
    "a body the provider cannot process": Row(
        Fault(status=422, body={"error": {"message": "Unprocessable", "code": 422, "status": "INVALID_ARGUMENT"}}),
        "invalid_request",
        400,
        "invalid_request",
    ),
    "retired model": Row(
        Fault(error="model_not_found"), "model_unavailable >ok", failover="model_unavailable", everywhere=True
    ),
    "both retired": Row(
        Fault(error="model_not_found"),
        "model_unavailable >model_unavailable",
        502,
        "provider_error",
        flash=Fault(error="model_not_found"),
    ),
    "context length, by the provider": Row(
        Fault(error="context_length"), "context_length >ok", failover="context_length"
    ),
    "context length, of both": Row(
        Fault(error="context_length"),
        "context_length >context_length",
        400,
        "context_length_exceeded",
        flash=Fault(error="context_length"),
    ),
    "context length, known beforehand": Row(
        Fault(),
        ">ok",
        failover="context_length",
        config={
            "replace": {
                'name = "gemini-2.5-pro"\ncontext_window = 100_000': PRO.join(['name = "', '"\ncontext_window = 300'])
            }
        },
        body={"prompt": LONG},
    ),
    "context length, of both beforehand": Row(
        Fault(),
        "",
        400,
        "context_length_exceeded",
        config={"replace": {"context_window = 100_000": "context_window = 300"}},
        body={"prompt": LONG},
    ),
    "blocked prompt": Row(Fault(blocked=True), "content_filter", 400, "content_filter"),
    "blocked prompt, route": Row(
        Fault(blocked=True), "content_filter >ok", failover="content_filter", chat='on_content_filter = "route"'
    ),
    "an answer that the filter cut": Row(Fault(safety=True), "ok"),
    "capability": Row(
        Fault(),
        ">ok",
        failover="capability",
        config={"pro": 'capabilities = ["system"]'},
        body={"tools": TOOLS},
    ),
    "capability of both": Row(
        Fault(),
        "",
        400,
        "no_capable_model",
        config={"pro": 'capabilities = ["system"]', "flash": 'capabilities = ["system"]'},
        body={"tools": TOOLS},
    ),
    "both down": Row(
        Fault(error=BAD),
        "server_error server_error server_error >server_error >server_error >server_error",
        502,
        "provider_error",
        counts=3,
        flash=Fault(error="internal"),
    ),
    "both silent": Row(
        Fault(hang=True),
        "timeout >timeout",
        504,
        "deadline_exceeded",
        counts=1,
        flash=Fault(hang=True),
        config={"replace": SHORT},
    ),
    "a failure is not masked by the other's rejection": Row(
        Fault(error="gateway_timeout"),
        "timeout >invalid_request",
        502,
        "provider_error",
        counts=1,
        flash=Fault(error="invalid_argument"),
    ),
}


def _cases() -> Iterator[Any]:
    """Every row on one wire as a whole, and on another one, in turn; the providers' own tests have all of them."""
    for place, (name, row) in enumerate(ROWS.items()):
        ways = [way for way in WAYS if row.streams or not way[1]]
        if not row.everywhere and row.streams:
            ways = [WAYS[0], WAYS[1 + place % 3]]
        for way in ways:
            yield pytest.param(name, *way, id=f"{name}-{way[0]}{'-stream' if way[1] else ''}")


@pytest.mark.parametrize(("name", "kind", "streamed"), list(_cases()))
def test_an_outcome_does_what_the_table_says_and_all_witnesses_agree(
    serve: Serve, upstream: Upstream, name: str, kind: str, streamed: bool
) -> None:
    row = ROWS[name]
    gateway = serve(kind, chat=row.chat, **row.config)
    if isinstance(row.pro, list):
        upstream.first(PRO, row.pro)
    else:
        upstream.set(PRO, row.pro)
    upstream.set(FLASH, row.flash)
    given = dict(row.body)
    if streamed:
        given["stream"] = True
    response = gateway.ask(given.pop("prompt", "Why?"), **given)
    assert response.status_code == row.status, response.text
    recorded = agree(gateway, upstream, response)
    attempts = gateway.rows("attempts")
    tried = [(">" if one["role"] == "secondary" else "") + one["category"] for one in attempts]
    assert " ".join(tried) == row.tried
    assert recorded["failover_cause"] == row.failover
    if row.code is not None:
        assert error_of(response)["code"] == row.code
    breaker, answered = gateway.breaker(), row.tried.split()[-1:] == ["ok"]
    assert (breaker.failures, breaker.samples) == (row.counts, row.counts + answered), "all else is neutral"
    assert (breaker.vote_failures, breaker.vote_samples) == (row.counts, row.counts + answered)
    if row.retry_after is None:
        assert "retry-after" not in response.headers
    else:
        assert row.retry_after[0] <= int(response.headers["retry-after"]) <= row.retry_after[1]
    for one in attempts:
        assert one["error"] is None or not {"main-key", "sk-abcd1234", "Why?"} & set(one["error"].split()), one["error"]


@pytest.mark.parametrize("kind", ["openai", "google-genai"])
def test_an_error_inside_the_stream_before_any_content_is_a_truncated_answer(
    serve: Serve, upstream: Upstream, kind: str
) -> None:
    gateway = serve(kind)
    upstream.set(PRO, Fault(error=BAD, error_at=0))
    response = gateway.stream()
    assert response.status_code == 200
    assert agree(gateway, upstream, response)["failover_cause"] in ("truncated", "server_error")
    assert about(response)["role"] == "secondary"
    assert gateway.breaker().failures >= 1


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_connection_that_is_refused_is_tried_again_and_then_left(
    serve: Serve, upstream: Upstream, streamed: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    gateway = serve(replace={f'api_key_env = "MAIN_KEY"\nbase_url = "{upstream.openai_url}"': _at(closed)})
    response = gateway.stream() if streamed else gateway.ask()
    assert about(response).items() >= {"role": "secondary", "attempts": "4", "failover": "connection"}.items()
    row = agree(gateway, upstream, response, alone=False)
    assert [one["category"] for one in gateway.rows("attempts")] == ["connection"] * 3 + ["ok"]
    assert [one.model for one in upstream.seen()] == [row["model"]] == [FLASH]
    assert gateway.breaker().vote_failures == 3
    _sums_agree(gateway)


def test_a_connection_that_never_stands_is_a_timeout_and_left_at_once(serve: Serve, upstream: Upstream) -> None:
    with socket.socket() as deaf, ExitStack() as queue:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # they fill the queue, so that the kernel answers nobody else
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        port = deaf.getsockname()[1]
        connect = 'first_token = "30s"\nanswer = "30s"'
        gateway = serve(
            replace={
                f'api_key_env = "MAIN_KEY"\nbase_url = "{upstream.openai_url}"': _at(port),
                connect: f'{connect}\nconnect = "300ms"',
            }
        )
        began = time.monotonic()
        response = gateway.ask()
        assert time.monotonic() - began < 20, "the clock of the connection, not that of the answer"
    assert about(response).items() >= {"role": "secondary", "attempts": "2", "failover": "timeout"}.items()
    agree(gateway, upstream, response, alone=False)
    assert gateway.rows("attempts")[0]["category"] == "timeout"
    assert gateway.breaker().vote_failures == 1
    _sums_agree(gateway)


def _at(port: int) -> str:
    return f'api_key_env = "MAIN_KEY"\nbase_url = "http://127.0.0.1:{port}/v1"'


def test_what_is_missing_is_named(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(pro='capabilities = ["system"]', flash='capabilities = ["system"]')
    message = error_of(gateway.ask(tools=TOOLS))["message"]
    assert "tools" in message
    assert PRO in message


# -- when: the upstream's clock is a witness, too ----------------------------------------------------------------------


def test_retries_come_after_a_backoff_and_the_record_says_how_long(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(replace={'base_delay = "5ms"\nmax_delay = "10ms"': 'base_delay = "200ms"\nmax_delay = "200ms"'})
    gateway.exchange.random = lambda: 0.75
    upstream.set(PRO, Fault(error=BAD))
    agree(gateway, upstream, gateway.ask())
    first, second, third, other = (one.at for one in upstream.seen())
    assert second - first >= 0.15
    assert third - second >= 0.15
    assert other - third < 0.15, "to the other model nobody waits"
    waited = [attempt["waited_ms"] for attempt in gateway.rows("attempts")]
    assert waited[1] == pytest.approx((second - first) * 1000, abs=60)


def test_a_silent_model_is_left_when_its_clock_runs_out_and_not_asked_again(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(replace=SHORT)
    upstream.set(PRO, Fault(hang=True))
    agree(gateway, upstream, gateway.ask())
    silent, other = settled(upstream)
    assert 0.2 <= other.at - silent.at < 20
    assert silent.ended == "disconnected", "the connection was given up"


def test_a_short_retry_after_is_waited_out_at_a_second_of_rounding(serve: Serve, upstream: Upstream) -> None:
    gateway = serve()
    upstream.first(PRO, [Fault(error="rate_limit_bare", headers={"retry-after": "0"})])
    response = gateway.ask()
    agree(gateway, upstream, response)
    first, second = (one.at for one in upstream.seen())
    assert 1.0 <= second - first <= 2.5
    assert about(response)["role"] == "primary"


def test_a_storm_of_429_spills_its_share_and_sheds_the_rest_with_a_true_retry_after(
    serve: Serve, upstream: Upstream
) -> None:
    gateway = serve(rest="[managers.chat.spill]\nshare = 0.0\nfloor = 4")
    upstream.set(PRO, Fault(error="rate_limit_minute"))
    began = time.monotonic()
    answers = [gateway.ask() for _ in range(10)]
    assert [one.status_code for one in answers] == [200] * 4 + [429] * 6
    assert time.monotonic() - began < 40, "what cannot be waited out is not waited for"
    for place, answer in enumerate(answers[4:]):
        # The gate, and behind it a place in line for each: six a minute are tried after a limit that one request met.
        assert 55 + 10 * place <= int(answer.headers["retry-after"]) <= 61 + 10 * place
        assert about(answer)["attempts"] == "0"
    assert len(upstream.seen(PRO)) == 1, "the gate holds for everybody"
    assert len(upstream.seen(FLASH)) == 4
    outcomes = Counter(row["outcome"] for row in gateway.rows("requests"))
    assert outcomes == {"ok": 4, "shed": 6}
    assert gateway.counted("shed_total") == 6
    assert gateway.breaker().state == "closed"
    assert gateway.rows("breaker_transitions") == []
    assert [move["scope"] for move in gateway.rows("failovers")] == ["request"] * 4
    _sums_agree(gateway)


@pytest.mark.parametrize("error", ["quota_day", "model_not_found"])
@pytest.mark.parametrize("kind", ["openai", "google-generativeai"])
def test_a_model_that_serves_nobody_today_is_not_asked_again_and_the_other_takes_all(
    serve: Serve, upstream: Upstream, error: str, kind: str
) -> None:
    gateway = serve(kind)
    upstream.set(PRO, Fault(error=error))
    answers = [gateway.ask() for _ in range(20)]
    assert all(answer.ok for answer in answers)
    cause = {"quota_day": "quota_exhausted", "model_not_found": "model_unavailable"}[error]
    assert {about(answer)["failover"] for answer in answers} == {cause}
    assert len(upstream.seen(PRO)) == 1
    assert len(upstream.seen(FLASH)) == 20
    assert (gateway.breaker().state, gateway.breaker().samples) == ("closed", 0)
    assert gateway.exchange.board.document.active is Role.PRIMARY
    assert agree(gateway, upstream, answers[-1], alone=False)["attempts"] == 1
    _sums_agree(gateway)


# -- both breakers -----------------------------------------------------------------------------------------------------

BREAKER = '[managers.chat.breaker]\nconsecutive_failures = 2\nopen_for = "20s"'


def test_with_both_breakers_open_callers_hear_when_to_come_back(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(rest=BREAKER)
    upstream.set("*", Fault(error="gateway_timeout"))
    for _ in range(2):
        assert gateway.ask().status_code == 504
    asked = len(upstream.seen())
    response = gateway.ask()
    assert (response.status_code, error_of(response)["code"]) == (503, "overloaded")
    soonest = min(gateway.exchange.board.lines[role].breaker.retry_at or 0 for role in Role) - time.monotonic()
    assert soonest <= int(response.headers["retry-after"]) <= soonest + 1.5
    row = agree(gateway, upstream, response, alone=False)
    assert (row["attempts"], row["role"], row["model"]) == (0, "none", "none")
    assert len(upstream.seen()) == asked
    moved = gateway.rows("breaker_transitions")
    assert {(one["role"], one["from_state"], one["to_state"]) for one in moved} == {
        ("primary", "closed", "open"),
        ("secondary", "closed", "open"),
    }
    for role in Role:
        assert gateway.counted("breaker_transitions_total", role=role, from_state="closed", to_state="open") == 1
    _sums_agree(gateway)


def test_with_both_open_one_is_tried_anyway_where_the_policy_says_so(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(chat='when_both_open = "try_anyway"', rest=BREAKER)
    upstream.set("*", Fault(error="gateway_timeout"))
    for _ in range(2):
        gateway.ask()
    upstream.heal()
    asked = len(upstream.seen())
    response = gateway.ask()
    assert response.ok
    assert len(upstream.seen()) == asked + 1
    agree(gateway, upstream, response, alone=False)
    assert {gateway.breaker(role).state for role in Role} == {"open"}, "a guess is no evidence"
    _sums_agree(gateway)


def test_an_open_breaker_sends_requests_to_the_other_model_and_moves_the_active_one(
    serve: Serve, upstream: Upstream
) -> None:
    gateway = serve(rest=BREAKER)
    upstream.set(PRO, Fault(error="gateway_timeout"))
    for _ in range(2):
        assert gateway.ask().ok
    eventually(lambda: gateway.exchange.board.document.active is Role.SECONDARY)
    response = gateway.ask()
    assert about(response).items() >= {"role": "secondary", "attempts": "1"}.items()
    assert "failover" not in about(response), "the active model answered"
    assert agree(gateway, upstream, response, alone=False)["active_role"] == "secondary"
    (move,) = gateway.rows("failovers", "scope = 'active'")
    assert (move["from_role"], move["to_role"], move["cause"]) == ("primary", "secondary", "breaker_open")
    assert gateway.counted("active_model", role="secondary") == 1
    assert gateway.counted("active_model", role="primary") == 0
    assert gateway.counted("failover_events_total", cause="breaker_open") == 1
    (moved,) = gateway.rows("breaker_transitions")
    assert moved["evidence"].count('"request_ids"') == 1
    _sums_agree(gateway)


# -- meaning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "streamed"), [WAYS[0], WAYS[3]])
def test_an_answer_that_breaks_the_callers_schema_goes_to_the_other_model(
    serve: Serve, upstream: Upstream, kind: str, streamed: bool
) -> None:
    schema = {"type": "object", "properties": {"sky": {"const": "blue"}}, "required": ["sky"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "sky", "schema": schema}}
    gateway = serve(kind, rest="[managers.chat.validation]\njson_schema = true")
    upstream.set(PRO, Fault(finish="length" if kind == "openai" else "MAX_TOKENS"))
    given: dict[str, Any] = {"stream": True} if streamed else {}
    good = gateway.ask(response_format=wanted, **given)
    assert agree(gateway, upstream, good)["failover_cause"] is None
    broken = {**wanted, "json_schema": {"name": "sky", "schema": {"type": "nonsense"}}}
    refused = gateway.ask(response_format=broken, **given)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "invalid_request")
    assert agree(gateway, upstream, refused, alone=False)["attempts"] == 0
    assert len(upstream.seen()) == 1


def test_an_answer_in_a_wrong_shape_is_asked_of_the_other_model(serve: Serve, upstream: Upstream) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "required": ["sky"]}}}
    gateway = serve(rest="[managers.chat.validation]\njson_schema = true")
    upstream.set(PRO, _says("flurble"))
    upstream.set(FLASH, _says('{"sky": "blue"}'))
    response = gateway.ask(response_format=wanted)
    row = agree(gateway, upstream, response)
    assert (response.status_code, row["failover_cause"], row["role"]) == (200, "semantic", "secondary")
    assert "flurble" not in response.text
    assert [one["category"] for one in gateway.rows("attempts")] == ["semantic", "ok"]
    assert (gateway.breaker().samples, gateway.breaker().vote_samples) == (0, 0)


def _says(text: str) -> Fault:
    """An answer of exactly this text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Fault(body={"id": "x", "object": "chat.completion", "model": PRO, "choices": [choice]})


def test_an_answer_in_a_wrong_shape_is_a_semantic_failure(serve: Serve, upstream: Upstream) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "required": ["sky"]}}}
    gateway = serve(rest="[managers.chat.validation]\njson_schema = true")
    upstream.set(PRO, _says("flurble"))
    upstream.set(FLASH, _says("flurble"))
    response = gateway.ask(response_format=wanted)
    assert (response.status_code, error_of(response)["code"]) == (502, "semantic_failure")
    agree(gateway, upstream, response)
    assert [one["category"] for one in gateway.rows("attempts")] == ["semantic"] * 2
    assert gateway.breaker().samples == 0, "one caller's impossible schema stops nobody"
    assert "flurble" not in str(gateway.rows("attempts")), "no answer's text is stored"


# -- the store ---------------------------------------------------------------------------------------------------------


def test_a_store_that_takes_nothing_refuses_answers_and_its_rows_say_so_when_it_is_back(
    serve: Serve, upstream: Upstream
) -> None:
    gateway = serve()
    assert gateway.ask().ok
    with _locked(gateway):
        refused = gateway.ask()
        assert (refused.status_code, error_of(refused)["code"]) == (503, "store_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert about(refused)["manager"] == "chat"
        assert gateway.call("GET", "/readyz").status_code == 503
        asked = len(upstream.seen())
        again = gateway.ask()
        assert again.status_code == 503
        assert len(upstream.seen()) == asked, "no model is paid for what cannot be recorded"
    eventually(lambda: gateway.instance.recorder.error is None)
    assert gateway.ask().ok
    rows = gateway.rows("requests")
    assert {row["status_code"] for row in rows if row["id"] == about(refused)["request-id"]} <= {503}
    assert all(row["status_code"] == 200 for row in rows if row["outcome"] == "ok")
    _sums_agree(gateway)


class _locked:  # noqa: N801 - used as a block
    """Nobody else can write the store for a while."""

    def __init__(self, gateway: Running) -> None:
        self._gateway = gateway

    def __enter__(self) -> None:
        store = self._gateway.instance.recorder.store
        self._writer = store.writer()
        recorder = self._gateway.instance.recorder
        recorder.execute(lambda connection: connection.execute("PRAGMA busy_timeout = 50")).result(PATIENCE_S)
        self._writer.execute("BEGIN IMMEDIATE")

    def __exit__(self, *exc_info: object) -> None:
        self._writer.execute("ROLLBACK")
        self._writer.close()


def test_under_batch_a_store_that_takes_nothing_keeps_nobody_from_an_answer(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(rest='[store]\ndurability = "batch"')
    assert gateway.ask().ok
    with _locked(gateway):
        answer = gateway.ask()
        assert answer.ok
    eventually(lambda: gateway.rows("requests", f"id = '{about(answer)['request-id']}'"))
    agree(gateway, upstream, answer, alone=False)
