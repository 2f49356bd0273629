"""The one way out: no private address, no redirect, no plain http, nothing unbounded; against real servers."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alerts import net
from tests.alerts.listener import Listener, RawServer, Withheld
from tests.authority import Authority
from tests.children import child, standing_still

PRIVATE = """
127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 240.0.0.1
192.0.2.1 ::1 :: fe80::1 fc00::1 ff02::1 fec0::1 ::ffff:10.0.0.1 ::10.0.0.1 64:ff9b::a00:1 64:ff9b:1::1 2002:a00:1::1
2001:0:a00:1::1 2001:db8::1
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_an_address_that_is_not_public_is_recognised(address: str) -> None:
    assert not net.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_is_recognised(address: str) -> None:
    assert net.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://[::1]/",
        "https://localhost/",
        "https://[::ffff:127.0.0.1]/",
    ],
)
def test_a_private_address_is_refused_however_it_is_written(url: str) -> None:
    with pytest.raises((net.Refused, net.Unreachable), match=r"private|resolve"):
        net.post(url, b"", {})


@pytest.mark.parametrize(
    "url", ["http://example.com/", "ftp://example.com/", "file:///etc/passwd", "https://", "//x", "https://h:port/"]
)
def test_what_is_not_https_is_refused(url: str) -> None:
    with pytest.raises(net.Refused):
        net.vet(url, allow_private=False)


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(0, 0, 0, "", (address, 443)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: rows)
    with pytest.raises(net.Refused, match=r"10\.0\.0\.1"):
        net.vet("https://rebinding.example/", allow_private=False)


def test_the_vetted_address_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    with Listener() as server:
        real = socket.getaddrinfo

        def once(host: str, *arguments: object, **options: object) -> object:
            asked.append(host)
            return real("127.0.0.1" if host == "name.example" else host, *arguments, **options)  # type: ignore[call-overload]

        monkeypatch.setattr(socket, "getaddrinfo", once)
        net.post(f"http://name.example:{server.port}/x", b"{}", {}, allow_private=True)
        (letter,) = server.letters
    assert letter.headers["host"] == f"name.example:{server.port}"
    assert asked.count("name.example") == 1


def test_a_name_that_does_not_resolve_in_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: done.wait(60) and [])
    with pytest.raises(net.Unreachable, match="did not resolve"):
        net.vet("https://slow.example/", allow_private=False, timeout=0.05)
    done.set()


def test_a_redirect_is_an_answer_and_not_followed() -> None:
    with Listener() as target, Listener(lambda letter, n: (302, {"Location": target.url}, b"")) as server:
        assert net.post(server.url, b"{}", {}, allow_private=True).status == 302
        assert target.letters == []


def gigabyte(sock: socket.socket, stopped: threading.Event) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
    while not stopped.is_set():
        sock.sendall(b"x" * 65536)


def endless_chunks(sock: socket.socket, stopped: threading.Event) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not stopped.is_set():
        sock.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


@pytest.mark.parametrize("talk", [gigabyte, endless_chunks])
def test_of_a_huge_answer_only_the_beginning_is_read(talk: Callable[[socket.socket, threading.Event], None]) -> None:
    with RawServer(talk) as server:
        started = time.monotonic()
        answer = net.post(server.url, b"{}", {}, allow_private=True, timeout=60)
        assert answer.status == 200
        assert len(answer.body) <= net.BODY_LIMIT
        assert time.monotonic() - started < 30


def drip_headers(sock: socket.socket, stopped: threading.Event) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1000:
        sock.sendall(bytes([byte]))
        if stopped.wait(0.05):
            return


def silence(sock: socket.socket, stopped: threading.Event) -> None:
    stopped.wait(60)


def endless_header(sock: socket.socket, stopped: threading.Event) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not stopped.is_set():
        sock.sendall(b"a" * 65536)


