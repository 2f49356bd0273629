"""What runs in a server's process: the gateway or the control API, the scheduler with alerts, the demo's traffic.

This is where the layers meet: the engine knows nothing of alerts, and the gateway nothing of a demo.
"""

from __future__ import annotations

import gc
import logging
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from starlette.applications import Starlette

from alerts.scheduler import Duty
from alerts.service import AlertService
from engine import sqlite
from engine.config import Config, load
from engine.core.errors import ConfigurationError
from engine.gateway.app import Companion, build
from engine.gateway.health import Check
from engine.hours import roll_up_due
from engine.instance import Instance
from engine.retention import delete_old
from engine.store import Store

DEMO_VARIABLE: Final = "SWITCHGEAR_DEMO"
GATEWAY: Final = "dashboard.serving:gateway"
WATCHER: Final = "dashboard.serving:watcher"

GARBAGE_AFTER: Final = 10_000
"""Containers that have come to stay since the last look for garbage in cycles; with Python's 700, at some thousand
requests a second, looking for it costs a tenth of the processor."""

RETENTION_EVERY: Final = 3600.0
"""Seconds between two clean-ups of raw rows."""

ROLL_UP_EVERY: Final = 300.0
"""Seconds between two looks for hours that are over, and for those that were written to late."""


def configured(path: Path | None = None) -> Config:
    """The configuration of this process, on simulated models when it belongs to a demo."""
    config = load(path)
    return config.as_demo() if in_demo() else config


def in_demo() -> bool:
    """Whether this process belongs to a demo, or looks at one."""
    return os.environ.get(DEMO_VARIABLE) == "1"


def checked_store(config: Config, *, workers: int = 1) -> Store:
    """Open the store before anything is started on it, so that what is wrong with it is said in one line.

    Args:
        config: The configuration.
        workers: Processes that are going to write it.

    Raises:
        ConfigurationError: It cannot be used, or not by so many processes; says what to change.
    """
    store = Store(config.store_path).open()
    if workers > 1 and not sqlite.many_writers_safe():
        msg = (
            f"--workers {workers}: SQLite {sqlite.version()} can corrupt a database that several processes write: "
            "install pysqlite3 0.6.1 or newer, or run one worker"
        )
        raise ConfigurationError(msg)
    store.claim_writing()
    store.release_writing()
    return store


def signs_in_by_oidc(folders: Sequence[Path] | None = None) -> bool:
    """Whether Streamlit's own sign-in is set up, in the secrets file that the dashboard is going to read.

    Args:
        folders: Where `.streamlit/secrets.toml` is looked for; this folder and the user's by default.
    """
    for folder in folders if folders is not None else (Path.cwd(), Path.home()):
        try:
            text = (folder / ".streamlit" / "secrets.toml").read_text(encoding="utf-8")
            if "auth" in tomllib.loads(text):
                return True
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            continue
    return False


def gateway() -> Starlette:
    """The gateway's application with everything beside it; every worker calls this once."""
    return _application(serve_models=True)


def watcher() -> Starlette:
    """The same without `/v1`, for applications that embed the engine."""
    return _application(serve_models=False)


def _application(*, serve_models: bool) -> Starlette:
    logs()
    config = configured()
    instance = Instance.open(config)
    companions = [_alerts(config, instance)]
    if serve_models and in_demo():
        from engine.simulation.incidents import DemoTraffic  # noqa: PLC0415 - only the demo pays for it

        traffic = DemoTraffic(instance)
        companions.append(Companion(traffic.start, traffic.stop))
    application = build(instance, serve_models=serve_models, companions=companions)
    _seldom_look_for_garbage()
    return application


def _seldom_look_for_garbage() -> None:
    """Leave out what lives as long as the process, and look at the rest less often.

    Going through everything stopped requests and ticks for 50 ms now and then.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER, *gc.get_threshold()[1:])


def _alerts(config: Config, instance: Instance) -> Companion:
    service = AlertService(
        config,
        instance.recorder,
        instance.coordinator,
        owner=instance.identity.instance,
        local=instance.local_agreement,
        host=instance.identity.host,
        duties=(
            Duty("retention", RETENTION_EVERY, lambda: _retain(config, instance)),
            Duty("hours", ROLL_UP_EVERY, lambda: roll_up_due(instance.recorder, now_ms=instance.clock.wall_ms())),
        ),
    )

    def check() -> Check:
        health = service.health()
        return Check("scheduler", ok=health.ok, detail=health.detail)

    return Companion(service.start, service.stop, (check,))


def _retain(config: Config, instance: Instance) -> None:
    delete_old(instance.recorder, keep=config.store.retention, now_ms=instance.clock.wall_ms())


def logs(level: int = logging.INFO) -> None:
    """One line an event, with the time and who says it."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")
    for noisy in ("apscheduler", "asyncio", "httpx", "kazoo", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
