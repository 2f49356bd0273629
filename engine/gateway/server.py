"""Running an ASGI application on uvicorn the way the gateway wants it: one socket, bound before anything starts."""

from __future__ import annotations

import errno
import logging
import signal
import socket
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from engine.config import Config
from engine.core.errors import ConfigurationError
from engine.gateway.protocol import GatewayProtocol

log = logging.getLogger(__name__)

BACKLOG: Final = 2048
KEEP_ALIVE: Final = 75
"""Seconds an idle connection is kept; longer than a load balancer's usual minute."""
HANGS_AFTER: Final = 15.0
"""Seconds without an answer after which a worker is asked once more, and then replaced."""


FINE, FAILED = 0, 1


def bind(config: Config) -> socket.socket:
    """Take the gateway's configured address; see `listen`."""
    return listen(config.server.host, config.server.port, config.source, "server")


def listen(host: str, port: int, source: Path, section: str) -> socket.socket:
    """Take an address.

    Args:
        host: The address of this machine to listen on.
        port: The port; 0 lets the system choose.
        source: The configuration file, for messages.
        section: Its table with `host` and `port`.

    Raises:
        ConfigurationError: It is in use or not ours; says what to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host.strip("[]"), port))
        taken.listen(BACKLOG)
    except OSError as error:
        taken.close()
        key, why = _why(error, host, port)
        msg = f"{source}: {section}.{key}: {why}"
        raise ConfigurationError(msg) from None
    taken.set_inheritable(True)
    return taken


def _why(error: OSError, host: str, port: int) -> tuple[str, str]:
    """The key to change, and what is wrong with it."""
    if error.errno == errno.EADDRINUSE:
        return "port", f"port {port} on {host} is in use: stop what listens there, or choose another port"
    if error.errno == errno.EACCES:
        return "port", f"port {port} may only be taken by root: choose one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return "host", f"{host} is no address of this machine: set it to one that is"
    if isinstance(error, socket.gaierror):
        return "host", f'"{host}" is not known here ({error.strerror}): set it to an address of this machine'
    return "host", f"cannot listen on {host}:{port}: {error.strerror}"


def run(application: str, config: Config, taken: socket.socket, *, workers: int = 1) -> int:
    """Serve until told to stop; open streams are finished first, up to the longest total deadline.

    Args:
        application: `module:factory` of the ASGI application; every worker process calls it.
        config: The configuration.
        taken: The listening socket of `bind`.
        workers: Processes that serve it.

    Returns:
        0 after SIGINT or SIGTERM, 1 when it could not start; the log says why.
    """
    longest = max((config.manager_policy(name).timeouts.total for name in config.managers), default=30.0)
    settings: dict[str, Any] = {
        "factory": True,
        "http": GatewayProtocol,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": True,
        "timeout_keep_alive": KEEP_ALIVE,
        "timeout_graceful_shutdown": int(longest) + 5,
        "lifespan": "on",
        "workers": workers,
    }
    prepared = uvicorn.Config(application, **settings)
    if workers > 1:
        supervisor = _Supervisor(prepared, sockets=[taken])
        supervisor.run()
        return FAILED if any(one.exitcode == STARTUP_FAILURE for one in supervisor.processes) else FINE
    server = uvicorn.Server(prepared)
    _end_quietly(server)
    server.run(sockets=[taken])
    return FINE if server.started else FAILED


class _Supervisor(Multiprocess):
    """Replaces workers that ended or hang, but none that only stood still for a while.

    With a worker everybody it serves is cut off. uvicorn gives it five seconds to answer, and after a pause of the
    machine none at all: the time is over when the supervisor goes on, and the worker may go on a moment later.
    """

    def keep_subprocess_alive(self) -> None:
        """See `Multiprocess.keep_subprocess_alive`, which asks again whom it replaces."""
        if all(one.is_alive(HANGS_AFTER) for one in self.processes):
            return
        before = [one.pid for one in self.processes]
        super().keep_subprocess_alive()
        for pid in set(before) - {one.pid for one in self.processes}:
            log.warning("worker %s ended or did not answer any more; another one takes its place", pid)


def _end_quietly(server: uvicorn.Server) -> None:
    """Let a signal before uvicorn takes them over end the server, and one that it raises again afterwards nothing else.

    To be told to stop is not a failure: the exit code is 0, as supervisors expect.
    """

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