@pytest.mark.parametrize("talk", [drip_headers, silence, endless_header])
def test_a_server_that_does_not_come_to_an_end_is_left(talk: Callable[[socket.socket, threading.Event], None]) -> None:
    with RawServer(talk) as server:
        started = time.monotonic()
        with pytest.raises(net.Unreachable):
            net.post(server.url, b"{}", {}, allow_private=True, timeout=0.4)
        assert time.monotonic() - started < 20


def test_a_body_that_drips_after_a_good_status_is_left_with_the_status() -> None:
    def talk(sock: socket.socket, stopped: threading.Event) -> None:
        sock.sendall(b"HTTP/1.1 204 No\r\nContent-Length: 100\r\n\r\n")
        stopped.wait(60)

    def drip(sock: socket.socket, stopped: threading.Event) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        while not stopped.wait(0.1):
            sock.sendall(b"x")

    for one in (talk, drip):
        with RawServer(one) as server:
            assert net.post(server.url, b"{}", {}, allow_private=True, timeout=0.4).status in (200, 204)


def test_a_line_break_cannot_be_smuggled_in() -> None:
    with Listener() as server, pytest.raises(net.Unreachable, match="line break"):
        net.post(server.url, b"", {"X": "a\r\nEvil: b"}, allow_private=True)


def test_the_user_and_password_of_an_address_say_who_calls() -> None:
    """They were dropped, so a receiver behind Basic authentication answered 401 and its letters were dead at once."""
    with Listener() as server:
        net.post(server.url.replace("//", "//ana:p%40ss%3Aword@"), b"", {}, allow_private=True)
        net.post(server.url, b"", {}, allow_private=True)
    headers = [{name.lower(): value for name, value in letter.headers.items()} for letter in server.letters]
    assert headers[0]["authorization"] == "Basic YW5hOnBAc3M6d29yZA=="
    assert "@" not in headers[0]["host"]
    assert "authorization" not in headers[1]


def test_no_message_repeats_what_may_be_secret() -> None:
    for url in ("http://user:pw@example.com/T0K3N?key=s3cret", "https://127.0.0.1/T0K3N?key=s3cret"):
        with pytest.raises(net.Refused) as caught:
            net.post(url, b"", {})
        assert "s3cret" not in str(caught.value)
        assert "T0K3N" not in str(caught.value)
        assert "pw" not in str(caught.value)


def tls_listener(path: Path) -> Listener:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return Listener(context=context)


def test_an_authority_of_ones_own_is_named_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    with tls_listener(authority.certificate("localhost")) as server:
        url = f"https://localhost:{server.port}/"
        with pytest.raises(net.Unreachable, match="certificate that cannot be trusted"):
            net.post(url, b"{}", {}, allow_private=True)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        assert net.post(url, b"{}", {}, allow_private=True).status == 200


STANDING = """
import sys
from alerts import net
print("sending")
print(net.post(sys.argv[1], b"{}", {}, allow_private=True, timeout=1.5).body)
"""


def test_an_answer_that_came_while_the_process_stood_still_is_read_to_its_end() -> None:
    """Its body was left unread, so Slack and PagerDuty had not said that they took it, and it was sent again."""
    answer = Withheld()
    with (
        Listener(answer) as server,
        child([sys.executable, "-c", STANDING, server.url]) as process,
    ):
        answer.wait_until_asked()
        with standing_still(process.pid):
            answer.give()
            time.sleep(2.0)
        assert process.communicate()[0].splitlines() == ["sending", "b'ok'"]


def test_tls_is_verified_by_name_although_an_address_is_connected_to(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=str(authority.ca))
    with tls_listener(authority.certificate("localhost")) as server:
        url = f"https://localhost:{server.port}/"
        assert net.post(url, b"{}", {}, allow_private=True, context=trusting).status == 200
        with pytest.raises(net.Unreachable, match="certificate"):
            net.post(url, b"{}", {}, allow_private=True)
        with pytest.raises(net.Unreachable, match="certificate"):
            net.post(f"https://127.0.0.1:{server.port}/", b"{}", {}, allow_private=True, context=trusting)
