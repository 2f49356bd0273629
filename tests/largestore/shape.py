"""What a large store is about: how many requests when, and what went wrong when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from engine.core.agreement import Document
from engine.core.messages import Role

SECOND, MINUTE = 1_000, 60_000
HOUR, DAY = 60 * MINUTE, 24 * 60 * MINUTE
BUSY, SPARE = "chat", "search"
INSTANCES = ("web-1/4711", "web-2/5122")
DAYS = 31
RECENT = 28_800
"""Requests of the last two hours in every store: four a second, the average of ten million in thirty days."""

RECENT_MS = 2 * HOUR
INCIDENT_EVERY = 6 * HOUR
FAILS, AWAY, RAMP = 30 * SECOND, 20 * MINUTE, 15 * SECOND
STORM_AFTER, STORM = 2 * HOUR, 20 * MINUTE
STAGES = (0.1, 0.25, 0.5)
EPOCHS_EACH = 2 + len(STAGES)


class Phase(IntEnum):
    """What is going on, which decides what requests look like."""

    CALM = 0
    FAILING = 1
    AWAY = 2
    RETURNING = 3
    STORM = 4


@dataclass(frozen=True)
class Stretch:
    """A time `[start_ms, end_ms)` in which nothing changes for the busy manager."""

    start_ms: int
    end_ms: int
    phase: Phase
    epoch: int
    active: str


@dataclass(frozen=True)
class Outage:
    """Primary fails at `start_ms`; `epoch` is that of the move to secondary."""

    start_ms: int
    epoch: int

    @property
    def moved_ms(self) -> int:
        return self.start_ms + FAILS

    @property
    def back_ms(self) -> int:
        return self.start_ms + AWAY

    @property
    def storm_ms(self) -> int:
        return self.start_ms + STORM_AFTER

    def documents(self) -> list[tuple[int, Document]]:
        """The agreements it led to, each with its time."""
        away = Document(
            epoch=self.epoch, active=Role.SECONDARY, share=0.0, cause="quorum", since_ms=self.moved_ms,
            moved=self.epoch, moved_by="quorum", hold=15.0, writer=INSTANCES[0], evidence={"down": 2, "live_hosts": 2},
        )  # fmt: skip
        back = away.following(
            active=Role.PRIMARY, share=STAGES[0], stage=0, ramp=self.epoch + 1, cause="failback", since_ms=self.back_ms
        )
        found = [(self.moved_ms, away), (self.back_ms, back)]
        for stage, share in enumerate(STAGES[1:], 1):
            found.append((self.back_ms + stage * RAMP, found[-1][1].following(share=share, stage=stage, cause="ramp")))
        whole = found[-1][1].following(share=1.0, stage=None, cause="ramp")
        return [*found, (self.back_ms + len(STAGES) * RAMP, whole)]


@dataclass(frozen=True)
class Chunk:
    """So many requests, evenly over `[start_ms, end_ms)`."""

    start_ms: int
    end_ms: int
    requests: int

    def at(self, place: int) -> int:
        """When a request of it finished, counted from 0."""
        return self.start_ms + place * (self.end_ms - self.start_ms) // self.requests

    def first_at(self, moment: int) -> int:
        """The first request at or after a moment."""
        return max(0, -(-(moment - self.start_ms) * self.requests // (self.end_ms - self.start_ms)))


@dataclass(frozen=True)
class Shape:
    """How large a store is, and when it ends.

    Args:
        requests: How many, synthetic ones included.
        end_ms: Its last minute, milliseconds UTC.
    """

    requests: int
    end_ms: int

    @property
    def edge_ms(self) -> int:
        """The end of its last whole minute."""
        return self.end_ms // MINUTE * MINUTE

    @property
    def start_ms(self) -> int:
        return self.edge_ms - DAYS * DAY

    def chunks(self) -> Iterator[Chunk]:
        """Its requests by day, the last two hours apart."""
        recent = min(RECENT, self.requests // 3)
        older, span = self.requests - recent, DAYS * DAY - RECENT_MS
        done = 0
        for day in range(DAYS):
            start, end = day * DAY, min((day + 1) * DAY, span)
            upto = older * end // span
            if upto > done:
                yield Chunk(self.start_ms + start, self.start_ms + end, upto - done)
            done = upto
        yield Chunk(self.edge_ms - RECENT_MS, self.edge_ms, recent)

    def outages(self) -> list[Outage]:
        """The busy manager's, oldest first; none in the last three hours."""
        first = self.edge_ms - DAYS * DAY + 3 * HOUR
        count = DAYS * DAY // INCIDENT_EVERY
        return [Outage(first + n * INCIDENT_EVERY, 2 + n * EPOCHS_EACH) for n in range(count)]

    def stretches(self) -> list[Stretch]:
        """The whole time without gaps."""
        found: list[Stretch] = []
        at, epoch = self.start_ms, 1

        def until(end_ms: int, phase: Phase, active: str = "primary") -> None:
            nonlocal at
            found.append(Stretch(at, end_ms, phase, epoch, active))
            at = end_ms

        for outage in self.outages():
            until(outage.start_ms, Phase.CALM)
            until(outage.moved_ms, Phase.FAILING)
            epoch = outage.epoch
            until(outage.back_ms, Phase.AWAY, "secondary")
            for _ in STAGES:
                epoch += 1
                until(at + RAMP, Phase.RETURNING)
            until(outage.storm_ms, Phase.CALM)
            until(outage.storm_ms + STORM, Phase.STORM)
        until(self.edge_ms, Phase.CALM)
        return found
