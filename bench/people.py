"""Fills a store with people of forty rows: an account and a session, five paid orders of three lines, their invoices
and the clocks of all, sealed as the services would.

The services' own tables and kinds are used, so what is measured over them is what production would meet; only the
way in is shorter than a checkout for each.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import insert

from libs.common.db import Database
from libs.common.events.orders import Address, OrderContact
from libs.common.personal.data import PersonalData
from libs.common.personal.keys import KeyringClient
from libs.common.personal.vault import SealedFor, ToSeal, Vault
from libs.common.personal.vocabulary import Clock, Retention
from services.billing.kinds import InvoiceContact
from services.billing.models import Invoice, Receivable
from services.identity.kinds import Credentials, Profile
from services.identity.models import Account, AccountSession
from services.orders.domain import State
from services.orders.models import Order, OrderLine
from services.privacy.models import Expiry
from services.privacy.retention.periods import choice_of

ORDERS_EACH = 5
_LINES_EACH = 3
SERVICES = ("orders", "identity", "billing", "privacy")
_BATCH = 500
_AT_ONCE = 3
_ADDRESS = Address(line1="1 rue de la Mesure", postcode="75001", city="Paris", country="FR")


@dataclass(frozen=True, slots=True)
class Person:
    """Who can use a right."""

    subject_id: UUID
    email: str


class Crowd:
    """The people of one store."""

    def __init__(self, environment: Mapping[str, str], store_id: UUID, variant_id: UUID) -> None:
        self._environment = environment
        self._store_id = store_id
        self._variant_id = variant_id
        self.people: list[Person] = []

    async def grow_to(self, number: int, *, services: Sequence[str] = SERVICES) -> None:
        """Add people until there are so many, with what these services have of them."""
        async with httpx.AsyncClient(timeout=60) as http:
            tools = {name: self._tools(name, http) for name in services}
            starts = range(len(self.people), number, _BATCH)
            gate = asyncio.Semaphore(_AT_ONCE)

            async def add(start: int) -> list[Person]:
                async with gate:
                    return await self._add(tools, range(start, min(start + _BATCH, number)))

            for people in await asyncio.gather(*(add(start) for start in starts)):
                self.people += people
            for _, database in tools.values():
                await database.close()

    def _tools(self, service: str, http: httpx.AsyncClient) -> tuple[Vault, Database]:
        prefix = service.upper()
        keyring = KeyringClient(
            url=self._environment["KEYRING_URL"],
            service=service,
            private_key=self._environment[f"{prefix}_SERVICE_KEY"],
            http=http,
        )
        return Vault(keyring), Database(self._environment[f"{prefix}_DATABASE_URL"], pool_size=_AT_ONCE)

    async def _add(self, tools: Mapping[str, tuple[Vault, Database]], numbers: range) -> list[Person]:
        vault, _ = tools["orders"]
        emails = [f"person-{number}@vitrine.example" for number in numbers]
        people = [Person(await vault.subject_id(self._store_id, email), email) for email in emails]
        orders = [
            (person, uuid4(), f"{numbers[0]}-{index}-{n}")
            for index, person in enumerate(people)
            for n in range(ORDERS_EACH)
        ]
        await self._orders(*tools["orders"], orders)
        if "identity" in tools:
            await self._accounts(*tools["identity"], people)
        if "billing" in tools:
            await self._invoices(*tools["billing"], orders, numbers[0] * ORDERS_EACH)
        if "privacy" in tools:
            await self._clocks(tools["privacy"][1], orders)
        return people

    async def _orders(
        self, vault: Vault, database: Database, orders: Sequence[tuple[Person, UUID, str]]
    ) -> None:
        people = [person for person, _, _ in orders]
        buckets = [str(order_id) for _, order_id, _ in orders]
        contacts = {person.subject_id: _contact(person) for person in people}
        boxes = await self._sealed(
            vault, people, [contacts[person.subject_id] for person in people], *buckets
        )
        rows = [
            {
                "store_id": self._store_id, "id": order_id, "number": number, "subject_id": person.subject_id,
                "generation": box.generation, "contact": box.box,
                "email_index": await vault.blind_index(self._store_id, "email", person.email),
                "view_secret_hash": order_id.bytes * 2, "state": State.FULFILLED, "total_amount": 1200,
                "currency": "EUR", "payment_method": "bank_transfer", "paid_at": _now(), "fulfilled_at": _now(),
            }
            for (person, order_id, number), box in zip(orders, boxes, strict=True)
        ]  # fmt: skip
        lines = [
            {
                "store_id": self._store_id, "order_id": order_id, "variant_id": self._variant_id, "position": position,
                "sku": f"SKU-{position}", "title": "Something", "quantity": 1, "unit_price": 600,
            }
            for _, order_id, _ in orders
            for position in range(_LINES_EACH)
        ]  # fmt: skip
        await self._insert(database, (Order, rows), (OrderLine, lines))

    async def _accounts(self, vault: Vault, database: Database, people: Sequence[Person]) -> None:
        profiles = await self._sealed(
            vault, people, [Profile(email=p.email, name="A person") for p in people]
        )
        credentials = await self._sealed(vault, people, [Credentials(password_hash="x" * 97) for _ in people])
        rows = [
            {
                "id": uuid4(), "store_id": self._store_id, "subject_id": person.subject_id,
                "generation": profile.generation, "profile": profile.box, "credentials": credential.box,
                "email_index": await vault.blind_index(self._store_id, "email", person.email),
            }
            for person, profile, credential in zip(people, profiles, credentials, strict=True)
        ]  # fmt: skip
        sessions = [
            {
                "store_id": self._store_id, "account_id": row["id"], "subject_id": row["subject_id"],
                "generation": row["generation"], "family": uuid4(), "current_hash": secrets.token_bytes(32),
                "expires_at": _now() + timedelta(days=30),
            }
            for row in rows
        ]  # fmt: skip
        await self._insert(database, (Account, rows), (AccountSession, sessions))

    async def _invoices(
        self, vault: Vault, database: Database, orders: Sequence[tuple[Person, UUID, str]], first: int
    ) -> None:
        people, year = [person for person, _, _ in orders], date.today().year
        contacts = [InvoiceContact(name="A person", address=_ADDRESS) for _ in orders]
        boxes = await self._sealed(vault, people, contacts, *[str(year)] * len(people))
        shared = {
            "store_id": self._store_id,
            "currency": "EUR",
            "lines": [{"title": "Something", "quantity": 2}],
        }
        receivables = [
            shared | {
                "order_id": order_id, "subject_id": person.subject_id, "generation": box.generation, "number": number,
                "state": "paid", "amount": 1200, "payment_method": "bank_transfer", "placed_at": _now(),
            }
            for (person, order_id, number), box in zip(orders, boxes, strict=True)
        ]  # fmt: skip
        invoices = [
            shared | {
                "order_id": order_id, "year": year, "sequence": sequence, "number": f"{year}-{sequence:06}",
                "subject_id": person.subject_id, "generation": box.generation, "contact": box.box,
                "seller_name": "A store", "seller_country": "FR", "total_amount": 1200, "issued_at": _now(),
                "kept_until": date(year + 10, 12, 31),
            }
            for sequence, ((person, order_id, _), box) in enumerate(zip(orders, boxes, strict=True), first + 1)
        ]  # fmt: skip
        await self._insert(database, (Receivable, receivables), (Invoice, invoices))

    async def _clocks(self, database: Database, orders: Sequence[tuple[Person, UUID, str]]) -> None:
        """Of each order, and of all invoices of a person's year."""
        year = date.today().year
        ends = {Retention.ORDER: date(year + 3, 12, 31), Retention.ACCOUNTING: date(year + 10, 12, 31)}
        places = [
            *(
                (person, Retention.ORDER, str(order_id), Clock.ORDER_FULFILLED)
                for person, order_id, _ in orders
            ),
            *(
                (person, Retention.ACCOUNTING, str(year), Clock.INVOICE_ISSUED)
                for person, *_ in orders[::ORDERS_EACH]
            ),
        ]
        async with database.transaction(self._store_id) as transaction:
            choice = await choice_of(transaction, self._store_id)
        rows = [
            {
                "store_id": self._store_id, "subject_id": person.subject_id, "generation": 1, "retention": retention,
                "bucket": bucket, "clock": clock, "started_at": _now(), "state": "running",
                "expires_on": ends[retention], "told_on": ends[retention],
                "due_at": choice.due_at(ends[retention]), "revision": choice.revision,
            }
            for person, retention, bucket, clock in places
        ]  # fmt: skip
        await self._insert(database, (Expiry, rows))

    async def _sealed(
        self, vault: Vault, people: Sequence[Person], data: Sequence[PersonalData], *buckets: str
    ) -> list[SealedFor[Any]]:
        items = [
            ToSeal(one, self._store_id, person.subject_id, bucket)
            for person, one, bucket in zip(people, data, buckets or [""] * len(people), strict=True)
        ]
        sealed = await vault.seal_many(items)
        return [one for one in sealed if isinstance(one, SealedFor)]

    async def _insert(self, database: Database, *tables: tuple[Any, list[dict[str, Any]]]) -> None:
        async with database.session(self._store_id) as session:
            for table, rows in tables:
                await session.execute(insert(table.__table__), rows)


def _contact(person: Person) -> OrderContact:
    return OrderContact(name="A person", email=person.email, address=_ADDRESS)


def _now() -> datetime:
    return datetime.now(UTC)
