"""Where signing in leads: to the page that was asked for, and never to another site."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from history import write_config
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from dashboard.entrance import OIDC_CALLBACK, WANTED_COOKIE, WayBack, routes
from dashboard.look import WANTED
from engine.config import load

SITE = "https://switchgear.example"


def client(*, wanted: str | None = None) -> TestClient:
    """A browser of an application that leads as Streamlit does; `wanted` is what the sign-in page has kept."""

    async def callback(_: Request) -> Response:
        return RedirectResponse("/", 302)

    paths = [Route(OIDC_CALLBACK, callback), Route("/else", callback)]
    app = Starlette(routes=paths, middleware=[Middleware(WayBack)])
    cookies = {} if wanted is None else {WANTED_COOKIE: quote(wanted, safe="")}
    return TestClient(app, base_url=SITE, follow_redirects=False, cookies=cookies)


@pytest.mark.parametrize("wanted", ["/", "/incidents?manager=chat&at=1", "/alerts?silence=a%3D%22b%22%2C&x=%C3%BC"])
def test_it_leads_to_the_page_that_was_asked_for_and_forgets_it(wanted: str) -> None:
    answer = client(wanted=wanted).get(OIDC_CALLBACK)
    assert answer.headers["location"] == wanted
    said = answer.headers["set-cookie"].lower()
    for part in (f'{WANTED_COOKIE}=""', "max-age=0", f"path={OIDC_CALLBACK}"):
        assert part in said


@pytest.mark.parametrize(
    "planted",
    [
        "//evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\\evil.example",
        "/\t/evil.example",
        "/\r\nset-cookie: a=b",
    ],
)
def test_a_planted_cookie_leads_nowhere_else(planted: str) -> None:
    assert client(wanted=planted).get(OIDC_CALLBACK).headers["location"] == "/"


def test_whoever_asked_for_nothing_is_led_to_the_first_page() -> None:
    assert client().get(OIDC_CALLBACK).headers["location"] == "/"


def test_only_the_way_back_is_changed() -> None:
    assert client(wanted="/control").get("/else").headers["location"] == "/"


def test_the_sign_in_page_keeps_what_is_read_here() -> None:
    script = WANTED.read_text(encoding="utf-8")
    assert f'"{WANTED_COOKIE}="' in script
    assert f"path={OIDC_CALLBACK};" in script


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_an_origin_that_is_no_address_is_another_site(path: str, tmp_path: Path) -> None:
    browser = TestClient(Starlette(routes=routes(load(write_config(tmp_path)))), base_url=SITE, follow_redirects=False)
    assert browser.post(path, headers={"origin": "https://[evil"}).status_code == 403
