"""What a gateway has done before its first request."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
[store]
url = "sqlite:///switchgear.db"
[providers.gemini]
kind = "{kind}"
api_key_env = "KEY"
[models.pro]
provider = "gemini"
name = "gemini-2.5-pro"
[models.flash]
provider = "gemini"
name = "gemini-2.5-flash"
[managers.chat]
primary = "pro"
secondary = "flash"
"""
STARTED = """
import asyncio, sys
from engine.config import load
from engine.gateway.app import build
from engine.instance import Instance

async def main():
    app = build(Instance.open(load(sys.argv[1])))
    assert sys.argv[2] not in sys.modules
    async with app.router.lifespan_context(app):
        assert sys.argv[2] in sys.modules

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("kind", "library"), [("google-generativeai", "google.generativeai"), ("google-genai", "google.genai")]
)
def test_a_providers_library_is_there_before_the_first_request(tmp_path: Path, kind: str, library: str) -> None:
    """Its import took a second or two of that request's clocks, and with short ones all the first requests failed."""
    config = tmp_path / "switchgear.toml"
    config.write_text(CONFIG.format(kind=kind))
    ended = subprocess.run(
        [sys.executable, "-c", STARTED, str(config), library],
        env={"KEY": "k"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
