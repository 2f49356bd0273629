"""Who is looking: a loopback caller without keys, somebody with an operator's or viewer's key, or an OIDC user.

The session of a key is a signed cookie. Its signature is made from the keys themselves, so it survives a restart of
the dashboard and ends the moment its key is taken out of the environment. What somebody may do is decided where it
is done, in `engine.control` and in `dashboard.acts`; pages only ask in order to say so in advance.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from engine.config import Config, NamedKey, is_loopback
from engine.control import Actor, Rank

COOKIE: Final = "switchgear_session"
SESSION_S: Final = 12 * 3600


class Door(StrEnum):
    """How people come in."""

    LOOPBACK = "loopback"
    KEYS = "keys"
    OIDC = "oidc"


@dataclass(frozen=True, slots=True)
class Visit:
    """What is known about one browser.

    Attributes:
        cookies: Its cookies.
        oidc_email: The e-mail address an OIDC provider vouches for, `None` when nobody is signed in that way.
        oidc: Whether OIDC is configured.
    """

    cookies: Mapping[str, str]
    oidc_email: str | None = None
    oidc: bool = False


def door(config: Config, *, oidc: bool) -> Door:
    """How people come in with this configuration."""
    if oidc:
        return Door.OIDC
    if config.operator_keys() or config.viewer_keys() or not is_loopback(config.dashboard.host):
        return Door.KEYS
    return Door.LOOPBACK


def identify(config: Config, visit: Visit, now_s: float) -> Actor | None:
    """Who this is; `None` when they must sign in first.

    Args:
        config: The configuration, with the keys in the environment.
        visit: The browser.
        now_s: Wall time in seconds, for the session's end.
    """
    entered = session(config, visit.cookies.get(COOKIE, ""), now_s)
    if entered is not None:
        return entered
    way = door(config, oidc=visit.oidc)
    if way is Door.LOOPBACK:
        return Actor("local", Rank.OPERATOR)
    if way is Door.OIDC and visit.oidc_email:
        known = {address.casefold() for address in config.dashboard.operators}
        rank = Rank.OPERATOR if visit.oidc_email.casefold() in known else Rank.VIEWER
        return Actor(visit.oidc_email, rank)
    return None


def recognise(config: Config, key: str) -> Actor | None:
    """Whose key this is; every key is compared, each in constant time."""
    found: Actor | None = None
    for rank, keys in ((Rank.VIEWER, config.viewer_keys()), (Rank.OPERATOR, config.operator_keys())):
        for known in keys:
            if hmac.compare_digest(known.key.encode(), key.strip().encode()):
                found = Actor(known.name, rank)
    return found


def token(config: Config, key: str, now_s: float) -> str | None:
    """The session of a key, for the cookie; `None` when nobody has this key."""
    actor = recognise(config, key)
    if actor is None:
        return None
    body = json.dumps({"name": actor.name, "rank": str(actor.rank), "until": int(now_s) + SESSION_S}).encode()
    owner = next(
        known for known in _keys(config, actor.rank) if hmac.compare_digest(known.key.encode(), key.strip().encode())
    )
    return f"{_text(body)}.{_text(_sign(owner, body))}"


def session(config: Config, text: str, now_s: float) -> Actor | None:
    """Whose session a cookie is; `None` when it is none, has ended, or its key is gone."""
    body_text, _, signature = text.partition(".")
    try:
        body = base64.urlsafe_b64decode(body_text + "=" * (-len(body_text) % 4))
        told: dict[str, Any] = json.loads(body)
        name, rank, until = str(told["name"]), Rank(told["rank"]), float(told["until"])
    except (ValueError, KeyError, TypeError):
        return None
    for known in _keys(config, rank):
        if (
            known.name == name
            and hmac.compare_digest(_text(_sign(known, body)).encode(), signature.encode())
            and now_s < until
        ):
            return Actor(name, rank)
    return None


def _keys(config: Config, rank: Rank) -> Sequence[NamedKey]:
    return config.operator_keys() if rank is Rank.OPERATOR else config.viewer_keys()


def _sign(known: NamedKey, body: bytes) -> bytes:
    return hmac.new(b"switchgear session " + known.key.encode(), body, hashlib.sha256).digest()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
