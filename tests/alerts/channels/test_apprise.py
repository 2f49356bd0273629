"""What apprise sends goes where it was allowed to, whatever names, redirects and receivers do in between."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from alerts.channels import apprise_channel
from alerts.channels.apprise_channel import send
from tests.alerts.listener import Listener, RawServer, Withheld
from tests.children import child, standing_still

pytest.importorskip("apprise")

BODY = '{"title":"t","body":"b","type":"failure"}'
PUBLIC = "93.184.215.14"
REBOUND = """
import socket
real = socket.getaddrinfo
def resolve(host, port, *rest, **more):
    return real("127.0.0.1" if host == "rebound.example" else host, port, *rest, **more)
socket.getaddrinfo = resolve
"""


@pytest.fixture
def rebound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when it is vetted, and leads to this machine when apprise asks."""
    (tmp_path / "sitecustomize.py").write_text(REBOUND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    row = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: row)


@pytest.mark.usefixtures("rebound")
@pytest.mark.parametrize("scheme", ["jsons", "gotifys", "mailto"])
def test_a_name_that_leads_elsewhere_once_it_is_vetted_gets_nowhere(scheme: str) -> None:
    reached: list[bool] = []
    with RawServer(lambda sock, stopped: reached.append(True)) as server:
        host = f"rebound.example:{server.port}"
        url = f"mailto://u:p@{host}?smtp=rebound.example" if scheme == "mailto" else f"{scheme}://{host}/token"
        error = send(url, BODY, allow_private=False)
    assert error is not None
    assert "private address 127.0.0.1" in error
    assert reached == []


def test_a_redirect_is_not_followed() -> None:
    with Listener() as inner:
        away = {"location": inner.url}
        with Listener(lambda letter, n: (307, away, b"")) as outer:
            error = send(f"json://127.0.0.1:{outer.port}/hook", BODY, allow_private=True)
        assert len(outer.letters) == 1
    assert error is not None
    assert inner.letters == []


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener() as proxy, Listener() as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        assert send(f"json://127.0.0.1:{server.port}/hook", BODY, allow_private=True) is None
    assert len(server.letters) == 1
    assert proxy.letters == []


def _drips(sock: socket.socket, stopped: threading.Event) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while not stopped.wait(0.2):
        sock.sendall(b".")


def _floods(sock: socket.socket, stopped: threading.Event) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4000000000\r\n\r\n")
    piece = b"." * (1 << 20)
    while not stopped.is_set():
        sock.sendall(piece)


@pytest.mark.parametrize("talk", [_drips, _floods])
def test_a_receiver_that_does_not_come_to_an_end_is_left(
    talk: Callable[[socket.socket, threading.Event], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apprise_channel, "TIMEOUT_S", 4.0)
    with RawServer(talk) as server, suppress(OSError):
        began = time.monotonic()
        error = send(f"json://127.0.0.1:{server.port}/hook", BODY, allow_private=True)
    assert error is not None
    assert time.monotonic() - began < 30.0


def test_what_apprise_does_not_understand_is_said_without_the_address() -> None:
    error = send("nothing-known://s3cret", BODY, allow_private=True)
    assert error is not None
    assert "does not understand" in error
    assert "s3cret" not in error


SENDING = """
import sys
from alerts.channels import apprise_channel
apprise_channel.TIMEOUT_S = 6.0
print(apprise_channel.send(sys.argv[1], sys.argv[2], True))
"""


@pytest.mark.soak
def test_a_message_that_was_sent_while_the_process_stood_still_was_sent_in_time() -> None:
    """It was said not to have come to an end, and came a second time."""
    answer = Withheld()
    with (
        Listener(answer) as server,
        child([sys.executable, "-c", SENDING, f"json://127.0.0.1:{server.port}/", BODY]) as process,
    ):
        answer.wait_until_asked()
        with standing_still(process.pid):
            answer.give()
            time.sleep(7.0)
        assert process.communicate()[0].strip() == "None"
