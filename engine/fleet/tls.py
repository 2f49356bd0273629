"""TLS to a coordinator: whom to trust, who we are, and what to change when a handshake fails.

The authorities of `fleet.ca` are trusted besides the system's. The files are read when a coordinator is built, so one
that is missing or no certificate is said at the start and by `switchgear doctor`, not by every later call.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.core.errors import ConfigurationError

BROKEN_OFF: Final = (
    "it broke the connection off: check that it runs and speaks TLS on this port, and set fleet.cert and fleet.key "
    "if it asks for a certificate"
)
"""What a server that misses our certificate does as well, and what a port without TLS does."""

_REMEDIES: Final = (
    ("certificate has expired", "its certificate has expired: renew it on the server"),
    ("mismatch", "its certificate is for another name: write that name in fleet.url"),
    ("certificate verify failed", "its certificate is of an unknown authority: name the authority's file in fleet.ca"),
    (" alert ", "it refused our certificate: set fleet.cert and fleet.key to one of an authority that it trusts"),
    ("wrong version number", "it does not speak TLS on this port: name its TLS port in fleet.url"),
    ("eof occurred", BROKEN_OFF),
    ("connection reset", BROKEN_OFF),
    ("broken pipe", BROKEN_OFF),
)
"""What OpenSSL says, in small letters, and what to do; the first that is found counts."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM; `None` where there is none.

    Attributes:
        ca: Authorities to trust besides the system's.
        cert: Our certificate, for servers that ask for one.
        key: Its private key; `None`: it is in the file of the certificate.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """What a connection is made with; the server's certificate and name are always checked.

        Raises:
            ConfigurationError: A file cannot be read or is not what it should be; the message names the key.
        """
        context = ssl.create_default_context()
        if self.ca:
            try:
                context.load_verify_locations(self.ca)
            except OSError as error:
                msg = f"fleet.ca: {self.ca} holds no certificates in PEM ({_brief(error)}): name the authority's file"
                raise ConfigurationError(msg) from None
        if self.key and not self.cert:
            msg = f"fleet.key is given without fleet.cert: name the certificate that {self.key} belongs to"
            raise ConfigurationError(msg)
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
            except (OSError, ValueError) as error:
                own = f"fleet.cert {self.cert} and fleet.key {self.key or '(in the same file)'}"
                msg = f"{own} are no certificate and its key in PEM, without a passphrase ({_brief(error)})"
                raise ConfigurationError(msg) from None
        return context


NOTHING_SAID: Final = Tls()
"""The system's authorities, and no certificate of our own."""


def remedy(error: BaseException | None) -> str:
    """What to change after an error on a connection with TLS, empty when that is not to blame."""
    said = ""
    while error is not None:
        said += f" {error} ".lower().replace("_", " ")
        error = error.__cause__ or error.__context__
    return next((told for words, told in _REMEDIES if words in said), "")


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal, at which a service would hang."""
    msg = "the key has a passphrase"
    raise ValueError(msg)


def _brief(error: Exception) -> str:
    return (getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)).partition(" (_ssl")[0]
