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
        self._tools = 0

    def read(self, body: Any) -> Delta:
        """What one event says.

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
            return Delta(usage=usage, life=usage is None)
        return self._candidate(candidates[0], usage)

    def completion(self, body: Any) -> Completion:
        """A whole answer.

        Raises:
            ProviderFailure: As `read`, and when no finish reason was said.
        """
        delta = self.read(body)
        if delta.finish_reason is None:
            raise _broken(code="no_finish_reason")
        tools = tuple({key: value for key, value in tool.items() if key != "index"} for tool in delta.tool_calls)
        model = str(body.get("modelVersion") or "")
        usage = delta.usage or Usage()
        return Completion(delta.text, delta.finish_reason, usage, tools, model, native_finish=self.native_finish)

    def broken(self, detail: str, *, status: int | None) -> ProviderFailure:
        """The failure of a stream whose connection or form broke: truncated, or nothing came at all."""
        if self.begun:
            return _broken("broken_stream", detail)
        return ProviderFailure(Category.CONNECTION, status, detail=detail, code="transport")

    def _error(self, body: Any) -> ProviderFailure:
        failure = classify_gemini(200, body, None, time.time())
        if self.begun:
            failure.category = Category.TRUNCATED
        return failure

    def _candidate(self, candidate: JSON, usage: Usage | None) -> Delta:
        parts = [part for part in (candidate.get("content") or {}).get("parts") or () if isinstance(part, Mapping)]
        text = "".join(part["text"] for part in parts if part.get("text") and not part.get("thought"))
        tools = tuple(self._tool(part) for part in parts if part.get("functionCall"))
        reason = self._finish(candidate.get("finishReason"))
        self.begun = self.begun or bool(text or tools)
        self.finish_reason = reason or self.finish_reason
        return Delta(text, reason, usage, tools, life=not (text or tools or reason))

    def _tool(self, part: JSON) -> JSON:
        call = part["functionCall"]
        made: dict[str, Any] = {
            "index": self._tools,
            "id": call.get("id") or f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.get("name", ""), "arguments": json.dumps(call.get("args") or {})},
        }
        if part.get("thoughtSignature"):
            made["extra_content"] = {"google": {"thought_signature": part["thoughtSignature"]}}
        self._tools += 1
        return made

    def _finish(self, native: Any) -> FinishReason | None:
        """Our word for theirs. Reasons keep being added, and all but STOP and MAX_TOKENS say that a rule cut in."""
        word = _FINISH_BY_NUMBER.get(native, str(native)) if isinstance(native, int) else str(native or "")
        if not word or word == "FINISH_REASON_UNSPECIFIED":
            return None
        self.native_finish = word
        if word in _UNUSABLE:
            raise ProviderFailure(Category.SEMANTIC, 200, detail=word, code=word)
        if word == "STOP" and self._tools:
            return FinishReason.TOOL_CALLS
        return _FINISH.get(word, FinishReason.CONTENT_FILTER)


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
