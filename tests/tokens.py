"""Access tokens that the tests sign themselves, and applications that believe them."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey

from libs.common.auth import AUDIENCE, Role, TokenVerifier

ISSUER = "http://127.0.0.1:8000/identity"
SIGNING = ECKey.generate_key("P-256", parameters={"kid": "test"})


def authorization(store_id: UUID, role: Role = Role.MANAGER, **claims: Any) -> dict[str, str]:
    """The header of somebody's access token; `subject` and `generation` among the claims make a customer's."""
    now = int(time.time())
    token = jwt.encode(
        {"alg": "ES256", "typ": "at+jwt", "kid": "test"},
        {
            "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600, "sub": str(uuid4()),
            "sid": str(uuid4()), "store": str(store_id), "role": role.value,
        } | claims,
        SIGNING,
    )  # fmt: skip
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def running(app: FastAPI, *, keys_of: FastAPI | None = None) -> AsyncGenerator[FastAPI]:
    """The application, started, which takes tokens of the tests, and those of identity where it is given."""

    async def key_set(_: httpx.Request) -> httpx.Response:
        keys: list[Any] = [SIGNING.as_dict(private=False)]
        if keys_of is not None:
            keys += await keys_of.state.parts.keys.published()
        return httpx.Response(200, json={"keys": keys})

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.MockTransport(key_set)) as http,
    ):
        app.state.tokens = TokenVerifier(issuer=ISSUER, jwks_url=f"{ISSUER}/v1/jwks.json", http=http)
        yield app


def client_of(app: Any, **options: Any) -> httpx.AsyncClient:
    """A client of an application in this process, which meets its errors as answers."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://vitrine.example", **options)
