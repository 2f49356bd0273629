"""One contract, two managers: what the threaded one promises, the asynchronous one keeps, and the other way round."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

import engine
from engine import AsyncDualModelManager, DualModelManager, FinishReason, Request, SemanticFailure, Usage
from engine.config import Config
from engine.control import Actor
from engine.core.breaker import BreakerState
from engine.core.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    ProviderError,
    RateLimited,
    StoreUnavailable,
    StreamBroken,
    SwitchgearError,
    UnknownManager,
)
from engine.core.messages import Call, Delta, Role
from engine.core.outcomes import Category
from tests.engine.drivers import (
    DRIVERS,
    MANNERS,
    Awaited,
    Driver,
    Hang,
    Looped,
    Plain,
    Threaded,
    by_model,
    failure,
    outstanding,
    rows,
    texts,
)
from tests.patience import PATIENCE_S, eventually
from tests.upstream import Fault, Upstream

QUICK = """
[managers.chat.retry]
base_delay = "1ms"
max_delay = "2ms"
"""
SHORT = """
[managers.chat.timeouts]
answer = "150ms"
first_token = "150ms"
idle = "150ms"
total = "400ms"
"""
TWO_KEYS = """
[providers.one]
kind = "{kind}"
api_key_env = "FIRST_KEY"
base_url = "{url}"
[providers.two]
kind = "{kind}"
api_key_env = "SECOND_KEY"
base_url = "{url}"
[models.first]
provider = "one"
name = "model-of-first"
[models.second]
provider = "two"
name = "model-of-second"
[models.first-too]
provider = "one"
name = "other-model-of-first"
[models.second-too]
provider = "two"
name = "other-model-of-second"
[managers.one]
primary = "first"
secondary = "first-too"
[managers.two]
primary = "second"
secondary = "second-too"
"""

Make = Callable[..., Any]


@pytest.fixture(params=DRIVERS, ids=lambda kind: kind.kind)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=MANNERS, ids=lambda manner: manner.__name__.lower())
def manner(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def drive(kind: Any, make_config: Callable[..., Config]) -> Iterator[Make]:
    """Build a manager of the kind at hand, with a provider of the test's own; closed at the end."""
    made: list[Driver] = []

    def make(provider: Any = None, extra: str = QUICK, config: Config | None = None, **given: Any) -> Driver:
        if provider is not None:
            given["providers"] = {"simulated": provider}
        made.append(kind(config or make_config(extra), **given))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


# -- building ----------------------------------------------------------------------------------------------------------


def test_both_managers_have_the_same_verbs_with_the_same_arguments() -> None:
    for name in ("generate", "stream", "status", "override", "clear_override", "close", "from_config"):
        plain, awaited = (
            inspect.signature(getattr(cls, name)).parameters for cls in (DualModelManager, AsyncDualModelManager)
        )
        assert list(plain) == list(awaited), name
        assert [one.default for one in plain.values()] == [one.default for one in awaited.values()], name


