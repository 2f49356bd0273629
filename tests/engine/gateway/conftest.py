from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.engine.gateway.running import Running, running, settings
from tests.upstream import Upstream

Serve = Callable[..., Running]


@pytest.fixture(scope="session", autouse=True)
def _libraries() -> None:
    """Google's libraries take seconds to import, which would count against the short clocks of the first test."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import google.ai.generativelanguage
        import google.genai
        import google.generativeai  # noqa: F401


@pytest.fixture(scope="session")
def server() -> Iterator[Upstream]:
    with Upstream() as up:
        yield up


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.heal()
    server.forget()
    return server


@pytest.fixture
def serve(tmp_path: Path, upstream: Upstream) -> Iterator[Serve]:
    """Start gateways with settings of the test's own."""
    with ExitStack() as stack:
        count = iter(range(100))

        def start(kind: str = "openai", other_kind: str | None = None, **given: Any) -> Running:
            folder = tmp_path / str(next(count))
            folder.mkdir()
            of_app = {key: given.pop(key) for key in ("serve_models", "companions") if key in given}
            config = settings(folder, upstream, kind, other_kind, **given)
            return stack.enter_context(running(config, upstream=upstream, **of_app))

        yield start


@pytest.fixture(autouse=True)
def _keys(_own_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIN_KEY", "main-key")
    monkeypatch.setenv("OTHER_KEY", "other-key")
