"""What coordinators do when their server, the network or the stored document is in trouble."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from kazoo.client import KazooClient

from engine.core.agreement import Document, DocumentError, Member, Vote
from engine.fleet.base import Coordinator, CoordinatorUnavailable
from engine.fleet.etcd_client import EtcdClient
from engine.fleet.zookeeper import ZooKeeperCoordinator
from tests import patience
from tests.engine.fleet.conftest import corner
from tests.engine.fleet.proxy import Proxy
from tests.engine.fleet.servers import EtcdServer, RedisServer, Server, etcd_cluster
from tests.patience import seconds_until
from tests.programs import free_port

Join = Callable[..., Coordinator]
Start = Callable[[str], Server]

BOUND = 5.0
"""Seconds that no call may exceed: 2 to connect, 2 to answer, and what this machine is late."""

pytestmark = pytest.mark.server


def through(url: str, port: int) -> str:
    """The same URL by way of another port."""
    old = urlsplit(url).netloc.rpartition(":")[2]
    return url.replace(f":{old}", f":{port}")


eventually = partial(patience.eventually, despite=(CoordinatorUnavailable,))
"""Waits until something holds; an unavailable coordinator does not hold it."""


def unavailable(call: Callable[[], object]) -> str:
    """What a call says that must fail in time; a late one is asked once more, for the machine may have stood still."""
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(CoordinatorUnavailable) as raised:
            call()
        took = time.monotonic() - began
        if took < BOUND:
            break
    assert took < BOUND
    message = str(raised.value)
    assert "\n" not in message
    return message


def put_raw(kind: str, server: Server, name: str, text: str) -> None:
    """Write into the place of the document of manager chat, as somebody with a shell would."""
    if kind == "redis":
        redis.Redis(port=server.port).set(f"{{{name}}}:document:chat", text)
    elif kind == "etcd":
        EtcdClient([f"http://127.0.0.1:{server.port}"]).put(f"/{name}/documents/chat", text)
    else:
        client = KazooClient(f"127.0.0.1:{server.port}")
        client.start()
        client.ensure_path(f"/{name}/documents/chat")
        client.set(f"/{name}/documents/chat", text.encode())
        client.stop()
        client.close()


# -- addresses and credentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["redis", "etcd", "zookeeper"])
def test_a_server_that_is_not_there_is_one_line_without_the_password(
    scheme: str, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    port = free_port()
    one = join(f"{scheme}://ana:s3cr3t-word@127.0.0.1:{port}")
    message = unavailable(lambda: one.read("chat"))
    assert f"127.0.0.1:{port}" in message
    assert "fleet.url" in message
    for call in (lambda: one.votes("chat"), one.members, lambda: one.lease("x", "a", 1.0)):
        unavailable(call)
    assert "s3cr3t-word" not in message + repr(one) + caplog.text


def test_redis_says_that_a_password_is_wrong_or_missing(tmp_path: Path, join: Join) -> None:
    server = RedisServer(tmp_path / "locked", password="right").start()
    try:
        for url in (server.url.replace("right", "wrong"), server.url.replace(":right@", "")):
            message = unavailable(lambda url=url: join(url).read("chat"))
            assert "refused our credentials" in message
            assert "wrong@" not in message
        assert join(server.url).read("chat") is None
    finally:
        server.kill()


def test_etcd_says_that_a_password_is_wrong_or_missing_and_renews_its_token(own_server: Start, join: Join) -> None:
    server = own_server("etcd")
    assert isinstance(server, EtcdServer)
    server.call("auth/role/add", name="root")
    server.call("auth/user/add", name="root", password="right")
    server.call("auth/user/grant", user="root", role="root")
    server.call("auth/enable")
    place = f"127.0.0.1:{server.port}"
    for userinfo in ("root:wrong@", ""):
        assert "refused our credentials" in unavailable(lambda who=userinfo: join(f"etcd://{who}{place}").read("chat"))
    one = join(f"etcd://root:right@{place}")
    assert one.swap("chat", None, Document(epoch=1, writer="a"))
    server.kill()
    server.start()  # simple tokens do not survive etcd
    eventually(lambda: (one.read("chat") or Document()).epoch == 1)


def test_zookeeper_closes_its_nodes_to_other_users(own_server: Start, join: Join) -> None:
    server = own_server("zookeeper")
    place = f"127.0.0.1:{server.port}"
    assert join(f"zookeeper://ana:right@{place}").swap("chat", None, Document(epoch=1, writer="a"))
    for userinfo in ("ana:wrong@", ""):
        message = unavailable(lambda who=userinfo: join(f"zookeeper://{who}{place}", "b").read("chat"))
        assert "refused our credentials" in message


def test_a_server_that_speaks_something_else_is_said_to_be_wrong(own_server: Start, join: Join) -> None:
    server = own_server("redis")
    assert "cannot be reached" in unavailable(lambda: join(f"etcd://127.0.0.1:{server.port}").read("chat"))
    unavailable(lambda: join(f"zookeeper://127.0.0.1:{server.port}").read("chat"))


# -- what is in the key ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "42", '{"epoch": 3}', "\x00\x01", '{"v":1,"epoch":"x"}'])
def test_garbage_in_the_key_is_named_and_left_alone(kind: str, shared_server: Start, join: Join, text: str) -> None:
    server, name = shared_server(kind), f"garbage{time.monotonic_ns()}"
    put_raw(kind, server, name, text)
    one = join(corner(server.url, name))
    with pytest.raises(DocumentError, match=r"not an agreement document.*until the (key|node) is deleted"):
        one.read("chat")
    with suppress(DocumentError):
        assert one.swap("chat", None, Document(epoch=1, writer="a")) is False
    with suppress(DocumentError):
        assert one.swap("chat", 3, Document(epoch=4, writer="a")) is False


def test_a_document_of_a_newer_version_asks_for_an_upgrade(kind: str, shared_server: Start, join: Join) -> None:
    server, name = shared_server(kind), f"newer{time.monotonic_ns()}"
    put_raw(kind, server, name, '{"v":99,"epoch":7,"anything":["else"]}')
    with pytest.raises(DocumentError, match="newer version"):
        join(corner(server.url, name)).read("chat")


def test_a_redis_key_of_another_type_is_named(shared_server: Start, join: Join) -> None:
    server, name = shared_server("redis"), f"type{time.monotonic_ns()}"
    redis.Redis(port=server.port).lpush(f"{{{name}}}:document:chat", "x")
    one = join(corner(server.url, name))
    with pytest.raises(DocumentError, match="not an agreement document"):
        one.read("chat")
    with pytest.raises(DocumentError, match="not an agreement document"):
        one.swap("chat", None, Document(epoch=1))


# -- the network -----------------------------------------------------------------------------------------------


def test_a_silent_network_costs_bounded_time_and_heals(kind: str, shared_server: Start, join: Join) -> None:
    server, name = shared_server(kind), f"silent{time.monotonic_ns()}"
    with Proxy(server.port) as line:
        near = join(corner(through(server.url, line.port), name))
        far = join(corner(server.url, name), "b")
        far.swap("chat", None, Document(epoch=1, writer="b"))
        heard: list[str] = []
        near.subscribe(heard.append)
        assert near.read("chat")
        line.cut()
        unavailable(lambda: near.swap("chat", 1, Document(epoch=2, writer="a")))
        far.swap("chat", 1, Document(epoch=2, writer="b"))
        line.heal()
        eventually(lambda: (near.read("chat") or Document()).epoch == 2)
        heard.clear()
        far.swap("chat", 2, Document(epoch=3, writer="b"))
        eventually(lambda: "chat" in heard)


def test_a_swap_whose_answer_is_lost_is_recognised_as_our_own(kind: str, shared_server: Start, join: Join) -> None:
    server, name = shared_server(kind), f"lost{time.monotonic_ns()}"
    with Proxy(server.port) as line:
        near = join(corner(through(server.url, line.port), name))
        near.swap("chat", None, Document(epoch=1, writer="a/1"))
        timer = threading.Timer(0.5, line.heal)
        line.cut(up=False, down=True)
        timer.start()
        with suppress(CoordinatorUnavailable):  # unknown is an honest answer too, False is not
            assert near.swap("chat", 1, Document(epoch=2, writer="a/2")) is True
        timer.join()
        eventually(lambda: near.read("chat") is not None)


@pytest.mark.soak
def test_a_slow_network_works(kind: str, shared_server: Start, join: Join) -> None:
    server, name = shared_server(kind), f"slow{time.monotonic_ns()}"
    with Proxy(server.port) as line:
        line.delay = 0.05
        one = join(corner(through(server.url, line.port), name))
        assert one.swap("chat", None, Document(epoch=1, writer="a"))
        assert one.read("chat")


@pytest.mark.soak
def test_a_refused_connection_is_tried_again(kind: str, shared_server: Start, join: Join) -> None:
    server, name = shared_server(kind), f"refused{time.monotonic_ns()}"
    with Proxy(server.port) as line:
        one = join(corner(through(server.url, line.port), name))
        one.swap("chat", None, Document(epoch=1, writer="a"))
        line.refuse()
        unavailable(lambda: one.read("chat"))
        line.heal()
        eventually(lambda: one.read("chat") is not None)


# -- the server ------------------------------------------------------------------------------------------------


def test_a_killed_server_is_found_again_with_the_agreement(own_server: Start, join: Join) -> None:
    for kind in ("etcd", "zookeeper"):
        server = own_server(kind)
        one, two = join(server.url), join(server.url, "b")
        one.swap("chat", None, Document(epoch=1, writer="a"))
        heard: list[str] = []
        two.subscribe(heard.append)
        two.read("chat")
        server.kill()
        unavailable(lambda one=one: one.read("chat"))
        server.start()
        eventually(lambda one=one: one.read("chat") == Document(epoch=1, writer="a"))
        one.register(Member("a", "h1"), 10.0)
        one.vote("chat", Vote("a", "h1", 1), 10.0)
        eventually(lambda two=two: len(two.members()) == len(two.votes("chat")) == 1)
        heard.clear()
        assert one.swap("chat", 1, Document(epoch=2, writer="a"))
        eventually(lambda heard=heard: "chat" in heard)


def test_a_redis_that_lost_everything_is_filled_again_and_lost_members_stay_known(
    own_server: Start, join: Join
) -> None:
    server = own_server("redis")
    one, two = join(server.url), join(server.url, "b")
    one.swap("chat", None, Document(epoch=5, writer="a"))
    one.register(Member("a", "h1"), 10.0)
    two.register(Member("b", "h2"), 10.0)
    assert len(two.members()) == 2
    server.kill()
    server.start()
    eventually(lambda: one.read("chat") is None)
    assert one.swap("chat", None, Document(epoch=6, writer="a")), "whoever knows the agreement writes it again"
    two.register(Member("b", "h2"), 10.0)
    assert [(member.instance, member.alive) for member in two.members()] == [("a", False), ("b", True)]


@pytest.mark.parametrize("kind", ["redis", "etcd"])
def test_the_time_in_which_a_server_heard_from_nobody_makes_nobody_long_lost(
    kind: str, own_server: Start, join: Join
) -> None:
    """Whoever came back first was alone in the fleet, past all grace, and could move it."""
    server = own_server(kind)
    one, two = join(server.url), join(server.url, "b")
    one.register(Member("a", "h1"), 1.0)
    two.register(Member("b", "h2"), 1.0)
    assert [member.alive for member in one.members()] == [True, True]
    with server.standing_still():
        time.sleep(2.2)
    one.register(Member("a", "h1"), 10.0)
    eventually(lambda: not one.members()[1].alive)
    returned = time.monotonic()
    other = one.members()[1]
    assert other.lost_for < 0.5 + (time.monotonic() - returned)
    two.register(Member("b", "h2"), 10.0)
    assert [member.alive for member in one.members()] == [True, True]


def test_a_redis_that_lost_its_last_write_says_so_and_takes_a_later_epoch(shared_server: Start, join: Join) -> None:
    server, name = shared_server("redis"), f"back{time.monotonic_ns()}"
    one = join(corner(server.url, name))
    old = Document(epoch=41, writer="a/1")
    one.swap("chat", None, old)
    one.swap("chat", 41, old.following(writer="a/2"))
    put_raw("redis", server, name, old.to_json())
    assert one.read("chat") == old, "the store is read as it is; the epoch tells"
    assert one.swap("chat", 42, Document(epoch=43, writer="a/3")) is False
    assert one.swap("chat", 41, Document(epoch=43, writer="a/3")) is True


def test_a_redis_subscriber_that_was_thrown_out_still_hears(own_server: Start, join: Join) -> None:
    server = own_server("redis")
    one, two = join(server.url), join(server.url, "b")
    one.swap("chat", None, Document(epoch=1, writer="a"))
    two.read("chat")
    heard: list[str] = []
    two.subscribe(heard.append)
    eventually(lambda: bool(heard))
    redis.Redis(port=server.port).client_kill_filter(_type="pubsub")
    heard.clear()
    one.swap("chat", 1, Document(epoch=2, writer="a"))
    assert seconds_until(lambda: "chat" in heard) < 2.5


def test_the_etcd_watch_survives_compaction(own_server: Start, join: Join) -> None:
    server = own_server("etcd")
    assert isinstance(server, EtcdServer)
    one, two = join(server.url), join(server.url, "b")
    one.swap("chat", None, Document(epoch=1, writer="a"))
    heard: list[str] = []
    two.read("chat")
    two.subscribe(heard.append)
    for epoch in range(1, 30):
        one.swap("chat", epoch, Document(epoch=epoch + 1, writer="a"))
    revision = int(server.call("kv/range", key="AA==")["header"]["revision"])  # type: ignore[index]
    server.call("kv/compaction", revision=str(revision), physical=True)
    eventually(lambda: bool(heard))
    time.sleep(0.2)
    heard.clear()
    one.swap("chat", 30, Document(epoch=31, writer="a"))
    assert seconds_until(lambda: "chat" in heard) < 1.0


def test_an_etcd_cluster_goes_on_without_its_leader(tmp_path: Path, join: Join) -> None:
    servers = etcd_cluster(tmp_path)
    try:
        one = join(f"etcd://{','.join(f'127.0.0.1:{server.port}' for server in servers)}")
        assert one.swap("chat", None, Document(epoch=1, writer="a/1"))
        status = servers[0].call("maintenance/status")
        identities = {str(server.call("maintenance/status")["header"]["member_id"]): server for server in servers}  # type: ignore[index]
        identities[str(status["leader"])].kill()
        eventually(lambda: one.swap("chat", 1, Document(epoch=2, writer="a/2")))
        servers_left = [server for server in servers if server._process]
        servers_left[0].kill()
        unavailable(lambda: one.read("chat"))
    finally:
        for server in servers:
            server.kill()


def test_a_lost_zookeeper_session_brings_its_nodes_back_by_itself(shared_server: Start, join: Join) -> None:
    server, name = shared_server("zookeeper"), f"session{time.monotonic_ns()}"
    one, two = join(corner(server.url, name)), join(corner(server.url, name), "b")
    assert isinstance(one, ZooKeeperCoordinator)
    one.subscribe(lambda _: None)
    one.read("chat")
    one.register(Member("a", "h1"), 30.0)
    one.vote("chat", Vote("a", "h1", 1), 30.0)
    assert two.members()[0].alive
    before = one._client.client_id
    thief = KazooClient(f"127.0.0.1:{server.port}", client_id=before)
    thief.start()
    thief.stop()  # ends the session for both
    thief.close()
    eventually(lambda: one._client.client_id != before and two.members()[0].alive and len(two.votes("chat")) == 1)


def test_a_partitioned_zookeeper_session_ends_and_the_member_counts_as_lost(shared_server: Start, join: Join) -> None:
    server, name = shared_server("zookeeper"), f"parted{time.monotonic_ns()}"
    with Proxy(server.port) as line:
        far = join(corner(server.url, name), "b")
        near = ZooKeeperCoordinator(corner(through(server.url, line.port), name), instance="a", session=0.6)
        try:
            near.subscribe(lambda _: None)
            near.read("chat")
            near.register(Member("a", "h1"), 30.0)
            assert far.members()[0].alive
            line.cut()
            eventually(lambda: not far.members()[0].alive)
            unavailable(lambda: near.read("chat"))
            line.heal()
            eventually(lambda: far.members()[0].alive)
        finally:
            near.close()
