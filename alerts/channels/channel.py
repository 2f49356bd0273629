"""What every channel offers. `render` is pure: the same notice gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from alerts.notices import Notice


def compact_json(body: object) -> str:
    """JSON without spaces, as it is signed and sent."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


def _same(url: str) -> str:
    return url


def _unchanged(body: str, secret: str | None) -> str:
    del secret
    return body


def _any_2xx(status: int, body: bytes) -> bool:
    del body
    return 200 <= status < 300


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to tell somebody.

    Attributes:
        kind: Its name in the configuration.
        render: A notice as the text of a body, without secrets.
        per_alert: Whether each alert of a notice is told on its own.
        address: The configured URL as the one that is called.
        complete: Puts the secret into the body where the protocol wants it there; deterministic.
        accepts: Whether an answer means that it was taken.
        signed: Whether Standard Webhooks headers sign it when there is a secret.
        send: Sends by other means than HTTP: URL, body; returns an error or `None`.
        default_url: Where to when none is configured.
        content_type: Of the body.
    """

    kind: str
    render: Callable[[Notice], str]
    per_alert: bool = False
    address: Callable[[str], str] = _same
    complete: Callable[[str, str | None], str] = _unchanged
    accepts: Callable[[int, bytes], bool] = _any_2xx
    signed: bool = False
    send: Callable[[str, str, bool], str | None] | None = None
    default_url: str | None = None
    content_type: str = "application/json"

    def bodies(self, notice: Notice) -> list[str]:
        """The bodies that tell a notice."""
        if not self.per_alert:
            return [self.render(notice)]
        return [self.render(replace(notice, lines=(line,))) for line in notice.lines]
