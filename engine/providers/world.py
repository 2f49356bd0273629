"""The world simulated models live in: what each does with a call, decided as a value before anything waits.

`World.play` turns a call into a `Play`, timed events and an ending, out of a seed, the model's `Profile` and its
current `Faults`. The asynchronous provider walks a play with real sleeps, a simulation with virtual time; both see
the same models. The n-th call of a model draws the same numbers in every run with the same seed.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from engine.core.messages import Call, Delta, FinishReason, Usage
from engine.core.outcomes import Category, ProviderFailure
from engine.providers.answers import Answer, Continuation, PrefillRefused, answer_to, nonsense, tokens

_STATUS: Mapping[Category, int | None] = {
    Category.SERVER_ERROR: 503,
    Category.TIMEOUT: 504,
    Category.CONNECTION: None,
    Category.RATE_LIMITED: 429,
    Category.QUOTA_EXHAUSTED: 429,
    Category.AUTH: 401,
    Category.INVALID_REQUEST: 400,
    Category.MODEL_UNAVAILABLE: 404,
    Category.CONTEXT_LENGTH: 400,
    Category.CONTENT_FILTER: 200,
    Category.TRUNCATED: 200,
}


@dataclass(frozen=True, slots=True)
class Profile:
    """How fast and how talkative a healthy model is.

    Attributes:
        first_token: Median seconds to the first text.
        per_event: Seconds between two events.
        spread: Sigma of the log-normal factor on both; 0 is exact.
        words: Length of a free answer in words.
        words_per_event: Words per streamed event.
        thoughts: Events that only show life before the first text.
    """

    first_token: float = 0.0
    per_event: float = 0.0
    spread: float = 0.0
    words: int = 40
    words_per_event: int = 3
    thoughts: int = 0


INSTANT = Profile()
TYPICAL = Profile(first_token=0.35, per_event=0.02, spread=0.35)


@dataclass(frozen=True, slots=True)
class Flap:
    """A schedule: `up` seconds healthy, then `down` seconds in which the faults hold, over and over."""

    up: float
    down: float

    def is_down(self, elapsed: float) -> bool:
        """Whether the faults hold `elapsed` seconds after they were set."""
        return elapsed % (self.up + self.down) >= self.up


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with a model. Shares are 0..1 of its calls, times are seconds; the default is a healthy model.

    Attributes:
        outage: Share of calls that fail with `outage_as`; 1.0 is a full outage.
        outage_as: The failure of an outage.
        errors: Further shares by category, for mixtures.
        retry_after: What failures ask callers to wait; `None` says nothing.
        rate_limit: Calls a minute before a 429, exact over a sliding minute.
        hang: Share of calls that never show any life.
        slow_first_token: Seconds on top of the first token …
        slow_share: … for this share of the calls.
        latency_factor: Factor on every latency.
        cut_after: A call ends with a broken connection after this many text events …
        cut_share: … for this share of the calls.
        stall_after: A call falls silent for ever after this many text events.
        no_finish: Share of calls that end without a finish reason.
        safety: Share of calls that end early by a content filter.
        drift: Share of answers that are fluent nonsense: no JSON, no tool call, wrong text.
        flap: Faults hold only in the down phases of this schedule.
        continuation: What the model does with a begun answer.
    """

    outage: float = 0.0
    outage_as: Category = Category.SERVER_ERROR
    errors: Mapping[Category, float] = field(default_factory=dict)
    retry_after: float | None = None
    rate_limit: float | None = None
    hang: float = 0.0
    slow_first_token: float = 0.0
    slow_share: float = 1.0
    latency_factor: float = 1.0
    cut_after: int | None = None
    cut_share: float = 1.0
    stall_after: int | None = None
    no_finish: float = 0.0
    safety: float = 0.0
    drift: float = 0.0
    flap: Flap | None = None
    continuation: Continuation = Continuation.CONTINUE


HEALTHY = Faults()
OUTAGE = Faults(outage=1.0)


@dataclass(frozen=True, slots=True)
class Beat:
    """One event of a play, `after` seconds after the one before."""

    after: float
    delta: Delta


@dataclass(frozen=True, slots=True)
class Play:
    """What a model does with one call.

    Attributes:
        beats: Events in order.
        after: Seconds from the last event to the ending.
        failure: What the ending raises, `None` for a plain end.
        silent: True when the end never comes: the model hangs.
    """

    beats: tuple[Beat, ...] = ()
    after: float = 0.0
    failure: ProviderFailure | None = None
    silent: bool = False

    @property
    def duration(self) -> float | None:
        """Seconds from call to end, `None` when it never ends."""
        return None if self.silent else sum(beat.after for beat in self.beats) + self.after


@dataclass(slots=True)
class _Model:
    profile: Profile
    faults: Faults = HEALTHY
    since: float = 0.0
    calls: Iterator[int] = field(default_factory=itertools.count)
    seen: int = 0
    admitted: deque[float] = field(default_factory=deque)


