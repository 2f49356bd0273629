"""Opening what a command acts on, and closing it again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

from dashboard.serving import DEMO_VARIABLE
from engine.config import Config
from engine.config.config import DEMO_STORE
from engine.control import Control
from engine.core.errors import StoreUnavailable
from engine.instance import Instance
from engine.store import Store


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


def existing_store(config: Config) -> Store:
    """The store, checked; to look must not create one where the path is wrong.

    Raises:
        ConfigurationError: It cannot be used.
        StoreUnavailable: There is none yet.
    """
    store = Store(config.store_path)
    if not store.path.exists():
        msg = f"there is no database at {store.path} yet: start Switchgear once, or correct store.url"
        if "url" not in config.store.model_fields_set and config.beside(DEMO_STORE.removeprefix("sqlite:///")).exists():
            msg += f"; the demo's record is shown with {DEMO_VARIABLE}=1"
        raise StoreUnavailable(msg)
    return store.open()
