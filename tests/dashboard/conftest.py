"""Stores with a day of history, written when they are asked for, and pages that run on them."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

sys.path.insert(0, str(Path(__file__).parent))

from history import Moment, write_config, write_history

from engine.config.config import PATH_VARIABLE

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
PAGES = ("now", "incidents", "requests", "alerts", "deliveries", "control", "playground")


FRESH_S = 120.0
"""A history ends when it is written, and pages look at the last five minutes."""


class Histories(dict[Moment, Path]):
    """A configuration with its store for every moment, written anew when it has grown old; do not write to them."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self._factory = factory
        self._written: dict[Moment, float] = {}

    def __getitem__(self, moment: Moment) -> Path:
        if time.monotonic() - self._written.get(moment, -FRESH_S) >= FRESH_S:
            folder = self._factory.mktemp(moment)
            self[moment] = write_config(folder)
            write_history(folder / "switchgear.db", time.time_ns() // 1_000_000, moment, every_ms=12_000)
            self._written[moment] = time.monotonic()
        return super().__getitem__(moment)


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[Moment, Path]:
    """Configurations by the moment of their history."""
    return Histories(tmp_path_factory)


@pytest.fixture
def copied(stores: dict[Moment, Path], tmp_path: Path) -> Callable[[Moment], Path]:
    """A store of one's own to write to."""

    def copy(moment: Moment) -> Path:
        folder = tmp_path / moment
        shutil.copytree(stores[moment].parent, folder)
        return folder / "switchgear.toml"

    return copy


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """Opens a page on a configuration, with the state its address holds."""

    def run(config: Path, page: str = "now", **parameters: str) -> AppTest:
        monkeypatch.setenv(PATH_VARIABLE, str(config))
        monkeypatch.setenv("SWITCHGEAR_DEMO", "0")
        at = AppTest.from_file(str(APP), default_timeout=30)
        for name, value in parameters.items():
            at.query_params[name] = value
        if page != "now":
            at._page_hash = calc_hash(page)  # switch_page() knows pages that are files only; ours are functions
        return at.run()

    return run


def words(at: AppTest) -> str:
    """Everything a page says, markup included."""
    said = [element.proto.body for element in at.get("html")]
    return " ".join([*said, *(one.value for one in at.markdown), *(one.label for one in at.button)])
