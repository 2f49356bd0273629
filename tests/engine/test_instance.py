"""What belongs to one process does not survive into another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from engine.config import Config
from engine.store import Store
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

ONLY_BUILT = """
import os, sys
from engine import DualModelManager

manager = DualModelManager.from_config(sys.argv[1], "chat")
child = os.fork()
manager.generate("Why?")
manager.close()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
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


def test_a_manager_that_was_only_built_before_the_fork_is_somebody_of_its_own_in_every_process(
    make_config: Callable[..., Config],
) -> None:
    """Workers of a server that loads the application first had one name, and overwrote each other's votes."""
    config = make_config()
    command = [sys.executable, "-c", ONLY_BUILT, str(config.source)]
    subprocess.run(command, timeout=4 * PATIENCE_S, check=True)
    with Store(config.store_path).open().reader() as connection:
        (named,) = connection.execute("SELECT count(DISTINCT instance) FROM requests").fetchone()
    assert named == 2
