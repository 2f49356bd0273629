"""Every fault at every event, whoever asks and whatever is behind: the whole answer, or an explicit error.

Three faces of the engine (the gateway by the real `openai` SDK, the threaded and the asynchronous manager), three wire
kinds by the real libraries, three secondaries. The answer is in letters of two to four bytes, and its bytes arrive in
pieces that cut them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from engine import Request, SwitchgearError, standstill
from engine.instance import Instance
from engine.providers.answers import Continuation, answer_text
from tests.engine.drivers import Looped, Threaded, outstanding, rows
from tests.engine.gateway.running import FLASH, PRO, running, settings
from tests.engine.gateway.test_streams import (
    CLOCKS,
    KINDS,
    NO_PREFILL,
    PATIENT,
    PREFILL,
    PROMPT,
    WORDS,
    Got,
    read,
)
from tests.patience import eventually
from tests.upstream import Fault, Upstream
from tests.upstream.wires import wide

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

SHORT = Fault(words=WORDS, words_per_event=2, wide=True)
TEXT = wide(answer_text(PROMPT, WORDS))
EVENTS = 5
TOOL = {"type": "function", "function": {"name": "unused", "parameters": {"type": "object"}}}
FACES = ["gateway", "threads", "asyncio"]

FAULTS: dict[str, Callable[[int], Fault]] = {
    "cut": lambda at: replace(SHORT, cut_after=at, split=3),
    "end": lambda at: replace(SHORT, bytes=480 + 37 * at, close_delimited=True),
    "reset": lambda at: replace(SHORT, reset_after=at),
    "malformed": lambda at: replace(SHORT, malformed_at=at, split=5),
    "error object": lambda at: replace(SHORT, error_at=at),
}
PLACES = {"end": range(14)}
"""Where the ones happen that are not tried at every event: an end cuts letters."""


@dataclass(frozen=True)
class Secondary:
    """Capabilities in the configuration, what it really does, and whether it can serve the request at all."""

    capabilities: str
    fault: Fault
    able: bool = True


SECONDARIES = {
    "takes prefill": Secondary(PREFILL, SHORT),
    "refuses prefill": Secondary(PREFILL, replace(SHORT, continuation=Continuation.REFUSE, split=3)),
    "takes an instruction": Secondary(NO_PREFILL, replace(SHORT, continuation=Continuation.REPEAT_TAIL)),
    "is not able": Secondary('capabilities = ["system", "prefill"]', SHORT, able=False),
}


@dataclass(frozen=True)
class Open:
    """A face that serves."""

    ask: Callable[[], Got]
    instance: Instance

    def rows(self, table: str, where: str = "1") -> list[dict[str, Any]]:
        return rows(self.instance.recorder.store, table, where)


@contextmanager
def opened(face: str, config: Any, upstream: Upstream) -> Iterator[Open]:
    if face == "gateway":
        with running(config, upstream=upstream) as gateway:
            yield Open(lambda: read(gateway, tools=[TOOL]), gateway.instance)
        return
    driver = {"threads": Threaded, "asyncio": Looped}[face](config)
    request = Request(({"role": "user", "content": PROMPT},), tools=(TOOL,))

    def ask() -> Got:
        got = Got()
        try:
            for chunk in driver.stream(request):
                got.text += chunk.text
                got.finish = chunk.finish_reason or got.finish
        except SwitchgearError as error:
            got.error = error
        return got

    try:
        yield Open(ask, driver.instance)
    finally:
        driver.close()


def held_to_the_law(face: Open, got: Got) -> bool:
    """Whether the answer is whole; fails when it is neither whole nor told to be broken."""
    last = face.rows("requests")[-1]
    attempts = face.rows("attempts", f"request_id = '{last['id']}'")
    for sum_of in ("output_tokens", "cost_usd"):
        assert sum(one[sum_of] or 0 for one in attempts) == pytest.approx(last[sum_of] or 0), sum_of
    if got.error is None:
        assert (got.text, got.finish) == (TEXT, "stop")
        assert (last["status_code"], last["outcome"]) == (200, "ok")
        return True
    assert got.finish is None
    assert TEXT.startswith(got.text)
    assert getattr(got.error, "code", None) != "internal", got.error
    assert (last["outcome"], last["status_code"] >= 500, last["code"] != "internal") == ("error", True, True)
    if got.text:
        assert attempts[0]["usage_estimated"] == 1, "the broken one did not get to say what it spent"
    return False


def warmed(ask: Callable[[], Got], upstream: Upstream, *, both: bool = True) -> None:
    """Have the libraries imported and both models' clients made before short clocks count."""
    upstream.set("*", SHORT)
    eventually(lambda: ask().whole)
    upstream.set(PRO, replace(SHORT, error="gateway_timeout"))
    if both:
        eventually(lambda: ask().whole)
    upstream.forget()


def connections(upstream: Upstream) -> int:
    """From this process to the upstream."""
    open_ones = psutil.Process().net_connections("tcp")
    return sum(one.raddr != () and one.raddr.port == upstream.port for one in open_ones)


