"""The five services in one process over real databases and a real keyring, and stores with something of everything."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

import httpx
from fastapi import FastAPI
from sqlalchemy import select, text

from libs.common.auth import PLATFORM_STORE, Role
from libs.common.broker import Record
from libs.common.db import Database
from libs.common.events import decode
from libs.common.events.orders import OrderConfirmed
from libs.common.inbox import Handlers
from libs.common.mail import Letter, WaitingLetter
from libs.common.personal.data import Sealed
from libs.common.personal.vault import Vault
from libs.common.personal.vocabulary import Purpose
from services.billing import consumer as billing
from services.privacy.models import Request
from tests.deliveries import deliver, hand_over
from tests.tokens import authorization

PASSWORD = "correct horse battery staple"
ADDRESS = {"line1": "1 rue de la Paix", "postcode": "75002", "city": "Paris", "country": "FR"}


@dataclass(frozen=True)
class Person:
    """Somebody with a confirmed account, signed in."""

    email: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


@dataclass(frozen=True)
class House:
    """All services behind one client, as the gateway mounts them, and a hand that carries events."""

    apps: Mapping[str, FastAPI]
    http: httpx.AsyncClient

    def database(self, service: str) -> Database:
        return self.apps[service].state.database

    async def call(self, method: str, path: str, *, expect: int = 200, **options: Any) -> Any:
        answer = await self.http.request(method, path, **options)
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def carry(self, store_id: UUID) -> None:
        """Carry a store's events to everybody who hears them, until nobody has anything more to say."""
        while [service for service in self.apps if await self._carry_from(service, store_id)]:
            pass

    async def _carry_from(self, service: str, store_id: UUID) -> int:
        taken = text("""
            UPDATE outbox SET sent_at = now() WHERE store_id = :store_id AND sent_at IS NULL
            RETURNING id, topic, key, headers, payload
        """)
        async with self.database(service).session(store_id) as session:
            rows = (await session.execute(taken, {"store_id": store_id})).all()
        for row in sorted(rows, key=lambda row: row.id):
            event = decode(Record(row.topic, row.key, row.payload, row.headers))
            for hearer in self.apps:
                handlers: Handlers = import_module(f"services.{hearer}.consumer").HANDLERS
                if type(event.data) in handlers:
                    await hand_over(handlers, self.database(hearer), [event])
        return len(rows)

    async def followed(self, store_id: UUID) -> tuple[str, str]:
        """The request of somebody who sent a form, and the secret of the link in the mails about it."""
        email = f"canary-{uuid4().hex}@vitrine.example"
        form = {"right": "access", "email": email}
        await self.call("POST", f"/privacy/v1/stores/{store_id}/request-forms", json=form, expect=202)
        vault: Vault = self.apps["privacy"].state.vault
        subject_id = await vault.subject_id(store_id, email)
        async with self.database("privacy").session(store_id) as session:
            request = (await session.scalars(select(Request).where(Request.subject_id == subject_id))).one()
        assert request.contact is not None
        contact = await vault.open(
            request.contact,
            store_id=store_id,
            subject_id=subject_id,
            purpose=Purpose.RIGHTS_OF_THE_PERSON,
        )
        return str(request.id), contact.status_token

    async def person(self, store_id: UUID, email: str | None = None) -> Person:
        """A new account, confirmed with the link of its mail, and signed in."""
        email = email or f"person-{uuid4().hex[:12]}@vitrine.example"
        stores = f"/identity/v1/stores/{store_id}"
        await self.call(
            "POST",
            f"{stores}/accounts",
            json={"email": email, "password": PASSWORD, "name": "A person"},
            expect=202,
        )
        await self.call("POST", f"{stores}/confirmations", json={"token": await self._token(store_id, email)})
        body = {"grant_type": "password", "email": email, "password": PASSWORD}
        tokens = await self.call("POST", f"{stores}/tokens", json=body)
        return Person(email, tokens["access_token"], tokens["refresh_token"])

    async def _token(self, store_id: UUID, email: str) -> str:
        vault: Vault = self.apps["identity"].state.vault
        subject_id = await vault.subject_id(store_id, email)
        async with self.database("identity").session(store_id) as session:
            box = await session.scalar(
                select(WaitingLetter.box).where(WaitingLetter.subject_id == subject_id)
            )
        assert box is not None
        letter = await vault.open(
            Sealed(Letter, box), store_id=store_id, subject_id=subject_id, purpose=Purpose.SERVICE_MAIL
        )
        found = re.search(r"token=([\w-]+)", letter.values["link"])
        assert found is not None
        return found[1]