@pytest.mark.parametrize("provider", ["openai", "google-genai", "google-generativeai"])
def test_building_a_manager_and_closing_it_unused_calls_nobody_and_starts_nothing(
    kind: Any, provider: str, make_config: Callable[..., Config], server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRST_KEY", "k1")
    monkeypatch.setenv("SECOND_KEY", "k2")
    config = make_config(TWO_KEYS.format(kind=provider, url=_url(provider, server)))
    server.forget()
    threads = set(threading.enumerate())
    driver = kind(config, "one")
    assert set(threading.enumerate()) == threads
    driver.close()
    assert server.seen() == []
    eventually(lambda: set(threading.enumerate()) <= threads)


def test_a_missing_key_names_the_variable_before_anybody_calls(kind: Any, make_config: Callable[..., Config]) -> None:
    config = make_config(TWO_KEYS.format(kind="openai", url="http://127.0.0.1:1/v1"))
    with pytest.raises(ConfigurationError, match="FIRST_KEY is not set"):
        kind(config, "one")


def test_a_name_without_a_manager_is_refused_with_the_known_ones(drive: Make) -> None:
    with pytest.raises(UnknownManager, match="chat"):
        drive(name="chatt")


def test_a_provider_that_replaces_none_is_refused_with_the_known_ones(drive: Make) -> None:
    """It was left out in silence, and the real one was asked."""
    with pytest.raises(ConfigurationError, match=r"'gemini'.*simulated"):
        drive(providers={"gemini": Plain()})


def test_a_path_serves_as_configuration(kind: Any, make_config: Callable[..., Config]) -> None:
    config = make_config()
    driver = kind(str(config.source), providers={"simulated": Plain()})
    assert driver.generate("hello").text == "gemini-2.5-pro answers"
    driver.close()


def test_a_provider_that_is_half_asynchronous_is_refused(drive: Make) -> None:
    class Half:
        async def generate(self, call: Call) -> Any: ...
        def stream(self, call: Call) -> Any: ...

    with pytest.raises(ConfigurationError, match="both be plain or both be asynchronous"):
        drive(Half())


# -- answering ---------------------------------------------------------------------------------------------------------


def test_an_answer_says_who_gave_it_and_is_on_record_when_it_arrives(drive: Make, manner: Any) -> None:
    provider = manner()
    driver = drive(provider)
    reply = driver.generate("Why is the sky blue?")
    assert (reply.text, reply.model, reply.role, reply.attempts) == (
        "gemini-2.5-pro answers",
        "gemini-2.5-pro",
        "primary",
        1,
    )
    assert reply.usage == Usage(5, 3)
    assert reply.failover is None
    (row,) = rows(driver.instance.recorder.store, "requests")
    assert (row["id"], row["status_code"], row["outcome"], row["role"]) == (reply.request_id, 200, "ok", "primary")
    (attempt,) = rows(driver.instance.recorder.store, "attempts")
    assert (attempt["request_id"], attempt["category"]) == (reply.request_id, "ok")


def test_a_prompt_may_be_a_string_messages_or_a_request(drive: Make, manner: Any) -> None:
    provider = manner()
    driver = drive(provider)
    message = {"role": "user", "content": "hi"}
    for prompt in ("hi", [message], Request(messages=(message,), options={"seed": 7})):
        driver.generate(prompt)
    assert [call.request.messages for call in provider.calls] == [(message,)] * 3
    assert provider.calls[2].request.options == {"seed": 7}


def test_a_stream_gives_the_text_in_pieces_and_the_reply_at_its_end(drive: Make, manner: Any) -> None:
    driver = drive(manner())
    chunks = list(driver.stream("hello"))
    assert texts(chunks) == "gemini-2.5-pro answers "
    assert chunks[0].account.model == "gemini-2.5-pro"
    reply = chunks[-1].reply
    assert (reply.text, reply.finish_reason, reply.usage) == (texts(chunks), FinishReason.STOP, Usage(5, 2))
    (row,) = rows(driver.instance.recorder.store, "requests")
    assert (row["streamed"], row["status_code"], row["finish_reason"]) == (1, 200, "stop")
    assert row["ttft_ms"] is not None


def test_a_stream_that_says_nothing_but_its_finish_is_a_whole_empty_answer(drive: Make, manner: Any) -> None:
    empty = [Delta(life=True), Delta(finish_reason=FinishReason.LENGTH, usage=Usage(5, 9))]
    chunks = list(drive(manner(lambda _: empty)).stream("think hard"))
    assert chunks[0].account is not None, "whoever writes headers needs to know who answered"
    assert chunks[-1].reply.finish_reason is FinishReason.LENGTH
    assert texts(chunks) == ""


def test_the_tool_calls_of_a_stream_are_whole_in_its_reply(drive: Make, manner: Any) -> None:
    def piece(**function: str) -> Delta:
        head = {"id": "c1", "type": "function"} if "name" in function else {}
        return Delta(tool_calls=({"index": 0, **head, "function": function},))

    deltas = [
        piece(name="weather", arguments=""),
        piece(arguments='{"pla'),
        piece(arguments='ce": "Rome"}'),
        Delta(finish_reason=FinishReason.TOOL_CALLS),
    ]
    reply = list(drive(manner(lambda _: deltas)).stream("weather?"))[-1].reply
    assert reply.tool_calls == (
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Rome"}'}},
    )


def test_a_failing_primary_is_retried_and_then_left(drive: Make, manner: Any) -> None:
    provider = manner(by_model(pro=lambda _: failure(Category.SERVER_ERROR), flash="flash is here"))
    driver = drive(provider)
    reply = driver.generate("hello")
    assert provider.models == ["gemini-2.5-pro"] * 3 + ["gemini-2.5-flash"]
    assert (reply.text, reply.role, reply.attempts, reply.failover) == ("flash is here", "secondary", 4, "server_error")
    (moved,) = rows(driver.instance.recorder.store, "failovers")
    assert (moved["scope"], moved["cause"], moved["request_id"]) == ("request", "server_error", reply.request_id)


def test_a_stream_that_breaks_goes_on_at_the_other_model(drive: Make, manner: Any) -> None:
    def pro(_: Call) -> Any:
        return [Delta(text="The sky is blue because "), failure(Category.TRUNCATED, 200)]

    def flash(call: Call) -> Any:
        assert call.prefill == "The sky is blue because "
        return [
            Delta(text="short waves scatter."),
            Delta(finish_reason=FinishReason.STOP, usage=Usage(12, 4)),
        ]

    driver = drive(manner(by_model(pro=pro, flash=flash)))
    chunks = list(driver.stream("Why?"))
    assert texts(chunks) == "The sky is blue because short waves scatter."
    assert [chunk.model for chunk in chunks if chunk.text] == ["gemini-2.5-pro", "gemini-2.5-flash"]
    reply = chunks[-1].reply
    assert (reply.attempts, reply.failover, reply.usage.estimated) == (2, "truncated", True)
    assert reply.usage.output_tokens > 4, "the broken attempt's tokens count too"


BEGUN = "The sky is blue because "
REST = [Delta(text="short waves scatter."), Delta(finish_reason=FinishReason.STOP, usage=Usage(12, 4))]


def test_going_on_is_tried_again_where_a_fresh_start_would_be(drive: Make, manner: Any) -> None:
    meets = [failure(Category.CONNECTION, None), failure(Category.SERVER_ERROR)]

    def flash(_: Call) -> Any:
        return meets.pop() if meets else REST

    broken = [Delta(text=BEGUN), failure(Category.TRUNCATED, 200)]
    provider = manner(by_model(pro=broken, flash=flash))
    assert texts(list(drive(provider).stream("Why?"))) == BEGUN + "short waves scatter."
    assert provider.models == ["gemini-2.5-pro"] + ["gemini-2.5-flash"] * 3
    assert [call.prefill for call in provider.calls] == ["", BEGUN, BEGUN, BEGUN]


NOTHING = [Delta(finish_reason=FinishReason.STOP, usage=Usage(12, 0))]


def test_half_a_sentence_that_nobody_goes_on_with_is_no_whole_answer(drive: Make, manner: Any) -> None:
    broken = [Delta(text=BEGUN), failure(Category.TRUNCATED, 200)]
    driver = drive(manner(by_model(pro=broken, flash=NOTHING)))
    got: list[engine.Chunk] = []
    with pytest.raises(StreamBroken, match="nothing was added"):
        got.extend(iter(driver.stream("Why?")))
    assert (texts(got), [chunk.finish_reason for chunk in got if chunk.finish_reason]) == (BEGUN, [])


def test_a_text_that_broke_off_behind_its_last_sentence_is_whole_when_nothing_is_added(
    drive: Make, manner: Any
) -> None:
    broken = [Delta(text="The sky is blue."), failure(Category.TRUNCATED, 200)]
    reply = list(drive(manner(by_model(pro=broken, flash=NOTHING))).stream("Why?"))[-1].reply
    assert (reply.text, reply.attempts) == ("The sky is blue.", 2)


def test_a_model_that_has_shown_something_is_not_asked_again(drive: Make, manner: Any) -> None:
    broken = [Delta(text=BEGUN), failure(Category.SERVER_ERROR)]
    provider = manner(by_model(pro=broken, flash=REST))
    assert texts(list(drive(provider).stream("Why?"))) == BEGUN + "short waves scatter."
    assert provider.models == ["gemini-2.5-pro", "gemini-2.5-flash"]


def test_a_safety_rule_that_cuts_a_stream_is_not_got_round_at_the_other_model(drive: Make, manner: Any) -> None:
    cut = [Delta(text=BEGUN), failure(Category.CONTENT_FILTER, 200)]
    provider = manner(by_model(pro=cut, flash=REST))
    driver = drive(provider)
    for _ in range(8):
        with pytest.raises(StreamBroken, match="content_filter"):
            list(driver.stream("Why?"))
    assert set(provider.models) == {"gemini-2.5-pro"}
    assert {row["category"] for row in rows(driver.instance.recorder.store, "attempts")} == {"content_filter"}
    assert driver.exchange.board.lines[Role.PRIMARY].breaker.state == "closed", "a prompt's fault, not the model's"


def test_a_safety_rule_may_be_routed_in_the_middle_too(drive: Make, manner: Any, make_config: Any) -> None:
    cut = [Delta(text=BEGUN), failure(Category.CONTENT_FILTER, 200)]
    routes = """
[managers.lenient]
primary = "pro"
secondary = "flash"
on_content_filter = "route"
"""
    driver = drive(manner(by_model(pro=cut, flash=REST)), config=make_config(routes), name="lenient")
    assert texts(list(driver.stream("Why?"))) == BEGUN + "short waves scatter."


def test_a_finish_that_more_text_follows_ends_nothing(drive: Make, manner: Any) -> None:
    every = [Delta(text=text, finish_reason=FinishReason.STOP) for text in ("one ", "two ", "three")]
    chunks = list(drive(manner(lambda _: every)).stream("count"))
    assert texts(chunks) == chunks[-1].reply.text == "one two three"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [FinishReason.STOP]
    assert chunks[0].account is not None


# -- errors ------------------------------------------------------------------------------------------------------------

ENDINGS = [
    (Category.SERVER_ERROR, 503, None, ProviderError, "provider_error", 502),
    (Category.TIMEOUT, 504, None, DeadlineExceeded, "deadline_exceeded", 504),
    (Category.INVALID_REQUEST, 400, None, InvalidRequest, "invalid_request", 400),
    (Category.RATE_LIMITED, 429, 30.0, RateLimited, "rate_limited", 429),
    (Category.AUTH, 401, None, engine.ProviderAuthError, "provider_auth", 502),
    (Category.CONTENT_FILTER, 400, None, engine.ContentFiltered, "content_filter", 400),
]


@pytest.mark.parametrize(("category", "status", "wait", "error", "code", "told"), ENDINGS, ids=lambda x: str(x)[:20])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_errors_carry_code_status_request_id_and_retry_after(
    drive: Make, category: Category, status: int, wait: float, error: Any, code: str, told: int, streamed: bool
) -> None:
    driver = drive(Awaited(lambda _: failure(category, status, wait)))
    with pytest.raises(error) as caught:
        list(driver.stream("hello")) if streamed else driver.generate("hello")
    raised = caught.value
    assert (raised.code, raised.status_code) == (code, told)
    (row,) = rows(driver.instance.recorder.store, "requests")
    assert (row["id"], row["code"], row["status_code"]) == (raised.request_id, code, told)
    assert raised.account.attempts == row["attempts"] == len(rows(driver.instance.recorder.store, "attempts"))
    if wait is not None:
        assert wait <= raised.retry_after <= wait + 2


def test_a_stream_broken_for_good_is_said_to_be_and_its_text_stays(drive: Make, manner: Any) -> None:
    driver = drive(manner(lambda _: [Delta(text="Half an "), failure(Category.TRUNCATED, 200)]))
    got: list[engine.Chunk] = []
    with pytest.raises(StreamBroken) as caught:
        got.extend(iter(driver.stream("hello")))
    assert texts(got).startswith("Half an ")
    (row,) = rows(driver.instance.recorder.store, "requests")
    assert (row["id"], row["status_code"], row["outcome"]) == (caught.value.request_id, 502, "error")


@pytest.mark.parametrize("ending", [failure(Category.TRUNCATED, 200), Hang(0.6)], ids=["cut", "silence"])
def test_one_finished_choice_of_two_is_no_whole_answer(drive: Make, manner: Any, ending: Any) -> None:
    deltas = [Delta(text="one"), Delta(finish_reason=FinishReason.STOP), ending]
    driver = drive(manner(lambda _: deltas), SHORT)
    with pytest.raises(StreamBroken):
        list(driver.stream(Request(messages=({"role": "user", "content": "x"},), options={"n": 2})))
    assert list(driver.stream("one choice"))[-1].reply.text == "one", "its usage is missing, and nothing else"


# -- validators and mistakes -------------------------------------------------------------------------------------------


def test_an_answer_that_a_validator_rejects_goes_to_the_other_model(drive: Make, manner: Any) -> None:
    def check(request: Request, reply: engine.Reply) -> None:
        if "pro" in reply.text:
            msg = "not from pro"
            raise SemanticFailure(msg)

    driver = drive(manner(), validators=[check])
    reply = driver.generate("hello")
    assert (reply.role, reply.failover, reply.attempts) == ("secondary", "semantic", 2)
    assert driver.exchange.board.lines[Role.PRIMARY].breaker.snapshot(time.monotonic()).failures == 0


def test_an_answer_nobody_accepts_is_a_semantic_failure(drive: Make, manner: Any) -> None:
    def check(request: Request, reply: engine.Reply) -> None:
        msg = "never"
        raise SemanticFailure(msg)

    with pytest.raises(SemanticFailure) as caught:
        drive(manner(), validators=[check]).generate("hello")
    assert caught.value.status_code == 502
    assert caught.value.request_id


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "mistake",
    [TypeError("'NoneType' object is not subscriptable"), failure(Category.SERVER_ERROR), TimeoutError()],
    ids=lambda mistake: type(mistake).__name__,
)
def test_a_validators_own_mistake_surfaces_as_itself_and_gives_everything_back(
    drive: Make, manner: Any, streamed: bool, mistake: Exception
) -> None:
    def check(request: Request, reply: engine.Reply) -> None:
        raise mistake

    driver = drive(manner(), validators=[check])
    with pytest.raises(type(mistake)) as caught:
        list(driver.stream("hello")) if streamed else driver.generate("hello")
    assert caught.value is mistake
    assert outstanding(driver.exchange) == driver.exchange.in_flight == 0
    store = driver.instance.recorder.store
    (row,) = eventually(lambda: rows(store, "requests"))
    assert (row["status_code"], row["code"], row["attempts"]) == (500, "internal", 1)
    (attempt,) = rows(store, "attempts")
    assert (attempt["category"], attempt["output_tokens"] is not None) == ("ok", True), "the model was paid"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_providers_own_mistake_surfaces_as_itself(drive: Make, manner: Any, streamed: bool) -> None:
    driver = drive(manner(lambda _: KeyError("choices")))
    with pytest.raises(KeyError, match="choices"):
        list(driver.stream("hello")) if streamed else driver.generate("hello")
    assert outstanding(driver.exchange) == driver.exchange.in_flight == 0
    (row,) = eventually(lambda: rows(driver.instance.recorder.store, "requests"))
    assert row["code"] == "internal"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_an_interrupt_is_not_swallowed(make_config: Make, interrupt: type[BaseException], streamed: bool) -> None:
    driver = Threaded(make_config(), providers={"simulated": Plain(lambda _: interrupt())})
    with pytest.raises(interrupt):
        list(driver.stream("hello")) if streamed else driver.generate("hello")
    assert outstanding(driver.exchange) == driver.exchange.in_flight == 0
    driver.close()


