"""What a 429 does: a shared gate, and a learned cap on the send rate of one model.

All waiters of a model honour one gate (the latest Retry-After) and are let through one by one, not at once. The
cap is AIMD: the first 429 of a minute cuts it, every good minute adds a little, so it settles just under a limit
nobody told us. A stated limit is kept exactly: never more than `requests_per_minute` slots in any 60 s. Pacing is
GCRA (ITU-T I.371): each slot has a time, and unused time is saved for at most `BURST` seconds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from dataclasses import dataclass
from math import inf

from engine.core.value import value
from engine.core.window import SlidingCounts

SPAN = 60.0
# Seconds of unused pace that may be caught up at once.
BURST = 5.0
# The cut after the first 429 of a minute (AWS adaptive retry and CUBIC use the same).
DECREASE = 0.7
# What a good minute adds: this share of the rate before the cut, at least one request a minute.
INCREASE = 0.05
# Requests a minute that are always tried: a limiter that reaches zero could never learn that the limit is gone.
MIN_CAP = 6.0
# Retry-After in whole seconds may have been rounded down.
ROUNDING = 1.0
# Up to this many seconds are added at random, so that instances do not come back in step.
JITTER = 1.0
# How far behind the next free slot, seconds, those who are turned away are told to come back one by one.
LINE = 300.0
# Waits after a 429 without Retry-After, seconds.
MIN_BACKOFF = 1.0
MAX_BACKOFF = 60.0


@value
class Slot:
    """A time at which one request may be sent.

    Attributes:
        at: Seconds; wait until then, `confirm`, then send.
        id: Unique within the throttle.
    """

    at: float
    id: int


@dataclass(frozen=True, slots=True)
class Full:
    """No slot in time.

    Attributes:
        retry_at: When the next slot would be free, seconds.
    """

    retry_at: float


class Throttle:
    """The send rate of one model on one instance. All times are seconds of one monotonic clock.

    Args:
        requests_per_minute: The stated limit, `None` when it is to be learned from 429s.

    Attributes:
        gate_until: Nothing is sent before this; `None` before the first 429.
        cap: Learned requests a minute, `None` when no 429 says so.
    """

    __slots__ = (
        "_backoff",
        "_cut_at",
        "_good_since",
        "_limit",
        "_line",
        "_line_at",
        "_next_id",
        "_pace_at",
        "_sends",
        "_stated",
        "_step",
        "_used",
        "_valid_from",
        "_waiting",
        "cap",
        "gate_until",
    )

    def __init__(self, requests_per_minute: float | None) -> None:
        self._limit = None if requests_per_minute is None else max(1, int(requests_per_minute))
        self._stated: list[float] = []  # times of slots of the last minute and ahead, ascending, if a limit is stated
        self._sends = SlidingCounts(SPAN, buckets=60)
        self._waiting: OrderedDict[int, float] = OrderedDict()  # slots neither confirmed nor released: id, time
        self._used: OrderedDict[int, float] = OrderedDict()  # confirmed slots of the last minute
        self._next_id = 0
        self._valid_from = 0  # slots with a smaller id were given before the gate moved
        self._pace_at = -inf  # GCRA's theoretical arrival time
        self._line: deque[float] = (
            deque()
        )  # times told to those who were turned away, ahead of now, if a limit is stated
        self._line_at = -inf  # when the next one who is turned away is told to come back
        self._backoff = MIN_BACKOFF
        self._step = 1.0
        self._cut_at = -inf
        self._good_since = -inf
        self.gate_until: float | None = None
        self.cap: float | None = None

    def reserve(self, now: float, latest: float) -> Slot | Full:
        """Take the earliest free slot.

        Args:
            now: Seconds.
            latest: The latest time that is still of use to the caller.

        Returns:
            The slot, at or after `now`; or `Full`, and nothing is taken.
        """
        self._forget(now)
        at = self._earliest(now)
        if at > latest:
            return Full(at)
        slot = Slot(at, self._next_id)
        self._next_id += 1
        self._waiting[slot.id] = at
        self._sends.add(now)
        if self.cap is not None:
            self._pace_at = max(self._pace_at, at) + SPAN / self.cap
        if self._limit is not None:
            insort(self._stated, at)
        return slot

    def take(self, now: float) -> bool:
        """Send at once, which is all there is to do while nothing limits the model.

        Returns:
            Whether it may be sent, and is counted; `False` when a limit, a cap or a gate has a say: `reserve` a slot.
        """
        if self.cap is not None or self._limit is not None or (self.gate_until is not None and now < self.gate_until):
            return False
        self._sends.add(now)
        return True

    def give_back(self, now: float) -> None:
        """What was just taken was not sent."""
        self._sends.amend(now, by=-1)

    def confirm(self, slot: Slot, now: float) -> bool:
        """Use a slot, on waking at its time and just before sending.

        Of a stated limit a slot takes the minute after its use, so that those who slept through their times, because
        the process stood still, count when they are sent.

        Returns:
            Whether the request may be sent. `False` when a 429 moved the gate meanwhile, or the slot was used or
            released before: reserve again.
        """
        self._forget(now)
        at = self._waiting.pop(slot.id, None)
        if at is None:
            return False
        if self._limit is not None and now > at:
            self._forget_stated(at)
            insort(self._stated, now)
        self._used[slot.id] = max(at, now)
        return True

    def release(self, slot: Slot) -> None:
        """Give back a slot whose request was not sent, confirmed or not; once, and within a minute."""
        at = self._waiting.pop(slot.id, None)
        if at is None:
            at = self._used.pop(slot.id, None)
        if at is None:
            return
        self._sends.amend(at, by=-1)
        self._forget_stated(at)
        if self.cap is not None and slot.id >= self._valid_from:
            self._pace_at -= SPAN / self.cap

    def limited(self, now: float, retry_after: float | None, rand: float) -> None:
        """Learn from a 429.

        Args:
            now: Seconds.
            retry_after: Seconds the provider asked to wait; `None` when it did not: then the wait doubles from 1 s to
                60 s with every 429 that comes after the gate of the last one.
            rand: In [0, 1).
        """
        self._cut(now)
        gate = -inf if self.gate_until is None else self.gate_until
        if retry_after is not None:
            until = now + max(0.0, retry_after) + ROUNDING + JITTER * rand
        elif now < gate:
            return  # an answer to a request from before the gate says nothing new
        else:
            until = now + self._backoff + JITTER * rand
            self._backoff = min(MAX_BACKOFF, 2 * self._backoff)
        if until > gate:
            self._move_gate(until, now)

    def sent_ok(self, now: float) -> None:
        """Learn from any answer that is not a 429: a good minute raises the cap, and one at the stated limit goes."""
        self._backoff = MIN_BACKOFF
        if self.cap is None or now - self._good_since < SPAN:
            return
        self._good_since = now
        self.cap += self._step
        if self._limit is not None and self.cap >= self._limit:
            self.cap = None

    def blocked_until(self, now: float) -> float | None:
        """When the next slot is free, seconds; `None` when a request could be sent at once."""
        self._forget(now)
        at = self._earliest(now)
        return at if at > now else None

    def come_back(self, now: float) -> float:
        """When somebody who is turned away now should ask again, seconds: behind all who were told before.

        Told the next free slot, all would meet there, and all but one be turned away again, as often as they ask. So
        they form a line that moves at the pace of sending. It keeps no slot for anybody, since nobody can be told
        from a newcomer, and it has an end, because some never come back; behind it all are told the end.
        """
        self._forget(now)
        first = self._earliest(now)
        at = max(first, self._line_at)
        if self._limit is not None:
            ahead = self._limit - len(self._line)  # as in `_earliest`, with those who were told to come
            if ahead <= 0:
                at = max(at, self._line[-self._limit] + SPAN)
            elif len(self._stated) >= ahead:
                at = max(at, self._stated[-ahead] + SPAN)
        if at > first + LINE:
            return first + LINE
        self._line_at = at if self.cap is None else at + SPAN / self.cap
        if self._limit is not None:
            self._line.append(at)
        return at

    def _earliest(self, now: float) -> float:
        at = now if self.gate_until is None else max(now, self.gate_until)
        if self.cap is not None:
            at = max(at, self._pace_at - BURST)
        # One minute after the slot that is `limit` slots back: then no 60 s hold more than `limit`.
        if self._limit is not None and len(self._stated) >= self._limit:
            at = max(at, self._stated[-self._limit] + SPAN)
        return at

    def _cut(self, now: float) -> None:
        """Lower the cap, once a minute; the first time from what was really sent in the last minute."""
        self._good_since = now
        if now - self._cut_at < SPAN:
            return
        self._cut_at = now
        rate = self.cap
        if rate is None:
            rate = float(self._sends.slide(now)[0])
            if self._limit is not None:
                rate = min(rate, float(self._limit))
        self._step = max(1.0, INCREASE * rate)
        self.cap = max(MIN_CAP, DECREASE * rate)

    def _move_gate(self, until: float, now: float) -> None:
        """Close the gate until then; slots that were not used yet are void, and pacing starts anew behind the gate."""
        self.gate_until = until
        self._valid_from = self._next_id
        for at in self._waiting.values():
            self._sends.amend(now, by=-1)
            self._forget_stated(at)
        self._waiting.clear()
        self._pace_at = until + BURST

    def _forget(self, now: float) -> None:
        """Drop what is a minute old, including slots whose owner never came back."""
        for slots in (self._waiting, self._used):
            while slots and now - next(iter(slots.values())) >= SPAN:
                slots.popitem(last=False)
        while self._line and self._line[0] <= now:
            self._line.popleft()
        if self._stated and self._stated[0] <= now - SPAN:
            del self._stated[: bisect_right(self._stated, now - SPAN)]

    def _forget_stated(self, at: float) -> None:
        place = bisect_left(self._stated, at)
        if place < len(self._stated) and self._stated[place] == at:
            del self._stated[place]
