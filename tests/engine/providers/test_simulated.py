from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import ConfigurationError
from engine.core.messages import Completion, Delta, FinishReason, Limits
from engine.core.outcomes import Category
from engine.providers.answers import Continuation, answer_text
from engine.providers.base import KINDS, build, is_async
from engine.providers.simulated import SimulatedProvider, world
from engine.providers.world import OUTAGE, Faults, Flap, Profile, World
from tests.engine.providers.contract import MODEL, Asked, call

PROMPT = "Why is the sky blue?"
TEXT = answer_text(PROMPT)


@pytest.fixture
def here() -> World:
    return World(seed=1)


@pytest.fixture
def provider(here: World) -> Iterator[Asked]:
    made = Asked(SimulatedProvider(inhabits=here))
    yield made
    made.close()


def test_a_whole_answer_and_a_stream_say_the_same(provider: Asked) -> None:
    answer, got = provider.generate(call(PROMPT)), provider.streamed(call(PROMPT))
    assert answer.text == got.text == TEXT
    assert answer.finish_reason is got.finish_reason is FinishReason.STOP
    assert answer.usage == got.deltas[-1].usage


@pytest.mark.parametrize("category", [one for one in Category if one not in (Category.OK, Category.CANCELLED)])
def test_an_outage_fails_as_it_is_told(provider: Asked, here: World, category: Category) -> None:
    here.set(MODEL, Faults(outage=1.0, outage_as=category, retry_after=3))
    failure = provider.streamed(call(PROMPT)).failure
    assert failure is not None
    assert (failure.category, failure.retry_after) == (category, 3)


def test_a_healed_model_answers_again(provider: Asked, here: World) -> None:
    here.set(MODEL, OUTAGE)
    assert provider.failure(call(PROMPT)).status_code == 503
    here.heal()
    assert provider.generate(call(PROMPT)).text == TEXT


def test_a_mixture_of_errors_keeps_its_shares(here: World) -> None:
    here.set(MODEL, Faults(errors={Category.SERVER_ERROR: 0.2, Category.CONNECTION: 0.1}))
    plays = [here.play(call(PROMPT), 0.0) for _ in range(2000)]
    seen = [play.failure.category for play in plays if play.failure]
    assert 320 < seen.count(Category.SERVER_ERROR) < 480
    assert 140 < seen.count(Category.CONNECTION) < 260


def test_a_cut_stream_keeps_what_came(provider: Asked, here: World) -> None:
    here.set(MODEL, Faults(cut_after=4))
    got = provider.streamed(call(PROMPT))
    assert got.text == " ".join(TEXT.split(" ")[:12])
    assert got.failure is not None
    assert got.failure.category is Category.TRUNCATED
    assert provider.failure(call(PROMPT)).category is Category.CONNECTION


def test_a_missing_finish_reason_is_truncated_as_a_whole_and_silent_in_a_stream(provider: Asked, here: World) -> None:
    here.set(MODEL, Faults(no_finish=1.0))
    assert provider.failure(call(PROMPT)).category is Category.TRUNCATED
    got = provider.streamed(call(PROMPT))
    assert (got.text, got.finish_reason, got.failure) == (TEXT, None, None)


@pytest.mark.parametrize(
    ("faults", "limits", "code"),
    [
        (Faults(hang=1.0), Limits(first_token=0.02), "first_token"),
        (Faults(hang=1.0), Limits(first_token=5, total=0.02), "total"),
        (Faults(slow_first_token=5), Limits(first_token=0.02), "first_token"),
        (Faults(stall_after=2), Limits(first_token=5, idle=0.02), "idle"),
    ],
)
def test_limits_are_kept_exactly(provider: Asked, here: World, faults: Faults, limits: Limits, code: str) -> None:
    here.set(MODEL, faults)
    began = time.monotonic()
    failure = provider.streamed(call(PROMPT, limits=limits)).failure
    assert failure is not None
    assert (failure.category, failure.code) == (Category.TIMEOUT, code)
    assert 0.015 < time.monotonic() - began < 0.5


def test_a_whole_answer_that_hangs_runs_into_the_answer_limit(provider: Asked, here: World) -> None:
    here.set(MODEL, Faults(hang=1.0))
    assert provider.failure(call(PROMPT, limits=Limits(answer=0.02))).code == "answer"


