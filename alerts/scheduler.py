"""APScheduler 3.11 with every setting said, so that none of its defaults surprises: duties run as jobs in one process.

A duty is late rather than left out (no misfire limit), never runs beside itself, and when several of its runs are due
makes up for them once. A clock that is set back stops nothing. Duties never touch the scheduler, and stopping never
waits for one that hangs.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

log = logging.getLogger(__name__)

EVALUATION = "evaluation"
DUTIES = "duties"
DUTY_THREADS = 4
SLACK = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True)
class Duty:
    """Something done again and again.

    Attributes:
        id: Its name.
        every: Seconds between two beginnings.
        run: What; exceptions are logged and the next run comes all the same.
        executor: `EVALUATION` for the tick alone, `DUTIES` for everything else.
        at_once: Whether the first run is at start, and not after one interval.
    """

    id: str
    every: float
    run: Callable[[], object]
    executor: str = DUTIES
    at_once: bool = True


class Scheduler:
    """Runs duties.

    Args:
        duties: What to run.
    """

    def __init__(self, duties: Sequence[Duty]) -> None:
        self._duties = tuple(duties)
        self.troubles: Counter[str] = Counter()
        self._scheduler: Any = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={EVALUATION: ThreadPoolExecutor(1), DUTIES: ThreadPoolExecutor(DUTY_THREADS)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
            daemon=True,
        )
        self._scheduler.add_listener(self._note, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        """Begin."""
        for duty in self._duties:
            first = {"next_run_time": datetime.now(UTC)} if duty.at_once else {}
            self._scheduler.add_job(
                duty.run,
                IntervalTrigger(seconds=duty.every, timezone=UTC),
                id=duty.id,
                name=duty.id,
                executor=duty.executor,
                replace_existing=True,
                **first,
            )
        self._scheduler.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Run nothing more; duties under way get so many seconds to end."""
        executors = list(self._scheduler._executors.values()) if self._scheduler.running else []  # no public way
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        deadline = time.monotonic() + timeout
        for executor in executors:
            for thread in list(getattr(executor._pool, "_threads", ())):
                thread.join(max(0.0, deadline - time.monotonic()))

    def mind_the_clock(self) -> None:
        """Run now what is further away than its interval: the wall clock, which APScheduler counts on, was set back.

        It would wait for as long as the clock was set back. Somebody outside of it has to call this now and then.
        """
        if not self._scheduler.running:
            return
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            due = job.next_run_time
            if due is not None and due - now > job.trigger.interval + SLACK:
                log.warning("duty %s is due in %s: the clock was set back, it runs now", job.id, due - now)
                job.modify(next_run_time=now)

    def _note(self, event: Any) -> None:
        word = {EVENT_JOB_ERROR: "error", EVENT_JOB_MISSED: "missed"}.get(event.code, "still running")
        self.troubles[f"{event.job_id}: {word}"] += 1
        if event.code == EVENT_JOB_ERROR:
            log.error("duty %s failed: %s", event.job_id, event.exception)
