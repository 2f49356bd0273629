"""What single requests look like: some thousand of them, drawn once; every row of a store is one of these.

Durations, costs and their sums are multiples of powers of two, so that sums of them are exact in any order and can be
compared for equality.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from engine.percentiles import bucket_of
from tests.largestore.shape import Phase

PRO, FLASH = "gemini-2.5-pro", "gemini-2.5-flash"
MODELS = {"primary": PRO, "secondary": FLASH}
KINDS = 2048
"""Of every phase; a power of two."""

FAILED = "UNAVAILABLE: The model is overloaded. Please try again later."
LIMITED = "RESOURCE_EXHAUSTED: quota exceeded for requests per minute"


@dataclass
class Try:
    """One attempt; `before_ms` is how long before the end of the request it ended."""

    role: str
    category: str
    duration_ms: float
    before_ms: int = 0
    breaker_state: str = "closed"
    waited_ms: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    STATUS = {"ok": 200, "server_error": 503, "rate_limited": 429, "timeout": None, "cancelled": None}
    ERRORS = {"server_error": FAILED, "rate_limited": LIMITED, "timeout": "no first token within 30 s"}

    def row(self, kind: int, n: int, synthetic: int) -> tuple[Any, ...]:
        return (
            kind, n, self.before_ms, self.role, MODELS[self.role], self.STATUS[self.category], self.category,
            self.duration_ms, self.waited_ms, self.breaker_state, self.ERRORS.get(self.category), self.input_tokens,
            self.output_tokens, self.cost_usd, 0, synthetic,
        )  # fmt: skip


@dataclass
class Kind:
    """A request with its attempts."""

    tries: list[Try] = field(default_factory=list)
    outcome: str = "ok"
    status_code: int = 200
    code: str | None = None
    cause: str | None = None
    streamed: bool = False
    ttft_ms: float | None = None
    synthetic: bool = False

    def row(self, kind: int, chance: random.Random) -> tuple[Any, ...]:
        last = self.tries[-1] if self.tries else None
        role, model = (last.role, MODELS[last.role]) if last else ("none", "none")
        duration = sum(one.duration_ms + one.waited_ms for one in self.tries) + 0.5
        counts = last is not None and not self.synthetic
        return (
            kind, role, model, self.status_code, self.outcome, self.code, self.cause, len(self.tries),
            int(self.streamed), duration, self.ttft_ms, chance.randrange(60, 400),
            last.input_tokens if last else None, last.output_tokens if last else None, last.cost_usd if last else None,
            "stop" if self.outcome == "ok" else None, int(self.synthetic), f"{chance.getrandbits(128):032x}",
            bucket_of(duration) if counts else None,
            bucket_of(self.ttft_ms) if counts and self.ttft_ms is not None else None,
            int(self.cause is not None and self.cause not in ("probe", "ramp") and self.outcome == "ok"),
            _number(role, self.status_code, self.outcome, self.code, self.cause, self.synthetic),
            _number(role, self.outcome),
        )  # fmt: skip


_numbers: dict[tuple[Any, ...], int] = {}


def _number(*labels: Any) -> int:
    """A number for a set of labels: what has equal labels is grouped by it, faster than by the labels."""
    return _numbers.setdefault(labels, len(_numbers))


def drawn(chance: random.Random) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Every kind and its attempts as rows, the kinds of a phase beginning at `phase * KINDS`."""
    kinds, tries = [], []
    for phase in Phase:
        for place in range(KINDS):
            number = phase * KINDS + place
            kind = _kind(phase, place / KINDS, chance)
            kinds.append(kind.row(number, chance))
            tries += [one.row(number, n, int(kind.synthetic)) for n, one in enumerate(kind.tries, 1)]
    return kinds, tries


def _kind(phase: Phase, luck: float, chance: random.Random) -> Kind:
    if phase is Phase.CALM:
        return _calm(luck, chance)
    if phase is Phase.FAILING:
        return _rescued("server_error", chance) if luck < 0.85 else _failed(chance)
    if phase is Phase.AWAY:
        if luck < 0.02:
            return _rescued("server_error", chance, cause="probe", state="half_open")
        return _answered("secondary", chance) if luck < 0.98 else _failed(chance, "secondary")
    if phase is Phase.RETURNING:
        if luck < 0.3:
            return _answered("primary", chance)
        return _answered("secondary", chance, cause="ramp")
    if luck < 0.6:
        return _answered("primary", chance)
    return _rescued("rate_limited", chance) if luck < 0.8 else _shed(luck)


def _calm(luck: float, chance: random.Random) -> Kind:
    if luck < 0.005:
        return _rescued("timeout" if luck < 0.002 else "server_error", chance)
    if luck < 0.007:
        return _failed(chance)
    if luck < 0.01:
        kind = _answered("primary", chance)
        return Kind(kind.tries, "cancelled", 499, "client_cancelled")
    if luck < 0.012:
        return Kind([], "error", 400, "no_capable_model")
    kind = _answered("primary", chance)
    kind.synthetic = luck < 0.015
    return kind


def _answered(role: str, chance: random.Random, cause: str | None = None) -> Kind:
    """A good answer; durations are in eighths of a millisecond."""
    middle = 2000.0 if role == "primary" else 800.0
    one = Try(role, "ok", round(8 * middle * chance.lognormvariate(0.0, 0.5)) / 8)
    one.input_tokens, one.output_tokens = chance.randrange(50, 4000), chance.randrange(10, 900)
    one.cost_usd = chance.randrange(1, 40_000) / 2**20
    kind = Kind([one], cause=cause, streamed=chance.random() < 0.4)
    if kind.streamed:
        kind.ttft_ms = round(8 * one.duration_ms * chance.uniform(0.1, 0.4)) / 8
    return kind


def _rescued(category: str, chance: random.Random, cause: str | None = None, state: str = "closed") -> Kind:
    kind = _answered("secondary", chance, cause or category)
    answer = kind.tries[0]
    length = 30_000.0 if category == "timeout" else round(8 * chance.uniform(40, 300)) / 8
    failed = Try("primary", category, length, int(answer.duration_ms), state)
    kind.tries = [failed, answer]
    return kind


def _failed(chance: random.Random, role: str = "primary") -> Kind:
    other = "secondary" if role == "primary" else "primary"
    tries = [Try(role, "server_error", 120.5, 300), Try(other, "server_error", 90.0 + chance.randrange(100), 0)]
    return Kind(tries, "error", 502, "provider_error")


def _shed(luck: float) -> Kind:
    if luck < 0.9:
        return Kind([], "shed", 429, "rate_limited")
    return Kind([Try("primary", "rate_limited", 45.25, waited_ms=5000.0)], "shed", 429, "rate_limited")
