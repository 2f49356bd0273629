"""What a demo needs before it starts: a fresh store with a day of history, made by the real engine and alert rules."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from alerts.backfill import backfill
from alerts.rules import read_rules
from engine.config import Config
from engine.recorder import Recorder
from engine.simulation.history import write_history
from engine.store import Store

SEED = 7
HOURS = 24
HISTORYS_SHARE = 0.85
"""Of the time it takes; the rest goes into alerts."""


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
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("writing a day of history", total=1.0)
            _live(config, recorder, lambda done: bar.update(task, completed=done))
    finally:
        recorder.close(timeout=60)


def _live(config: Config, recorder: Recorder, progress: Callable[[float], None]) -> None:
    """Write the day, and what alert rules say of it."""
    end_ms = time.time_ns() // 1_000_000
    write_history(
        config,
        recorder,
        seed=SEED,
        end_ms=end_ms,
        hours=HOURS,
        progress=lambda done: progress(done * HISTORYS_SHARE),
    )
    backfill(
        recorder,
        read_rules(config.alert_rules_path).rules,
        tuple(config.managers),
        end_ms - HOURS * 3_600_000,
        end_ms,
        progress=lambda done: progress(HISTORYS_SHARE + done * (1 - HISTORYS_SHARE)),
    )
