"""A process that flips an alert for ever and delivers what that says; it is made to be killed."""

from __future__ import annotations

import sys
import time
import tomllib
from pathlib import Path

from alerts import dispatcher, memory, service
from alerts.service import AlertService
from engine.config import parse
from engine.recorder import Recorder
from engine.store import Store

dispatcher.LEASE_MS = 400
memory.FLAPPING_FLIPS = 10**9
service.STALLED_INTERVALS = 10**6


def main(path: Path, flip_s: float) -> None:
    config = parse(tomllib.loads(path.read_text()), path)
    recorder = Recorder(Store(config.store_path).open())
    AlertService(config, recorder).start()
    print("ready", flush=True)
    while True:
        recorder.execute(
            lambda connection: connection.execute(
                "INSERT INTO fleet_state VALUES ('chat', 1, 0, json_object('v', 1, 'epoch', 1, 'active', 'secondary'))"
                " ON CONFLICT (manager) DO UPDATE SET epoch = epoch + 1,"
                " document = json_object('v', 1, 'epoch', epoch + 1,"
                " 'active', CASE document ->> 'active' WHEN 'primary' THEN 'secondary' ELSE 'primary' END)"
            )
        ).result(30)
        time.sleep(flip_s)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