def test_a_broken_schema_is_refused_before_a_model_is_paid(drive: Make, manner: Any) -> None:
    provider = manner()
    driver = drive(provider, QUICK + "[managers.chat.validation]\njson_schema = true\n")
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "objekt"}}}
    with pytest.raises(InvalidRequest, match="JSON schema") as caught:
        driver.generate(Request(messages=({"role": "user", "content": "x"},), response_format=schema))
    assert provider.calls == []
    (row,) = rows(driver.instance.recorder.store, "requests")
    assert (row["id"], row["status_code"], row["role"]) == (caught.value.request_id, 400, "none")


def test_a_synthetic_probe_is_not_held_to_the_applications_checks(drive: Make) -> None:
    def check(request: Request, reply: engine.Reply) -> None:
        msg = "one token is no answer"
        raise SemanticFailure(msg)

    driver = drive(Plain(), validators=[check])
    driver.status()
    probe = Request(messages=({"role": "user", "content": "ping"},), max_output_tokens=1, synthetic=True)
    asked = driver.manager._generate(probe, Role.PRIMARY)
    reply = driver.run(asked) if inspect.isawaitable(asked) else asked
    assert reply.role == "primary"


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_model_that_hangs_is_left_in_time_for_the_other_one(drive: Make, manner: Any) -> None:
    driver = drive(manner(by_model(pro=lambda _: Hang(1.5), flash="here")), SHORT)
    began = time.monotonic()
    reply = driver.generate("hello")
    assert time.monotonic() - began < 0.5
    assert (reply.text, reply.failover) == ("here", "timeout")


