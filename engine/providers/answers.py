"""Deterministic answers for models that are not there: the text is a function of the prompt alone.

Simulated providers and the tests' upstream server answer from here. Two models give the same text for the same
prompt, so a stream that breaks on one and goes on at the other can be checked letter by letter.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, reduce
from typing import Any

from engine.core.messages import JSON

_VOCABULARY = (
    "the model answers with a steady voice and names what it knows about light air water stone time and trade "
    "because short waves scatter more than long ones every measured value has a source a unit and a margin "
    "first second third therefore however finally clear careful small large early late open closed bright quiet"
)
_WORDS = tuple(_VOCABULARY.split())
_NONSENSE = ("flurble", "quongo", "zzt", "marp", "vexil", "noomb", "tarkle", "ibbish")
_CHARACTERS_PER_TOKEN = 4


class Continuation(StrEnum):
    """What a model does when the answer has already begun (a trailing assistant or model message)."""

    CONTINUE = "continue"
    REFUSE = "refuse"
    START_OVER = "start_over"
    REPEAT_TAIL = "repeat_tail"


class PrefillRefused(Exception):
    """The model takes no trailing assistant message (`Continuation.REFUSE`)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says to a conversation.

    Attributes:
        text: The text after any prefill.
        tool_calls: OpenAI-shaped tool calls; the text is empty then.
        length: True when the output limit cut the text.
        input_tokens: Tokens of the prompt, about four characters each.
        output_tokens: Tokens of the answer, by the same measure.
    """

    text: str
    tool_calls: tuple[JSON, ...] = ()
    length: bool = False
    input_tokens: int = 0
    output_tokens: int = 0

    def pieces(self, words: int = 3) -> Iterator[str]:
        """The text in pieces of at most `words` words; joined they are the text."""
        parts = self.text.split(" ")
        for start in range(0, len(parts), words):
            piece = " ".join(parts[start : start + words])
            yield piece if start == 0 else " " + piece


@lru_cache(maxsize=4096)
def answer_text(prompt: str, words: int = 40) -> str:
    """About `words` words that depend on the prompt only; a shorter answer is a prefix of a longer one."""
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    rng = random.Random(digest)  # noqa: S311  # determinism is the point
    chosen = [f"[{digest[:6]}]", *(rng.choice(_WORDS) for _ in range(words))]
    return " ".join(f"{word}." if place % 11 == 10 else word for place, word in enumerate(chosen))


def nonsense(prompt: str, words: int = 12) -> str:
    """What a drifted model says: fluent in shape, empty of meaning, never JSON."""
    rng = random.Random(prompt)  # noqa: S311  # determinism is the point
    return " ".join(rng.choice(_NONSENSE) for _ in range(words))


def tokens(text: str) -> int:
    """An estimate of a text's tokens."""
    return max(1, -(-len(text) // _CHARACTERS_PER_TOKEN)) if text else 0


def text_of(content: Any) -> str:
    """The text of a message's content, which is a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""


def prompt_of(messages: Sequence[JSON]) -> str:
    """What an answer depends on: everything said but not by the model, in order."""
    said = (message for message in messages if message.get("role") not in ("assistant", "model"))
    return "\n".join(text_of(message.get("content")) for message in said)


def answer_to(
    messages: Sequence[JSON],
    *,
    tools: Sequence[JSON] = (),
    tool_choice: Any = None,
    schema: JSON | None = None,
    wants_json: bool = False,
    prefill: str = "",
    max_output_tokens: int | None = None,
    words: int = 40,
    continuation: Continuation = Continuation.CONTINUE,
) -> Answer:
    """Answer a conversation.

    Args:
        messages: OpenAI-shaped messages. One that ends with an assistant message is continued after it; so is one
            that ends with a begun answer followed by an instruction to go on.
        tools: OpenAI-shaped tools; one is called when `tool_choice` demands it or the prompt names it.
        tool_choice: OpenAI's word.
        schema: The answer is a document that follows this JSON schema.
        wants_json: The answer is some JSON document.
        prefill: Text the answer has already begun with.
        max_output_tokens: The text is cut there.
        words: Length of a free text.
        continuation: What to do with a begun answer.

    Raises:
        PrefillRefused: The answer has begun and `continuation` is `REFUSE`.
    """
    history, begun, explicit = _begun(messages, prefill, words)
    if explicit and continuation is Continuation.REFUSE:
        raise PrefillRefused
    prompt = prompt_of(history)
    asked = tokens(prompt) + tokens(begun)
    name = _called_tool(prompt, messages, tools, tool_choice)
    if name is not None and not begun:
        call = _tool_call(name, prompt, tools)
        return Answer("", (call,), input_tokens=asked, output_tokens=tokens(json.dumps(call)))
    if schema is not None:
        text = json.dumps(instance(schema))
    elif wants_json:
        text = json.dumps({"answer": answer_text(prompt, words)})
    else:
        text = answer_text(prompt, words)
    text = _after(text, begun, continuation)
    longest = None if max_output_tokens is None else max_output_tokens * _CHARACTERS_PER_TOKEN
    cut = longest is not None and len(text) > longest
    if cut:
        text = text[:longest]
    return Answer(text, (), cut, asked, tokens(text))


def _begun(messages: Sequence[JSON], prefill: str, words: int) -> tuple[Sequence[JSON], str, bool]:
    """The conversation without a begun answer, that answer, and whether it was given as a trailing message."""
    if prefill:
        return messages, prefill, True
    if messages and messages[-1].get("role") in ("assistant", "model") and text_of(messages[-1].get("content")):
        return messages[:-1], text_of(messages[-1].get("content")), True
    if len(messages) > 2 and messages[-2].get("role") in ("assistant", "model"):
        partial = text_of(messages[-2].get("content"))
        whole = answer_text(prompt_of(messages[:-2]), words)
        if partial and partial != whole and whole.startswith(partial):
            return messages[:-2], partial, False
    return messages, "", False


def _after(text: str, begun: str, continuation: Continuation) -> str:
    if not begun or not text.startswith(begun) or continuation is Continuation.START_OVER:
        return text
    if continuation is Continuation.REPEAT_TAIL:
        tail = " ".join(begun.split(" ")[-5:])
        return tail + text[len(begun) :]
    return text[len(begun) :]


def _called_tool(prompt: str, messages: Sequence[JSON], tools: Sequence[JSON], choice: Any) -> str | None:
    names = [str(tool.get("function", {}).get("name", "")) for tool in tools]
    if not names or choice == "none" or (messages and messages[-1].get("role") == "tool"):
        return None
    if isinstance(choice, Mapping):
        wanted = str(choice.get("function", {}).get("name", ""))
        return wanted if wanted in names else None
    named = next((name for name in names if name and name in prompt), None)
    return named or (names[0] if choice == "required" else None)


def _tool_call(name: str, prompt: str, tools: Sequence[JSON]) -> JSON:
    function = next(tool["function"] for tool in tools if tool.get("function", {}).get("name") == name)
    arguments = instance(function.get("parameters") or {"type": "object"})
    identity = "call_" + hashlib.sha256(f"{name}:{prompt}".encode()).hexdigest()[:16]
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def instance(schema: JSON, root: JSON | None = None) -> Any:
    """A small document that follows a JSON schema (the common keywords; enough for tests and demonstrations)."""
    root = schema if root is None else root
    if "$ref" in schema:
        steps = str(schema["$ref"]).removeprefix("#/").split("/")
        return instance(reduce(lambda part, step: part[step], steps, root), root)
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    if schema.get("enum"):
        return schema["enum"][0]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if schema.get(keyword):
            return instance(schema[keyword][0], root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = str(kind[0] if isinstance(kind, list) else kind).lower()
    return _OF_TYPE.get(kind, _string)(schema, root)


def _object(schema: JSON, root: JSON) -> Any:
    return {name: instance(part, root) for name, part in (schema.get("properties") or {}).items()}


def _array(schema: JSON, root: JSON) -> Any:
    return [instance(schema.get("items") or {}, root) for _ in range(max(1, int(schema.get("minItems", 1))))]


def _number(schema: JSON, _root: JSON) -> Any:
    return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)


def _string(schema: JSON, _root: JSON) -> Any:
    return "text".ljust(int(schema.get("minLength", 0)), "x")


_OF_TYPE: Mapping[str, Callable[[JSON, JSON], Any]] = {
    "object": _object,
    "array": _array,
    "integer": _number,
    "number": _number,
    "boolean": lambda _schema, _root: True,
    "null": lambda _schema, _root: None,
    "string": _string,
}
