"""How another model is asked to go on where a stream broke.

The whole conversation goes along, plus the text the caller has already got. A model that takes a prefill sees that
text as the beginning of its own answer. Any other sees it as its last message, followed by an instruction to go on.
Neither way is a promise: `engine.core.seam` trims what the model says a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.core.effects import (
    Continuation,
)
from engine.core.messages import JSON, Request

INSTRUCTION = (
    "Your last message was cut off while it was sent. Continue it exactly where it stops, in the same language, "
    "even in the middle of a word. Do not repeat any of it, do not start over, write nothing about the interruption."
)
"""What a model without prefill is told."""

EMPTY = "continuation_empty"
"""Code of the failure of a continuation that adds nothing to a text in the middle of a sentence."""

_ENDS = frozenset(".!?…。！？؟।\"'”’»」』)]}>`*_~|")


def could_end(text: str) -> bool:
    """Whether a text may be a whole answer by its last character.

    Some models say nothing and stop when their own turn is given to them. That is believed where a sentence ends, since
    streams do break between the last text and the finish; half a sentence would be dressed as a whole answer. Asking
    the other way is no remedy: a text that was whole all the same is made longer by a model that is told to go on.
    """
    return text.rstrip()[-1:] in _ENDS


def continue_with(
    request: Request,
    delivered: str,
    how: Continuation,
    instruction: str = INSTRUCTION,
    *,
    spent_tokens: int | None = None,
) -> tuple[Request, str]:
    """The request that asks for the rest of an answer.

    A conversation that already ends in an assistant message (the caller's own prefill) gets the delivered text added
    to that message, since two assistant messages in a row are refused by many servers.

    Args:
        request: What the caller asked.
        delivered: The text the caller has got; not empty.
        how: As a prefill, or as history with an instruction.
        instruction: What to say after the history.
        spent_tokens: Tokens the delivered text took of `max_output_tokens`, so that the joined answer is no longer
            than the caller allowed; `None` leaves the limit as it is.

    Returns:
        The request, and the prefill of the call (empty when the delivered text is part of the history).
    """
    limit = request.max_output_tokens
    if limit is not None and spent_tokens is not None:
        request = replace(request, max_output_tokens=max(1, limit - spent_tokens))
    if spent_tokens is not None:
        request = _shortened(request, spent_tokens)
    *before, last = request.messages or ({},)
    begun = last.get("role") == "assistant" and not last.get("tool_calls")
    content = last.get("content")
    if how is Continuation.PREFILL:
        if begun and isinstance(content, str):
            return replace(request, messages=tuple(before)), content + delivered
        return request, delivered
    history: tuple[JSON, ...] = request.messages
    if begun:
        history = (*before, _extended(last, content, delivered))
    else:
        history = (*history, {"role": "assistant", "content": delivered})
    return replace(request, messages=(*history, {"role": "user", "content": instruction})), ""


def _shortened(request: Request, spent: int) -> Request:
    """The same where the limit is a field that passes through."""
    limits = {
        name: max(1, limit - spent)
        for name in ("max_completion_tokens", "max_tokens")
        if isinstance(limit := request.options.get(name), int)
    }
    return replace(request, options={**request.options, **limits}) if limits else request


def _extended(message: Mapping[str, Any], content: Any, delivered: str) -> JSON:
    if isinstance(content, list | tuple):
        return {**message, "content": [*content, {"type": "text", "text": delivered}]}
    return {**message, "content": (content or "") + delivered}
