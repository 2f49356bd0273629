"""What every test may ask for. Helpers that are called, not injected, are in `tests.programs`."""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from engine.config import Config, parse
from engine.store import Store
from tests.largestore import Shape, fill

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, max_examples=300, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI", "").lower() == "true" else "default")

SIMULATED = """
[providers.simulated]
kind = "simulated"
[models.pro]
provider = "simulated"
name = "gemini-2.5-pro"
[models.flash]
provider = "simulated"
name = "gemini-2.5-flash"
[managers.chat]
primary = "pro"
secondary = "flash"
"""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the keys and settings of whoever runs it."""
    for name in list(os.environ):
        if name.startswith("SWITCHGEAR_") or name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY"):
            monkeypatch.delenv(name)


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    """A configuration on simulated models in a folder of its own; more TOML is added or replaces tables."""

    def make(extra: str = "") -> Config:
        text = SIMULATED + extra
        path = tmp_path / "switchgear.toml"
        path.write_text(text, encoding="utf-8")
        return parse(tomllib.loads(text), path)

    return make


@pytest.fixture
def config(make_config: Callable[..., Config]) -> Config:
    """The smallest configuration, on simulated models."""
    return make_config()


@pytest.fixture(scope="session")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Store]:
    """Stores with so many requests, ending now, each made once a session; do not write to them."""
    made: dict[int, Store] = {}

    def make(requests: int) -> Store:
        if requests not in made:
            path = tmp_path_factory.mktemp("large") / "switchgear.db"
            made[requests] = fill(path, Shape(requests, time.time_ns() // 1_000_000))
        return made[requests]

    return make
