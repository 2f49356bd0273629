"""Child processes of tests: ended with the test however it ends, and stopped for a while as a paused machine is."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psutil

from tests.patience import eventually


@contextmanager
def child(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a program whose input and output are pipes of text; it does not outlive the block.

    `subprocess.Popen` as a context waits for its process also when the block failed, for ever if that stands still.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def standing_still(*pids: int) -> Iterator[None]:
    """Processes of which none does anything in the block, as on a machine that is paused; their clocks go on."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids))
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
