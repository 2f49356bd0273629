"""How the dashboard is started: one Streamlit process, with its theme, on the configured address.

`switchgear dashboard` calls `run`; a supervisor starts `command(config)` with `environment(config)` beside itself.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.middleware import Middleware

from dashboard.entrance import OwnFrames, WayBack, routes
from dashboard.look import HERE, streamlit_options
from engine.config import Config, is_loopback, load
from engine.config.config import PATH_VARIABLE

SCRIPT = HERE / "app.py"


def options(config: Config, port: int | None = None) -> dict[str, Any]:
    """Streamlit's options by dotted name: ours, and where to listen."""
    return streamlit_options() | {
        "server.address": config.dashboard.host,
        "server.port": config.dashboard.port if port is None else port,
        "server.allowedHosts": _hosts(config),
    }


def _hosts(config: Config) -> list[str]:
    """Names a browser may use for us: on loopback only loopback's, so that no other site can reach in by its DNS."""
    if not is_loopback(config.dashboard.host):
        return []
    public = urlsplit(config.dashboard.public_url).hostname if config.dashboard.public_url else None
    return [name for name in ("localhost", "127.0.0.1", "[::1]", config.dashboard.host, public) if name]


def environment(config: Config, *, demo: bool = False) -> dict[str, str]:
    """This process's environment with what the pages need to find the configuration."""
    return os.environ | {PATH_VARIABLE: str(config.source), "SWITCHGEAR_DEMO": "1" if demo else "0"}


def command(config: Config, port: int | None = None) -> list[str]:
    """The command that starts the dashboard as a process of its own; run it with `environment(config)`."""
    chosen = config.dashboard.port if port is None else port
    return [sys.executable, "-m", "dashboard.serve", "--config", str(config.source), "--port", str(chosen)]


def run(config: Config, port: int | None = None, *, demo: bool = False) -> None:
    """Serve until interrupted or told to end, which is no failure: uvicorn sends itself the signal again afterwards."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    os.environ.update(environment(config, demo=demo))
    from streamlit.starlette import App  # noqa: PLC0415 - slow to import, and only the server needs it

    sys.argv = [str(SCRIPT)]
    middleware = [Middleware(OwnFrames), Middleware(WayBack)]
    App(SCRIPT, routes=routes(config), middleware=middleware).run(config=options(config, port))


def _leave(*_: object) -> None:
    """End this process; before uvicorn takes signals over there is nothing to lose, and afterwards it has finished.

    Not by an exception: one that is raised in a weak reference's callback, say, is swallowed, and we would go on.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, RuntimeError, ValueError):
            stream.flush()
    os._exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m dashboard.serve --config FILE [--port N]`."""
    parser = argparse.ArgumentParser(prog="dashboard.serve", description="Serve the dashboard.")
    parser.add_argument("--config", type=Path, default=None)
    parser.add_argument("--port", type=int, default=None)
    chosen = parser.parse_args(arguments)
    run(load(chosen.config), chosen.port, demo=os.environ.get("SWITCHGEAR_DEMO") == "1")


if __name__ == "__main__":
    main()
