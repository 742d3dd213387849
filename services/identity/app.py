"""Identity's application."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from libs.common.auth import TokenVerifier
from libs.common.http import build_app
from services.identity.api import PAGES, ROUTERS
from services.identity.keys import SigningKeys
from services.identity.parts import Clock, Parts, now
from services.identity.passwords import Passwords
from services.identity.settings import Settings


def create_app(settings: Settings, *, clock: Clock = now) -> FastAPI:
    """Accounts, sign-in, stores and their staff."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        passwords = Passwords(threads=settings.hashing_threads, queue=settings.hashing_queue)
        keys = SigningKeys(app.state.database, settings.master_key_bytes, clock)
        app.state.parts = Parts(settings, app.state.database, app.state.vault, passwords, keys, clock)
        # Identity asks itself for its keys, without a network between.
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://identity"
        ) as itself:
            app.state.tokens = TokenVerifier(
                issuer=settings.issuer, jwks_url="/identity/v1/jwks.json", http=itself
            )
            try:
                yield
            finally:
                passwords.close()

    app = build_app(
        service="identity",
        settings=settings,
        title="Vitrine identity",
        description=(
            "Accounts with a confirmed e-mail, sessions, stores and who works at them. Merchants are accounts of the "
            "platform's own store, `00000000-0000-4000-8000-000000000001`."
        ),
        routers=ROUTERS,
        lifespan=lifespan,
        # People go on signing in, managing what is theirs, and closing their accounts; the owner can open it again.
        while_closed=[
            *("read_store", "read_store_by_slug", "close_store", "reopen_store"),
            *(
                "create_tokens",
                "list_sessions",
                "sign_out",
                "end_session",
                "read_me",
                "change_me",
                "close_account",
            ),
        ],
    )
    app.include_router(PAGES, prefix="/identity")
    return app
