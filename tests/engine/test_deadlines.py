"""Timers strike in order and in time, cancelled ones never, and none of them is kept for long."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from engine.deadlines import FEW, Deadlines, deadlines, timeout

LATE = 0.5
"""Seconds a loaded machine may be late."""
EARLY = 0.002
"""Seconds uvloop is early, whose clock has milliseconds."""


class Hands(asyncio.SelectorEventLoop):
    """A loop whose clock is turned by hand and never runs: what is due is called by `turn`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def turn(self, to: float) -> None:
        """Go on to a time, striking at every timer on the way."""
        while True:
            due = [one for one in self._scheduled if not one.cancelled() and one.when() <= to]  # type: ignore[attr-defined]
            if not due:
                break
            first = min(due, key=lambda one: one.when())
            self.now = max(self.now, first.when())
            call = first._callback  # type: ignore[attr-defined]
            first.cancel()
            call()
        self.now = to


@given(
    plans=st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 20), st.none() | st.integers(0, 40)), min_size=1, max_size=40
    )
)
def test_each_strikes_once_at_its_time_unless_it_was_cancelled_before(
    plans: list[tuple[int, int, int | None]],
) -> None:
    loop = Hands()
    kept, struck = Deadlines(loop), dict[int, float]()
    alive = {}
    for second in range(45):
        for place, (made, after, _) in enumerate(plans):
            if made == second:
                alive[place] = kept.call_at(second + after, lambda place=place: struck.setdefault(place, loop.time()))
        for place, (_, _, cancelled) in enumerate(plans):
            if cancelled == second and place in alive:
                alive[place].cancel()
        loop.turn(second + 0.5)
    loop.close()
    for place, (made, after, cancelled) in enumerate(plans):
        due = made + after
        early = cancelled is not None and made <= cancelled <= due
        if early:
            assert place not in struck
        else:
            assert struck[place] == due


def test_cancelled_ones_are_not_kept() -> None:
    loop = Hands()
    kept = Deadlines(loop)
    waiting = [kept.call_at(1000.0 + place, lambda: None) for place in range(10)]
    for place in range(10_000):
        kept.call_at(30.0 + place, lambda: None).cancel()
    loop.close()
    assert len(kept) <= 2 * (FEW + 1) + len(waiting)


def test_what_is_cancelled_by_one_that_strikes_with_it_is_not_called() -> None:
    loop = Hands()
    kept, called = Deadlines(loop), list[str]()
    second = kept.call_at(2.0, lambda: called.append("second"))
    kept.call_at(1.0, second.cancel)
    loop.turn(3.0)
    loop.close()
    assert called == []


@pytest.mark.parametrize(("there", "made"), [(9.0, 1.5), (2.0, 9.0)])
def test_one_that_strikes_may_make_another(there: float, made: float) -> None:
    loop = Hands()
    kept, called = Deadlines(loop), list[float]()
    kept.call_at(1.0, lambda: kept.call_at(made, lambda: called.append(loop.time())))
    kept.call_at(there, lambda: called.append(loop.time()))
    loop.turn(10.0)
    loop.close()
    assert called == sorted((there, made))


def test_one_that_strikes_may_cancel_nearly_all_others() -> None:
    loop = Hands()
    kept, called = Deadlines(loop), list[float]()
    others = [kept.call_at(2.0 + place, lambda: called.append(loop.time())) for place in range(4 * FEW)]

    def cancel() -> None:
        for other in others[1:]:
            other.cancel()

    kept.call_at(1.0, cancel)
    loop.turn(1000.0)
    loop.close()
    assert called == [2.0]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_on_a_real_loop_they_strike_in_time(run: object) -> None:
    async def main() -> list[float]:
        began, struck = time.monotonic(), asyncio.Queue[float]()
        for after in (0.05, 0.02, 0.0, -1.0):
            deadlines().call_later(after, lambda: struck.put_nowait(time.monotonic() - began))
        deadlines().call_later(0.01, lambda: struck.put_nowait(99.0)).cancel()
        return [await struck.get() for _ in range(4)]

    first, second, third, last = run(main())  # type: ignore[operator]
    assert first <= second < LATE
    assert 0.02 - EARLY <= third < LATE
    assert 0.05 - EARLY <= last < LATE


def test_every_loop_has_its_own() -> None:
    async def main() -> Deadlines:
        assert deadlines() is deadlines()
        return deadlines()

    assert asyncio.run(main()) is not asyncio.run(main())


def test_after_a_standstill_all_wait_once_until_the_loop_has_caught_up() -> None:
    loop = Hands()
    kept, struck = Deadlines(loop), list[float]()
    for when in (1.0, 2.0, 2.5):
        kept.call_at(when, lambda: struck.append(loop.time()))
    loop.now = 2.2
    loop.turn(2.2)
    assert struck == []
    loop.now = 9.0  # and once more: a loop that is always late strikes all the same
    loop.turn(9.0)
    loop.close()
    assert struck == [9.0, 9.0, 9.0]


def test_one_that_is_made_while_the_loop_catches_up_does_not_strike_the_late_ones_early() -> None:
    loop = Hands()
    kept, struck = Deadlines(loop), list[str]()
    late = kept.call_at(1.0, lambda: struck.append("late"))
    loop.now = 9.0
    loop.turn(9.0)
    kept.call_at(8.0, lambda: struck.append("over"))
    kept.call_at(9.01, lambda: struck.append("soon"))
    loop.turn(9.05)
    assert struck == []
    late.cancel()
    loop.turn(9.2)
    loop.close()
    assert struck == ["over", "soon"]


def test_one_that_is_over_when_it_is_made_waits_for_nothing() -> None:
    loop = Hands()
    kept, struck = Deadlines(loop), list[float]()
    loop.now = 9.0
    kept.call_at(1.0, lambda: struck.append(loop.time()))
    loop.turn(9.0)
    loop.close()
    assert struck == [9.0]


def _answers_after(listening: socket.socket, seconds: float) -> None:
    connection, _ = listening.accept()
    with connection:
        time.sleep(seconds)
        connection.sendall(b"hello\n")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_answer_that_came_while_the_loop_stood_still_came_in_time(run: object) -> None:
    async def main(address: tuple[str, int]) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        asyncio.get_running_loop().call_later(0.01, time.sleep, 1.5)
        try:
            async with timeout(0.5):
                return await reader.readline()
        finally:
            writer.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_answers_after, args=(listening, 0.3), daemon=True).start()
        assert run(main(listening.getsockname())) == b"hello\n"  # type: ignore[operator]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_step_ends_at_its_time_and_at_another_when_it_is_moved(run: object) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with timeout(0.01) as limit:
                await asyncio.sleep(60)
        assert limit.expired
        async with timeout(0.01) as limit:
            limit.move(asyncio.get_running_loop().time() + 60)
            await asyncio.sleep(0.05)
        assert not limit.expired
        async with timeout(None) as limit:
            limit.move(asyncio.get_running_loop().time() + 60)
        assert not limit.expired
        with pytest.raises(TimeoutError, match="another's"):
            async with timeout(60) as limit:
                raise TimeoutError("another's")
        assert not limit.expired

    run(main())  # type: ignore[operator]


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def step() -> None:
        async with timeout(60):
            await asyncio.sleep(60)

    task = asyncio.create_task(step())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
