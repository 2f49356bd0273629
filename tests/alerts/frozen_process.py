"""An evaluator with a short lease, made to be stopped for a while: `frozen_process.py CONFIG NAME LEASES`.

It says `ready`, and then for every line it reads which part it plays, whether it is well, and whether it speaks for the
fleet.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from alerts import service
from alerts.service import AlertService
from engine.config import parse
from engine.fleet.store import StoreCoordinator
from engine.recorder import Recorder
from engine.store import Store

service.LEASE_TTL_S, service.LEASE_RENEW_S, service.PULSE_S = 2.0, 0.5, 0.25


def main(path: Path, name: str, leases: Path) -> None:
    config = parse(tomllib.loads(path.read_text()), path)
    coordinator = StoreCoordinator(Recorder(Store(leases).open()))
    recorder = Recorder(Store(config.store_path).open())
    alerts = AlertService(config, recorder, coordinator, name, local=StoreCoordinator(recorder), host=name)
    alerts.start()
    print("ready", flush=True)
    for _ in sys.stdin:
        health = alerts.health()
        print(health.part, "well" if health.ok else "unwell", "speaks" if health.speaks else "quiet", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
