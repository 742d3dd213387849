"""Catalog's application over a real database, and a store with things to sell."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import select

from deploy.local.migrate import migrate
from libs.common.auth import AUDIENCE, Role, TokenVerifier
from libs.common.broker import Record
from libs.common.db import Database, switch_store
from libs.common.events import Event, Received, envelope_of
from libs.common.events.identity import StoreOpened
from libs.common.outbox import OutboxRow
from services.catalog.app import create_app
from services.catalog.consumer import HANDLERS
from services.catalog.settings import Settings

ISSUER = "http://127.0.0.1:8000/identity"
SIGNING = ECKey.generate_key("P-256", parameters={"kid": "test"})


@pytest.fixture(scope="session")
async def catalog_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    await migrate(environment, ["catalog"])
    return environment


@pytest.fixture(scope="session")
async def app(catalog_environment: Mapping[str, str]) -> AsyncIterator[FastAPI]:
    settings = Settings.model_validate(
        {
            "database_url": catalog_environment["CATALOG_DATABASE_URL"],
            "service_key": catalog_environment["CATALOG_SERVICE_KEY"],
        }
    )
    app = create_app(settings)

    def key_set(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"keys": [SIGNING.as_dict(private=False)]})

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.MockTransport(key_set)) as http,
    ):
        app.state.tokens = TokenVerifier(issuer=ISSUER, jwks_url=f"{ISSUER}/v1/jwks.json", http=http)
        yield app


@pytest.fixture(scope="session")
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://catalog") as client:
        yield client


@pytest.fixture
async def shop(app: FastAPI, client: httpx.AsyncClient) -> "Shop":
    return await Shop(app, client).open()


def authorization(store_id: UUID, role: Role = Role.MANAGER, **claims: Any) -> dict[str, str]:
    """The header of somebody's access token."""
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


def a_product(**changes: Any) -> dict[str, Any]:
    """What a manager sends to make a product."""
    return {
        "handle": f"thing-{uuid4().hex[:8]}",
        "title": "Stoneware mug",
        "description": "Fired twice.\n\nWash it by hand.",
        "vendor": "Terre Lente",
        "product_type": "Ceramics",
        "tags": ["handmade", "blue"],
        "options": ["Colour"],
        "images": [{"src": "/images/mug.jpg", "alt": "A mug"}],
        "variants": [
            {"choice": ["Blue"], "sku": f"MUG-B-{uuid4().hex[:6]}", "price": 2400, "on_hand": 5},
            {"choice": ["Green"], "price": 2600, "compare_at": 3000, "on_hand": 0},
        ],
    } | changes


@dataclass
class Shop:
    """A store of its own, its manager and its visitors."""

    app: FastAPI
    client: httpx.AsyncClient
    id: UUID = field(default_factory=uuid4)
    manager: dict[str, str] = field(default_factory=dict[str, str])

    async def open(self, *, currency: str = "EUR") -> "Shop":
        self.manager = authorization(self.id)
        opened: dict[str, Any] = {
            "store_id": self.id, "slug": f"shop-{self.id.hex}", "name": "Test Shop", "country": "FR",
            "currency": currency, "version": 1,
        }  # fmt: skip
        await self.hears(StoreOpened(**opened))
        return self

    @property
    def path(self) -> str:
        return f"/catalog/v1/stores/{self.id}"

    @property
    def database(self) -> Database:
        return self.app.state.database

    async def get(self, path: str = "/products", **params: Any) -> Any:
        """What a visitor without an account gets."""
        answer = await self.client.get(f"{self.path}{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def add(self, **changes: Any) -> dict[str, Any]:
        """A new product."""
        answer = await self.client.post(
            f"{self.path}/products", json=a_product(**changes), headers=self.manager
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def stock_of(self, variant_id: str) -> dict[str, Any]:
        answer = await self.client.get(f"{self.path}/variants/{variant_id}/stock", headers=self.manager)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def upload(self, content: bytes, **headers: str) -> httpx.Response:
        return await self.client.post(
            f"{self.path}/imports",
            files={"file": ("products.csv", content, "text/csv")},
            headers=self.manager | {name.replace("_", "-"): value for name, value in headers.items()},
        )

    # --- Events ------------------------------------------------------------------------------------------

    async def hears(self, *events: Event, together: bool = False) -> None:
        """Handle events as the consumer does: in a transaction bound to the store."""
        received = [self.received(event) for event in events]
        for batch in [received] if together else [[each] for each in received]:
            async with self.database.platform_session() as session:
                await switch_store(session, self.id)
                handler: Any = HANDLERS[type(batch[0].data)]
                await handler(session, batch if getattr(handler, "batched", False) else batch[0])

    def received(self, event: Event) -> Received[Event]:
        envelope = envelope_of(event, store_id=self.id, source="test")
        return Received(event, envelope, Record(event.topic, envelope.key, b""))

    async def published(self, contract: type[Event]) -> Sequence[Any]:
        """The store's events of one type in its outbox, the oldest first."""
        async with self.database.session(self.id) as session:
            rows = await session.scalars(
                select(OutboxRow)
                .where(OutboxRow.store_id == self.id, OutboxRow.headers["ce_type"].astext == contract.type)
                .order_by(OutboxRow.id)
            )
            return [contract.model_validate(orjson.loads(row.payload)) for row in rows]
