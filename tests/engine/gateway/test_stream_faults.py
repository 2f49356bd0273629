"""Every fault at every event, whoever asks and whatever is behind: the whole answer, or an explicit error.

Three faces of the engine (the gateway by the real `openai` SDK, the threaded and the asynchronous manager), three wire
kinds by the real libraries, three secondaries. The answer is in letters of two to four bytes, and its bytes arrive in
pieces that cut them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine import Request, SwitchgearError
from engine.instance import Instance
from engine.providers.answers import Continuation, answer_text
from tests.engine.drivers import Looped, Threaded, outstanding, rows, within
from tests.engine.gateway.running import FLASH, PRO, running, settings
from tests.engine.gateway.test_streams import KINDS, NO_PREFILL, PATIENT, PREFILL, PROMPT, QUICK, WORDS, Got, read
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
    "stall": lambda at: replace(SHORT, stall_after=at),
}
PLACES = {"stall": (2,), "end": range(14)}
"""Where the ones happen that are not tried at every event: a stall costs half a second, an end cuts letters."""


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
    config = settings(tmp_path, upstream, kind, flash=other.capabilities, rest=PATIENT, replace=QUICK)
    threads, before = threading.active_count(), connections(upstream)
    with opened(face, config, upstream) as serving:
        upstream.set("*", SHORT)
        assert within(10, lambda: serving.ask().whole), "the library is imported and its client made"
        upstream.set(PRO, replace(SHORT, error="gateway_timeout"))
        assert not other.able or within(10, lambda: serving.ask().whole), "and the other model's client, too"
        upstream.set(FLASH, other.fault)
        for name, fault in FAULTS.items():
            for at in PLACES.get(name, range(EVENTS)):
                upstream.set(PRO, fault(at))
                whole = held_to_the_law(serving, serving.ask())
                assert whole is other.able, (name, at)
        exchange = serving.instance.exchanges["chat"]
        assert outstanding(exchange) == exchange.in_flight == 0
        assert within(3, lambda: all(one.ended for one in upstream.seen()))
    assert within(5, lambda: threading.active_count() <= threads), threading.enumerate()
    assert within(3, lambda: connections(upstream) <= before), "every connection is closed"
