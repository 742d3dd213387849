"""What a session relies on: a connection that works, however the one before it ended."""

import asyncio
from typing import Any

from sqlalchemy import text

from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until
from tests.common.conftest import Common

_AT_ONCE = 4


async def test_connections_that_the_server_closed_are_never_handed_out(
    common: Common, postgres: PostgresServer
) -> None:
    drivers = await _used_at_once(common)
    superuser = await postgres.connect()
    await superuser.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", common.name
    )
    await superuser.close()

    async def are_closed() -> bool:
        return all(driver.is_closed() for driver in drivers)

    await until(are_closed, 10, "the end of a connection was not heard of")
    # Used one after the other, the pool would hand out the last of them first and meet the others at the next rush.
    for _ in range(2):
        assert await _used_at_once(common)
        async with common.database.transaction(common.store_id) as transaction:
            assert await transaction.driver.fetchval("SELECT 1") == 1


async def _used_at_once(common: Common) -> list[Any]:
    """The connections of sessions that were open at the same time."""
    together = asyncio.Barrier(_AT_ONCE)

    async def use() -> Any:
        async with common.database.session(common.store_id) as session:
            assert await session.scalar(text("SELECT 1")) == 1
            await together.wait()
            raw = await (await session.connection()).get_raw_connection()
            return raw.driver_connection

    return await asyncio.gather(*(use() for _ in range(_AT_ONCE)))
