"""Standard Webhooks 1.0.0 signatures: `v1,` and the HMAC-SHA256 of `id.timestamp.body`, base64.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key bytes of a secret: base64 after `whsec_`, any other text as it is."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            return secret.encode()
    return secret.encode()


def headers(identifier: str, timestamp: int, body: bytes, secrets: str | None) -> dict[str, str]:
    """The three headers of one attempt; without a secret there is no signature.

    Args:
        identifier: The letter's id, the same on every attempt.
        timestamp: Unix seconds of this attempt.
        body: Exactly the bytes that are sent.
        secrets: One secret, or several with spaces between them while one is replaced.
    """
    found = {"webhook-id": identifier, "webhook-timestamp": str(timestamp)}
    signed = f"{identifier}.{timestamp}.".encode() + body
    marks = [
        "v1," + base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()
        for secret in (secrets or "").split()
    ]
    return {**found, "webhook-signature": " ".join(marks)} if marks else found
