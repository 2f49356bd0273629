"""Run the upstream server until it is interrupted: `python -m tests.upstream --port 9000`."""

from __future__ import annotations

import argparse
import sys

from aiohttp import web

from tests.upstream.server import Upstream


def main() -> None:
    """Serve in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstream", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    given = parser.parse_args()
    sys.stderr.write(f"upstream on http://{given.host}:{given.port}\n")
    web.run_app(Upstream().app(), host=given.host, port=given.port, print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