def test_a_stream_that_goes_silent_is_left_in_time_for_the_other_one(drive: Make, manner: Any) -> None:
    driver = drive(manner(by_model(pro=lambda _: [Hang(1.5)], flash="here")), SHORT)
    began = time.monotonic()
    assert texts(list(driver.stream("hello"))) == "here "
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_nothing_outlives_the_total_deadline(drive: Make, manner: Any, streamed: bool) -> None:
    extra = '[managers.chat.timeouts]\ntotal = "200ms"\nfirst_token = "200ms"\nanswer = "200ms"\n'
    provider = manner(lambda _: [Hang(1.5)] if streamed else Hang(1.5))
    driver = drive(provider, extra)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        list(driver.stream("hello")) if streamed else driver.generate("hello")
    assert 0.19 < time.monotonic() - began < 1.4
    assert len(provider.calls) == 1, "there is no time for the other model"
    assert driver.exchange.board.lines[Role.PRIMARY].breaker.snapshot(time.monotonic()).failures == 0


def test_a_slow_reader_does_not_keep_a_stream_beyond_its_deadline(drive: Make, manner: Any) -> None:
    provider = manner(lambda _: [*(Delta(text=f"{n} ") for n in range(50)), Delta(finish_reason=FinishReason.STOP)])
    driver = drive(provider, '[managers.chat.timeouts]\ntotal = "200ms"\n')
    stream = driver.stream("hello")
    next(stream)
    time.sleep(0.25)
    with pytest.raises(StreamBroken):
        list(stream)
    assert outstanding(driver.exchange) == driver.exchange.in_flight == 0