@pytest.mark.parametrize("secondary", SECONDARIES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("face", FACES)
def test_whoever_asks_gets_the_whole_answer_or_is_told(
    tmp_path: Path, upstream: Upstream, face: str, kind: str, secondary: str
) -> None:
    other = SECONDARIES[secondary]
    config = settings(tmp_path, upstream, kind, flash=other.capabilities, rest=PATIENT)
    standstill.watch()  # its thread stays as long as the process does
    threads, before = threading.active_count(), connections(upstream)
    with opened(face, config, upstream) as serving:
        warmed(serving.ask, upstream, both=other.able)
        upstream.set(FLASH, other.fault)
        for name, fault in FAULTS.items():
            for at in PLACES.get(name, range(EVENTS)):
                upstream.set(PRO, fault(at))
                whole = held_to_the_law(serving, serving.ask())
                assert whole is other.able, (name, at)
        exchange = serving.instance.exchanges["chat"]
        assert outstanding(exchange) == exchange.in_flight == 0
        eventually(lambda: all(one.ended for one in upstream.seen()))
    eventually(lambda: threading.active_count() <= threads, told=threading.enumerate)
    eventually(lambda: connections(upstream) <= before)  # every connection is closed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("face", FACES)
def test_a_stream_that_stalls_is_left_at_its_idle_clock_and_goes_on_or_is_told(
    tmp_path: Path, upstream: Upstream, face: str, kind: str
) -> None:
    short = {CLOCKS: CLOCKS.replace('idle = "30s"', 'idle = "1s"')}
    config = settings(tmp_path, upstream, kind, flash=PREFILL, rest=PATIENT, replace=short)
    with opened(face, config, upstream) as serving:
        warmed(serving.ask, upstream)
        upstream.set(PRO, replace(SHORT, stall_after=2))
        upstream.set(FLASH, SHORT)
        assert held_to_the_law(serving, serving.ask())
        assert eventually(lambda: upstream.seen(PRO)[-1].ended) == "disconnected"
        upstream.set(FLASH, replace(SHORT, error="gateway_timeout"))
        assert not held_to_the_law(serving, serving.ask())


# -- the clocks --------------------------------------------------------------------------------------------------------

WAYS = [*((face, "openai") for face in FACES), *(("gateway", kind) for kind in KINDS[1:])]


@pytest.mark.parametrize(("face", "kind"), WAYS)
def test_a_continuation_does_not_outlive_the_deadline_that_began_before_it(
    tmp_path: Path, upstream: Upstream, face: str, kind: str
) -> None:
    short = {CLOCKS: 'first_token = "1500ms"\nanswer = "1500ms"\nidle = "1500ms"\ntotal = "1500ms"'}
    config = settings(tmp_path, upstream, kind, flash=PREFILL, rest=PATIENT, replace=short)
    with opened(face, config, upstream) as serving:
        warmed(serving.ask, upstream)
        upstream.set(PRO, replace(SHORT, cut_after=2, event_delay=0.4))
        upstream.set(FLASH, replace(SHORT, event_delay=0.6))
        assert not held_to_the_law(serving, serving.ask())
        row = serving.rows("requests")[-1]
        assert 1450 <= row["duration_ms"] < 2000
        categories = [one["category"] for one in serving.rows("attempts", f"request_id = '{row['id']}'")]
        assert categories == ["truncated", "timeout"]
        assert serving.instance.exchanges["chat"].in_flight == 0
        assert eventually(lambda: upstream.seen(FLASH)[-1].ended) == "disconnected"


@pytest.mark.parametrize("face", FACES)
def test_a_models_own_clocks_replace_the_managers_and_it_is_not_asked_again(
    tmp_path: Path, upstream: Upstream, face: str
) -> None:
    own = "[models.pro.timeouts]\nfirst_token = '300ms'\nidle = '300ms'\n"
    table = "[managers.chat.timeouts]\n"
    config = settings(tmp_path, upstream, flash=PREFILL, rest=PATIENT, replace={table: own + table})
    with opened(face, config, upstream) as serving:
        warmed(serving.ask, upstream)
        upstream.set(FLASH, replace(SHORT, words_per_event=5, event_delay=0.4))
        silent = [Fault(hang=True), replace(SHORT, first_token=9.0), replace(SHORT, role_delay=9.0)]
        for fault in (*silent, replace(SHORT, stall_after=2)):
            upstream.forget()
            upstream.set(PRO, fault)
            assert held_to_the_law(serving, serving.ask())
            assert [one.model for one in upstream.seen()] == [PRO, FLASH]
            left, other = serving.rows("attempts", f"request_id = '{serving.rows('requests')[-1]['id']}'")
            assert 295 <= left["duration_ms"] < 8000, "left at its own limit, once"
            assert other["duration_ms"] > 395, "the other one lives by the manager's"


@pytest.mark.parametrize("kind", KINDS)
def test_a_caller_who_leaves_a_continuation_closes_it_and_both_attempts_are_on_record(
    tmp_path: Path, upstream: Upstream, kind: str
) -> None:
    config = settings(tmp_path, upstream, kind, flash=PREFILL, rest=PATIENT)
    with running(config, upstream=upstream) as gateway:
        warmed(lambda: read(gateway), upstream)
        before = len(gateway.rows("requests"))
        upstream.set(PRO, replace(SHORT, cut_after=2))
        upstream.set(FLASH, replace(SHORT, event_delay=0.4))
        body = {"model": "chat", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
        with requests.post(f"{gateway.url}/v1/chat/completions", json=body, stream=True, timeout=60) as answer:
            eventually(lambda: upstream.seen(FLASH) and upstream.seen(FLASH)[0].events > 1)
            left = time.monotonic()
            answer.raw.close()
        assert eventually(lambda: upstream.seen(FLASH)[0].ended) == "disconnected"
        assert (upstream.seen(FLASH)[0].ended_at or 0) - left < 1.0
        eventually(lambda: len(gateway.rows("requests")) > before)
        row = gateway.rows("requests")[-1]
        first, second = gateway.rows("attempts", f"request_id = '{row['id']}'")
        assert (row["outcome"], first["category"], second["category"]) == ("cancelled", "truncated", "cancelled")
        assert row["output_tokens"] == first["output_tokens"] + second["output_tokens"] > 0
        assert first["usage_estimated"] == second["usage_estimated"] == 1
        assert gateway.breaker("secondary").failures == 0
        assert outstanding(gateway.exchange) == gateway.exchange.in_flight == 0
