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
            without an index is a whole call. Some servers give all calls the index 0: another name with another id
            begins another call. Another id alone does not, since some make one up for every piece.

    Returns:
        The calls in the order they began, with their arguments joined.
    """
    calls: list[dict[str, Any]] = []
    begun: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        index, function = piece.get("index"), piece.get("function")
        known = begun.get(index) if isinstance(index, int) else None
        if known is None or _another(known, piece):
            known = {}
            calls.append(known)
            if isinstance(index, int):
                begun[index] = known
        known.update((name, value) for name, value in piece.items() if name not in ("index", "function") and value)
        if isinstance(function, dict):
            said = known.setdefault("function", {"name": "", "arguments": ""})
            said["name"] = said["name"] or function.get("name") or ""
            arguments = function.get("arguments") or ""
            said["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)
    return tuple(calls)


def _another(known: JSON, piece: JSON) -> bool:
    """Whether a piece with a known index begins another call."""
    function = piece.get("function")
    named = isinstance(function, dict) and bool(function.get("name"))
    return named and bool(piece.get("id")) and known.get("id") not in (None, piece["id"])
