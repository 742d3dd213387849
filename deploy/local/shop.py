"""What a front end does with the public API, as the demo, the seed, the end-to-end tests and the benchmarks need it.

Only HTTP and the mailbox: nothing here knows how a service works inside.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx

PLATFORM_STORE = "00000000-0000-4000-8000-000000000001"
CATALOGUE = Path(__file__).parent / "catalogue.csv"
PASSWORD = "a long passphrase for a demo"  # noqa: S105 - of accounts that a demo makes
_PATIENCE = 30.0

T = TypeVar("T")


class Surprise(Exception):
    """The platform did something else than was expected. The message says what, for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Account:
    """A signed-in person at one store."""

    email: str
    store_id: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        """What an authenticated request carries."""
        return {"Authorization": f"Bearer {self.access_token}"}


@dataclass(frozen=True, slots=True)
class Order:
    """An order as the person who placed it knows it."""

    store_id: str
    id: str
    number: str
    secret: str


class Shop:
    """A platform, seen through its public port."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def call(
        self, method: str, path: str, *, expect: int | tuple[int, ...] = 200, **options: Any
    ) -> Any:
        """The JSON of the answer. Raises Surprise when the status is another than expected."""
        answer = await self.http.request(method, path, **options)
        expected = expect if isinstance(expect, tuple) else (expect,)
        if answer.status_code not in expected:
            raise Surprise(
                f"{method} {path} answered {answer.status_code} instead of {expect}: {answer.text[:300]}"
            )
        return answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else None

    # --- People ------------------------------------------------------------------------------------------

    async def sign_up(self, email: str, *, store_id: str = PLATFORM_STORE, name: str = "") -> Account:
        """A new account, confirmed through the mailbox, and signed in."""
        body = {"email": email, "password": PASSWORD, "name": name or None}
        # Whoever returns has the mail of an earlier life there, which has a link too.
        earlier = [entry["id"] for entry in await self._mails(email)]
        await self.call("POST", f"/identity/v1/stores/{store_id}/accounts", json=body, expect=202)
        link = await self.link_in_mail(email, "token=", but=earlier)
        token = re.search(r"token=([\w-]+)", link)
        if token is None:
            raise Surprise("the confirmation mail has no token in its link")
        await self.call("POST", f"/identity/v1/stores/{store_id}/confirmations", json={"token": token[1]})
        return await self.sign_in(email, store_id=store_id)

    async def sign_in(self, email: str, *, store_id: str = PLATFORM_STORE) -> Account:
        """An access and a refresh token."""
        body = {"grant_type": "password", "email": email, "password": PASSWORD}
        tokens = await self.call("POST", f"/identity/v1/stores/{store_id}/tokens", json=body)
        return Account(email, store_id, tokens["access_token"], tokens["refresh_token"])

    async def act_at(self, merchant: Account, store_id: str) -> Account:
        """The merchant's token for one of their stores."""
        body = {"grant_type": "refresh_token", "refresh_token": merchant.refresh_token, "act_at": store_id}
        tokens = await self.call("POST", f"/identity/v1/stores/{PLATFORM_STORE}/tokens", json=body)
        return Account(merchant.email, store_id, tokens["access_token"], tokens["refresh_token"])

    # --- Mail --------------------------------------------------------------------------------------------

    async def mail(self, to: str, containing: str, *, but: Collection[str] = ()) -> dict[str, Any]:
        """The newest mail to an address whose text contains something, once it has arrived; `but` are the ids of those
        that do not count.
        """

        async def look() -> dict[str, Any] | None:
            for entry in await self._mails(to):
                if entry["id"] not in but:
                    message = await self.call("GET", f"/mailbox/messages/{entry['id']}")
                    if containing in message["text"]:
                        return message
            return None

        return await until(look, f"a mail to {to} with {containing!r} in it")

    async def _mails(self, to: str) -> list[dict[str, Any]]:
        return await self.call("GET", "/mailbox/messages", params={"to": to})

    async def link_in_mail(self, to: str, containing: str, *, but: Collection[str] = ()) -> str:
        """The first link that contains something, in the newest mail that has one."""
        message = await self.mail(to, containing, but=but)
        return next(link for link in message["links"] if containing in link)

    async def download(self, token: str) -> httpx.Response:
        """The archive of an export, by the token of the link: for an address first, then with its cookie."""
        granted = await self.http.post("/privacy/v1/downloads", data={"token": token})
        if granted.status_code != 201:
            return granted
        return await self.http.get(granted.headers["location"])

    # --- The store ---------------------------------------------------------------------------------------

    async def open_store(self, merchant: Account, *, name: str, slug: str, country: str = "FR") -> Account:
        """A new store, and the merchant's token for it, once catalog and orders know it."""
        body = {"name": name, "slug": slug, "country": country, "currency": "EUR", "language": "en"}
        store = await self.call(
            "POST", "/identity/v1/stores", json=body, headers=merchant.headers | key(), expect=201
        )
        owner = await self.act_at(merchant, store["id"])
        for path in (f"/catalog/v1/stores/{store['id']}/products", f"/orders/v1/stores/{store['id']}/orders"):
            await self.reaches(path, 200, headers=owner.headers)
        return owner

    async def import_catalogue(self, owner: Account, content: bytes, *, expect: int = 201) -> Any:
        """The outcome of an import of a CSV file in Shopify's layout."""
        return await self.call(
            "POST",
            f"/catalog/v1/stores/{owner.store_id}/imports",
            files={"file": ("catalogue.csv", content, "text/csv")},
            headers=owner.headers | key(),
            expect=expect,
        )

    async def product(self, store_id: str, handle: str) -> dict[str, Any]:
        """A product and its variants."""
        return await self.call("GET", f"/catalog/v1/stores/{store_id}/products/by-handle/{handle}")

    # --- Buying ------------------------------------------------------------------------------------------

    async def check_out(
        self, store_id: str, email: str, variants: dict[str, int], *, name: str = "A guest"
    ) -> Order:
        """A guest's order by bank transfer, just placed: stock is not reserved yet."""
        cart = await self.call("POST", f"/orders/v1/stores/{store_id}/carts", expect=201)
        secret = {"Cart-Secret": cart["secret"]}
        for variant, quantity in variants.items():
            line = f"/orders/v1/stores/{store_id}/carts/{cart['id']}/lines/{variant}"
            # The offer reaches orders by an event, a moment after the catalogue shows it.
            await self.reaches(line, 200, method="PUT", json={"quantity": quantity}, headers=secret)
        address = {"line1": "1 rue de la Demo", "postcode": "75001", "city": "Paris", "country": "FR"}
        body = {
            "cart_id": cart["id"],
            "contact": {"name": name, "email": email, "address": address},
            "payment_method": "bank_transfer",
        }
        order = await self.call(
            "POST",
            f"/orders/v1/stores/{store_id}/orders",
            json=body,
            headers=secret | key(),
            expect=(201, 202),
        )
        return Order(store_id, order["id"], order["number"], order["view_secret"])

    async def order(self, order: Order, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """The order as its guest, or the bearer of `headers`, sees it."""
        path = f"/orders/v1/stores/{order.store_id}/orders/{order.id}"
        return await self.call("GET", path, headers=headers or {"Order-Secret": order.secret})

    async def order_settles(self, order: Order, *states: str) -> dict[str, Any]:
        """The order once it is in one of the states."""

        async def look() -> dict[str, Any] | None:
            seen = await self.order(order)
            return seen if seen["state"] in states else None

        return await until(look, f"order {order.number} to be {' or '.join(states)}")

    async def reaches(self, path: str, status: int, *, method: str = "GET", **options: Any) -> httpx.Response:
        """The answer once it has the status: what depends on an event that is on its way."""

        async def look() -> httpx.Response | None:
            answer = await self.http.request(method, path, **options)
            return answer if answer.status_code == status else None

        return await until(look, f"{method} {path} to answer {status}")


def key() -> dict[str, str]:
    """A fresh idempotency key, so that the request may be sent again."""
    return {"Idempotency-Key": str(uuid4())}


async def until(look: Callable[[], Awaitable[T | None]], what: str, patience: float = _PATIENCE) -> T:
    """What `look` finds, as soon as it finds something. Raises Surprise when patience ends."""
    deadline = time.monotonic() + patience
    pause = 0.01
    while (found := await look()) is None:
        if time.monotonic() > deadline:
            raise Surprise(f"waited {patience:.0f} s in vain for {what}")
        await asyncio.sleep(pause)
        pause = min(0.2, pause * 1.5)
    return found
