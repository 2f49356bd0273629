"""What a request needs and whether a model has it: checked before every hop, so nothing is sent where it cannot work.

Token counts are estimates with a margin. `Calibration` narrows them per model from the usage providers report.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engine.core.messages import JSON, Request
from engine.core.policy import ModelFacts
from engine.core.value import value

CHARACTERS_PER_TOKEN = 4.0
"""Plain English and code; every current tokenizer lies between 3.5 and 4.5."""

WIDE_CHARACTERS_PER_TOKEN = 1.5
"""Text outside ASCII: CJK takes about one token a character, accented Latin about one in three."""

IMAGE_TOKENS = 1_100
"""A large image at OpenAI's high detail; Gemini counts 258 a tile."""

MESSAGE_TOKENS = 4
"""Role and separators of one message."""

MARGIN = 1.15
"""How much larger than the estimate a prompt is assumed to be."""


@value
class Needs:
    """What a request asks of a model.

    Attributes:
        input_tokens: Estimated tokens of the prompt, margin not included.
        output_tokens: Tokens of the longest answer wanted, `None` when the caller set no bound.
        features: Of `tools`, `vision`, `json_schema`, `system`.
    """

    input_tokens: int
    output_tokens: int | None
    features: frozenset[str]

    def after(self, delivered: int) -> Needs:
        """What is needed to go on after `delivered` tokens of the answer: they are read again and not written."""
        left = None if self.output_tokens is None else max(1, self.output_tokens - delivered)
        return Needs(self.input_tokens + delivered, left, self.features)


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a model cannot take a request.

    Attributes:
        features: Missing capabilities, sorted.
        too_long: The prompt (with the wanted answer) exceeds the context window.
        reason: The same in words, for the caller.
    """

    features: tuple[str, ...]
    too_long: bool
    reason: str


class Calibration:
    """The ratio of reported to estimated prompt tokens of one model, as a moving average.

    Only raises or lowers an estimate within bounds, so one odd prompt cannot shut a model out.
    """

    LOWEST, HIGHEST, WEIGHT = 0.5, 3.0, 0.05

    def __init__(self) -> None:
        self.ratio = 1.0

    def restore(self, ratio: float) -> None:
        """Go on with what an earlier process has learned."""
        self.ratio = min(max(ratio, self.LOWEST), self.HIGHEST)

    def learn(self, estimated: int, reported: int | None) -> None:
        """Take in what a provider counted for a prompt that we estimated."""
        if reported and estimated > 0:
            seen = min(max(reported / estimated, self.LOWEST), self.HIGHEST)
            self.ratio += (seen - self.ratio) * self.WEIGHT


def needs_of(request: Request) -> Needs:
    """Compute, once per request, what it needs."""
    tokens = 0.0
    features: set[str] = set()
    for message in request.messages:
        tokens += MESSAGE_TOKENS
        if message.get("role") in ("system", "developer"):
            features.add("system")
        if message.get("role") in ("tool", "function") or message.get("tool_calls"):
            features.add("tools")
            tokens += text_tokens(str(message.get("tool_calls") or ""))
        tokens += _content_tokens(message.get("content"), features)
    tools = request.tools or request.options.get("functions")
    if tools:
        features.add("tools")
        tokens += text_tokens(str(tools))
    if request.json_schema is not None:
        features.add("json_schema")
        tokens += text_tokens(str(request.json_schema))
    return Needs(int(tokens) + 1, request.longest_answer, frozenset(features))


def _content_tokens(content: Any, features: set[str]) -> float:
    if isinstance(content, str):
        return text_tokens(content)
    if not isinstance(content, Iterable):
        return 0.0
    return sum(_part_tokens(part, features) for part in content if isinstance(part, dict))


def _part_tokens(part: JSON, features: set[str]) -> float:
    if part.get("type") in ("image_url", "input_image", "image"):
        features.add("vision")
        return IMAGE_TOKENS
    text = part.get("text")
    return text_tokens(text) if isinstance(text, str) else 0.0


def text_tokens(text: str) -> float:
    """Estimate the tokens of a text without reading it character by character."""
    return len(text) / (CHARACTERS_PER_TOKEN if text.isascii() else WIDE_CHARACTERS_PER_TOKEN)


def lack(needs: Needs, model: ModelFacts, ratio: float = 1.0) -> Lack | None:
    """Say what a model lacks for a request, or `None` when it can take it.

    Args:
        needs: What the request needs.
        model: The model in question.
        ratio: The model's calibration, reported by estimated tokens.

    Returns:
        What is missing, or `None`.
    """
    missing = () if needs.features <= model.capabilities else tuple(sorted(needs.features - model.capabilities))
    prompt = int(needs.input_tokens * ratio * MARGIN)
    wanted = prompt + (needs.output_tokens or 0)
    too_long = model.context_window is not None and wanted > model.context_window
    too_much = (
        needs.output_tokens is not None
        and model.max_output_tokens is not None
        and needs.output_tokens > model.max_output_tokens
    )
    if not missing and not too_long and not too_much:
        return None
    parts = list(missing)
    if too_long:
        parts.append(f"a context window of about {wanted} tokens (it has {model.context_window})")
    if too_much:
        parts.append(f"an answer of {needs.output_tokens} tokens (it gives at most {model.max_output_tokens})")
        missing = (*missing, "output_length")
    return Lack(missing, too_long, f"{model.name} lacks {', '.join(parts)}")
