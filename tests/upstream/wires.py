"""The two wire formats, as pure functions: a request body to what it asks, an answer to its events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from engine.providers.answers import Answer, answer_to
from tests.upstream.faults import ERRORS, Fault

_FINISH_NUMBER = {
    "STOP": 1,
    "MAX_TOKENS": 2,
    "SAFETY": 3,
    "RECITATION": 4,
    "OTHER": 5,
    "MALFORMED_FUNCTION_CALL": 10,
}
_MODES = {1: "AUTO", 2: "ANY", 3: "NONE"}


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream; `text` marks the ones that faults count."""

    data: Any
    text: bool = False


class Wire(Protocol):
    """One provider's format."""

    name: str

    def answer(self, body: Mapping[str, Any], fault: Fault) -> Answer: ...

    def error(self, name: str) -> Any: ...

    def whole(self, answer: Answer, fault: Fault, model: str) -> Any: ...

    def events(self, answer: Answer, fault: Fault, model: str) -> Iterator[Event]: ...


class OpenAI:
    """`/v1/chat/completions`."""

    name = "openai"

    def answer(self, body: Mapping[str, Any], fault: Fault) -> Answer:
        wanted = body.get("response_format") or {}
        return answer_to(
            body["messages"],
            tools=body.get("tools") or (),
            tool_choice=body.get("tool_choice"),
            schema=(wanted.get("json_schema") or {}).get("schema"),
            wants_json=wanted.get("type") in ("json_object", "json_schema"),
            max_output_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
            words=fault.words,
            continuation=fault.continuation,
        )

    def error(self, name: str) -> Any:
        return ERRORS[name].openai

    def whole(self, answer: Answer, fault: Fault, model: str) -> Any:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        if answer.tool_calls:
            message["tool_calls"] = list(answer.tool_calls)
        choice = {"index": 0, "message": message, "finish_reason": self._finish(answer, fault), "logprobs": None}
        body = {**self._head(answer, fault, model, "chat.completion"), "choices": [choice]}
        return body if fault.no_usage else {**body, "usage": self._usage(answer)}

    def events(self, answer: Answer, fault: Fault, model: str) -> Iterator[Event]:
        head = self._head(answer, fault, model, "chat.completion.chunk")

        def chunk(delta: Mapping[str, Any], finish: str | None = None) -> Any:
            return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

        yield Event(chunk({"role": "assistant", "content": ""}))
        for number in range(fault.thoughts):
            yield Event(chunk({"reasoning_content": f"thought {number} "}))
        pieces = list(answer.pieces(fault.words_per_event)) if answer.text else []
        for piece in pieces[: 1 if fault.safety else None]:
            yield Event(chunk({"content": piece}), text=True)
        for place, call in enumerate(answer.tool_calls):
            function = call["function"]
            opened = {**call, "index": place, "function": {"name": function["name"], "arguments": ""}}
            yield Event(chunk({"tool_calls": [opened]}), text=True)
            for letters in (function["arguments"][:3], function["arguments"][3:]):
                yield Event(chunk({"tool_calls": [{"index": place, "function": {"arguments": letters}}]}), text=True)
        if not fault.no_finish:
            yield Event(chunk({}, self._finish(answer, fault)))
        if not (fault.no_usage or fault.no_finish):
            yield Event({**head, "choices": [], "usage": self._usage(answer)})
        if not fault.no_done:
            yield Event("[DONE]")

    @staticmethod
    def _head(answer: Answer, fault: Fault, model: str, kind: str) -> dict[str, Any]:
        identity = f"chatcmpl-{answer.input_tokens}-{answer.output_tokens}"
        return {"id": identity, "object": kind, "created": 1_750_000_000, "model": model, **fault.extra}

    @staticmethod
    def _usage(answer: Answer) -> Mapping[str, int]:
        total = answer.input_tokens + answer.output_tokens
        return {
            "prompt_tokens": answer.input_tokens,
            "completion_tokens": answer.output_tokens,
            "total_tokens": total,
        }

    @staticmethod
    def _finish(answer: Answer, fault: Fault) -> str | None:
        if fault.finish or fault.no_finish:
            return fault.finish or None
        if fault.safety:
            return "content_filter"
        if answer.tool_calls:
            return "tool_calls"
        return "length" if answer.length else "stop"


