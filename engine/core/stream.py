"""One stream for the caller out of the streams of successive attempts.

Guarantees, whatever the attempts do:

* Nothing is passed on before the first content, so an attempt that dies early leaves no trace and its request is
  restarted elsewhere.
* What was passed on is never taken back, and a continuation adds only what is new (`engine.core.seam`).
* The finish of a choice is passed on once, and after it nothing of that choice but usage. Where more content follows
  all the same, as of servers that say a finish with every event, it was none: drivers hold it back (`unfinished`).

A driver feeds it every event of an attempt in order and passes on what it returns. It holds no more than the events
before the first content and, at a seam, text that the caller may already have.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from engine.core.effects import (
    Continuation,
)
from engine.core.messages import JSON, Delta, Request
from engine.core.outcomes import Category, ProviderFailure
from engine.core.seam import Fit, Seam

MOST_HELD = 256
"""Events before the first content that are kept. Thoughts count as one, since their pieces are held joined: a model may
think for thousands of events, and a thousand such streams must not fill the memory."""

LONGEST_HELD = 2**20
"""Characters of visible thoughts that are kept; a model that thinks longer loses the rest of them."""

DIVERGED = "continuation_diverged"
"""Code of the failure of a continuation that starts over in other words."""

_HALF = re.compile("[\ud800-\udfff]")

_FENCE = re.compile(r"\s*```json\b\s*")
_DOCUMENT = re.compile(r'\s*(?:\{|\[\s*[\[{"])')


class StreamJoiner:
    """Joins the attempts of one request.

    Args:
        request: What the caller asked; decides what can be continued.

    Attributes:
        shown: Whether content has been passed on, by any attempt.
    """

    __slots__ = ("_delivered", "_ended", "_first", "_half", "_held", "_plain", "_seam", "_seen", "_wanted", "shown")

    def __init__(self, request: Request) -> None:
        self.shown = False
        self._plain = not request.wants_json and request.options.get("n") in (None, 1)
        wanted = request.options.get("n")
        self._wanted = wanted if isinstance(wanted, int) else 1
        self._delivered: list[str] = []
        self._held: list[Delta] = []
        self._seam: Seam | None = None
        self._first = True
        self._seen: set[int] = set()
        self._ended: dict[int, Delta] = {}
        self._half: dict[int, str] = {}

    # -- what is known -----------------------------------------------------------------------------------------

    @property
    def delivered(self) -> str:
        """The text of the first choice that was passed on."""
        if len(self._delivered) > 1:
            self._delivered = ["".join(self._delivered)]
        return self._delivered[0] if self._delivered else ""

    @property
    def finished(self) -> bool:
        """Whether every choice that has begun has given its finish reason; without it the end is a break."""
        return bool(self._ended) and self._ended.keys() >= self._seen

    @property
    def complete(self) -> bool:
        """Whether every choice that was asked for has given its finish reason, so that nothing more is to come."""
        return self.finished and len(self._ended) >= self._wanted

    @property
    def restartable(self) -> bool:
        """Whether the caller has seen nothing of an answer, so that another attempt can begin from the beginning."""
        return not self.shown

    @property
    def resumable(self) -> bool:
        """Whether another model can go on after what was shown.

        True for unfinished plain text of a single choice. False inside a tool call, a refusal or sound, and inside a
        JSON document, asked for or begun.
        """
        plain = self.shown and self._plain and not self._ended
        return plain and bool(self._delivered) and not _in_document(self.delivered)

    # -- the events of an attempt ------------------------------------------------------------------------------

    def begin(self, how: Continuation | None = None) -> None:
        """Start with another attempt; what is still held of the one before is forgotten.

        Args:
            how: How the attempt was told of `delivered`; `None` for a fresh start, which needs `restartable`. A
                finish without content that the driver has held back is forgotten by it, too.

        Raises:
            ValueError: A fresh start after the caller has seen something, or a continuation of nothing.
        """
        if (how is None) != self.restartable:
            msg = "something was shown: continue it" if how is None else "nothing was shown: start afresh"
            raise ValueError(msg)
        self._held.clear()
        self._seen.clear()
        self._ended.clear()
        self._half.clear()
        self._seam = None if how is None else Seam(self.delivered, exact=how is Continuation.PREFILL)
        self._first = how is None

    def feed(self, delta: Delta) -> tuple[Delta, ...]:
        """Take in one event of the attempt.

        Args:
            delta: The event.

        Returns:
            What to pass on now, in order; events that need no change are passed on as they are.

        Raises:
            ProviderFailure: A continuation starts over in other words (category `semantic`, code `DIVERGED`). What
                was delivered stays, nothing of the attempt has been passed on.
        """
        self._seen.add(delta.index)
        if self._half or (delta.text and _HALF.search(delta.text)):
            delta = self._joined(delta)
        if delta.index in self._ended:
            if self._said_already(delta, self._ended[delta.index]):
                return self._after_finish(delta)
            del self._ended[delta.index]
        if self._seam is not None:
            return self._at_seam(self._seam, delta)
        if not self._first:
            delta = _roleless(delta)
        if not delta.has_content and delta.finish_reason is None:
            if delta.raw is None and delta.usage is None:
                return ()
            if not self.shown:
                self._hold(delta)
                return ()
        if self._held:
            deltas, self._held = (*self._held, delta), []
            return self._show(deltas)
        return self._show((delta,))

    def flush(self) -> tuple[Delta, ...]:
        """Say that the attempt is over, well or not.

        Returns:
            Always nothing: a preamble is of no use without content, and text held at a seam looks like a repeat
            of what the caller has. The next attempt goes on from `delivered` all the same.
        """
        self._held.clear()
        return ()

    # -- the parts ---------------------------------------------------------------------------------------------

    def _hold(self, delta: Delta) -> None:
        """Keep an event until there is content, as part of the one before it where both say the same kind of thing."""
        joined = _thoughts(self._held[-1], delta) if self._held else None
        if joined is not None:
            self._held[-1] = joined
        elif len(self._held) < MOST_HELD:
            self._held.append(delta)

    def _show(self, deltas: tuple[Delta, ...]) -> tuple[Delta, ...]:
        for delta in deltas:
            if delta.has_content:
                self.shown = True
            if delta.index or _more_than_text(delta):
                self._plain = False
            if delta.text and delta.index == 0:
                self._delivered.append(delta.text)
            if delta.finish_reason is not None:
                self._ended[delta.index] = delta
        return deltas

    def _joined(self, delta: Delta) -> Delta:
        """An event whose code points are whole: servers that cut by UTF-16 send the halves of one in two events.

        A half that stays alone becomes the replacement character, for no encoding has it.
        """
        text = self._half.pop(delta.index, "") + delta.text
        if text and "\ud800" <= text[-1] <= "\udbff" and delta.finish_reason is None:
            self._half[delta.index], text = text[-1], text[:-1]
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return delta if text == delta.text else _with_text(delta, text)

    def _said_already(self, delta: Delta, last: Delta) -> bool:
        """Whether an event behind the finish has nothing new: no content, or the finish's once more, or all of it."""
        if not delta.has_content:
            return True
        if delta.finish_reason is None:
            return False
        whole = delta.index == 0 and not delta.tool_calls and delta.text == self.delivered
        return whole or (delta.text == last.text and _functions(delta) == _functions(last))

    def _after_finish(self, delta: Delta) -> tuple[Delta, ...]:
        if delta.usage is None:
            return ()
        raw = delta.raw
        if raw is not None and raw.get("choices"):
            raw = {**raw, "choices": []}
        bare = raw is delta.raw and not delta.has_content and delta.finish_reason is None
        return (delta if bare else Delta(usage=delta.usage, index=delta.index, raw=raw),)

    def _at_seam(self, seam: Seam, delta: Delta) -> tuple[Delta, ...]:
        """Hold a continuation until it is known how much of it is new."""
        if delta.has_content or delta.finish_reason is not None:
            self._held.append(_roleless(delta))
        fit = seam.say(delta.text)
        if fit is Fit.OPEN and (delta.finish_reason is not None or _more_than_text(delta)):
            fit = seam.finish()
        if fit is Fit.OPEN:
            return ()
        held, self._held = self._held, []
        if fit is Fit.DIVERGED:
            raise ProviderFailure(Category.SEMANTIC, 200, detail="the continuation starts over", code=DIVERGED)
        self._seam = None
        return self._show(_trimmed(held, seam.trim))


