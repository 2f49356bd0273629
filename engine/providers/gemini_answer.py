"""Gemini's answer as ours, whole or event by event; shared by both Gemini providers.

Reads the REST form: enums as words, or as the integers that the old library's transport asks for.

Source: ai.google.dev/api/generate-content (v1beta).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from engine.core.classification import classify_gemini
from engine.core.messages import JSON, Completion, Delta, FinishReason, Usage
from engine.core.outcomes import Category, ProviderFailure
from engine.providers.base import cut_by

_FINISH_WORDS = (
    "FINISH_REASON_UNSPECIFIED STOP MAX_TOKENS SAFETY RECITATION OTHER LANGUAGE BLOCKLIST PROHIBITED_CONTENT SPII "
    "MALFORMED_FUNCTION_CALL IMAGE_SAFETY UNEXPECTED_TOOL_CALL"
)
_FINISH_BY_NUMBER = dict(enumerate(_FINISH_WORDS.split()))
_BLOCK_WORDS = "BLOCK_REASON_UNSPECIFIED SAFETY OTHER BLOCKLIST PROHIBITED_CONTENT IMAGE_SAFETY"
_BLOCK_BY_NUMBER = dict(enumerate(_BLOCK_WORDS.split()))
_FINISH = {"STOP": FinishReason.STOP, "MAX_TOKENS": FinishReason.LENGTH}
_UNUSABLE = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "NO_IMAGE",
    }
)
"""The model produced something that is no answer: the other model may do better, this one is not down."""


class Reader:
    """Reads one attempt's answer, whole or event by event.

    Attributes:
        finish_reason: Set once the model said why it stopped.
        begun: Whether a caller would have seen something.
        native_finish: In the provider's own word.
    """

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.native_finish = ""
        self.begun = False
        self._tools: dict[int, int] = {}

    def read(self, body: Any) -> list[Delta]:
        """What one event says, of each candidate apart; the usage is with the first.

        Raises:
            ProviderFailure: It is an error, a block, empty, or the end of something that is no answer. Before any
                content an error is what it says it is, after that it has truncated the answer.
        """
        if not isinstance(body, Mapping):
            raise _broken(code="malformed_event")
        if body.get("error"):
            raise self._error(body)
        candidates = body.get("candidates") or ()
        feedback = body.get("promptFeedback") or {}
        block = feedback.get("blockReason")
        if block and not candidates:
            word = _BLOCK_BY_NUMBER.get(block, str(block)) if isinstance(block, int) else str(block)
            raise ProviderFailure(Category.CONTENT_FILTER, 200, detail=f"prompt blocked: {word}", code=word)
        usage = _usage(body.get("usageMetadata"))
        if not candidates:
            if usage is None and not feedback:
                raise _broken(code="empty_event")
            return [Delta(usage=usage)]
        try:
            return [self._candidate(one, None if place else usage, place) for place, one in enumerate(candidates)]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise _broken(code="malformed_event") from None

    def completion(self, body: Any) -> Completion:
        """A whole answer.

        Raises:
            ProviderFailure: As `read`, and when no finish reason was said.
        """
        deltas = self.read(body)
        if any(delta.finish_reason is None for delta in deltas):
            raise _broken(code="no_finish_reason")
        first = min(deltas, key=lambda delta: delta.index)
        model = str(body.get("modelVersion") or "")
        raw = _choices(deltas) if len(deltas) > 1 else None
        usage, tools = deltas[0].usage or Usage(), _whole_calls(first)
        return Completion(first.text, first.finish_reason, usage, tools, model, raw, self.native_finish)

    def broken(self, detail: str, *, status: int | None) -> ProviderFailure:
        """The failure of a stream whose connection or form broke: truncated, or nothing came at all."""
        if self.begun:
            return _broken("broken_stream", detail)
        return ProviderFailure(Category.CONNECTION, status, detail=detail, code="transport")

    def _error(self, body: Any) -> ProviderFailure:
        failure = classify_gemini(200, body, None, time.time())
        return cut_by(failure) if self.begun else failure

    def _candidate(self, candidate: JSON, usage: Usage | None, place: int) -> Delta:
        index = candidate.get("index", place)
        index = index if isinstance(index, int) else place
        parts = [part for part in (candidate.get("content") or {}).get("parts") or () if isinstance(part, Mapping)]
        text = "".join(part["text"] for part in parts if part.get("text") and not part.get("thought"))
        tools = tuple(self._tool(part, index) for part in parts if part.get("functionCall"))
        reason = self._finish(candidate.get("finishReason"), index)
        self.begun = self.begun or bool(text or tools)
        self.finish_reason = reason or self.finish_reason
        life = bool(parts) and not (text or tools or reason)
        return Delta(text, reason, usage, tools, life, index)

    def _tool(self, part: JSON, index: int) -> JSON:
        call, place = part["functionCall"], self._tools.get(index, 0)
        made: dict[str, Any] = {
            "index": place,
            "id": call.get("id") or f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.get("name", ""), "arguments": json.dumps(call.get("args") or {})},
        }
        if part.get("thoughtSignature"):
            made["extra_content"] = {"google": {"thought_signature": part["thoughtSignature"]}}
        self._tools[index] = place + 1
        return made

    def _finish(self, native: Any, index: int) -> FinishReason | None:
        """Our word for theirs. Reasons keep being added, and all but STOP and MAX_TOKENS say that a rule cut in."""
        word = _FINISH_BY_NUMBER.get(native, str(native)) if isinstance(native, int) else str(native or "")
        if not word or word == "FINISH_REASON_UNSPECIFIED":
            return None
        self.native_finish = word
        if word in _UNUSABLE:
            raise ProviderFailure(Category.SEMANTIC, 200, detail=word, code=word)
        if word == "STOP" and self._tools.get(index):
            return FinishReason.TOOL_CALLS
        return _FINISH.get(word, FinishReason.CONTENT_FILTER)


def _whole_calls(delta: Delta) -> tuple[JSON, ...]:
    return tuple({key: value for key, value in tool.items() if key != "index"} for tool in delta.tool_calls)


def _choices(deltas: Sequence[Delta]) -> JSON:
    """Several candidates as OpenAI's body has them; a single one needs no body."""
    choices = []
    for delta in sorted(deltas, key=lambda delta: delta.index):
        message: dict[str, Any] = {"role": "assistant", "content": delta.text}
        if delta.tool_calls:
            message["tool_calls"] = list(_whole_calls(delta))
        choices.append({"index": delta.index, "message": message, "finish_reason": delta.finish_reason})
    identity = f"chatcmpl-{uuid.uuid4().hex}"
    return {"id": identity, "object": "chat.completion", "created": int(time.time()), "choices": choices}


def _broken(code: str, detail: str = "") -> ProviderFailure:
    return ProviderFailure(Category.TRUNCATED, 200, detail=detail or code.replace("_", " "), code=code)


def _usage(metadata: Any) -> Usage | None:
    if not isinstance(metadata, Mapping):
        return None
    asked = [metadata.get(key) for key in ("promptTokenCount", "toolUsePromptTokenCount")]
    answered = [metadata.get(key) for key in ("candidatesTokenCount", "thoughtsTokenCount")]
    return Usage(_total(asked), _total(answered))


def _total(counts: Sequence[Any]) -> int | None:
    known = [count for count in counts if isinstance(count, int)]
    return sum(known) if known else None
