"""An OpenID provider of one person, as far as signing in needs it: a real one to the library that asks it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.patience import PATIENCE_S, eventually

CLIENT = "switchgear"


def _app(issuer: str, email: str) -> Starlette:
    key = RSAKey.generate_key(2048, {"kid": "only", "use": "sig", "alg": "RS256"})
    nonces: dict[str, str] = {}

    async def configuration(_: Request) -> Response:
        return JSONResponse(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "jwks_uri": f"{issuer}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def authorize(request: Request) -> Response:
        code = secrets.token_hex(8)
        nonces[code] = request.query_params.get("nonce", "")
        answer = urlencode({"code": code, "state": request.query_params["state"]})
        return RedirectResponse(f"{request.query_params['redirect_uri']}?{answer}", status_code=302)

    async def token(request: Request) -> Response:
        code = parse_qs((await request.body()).decode())["code"][0]
        now = int(time.time())
        claims = {"iss": issuer, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 600, "email": email}
        signed = jwt.encode({"alg": "RS256", "kid": "only"}, claims | {"nonce": nonces.pop(code)}, key)
        return JSONResponse({"access_token": "any", "token_type": "Bearer", "expires_in": 600, "id_token": signed})

    async def keys(_: Request) -> Response:
        public: Any = key.as_dict(private=False)
        return JSONResponse({"keys": [public]})

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", configuration),
            Route("/authorize", authorize),
            Route("/token", token, methods=["POST"]),
            Route("/keys", keys),
        ]
    )


@contextmanager
def provider(port: int, email: str) -> Iterator[str]:
    """Serve on a port of loopback; everybody who signs in has this address."""
    issuer = f"http://127.0.0.1:{port}"
    server = uvicorn.Server(uvicorn.Config(_app(issuer, email), host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield issuer
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
