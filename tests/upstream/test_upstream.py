"""The fake itself: what other tests rely on when they run it as a process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.patience import PATIENCE_S, eventually
from tests.upstream import HEALTHY, Fault, Script


def _ask(url: str, body: Any = None, method: str | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"content-type": "application/json"}, method=method)
    try:
        with urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture
def url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "tests.upstream", "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: socket.create_connection(("127.0.0.1", port), 5), despite=(OSError,)).close()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def test_faults_are_posted_and_requests_read_while_it_runs(url: str) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    faults = {"model": "m", "sequence": [{"error": "unavailable"}, {}], "faults": {"error": "rate_limit_minute"}}
    assert _ask(f"{url}/_faults", faults) == (200, {"ok": True})
    assert [_ask(f"{url}/v1/chat/completions", chat)[0] for _ in range(4)] == [503, 200, 429, 429]
    assert _ask(f"{url}/_faults", method="DELETE")[0] == 200
    assert _ask(f"{url}/v1/chat/completions", chat)[0] == 200
    seen = _ask(f"{url}/_requests?model=m")[1]
    assert [one["model"] for one in seen] == ["m"] * 5
    assert seen[0]["body"] == chat
    status, answer = _ask(f"{url}/_faults", {"faults": {"eror": "x"}})
    assert status == 400
    assert "unknown fault fields" in answer["error"]


def test_a_schedule_is_up_first_and_then_down() -> None:
    down = Fault(error="unavailable")
    assert Script(down, up=100, down=1).next() == HEALTHY
    assert Script(down, up=0, down=1).next() == down


def test_a_sequence_comes_before_what_lasts() -> None:
    script = Script(HEALTHY, [Fault(hang=True), Fault(reset=True)])
    assert [script.next() for _ in range(3)] == [Fault(hang=True), Fault(reset=True), HEALTHY]
