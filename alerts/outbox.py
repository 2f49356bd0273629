"""The outbox: notifications that are committed with what they tell, and settled attempt by attempt.

A letter's id is its `webhook-id` and its body never changes, so a receiver can recognise a repetition. Letters of one
order (one group of alerts at one receiver) leave one after the other, so a resolved never overtakes its firing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alerts import queries
from alerts.notices import Notice
from alerts.observations import LETTERS_LAST_MS, STOPPED_MARK
from alerts.receivers import Receiver
from engine.ids import new_id
from engine.ledger import add_total
from engine.sqlite import Connection

SCHEDULE_S = (0.0, 5.0, 30.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
"""Seconds before the first, second … attempt; the last goes on until the letter expires."""
JITTER = 0.2
LONGEST_RETRY_AFTER_S = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Letter:
    """One notification to one receiver; times are milliseconds."""

    id: str
    created_ms: int
    receiver: str
    kind: str
    order: str
    dedupe: str
    content_type: str
    body: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A letter that was taken for an attempt, and in whose name."""

    letter: Letter
    attempts: int
    expires_ms: int
    owner: str


def letters(receiver: Receiver, notice: Notice) -> list[Letter]:
    """What is put into the outbox for a notice: one letter, or for channels that speak of single alerts one each."""
    found = []
    for index, body in enumerate(receiver.channel.bodies(notice)):
        content = hashlib.sha256(body.encode()).hexdigest()[:16]
        dedupe = f"{receiver.name} {notice.key} {notice.now_ms} {index} {content}"
        found.append(
            Letter(
                new_id(),
                notice.now_ms,
                receiver.name,
                receiver.channel.kind,
                notice.key,
                dedupe,
                receiver.channel.content_type,
                body,
            )
        )
    return found


def put(connection: Connection, letter: Letter) -> None:
    """Put a letter in, inside the transaction of what it tells."""
    queries.add_outbox(
        connection,
        (
            letter.id,
            letter.created_ms,
            letter.receiver,
            letter.kind,
            letter.order,
            letter.dedupe,
            letter.content_type,
            letter.body,
            letter.created_ms,
            letter.created_ms + LETTERS_LAST_MS,
        ),
    )


def delay_s(attempts: int, retry_after: float | None, rand: float) -> float:
    """Seconds until the next attempt.

    Args:
        attempts: How many were made.
        retry_after: What the receiver asked for, seconds: a floor.
        rand: A random number in [0, 1): up to a fifth is added.
    """
    base = SCHEDULE_S[min(attempts, len(SCHEDULE_S) - 1)] * (1 + JITTER * rand)
    return max(base, min(retry_after or 0.0, LONGEST_RETRY_AFTER_S))


def claim(connection: Connection, receiver: str, owner: str, now_ms: int, lease_ms: int) -> Claimed | None:
    """Take the next letter that is due; it is nobody else's until the lease ends."""
    row = queries.claim(connection, receiver, owner, now_ms, lease_ms)
    if row is None:
        return None
    id_, created, name, kind, order, content_type, body, _, attempts, _, expires, _, _ = row
    letter = Letter(id_, created, name, kind, order, "", content_type, body)
    return Claimed(letter, attempts, expires or created + LETTERS_LAST_MS, owner)


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended: the answer's status, or what went wrong; delivered, dead at once, or to be tried again."""

    delivered: bool
    status: int | None = None
    error: str | None = None
    final: bool = False
    gone: bool = False
    retry_after: float | None = None
    duration_ms: float = 0.0


def settle(connection: Connection, claimed: Claimed, result: Result, now_ms: int, rand: float) -> str:
    """Write how an attempt ended; returns the letter's state after it."""
    attempts = claimed.attempts + 1
    next_ms = now_ms + round(delay_s(attempts, result.retry_after, rand) * 1000)
    state = "pending"
    if result.delivered:
        state, next_ms = "delivered", now_ms
    elif result.final or next_ms > claimed.expires_ms:
        state, next_ms = "dead", now_ms
    letter = claimed.letter
    written = queries.settle(
        connection,
        letter.id,
        claimed.owner,
        state=state,
        attempts=attempts,
        next_attempt_ms=next_ms,
        status=result.status,
        error=result.error,
        delivered_ms=now_ms if result.delivered else None,
    )
    if written:
        row = (letter.id, now_ms, result.status, result.error, result.duration_ms)
        queries.add_delivery(connection, row)
        outcome = {"pending": "failed"}.get(state, state)
        add_total(connection, "notifications", (letter.receiver, outcome))
    return state


def stop(connection: Connection, receiver: Receiver, now_ms: int) -> None:
    """A receiver said it is gone: nothing more is sent to it until its address changes or it is resumed."""
    queries.set_mark(connection, STOPPED_MARK + receiver.name, now_ms, receiver.mark)
    bury(connection, receiver, now_ms)


def bury(connection: Connection, receiver: Receiver, now_ms: int) -> None:
    """Give up what waits for a receiver that is gone; it can be replayed."""
    buried = queries.bury_all(connection, receiver.name, now_ms, "the receiver answered 410: it is gone")
    if buried:
        add_total(connection, "notifications", (receiver.name, "dead"), buried)


def resume(connection: Connection, name: str) -> None:
    """Send to a stopped receiver again."""
    queries.drop_mark(connection, STOPPED_MARK + name)


def replay(connection: Connection, now_ms: int, *, receiver: str | None = None, identifier: str | None = None) -> int:
    """Make dead letters due again, with their id and bytes; a receiver that was stopped is sent to again.

    Args:
        connection: Inside a transaction.
        now_ms: The time.
        receiver: Only those of this one.
        identifier: Only this letter.

    Returns:
        How many.
    """
    theirs = queries.replay(connection, now_ms, now_ms + LETTERS_LAST_MS, receiver=receiver, identifier=identifier)
    for name in {*theirs, *([receiver] if receiver else [])}:
        resume(connection, name)
    return len(theirs)


def stopped(connection: Connection, receivers: Iterable[Receiver]) -> set[str]:
    """Names of receivers that are stopped, with the address they have now."""
    marks = queries.marks(connection, STOPPED_MARK)
    known: dict[str, Any] = {receiver.name: receiver.mark for receiver in receivers}
    return {
        name.removeprefix(STOPPED_MARK)
        for name, (_, mark) in marks.items()
        if known.get(name.removeprefix(STOPPED_MARK)) == mark
    }


def tidy(connection: Connection, receivers: Sequence[Receiver], now_ms: int) -> int:
    """Leave what was meant for receivers that are configured no more, and forget that such were stopped.

    Returns:
        How many letters nobody will get.
    """
    still = stopped(connection, receivers)
    for mark in queries.marks(connection, STOPPED_MARK):
        if mark.removeprefix(STOPPED_MARK) not in still:
            queries.drop_mark(connection, mark)
    return queries.cancel_others(connection, [receiver.name for receiver in receivers], now_ms)


def shift(connection: Connection, by_ms: int) -> None:
    """The wall clock was stepped: what waits goes on waiting as long as it would have."""
    queries.shift_outbox(connection, by_ms)
