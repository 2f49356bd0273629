"""TLS to real coordinators of a private authority that ask for certificates, and what is said when it fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from dashboard.commands.doctor import _connect
from engine.config import load
from engine.core.agreement import Document
from engine.core.errors import ConfigurationError
from engine.doctor import Level, coordinator
from engine.fleet.base import Coordinator, CoordinatorUnavailable
from engine.fleet.tls import Tls
from engine.shipped import shipped
from tests.authority import Authority
from tests.engine.fleet.conftest import KINDS, corner
from tests.engine.fleet.servers import RedisServer, Secured, Server
from tests.patience import eventually

Join = Callable[..., Coordinator]

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Callable[..., Server]]:
    """Start a server of a kind once, with a certificate for its address, that has expired or not."""
    running: list[Server] = []

    @cache
    def get(kind: str, *, expired: bool = False) -> Server:
        folder = tmp_path_factory.mktemp(kind) / "server"
        tls = Secured(authority.ca, authority.certificate("127.0.0.1", expired=expired))
        running.append(KINDS[kind](folder, secured=tls).start())
        return running[-1]

    yield get
    for server in running:
        server.kill()


@pytest.fixture
def ours(authority: Authority) -> Tls:
    return Tls(authority.ca, authority.certificate("instance"))


def said(one: Coordinator) -> str:
    with pytest.raises(CoordinatorUnavailable) as raised:
        one.read("chat")
    return str(raised.value)


def test_instances_agree_over_tls_with_certificates_of_a_private_authority(
    kind: str, secured: Callable[..., Server], join: Join, ours: Tls
) -> None:
    url = corner(secured(kind).secure_url, "agree")
    one, two = join(url, tls=ours), join(url, "b", tls=ours)
    assert two.read("chat") is None
    heard: list[str] = []
    two.subscribe(heard.append)
    assert one.swap("chat", None, Document(epoch=1, writer="a"))
    eventually(lambda: "chat" in heard)
    assert (two.read("chat") or Document()).epoch == 1


def test_a_server_of_an_unknown_authority_is_not_trusted(
    kind: str, secured: Callable[..., Server], join: Join, tmp_path: Path, ours: Tls
) -> None:
    tls = Tls(Authority(tmp_path, "stranger").ca, ours.cert)
    message = said(join(secured(kind).secure_url, tls=tls))
    assert "unknown authority: name the authority's file in fleet.ca" in message


def test_a_certificate_for_another_name_is_not_taken(
    kind: str, secured: Callable[..., Server], join: Join, ours: Tls
) -> None:
    url = secured(kind).secure_url.replace("127.0.0.1", "localhost")
    assert "for another name: write that name in fleet.url" in said(join(url, tls=ours))


@pytest.mark.parametrize("kind", ["redis", "etcd"])
def test_an_expired_certificate_is_said_to_be_renewed(
    kind: str, secured: Callable[..., Server], join: Join, ours: Tls
) -> None:
    url = secured(kind, expired=True).secure_url
    assert "has expired: renew it on the server" in said(join(url, tls=ours))


def test_a_server_that_asks_for_a_certificate_is_said_to_want_one(
    kind: str, secured: Callable[..., Server], join: Join, authority: Authority
) -> None:
    message = said(join(secured(kind).secure_url, tls=Tls(authority.ca)))
    assert "set fleet.cert and fleet.key" in message


def test_a_port_that_breaks_off_is_said_to_be_perhaps_without_tls(
    secured: Callable[..., Server], join: Join, ours: Tls
) -> None:
    server = secured("etcd")
    assert "speaks TLS on this port" in said(join(server.url.replace("etcd:", "etcds:"), tls=ours))


@pytest.mark.parametrize("scheme", ["rediss", "etcds", "zookeepers"])
def test_what_cannot_be_found_is_not_said_to_break_off(scheme: str, join: Join) -> None:
    message = said(join(f"{scheme}://nowhere.invalid"))
    assert "cannot be reached" in message
    assert "TLS" not in message


def test_a_password_is_asked_for_inside_tls(tmp_path: Path, authority: Authority, join: Join, ours: Tls) -> None:
    tls = Secured(authority.ca, authority.certificate("127.0.0.1"))
    server = RedisServer(tmp_path / "locked", password="right", secured=tls).start()
    try:
        assert join(server.secure_url, tls=ours).read("chat") is None
        message = said(join(server.secure_url.replace("right", "wrong"), tls=ours))
        assert "refused our credentials" in message
    finally:
        server.kill()


@pytest.mark.parametrize("scheme", ["rediss", "etcds", "zookeepers"])
def test_files_that_are_no_certificates_are_refused_at_the_start(
    scheme: str, tmp_path: Path, authority: Authority, join: Join
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    for ca in (junk, tmp_path / "absent.pem"):
        with pytest.raises(ConfigurationError, match=rf"fleet\.ca: .*{ca.name}"):
            join(f"{scheme}://127.0.0.1", tls=Tls(ca))
    for cert, key in ((junk, None), (authority.ca, None), (authority.certificate("one"), authority.certificate("two"))):
        with pytest.raises(ConfigurationError, match=rf"fleet\.cert .*{cert.name} and fleet\.key"):
            join(f"{scheme}://127.0.0.1", tls=Tls(authority.ca, cert, key))
    with pytest.raises(ConfigurationError, match=r"fleet\.key is given without fleet\.cert"):
        join(f"{scheme}://127.0.0.1", tls=Tls(None, None, junk))


@pytest.mark.parametrize("url", ["redis://127.0.0.1", "etcd://127.0.0.1", "zookeeper://127.0.0.1"])
def test_certificates_for_an_address_without_tls_are_a_mistake(url: str, join: Join, ours: Tls) -> None:
    scheme = "rediss" if url.startswith("redis") else f"{url.partition(':')[0]}s"
    with pytest.raises(ConfigurationError, match=f"write {scheme}://"):
        join(url, tls=ours)


@pytest.mark.parametrize(("ca", "level"), [("authority", Level.OK), ("stranger", Level.FAIL)])
def test_the_doctor_tries_the_coordinator_with_the_configured_certificates(
    secured: Callable[..., Server], tmp_path: Path, authority: Authority, ours: Tls, ca: str, level: Level
) -> None:
    Authority(tmp_path, "stranger")
    shutil.copy(authority.ca, tmp_path)
    fleet = f'[fleet]\nurl = "{secured("redis").secure_url}"\nca = "{ca}.ca.pem"\ncert = "{ours.cert}"\n'
    path = tmp_path / "switchgear.toml"
    path.write_text(shipped("switchgear.toml").read_text() + fleet)
    finding = coordinator(load(path), _connect, environ={})
    assert finding.level is level
    assert ("fleet.ca" in finding.detail) is (level is Level.FAIL)