def _in_document(text: str) -> bool:
    """Whether a text has begun as a JSON document; in a fence as models write one, only until that is closed."""
    fence = _FENCE.match(text)
    if fence is not None:
        return "```" not in text[fence.end() :]
    return _DOCUMENT.match(text) is not None


def _more_than_text(delta: Delta) -> bool:
    return bool(delta.tool_calls or delta.refusal or delta.other)


def _functions(delta: Delta) -> list[Any]:
    """What tool calls say, without their ids, which may be made up here."""
    return [call.get("function") for call in delta.tool_calls]


def _thoughts(one: Delta, two: Delta) -> Delta | None:
    """Two events without content as one; `None` where that would lose anything but a repeated role."""
    first, second = _choice(one), _choice(two)
    if first is None or second is None or one.usage or two.usage:
        return None
    if _beside(first) != _beside(second):
        return None
    fields: dict[str, Any] = dict(first.get("delta") or {})
    for name, said in (second.get("delta") or {}).items():
        before = fields.get(name)
        if said is None or (name == "role" and before == said):
            fields.setdefault(name, said)
        elif not isinstance(said, str) or not isinstance(before, str | None) or (name == "role" and before):
            return None
        elif len(before or "") + len(said) <= LONGEST_HELD:
            fields[name] = (before or "") + said
    return replace(one, life=one.life or two.life, raw=_edited(one, fields))


