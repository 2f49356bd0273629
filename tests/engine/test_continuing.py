"""Going on at the other model: what it is told, what it must be able to do, what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine import DualModelManager, Request, SemanticFailure, StreamBroken
from engine.config import Config
from engine.core.continuation import INSTRUCTION
from engine.core.errors import NoCapableModel
from engine.core.messages import Call, Completion, Delta, FinishReason, Usage
from engine.core.outcomes import Category, ProviderFailure
from engine.queries import request as recorded

PRO, FLASH = "gemini-2.5-pro", "gemini-2.5-flash"
BEGUN = "The sky is blue because " * 40


class Breaking:
    """The primary breaks off after `BEGUN`; the secondary finishes. Keeps every call."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.rest = Delta("of scattering.")
        self.told: Usage | None = None

    def generate(self, call: Call) -> Completion:
        self.calls.append(call)
        return Completion("whole secret answer", FinishReason.STOP, Usage(10, 3))

    def stream(self, call: Call) -> Iterator[Delta]:
        self.calls.append(call)
        if call.model == PRO:
            yield Delta(BEGUN, usage=self.told)
            raise ProviderFailure(Category.TRUNCATED, 200)
        yield self.rest
        yield Delta(finish_reason=FinishReason.STOP, usage=Usage(300, 4))


Make = Callable[..., tuple[DualModelManager, Breaking]]


@pytest.fixture
def make(make_config: Callable[..., Config]) -> Iterator[Make]:
    made: list[DualModelManager] = []

    def manager(extra: str = "", name: str = "chat", **given: Any) -> tuple[DualModelManager, Breaking]:
        provider = Breaking()
        config = make_config(extra)
        made.append(DualModelManager.from_config(config, name, providers={"simulated": provider}, **given))
        return made[-1], provider

    yield manager
    for one in made:
        one.close()


TINY = """
[models.tiny]
provider = "simulated"
name = "tiny"
context_window = 200
capabilities = ["system"]
"""

PLAIN = """
[models.plain]
provider = "simulated"
name = "plain"
capabilities = []
"""

TOLD = (
    PLAIN.replace("[]", '["system"]')
    + """
[managers.told]
primary = "pro"
secondary = "plain"
{}
"""
)


def text_of(manager: DualModelManager, **fields: Any) -> str:
    asked = Request(({"role": "user", "content": "Why is the sky blue?"},), **fields)
    return "".join(chunk.text for chunk in manager.stream(asked))


def test_the_other_model_is_told_in_the_configured_words(make: Make) -> None:
    manager, provider = make(TOLD.format('continuation_instruction = "Weiter, genau ab hier."'), "told")
    assert text_of(manager) == BEGUN + "of scattering."
    assert provider.calls[-1].request.messages[-1]["content"] == "Weiter, genau ab hier."


def test_without_configured_words_it_is_told_in_ours_and_no_longer_than_asked_for(make: Make) -> None:
    manager, provider = make(TOLD.format(""), "told")
    text_of(manager, max_output_tokens=1000)
    assert provider.calls[-1].request.messages[-1]["content"] == INSTRUCTION
    assert provider.calls[-1].request.max_output_tokens == 1000 - len(BEGUN) // 4


def test_the_delivered_text_counts_when_the_other_models_window_is_checked(make: Make) -> None:
    small, provider = make('[managers.small]\nprimary = "pro"\nsecondary = "tiny"\n' + TINY, "small")
    with pytest.raises(StreamBroken, match=r"tiny lacks a context window of about \d+ tokens \(it has 200\)"):
        text_of(small)
    assert [call.model for call in provider.calls] == [PRO]


def test_no_capable_model_names_what_every_model_lacks(make: Make) -> None:
    small, provider = make('[managers.small]\nprimary = "tiny"\nsecondary = "plain"\n' + TINY + PLAIN, "small")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with pytest.raises(NoCapableModel, match=r"tiny lacks tools, vision, .*plain lacks tools, vision"):
        small.generate(Request(({"role": "user", "content": [image]},), tools=({"type": "function"},)))
    assert provider.calls == []


def test_the_usage_of_both_attempts_is_summed_and_the_estimate_marked(make: Make) -> None:
    manager, _ = make()
    last = list(manager.stream("Why is the sky blue?"))[-1]
    assert last.reply is not None
    assert last.reply.usage.estimated
    with manager._instance.recorder.store.reader() as connection:
        found = recorded(connection, last.reply.request_id)
    assert found is not None
    first, second = found.attempts
    assert (first.usage_estimated, second.usage_estimated) == (True, False)
    assert last.reply.usage.output_tokens == (first.output_tokens or 0) + 4


def test_what_a_broken_attempt_told_of_its_usage_is_not_estimated(make: Make) -> None:
    manager, provider = make()
    provider.told = Usage(input_tokens=77)
    last = list(manager.stream("Why is the sky blue?"))[-1]
    assert last.reply is not None
    assert (last.reply.usage.input_tokens, last.reply.usage.estimated) == (77 + 300, True)


@pytest.mark.parametrize("rest", [Delta(" \n"), Delta(refusal="I cannot go on.")], ids=["space", "refusal"])
def test_half_a_sentence_without_a_word_behind_it_is_no_answer(make: Make, rest: Delta) -> None:
    manager, provider = make()
    provider.rest = rest
    with pytest.raises(StreamBroken, match="nothing was added"):
        text_of(manager)


def test_a_validators_words_may_quote_the_answer_and_are_not_recorded(make: Make) -> None:
    class TooVague(SemanticFailure):
        """One of an application's own."""

    def check(_request: Request, reply: Any) -> None:
        raise TooVague(f"{reply.text!r} is too vague")

    manager, _ = make(validators=[check])
    with pytest.raises(SemanticFailure) as raised:
        manager.generate("hello")
    with manager._instance.recorder.store.reader() as connection:
        found = recorded(connection, raised.value.request_id or "")
    assert found is not None
    assert [attempt.error for attempt in found.attempts] == ["rejected by a validator (TooVague)"] * 2
    assert "secret" not in str(found)


class Refusing:
    """Says no, whole or in two pieces; the other model would answer."""

    def generate(self, call: Call) -> Completion:
        if call.model == PRO:
            return Completion("", FinishReason.STOP, refusal="I cannot do that.")
        return Completion("{}", FinishReason.STOP)

    def stream(self, call: Call) -> Iterator[Delta]:
        yield from (Delta(refusal="I cannot "), Delta(refusal="do that."), Delta(finish_reason=FinishReason.STOP))


def test_a_refusal_is_an_answer_and_not_asked_for_at_the_other_model(make_config: Callable[..., Config]) -> None:
    config = make_config("[managers.chat.validation]\njson_schema = true\n")
    wanted = {"type": "json_schema", "json_schema": {"name": "any", "schema": {"type": "object"}}}
    asked = Request(({"role": "user", "content": "hello"},), response_format=wanted)
    with DualModelManager.from_config(config, "chat", providers={"simulated": Refusing()}) as manager:
        whole, streamed = manager.generate(asked), list(manager.stream(asked))[-1].reply
    assert (whole.refusal, whole.attempts) == ("I cannot do that.", 1)
    assert streamed is not None
    assert (streamed.refusal, streamed.attempts) == ("I cannot do that.", 1)
