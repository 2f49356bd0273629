"""Silences: an author, a reason, an end, and matchers of the alerts that are not announced meanwhile."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from alerts import queries
from alerts.labels import Matcher, all_match, parse_matchers
from engine.core.errors import ConfigurationError
from engine.durations import compact
from engine.ids import new_id
from engine.recorder import Recorder
from engine.sqlite import Connection

log = logging.getLogger(__name__)

LONGEST_S = 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Silence:
    """One silence; times are milliseconds."""

    id: str
    created_ms: int
    starts_ms: int
    ends_ms: int
    matchers: tuple[Matcher, ...]
    author: str
    reason: str

    def active(self, now_ms: int) -> bool:
        """Whether it is in force."""
        return self.starts_ms <= now_ms < self.ends_ms

    def covers(self, labels: Mapping[str, str]) -> bool:
        """Whether it matches an alert."""
        return all_match(self.matchers, labels)


def read(connection: Connection, now_ms: int | None = None) -> list[Silence]:
    """Silences on record, with a time only those that have not ended by then; one that cannot be read is left out."""
    found = []
    for id_, created, starts, ends, texts, author, reason in queries.silences(connection, now_ms):
        try:
            matchers = parse_matchers(json.loads(texts))
        except ValueError as error:
            log.warning("silence %s cannot be read: %s", id_, error)
            continue
        found.append(Silence(id_, created, starts, ends, matchers, author, reason))
    return found


def silenced(silences: Iterable[Silence], alerts: Mapping[str, Mapping[str, str]], now_ms: int) -> set[str]:
    """Fingerprints of the alerts that a silence covers now; `alerts` are labels by fingerprint."""
    active = [silence for silence in silences if silence.active(now_ms)]
    return {mark for mark, labels in alerts.items() if any(silence.covers(labels) for silence in active)}


def add(
    recorder: Recorder, matchers: Iterable[str], *, seconds: float, author: str, reason: str, now_ms: int
) -> Silence:
    """Make a silence that begins now.

    Args:
        recorder: Writes it.
        matchers: In Alertmanager's notation; all must hold, and at least one must demand something.
        seconds: How long it lasts.
        author: Who.
        reason: Why; for whoever wonders later.
        now_ms: The time.

    Raises:
        ConfigurationError: It would silence everything, or lacks an author, a reason or an end.
    """
    try:
        parsed = parse_matchers(matchers)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    problem = None
    if all_match(parsed, {}):
        problem = 'the matchers match everything: demand a value, such as alertname="LatencyHigh"'
    elif not author.strip() or not reason.strip():
        problem = "a silence needs an author and a reason: say who and why"
    elif not 0 < seconds <= LONGEST_S:
        problem = f"a silence lasts longer than nothing and at most {compact(LONGEST_S)}: write --for 2h"
    if problem:
        raise ConfigurationError(problem)
    silence = Silence(new_id(), now_ms, now_ms, now_ms + round(seconds * 1000), parsed, author.strip(), reason.strip())
    texts = json.dumps([str(matcher) for matcher in parsed])
    row = (silence.id, now_ms, now_ms, silence.ends_ms, texts, silence.author, silence.reason)
    recorder.execute(lambda connection: queries.add_silence(connection, row), durable=True).result(30)
    return silence


def expire(recorder: Recorder, identifier: str, now_ms: int) -> None:
    """End a silence now.

    Raises:
        ConfigurationError: There is none with this id that is still in force.
    """
    if not recorder.execute(lambda connection: queries.end_silence(connection, identifier, now_ms)).result(30):
        msg = f"there is no silence {identifier} in force: `switchgear alerts silences` lists them"
        raise ConfigurationError(msg)
