"""One platform of real processes for each broker, a store with plenty in stock, and all that is to hold of it."""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.local.child import Child
from deploy.local.cluster import begin_with_copy
from deploy.local.environment import SERVICES
from deploy.local.platform import Platform
from deploy.local.shop import Account, Order, Shop, Surprise, key, until
from tests.faults import history
from tests.faults.brokers import Log, log_of
from tests.faults.crashing import BURNT, SOUND
from tests.faults.databases import Databases

STOCK = 100_000
PATIENCE = 60.0
"""Seconds in which all must have come to rest once everything runs again."""
_COLUMNS = "Handle,Title,Body (HTML),Vendor,Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,Variant Price"
_OVER = ("cancelled", "refused")


@dataclass
class Running:
    """A platform under test, its one store, and every order that was acknowledged there."""

    platform: Platform
    databases: Databases
    log: Log
    shop: Shop
    merchant: Account
    owner: Account
    product: str = ""
    variant: str = ""
    acknowledged: dict[str, Order] = field(default_factory=dict[str, Order])
    refusals: list[httpx.Response] = field(default_factory=list[httpx.Response])

    # --- Processes ---------------------------------------------------------------------------------------

    def worker(
        self, service: str, point: str = SOUND, times: int = 1, signal: str = "KILL", name: str = ""
    ) -> Child:
        """Another worker of the service, which will be killed or frozen at a point."""
        normal = self.platform.processes[f"{service}-worker"]
        name = name or f"{service}-{point}"
        nursery = self.platform._nursery  # pyright: ignore[reportPrivateUsage]
        return Child(
            nursery, name, "tests.faults.crashing", service, point, str(times), signal,
            environment=normal.environment, log=normal.log.with_name(f"{name}.log"),
        )  # fmt: skip

    async def hurry_workers(self) -> None:
        """Replace every worker by one that does not wait long for the silent."""
        workers = {
            f"{service}-worker": self.worker(service, name=f"{service}-worker") for service in SERVICES
        }
        await asyncio.gather(*(self.platform.processes[name].stop() for name in workers))
        self.platform.processes |= workers
        await asyncio.gather(*(worker.start() for worker in workers.values()))

    def processes(self, *services: str) -> list[Child]:
        """The workers of these services, or of all."""
        return [self.platform.processes[f"{service}-worker"] for service in services or SERVICES]

    async def repair(self) -> None:
        """Start what a failed test left lying."""
        await self.platform.postgres.start()
        await becomes(self.databases.has_recovered, "PostgreSQL to have recovered")
        await self.log.start()
        for process in self.platform.processes.values():
            process.resume()
            await process.start()
        await self.platform.ready()
        await becomes(self.keyring_answers, "the keyring to answer")

    async def keyring_answers(self) -> bool:
        """Whether it is there."""
        try:
            answer = await self.shop.http.get(f"{self.platform.environment['KEYRING_URL']}/healthz/ready")
        except httpx.TransportError:
            return False
        return answer.is_success

    # --- Databases ---------------------------------------------------------------------------------------

    async def backlog(self, *services: str) -> int:
        """Events that are not sent yet."""
        unsent = "SELECT count(*) FROM outbox WHERE sent_at IS NULL"
        return sum([await self.databases.value(service, unsent) for service in services or SERVICES])

    async def parked(self, *services: str) -> int:
        """Events that were set aside."""
        return sum(
            [
                await self.databases.value(name, "SELECT count(*) FROM dead_event")
                for name in services or SERVICES
            ]
        )

    # --- People ------------------------------------------------------------------------------------------

    async def person(self) -> Account:
        """Somebody new with an account at the store."""
        return await self.shop.sign_up(address("person"), store_id=self.owner.store_id, name="A person")

    async def persist(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer of a command that is sent until it succeeds. Raises Surprise for any refusal but a clean 503."""

        async def attempt() -> httpx.Response | None:
            answer = await self.shop.http.request(method, path, **options)
            if answer.is_success:
                return answer
            self.refusals.append(answer)
            if answer.status_code != 503 or answer.headers["content-type"] != "application/problem+json":
                raise Surprise(f"{method} {path} answered {answer.status_code}: {answer.text[:300]}")
            return None

        return await until(attempt, f"{method} {path} to succeed", PATIENCE)

    async def buy(self, email: str = "", *, variant: str = "", name: str = "A guest") -> Order:
        """A guest's order of one piece; every command is sent until it is acknowledged."""
        store = self.owner.store_id
        carts = f"/orders/v1/stores/{store}/carts"
        cart = (await self.persist("POST", carts)).json()
        secret = {"Cart-Secret": cart["secret"]}
        line = f"{carts}/{cart['id']}/lines/{variant or self.variant}"
        await self.persist("PUT", line, json={"quantity": 1}, headers=secret)
        body = checkout_body(cart["id"], email or address("guest"), name)
        headers = secret | key()
        path = f"/orders/v1/stores/{store}/orders"
        return self.acknowledge((await self.persist("POST", path, json=body, headers=headers)).json())

    def acknowledge(self, placed: dict[str, Any]) -> Order:
        """Remember the reply to a checkout."""
        order = Order(self.owner.store_id, placed["id"], placed["number"], placed["view_secret"])
        self.acknowledged[order.id] = order
        return order

    async def cancel(self, order: Order) -> None:
        """As its guest."""
        path = f"/orders/v1/stores/{order.store_id}/orders/{order.id}/cancel"
        await self.persist("POST", path, headers={"Order-Secret": order.secret})

    async def ask(self, person: Account, right: str, **more: Any) -> dict[str, Any]:
        """Open a request."""
        path = f"/privacy/v1/stores/{person.store_id}/requests"
        body = {"right": right, "email": person.email, **more}
        return (await self.persist("POST", path, json=body, headers=person.headers | key())).json()

    async def let_pass(self, right: str, how: str) -> None:
        """Whether requests of a right wait for somebody who decides. Every test begins with the defaults."""
        await self._settle_on({"passing": {right: how}})

    async def as_by_default(self) -> None:
        """Take back what a test has decided for the store."""
        await self._settle_on({})

    async def _settle_on(self, settings: dict[str, Any]) -> None:
        path = f"/privacy/v1/stores/{self.owner.store_id}/settings"
        seen = await self.persist("GET", path, headers=self.owner.headers)
        headers = self.owner.headers | {"If-Match": seen.headers["etag"]}
        await self.persist("PUT", path, json=settings, headers=headers)

    async def request(self, request_id: str) -> dict[str, Any]:
        """A request as the store's owner sees it."""
        path = f"/privacy/v1/stores/{self.owner.store_id}/requests/{request_id}"
        return (await self.persist("GET", path, headers=self.owner.headers)).json()

    async def approve(self, request_id: str) -> None:
        """As the store's owner, who is its privacy officer too."""
        path = f"/privacy/v1/stores/{self.owner.store_id}/requests/{request_id}"
        seen = await self.persist("GET", path, headers=self.owner.headers)
        headers = self.owner.headers | key() | {"If-Match": seen.headers["etag"]}
        await self.persist("POST", f"{path}/decision", json={"approve": True}, headers=headers)

    async def ends(self, request_id: str, *states: str, within: float = PATIENCE) -> dict[str, Any]:
        """A request once it has ended, by itself."""
        seen: dict[str, Any] = {}

        async def look() -> dict[str, Any] | None:
            seen.update(await self.request(request_id))
            return seen if seen["state"] in (states or ("completed",)) else None

        try:
            return await until(look, "the request to end", within)
        except Surprise:
            print("still", seen["state"], *(part for part in seen["parts"] if part["state"] == "waiting"))
            raise

    # --- What holds --------------------------------------------------------------------------------------

    async def settle(self) -> history.History:
        """Wait until nothing is on its way any more, and return what happened."""

        missing: list[object] = []

        async def look() -> history.History | None:
            missing[:] = [await self.backlog(), await self.parked(), {}]
            if any(missing):
                return None
            seen = await history.read(self.databases)
            missing[-1] = seen.lost()
            return None if any(missing) else seen

        try:
            return await until(look, "every event to be sent and handled", PATIENCE)
        finally:
            print("to be sent, parked, to be handled:", *missing)

    async def holds(self) -> None:
        """Effects are the acknowledged commands, each once; nothing was lost, invented, doubled or reordered."""
        happened = await self.settle()
        assert happened.invented() == {}
        assert happened.doubled() == {}
        assert happened.inversions() == []
        assert happened.steps_back() == []
        store = self.owner.store_id
        orders = await self.databases.rows(
            "orders", "SELECT id::text, state FROM orders WHERE store_id = $1", store
        )
        assert {row["id"] for row in orders} == set(self.acknowledged)
        states = Counter(row["state"] for row in orders)
        assert set(states) <= {"awaiting_payment", "paid", *_OVER}
        keys = {f"{store}:{order_id}" for order_id in self.acknowledged}
        settled = happened.count("catalog", "stock-reserved", "stock-refused")
        assert set(settled) <= keys and set(settled.values()) <= {1}
        for once in ("order-placed", "order-confirmed", "order-cancelled"):
            assert set(happened.count("orders", once).values()) <= {1}, once
        reserved = "SELECT coalesce(sum(reserved), 0) FROM variant WHERE store_id = $1"
        live = states["awaiting_payment"] + states["paid"]
        assert await self.databases.value("catalog", reserved, store) == live
        due = "SELECT count(*) FROM receivable WHERE store_id = $1 AND state = 'open'"
        assert await self.databases.value("billing", due, store) == states["awaiting_payment"]


def address(who: str) -> str:
    """An address that nobody had before."""
    return f"{who}-{uuid4().hex}@vitrine.example"


def checkout_body(cart_id: str, email: str, name: str = "A guest") -> dict[str, Any]:
    """What a guest fills in."""
    where = {"line1": "1 rue de la Panne", "postcode": "75001", "city": "Paris", "country": "FR"}
    contact = {"name": name, "email": email, "address": where}
    return {"cart_id": cart_id, "contact": contact, "payment_method": "bank_transfer"}


async def burnt(worker: Child, point: str) -> None:
    """Wait until a worker has come to its point, and nowhere else to an end."""

    async def look() -> bool:
        return worker.last_words() == f"{BURNT} {point}"

    await becomes(look, f"{worker.name} to burn its fuse")


async def ended(process: Child, within: float = 30) -> None:
    """Wait for a process to be gone."""

    await becomes(lambda: process.pid is None, f"{process.name} to end", within)


async def becomes(condition: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Wait until a condition is true."""

    async def look() -> bool | None:
        found = condition()
        return bool(await found if isinstance(found, Awaitable) else found) or None

    await until(look, what, within)


@asynccontextmanager
async def running_on(broker: str) -> AsyncGenerator[Running]:
    """A platform of its own, its workers in a hurry."""
    folder = Path(tempfile.mkdtemp(prefix="vitrine-faults-"))
    try:
        with pytest.MonkeyPatch.context() as variables:
            # Somebody outside is on this machine too.
            variables.setenv("PRIVACY_OUTGOING_NETWORKS", '["127.0.0.0/8"]')
            variables.setenv("PRIVACY_OUTGOING_HTTP", "true")
            async with _started(folder, broker) as running:
                yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _started(folder: Path, broker: str) -> AsyncGenerator[Running]:
    begin_with_copy(folder)
    async with (
        Platform(folder, broker=broker, fast=True) as platform,
        httpx.AsyncClient(base_url=platform.url, timeout=30) as http,
    ):
        databases = Databases(platform.postgres)
        await history.witness(databases)
        shop = Shop(http)
        merchant = await shop.sign_up(address("merchant"), name="A merchant")
        owner = await shop.open_store(merchant, name="Faults", slug=f"faults-{uuid4().hex[:8]}")
        running = Running(platform, databases, log_of(platform, databases), shop, merchant, owner)
        rows = [_COLUMNS] + [
            f"{handle},{handle},,Vitrine,Title,Default Title,{handle},{STOCK},1.00"
            for handle in ("plenty", "poison")
        ]
        await shop.import_catalogue(owner, "\n".join(rows).encode())
        product = await shop.product(owner.store_id, "plenty")
        running.product, running.variant = product["id"], product["variants"][0]["id"]
        first = await shop.check_out(owner.store_id, address("guest"), {running.variant: 1})
        running.acknowledged[first.id] = first
        await running.hurry_workers()
        yield running
        await databases.close()


@pytest.fixture(scope="session", params=["embedded", "kafka"])
async def under_test(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with running_on(request.param) as running:
        yield running


@pytest.fixture
async def running(under_test: Running) -> AsyncIterator[Running]:
    """The platform, whole, with an owner whose token is fresh."""
    await under_test.repair()
    shop, owner = under_test.shop, under_test.owner
    under_test.merchant = await shop.sign_in(under_test.merchant.email)
    under_test.owner = await shop.act_at(under_test.merchant, owner.store_id)
    await under_test.as_by_default()
    under_test.refusals.clear()
    yield under_test
