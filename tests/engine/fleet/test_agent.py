"""The agent's thread survives what goes wrong in a round, and one manager's trouble is not another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.config import Config
from engine.core.agreement import DocumentError
from engine.core.messages import Request, Role
from engine.fleet.base import CoordinatorUnavailable
from engine.fleet.store import StoreCoordinator
from engine.instance import Instance
from tests.engine.drivers import Plain
from tests.patience import PATIENCE_S, eventually

TWO = '[managers.other]\nprimary = "flash"\nsecondary = "pro"\n'


@pytest.fixture
def instance(make_config: Callable[..., Config]) -> Iterator[Instance]:
    made = Instance.open(make_config(TWO))
    for name in ("chat", "other"):
        made.exchange(name, providers={"simulated": Plain()})
    yield made
    made.close()


def _alive(instance: Instance) -> bool:
    thread = instance.agent._thread
    return thread is not None and thread.is_alive()


def test_a_mistake_in_one_managers_round_keeps_no_other_from_agreeing(
    instance: Instance, caplog: pytest.LogCaptureFixture
) -> None:
    vote = instance.exchanges["chat"].vote
    instance.exchanges["chat"].vote = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    instance.start()
    eventually(lambda: instance.exchanges["other"].board.document.epoch == 1)
    eventually(lambda: "ZeroDivisionError" in (instance.agent.trouble or ""))
    assert _alive(instance)
    assert instance.agent.reachable
    instance.exchanges["chat"].vote = vote  # type: ignore[method-assign]
    eventually(lambda: instance.agent.trouble is None)  # and it is over when it is over


def test_a_prober_that_fails_ends_neither_the_thread_nor_probing(instance: Instance) -> None:
    asked = threading.Event()
    calls: list[Role] = []

    def prober(request: Request, role: Role) -> None:
        calls.append(role)
        if len(calls) > 1:
            asked.set()
        msg = "can't start new thread"
        raise RuntimeError(msg)

    instance.exchanges["chat"].board.synthetic_due = lambda now: True  # type: ignore[method-assign]
    instance.agent.probes_with("chat", prober)
    instance.start()
    assert asked.wait(PATIENCE_S), "it is asked again, for the failed one is not out any more"
    assert _alive(instance)


@pytest.mark.parametrize("error", [CoordinatorUnavailable("the disk is gone"), DocumentError("it is garbage")])
def test_an_agreement_that_cannot_be_recalled_keeps_nobody_from_starting(
    make_config: Callable[..., Config], error: Exception
) -> None:
    instance = Instance.open(make_config())
    instance.exchange("chat", providers={"simulated": Plain()})

    class Broken:
        def __getattr__(self, name: str) -> Any:
            def fail(*args: object) -> None:
                raise error

            return fail

    instance.agent._local = Broken()  # type: ignore[assignment]
    instance.start()
    try:
        assert _alive(instance)
        if isinstance(error, CoordinatorUnavailable):
            eventually(lambda: instance.exchanges["chat"].board.document.epoch == 1)  # fleet and disk are two things
            assert instance.agent.reachable
    finally:
        instance.close()


def test_the_end_of_an_operators_force_is_no_finding_about_the_model(instance: Instance) -> None:
    from engine.control import Actor

    instance.start()
    control, actor = instance.control(), Actor("ana")
    control.force_breaker("chat", "primary", "forced_open", reason="test", actor=actor)
    control.force_breaker("chat", "primary", "auto", reason="done", actor=actor)
    exchange = instance.exchanges["chat"]
    assert exchange.board.lines[Role.PRIMARY].breaker.state == "half_open"
    before = instance.agent.agreed_ms
    eventually(lambda: instance.agent.agreed_ms != before)
    assert exchange.vote().primary.verdict == "abstain"
    assert exchange.board.document.active is Role.PRIMARY


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock here counts sleep")
def test_after_the_machine_slept_it_abstains_although_the_monotonic_clock_did_not_count_it(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.start()
    agent, clock = instance.agent, time.clock_gettime
    assert agent._silent_until < instance.clock.monotonic()
    hours = [0]
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + 3600 * hours[0])

    def abstains_after_another_hour() -> bool:
        hours[0] += 1
        return agent._silent_until > instance.clock.monotonic()

    eventually(abstains_after_another_hour, every=0.2)


def test_closing_twice_and_from_two_threads_is_closing_once(instance: Instance) -> None:
    instance.start()
    closers = [threading.Thread(target=instance.close) for _ in range(4)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(PATIENCE_S)
    instance.close()
    assert not _alive(instance)
    assert isinstance(instance.coordinator, StoreCoordinator)