def test_a_reader_who_never_comes_back_keeps_no_connection_beyond_the_deadline(drive: Make, manner: Any) -> None:
    provider = manner(lambda _: [Delta(text="word ")] * 10_000)
    driver = drive(provider, SHORT)
    chunks = driver.stream("hello")
    next(chunks)
    if driver.kind == "asyncio":
        driver.run(asyncio.sleep(0.8))
    eventually(lambda: provider.streams_closed == 1)
    with pytest.raises((DeadlineExceeded, StreamBroken)):
        list(chunks)
    assert outstanding(driver.exchange) == driver.exchange.in_flight == 0


def test_an_operators_forced_open_breaker_stands_whatever_the_policy_for_both_open(drive: Make) -> None:
    provider = Plain()
    driver = drive(provider, 'when_both_open = "try_anyway"\n')
    control, actor = driver.instance.control(), engine.control.Actor("ana")
    driver.status()
    for role in Role:
        control.force_breaker("chat", role, "forced_open", reason="contract ended", actor=actor)
    with pytest.raises(Overloaded):
        driver.generate("hello")
    assert provider.calls == []


# -- who leaves early --------------------------------------------------------------------------------------------------


def test_closing_a_stream_early_is_recorded_as_cancelled_and_closes_the_providers(drive: Make, manner: Any) -> None:
    provider = manner(lambda _: [Delta(text="one "), Delta(text="two "), Hang(0.2), Delta(text="three ")])
    driver = drive(provider)
    stream = driver.stream("hello")
    assert next(stream).text == "one "
    stream.close()
    (row,) = eventually(lambda: rows(driver.instance.recorder.store, "requests"))
    assert (row["outcome"], row["status_code"], row["code"]) == ("cancelled", 499, "client_cancelled")
    (attempt,) = rows(driver.instance.recorder.store, "attempts")
    assert attempt["category"] == "cancelled"
    assert outstanding(driver.exchange) == driver.exchange.in_flight == 0
    assert driver.exchange.board.lines[Role.PRIMARY].breaker.snapshot(time.monotonic()).samples == 0
    assert eventually(lambda: provider.streams_closed) == 1


