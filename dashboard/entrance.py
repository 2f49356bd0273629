"""Signing in and out by key: two routes beside Streamlit, because a page script cannot set a cookie.

The form is plain HTML and posts to `/sign-in`; the answer is a redirect with an HttpOnly, SameSite=Strict cookie.
Wrong keys are slowed down, and nothing that was typed is logged.

Signing in by OIDC is Streamlit's own, and `WayBack` leads from there to the page that was asked for.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard import viewer
from engine.config import Config

WRONG_KEY_WAIT_S: Final = 1.0
LARGEST_FORM: Final = 4096

OIDC_CALLBACK: Final = "/oauth2callback"
"""Streamlit's address."""

WANTED_COOKIE: Final = "switchgear_wanted"
"""As in `assets/wanted.js`."""


def routes(config: Config) -> list[Route]:
    """The two routes of a configuration."""

    async def sign_in(request: Request) -> Response:
        if not _same_site(request):
            return Response("sign in from the dashboard's own page", status_code=403)
        body = await request.body()
        if len(body) > LARGEST_FORM:
            return Response("the form is too large", status_code=413)
        typed = parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0]
        made = viewer.token(config, typed, time.time())
        wanted = _safe(request.query_params.get("then", "/"))
        if made is None:
            await asyncio.sleep(WRONG_KEY_WAIT_S)
            return RedirectResponse(f"{wanted}{'&' if '?' in wanted else '?'}refused=1", status_code=303)
        answer = RedirectResponse(wanted, status_code=303)
        answer.set_cookie(
            viewer.COOKIE,
            made,
            max_age=viewer.SESSION_S,
            httponly=True,
            samesite="strict",
            secure=_encrypted(request),
            path="/",
        )
        return answer

    async def sign_out(request: Request) -> Response:
        if not _same_site(request):
            return Response("sign out from the dashboard's own page", status_code=403)
        answer = RedirectResponse("/", status_code=303)
        answer.delete_cookie(viewer.COOKIE, path="/")
        return answer

    return [Route("/sign-in", sign_in, methods=["POST"]), Route("/sign-out", sign_out, methods=["POST"])]


class OwnFrames:
    """Lets no page of another site put ours into a frame, where a click could be made to mean something else.

    Args:
        app: Streamlit's application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with a header that browsers obey."""

        async def framed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["content-security-policy"] = "frame-ancestors 'self'"
            await send(message)

        await self._app(scope, receive, framed)


class WayBack:
    """Leads who signs in by OIDC to the page they came for; Streamlit leads everybody to the first one.

    The page waits in a cookie meanwhile, which the sign-in page sets in the browser: not every browser says where it
    comes from when it leaves for the provider.

    Args:
        app: Streamlit's application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; only the redirect after the provider has sent somebody back is changed."""
        if scope["type"] != "http" or scope["path"] != OIDC_CALLBACK:
            await self._app(scope, receive, send)
            return
        request = Request(scope)

        async def changed(message: Message) -> None:
            if message["type"] == "http.response.start" and 300 <= message["status"] < 400:
                _lead_back(request, MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, changed)


def _lead_back(request: Request, headers: MutableHeaders) -> None:
    wanted = request.cookies.get(WANTED_COOKIE)
    if wanted is None:
        return
    carrier = RedirectResponse(_safe(unquote(wanted)))
    carrier.delete_cookie(WANTED_COOKIE, path=OIDC_CALLBACK)
    headers["location"] = carrier.headers["location"]
    headers.append("set-cookie", carrier.headers["set-cookie"])


def _encrypted(request: Request) -> bool:
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"


def _same_site(request: Request) -> bool:
    """Whether a form was posted from our own page, as browsers tell."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or _parts(origin).netloc == request.headers.get("host")


def _parts(address: str) -> SplitResult:
    """What an address in a header consists of; nothing where it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _safe(target: str) -> str:
    """Only addresses of this site: `//elsewhere` is another one, backslashes are slashes to browsers, tabs nothing."""
    ours = target.startswith("/") and not target.startswith("//") and not re.search(r"[\\\x00-\x1f]", target)
    return target if ours else "/"
