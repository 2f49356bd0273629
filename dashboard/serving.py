"""What runs in a server's process: the gateway or the control API, the scheduler with alerts, the demo's traffic.

This is where the layers meet: the engine knows nothing of alerts, and the gateway nothing of a demo.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from alerts.service import AlertService
from starlette.applications import Starlette

from engine.config import Config, load
from engine.gateway.app import Companion, build
from engine.gateway.health import Check
from engine.instance import Instance

DEMO_VARIABLE: Final = "SWITCHGEAR_DEMO"
GATEWAY: Final = "dashboard.serving:gateway"
WATCHER: Final = "dashboard.serving:watcher"


def configured(path: Path | None = None) -> Config:
    """The configuration of this process, on simulated models when it belongs to a demo."""
    config = load(path)
    return config.as_demo() if os.environ.get(DEMO_VARIABLE) == "1" else config


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
    if serve_models and config.is_demo:
        from engine.simulation.incidents import DemoTraffic  # noqa: PLC0415 - only the demo pays for it

        traffic = DemoTraffic(instance)
        companions.append(Companion(traffic.start, traffic.stop))
    return build(instance, serve_models=serve_models, companions=companions)


def _alerts(config: Config, instance: Instance) -> Companion:
    service = AlertService(config, instance.recorder, instance.coordinator, instance.identity.instance)

    def check() -> Check:
        health = service.health()
        return Check("scheduler", ok=health.ok, detail=health.detail)

    return Companion(service.start, service.stop, (check,))


def logs(level: int = logging.INFO) -> None:
    """One line an event, with the time and who says it."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")
    for noisy in ("apscheduler", "httpx", "kazoo", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
