"""What callers of a simulated application ask: how often through the day, how long, and in whose conversation."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from engine.core.messages import Request

DAY: Final = 86_400.0

_TASKS: Final = (
    "Summarise this ticket in two sentences",
    "Draft a polite answer to this customer",
    "Which of our plans fits this company",
    "Translate the following note into German",
    "Explain this log line to somebody new",
    "List the risks in this change",
    "Turn these minutes into tasks",
    "Classify the mood of this review",
    "Write a test for this function",
    "Why does this query read the whole table",
)
_SUBJECTS: Final = (
    "a delayed shipment to Porto",
    "an invoice that was paid twice",
    "the new sign-in page",
    "a backup that took nine hours",
    "a broken heat pump",
    "the quarterly figures",
    "an angry letter about noise",
    "a lost parcel",
    "the migration to the new warehouse",
    "a question about warranty",
    "the office move in spring",
    "a password that expired",
)
_CONTEXT: Final = (
    "The customer wrote on Monday and again on Thursday. The first answer did not reach them, the second one was "
    "sent to an old address. Since then the account manager has changed, the contract was renewed for two years, and "
    "the price list of last autumn applies. Please keep to our tone: short, friendly, no promises about dates. "
)


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests come.

    Attributes:
        per_day: Requests a day.
        streamed: Share of streams.
        in_session: Share of requests that belong to a conversation.
        flat: The same rate at every hour, instead of nights and days.
    """

    per_day: float
    streamed: float = 0.35
    in_session: float = 0.3
    flat: bool = False

    def rate(self, second_of_day: float) -> float:
        """Requests a second at a time of day."""
        even = self.per_day / DAY
        return even if self.flat else even * day_curve(second_of_day)


def day_curve(second_of_day: float) -> float:
    """The load at a time of day next to its mean: quiet before dawn, a morning peak and a longer one after lunch."""
    hour = second_of_day / 3600 % 24
    morning = math.exp(-(((hour - 10.2) / 2.1) ** 2))
    afternoon = math.exp(-(((hour - 15.4) / 2.9) ** 2))
    evening = 0.35 * math.exp(-(((hour - 20.5) / 2.0) ** 2))
    return (0.22 + 1.55 * morning + 1.6 * afternoon + evening) / _MEAN


_MEAN: float = 1.0
_MEAN = sum(day_curve(minute * 60.0) for minute in range(1440)) / 1440


class Callers:
    """The callers of one manager.

    Args:
        load: How often and how.
        rng: Decides everything about them.
    """

    def __init__(self, load: Load, rng: random.Random) -> None:
        self._load = load
        self._rng = rng
        self._prompts = _prompts(rng)

    def pause(self, second_of_day: float) -> float:
        """Seconds until the next request: a Poisson process whose rate follows the day."""
        return self._rng.expovariate(self._load.rate(second_of_day))

    def streams(self) -> bool:
        """Whether the next request is streamed."""
        return self._rng.random() < self._load.streamed

    def request(self, identifier: str = "") -> Request:
        """The next request."""
        rng = self._rng
        prompt = self._prompts[min(int(rng.paretovariate(0.8)) - 1, len(self._prompts) - 1)]
        session = f"conversation-{rng.randrange(400)}" if rng.random() < self._load.in_session else None
        limit = rng.choice((None, 60, 200, 400))
        messages = (
            {"role": "system", "content": "You help the people of a mail-order company."},
            {"role": "user", "content": prompt},
        )
        return Request(messages, max_output_tokens=limit, session=session, id=identifier)


def _prompts(rng: random.Random) -> Sequence[str]:
    """A few hundred prompts of very different length, in an order of their own."""
    prompts = [
        f"{task}: {subject}. {_CONTEXT * size}".strip()
        for task in _TASKS
        for subject in _SUBJECTS
        for size in (0, 1, 4, 12)
    ]
    rng.shuffle(prompts)
    return prompts
