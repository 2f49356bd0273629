"""Running an ASGI application on uvicorn the way the gateway wants it: one socket, bound before anything starts."""

from __future__ import annotations

import errno
import logging
import socket
from typing import Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from engine.config import Config
from engine.core.errors import ConfigurationError

BACKLOG: Final = 2048
KEEP_ALIVE: Final = 75
"""Seconds an idle connection is kept; longer than a load balancer's usual minute."""


def bind(config: Config) -> socket.socket:
    """Take the configured address.

    Raises:
        ConfigurationError: It is in use or not ours; says what to change.
    """
    host, port = config.server.host, config.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host.strip("[]"), port))
        taken.listen(BACKLOG)
    except OSError as error:
        taken.close()
        msg = f"{config.source}: server.port: {_why(error, host, port)}"
        raise ConfigurationError(msg) from None
    taken.set_inheritable(True)
    return taken


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what listens there, or choose another port"
    if error.errno == errno.EACCES:
        return f"port {port} may only be taken by root: choose one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: set server.host to one that is"
    return f"cannot listen on {host}:{port}: {error.strerror}"


def run(application: str, config: Config, taken: socket.socket, *, workers: int = 1) -> None:
    """Serve until told to stop; open streams are finished first, up to the longest total deadline.

    Args:
        application: `module:factory` of the ASGI application; every worker process calls it.
        config: The configuration.
        taken: The listening socket of `bind`.
        workers: Processes that serve it.
    """
    longest = max((config.manager_policy(name).timeouts.total for name in config.managers), default=30.0)
    settings: dict[str, Any] = {
        "factory": True,
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
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    if workers > 1:
        Multiprocess(prepared, sockets=[taken]).run()
    else:
        uvicorn.Server(prepared).run(sockets=[taken])