def test_a_stream_nobody_reads_is_nothing(drive: Make) -> None:
    driver = drive(Plain())
    driver.stream("hello").close()
    assert driver.exchange.in_flight == 0
    assert rows(driver.instance.recorder.store, "requests") == []


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("where", ["asking", "backoff", "rate_limit"])
def test_a_cancelled_task_is_recorded_as_cancelled_wherever_it_waits(
    make_config: Make, manner: Any, streamed: bool, where: str
) -> None:
    said = {
        "asking": lambda _: [Hang(5)] if streamed else Hang(5),
        "backoff": lambda _: failure(Category.SERVER_ERROR),
        "rate_limit": lambda _: failure(Category.RATE_LIMITED, 429, 1.0),
    }[where]
    slow = '[managers.chat.retry]\nbase_delay = "60s"\nmax_delay = "60s"\n'
    provider = Awaited(said)
    driver = Looped(make_config(slow), providers={"simulated": provider})
    driver.exchange.random = lambda: 0.9

    async def go() -> None:
        async def read() -> None:
            async for _ in driver.manager.stream("hello"):
                pass

        task = asyncio.ensure_future(read() if streamed else driver.manager.generate("hello"))
        while not provider.calls:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    driver.run(go())
    (row,) = eventually(lambda: rows(driver.instance.recorder.store, "requests"))
    assert (row["outcome"], row["status_code"]) == ("cancelled", 499)
    assert row["attempts"] == len(rows(driver.instance.recorder.store, "attempts")) == 1
    assert outstanding(driver.exchange) == driver.exchange.in_flight == 0
    driver.close()


# -- operators ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (None, "NoneType"),
        (7, "int"),
        (b"hi", "bytes"),
        ({"role": "user", "content": "hi"}, "dict"),
        (["hi"], "a list of str"),
        ([{"role": "user", "content": "hi"}, None], "a list of NoneType, dict"),
    ],
    ids=str,
)
def test_what_is_no_prompt_is_refused_before_anybody_is_asked(drive: Make, manner: Any, prompt: Any, said: str) -> None:
    driver = drive(manner)
    with pytest.raises(InvalidRequest, match=f"a list of messages or a Request, not {said}$"):
        driver.generate(prompt)
    assert rows(driver.instance.recorder.store, "requests") == []
    assert driver.exchange.in_flight == 0


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"ttl": True}, "ttl"),
        ({"ttl": float("nan")}, "nan"),
        ({"ttl": "soon"}, "ttl"),
        ({"ttl": float("inf")}, "30 d"),
        ({"by": None}, "by"),
        ({"by": " "}, "by"),
        ({"by": 7}, "by"),
        ({"reason": " "}, "reason"),
        ({"strict": "no"}, "strict"),
    ],
    ids=lambda given: str(given),
)
def test_an_act_that_nobody_could_read_is_refused_and_changes_nothing(
    drive: Make, manner: Any, wrong: dict[str, Any], names: str
) -> None:
    """One was written, and from then on no instance could read the agreement, whatever it was about."""
    driver = drive(manner)
    before = driver.status().document
    with pytest.raises(InvalidRequest, match=names):
        driver.override("secondary", **{"reason": "maintenance", **wrong})
    assert driver.status().document == before
    assert rows(driver.instance.recorder.store, "overrides") == []
    assert driver.override("secondary", reason="maintenance", ttl="30m").override.ttl == 1800


