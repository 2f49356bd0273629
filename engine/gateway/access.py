"""Who may call what: keys for `/v1`, named keys for the control API, and loopback where there are none."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from engine.config import Config, NamedKey, is_loopback
from engine.control import Actor, Rank
from engine.core.errors import InvalidRequest, Unauthorized
from engine.core.messages import Role

LOOPBACK: Final = Actor("loopback", Rank.OPERATOR)
ROLE_HEADER: Final = "x-switchgear-role"


@dataclass(frozen=True, slots=True)
class Access:
    """The keys of one configuration.

    Attributes:
        callers: Keys for `/v1`.
        operators: Named keys that may act.
        viewers: Named keys that may look.
    """

    callers: tuple[str, ...]
    operators: tuple[NamedKey, ...]
    viewers: tuple[NamedKey, ...]

    @classmethod
    def of(cls, config: Config) -> Access:
        """Read the keys from the environment variables that the configuration names."""
        return cls(tuple(config.api_keys()), tuple(config.operator_keys()), tuple(config.viewer_keys()))

    def admit(self, authorization: str | None, origin: str | None = None) -> None:
        """Let a caller of `/v1` in.

        Without keys everybody on this machine may call, but not a page of another site through somebody's browser.

        Args:
            authorization: The header's value.
            origin: The header's value, which every browser sends with a POST and no page can change.

        Raises:
            Unauthorized: Keys are set and this is none of them; or there are none, and a foreign page calls.
        """
        if self.callers:
            if not _known(bearer(authorization), self.callers):
                msg = "a key is required: send `Authorization: Bearer KEY` with one of this gateway's API keys"
                raise Unauthorized(msg)
        elif origin is not None and _foreign(origin):
            msg = f"a page of {origin} may not call a gateway without keys: set API keys (server.api_keys_env)"
            raise Unauthorized(msg)

    def choose(self, connection: HTTPConnection, wanted: str) -> Role:
        """The model that a caller of `/v1` chooses instead of the agreed one: an operator's test.

        Such a request goes round failover, override and ramp, so it takes what the control API takes: an operator's
        key; where nobody has one, a call from this machine, which needs a caller's key like any other.

        Raises:
            Unauthorized: Not an operator.
            InvalidRequest: There is no such role.
        """
        authorization = connection.headers.get("authorization")
        if not _known(bearer(authorization), [one.key for one in self.operators]):
            self.admit(authorization)
            if self.actor(connection).rank is not Rank.OPERATOR:
                msg = f"{ROLE_HEADER} is an operator's test: send `Authorization: Bearer KEY` with an operator key"
                raise Unauthorized(msg)
        if wanted not in list(Role):
            msg = f"{ROLE_HEADER}: must be one of {', '.join(Role)}, or be left out so that the agreement decides"
            raise InvalidRequest(msg, param=ROLE_HEADER)
        return Role(wanted)

    def actor(self, connection: HTTPConnection) -> Actor:
        """Who calls the control API.

        Without keys a loopback caller with a loopback `Host` is an operator; that keeps a page of another site, which
        cannot choose the header, from acting through somebody's browser.

        Raises:
            Unauthorized: Nobody we know.
        """
        key = bearer(connection.headers.get("authorization"))
        for named, rank in ((self.operators, Rank.OPERATOR), (self.viewers, Rank.VIEWER)):
            found = [one for one in named if hmac.compare_digest(one.key.encode(), key.encode())]
            if found:
                return Actor(found[0].name, rank)
        if not self.operators and not self.viewers and _local(connection):
            return LOOPBACK
        msg = "an operator or viewer key is required: send `Authorization: Bearer KEY`"
        raise Unauthorized(msg)


def bearer(authorization: str | None) -> str:
    """The key of an `Authorization: Bearer KEY` header, empty when there is none."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _known(key: str, keys: Sequence[str]) -> bool:
    """Compare with every key in constant time, so that time tells nothing."""
    return any([hmac.compare_digest(key.encode(), known.encode()) for known in keys])  # noqa: C419 - all of them


def _foreign(origin: str) -> bool:
    """Whether a page comes from anywhere but this machine; one that hides it (`null`) does."""
    try:
        return not is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return True


def _local(connection: HTTPConnection) -> bool:
    client, host = connection.client, connection.headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return client is not None and is_loopback(client.host) and is_loopback(name.strip("[]") or "-")
