"""Life in the store while something breaks: guests who buy and sometimes cancel, a merchant who changes a product."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from deploy.local.shop import Order
from tests.faults.conftest import PATIENCE, Running, becomes

_GUESTS = 2
_PAUSE = 0.2
"""Seconds between two commands of one person: this is a load of events, not of the processor."""


@dataclass
class Load:
    """What was acknowledged since it began."""

    placed: list[Order] = field(default_factory=list[Order])
    cancelled: list[Order] = field(default_factory=list[Order])
    titles: list[str] = field(default_factory=list[str])
    over: bool = False

    async def goes_on(self, orders: int = 3) -> None:
        """Wait until so many more orders were acknowledged."""
        goal = len(self.placed) + orders
        await becomes(lambda: len(self.placed) >= goal, "orders to be acknowledged")


@asynccontextmanager
async def load(running: Running) -> AsyncGenerator[Load]:
    """Keep the store busy while the block runs; at its end everybody finishes what they have begun."""
    load = Load()
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(3 * PATIENCE):
        for _ in range(_GUESTS):
            tasks.create_task(_guest(running, load))
        tasks.create_task(_merchant(running, load))
        try:
            yield load
        finally:
            load.over = True


async def _guest(running: Running, load: Load) -> None:
    while not load.over:
        order = await running.buy()
        load.placed.append(order)
        if len(load.placed) % 4 == 0:
            await running.cancel(order)
            load.cancelled.append(order)
        await asyncio.sleep(_PAUSE)


async def _merchant(running: Running, load: Load) -> None:
    """Many changes of one product: the longest line of events that one key has."""
    path = f"/catalog/v1/stores/{running.owner.store_id}/products/{running.product}"
    while not load.over:
        title = f"Plenty {len(load.titles) + 1}"
        seen = await running.persist("GET", path, headers=running.owner.headers)
        headers = running.owner.headers | {"If-Match": seen.headers["etag"]}
        answer = await running.shop.http.patch(path, json={"title": title}, headers=headers)
        # A change whose reply was lost has raised the version: 412 sends the merchant back to look.
        assert answer.status_code in (200, 412, 503), answer.text
        if answer.status_code == 200:
            load.titles.append(title)
        await asyncio.sleep(_PAUSE)