def test_a_rate_limit_is_exact_over_a_sliding_minute(here: World) -> None:
    here.set(MODEL, Faults(rate_limit=10))
    times = [second * 0.5 for second in range(400)]
    admitted = [now for now in times if here.play(call(PROMPT), now).failure is None]
    for start in times:
        assert sum(start <= now < start + 60 for now in admitted) <= 10
    refused = here.play(call(PROMPT), 200.0).failure
    assert refused is not None
    assert refused.category is Category.RATE_LIMITED
    assert refused.retry_after is not None
    assert here.play(call(PROMPT), 200.0 + refused.retry_after).failure is None


def test_drift_is_fluent_nonsense(provider: Asked, here: World) -> None:
    here.set(MODEL, Faults(drift=1.0))
    wanted = {"type": "json_object"}
    answer = provider.generate(call(PROMPT, response_format=wanted))
    assert answer.finish_reason is FinishReason.STOP
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.text)


def test_flapping_is_down_in_its_phases_only(here: World) -> None:
    here.set(MODEL, Faults(outage=1.0, flap=Flap(up=10, down=5)), now=100.0)
    states = [here.play(call(PROMPT), 100.0 + second).failure is None for second in range(30)]
    assert states == ([True] * 10 + [False] * 5) * 2


@pytest.mark.parametrize(
    ("continuation", "text"),
    [
        (Continuation.CONTINUE, TEXT[70:]),
        (Continuation.START_OVER, TEXT),
        (Continuation.REPEAT_TAIL, " ".join(TEXT[:70].split(" ")[-5:]) + TEXT[70:]),
    ],
)
def test_a_begun_answer_is_treated_as_told(provider: Asked, here: World, continuation: Continuation, text: str) -> None:
    here.set(MODEL, Faults(continuation=continuation))
    assert provider.generate(call(PROMPT, prefill=TEXT[:70])).text == text


def test_an_instruction_to_go_on_is_followed(provider: Asked) -> None:
    history = (
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": TEXT[:70]},
        {"role": "user", "content": "Go on exactly where you stopped."},
    )
    assert TEXT[:70] + provider.generate(call(messages=history)).text == TEXT


def test_a_tool_is_called_when_it_is_named(provider: Asked) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}}}}
    answer = provider.generate(call("please f", tools=(tool,)))
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    assert json.loads(answer.tool_calls[0]["function"]["arguments"]) == {"n": 1}


@given(st.integers(), st.floats(0, 1), st.floats(0, 1))
def test_the_same_seed_plays_the_same(seed: int, outage: float, cut: float) -> None:
    def plays() -> list[tuple[object, ...]]:
        made = World(seed, Profile(first_token=0.3, per_event=0.02, spread=0.5))
        made.set(MODEL, Faults(outage=outage, cut_after=2, cut_share=cut))
        found = [made.play(call(PROMPT), float(second)) for second in range(5)]
        return [(play.beats, play.after, play.silent, str(play.failure)) for play in found]

    assert plays() == plays()


def test_a_base_url_selects_a_world_with_its_seed() -> None:
    built = build("simulated", base_url="simulated:by-url?seed=7&latency=0", name="any")
    assert isinstance(built, SimulatedProvider)
    assert built.world is world("by-url")
    assert built.world.seed == 7
    named = build("simulated", name="by-name")
    assert isinstance(named, SimulatedProvider)
    assert named.world is world("by-name")


@pytest.mark.parametrize("base_url", ["http://127.0.0.1", "simulated:x?speed=1", "simulated:x?seed=abc"])
def test_a_base_url_of_another_shape_says_how_to_write_it(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="simulated:NAME"):
        build("simulated", base_url=base_url, name="s")


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="google-genai"):
        build("gemini", name="g")


def test_every_kind_says_whether_it_is_awaited() -> None:
    assert {kind: is_async(build(kind, api_key="k")) for kind in KINDS} == {
        "google-generativeai": False,
        "google-genai": True,
        "openai": True,
        "simulated": True,
    }


def test_a_provider_of_two_manners_is_refused() -> None:
    class Mixed:
        async def generate(self, asked: object) -> Completion:
            raise NotImplementedError

        def stream(self, asked: object) -> Iterator[Delta]:
            raise NotImplementedError

    with pytest.raises(ConfigurationError, match="must both be"):
        is_async(Mixed())