def test_an_override_pins_at_once_and_clearing_it_is_on_record(drive: Make, manner: Any) -> None:
    driver = drive(manner())
    pinned = driver.override("secondary", reason="maintenance", ttl=1800, by="ana")
    assert driver.generate("hello").role == "secondary"
    status = driver.status()
    assert (status.active_role, status.active_model, status.document.override.by) == (
        "secondary",
        "gemini-2.5-flash",
        "ana",
    )
    assert driver.clear_override(reason="done", by="ana").epoch == pinned.epoch + 1
    acts = rows(driver.instance.recorder.store, "overrides")
    assert [(act["action"], act["actor"], act["reason"]) for act in acts] == [
        ("set", "ana", "maintenance"),
        ("clear", "ana", "done"),
    ]


def test_an_act_on_an_old_epoch_is_refused(drive: Make) -> None:
    driver = drive(Plain())
    epoch = driver.status().epoch
    driver.override("secondary", reason="one", epoch=epoch)
    with pytest.raises(engine.core.errors.Conflict):
        driver.override("primary", reason="two", epoch=epoch)


@pytest.mark.parametrize("decided", [True, False])
def test_of_acts_at_the_same_time_the_audit_tells_which_held(drive: Make, decided: bool) -> None:
    """Those whose epoch another act took were refused, and yet stood there as if they had pinned the model."""
    driver = drive(Plain())
    epoch, together, held = driver.status().epoch, threading.Barrier(8), {}

    def pin(name: str) -> None:
        together.wait(PATIENCE_S)
        with suppress(engine.core.errors.Conflict):
            document = driver.instance.control().set_override(
                "chat", "secondary", reason="now", actor=Actor(name), epoch=epoch if decided else None
            )
            held[name] = document.epoch

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(pin, "abcdefgh"))
    standing = Counter[tuple[str, int]]()
    for act in rows(driver.instance.recorder.store, "overrides"):
        standing[act["actor"], act["epoch"]] += {"set": 1, "withdrawn": -1}[act["action"]]
    assert +standing == Counter(held.items())
    assert len(held) == (1 if decided else 8)


def test_a_strict_pin_on_a_model_with_an_open_breaker_is_overloaded_until_it_may_be_asked(drive: Make) -> None:
    provider = Plain(by_model(pro=lambda _: failure(Category.TIMEOUT, 504), flash="here"))
    driver = drive(provider, QUICK + "[managers.chat.breaker]\nconsecutive_failures = 2\n")
    driver.override("primary", reason="pin", strict=True)
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            driver.generate("hello")
    assert driver.exchange.board.lines[Role.PRIMARY].breaker.state is BreakerState.OPEN
    retry_at = driver.exchange.board.lines[Role.PRIMARY].breaker.retry_at
    with pytest.raises(Overloaded) as caught:
        driver.generate("hello")
    assert caught.value.retry_after == pytest.approx(retry_at - time.monotonic(), abs=0.5)
    assert provider.models == ["gemini-2.5-pro"] * 2


# -- many at once ------------------------------------------------------------------------------------------------------


def _url(provider: str, server: Upstream) -> str:
    return server.openai_url if provider == "openai" else server.gemini_url


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("provider", ["openai", "google-genai", "google-generativeai"])
def test_two_managers_with_two_keys_from_eight_threads_never_mix(
    kind: Any, provider: str, make_config: Callable[..., Config], server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRST_KEY", "key-of-first")
    monkeypatch.setenv("SECOND_KEY", "key-of-second")
    config = make_config(TWO_KEYS.format(kind=provider, url=_url(provider, server)))
    drivers = [kind(config, name) for name in ("one", "two")]
    server.heal()
    server.forget()

    def ask(number: int) -> None:
        driver = drivers[number % 2]
        for turn in range(3):
            reply = list(driver.stream(f"{number} {turn}"))[-1].reply if turn == 1 else driver.generate(f"{number}")
            assert reply.model == ("model-of-first", "model-of-second")[number % 2]

    async def ask_together(driver: Looped) -> None:
        async def stream(number: int) -> Any:
            return [chunk async for chunk in driver.manager.stream(str(number))][-1].reply

        asked = [*(driver.manager.generate(str(number)) for number in range(8)), *(stream(n) for n in range(4))]
        await asyncio.gather(*asked)

    if kind is Threaded:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
    else:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda driver: driver.run(ask_together(driver)), drivers))
    seen = {(one.model, one.key) for one in server.seen()}
    assert seen == {("model-of-first", "key-of-first"), ("model-of-second", "key-of-second")}
    assert len(server.seen()) == 24, "one attempt is one request"
    for driver in drivers:
        driver.close()


