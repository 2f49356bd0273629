"""What a request needs of a model, wherever the caller has said it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.capability import lack, needs_of
from engine.core.messages import JSON, Request
from engine.core.policy import ModelFacts

ASKED: JSON = {"role": "user", "content": "hello"}
CALLED: JSON = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
ANSWERED: JSON = {"role": "tool", "tool_call_id": "1", "content": "done"}


@pytest.mark.parametrize("history", [(ASKED, CALLED), (ASKED, ANSWERED)], ids=["a call", "its result"])
def test_a_conversation_with_calls_needs_a_model_that_knows_tools(history: tuple[JSON, ...]) -> None:
    assert needs_of(Request(history)).features == {"tools"}
    assert needs_of(Request((ASKED,), options={"functions": [{"name": "f"}]})).features == {"tools"}
    assert needs_of(Request((ASKED,))).features == set()


@pytest.mark.parametrize(
    "said", [{"max_output_tokens": 900}, {"options": {"max_tokens": 900}}, {"options": {"max_completion_tokens": 900}}]
)
def test_the_longest_answer_counts_wherever_it_is_said(said: dict[str, Any]) -> None:
    needs = needs_of(Request((ASKED,), **said))
    assert needs.output_tokens == 900
    found = lack(needs, ModelFacts("m", "m", "p", max_output_tokens=800))
    assert found is not None
    assert found.features == ("output_length",)
