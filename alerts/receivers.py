"""Who is told: the configured receivers with their channel, address and secret."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from alerts.channels import CHANNELS, Channel
from alerts.grouping import Audience, Pace
from alerts.labels import parse_matchers
from engine.config import Config, ReceiverKind, ReceiverSection
from engine.core.errors import ConfigurationError

RESEND_MS = 60_000
"""How often an Alertmanager is told again; it forgets what it is not told for five minutes."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """One receiver.

    Attributes:
        audience: Its name, matchers and pace.
        channel: How it is spoken to.
        url: Where, `None` when the variable that holds it is not set; it may hold a secret.
        secret: What signs, or PagerDuty's routing key; `None` when not set.
        allow_private: Whether private addresses and plain http are accepted.
        lacks: What is missing before it can be used, empty for nothing.
    """

    audience: Audience
    channel: Channel
    url: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    allow_private: bool = False
    lacks: str = ""

    @property
    def name(self) -> str:
        """Its name."""
        return self.audience.name

    @property
    def mark(self) -> str:
        """Changes when the address does, so that a corrected receiver is not stopped any more."""
        return hashlib.sha256((self.url or "").encode()).hexdigest()[:16]


def receivers_of(config: Config, environ: Mapping[str, str] = os.environ) -> tuple[Receiver, ...]:
    """The receivers of a configuration; what they lack is said in `Receiver.lacks` and raises nothing.

    Raises:
        ConfigurationError: A matcher cannot be read.
    """
    return tuple(_receiver(config, section, environ) for section in config.alerts.receivers)


def _receiver(config: Config, section: ReceiverSection, environ: Mapping[str, str]) -> Receiver:
    alerts = config.alerts
    try:
        matchers = parse_matchers(section.matchers)
    except ValueError as error:
        msg = f"{config.source}: alerts.receivers ({section.name}): {error}"
        raise ConfigurationError(msg) from None
    pace = Pace(*(round(s * 1000) for s in (alerts.group_wait, alerts.group_interval, alerts.repeat_interval)))
    if section.kind is ReceiverKind.ALERTMANAGER:
        pace = Pace(0, 0, RESEND_MS)
    channel = CHANNELS[section.kind.value]
    url = section.url or (environ.get(section.url_env) if section.url_env else None) or channel.default_url
    secret = environ.get(section.secret_env) if section.secret_env else None
    lacks = ""
    if not url:
        lacks = f"the variable {section.url_env} is not set: export {section.url_env}=https://…"
    elif section.kind is ReceiverKind.PAGERDUTY and not secret:
        lacks = f"the variable {section.secret_env} is not set: export {section.secret_env}=ROUTING_KEY"
    elif section.secret_env and not secret:
        lacks = f"the variable {section.secret_env} is not set: export {section.secret_env}=whsec_…"
    return Receiver(Audience(section.name, matchers, pace), channel, url or None, secret, section.allow_private, lacks)
