"""Conditions of alert rules that are put together by chance, the same for the same seed."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import ClassVar


class Conditions(ABC):
    """Puts simple conditions together, as deep as a rule may well be."""

    DEPTH: ClassVar = 3
    SIMPLE: ClassVar = 0.25
    """How often one ends before it is as deep."""

    def __init__(self, seed: int) -> None:
        self.rand = random.Random(seed)

    @abstractmethod
    def simple(self) -> str:
        """A condition that is not put together."""

    def condition(self, depth: int | None = None) -> str:
        """A condition, at most so many others deep."""
        rand, left = self.rand, self.DEPTH if depth is None else depth
        if left == 0 or rand.random() < self.SIMPLE:
            return self.simple()
        one, other = self.condition(left - 1), self.condition(left - 1)
        match rand.randrange(6):
            case 0 | 1:
                return f"({one} && {other})"
            case 2 | 3:
                return f"({one} || {other})"
            case 4:
                return f"!({one})"
        return rand.choice([f"({one} ? {other} : {self.simple()})", f"(({one}) == ({other}))"])
