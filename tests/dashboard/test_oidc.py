"""Signing in by OIDC on an open address: who may act and who may look, with a real provider and a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import browser, chromium, go, visit
from history import Moment, write_history
from identity import CLIENT, provider
from playwright.sync_api import Browser, expect
from running import Place, listens, running

from dashboard.entrance import WANTED_COOKIE
from tests.programs import free_port

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

if chromium() is None and os.environ.get("CI") != "true":
    pytest.skip("chromium is not installed", allow_module_level=True)

WITHOUT_REFERER = """
document.addEventListener("DOMContentLoaded", () => {
  const said = document.createElement("meta");
  [said.name, said.content] = ["referrer", "no-referrer"];
  document.head.append(said);
});
"""
"""What makes a browser keep to itself where it comes from, as some do by themselves."""

SECRETS = """
[auth]
redirect_uri = "http://127.0.0.1:{port}/oauth2callback"
cookie_secret = "for-this-test-only-and-long-enough"
client_id = "{client}"
client_secret = "any"
server_metadata_url = "{issuer}/.well-known/openid-configuration"
"""


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.mark.parametrize(
    ("email", "may_act"), [("Ana@example.com", True), ("bob@example.com", False)], ids=["operator", "viewer"]
)
def test_who_signs_in_by_oidc_may_act_only_where_the_configuration_names_them(
    chrome: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, email: str, may_act: bool
) -> None:
    place = Place.make(tmp_path)
    open_to_all = f'[dashboard]\nhost = "0.0.0.0"\noperators = ["ana@example.com"]\nport = {place.page_port}\n'
    text = place.path.read_text().replace(f"[dashboard]\nport = {place.page_port}\n", open_to_all)
    place.path.write_text(text.replace("[store]\n", '[store]\nurl = "sqlite:///switchgear.db"\n'))
    write_history(tmp_path / "switchgear.db", 1_795_000_000_000, Moment.CALM, every_ms=600_000)
    with provider(free_port(), email) as issuer:
        secrets = tmp_path / ".streamlit" / "secrets.toml"
        secrets.parent.mkdir()
        secrets.write_text(SECRETS.format(port=place.page_port, client=CLIENT, issuer=issuer))
        monkeypatch.chdir(tmp_path)
        with running("dashboard", "--config", str(place.path)) as process:
            process.wait_for(lambda: listens(place.page_port), "listening")
            page = visit(chrome)
            page.add_init_script(WITHOUT_REFERER)
            wanted = f"http://127.0.0.1:{place.page_port}/control?manager=chat&at=1&text=a%2Bb+%C3%BC"
            go(page, wanted)
            assert "gemini" not in page.content()
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator(".sg-foot")).to_contain_text(email, timeout=30_000)
            expect(page.locator(".sg-foot")).to_contain_text("operator" if may_act else "viewer")
            assert page.url == wanted
            assert [one["name"] for one in page.context.cookies() if one["name"] == WANTED_COOKIE] == []
            pin = page.get_by_role("button", name="Pin secondary")
            expect(pin).to_be_enabled() if may_act else expect(pin).to_be_disabled()
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_role("button", name="Sign in")).to_be_visible()
            page.context.close()
