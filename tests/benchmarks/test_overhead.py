"""What `DualModelManager.generate` costs over calling the same provider directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engine import DualModelManager
from engine.config import Config
from engine.core.messages import Call, Completion, Delta, FinishReason, Limits, Request, Usage
from tests.benchmarks.measuring import microseconds, quietest, say

ANSWER = Completion("blue", FinishReason.STOP, Usage(3, 1))
CALL = Call(Request.of("Why is the sky blue?"), "pro", Limits())
TARGETS = {"batch": 60e-6, "commit": 250e-6}
HEADROOM = 3
"""Times the target at which the benchmark fails: the target is for a quiet machine."""
CROWDED = 10
"""The same in `make test`, where other tests use the same cores: it finds a mistake in kind, not a slow day."""


class Nothing:
    """A provider that answers without doing anything."""

    def generate(self, call: Call) -> Completion:
        return ANSWER

    def stream(self, call: Call) -> Iterator[Delta]:
        yield Delta(finish_reason=FinishReason.STOP)


def overhead(config: Config, *, windows: int) -> float:
    """Seconds that the manager adds to a call."""
    provider = Nothing()
    direct = quietest(lambda: provider.generate(CALL), windows=windows)
    with DualModelManager(config, "chat", providers={"simulated": provider}) as manager:
        return quietest(lambda: manager.generate("Why is the sky blue?"), windows=windows) - direct


@pytest.mark.parametrize("durability", ["batch", "commit"])
def test_a_call_through_the_manager_stays_cheap(make_config: Callable[..., Config], durability: str) -> None:
    added = overhead(make_config(f'[store]\ndurability = "{durability}"\n'), windows=20)
    assert added < CROWDED * TARGETS[durability]


@pytest.mark.bench
@pytest.mark.parametrize("durability", ["batch", "commit"])
def test_overhead_of_a_call(make_config: Callable[..., Config], durability: str) -> None:
    added = overhead(make_config(f'[store]\ndurability = "{durability}"\n'), windows=100)
    target = TARGETS[durability]
    say(
        f"DualModelManager.generate over the provider, {durability}",
        f"{microseconds(added)} ({added / target:.2f} of target)",
        f"≤ {target * 1e6:.0f} µs",
    )
    assert added < HEADROOM * target