@dataclass(frozen=True)
class Furnished:
    """A store with one of everything that has an address of its own."""

    id: UUID
    customer: Person
    objects: Mapping[str, str]
    """By the name of their path parameter."""
    secrets: Mapping[str, str]
    """The headers that show the cart and the order."""
    tool: Mapping[str, str]
    """The header of its privacy tool."""

    def staff(self, role: Role = Role.MANAGER, **claims: Any) -> dict[str, str]:
        return authorization(self.id, role, **claims)


async def furnish(house: House, merchant: Person) -> Furnished:
    """Open a store, import and sell one product, pay for it, and ask for the customer's data."""
    slug = f"shop-{uuid4().hex[:12]}"
    body = {"name": "Papeterie", "slug": slug, "country": "FR", "currency": "EUR"}
    opened = await house.call("POST", "/identity/v1/stores", json=body, headers=merchant.headers, expect=201)
    store_id = UUID(opened["id"])
    await house.carry(store_id)
    customer = await house.person(store_id)
    manager = authorization(store_id)
    product = await _product(house, store_id, manager)
    await house.carry(store_id)
    sold = await _sold(house, store_id, customer, product["variants"][0]["id"])
    await house.carry(store_id)
    payment = await house.call(
        "POST",
        f"/billing/v1/stores/{store_id}/orders/{sold['id']}/payments",
        json={"amount": sold["total"], "method": "bank_transfer", "received_on": sold["day"]},
        headers=manager,
        expect=201,
    )
    await house.carry(store_id)
    request = await house.call(
        "POST",
        f"/privacy/v1/stores/{store_id}/requests",
        json={"right": "access", "email": customer.email},
        headers=customer.headers,
        expect=201,
    )
    await house.call(
        "PUT",
        f"/privacy/v1/stores/{store_id}/settings",
        json={"lifting_notice_days": 7},
        headers=authorization(store_id, Role.OWNER) | {"If-Match": "*"},
        expect=204,
    )
    await house.call(
        "PUT",
        f"/identity/v1/stores/{store_id}/settings",
        json={"grace_days": 90},
        headers=authorization(store_id, Role.OWNER) | {"If-Match": "*"},
        expect=204,
    )
    hold = await house.call(
        "POST",
        f"/privacy/v1/stores/{store_id}/holds",
        json={"email": f"canary-{uuid4().hex}@vitrine.example", "ground": "litigation", "until": _UNTIL},
        headers=authorization(store_id, Role.OWNER),
        expect=201,
    )
    recipient, delivery_id = await _recipient(house, store_id)
    tool = await _tool(house, store_id)
    # Billing hears of an order before it hears that the order was placed.
    early = OrderConfirmed(order_id=uuid4(), version=2)
    await deliver(billing.HANDLERS, house.database("billing"), store_id, early)
    await house.carry(store_id)
    me = f"/identity/v1/stores/{store_id}"
    sessions = await house.call("GET", f"{me}/sessions", headers=customer.headers)
    another = {"email": f"another-{uuid4().hex[:12]}@vitrine.example"}
    await house.call("POST", f"{me}/me/emails", json=another, headers=customer.headers, expect=202)
    emails = await house.call("GET", f"{me}/me/emails", headers=customer.headers)
    return Furnished(
        store_id,
        customer,
        objects={
            "product_id": product["id"],
            "handle": product["handle"],
            "variant_id": product["variants"][0]["id"],
            "import_id": product["import_id"],
            "cart_id": sold["cart_id"],
            "order_id": sold["id"],
            "invoice_id": payment["invoice_id"],
            "session_id": sessions["items"][0]["id"],
            "email_id": emails["items"][0]["id"],
            "request_id": request["id"],
            "hold_id": hold["id"],
            "recipient_id": recipient,
            "delivery_id": delivery_id,
            "document_id": str(uuid4()),
            "download_id": str(uuid4()),
            "controller_id": tool["controller_id"],
            "subject_request_id": tool["subject_request_id"],
            "slug": slug,
            "participant": "newsletter",
            "verb": "export",
            "name": "newsletter",
        },
        secrets={"Cart-Secret": sold["cart_secret"], "Order-Secret": sold["view_secret"]},
        tool={"Authorization": f"Bearer {tool['key']}"},
    )


