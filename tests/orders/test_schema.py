"""The migrations make what the models say, and no row of another store is in reach."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError

from libs.common.db import Base as Common
from libs.common.db import Database
from services.orders.models import Base, Cart
from tests.orders.conftest import Shop


async def test_migrations_and_models_agree(orders_environment: Mapping[str, str]) -> None:
    database = Database(orders_environment["ORDERS_MIGRATION_DATABASE_URL"])
    async with database.engine.connect() as connection:
        differences = await connection.run_sync(_differences)
    await database.close()
    assert differences == []


def _differences(connection: Connection) -> list[object]:
    def is_ours(_: object, name: str | None, kind: str, *__: object) -> bool:
        return kind != "table" or name in {*ours, *common}

    ours, common = set(Base.metadata.tables), set(Common.metadata.tables)
    context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": is_ours})
    metadata: Any = [Common.metadata, Base.metadata]
    return list(compare_metadata(context, metadata))


async def test_every_table_of_a_store_is_isolated(shop: Shop) -> None:
    async with shop.database.platform_session() as session:
        rows = await session.execute(
            text("""
                SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
                WHERE attname = 'store_id' AND relkind = 'r' AND relnamespace = 'public'::regnamespace
                  AND NOT (relrowsecurity AND relforcerowsecurity)
            """)
        )
        assert rows.all() == []


async def test_a_session_sees_and_writes_its_own_store_only(shop: Shop) -> None:
    await shop.cart()
    async with shop.database.session(uuid4()) as session:
        assert (await session.scalars(select(Cart))).all() == []
    with pytest.raises(DBAPIError, match="row-level security"):
        async with shop.database.session(uuid4()) as session:
            row = {"store_id": shop.id, "id": uuid4(), "secret_hash": b"x", "currency": "EUR"}
            await session.execute(insert(Cart).values(row))