class Gemini:
    """`models/{m}:generateContent` and `:streamGenerateContent`.

    Args:
        numbers: Enums are integers, as the old library's REST transport asks for.
    """

    name = "gemini"

    def __init__(self, *, numbers: bool = False) -> None:
        self._numbers = numbers

    def answer(self, body: Mapping[str, Any], fault: Fault) -> Answer:
        config = body.get("generationConfig") or {}
        schema = config.get("responseJsonSchema") or config.get("responseSchema")
        tools = [one for tool in body.get("tools") or () for one in tool.get("functionDeclarations") or ()]
        return answer_to(
            list(self._messages(body)),
            tools=[{"type": "function", "function": self._function(one)} for one in tools],
            tool_choice=self._choice(body),
            schema=_words_for_types(schema) if schema else None,
            wants_json=config.get("responseMimeType") == "application/json",
            max_output_tokens=config.get("maxOutputTokens"),
            words=fault.words,
            continuation=fault.continuation,
        )

    @staticmethod
    def _function(declared: Mapping[str, Any]) -> Mapping[str, Any]:
        parameters = declared.get("parametersJsonSchema") or declared.get("parameters")
        return {"name": declared["name"], "parameters": _words_for_types(parameters) if parameters else None}

    @staticmethod
    def _messages(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        instruction = body.get("systemInstruction")
        contents: Sequence[Mapping[str, Any]] = [*([{**instruction, "role": "system"}] if instruction else [])]
        for content in [*contents, *body["contents"]]:
            parts = content.get("parts") or ()
            role = "assistant" if content.get("role") == "model" else content.get("role", "user")
            if any("functionResponse" in part for part in parts):
                yield {"role": "tool", "content": "".join(json.dumps(part["functionResponse"]) for part in parts)}
            else:
                yield {"role": role, "content": "".join(part.get("text", "") for part in parts)}

    @staticmethod
    def _choice(body: Mapping[str, Any]) -> Any:
        config = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
        mode = config.get("mode")
        mode = _MODES.get(mode, mode) if isinstance(mode, int) else mode
        allowed = config.get("allowedFunctionNames") or ()
        if mode == "ANY":
            return {"type": "function", "function": {"name": allowed[0]}} if allowed else "required"
        return "none" if mode == "NONE" else None

    def error(self, name: str) -> Any:
        return ERRORS[name].gemini

    def whole(self, answer: Answer, fault: Fault, model: str) -> Any:
        if fault.blocked:
            return self._blocked(answer, model)
        thoughts = [{"text": f"thought {number} ", "thought": True} for number in range(fault.thoughts)]
        parts = thoughts + self._calls(answer) + ([{"text": answer.text}] if answer.text else [])
        return self._body(answer, fault, model, parts, last=True)

    def events(self, answer: Answer, fault: Fault, model: str) -> Iterator[Event]:
        if fault.blocked:
            yield Event(self._blocked(answer, model))
            return
        for number in range(fault.thoughts):
            yield Event(self._body(answer, fault, model, [{"text": f"thought {number} ", "thought": True}]))
        parts = [{"text": piece} for piece in answer.pieces(fault.words_per_event)] if answer.text else []
        parts += self._calls(answer)
        if fault.safety:
            parts = parts[:1]
        for part in parts[:-1]:
            yield Event(self._body(answer, fault, model, [part]), text=True)
        yield Event(self._body(answer, fault, model, parts[-1:], last=True), text=True)

    @staticmethod
    def _calls(answer: Answer) -> list[dict[str, Any]]:
        return [
            {"functionCall": {"name": call["function"]["name"], "args": json.loads(call["function"]["arguments"])}}
            for call in answer.tool_calls
        ]

    def _body(
        self, answer: Answer, fault: Fault, model: str, parts: Sequence[Mapping[str, Any]], *, last: bool = False
    ) -> Any:
        candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
        if last and not fault.no_finish:
            word = fault.finish or ("SAFETY" if fault.safety else "MAX_TOKENS" if answer.length else "STOP")
            number = _FINISH_NUMBER.get(word, fault.unknown_finish_number)
            candidate["finishReason"] = number if self._numbers else word
        body: dict[str, Any] = {"candidates": [candidate], "modelVersion": model, **fault.extra}
        if not fault.no_usage:
            body["usageMetadata"] = {"promptTokenCount": answer.input_tokens, "totalTokenCount": answer.input_tokens}
            if last:
                body["usageMetadata"] |= {
                    "candidatesTokenCount": answer.output_tokens,
                    "totalTokenCount": answer.input_tokens + answer.output_tokens,
                }
                if fault.thoughts:
                    body["usageMetadata"]["thoughtsTokenCount"] = fault.thoughts
        return body

    def _blocked(self, answer: Answer, model: str) -> Any:
        reason = 1 if self._numbers else "SAFETY"
        usage = {"promptTokenCount": answer.input_tokens, "totalTokenCount": answer.input_tokens}
        return {"promptFeedback": {"blockReason": reason}, "usageMetadata": usage, "modelVersion": model}


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WIDE = str.maketrans(_LETTERS, "äбçдéфγ漢ийкλ名νопрсτуふщ字ы😀👩")
_NARROW = {wide: narrow for narrow, wide in _WIDE.items()}


def wide(text: str) -> str:
    """A text in letters of two to four bytes."""
    return text.translate(_WIDE)


def widened(answer: Answer) -> Answer:
    """An answer in wide letters."""
    return replace(answer, text=wide(answer.text))


def narrow(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body whose wide letters are the plain ones again."""
    plain: Mapping[str, Any] = json.loads(json.dumps(body, ensure_ascii=False).translate(_NARROW))
    return plain


_CALLERS_OWN = {
    "args",
    "response",
    "parameters",
    "parametersJsonSchema",
    "responseJsonSchema",
    "responseSchema",
}


def camel(value: Any) -> Any:
    """Field names as the documentation writes them: Gemini takes `mime_type` for `mimeType`, and libraries use it."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    named = {_camel_name(key): item for key, item in value.items()}
    return {key: item if key in _CALLERS_OWN else camel(item) for key, item in named.items()}


def _camel_name(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _words_for_types(schema: Any) -> Any:
    """The old library sends a schema's types as integers or upper-case words."""
    names = {1: "string", 2: "number", 3: "integer", 4: "boolean", 5: "array", 6: "object"}
    if isinstance(schema, Mapping):
        kind = schema.get("type")
        rest = {key: _words_for_types(value) for key, value in schema.items() if key != "type"}
        if isinstance(kind, int):
            return {**rest, "type": names[kind]}
        if isinstance(kind, Mapping):
            return {**rest, "type": _words_for_types(kind)}
        return rest if kind is None else {**rest, "type": kind.lower() if isinstance(kind, str) else kind}
    return [_words_for_types(item) for item in schema] if isinstance(schema, list) else schema