def _beside(choice: JSON) -> JSON:
    """What a choice says beside its delta."""
    return {name: value for name, value in choice.items() if name != "delta" and value is not None}


def _trimmed(deltas: list[Delta], trim: int) -> tuple[Delta, ...]:
    """Events without the first `trim` characters of their text; those with nothing left are dropped."""
    kept: list[Delta] = []
    for delta in deltas:
        cut = min(trim, len(delta.text))
        trim -= cut
        left = _with_text(delta, delta.text[cut:]) if cut else delta
        if left.has_content or left.finish_reason is not None or left.usage is not None:
            kept.append(left)
    return tuple(kept)


def unfinished(delta: Delta) -> Delta:
    """An event without its finish reason."""
    raw = delta.raw
    if raw is not None:
        raw = {**raw, "choices": [{**choice, "finish_reason": None} for choice in raw.get("choices") or ()]}
    return replace(delta, finish_reason=None, raw=raw)


def _with_text(delta: Delta, text: str) -> Delta:
    return replace(delta, text=text, raw=_edited(delta, {"content": text}))


def _roleless(delta: Delta) -> Delta:
    """An event of a continuation without its role: SDKs that add deltas up make `assistantassistant` of two."""
    choice = _choice(delta)
    if choice is None or "role" not in (choice.get("delta") or {}):
        return delta
    return replace(delta, raw=_edited(delta, {"role": None}))


def _choice(delta: Delta) -> JSON | None:
    """The choice of the raw chunk that a delta is about, if it has one."""
    for choice in (delta.raw or {}).get("choices") or ():
        if (choice.get("index") or 0) == delta.index:
            found: JSON = choice
            return found
    return None


def _edited(delta: Delta, fields: JSON) -> JSON | None:
    """The raw chunk with other fields in its choice's delta; a field that is `None` is left out."""
    ours = _choice(delta)
    if delta.raw is None or ours is None:
        return delta.raw
    merged = {**(ours.get("delta") or {}), **fields}
    body = {name: value for name, value in merged.items() if value is not None or name not in fields}
    choices = [{**choice, "delta": body} if choice is ours else choice for choice in delta.raw["choices"]]
    return {**delta.raw, "choices": choices}
