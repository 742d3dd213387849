"""Orders' application over real databases and a real keyring, and a store to buy in."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from deploy.local.migrate import migrate
from libs.common.auth import Role
from libs.common.db import Database
from libs.common.events import Event
from libs.common.events.catalog import OfferedVariant, ProductPublished, StockReserved
from libs.common.events.identity import StoreOpened
from libs.common.money import Money
from libs.common.personal.vault import Vault
from services.orders.app import create_app
from services.orders.consumer import HANDLERS, PARTICIPANT
from services.orders.settings import Settings
from tests.deliveries import deliver
from tests.privacy.keyring.conftest import RunningKeyring, settings_of
from tests.tokens import authorization, client_of, running

ADDRESS = {"line1": "1 Canary Street", "postcode": "75001", "city": "Paris", "country": "FR"}


@pytest.fixture(scope="session")
async def orders_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    await migrate(environment, ["orders", "keyring", "destructions"])
    return environment


@pytest.fixture(scope="session")
async def keyring(orders_environment: Mapping[str, str]) -> AsyncIterator[RunningKeyring]:
    async with httpx.AsyncClient() as http:
        keyring = RunningKeyring(settings_of(orders_environment), orders_environment, http)
        await keyring.start()
        yield keyring
        await keyring.close()


@pytest.fixture(scope="session")
async def app(orders_environment: Mapping[str, str], keyring: RunningKeyring) -> AsyncIterator[FastAPI]:
    settings = Settings.model_validate(
        {
            "database_url": orders_environment["ORDERS_DATABASE_URL"],
            "service_key": orders_environment["ORDERS_SERVICE_KEY"],
            "keyring_url": keyring.url,
            "database_pool_size": 30,
        }
    )
    async with running(create_app(settings)) as app:
        yield app


@pytest.fixture(scope="session")
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def shop(app: FastAPI, client: httpx.AsyncClient, keyring: RunningKeyring) -> "Shop":
    return await Shop(app, client, keyring).open()


def new_email() -> str:
    return f"canary.{uuid4().hex}@vitrine.example"


def contact(email: str) -> dict[str, Any]:
    return {"name": "Canary Buyer", "email": email, "address": ADDRESS}


@dataclass(frozen=True)
class Basket:
    """A cart as the one who holds it knows it."""

    id: str
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Cart-Secret": self.secret}


@dataclass(frozen=True)
class Ordered:
    """An order as the one who placed it knows it."""

    id: UUID
    email: str
    receipt: dict[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        return {"Order-Secret": self.receipt["view_secret"]}


@dataclass
class Shop:
    """A store of its own with two things for sale, and what happens there."""

    app: FastAPI
    client: httpx.AsyncClient
    keyring: RunningKeyring
    id: UUID = field(default_factory=uuid4)
    tea: UUID = field(default_factory=uuid4)
    cup: UUID = field(default_factory=uuid4)
    product_id: UUID = field(default_factory=uuid4)

    async def open(self, **changes: Any) -> "Shop":
        opened: dict[str, Any] = {
            "store_id": self.id, "slug": f"shop-{self.id.hex}", "name": "Test Shop", "country": "FR",
            "currency": "EUR", "version": 1,
        }  # fmt: skip
        await self.hears(StoreOpened(**opened | changes))
        await self.hears(self.product(version=1))
        return self

    def product(self, *, version: int, tea: int | None = 450, cup: int | None = 1200) -> ProductPublished:
        prices = {self.tea: ("Green tea", tea), self.cup: ("Blue cup", cup)}
        return ProductPublished(
            product_id=self.product_id,
            handle="tea-time",
            title="Tea time",
            version=version,
            variants=[
                OfferedVariant(
                    variant_id=id_, sku=title[:3], title=title, price=Money(amount=price, currency="EUR")
                )
                for id_, (title, price) in prices.items()
                if price is not None
            ],
        )

    @property
    def path(self) -> str:
        return f"/orders/v1/stores/{self.id}"

    @property
    def database(self) -> Database:
        return self.app.state.database

    @property
    def vault(self) -> Vault:
        return self.app.state.vault

    # --- Buying ------------------------------------------------------------------------------------------

    async def cart(self, lines: Mapping[UUID, int] | None = None) -> Basket:
        answer = await self.client.post(f"{self.path}/carts")
        assert answer.status_code == 201, answer.text
        basket = Basket(**answer.json())
        for variant_id, quantity in (lines or {}).items():
            put = await self.put(basket, variant_id, quantity)
            assert put.status_code == 200, put.text
        return basket

    async def put(self, basket: Basket, variant_id: UUID, quantity: Any) -> httpx.Response:
        return await self.client.put(
            f"{self.path}/carts/{basket.id}/lines/{variant_id}",
            json={"quantity": quantity},
            headers=basket.headers,
        )

    async def check_out(
        self,
        basket: Basket,
        email: str,
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        **changes: Any,
    ) -> httpx.Response:
        body = {"cart_id": basket.id, "contact": contact(email), "payment_method": "bank_transfer"}
        given = basket.headers | dict(headers or {}) | ({"Idempotency-Key": key} if key else {})
        return await self.client.post(f"{self.path}/orders", json=body | changes, headers=given)

    async def order(
        self,
        *,
        email: str | None = None,
        lines: Mapping[UUID, int] | None = None,
        headers: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> Ordered:
        """An order just placed."""
        email = email or new_email()
        answer = await self.check_out(
            await self.cart(lines or {self.tea: 2}), email, headers=headers, **changes
        )
        assert answer.status_code == 201, answer.text
        return Ordered(UUID(answer.json()["id"]), email, answer.json())

    async def confirmed(self, **options: Any) -> Ordered:
        """An order whose stock is reserved."""
        order = await self.order(**options)
        await self.hears(StockReserved(order_id=order.id))
        return order

    async def see(self, order: Ordered) -> dict[str, Any]:
        """The order as its guest sees it."""
        answer = await self.client.get(f"{self.path}/orders/{order.id}", headers=order.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def customer(self, email: str, generation: int = 1) -> dict[str, str]:
        """The header of the customer who has this address."""
        subject_id = await self.vault.subject_id(self.id, email)
        return authorization(self.id, Role.CUSTOMER, subject=str(subject_id), generation=generation)

    async def fulfil(self, order: Ordered, *, if_match: str = "*") -> httpx.Response:
        return await self.client.post(
            f"{self.path}/orders/{order.id}/fulfilments",
            headers=authorization(self.id) | {"If-Match": if_match},
        )

    # --- Events ------------------------------------------------------------------------------------------

    async def hears(self, *events: Event) -> None:
        """Each event handed to its handler, in a transaction of its own."""
        await deliver(HANDLERS, self.database, self.id, *events)

    async def told(self, order: Ordered | None = None) -> list[tuple[str, dict[str, Any]]]:
        """Name and data of every event the store, or one order, published, in order."""
        async with self.database.session(self.id) as session:
            rows = await session.execute(text("SELECT headers, payload FROM outbox ORDER BY id"))
            events = [(row.headers["ce_type"].split(".")[2], orjson.loads(row.payload)) for row in rows]
        return [event for event in events if order is None or event[1].get("order_id") == str(order.id)]

    async def told_of(self, order: Ordered) -> list[str]:
        return [name for name, _ in await self.told(order)]

    async def scalar(self, query: str, **values: Any) -> Any:
        async with self.database.session(self.id) as session:
            return await session.scalar(text(query), values)


@pytest.fixture
def signs(orders_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The participant reads its key from the environment, as in a worker."""
    for name in ("ORDERS_DATABASE_URL", "ORDERS_SERVICE_KEY"):
        monkeypatch.setenv(name, orders_environment[name])
    yield
    PARTICIPANT.__dict__.pop("key", None)
