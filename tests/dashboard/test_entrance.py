"""Where signing in leads: to the page that was asked for, and never to another site."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from dashboard.entrance import LONGEST_WANTED, OIDC_CALLBACK, OIDC_LOGIN, WANTED_COOKIE, WayBack

SITE = "https://switchgear.example"


def client(*, login_works: bool = True) -> TestClient:
    """A browser of an application that leads as Streamlit does."""

    async def login(_: Request) -> Response:
        return RedirectResponse("https://id.example/authorize", 302) if login_works else PlainTextResponse("no", 400)

    async def callback(_: Request) -> Response:
        return RedirectResponse("/", 302)

    routes = [Route(OIDC_LOGIN, login), Route(OIDC_CALLBACK, callback), Route("/else", callback)]
    app = Starlette(routes=routes, middleware=[Middleware(WayBack)])
    return TestClient(app, base_url=SITE, follow_redirects=False)


def leads(browser: TestClient, referer: str | None, site: str = "same-origin") -> str:
    """Sign in from a page, and give the address one lands on."""
    headers = {"sec-fetch-site": site} | ({"referer": referer} if referer else {})
    assert browser.get(OIDC_LOGIN, headers=headers).headers["location"] == "https://id.example/authorize"
    return browser.get(OIDC_CALLBACK, headers={"sec-fetch-site": "cross-site"}).headers["location"]


@pytest.mark.parametrize("wanted", ["/", "/incidents?manager=chat&at=1", "/alerts?silence=a%3D%22b%22%2C&x=%C3%BC"])
def test_it_leads_to_the_page_that_was_asked_for_and_forgets_it(wanted: str) -> None:
    browser = client()
    assert leads(browser, SITE + wanted) == wanted
    assert WANTED_COOKIE not in browser.cookies
    assert browser.get(OIDC_CALLBACK).headers["location"] == "/"


@pytest.mark.parametrize(
    "referer",
    [
        None,
        f"{SITE}//evil.example/x",
        f"{SITE}/\\evil.example",
        f"{SITE}/\t/evil.example",
        "javascript:alert(1)",
        "https://[evil",
        f"{SITE}/{'x' * LONGEST_WANTED}",
    ],
)
def test_whatever_else_the_browser_says_leads_to_the_first_page(referer: str | None) -> None:
    assert leads(client(), referer) == "/"


def test_another_site_chooses_no_page() -> None:
    assert leads(client(), "https://evil.example/control?x=1", site="cross-site") == "/"


def test_an_origin_that_is_no_address_chooses_no_page() -> None:
    browser = client()
    headers = {"origin": "https://[evil", "referer": f"{SITE}/control"}
    assert browser.get(OIDC_LOGIN, headers=headers).status_code == 302
    assert WANTED_COOKIE not in browser.cookies


@pytest.mark.parametrize(
    "planted", ["//evil.example", "https://evil.example", "/\\evil.example", "/\r\nset-cookie: a=b"]
)
def test_a_planted_cookie_leads_nowhere_else(planted: str) -> None:
    browser = client()
    browser.cookies.set(WANTED_COOKIE, quote(planted, safe=""))
    assert browser.get(OIDC_CALLBACK).headers["location"] == "/"


def test_the_cookie_is_for_the_way_back_alone() -> None:
    browser = client()
    answer = browser.get(OIDC_LOGIN, headers={"referer": f"{SITE}/control", "sec-fetch-site": "same-origin"})
    said = answer.headers["set-cookie"].lower()
    for part in ("httponly", "samesite=lax", "secure", f"path={OIDC_CALLBACK}"):
        assert part in said
    assert browser.get("/else").headers["location"] == "/"


def test_a_login_that_fails_keeps_nothing() -> None:
    browser = client(login_works=False)
    browser.get(OIDC_LOGIN, headers={"referer": f"{SITE}/control", "sec-fetch-site": "same-origin"})
    assert WANTED_COOKIE not in browser.cookies
