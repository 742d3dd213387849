"""What a session relies on: a connection that works, however the one before it ended."""

import asyncio
from typing import Any

import pytest
from asyncpg import DataError
from sqlalchemy import event, text

from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until
from libs.common.db import Database, fetch
from libs.common.errors import Unavailable
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


async def test_a_server_that_ends_while_a_connection_is_set_up_is_an_outage(common: Common) -> None:
    """Whoever uses a database waits then, and tries again; for anything else a worker would end."""
    database = Database(common.database.url, pool_size=1)
    event.listen(database.engine.sync_engine, "connect", _has_ended, insert=True)
    for use in (database.session, database.transaction):
        with pytest.raises(Unavailable):
            async with use(common.store_id) as opened:
                await fetch(opened, "SELECT 1")
    with pytest.raises(Unavailable):
        await database.read(common.store_id, "SELECT 1")
    event.remove(database.engine.sync_engine, "connect", _has_ended)
    assert await database.read(common.store_id, "SELECT 1") == 1
    await database.close()


def _has_ended(connection: Any, _record: object) -> None:
    connection.driver_connection.terminate()


async def test_what_a_statement_is_wrongly_given_is_no_outage(common: Common) -> None:
    with pytest.raises(DataError):
        async with common.database.transaction(common.store_id) as transaction:
            await fetch(transaction, "SELECT $1::bigint", "no number")


async def test_an_address_says_in_the_words_of_postgresql_how_to_connect(common: Common) -> None:
    """The PostgreSQL of tests speaks no TLS: where an address requires it, nothing is said in the clear."""
    database = Database(f"{common.database.url}?sslmode=disable&application_name=a-name", pool_size=1)
    async with database.session(common.store_id) as session:
        assert await session.scalar(text("SELECT current_setting('application_name')")) == "a-name"
    await database.close()
    encrypted = Database(f"{common.database.url}?sslmode=require", pool_size=1)
    with pytest.raises(Unavailable) as refused:
        async with encrypted.session(common.store_id) as session:
            await session.scalar(text("SELECT 1"))
    assert "SSL" in str(refused.value.__cause__)
    await encrypted.close()
