"""Real servers for the coordinators, each on a free port with data in a folder of its own.

They can be killed like a process that dies, and started again on the same port and data.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.children import standing_still
from tests.patience import eventually
from tests.programs import free_port, missing, require_program

JARS = Path("/usr/share/java")


@dataclass(frozen=True)
class Secured:
    """A second port, on which a server speaks TLS and asks for certificates of an authority."""

    ca: Path
    cert: Path
    port: int = field(default_factory=free_port)


class Server(ABC):
    """A server program on a port of its own."""

    def __init__(self, folder: Path, *, secured: Secured | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.secured = secured
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Its `fleet.url`."""

    @property
    def secure_url(self) -> str:
        """Its `fleet.url` with TLS."""
        assert self.secured is not None
        scheme, _, place = self.url.replace(f":{self.port}", f":{self.secured.port}").partition(":")
        return f"{scheme}s:{place}"

    @abstractmethod
    def command(self) -> list[str]:
        """What runs it."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves."""

    def start(self) -> Self:
        """Run it and wait until it serves."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), cwd=self.folder, stdout=log, stderr=log)
        try:
            eventually(self._is_up, despite=(OSError, ValueError), told=self._said)
        except AssertionError:
            self.kill()
            raise
        return self

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.command()[0]} ended:\n{self._said()}"
        return self.answers()

    def _said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """It does nothing, as on a machine that is paused; its clock goes on."""
        assert self._process is not None
        with standing_still(self._process.pid):
            yield

    def kill(self) -> None:
        """End it like a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _ask(port: int, question: bytes, answer: bytes) -> bool:
    with socket.create_connection(("127.0.0.1", port), 5.0) as talk:
        talk.sendall(question)
        return answer in talk.recv(4096)


class RedisServer(Server):
    """redis-server, without a disk unless told; `password` protects it."""

    def __init__(self, folder: Path, *, password: str = "", secured: Secured | None = None) -> None:
        super().__init__(folder, secured=secured)
        self.password = password

    @property
    def url(self) -> str:
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        protected = ["--requirepass", self.password] if self.password else []
        plain = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir", str(self.folder)]
        if (one := self.secured) is not None:
            plain += ["--tls-port", str(one.port), "--tls-ca-cert-file", str(one.ca)]
            plain += ["--tls-cert-file", str(one.cert), "--tls-key-file", str(one.cert)]
        return [require_program("redis-server"), "--port", str(self.port), *plain, *protected]

    def answers(self) -> bool:
        return _ask(self.port, b"PING\r\n", b"NOAUTH" if self.password else b"PONG")


class EtcdServer(Server):
    """etcd with short elections, so that leases of a second are possible."""

    def __init__(self, folder: Path, *, secured: Secured | None = None) -> None:
        super().__init__(folder, secured=secured)
        self.peer_port = free_port()
        self.name = "one"
        self.cluster = ""

    @property
    def url(self) -> str:
        return f"etcd://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.peer_port}"
        files = []
        if (one := self.secured) is not None:
            client += f",https://127.0.0.1:{one.port}"
            files = [f"--trusted-ca-file={one.ca}", f"--cert-file={one.cert}", f"--key-file={one.cert}"]
            files.append("--client-cert-auth")
        return [
            require_program("etcd"), f"--name={self.name}", f"--data-dir={self.folder / 'data'}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self.cluster or f'{self.name}={peer}'}",
            "--heartbeat-interval=20", "--election-timeout=100", "--log-level=error", *files,
        ]  # fmt: skip

    def answers(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5.0) as answer:
            return json.load(answer)["health"] == "true"

    def call(self, path: str, **body: object) -> dict[str, object]:
        """One request to the gateway, as an administrator's tool would make it."""
        url = f"http://127.0.0.1:{self.port}/v3/{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30.0) as answer:
            found: dict[str, object] = json.load(answer)
            return found


def etcd_cluster(folder: Path, size: int = 3) -> list[EtcdServer]:
    """Members of one cluster, started together."""
    servers = [EtcdServer(folder / str(number)) for number in range(size)]
    for number, server in enumerate(servers):
        server.name = f"m{number}"
    cluster = ",".join(f"{server.name}=http://127.0.0.1:{server.peer_port}" for server in servers)
    for server in servers:
        server.cluster = cluster
        server.folder.mkdir(parents=True)
        with (server.folder / "log").open("ab") as log:
            server._process = subprocess.Popen(server.command(), cwd=server.folder, stdout=log, stderr=log)
    eventually(lambda: all(server.answers() for server in servers), every=0.05, despite=(OSError, ValueError))
    return servers


class ZooKeeperServer(Server):
    """One ZooKeeper server with short ticks, so that sessions of less than a second are possible."""

    @property
    def url(self) -> str:
        return f"zookeeper://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        java = shutil.which("java")
        if java is None or not (JARS / "zookeeper.jar").exists():
            missing("ZooKeeper is not installed: apt-get install zookeeperd")
        settings = {
            "tickTime": 100, "dataDir": self.folder / "data", "clientPort": self.port, "clientPortAddress": "127.0.0.1",
            "minSessionTimeout": 300, "maxSessionTimeout": 60_000, "admin.enableServer": "false",
            "4lw.commands.whitelist": "srvr",
        }  # fmt: skip
        if (one := self.secured) is not None:
            settings |= {
                "secureClientPort": one.port, "secureClientPortAddress": "127.0.0.1",
                "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
                "ssl.keyStore.location": one.cert, "ssl.keyStore.type": "PEM",
                "ssl.trustStore.location": one.ca, "ssl.trustStore.type": "PEM",
            }  # fmt: skip
        (self.folder / "zoo.cfg").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        jars = ":".join(map(str, sorted(JARS.glob("*.jar"))))
        light = ["-Xmx96m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dzookeeper.forceSync=no"]
        return [str(java), *light, "-cp", jars, "org.apache.zookeeper.server.ZooKeeperServerMain", "zoo.cfg"]

    def answers(self) -> bool:
        return _ask(self.port, b"srvr", b"Mode")
