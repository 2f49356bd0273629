"""What belongs to one process does not survive into another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from engine.config import Config
from tests.patience import PATIENCE_S

IN_USE = """
import os, sys
from engine import AsyncDualModelManager, DualModelManager
from engine.core.errors import StoreUnavailable

with DualModelManager.from_config(sys.argv[1], "chat") as manager:
    manager.generate("Why?")
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    try:
        manager.generate("Why?")
    except StoreUnavailable as error:
        print(error)
    manager.close()
    with DualModelManager.from_config(sys.argv[1], "chat") as another:
        print(another.generate("Why?").model)
"""


def test_a_manager_that_is_in_use_says_in_a_forked_process_that_it_cannot_be_used_there(
    make_config: Callable[..., Config],
) -> None:
    """It waited half a minute for a record that no thread was there to write."""
    command = [sys.executable, "-c", IN_USE, str(make_config().source)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE_S, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    said, model = ended.stdout.splitlines()
    assert "build another one" in said
    assert model
