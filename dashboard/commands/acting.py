"""Opening what a command acts on, and closing it again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

from engine.config import Config
from engine.control import Control
from engine.instance import Instance


def chosen(config: Config, manager: str | None) -> str:
    """The manager that is meant: the only one, where there is one."""
    if manager is not None:
        return manager
    names = sorted(config.managers)
    if len(names) == 1:
        return names[0]
    msg = f"name the manager with --manager: there are {', '.join(names)}"
    raise click.UsageError(msg)


@contextlib.contextmanager
def control_of(config: Config) -> Iterator[Control]:
    """The acts of operators on a configuration, without serving anything."""
    instance = Instance.open(config)
    try:
        yield instance.control()
    finally:
        instance.close()
