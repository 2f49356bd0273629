"""How votes and members are kept as text in the servers that know only text, and read back without trust.

A vote or member that cannot be read (an older or newer version's, or garbage) is left out: it is one opinion less,
while a document that cannot be read is an error, because it is the agreement itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict

from engine.core.agreement import Document, DocumentError, Member, Vote

logger = logging.getLogger(__name__)


def document_from(text: str | bytes | None) -> Document | None:
    """Read a stored document; `None` stays `None`.

    Raises:
        DocumentError: It is not one, or a newer version's.
    """
    return None if text is None else Document.from_json(text)


def require_later(expected_epoch: int | None, document: Document) -> None:
    """Refuse to write an epoch that does not follow the expected one.

    Raises:
        ValueError: It is not later.
    """
    if expected_epoch is not None and document.epoch <= expected_epoch:
        msg = f"epoch {document.epoch} does not follow epoch {expected_epoch}: a change raises the epoch"
        raise ValueError(msg)


def is_ours(stored: Document | None, written: Document) -> bool:
    """Whether a swap whose answer got lost happened: the writer's name holds a nonce of its own."""
    return stored is not None and stored.epoch == written.epoch and stored.writer == written.writer != ""


def votes_from(texts: Iterable[str | bytes]) -> list[Vote]:
    """Read stored votes, by instance; what is no vote is left out."""
    votes: list[Vote] = []
    for text in texts:
        try:
            votes.append(Vote.from_json(text))
        except DocumentError as error:
            logger.warning("left out a vote of the fleet: %s", error)
    return sorted(votes, key=lambda vote: vote.instance)


def member_text(member: Member) -> str:
    """A member as stores keep it: without what only an observer knows."""
    body = asdict(member)
    del body["alive"], body["lost_for"]
    return json.dumps(body, separators=(",", ":"), sort_keys=True)


def member_from(text: str | bytes, *, lost_for: float = 0.0) -> Member | None:
    """Read a stored member; `None` for what is none."""
    try:
        return Member(**json.loads(text), lost_for=lost_for)
    except (ValueError, TypeError, RecursionError) as error:
        logger.warning("left out a member of the fleet: %s", error)
        return None
