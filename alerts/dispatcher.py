"""Delivery: a thread for each receiver takes its letters from the outbox, and lanes send them and write how it ended.

Guarantees: at least once with the same id and the same bytes; in order per group and receiver; no receiver delays
another, as they share nothing but the store; of one receiver a few groups are under way at once, so that one it is slow
about does not keep the others; a process that dies between sending and writing sends again. One that stood still after
it took a letter does not send it late, behind what another process sent meanwhile.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from alerts import net, outbox, queries, signatures
from alerts.lanes import Lanes
from alerts.notices import Line, Notice, Reason, Status
from alerts.outbox import Claimed, Letter, Result
from alerts.receivers import Receiver
from engine.clock import Clock
from engine.core.classification import parse_retry_after
from engine.core.errors import SwitchgearError
from engine.ids import new_id
from engine.recorder import Recorder
from engine.sqlite import Connection
from engine.version import VERSION

log = logging.getLogger(__name__)

T = TypeVar("T")

LANES = 4
"""How many groups of one receiver may be under way at once; one that is slow is not flooded either."""
LEASE_MS = 20_000
"""Milliseconds a letter is ours; the last three quarters are what an attempt may take."""
HORIZON_MS = 3_600_000
LOOK_AGAIN_S = 2.0
STORE_RETRY_S = 1.0
WRITE_TIMEOUT_S = 30.0
RETRIED_4XX = (408, 429)


def attempt(receiver: Receiver, letter: Letter, wall_s: float) -> Result:
    """One attempt; never raises for what the other side does.

    Args:
        receiver: Whom to tell.
        letter: What.
        wall_s: Unix seconds now, for the signature.
    """
    started = time.perf_counter()
    result = _attempt(receiver, letter, wall_s)
    return replace(result, duration_ms=(time.perf_counter() - started) * 1000)


def _attempt(receiver: Receiver, letter: Letter, wall_s: float) -> Result:
    if receiver.lacks or receiver.url is None:
        return Result(delivered=False, error=receiver.lacks)
    channel = receiver.channel
    body = channel.complete(letter.body, receiver.secret)
    if channel.send is not None:
        error = channel.send(receiver.url, body, receiver.allow_private)
        return Result(delivered=error is None, error=error)
    raw = body.encode()
    headers = {
        "Content-Type": letter.content_type,
        "User-Agent": f"Switchgear/{VERSION}",
        **signatures.headers(letter.id, int(wall_s), raw, receiver.secret if channel.signed else None),
    }
    try:
        answer = net.post(channel.address(receiver.url), raw, headers, allow_private=receiver.allow_private)
    except (net.Refused, net.Unreachable) as error:
        return Result(delivered=False, error=str(error))
    return judge(receiver, answer, wall_s)


def judge(receiver: Receiver, answer: net.Answer, wall_s: float) -> Result:
    """What an answer means: delivered, to be tried again, dead, or that the receiver is gone."""
    status = answer.status
    if receiver.channel.accepts(status, answer.body):
        return Result(delivered=True, status=status)
    if 300 <= status < 400:
        error = f"answered {status}: redirects are not followed, correct the address"
        return Result(delivered=False, status=status, error=error)
    text = " ".join(answer.body[:120].decode("utf-8", "replace").split())
    error = f"answered {status}: {text}" if text else f"answered {status}"
    final = 400 <= status < 500 and status not in RETRIED_4XX
    return Result(
        delivered=False,
        status=status,
        error=error[:200],
        final=final,
        gone=status == 410,
        retry_after=parse_retry_after(answer.headers, wall_s),
    )


def send_test(receiver: Receiver, base_url: str, clock: Clock) -> Result:
    """One attempt with a test notice, without outbox and without retry."""
    now_ms = clock.wall_ms()
    labels = {"alertname": "SwitchgearTest", "severity": "info"}
    texts = {"summary": "A test of this receiver; nothing is wrong."}
    line = Line(Status.FIRING, labels, texts, now_ms, None, "0" * 16)
    notice = Notice(receiver.name, Reason.TEST, {"alertname": "SwitchgearTest"}, (line,), base_url, now_ms)
    channel = receiver.channel
    body = channel.bodies(notice)[0]
    letter = Letter(new_id(), now_ms, receiver.name, channel.kind, notice.key, "", channel.content_type, body)
    return attempt(receiver, letter, now_ms / 1000)


class Dispatcher:
    """Delivers for all receivers.

    Args:
        recorder: Writes; its store is read.
        clock: Both clocks.
        receivers: To whom.
        owner: Unique name of this dispatcher, for leases of letters.
    """

    def __init__(self, recorder: Recorder, clock: Clock, receivers: Iterable[Receiver], owner: str) -> None:
        self._recorder = recorder
        self._clock = clock
        self._owner = owner
        self._receivers = tuple(receivers)
        self._changed = threading.Condition()
        self._generation = 0
        self._active = False
        self._stopping = False
        self._claims = itertools.count(1)
        self._under_way: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._lanes = {receiver.name: Lanes(LANES, f"switchgear-to-{receiver.name}") for receiver in self._receivers}

    def start(self) -> None:
        """Start the threads; nothing is sent before `activate`."""
        for receiver in self._receivers:
            name = f"switchgear-for-{receiver.name}"
            thread = threading.Thread(target=self._run, args=(receiver,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Finish the attempts that are under way, for so many seconds at most."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for lanes in self._lanes.values():
            lanes.join(deadline)

    def activate(self, *, active: bool) -> None:
        """Begin or cease to take letters: only the evaluator of a store does."""
        with self._changed:
            changed, self._active = active != self._active, active
            if changed:
                self._generation += 1
                self._changed.notify_all()

    def wake(self) -> None:
        """There may be new letters."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()

    def _run(self, receiver: Receiver) -> None:
        while not self._stopping:
            with self._changed:
                generation = self._generation
            pause = LOOK_AGAIN_S
            if self._active:
                pause = self._safely(receiver, lambda: self._hand_out(receiver))
            with self._changed:
                if pause > 0 and generation == self._generation and not self._stopping:
                    self._changed.wait(pause)

    def _safely(self, receiver: Receiver, work: Callable[[], float]) -> float:
        """Do something that says in how many seconds to go on; when it fails, when to try again."""
        try:
            return work()
        except SwitchgearError as error:
            log.warning("notifications for %s wait: %s", receiver.name, error)
            return STORE_RETRY_S
        except Exception:
            log.exception("notifications for %s wait", receiver.name)
            return LOOK_AGAIN_S

    def _hand_out(self, receiver: Receiver) -> float:
        """Put the next letter that is due on a lane; returns what `_take` does."""
        lanes = self._lanes[receiver.name]
        if not lanes.enter(LOOK_AGAIN_S):
            return 0.0
        claimed, pause = None, 0.0
        try:
            if self._active and not self._stopping:  # it may have waited for the lane
                claimed, pause = self._take(receiver)
        finally:
            if claimed is None:
                lanes.leave()
        if claimed is not None:
            first = claimed
            lanes.run(lambda: self._work(receiver, first))
        return pause

    def _work(self, receiver: Receiver, first: Claimed) -> None:
        """What a lane does: its letter, and others for as long as some are due."""

        def rest() -> float:
            self._carry(receiver, first)
            while self._active and not self._stopping:
                if (pause := self.deliver_next(receiver)) > 0:
                    return pause
            return 0.0

        self._safely(receiver, rest)

    def deliver_next(self, receiver: Receiver) -> float:
        """Attempt the next letter that is due.

        Returns:
            Seconds until there may be another one; 0 for at once.
        """
        claimed, pause = self._take(receiver)
        if claimed is not None:
            self._carry(receiver, claimed)
        return pause

    def _take(self, receiver: Receiver) -> tuple[Claimed | None, float]:
        """The next letter that is due, and in how many seconds there may be another one; 0 for at once."""
        now_ms = self._clock.wall_ms()
        with self._recorder.store.reader() as connection:
            due_ms = queries.next_due(connection, receiver.name, now_ms)
            stopped = receiver.name in outbox.stopped(connection, (receiver,))
        if due_ms is None or due_ms > now_ms:
            return None, LOOK_AGAIN_S if due_ms is None else min(LOOK_AGAIN_S, (due_ms - now_ms) / 1000)
        if stopped:  # what was under way, or being written, when it said that it is gone
            self._write(lambda connection: outbox.bury(connection, receiver, now_ms))
            return None, LOOK_AGAIN_S
        asked = self._clock.monotonic()
        claimed = self._write(lambda connection: self._claim(connection, receiver, now_ms))
        if claimed is None:
            return None, LOOK_AGAIN_S
        if self._clock.monotonic() - asked > LEASE_MS / 4000:  # another one may have sent it, and later ones, by now
            late = claimed
            self._write(lambda connection: queries.hand_back(connection, late.letter.id, late.owner))
            return None, 0.0
        return claimed, 0.0

    def _claim(self, connection: Connection, receiver: Receiver, now_ms: int) -> Claimed | None:
        queries.release_expired(connection, now_ms, HORIZON_MS, tuple(self._under_way))
        # Every claim has an owner of its own: a lane that was late must not settle what another has taken since.
        return outbox.claim(connection, receiver.name, f"{self._owner} {next(self._claims)}", now_ms, LEASE_MS)

    def _carry(self, receiver: Receiver, claimed: Claimed) -> None:
        self._under_way.add(claimed.letter.id)
        try:
            self._settle(receiver, claimed, attempt(receiver, claimed.letter, self._clock.wall_ms() / 1000))
        finally:
            self._under_way.discard(claimed.letter.id)

    def _settle(self, receiver: Receiver, claimed: Claimed, result: Result) -> None:
        rand = random.random()  # noqa: S311 - jitter

        def write(connection: Connection) -> str:
            now_ms = self._clock.wall_ms()
            state = outbox.settle(connection, claimed, result, now_ms, rand)
            if result.gone:
                outbox.stop(connection, receiver, now_ms)
            return state

        while True:
            try:
                state = self._write(write)
            except (SwitchgearError, TimeoutError) as error:
                log.warning("how a notification for %s ended waits for the store: %s", receiver.name, error)
                if self._stopping:
                    return
                time.sleep(STORE_RETRY_S)
            else:
                break
        if not result.delivered:
            level = logging.ERROR if state == "dead" else logging.WARNING
            log.log(level, "notification %s for %s: %s (%s)", claimed.letter.id, receiver.name, result.error, state)

    def _write(self, job: Callable[[Connection], T]) -> T:
        return self._recorder.execute(job).result(WRITE_TIMEOUT_S)
