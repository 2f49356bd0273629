"""The fourth driver of the plan: requests fly over virtual time, so a day takes seconds and an hour's wait none.

It holds what the threaded and the asynchronous managers hold and nothing more: between two steps of a `Flight` it
plays the model's part. The play itself, `engine.providers.world`, is the one real simulated providers perform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from engine.core.effects import (
    Attempt,
    Outcome,
    Verdict,
    Wait,
)
from engine.core.messages import Call, Request, Role
from engine.core.outcomes import Category, ProviderFailure
from engine.endings import answer_limit, cancelled, failed, succeeded
from engine.exchange import Exchange, Flight, Step
from engine.judging import judged
from engine.passage import Passage
from engine.providers.simulated import completed, fresh
from engine.providers.world import Play, World
from engine.recording import Landed
from engine.simulation.clock import Timeline, VirtualClock


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that is over.

    Attributes:
        flight: Its flight.
        verdict: What was decided.
        landed: What the caller got.
        took: Seconds from call to answer.
    """

    flight: Flight
    verdict: Verdict
    landed: Landed
    took: float


Done = Callable[[Arrival], None]
Reach = Callable[[str], bool]

UNREACHABLE_AFTER: Final = 0.05
"""Seconds until a connection to a model that the network does not reach is refused."""


class Pilot:
    """Flies the requests of one exchange.

    Args:
        exchange: The manager on one instance.
        models: The models behind it.
        timeline: The world's time.
        clock: The instance's clock.
        reach: Whether the instance's network reaches a model (by name); `None`: always.

    Attributes:
        aloft: Requests on their way, by id.
        paused_until: World time until which the whole process stands still.
        on_attempt: Called with every attempt just before its model is asked.
        on_outcome: Called with how it ended, before the plan hears of it.
    """

    def __init__(
        self, exchange: Exchange, models: World, timeline: Timeline, clock: VirtualClock, reach: Reach | None = None
    ) -> None:
        self.exchange = exchange
        self.models = models
        self.timeline = timeline
        self.clock = clock
        self.reach = reach
        self.paused_until = 0.0
        self.on_attempt: Callable[[Flight, Attempt], None] | None = None
        self.on_outcome: Callable[[Flight, Attempt, Outcome], None] | None = None
        self.aloft: dict[str, Journey] = {}

    @property
    def waiting(self) -> int:
        """Requests on their way that somebody waits for; synthetic ones nobody does."""
        return sum(not journey.request.synthetic for journey in self.aloft.values())

    def send(self, request: Request, done: Done, *, streamed: bool = False, only: Role | None = None) -> Journey:
        """Send a request off; `done` is called when it is over.

        Raises:
            Overloaded: The recorder's queue is full.
        """
        flight = self.exchange.begin(request, streamed=streamed, only=only)
        journey = Journey(self, flight, done)
        self.aloft[flight.request.id] = journey
        journey.begin()
        return journey


