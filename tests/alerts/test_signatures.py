"""Our signatures against the reference package."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from alerts.signatures import headers

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER = "whsec_" + base64.b64encode(b"another secret of 24 byte").decode()


@given(st.text(min_size=0, max_size=200).filter(lambda text: text.isprintable()))
def test_the_reference_package_computes_the_same_signature(body: str) -> None:
    now = datetime.now(UTC)
    ours = headers("msg_1", int(now.timestamp()), body.encode(), SECRET)
    assert ours["webhook-signature"] == Webhook(SECRET).sign("msg_1", now, body)


def test_the_reference_package_accepts_a_letter_and_refuses_a_changed_one() -> None:
    body = '{"a":"ä"}'
    ours = headers("msg_1", int(datetime.now(UTC).timestamp()), body.encode(), SECRET)
    assert Webhook(SECRET).verify(body, ours) == {"a": "ä"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify('{"a":"b"}', ours)


def test_while_a_secret_is_replaced_both_verify() -> None:
    ours = headers("msg_1", int(datetime.now(UTC).timestamp()), b"{}", f"{SECRET} {OTHER}")
    for secret in (SECRET, OTHER):
        Webhook(secret).verify("{}", ours)


def test_without_a_secret_there_is_an_id_and_no_signature() -> None:
    assert headers("msg_1", 1, b"{}", None) == {"webhook-id": "msg_1", "webhook-timestamp": "1"}
