"""A provider behind a company's own authority, which the environment names: read when the process starts."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.engine.providers.contract import HTTP_KINDS
from tests.patience import PATIENCE_S
from tests.upstream import Upstream

VARIABLE = {"google-generativeai": "REQUESTS_CA_BUNDLE"}
ASK = """
import sys
from engine.core.outcomes import ProviderFailure
from engine.providers.base import build
from tests.engine.providers.contract import Asked, call
kind, url = sys.argv[1:]
asked = Asked(build(kind, api_key="any", base_url=url, name="private"))
try:
    print("answered", asked.generate(call()).text)
except ProviderFailure as failure:
    print(failure.category, failure)
asked.close()
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def upstream(authority: Authority) -> Iterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate("127.0.0.1"))
    with Upstream(context) as running:
        yield running


def ask(kind: str, upstream: Upstream, **environ: str | Path) -> str:
    """What a process of its own is answered."""
    url = upstream.openai_url if kind == "openai" else upstream.gemini_url
    done = subprocess.run(
        [sys.executable, "-c", ASK, kind, url],
        env={**os.environ, **{name: str(value) for name, value in environ.items()}},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
    )
    return done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize("kind", HTTP_KINDS)
def test_a_provider_of_an_authority_in_the_environment_answers(
    kind: str, upstream: Upstream, authority: Authority
) -> None:
    said = ask(kind, upstream, **{VARIABLE.get(kind, "SSL_CERT_FILE"): authority.ca})
    assert said.startswith("answered")


@pytest.mark.parametrize("kind", ["google-genai", "openai"])
def test_a_provider_of_an_unknown_authority_is_not_trusted_and_the_record_says_so(
    kind: str, upstream: Upstream
) -> None:
    said = ask(kind, upstream)
    assert said.startswith("connection")
    assert "certificate not trusted: unable to get local issuer certificate; SSL_CERT_FILE names" in said
