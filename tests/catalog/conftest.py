"""Catalog's application over a real database, and a store with things to sell."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from deploy.local.migrate import migrate
from libs.common.db import Database
from libs.common.events import Event
from libs.common.events.identity import StoreOpened
from libs.common.outbox import OutboxRow
from services.catalog.app import create_app
from services.catalog.consumer import HANDLERS
from services.catalog.settings import Settings
from tests.deliveries import deliver
from tests.tokens import authorization, client_of, running


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
    async with running(create_app(settings)) as app:
        yield app


@pytest.fixture(scope="session")
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def shop(app: FastAPI, client: httpx.AsyncClient) -> "Shop":
    return await Shop(app, client).open()


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
        await deliver(HANDLERS, self.database, self.id, *events, together=together)

    async def published(self, contract: type[Event]) -> Sequence[Any]:
        """The store's events of one type in its outbox, the oldest first."""
        async with self.database.session(self.id) as session:
            rows = await session.scalars(
                select(OutboxRow)
                .where(OutboxRow.store_id == self.id, OutboxRow.headers["ce_type"].astext == contract.type)
                .order_by(OutboxRow.id)
            )
            return [contract.model_validate(orjson.loads(row.payload)) for row in rows]