def test_a_crowd_leaves_no_permit_and_no_request_in_flight(make_config: Make, manner: Any) -> None:
    turn = iter(range(10**9))

    def fickle(call: Call) -> Any:
        number = next(turn)
        if number % 7 == 0:
            return failure(Category.SERVER_ERROR)
        return failure(Category.INVALID_REQUEST, 400) if number % 5 == 0 else "fine"

    driver = Threaded(make_config(QUICK), providers={"simulated": manner(fickle)})

    def ask(number: int) -> None:
        for _ in range(40):
            try:
                if number % 3:
                    driver.generate("hello")
                else:
                    stream = driver.stream("hello")
                    next(stream, None)
                    stream.close()
            except SwitchgearError:
                pass

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(12)))
    assert driver.exchange.in_flight == 0
    assert outstanding(driver.exchange) == 0
    store = driver.instance.recorder.store
    eventually(lambda: len(rows(store, "requests")) == 480)
    driver.close()


# -- the end -----------------------------------------------------------------------------------------------------------


def test_closing_twice_is_closing_once_and_leaves_no_thread(
    make_config: Callable[..., Config], kind: Any, manner: Any
) -> None:
    before = set(threading.enumerate())
    provider = manner()
    driver = kind(make_config(), providers={"simulated": provider})
    driver.generate("hello")
    list(driver.stream("hello"))
    driver.close()
    driver.close()
    assert provider.closed == 1
    eventually(lambda: set(threading.enumerate()) <= before, told=lambda: set(threading.enumerate()) - before)


def test_a_thread_busy_at_closing_ends_when_its_call_does(make_config: Make) -> None:
    before = set(threading.enumerate())
    driver = Threaded(make_config(SHORT), providers={"simulated": Plain(lambda _: Hang(0.6))})
    with pytest.raises(DeadlineExceeded):
        driver.generate("hello")
    driver.close()
    eventually(lambda: set(threading.enumerate()) <= before, told=lambda: set(threading.enumerate()) - before)


def test_a_provider_that_cannot_be_closed_does_not_keep_the_rest_open(drive: Make, manner: Any) -> None:
    provider = manner()
    driver = drive(provider)
    driver.generate("hello")
    provider.close = provider.aclose = lambda: 1 / 0
    driver.close()
    assert not driver.instance.agent._thread.is_alive()


def test_a_closed_manager_refuses_before_it_asks_a_model(make_config: Make, manner: Any) -> None:
    provider = manner()
    driver = Threaded(make_config(), providers={"simulated": provider})
    driver.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        driver.generate("hello")
    assert provider.calls == []


def test_a_second_manager_of_the_same_file_in_one_process_agrees_with_the_first(
    kind: Any, make_config: Callable[..., Config]
) -> None:
    config = make_config()
    first, second = (kind(config, providers={"simulated": Plain()}) for _ in range(2))
    first.generate("hello")
    second.generate("hello")
    first.override("secondary", reason="for both")
    eventually(lambda: second.generate("hello").role == "secondary")
    first.close()
    assert second.generate("hello").role == "secondary"
    second.close()


def test_what_the_store_did_not_take_is_refused_and_recorded_as_refused(drive: Make, manner: Any) -> None:
    provider = manner()
    driver = drive(provider)
    driver.generate("hello")
    recorder = driver.instance.recorder
    page = recorder._pen._ledger.page
    broken = threading.Event()
    broken.set()

    def fail(records: Any) -> Any:
        if broken.is_set():
            msg = "No space left on device"
            raise OSError(msg)
        return page(records)

    recorder._pen._ledger.page = fail
    connect = recorder._pen._connect

    def reconnect() -> Any:
        made = connect()
        recorder._pen._ledger.page = fail
        return made

    recorder._pen._connect = reconnect
    with pytest.raises(StoreUnavailable) as caught:
        driver.generate("hello")
    assert caught.value.request_id
    assert caught.value.account.model == "gemini-2.5-pro"
    asked = len(provider.calls)
    with pytest.raises(StoreUnavailable) as again:
        driver.generate("hello")
    assert len(provider.calls) == asked, "a model is not paid for what cannot be recorded"
    assert again.value is not caught.value
    assert again.value.retry_after
    broken.clear()
    eventually(lambda: recorder.error is None and recorder.queue_length == 0)
    assert driver.generate("hello").text
    told = [(row["id"], row["status_code"], row["code"]) for row in rows(recorder.store, "requests")]
    assert told[1] == (caught.value.request_id, 503, "store_unavailable")
    assert [status for _, status, _ in told] == [200, 503, 200]


def test_the_upstream_sees_one_request_per_attempt_whatever_the_library_would_rather_do(
    kind: Any, make_config: Callable[..., Config], server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRST_KEY", "key-of-first")
    monkeypatch.setenv("SECOND_KEY", "key-of-second")
    config = make_config(TWO_KEYS.format(kind="google-genai", url=server.gemini_url))
    driver = kind(config, "one")
    server.forget()
    server.set("*", Fault(error="gateway_timeout"))
    with pytest.raises(DeadlineExceeded):
        driver.generate("hello")
    server.heal()
    assert len(server.seen()) == len(rows(driver.instance.recorder.store, "attempts"))
    driver.close()
