"""Whole tool calls out of the pieces that a stream sends."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from engine.core.messages import JSON


def whole_calls(pieces: Iterable[JSON]) -> tuple[JSON, ...]:
    """Put the tool calls of a stream together.

    Args:
        pieces: OpenAI-shaped tool-call deltas of one choice, in order. Those of one call share an `index`; one
            without an index is a whole call.

    Returns:
        The calls in the order they began, with their arguments joined.
    """
    calls: dict[tuple[str, int], dict[str, Any]] = {}
    for place, piece in enumerate(pieces):
        index = piece.get("index")
        key = ("index", index) if isinstance(index, int) else ("place", place)
        known = calls.setdefault(key, {})
        function = piece.get("function")
        known.update((name, value) for name, value in piece.items() if name not in ("index", "function") and value)
        if isinstance(function, dict):
            said = known.setdefault("function", {"name": "", "arguments": ""})
            said["name"] = said["name"] or function.get("name") or ""
            arguments = function.get("arguments") or ""
            said["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)
    return tuple(calls.values())
