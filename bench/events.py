"""Events a second from outbox through the broker to the inbox, on each broker.

Twenty thousand events of a thousand aggregates wait in an outbox; a relay and a consumer of one process carry
them, durably, until the inbox has them all.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from bench.figures import Figure, Floor
from libs.common.broker import Broker
from libs.common.db import Database
from libs.common.events import Event, Received
from libs.common.inbox import Consumer, batched
from libs.common.outbox import Relay, publish_all

EVENTS = 20_000
AGGREGATES = 1_000
_STORE = uuid4()


class Measured(Event, type="vitrine.bench.measured.v1", topic="bench.events", key="aggregate_id"):
    """As large as an order's event."""

    aggregate_id: UUID
    filler: str = "x" * 400


@batched
async def _nothing(_session: AsyncSession, _events: Sequence[Received[Any]]) -> None:
    """The effect is the inbox row itself."""


async def figure(name: str, database: Database, broker: Broker, floor: Floor) -> Figure:
    """Fill the outbox, carry everything, count."""
    await _fill(database)
    await broker.start()
    relay = Relay(database, broker)
    consumer = Consumer(
        service=f"bench-{name}", database=database, broker=broker, handlers={Measured: _nothing}
    )
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(relay.run())
        running = tasks.create_task(consumer.run())
        await _all_handled(database)
        elapsed = time.perf_counter() - began
        relay.stop()
        running.cancel()
    await broker.stop()
    return Figure(f"events, outbox → {name} → inbox", EVENTS / elapsed, "1/s", floor)


async def _fill(database: Database) -> None:
    aggregates = [uuid4() for _ in range(AGGREGATES)]
    async with database.platform_session() as session:
        await session.execute(text("DELETE FROM inbox"))
        await session.execute(text("DELETE FROM outbox"))
    for start in range(0, EVENTS, 1000):
        async with database.session(_STORE) as session:
            events = [Measured(aggregate_id=aggregates[n % AGGREGATES]) for n in range(start, start + 1000)]
            await publish_all(session, events, store_id=_STORE, source="bench")


async def _all_handled(database: Database) -> None:
    deadline = time.monotonic() + 120
    while True:
        async with database.platform_session() as session:
            if (await session.execute(text("SELECT count(*) FROM inbox"))).scalar_one() >= EVENTS:
                return
        if time.monotonic() > deadline:
            raise TimeoutError("the events did not all arrive")
        await asyncio.sleep(0.05)
