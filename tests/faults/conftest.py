"""A whole platform of real processes on each broker, and a store with plenty in stock."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.local.child import Child
from deploy.local.platform import Platform
from deploy.local.shop import Account, Shop, until

_HEADER = "Handle,Title,Body (HTML),Vendor,Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,Variant Price\n"


@dataclass
class Running:
    """A platform under test and its one store."""

    platform: Platform
    shop: Shop
    owner: Account
    variant: str

    async def stock(self) -> dict[str, Any]:
        """The variant as the catalogue shows it."""
        product = await self.shop.product(self.owner.store_id, "plenty")
        return next(one for one in product["variants"] if one["id"] == self.variant)

    async def rows(self, service: str, query: str) -> list[Any]:
        """What stands in a service's database, seen by its superuser."""
        connection = await self.platform.postgres.connect(f"vitrine_{service}")
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    async def settled(self, patience: float = 60) -> None:
        """Nothing is on its way: every outbox is sent, no event is parked."""

        async def look() -> bool | None:
            for service in ("catalog", "orders", "identity", "billing", "privacy"):
                [unsent] = await self.rows(service, "SELECT count(*) FROM outbox WHERE sent_at IS NULL")
                [parked] = await self.rows(service, "SELECT count(*) FROM dead_event")
                if unsent[0] or parked[0]:
                    return None
            return True

        await until(look, "every outbox to be sent", patience)

    def crashing(self, service: str, point: str, times: int) -> Child:
        """A worker of the service that will kill itself."""
        normal = self.platform.processes[f"{service}-worker"]
        log = normal.log.with_name(f"{service}-{point}.log")
        nursery = self.platform._nursery  # pyright: ignore[reportPrivateUsage]
        return Child(
            nursery, f"{service}-{point}", "tests.faults.crashing", service, point, str(times),
            environment=normal.environment, log=log,
        )  # fmt: skip


@pytest.fixture(scope="module", params=["embedded", "kafka"])
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="vitrine-faults-"))
    try:
        async with Platform(folder, broker=request.param) as platform:
            async with httpx.AsyncClient(base_url=platform.url, timeout=30) as http:
                shop = Shop(http)
                merchant = await shop.sign_up(f"merchant-{uuid4().hex}@vitrine.example", name="A merchant")
                owner = await shop.open_store(merchant, name="Faults", slug=f"faults-{uuid4().hex[:8]}")
                catalogue = _HEADER + "plenty,Plenty,,Vitrine,Title,Default Title,PLENTY,100000,1.00\n"
                await shop.import_catalogue(owner, catalogue.encode())
                [variant] = (await shop.product(owner.store_id, "plenty"))["variants"]
                yield Running(platform, shop, owner, variant["id"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