class World:
    """Simulated models by name, with faults that can be set while they serve.

    Args:
        seed: Decides every draw.
        profile: Speed of models that have no profile of their own.

    Thread-safe; every call is decided under one short lock.
    """

    def __init__(self, seed: int = 0, profile: Profile = INSTANT) -> None:
        self.seed = seed
        self._profile = profile
        self._models: dict[str, _Model] = {}
        self._lock = threading.Lock()

    def set(self, model: str, faults: Faults, now: float = 0.0) -> None:
        """Give a model faults, from `now` (seconds, the clock `play` is called with) on; `HEALTHY` heals it."""
        with self._lock:
            entry = self._model(model)
            entry.faults, entry.since = faults, now

    def change(self, model: str, **fields: object) -> Faults:
        """Change single fields of a model's faults and return the result; a flap schedule keeps its beginning."""
        with self._lock:
            entry = self._model(model)
            entry.faults = replace(entry.faults, **fields)  # type: ignore[arg-type]  # checked by replace itself
            return entry.faults

    def tune(self, model: str, profile: Profile) -> None:
        """Give a model a speed of its own."""
        with self._lock:
            self._model(model).profile = profile

    def heal(self) -> None:
        """Make every model healthy."""
        with self._lock:
            for entry in self._models.values():
                entry.faults = HEALTHY

    def faults(self, model: str) -> Faults:
        """A model's current faults."""
        with self._lock:
            return self._model(model).faults

    def calls(self, model: str) -> int:
        """How many calls a model has seen."""
        with self._lock:
            return self._model(model).seen

    def play(self, call: Call, now: float) -> Play:
        """Decide what a model does with a call that arrives `now` (seconds of any one monotonic clock)."""
        with self._lock:
            entry = self._model(call.model)
            entry.seen += 1
            rng = random.Random(f"{self.seed}:{call.model}:{next(entry.calls)}")  # noqa: S311  # determinism is the point
            faults, profile = entry.faults, entry.profile
            if faults.flap is not None and not faults.flap.is_down(now - entry.since):
                faults = HEALTHY
            limited = self._limited(entry, faults, now)
        # Drawn first and always in this order, so that a changed fault leaves the other draws as they were.
        pace = rng.lognormvariate(0.0, profile.spread) * faults.latency_factor if profile.spread else 1.0
        pace *= 1.0 if profile.spread else faults.latency_factor
        failing, ending, slow = rng.random(), rng.random(), rng.random()
        first = profile.first_token * pace + (faults.slow_first_token if slow < faults.slow_share else 0.0)
        if limited is not None:
            return Play(after=first / 4, failure=_failure(Category.RATE_LIMITED, limited))
        if failing < faults.hang:
            return Play(silent=True)
        category = _drawn(failing - faults.hang, faults)
        if category is not None:
            return Play(after=first / 4, failure=_failure(category, faults.retry_after))
        try:
            answer = _answer(call, profile, faults, drifting=ending < faults.drift)
        except PrefillRefused:
            refusal = ProviderFailure(Category.INVALID_REQUEST, 400, detail="prefill", code="prefill_not_supported")
            return Play(after=first / 4, failure=refusal)
        return _perform(answer, profile, faults, (first, profile.per_event * pace), ending)

    def _model(self, name: str) -> _Model:
        return self._models.setdefault(name, _Model(self._profile))

    @staticmethod
    def _limited(entry: _Model, faults: Faults, now: float) -> float | None:
        """Seconds until the sliding minute has room again, `None` when this call is admitted."""
        if faults.rate_limit is None:
            return None
        while entry.admitted and entry.admitted[0] <= now - 60.0:
            entry.admitted.popleft()
        if len(entry.admitted) < faults.rate_limit:
            entry.admitted.append(now)
            return None
        if faults.retry_after is not None or not entry.admitted:
            return faults.retry_after if faults.retry_after is not None else 60.0
        return entry.admitted[0] + 60.0 - now


def _drawn(drawn: float, faults: Faults) -> Category | None:
    if drawn < faults.outage:
        return faults.outage_as
    drawn -= faults.outage
    for category, share in faults.errors.items():
        if drawn < share:
            return category
        drawn -= share
    return None


def _failure(category: Category, retry_after: float | None) -> ProviderFailure:
    return ProviderFailure(
        category, _STATUS.get(category), retry_after, str(category).replace("_", " "), code="simulated"
    )


def _answer(call: Call, profile: Profile, faults: Faults, *, drifting: bool) -> Answer:
    request = call.request
    answer = answer_to(
        request.messages,
        tools=request.tools,
        tool_choice=request.tool_choice,
        schema=request.json_schema,
        wants_json=request.wants_json,
        prefill=call.prefill,
        max_output_tokens=request.max_output_tokens,
        words=profile.words,
        continuation=faults.continuation,
    )
    if not drifting:
        return answer
    text = nonsense(answer.text)
    return replace(answer, text=text, tool_calls=(), length=False, output_tokens=tokens(text))


def _perform(answer: Answer, profile: Profile, faults: Faults, times: tuple[float, float], ending: float) -> Play:
    """Lay an answer out in time and break it where the faults say so."""
    first, step = times
    life = tuple(Beat(first / (profile.thoughts + 1), Delta(life=True)) for _ in range(profile.thoughts))
    pieces = [Delta(text=piece) for piece in answer.pieces(profile.words_per_event)] if answer.text else []
    pieces += [Delta(tool_calls=({**tool, "index": place},)) for place, tool in enumerate(answer.tool_calls)]
    wait = first / (profile.thoughts + 1)
    beats = life + tuple(Beat(step if place else wait, piece) for place, piece in enumerate(pieces))
    if faults.stall_after is not None:
        return Play(beats[: len(life) + faults.stall_after], silent=True)
    if faults.cut_after is not None and ending < faults.cut_share:
        broken = ProviderFailure(Category.TRUNCATED, 200, detail="connection lost in the answer", code="cut")
        return Play(beats[: len(life) + faults.cut_after], step, broken)
    if ending < faults.no_finish:
        return Play(beats)
    reason = FinishReason.LENGTH if answer.length else FinishReason.STOP
    if answer.tool_calls:
        reason = FinishReason.TOOL_CALLS
    if ending < faults.safety:
        beats, reason = beats[: len(life) + 1], FinishReason.CONTENT_FILTER
    usage = Usage(answer.input_tokens, answer.output_tokens)
    return Play((*beats, Beat(step, Delta(finish_reason=reason, usage=usage))))
