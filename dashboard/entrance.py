"""Signing in and out by key: two routes beside Streamlit, because a page script cannot set a cookie.

The form is plain HTML and posts to `/sign-in`; the answer is a redirect with an HttpOnly, SameSite=Strict cookie.
Wrong keys are slowed down, and nothing that was typed is logged.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dashboard import viewer
from engine.config import Config

WRONG_KEY_WAIT_S: Final = 1.0
LARGEST_FORM: Final = 4096


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
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(
            viewer.COOKIE, made, max_age=viewer.SESSION_S, httponly=True, samesite="strict", secure=secure, path="/"
        )
        return answer

    async def sign_out(request: Request) -> Response:
        if not _same_site(request):
            return Response("sign out from the dashboard's own page", status_code=403)
        answer = RedirectResponse("/", status_code=303)
        answer.delete_cookie(viewer.COOKIE, path="/")
        return answer

    return [Route("/sign-in", sign_in, methods=["POST"]), Route("/sign-out", sign_out, methods=["POST"])]


def _same_site(request: Request) -> bool:
    """Whether a form was posted from our own page, as browsers tell."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _safe(target: str) -> str:
    """Only addresses of this site; `//elsewhere` is another one."""
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) else "/"
