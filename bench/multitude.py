"""A store of a million people, from ten thousand: their rows are copied within PostgreSQL, to ids of their own.

Whoever uses a right is one of the first, whose boxes open. The others are there to be looked past: their rows are as
many, as long and as indexed as they would be, and what lies in their boxes opens for nobody.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Column, LargeBinary, Table, Uuid

from deploy.local.databases import database
from deploy.local.postgres import PostgresServer
from services.billing.models import Invoice, Receivable
from services.identity.models import Account, AccountSession
from services.orders.models import Order, OrderLine
from services.privacy.keyring.models import DataKey, Subject
from services.privacy.models import Expiry

_TABLES: Mapping[str, Sequence[type[Any]]] = {
    "orders": (Order, OrderLine),
    "identity": (Account, AccountSession),
    "billing": (Receivable, Invoice),
    "privacy": (Expiry,),
    "keyring": (Subject, DataKey),
}
_SHARED = frozenset({"store_id", "variant_id", "tenant_key_id"})
"""Ids of what all people of a store have in common."""
_OTHERWISE: Mapping[str, str] = {
    "number": "number || '-' || copy",
    "sequence": "sequence + copy * 1000000",
    # The id of an order, or a year.
    "bucket": "CASE WHEN length(bucket) = 36 THEN CAST(md5(bucket || copy) AS uuid)::text ELSE bucket END",
}

_WITHOUT_INDEXES = (
    "UPDATE pg_index SET indisready = false WHERE indrelid = CAST(CAST($1 AS text) AS regclass)"
)
"""Until they are built anew; other sessions never see it."""


async def multiply(postgres: PostgresServer, store_id: UUID, people: int, times: int) -> None:
    """Make of the store's `people` so many times as many."""
    numbers = [people * copy for copy in range(1, times)]
    async with _in_a_hurry(postgres):
        await asyncio.gather(*(_multiply(postgres, service, store_id, numbers) for service in _TABLES))


@asynccontextmanager
async def _in_a_hurry(postgres: PostgresServer) -> AsyncGenerator[None]:
    """What is copied can be copied again: for so long nobody waits for what protects it from a crash."""
    connection = await postgres.connect()
    hurry = {"full_page_writes": "off", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}
    for name, value in hurry.items():
        await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    await connection.execute("SELECT pg_reload_conf()")
    yield
    for name in hurry:
        await connection.execute(f"ALTER SYSTEM RESET {name}")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.execute("CHECKPOINT")
    await connection.close()


async def _multiply(postgres: PostgresServer, service: str, store_id: UUID, copies: Sequence[int]) -> None:
    connection = await postgres.connect(database(service))
    # What rows refer to is copied to the same new ids, so nobody need look whether it is there.
    await connection.execute("SET session_replication_role = replica")
    await connection.execute("SET maintenance_work_mem = '1GB'")
    for model in _TABLES[service]:
        async with connection.transaction():
            # All that is needed at once: of two who want more than they have, workers among them, each may wait for the
            # other.
            await connection.execute(f"LOCK TABLE {model.__tablename__}")
            # Built once over all rows, an index with random keys takes a fraction of what entering each row takes.
            await connection.execute(_WITHOUT_INDEXES, model.__tablename__)
            await connection.execute(_copying(model.__table__), store_id, copies)
            await connection.execute(f"REINDEX TABLE {model.__tablename__}")
        await connection.execute(f"VACUUM ANALYZE {model.__tablename__}")
    await connection.close()


def _copying(table: Table) -> str:
    values = {column.name: _copied(column) for column in table.columns if column.identity is None}
    return (
        f"INSERT INTO {table.name} ({', '.join(values)}) SELECT {', '.join(values.values())} "
        f"FROM {table.name}, unnest(CAST($2 AS bigint[])) AS copy WHERE store_id = $1"
    )


def _copied(column: Column[Any]) -> str:
    """A value of its own for each copy, the same wherever the same value is copied."""
    name = column.name
    if name in _OTHERWISE:
        return _OTHERWISE[name]
    if isinstance(column.type, Uuid) and name not in _SHARED:
        return f"CAST(md5({name}::text || copy) AS uuid)"
    if isinstance(column.type, LargeBinary) and name != "wrapped":
        return f"sha256({name} || convert_to(copy::text, 'UTF8'))"
    return name
