"""What a demo needs before it starts: a fresh store with a day of history, made by the real engine."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from engine.config import Config
from engine.recorder import Recorder
from engine.simulation.history import write_history
from engine.store import Store

SEED = 7
HOURS = 24


def prepare(config: Config) -> None:
    """Write the demo's history, with a progress bar; yesterday's demo is thrown away.

    Only the demo's own store is touched: a store that the configuration names is left as it is when it holds records.
    """
    path = config.store_path
    if config.has_demo_store:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    elif path.exists():
        return
    recorder = Recorder(Store(path).open(), durability="batch")
    columns = (TextColumn("[progress.description]{task.description}"), BarColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("writing a day of history", total=1.0)
            write_history(
                config,
                recorder,
                seed=SEED,
                end_ms=int(time.time() * 1000),
                hours=HOURS,
                progress=lambda done: progress.update(task, completed=done),
            )
    finally:
        recorder.close(timeout=60)