async def _tool(house: House, store_id: UUID) -> dict[str, str]:
    """A privacy tool of the store, its key, the id of something that it asked, and of another that may be revoked."""
    made, other = [
        await house.call(
            "POST",
            f"/privacy/v1/stores/{store_id}/opendsr-controllers",
            json={"name": "Our privacy tool", "callback_hosts": ["tool.vitrine.example"]},
            headers=authorization(store_id, Role.OWNER),
            expect=201,
        )
        for _ in range(2)
    ]
    email = f"canary-{uuid4().hex}@vitrine.example"
    asked = {
        "regulation": "gdpr",
        "subject_request_id": str(uuid4()),
        "subject_request_type": "erasure",
        "submitted_time": datetime.now(UTC).isoformat(),
        "subject_identities": [{"identity_type": "email", "identity_format": "raw", "identity_value": email}],
        "status_callback_urls": ["https://tool.vitrine.example/callbacks"],
    }
    await house.call(
        "POST",
        f"/privacy/opendsr/{store_id}/v1/requests",
        json=asked,
        headers={"Authorization": f"Bearer {made['key']}"},
        expect=201,
    )
    await house.call(
        "DELETE",
        f"/privacy/opendsr/{store_id}/v1/requests/{asked['subject_request_id']}",
        headers={"Authorization": f"Bearer {made['key']}"},
        expect=202,
    )
    return {
        "controller_id": other["id"],
        "key": made["key"],
        "subject_request_id": str(asked["subject_request_id"]),
    }


_UNTIL = str(datetime.now(UTC).date() + timedelta(days=30))
_SHEET = (
    "Handle,Title,Body (HTML),Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,Variant Price\n"
)


async def _recipient(house: House, store_id: UUID) -> tuple[str, str]:
    """Somebody outside who was to take a test, and has no part in anything any more."""
    owner = authorization(store_id, Role.OWNER)
    path = f"/privacy/v1/stores/{store_id}/recipients"
    body = {"name": "Parcel & Co", "url": "https://recipient.example/hook", "role": "processor"}
    made = await house.call("POST", path, json=body, headers=owner, expect=201)
    test = await house.call("POST", f"{path}/{made['id']}/tests", headers=owner, expect=202)
    await house.call("POST", f"{path}/{made['id']}/disabling", headers=owner)
    return made["id"], test["id"]


async def _product(house: House, store_id: UUID, manager: dict[str, str]) -> Any:
    products = f"/catalog/v1/stores/{store_id}"
    handle = f"pen-{uuid4().hex[:12]}"
    sheet = _SHEET + f"{handle},Pen,A pen,Title,Default Title,PEN-1,1000,2.50\n"
    imported = await house.call(
        "POST",
        f"{products}/imports",
        files={"file": ("products.csv", sheet.encode(), "text/csv")},
        headers=manager,
        expect=201,
    )
    product = await house.call("GET", f"{products}/products/by-handle/{handle}")
    return product | {"import_id": imported["id"]}


async def _sold(house: House, store_id: UUID, customer: Person, variant_id: str) -> Any:
    """An order of the customer's, and a cart that is still open."""
    orders = f"/orders/v1/stores/{store_id}"
    cart = await _cart(house, orders, variant_id)
    order = await buy(house, store_id, variant_id, customer.email, customer.headers)
    day = (await house.call("GET", f"{orders}/orders/{order['id']}", headers=customer.headers))["placed_at"][
        :10
    ]
    return order | {"cart_id": cart["id"], "cart_secret": cart["secret"], "day": day}


async def buy(
    house: House, store_id: UUID, variant_id: str, email: str, headers: Mapping[str, str] | None = None
) -> Any:
    """An order that nobody but orders has heard of yet, a guest's unless the headers say whose."""
    orders = f"/orders/v1/stores/{store_id}"
    cart = await _cart(house, orders, variant_id)
    contact = {"name": "A person", "email": email, "address": ADDRESS}
    return await house.call(
        "POST",
        f"{orders}/orders",
        json={"cart_id": cart["id"], "contact": contact, "payment_method": "bank_transfer"},
        headers={**(headers or {}), "Cart-Secret": cart["secret"]},
        expect=201,
    )


async def _cart(house: House, orders: str, variant_id: str) -> Any:
    cart = await house.call("POST", f"{orders}/carts", expect=201)
    line = f"{orders}/carts/{cart['id']}/lines/{variant_id}"
    await house.call("PUT", line, json={"quantity": 2}, headers={"Cart-Secret": cart["secret"]})
    return cart


async def merchant_of(house: House) -> Person:
    """An account of the platform's own store."""
    return await house.person(PLATFORM_STORE)
