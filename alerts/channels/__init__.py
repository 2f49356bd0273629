"""The channels, one file each: how a notice becomes bytes, and what counts as taken. To add one, copy a neighbour."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from alerts.channels import alertmanager, apprise_channel, pagerduty, slack, standard, webhook
from alerts.channels.channel import Channel

__all__ = ["CHANNELS", "Channel"]

CHANNELS: Mapping[str, Channel] = MappingProxyType(
    {
        module.CHANNEL.kind: module.CHANNEL
        for module in (webhook, standard, slack, pagerduty, alertmanager, apprise_channel)
    }
)
"""By the `kind` of the configuration."""
