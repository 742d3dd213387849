"""Billing's application over real databases and a real keyring, and a store to work in."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
from libs.common.events.identity import StoreOpened
from libs.common.events.orders import (
    Address,
    OrderConfirmed,
    OrderContact,
    OrderLine,
    OrderPlaced,
    PaymentMethod,
)
from libs.common.money import Money
from libs.common.personal.keys import Erasure, Life
from libs.common.personal.vault import Vault
from libs.common.worker import Work
from services.billing.app import create_app
from services.billing.consumer import HANDLERS
from services.billing.settings import Settings
from tests.deliveries import deliver
from tests.privacy.keyring.conftest import RunningKeyring, settings_of
from tests.tokens import authorization, client_of, running

TODAY = datetime.now(UTC).date()
CONTACT = OrderContact(
    name="Canary Buyer",
    email="canary.buyer@vitrine.example",
    address=Address(line1="1 Canary Street", city="Paris", country="FR"),
)


@pytest.fixture(scope="session")
async def billing_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    await migrate(environment, ["billing", "keyring", "destructions"])
    return environment


@pytest.fixture(scope="session")
async def keyring(billing_environment: Mapping[str, str]) -> AsyncIterator[RunningKeyring]:
    async with httpx.AsyncClient() as http:
        keyring = RunningKeyring(settings_of(billing_environment), billing_environment, http)
        await keyring.start()
        yield keyring
        await keyring.close()


@pytest.fixture(scope="session")
async def app(billing_environment: Mapping[str, str], keyring: RunningKeyring) -> AsyncIterator[FastAPI]:
    settings = Settings.model_validate(
        {
            "database_url": billing_environment["BILLING_DATABASE_URL"],
            "service_key": billing_environment["BILLING_SERVICE_KEY"],
            "keyring_url": keyring.url,
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


@dataclass
class Shop:
    """A store of its own, what happens to it, and what its people see."""

    app: FastAPI
    client: httpx.AsyncClient
    keyring: RunningKeyring
    id: UUID = field(default_factory=uuid4)

    async def open(self) -> "Shop":
        opened = StoreOpened(
            store_id=self.id, slug=f"shop-{self.id.hex}", name="Test Shop", country="FR", currency="EUR", version=1
        )  # fmt: skip
        await self.hears(opened)
        return self

    @property
    def database(self) -> Database:
        return self.app.state.database

    @property
    def orders_vault(self) -> Vault:
        return self.keyring.vault("orders")

    async def hears(self, *events: Event, together: bool = False) -> None:
        await deliver(HANDLERS, self.database, self.id, *events, together=together)

    async def placed(
        self,
        *,
        amount: int = 2500,
        subject_id: UUID | None = None,
        method: PaymentMethod = "bank_transfer",
        begin: bool = False,
    ) -> OrderPlaced:
        """An order as orders would announce it, with a box of its own."""
        subject_id = subject_id or uuid4()
        sealed = await self.orders_vault.seal(CONTACT, store_id=self.id, subject_id=subject_id, begin=begin)
        price = Money(amount=amount, currency="EUR")
        line = OrderLine(variant_id=uuid4(), sku="TEA-1", title="Green tea", quantity=1, unit_price=price)
        return OrderPlaced(
            order_id=uuid4(), subject_id=subject_id, generation=sealed.generation, number="1001",
            lines=[line], total=price, payment_method=method, contact=sealed.box, version=1,
        )  # fmt: skip

    async def open_order(self, **options: Any) -> OrderPlaced:
        """An order whose money is due."""
        order = await self.placed(**options)
        await self.hears(order, OrderConfirmed(order_id=order.order_id, version=2))
        return order

    async def pay(
        self, order: OrderPlaced, *, key: str | None = None, role: Role = Role.MANAGER, **changes: Any
    ) -> httpx.Response:
        """A manager records the payment of an order; two calls with one key come from the same person."""
        body = {
            "amount": order.total.model_dump(),
            "method": "bank_transfer",
            "received_on": TODAY.isoformat(),
        }
        headers = authorization(self.id, role, sub=str(self.id))
        return await self.client.post(
            f"{self.path}/orders/{order.order_id}/payments",
            json=body | changes,
            headers=headers | ({"Idempotency-Key": key} if key else {}),
        )

    async def get(self, path: str, role: Role = Role.SUPPORT, **claims: Any) -> Any:
        """What somebody of the store reads; 200 is expected."""
        answer = await self.client.get(f"{self.path}/{path}", headers=authorization(self.id, role, **claims))
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def state_of(self, order: OrderPlaced) -> str:
        return (await self.get(f"orders/{order.order_id}/receivable"))["state"]

    async def erase(self, subject_id: UUID, generation: int = 1) -> None:
        """The keyring destroys the person's keys, and this process hears of it."""
        client = self.keyring.client("privacy")
        await client.destroy([Erasure(self.id, subject_id, generation, uuid4())])
        self.app.state.vault.drop(self.id, [subject_id])

    async def restrict(self, subject_id: UUID) -> None:
        """The keyring puts the person on hold, and this process hears of it."""
        await self.keyring.client("privacy").restrict([Life(self.id, subject_id, 1)])
        self.app.state.vault.drop(self.id, [subject_id])

    async def lift(self, subject_id: UUID) -> None:
        await self.keyring.client("privacy").lift([Life(self.id, subject_id, 1)])
        self.app.state.vault.drop(self.id, [subject_id])

    @property
    def work(self) -> Work:
        state = self.app.state
        return Work("billing", state.settings, state.database, None, state.vault, state.http)  # type: ignore[arg-type]

    async def published(self) -> list[tuple[str, dict[str, Any]]]:
        """Type and data of every event of the store, in order."""
        async with self.database.session(self.id) as session:
            rows = await session.execute(text("SELECT headers, payload FROM outbox ORDER BY id"))
            return [(row.headers["ce_type"], orjson.loads(row.payload)) for row in rows]

    @property
    def path(self) -> str:
        return f"/billing/v1/stores/{self.id}"
