"""Keys, and the rule that without them the servers are for this machine only."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.config.problems import Problem
from engine.config.sections import Settings


class Surface(StrEnum):
    """What listens on an address."""

    GATEWAY = "gateway"
    CONTROL = "control"
    DASHBOARD = "dashboard"


@dataclass(frozen=True, slots=True)
class NamedKey:
    """Somebody's key; the name is who an act is recorded under."""

    name: str
    key: str = field(repr=False)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def plain_keys(variable: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The comma-separated keys of an environment variable; none when it is unset or unnamed."""
    text = environ.get(variable, "") if variable else ""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def named_keys(variable: str, environ: Mapping[str, str]) -> tuple[NamedKey, ...]:
    """The comma-separated `name:key` pairs of an environment variable.

    Raises:
        ValueError: An entry has no name or no key; the message counts entries and repeats none.
    """
    keys = []
    for number, entry in enumerate(plain_keys(variable, environ), start=1):
        name, colon, key = (part.strip() for part in entry.partition(":"))
        if not (name and colon and key):
            msg = f"entry {number} of ${variable} is not name:key"
            raise ValueError(msg)
        keys.append(NamedKey(name, key))
    return tuple(keys)


def exposure_problems(
    settings: Settings, surface: Surface, environ: Mapping[str, str], *, oidc: bool = False
) -> list[Problem]:
    """Why a surface may not listen where the file says.

    Args:
        settings: The validated file.
        surface: What is to listen.
        environ: The environment that holds the keys.
        oidc: Whether the dashboard signs people in by OIDC, which stands for keys.

    Returns:
        Nothing on a loopback address or where keys are present; else one problem with the line to add.
    """
    server = settings.server
    section, host = ("dashboard", settings.dashboard.host) if surface is Surface.DASHBOARD else ("server", server.host)
    if is_loopback(host) or (oidc and surface is Surface.DASHBOARD):
        return []
    if surface is Surface.GATEWAY:
        key, variable, example = "server.api_keys_env", server.api_keys_env, "KEY"
    else:
        key, variable, example = "server.operator_keys_env", server.operator_keys_env, "NAME:KEY"
    if plain_keys(variable, environ):
        return []
    add = (
        f"export {variable}={example}"
        if variable
        else f'set {key} = "{_example_variable(surface)}" and export that variable'
    )
    return [
        Problem(
            f"{section}.host",
            f'"{host}" can be reached by others and no keys are set: {add}, or set host = "127.0.0.1"',
        )
    ]


def unnamed_key_problems(settings: Settings) -> list[Problem]:
    """What is certain without looking at the environment: an open address, and no variable that could hold keys."""
    problems = []
    if not settings.server.api_keys_env:
        problems += exposure_problems(settings, Surface.GATEWAY, {})
    if not settings.server.operator_keys_env and not settings.server.viewer_keys_env:
        problems += [problem for problem in exposure_problems(settings, Surface.CONTROL, {}) if problem not in problems]
    return problems


def _example_variable(surface: Surface) -> str:
    return "SWITCHGEAR_API_KEYS" if surface is Surface.GATEWAY else "SWITCHGEAR_OPERATOR_KEYS"