class Journey:
    """One request between its pilot and the models."""

    def __init__(self, pilot: Pilot, flight: Flight, done: Done) -> None:
        self._pilot = pilot
        self._flight = flight
        self._done = done
        self._passage = Passage(flight) if flight.streamed else None
        self._asked = flight.started
        self._turn = 0
        self._attempt: Attempt | None = None
        self.over = False

    @property
    def request(self) -> Request:
        """The request."""
        return self._flight.request

    def begin(self) -> None:
        """Take the first step."""
        self._take(self._flight.start())

    def leave(self) -> None:
        """The caller goes away: nothing more comes, and the request is on record as cancelled."""
        if self.over:
            return
        now = self._pilot.clock.monotonic()
        step = self._flight.resume(cancelled(self._asked, now))
        self._turn += 1
        if isinstance(step, Verdict):
            self._land(step)
        else:
            self.drop()

    def drop(self) -> None:
        """The process dies: what the plan held is given back, and nobody hears of it."""
        self._turn += 1
        self.over = True
        self._flight.abandon()
        self._pilot.aloft.pop(self._flight.request.id, None)

    def _take(self, step: Step) -> None:
        while True:
            self._asked = self._pilot.clock.monotonic()
            if isinstance(step, Verdict):
                self._land(step)
                return
            if isinstance(step, Wait) and step.until <= self._asked:
                step = self._flight.resume(self._asked)
                continue
            break
        if isinstance(step, Wait):
            self._later(self._pilot.clock.when(step.until), self._woken)
        else:
            self._ask(step)

    def _later(self, when: float, job: Callable[[], None]) -> None:
        """Plan the next event of this request, unless it is over by then."""
        self._turn += 1
        turn = self._turn

        def happen() -> None:
            pilot = self._pilot
            if turn != self._turn or self.over:
                return
            if pilot.timeline.now < pilot.paused_until:
                pilot.timeline.at(pilot.paused_until, happen)
            else:
                job()

        self._pilot.timeline.at(when, happen)

    def _woken(self) -> None:
        self._take(self._flight.resume(self._pilot.clock.monotonic()))

    def _resume(self, outcome: Outcome) -> None:
        if self._pilot.on_outcome is not None and self._attempt is not None:
            self._pilot.on_outcome(self._flight, self._attempt, outcome)
        self._take(self._flight.resume(outcome))

    def _land(self, verdict: Verdict) -> None:
        self.over = True
        self._pilot.aloft.pop(self._flight.request.id, None)
        flight = self._flight
        landed, _ = flight.land(verdict) if self._passage is None else self._passage.land(verdict)
        if self._passage is not None and landed.error is None:
            self._passage.last(landed)
        self._done(Arrival(flight, verdict, landed, self._pilot.clock.monotonic() - flight.started))

    # -- what a model does -------------------------------------------------------------------------------------

    def _ask(self, attempt: Attempt) -> None:
        self._attempt = attempt
        if self._pilot.on_attempt is not None:
            self._pilot.on_attempt(self._flight, attempt)
        if self._passage is not None:
            call = self._passage.begin(attempt)
            self._walk(self._passage, self._play(attempt, call), 0)
            return
        self._whole(attempt, self._play(attempt, self._flight.call(attempt)))

    def _play(self, attempt: Attempt, call: Call) -> Play:
        pilot = self._pilot
        model = attempt.line.model.name
        if pilot.reach is not None and not pilot.reach(model):
            return Play(after=UNREACHABLE_AFTER, failure=ProviderFailure(Category.CONNECTION, detail="no route"))
        return pilot.models.play(call, pilot.timeline.now)

    def _whole(self, attempt: Attempt, play: Play) -> None:
        pilot, started, limit = self._pilot, self._asked, answer_limit(attempt)
        lasts = play.duration

        def end() -> None:
            now = pilot.clock.monotonic()
            if lasts is None or lasts > limit.seconds:
                self._resume(failed(limit, started, now))
                return
            try:
                outcome = succeeded(completed(play, attempt.line.model.name), started, now)
            except ProviderFailure as failure:
                self._resume(failed(failure, started, now))
                return
            self._resume(judged(self._flight, attempt, outcome, started))

        self._later(pilot.timeline.now + (limit.seconds if lasts is None else min(lasts, limit.seconds)), end)

    def _walk(self, passage: Passage, play: Play, place: int) -> None:
        """Wait for a stream's next event, or for the clock that runs out before it."""
        timeline = self._pilot.timeline
        beat = play.beats[place] if place < len(play.beats) else None
        wait = beat.after if beat is not None else (None if play.silent else play.after)
        patience = passage.patience()

        def late() -> None:
            passage.ran_out()
            self._resume(passage.outcome())

        def heard() -> None:
            try:
                if beat is not None:
                    passage.take(beat.delta)
                    self._walk(passage, play, place + 1)
                    return
                if play.failure is not None:
                    raise fresh(play.failure)
                passage.end()
            except ProviderFailure as failure:
                passage.fail(failure)
            self._resume(passage.outcome())

        if wait is None or wait > patience:
            self._later(timeline.now + patience, late)
        else:
            self._later(timeline.now + wait, heard)
