"""What the pages can do, all of it through the code that the command line and the HTTP API use as well.

Every function takes who acts. `engine.control` refuses viewers for the agreement; silences and deliveries are refused
here in the same way, so that no page has to remember it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import streamlit as st

from alerts import outbox, silences
from alerts.dispatcher import send_test
from alerts.receivers import receivers_of
from dashboard import conversation, shared
from dashboard.conversation import Exchange, Prompt
from engine.clock import SystemClock
from engine.control import Actor, Rank
from engine.core.agreement import Document
from engine.core.errors import InvalidRequest, Unauthorized
from engine.instance import Instance

WRITE_WITHIN_S: Final = 30.0


@st.cache_resource(show_spinner=False, max_entries=2)
def _instance(store: str) -> Instance:  # noqa: ARG001 - the store is the cache's key
    """What acts go through: the store's recorder and the coordinator; it serves nothing and votes on nothing."""
    return Instance.open(shared.config())


def _opened() -> Instance:
    return _instance(str(shared.config().store_path))


def set_override(
    actor: Actor, manager: str, role: str, *, reason: str, ttl: float, strict: bool, epoch: int
) -> Document:
    """Pin a model; raises as `engine.control.Control.set_override` does."""
    done = (
        _opened().control().set_override(manager, role, reason=reason, actor=actor, ttl=ttl, strict=strict, epoch=epoch)
    )
    shared.forget()
    return done


def clear_override(actor: Actor, manager: str, *, reason: str, epoch: int) -> Document:
    """Return to automatic; raises as `engine.control.Control.clear_override` does."""
    done = _opened().control().clear_override(manager, reason=reason, actor=actor, epoch=epoch)
    shared.forget()
    return done


def force_breaker(
    actor: Actor, manager: str, role: str, state: str, *, reason: str, ttl: float, epoch: int
) -> Document:
    """Force a breaker, or let it decide again; raises as `engine.control.Control.force_breaker` does."""
    done = _opened().control().force_breaker(manager, role, state, reason=reason, actor=actor, ttl=ttl, epoch=epoch)
    shared.forget()
    return done


def add_silence(actor: Actor, matchers: list[str], *, seconds: float, reason: str) -> None:
    """Silence alerts for a while; raises `ConfigurationError` for matchers that cannot be meant."""
    _require_operator(actor)
    silences.add(
        _opened().recorder, matchers, seconds=seconds, author=actor.name, reason=reason, now_ms=shared.now_ms()
    )


def end_silence(actor: Actor, silence_id: str) -> None:
    """End a silence now."""
    _require_operator(actor)
    silences.expire(_opened().recorder, silence_id, shared.now_ms())


def replay(actor: Actor, *, notification_id: str | None = None, receiver: str | None = None) -> int:
    """Make notifications that failed for good due again, with their id and bytes; a stopped receiver is told again.

    Returns:
        How many.

    Raises:
        Unauthorized: The actor may only look.
        InvalidRequest: Neither a notification nor a receiver is named.
    """
    _require_operator(actor)
    if notification_id is None and receiver is None:
        msg = "name a notification or a receiver to replay"
        raise InvalidRequest(msg)
    now = shared.now_ms()
    job = _opened().recorder.execute(
        lambda connection: outbox.replay(connection, now, receiver=receiver, identifier=notification_id)
    )
    return job.result(WRITE_WITHIN_S)


def try_receiver(actor: Actor, name: str) -> tuple[bool, str]:
    """Send one test notice to a receiver.

    Returns:
        Whether it was taken, and what happened in words.
    """
    _require_operator(actor)
    config = shared.config()
    for receiver in receivers_of(config):
        if receiver.name == name:
            if receiver.lacks:
                return False, receiver.lacks
            result = send_test(receiver, config.dashboard_url, SystemClock())
            status = f"status {result.status}" if result.status is not None else ""
            return result.delivered, result.error or status or "taken"
    msg = f"there is no receiver named {name!r} in the configuration"
    raise InvalidRequest(msg)


def converse(actor: Actor, prompt: Prompt, exchanges: Sequence[Exchange]) -> Iterator[None]:
    """Send a prompt with a key of ours, which costs money: an act too; yields whenever an answer has grown."""
    _require_operator(actor)
    return conversation.converse(shared.config(), prompt, exchanges)


def _require_operator(actor: Actor) -> None:
    if actor.rank is not Rank.OPERATOR:
        msg = f"{actor.name} may look and not act; sign in with an operator key"
        raise Unauthorized(msg)
