"""`kill -9` at each named point loses nothing, invents nothing and needs nobody to act."""

import asyncio
import random
from uuid import uuid4

import pytest

from deploy.local.shop import Order, until
from tests.faults.conftest import Running
from tests.faults.crashing import POINTS

SEED = 20_260_101
_ORDERS_A_CRASH = 3


async def place(running: Running, orders: int) -> list[Order]:
    placed = await asyncio.gather(
        *(
            running.shop.check_out(
                running.owner.store_id, f"guest-{uuid4().hex}@vitrine.example", {running.variant: 1}
            )
            for _ in range(orders)
        )
    )
    return list(placed)


@pytest.mark.parametrize("service", ["orders", "catalog"])
async def test_a_worker_killed_at_every_point_loses_and_doubles_nothing(
    running: Running, service: str
) -> None:
    chance = random.Random(f"{SEED}{service}")
    before = await running.stock()
    normal = running.platform.processes[f"{service}-worker"]
    await normal.stop()
    placed: list[Order] = []
    for point in POINTS:
        crashing = running.crashing(service, point, chance.randint(1, 2))
        await crashing.start()
        placed += await place(running, _ORDERS_A_CRASH)
        if point == "in-shutdown":
            await running.shop.order_settles(placed[-1], "awaiting_payment")
            await crashing.stop()
        else:
            await until(lambda crashing=crashing: dead(crashing), f"{service} to crash at {point}")
    await normal.start()
    for order in placed:
        await running.shop.order_settles(order, "awaiting_payment")
    await running.settled()
    after = await running.stock()
    assert before["available"] - after["available"] == len(placed)
    numbers = [
        row[0] for row in await running.rows("orders", "SELECT number FROM orders ORDER BY number::bigint")
    ]
    assert len(numbers) == len(set(numbers))


async def dead(crashing: object) -> bool | None:
    return getattr(crashing, "pid", None) is None or None
