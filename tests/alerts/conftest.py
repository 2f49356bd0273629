from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alerts.world import World, open_recorder


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A store of the test's own, with a clock that it moves."""
    world = World(open_recorder(tmp_path))
    yield world
    world.recorder.close()
