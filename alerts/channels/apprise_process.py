"""Sends one message by apprise: a program of its own, in which only vetted addresses are ever connected to.

Apprise resolves names and opens connections by itself, in a hundred ways. So the check stands where every one of them
has to pass: an audit hook (PEP 578) looks at the address of each connection as it is opened, when nothing is resolved
any more. A name that led to a public address a moment ago and leads to a private one now gets nowhere, and neither
does whatever a receiver would lead apprise to. Redirects are not followed and no proxy of the environment is used.

Reads an order as JSON from its input, writes what went wrong as JSON to its output: `{"error": null}` for nothing.
Whoever started it ends it when it takes too long (`alerts.channels.apprise_channel`).
"""

from __future__ import annotations

import ipaddress
import json
import os
import resource
import signal
import socket
import sys
from importlib import import_module
from typing import Any

from alerts import net

MEMORY_BYTES = 1 << 30
"""A receiver that answers without end fills no more than this."""

LAST_S = 60
"""When it ends by itself, should whoever started it be gone."""

NOT_INSTALLED = "apprise is not installed: pip install 'switchgear[apprise]'"
_OPENING = ("socket.connect", "socket.sendto")


class Guard:
    """Refuses connections to addresses that are not allowed, and remembers why.

    Args:
        allow_private: Whether private addresses are.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self.refused: list[str] = []
        self._allow_private = allow_private

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook.

        Raises:
            ConnectionRefusedError: The connection is not to be opened.
        """
        if event in _OPENING:
            try:
                self._judge(*arguments[:2])
            except net.Refused as error:
                self.refused.append(str(error))
                raise ConnectionRefusedError(str(error)) from None

    def _judge(self, sock: socket.socket, address: Any) -> None:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            if not self._allow_private:
                msg = "the receiver is a program on this machine: set allow_private = true if that is meant"
                raise net.Refused(msg)
            return
        text = str(address[0])
        try:
            ipaddress.ip_address(text.partition("%")[0])
        except ValueError:  # the socket would resolve it by itself, after this look at it
            msg = f"{text[:100]} is connected to by name, so its address cannot be vetted"
            raise net.Refused(msg) from None
        net.judge("the receiver", text, allow_private=self._allow_private)


def send(order: dict[str, Any], guard: Guard) -> str | None:
    """Send; returns what went wrong, `None` for nothing."""
    try:
        apprise: Any = import_module("apprise")
        models: Any = import_module("requests.models")
    except ImportError:
        return NOT_INSTALLED
    models.REDIRECT_STATI = ()
    sys.addaudithook(guard)
    try:
        sender = apprise.Apprise(asset=apprise.AppriseAsset(async_mode=False))
        if not sender.add(order["url"]):
            return "apprise does not understand the address: see https://appriseit.com/services/ for its form"
        message = order["message"]
        delivered = sender.notify(title=message["title"], body=message["body"], notify_type=message["type"])
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and its words may hold the address
        return guard.refused[0] if guard.refused else f"apprise failed with {type(error).__name__}"
    return None if delivered else next(iter(guard.refused), "apprise could not deliver it")


def main() -> None:
    """Do what the order says."""
    signal.alarm(LAST_S)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    order = json.load(sys.stdin)
    error = send(order, Guard(allow_private=order["allow_private"]))
    sys.stdout.write(json.dumps({"error": error}) + "\n")


if __name__ == "__main__":
    main()
