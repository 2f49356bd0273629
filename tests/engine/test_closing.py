"""A manager that is closed while somebody waits for its models: everybody is told, and nothing stays behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine import DualModelManager
from engine.config import Config
from engine.core.errors import StoreUnavailable
from engine.providers.base import build
from tests.patience import PATIENCE_S, eventually
from tests.upstream import Fault, Upstream

PRO = "gemini-2.5-pro"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("fault", [Fault(hang=True), Fault(stall_after=1)], ids=["silent", "inside the answer"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["openai", "google-genai", "google-generativeai"])
def test_who_waits_for_a_model_is_told_and_no_thread_stays(
    make_config: Callable[..., Config], upstream: Upstream, kind: str, streamed: bool, fault: Fault
) -> None:
    """A stream ended with `CancelledError`, which nobody catches, and woke a thread that nobody closed."""
    upstream.set(PRO, fault)
    url = upstream.openai_url if kind == "openai" else upstream.gemini_url
    before = set(threading.enumerate())
    provider = build(kind, api_key="k", base_url=url)
    manager = DualModelManager.from_config(make_config(), "chat", providers={"simulated": provider})
    with ThreadPoolExecutor() as pool:
        call = pool.submit(lambda: list(manager.stream("hello")) if streamed else manager.generate("hello"))
        eventually(lambda: upstream.seen(PRO))
        manager.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            call.result(PATIENCE_S)
    eventually(lambda: {one.name for one in set(threading.enumerate()) - before} <= {"switchgear-heart"})
