"""The configuration: one TOML file, validated as a whole, with errors that say what to change."""

from engine.config.config import Config, ProviderSettings, load, parse
from engine.config.exposure import NamedKey, Surface, is_loopback
from engine.config.sections import Durability, ProviderKind, ReceiverKind, ReceiverSection, Settings

__all__ = [
    "Config",
    "Durability",
    "NamedKey",
    "ProviderKind",
    "ProviderSettings",
    "ReceiverKind",
    "ReceiverSection",
    "Settings",
    "Surface",
    "is_loopback",
    "load",
    "parse",
]
