"""A database with the common tables alone, owned by one role and used by another, as every service's is."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from deploy.local.postgres import PostgresServer
from libs.common import tables
from libs.common.db import Database, engine_of
from libs.common.migrations import _grant  # pyright: ignore[reportPrivateUsage]


@dataclass
class Common:
    """A fresh database and a store to work in."""

    name: str
    url: str
    database: Database
    store_id: UUID


def _create_tables(connection: Connection, role: str) -> None:
    connection.execute(text("CREATE TABLE alembic_version (version_num varchar)"))
    with Operations.context(MigrationContext.configure(connection)):
        tables.create_first()
        tables.create_second()
        tables.create_restorations()
        tables.create_store_states()
        tables.create_third()
        tables.create_expiry()
    # What a test's own handler does: one row an effect, in the order of the effects.
    connection.execute(
        text("CREATE TABLE effect (id bigint GENERATED ALWAYS AS IDENTITY, subject text, number int)")
    )
    _grant(connection, role)


@pytest.fixture
async def make_common(postgres: PostgresServer) -> AsyncIterator[Callable[[], object]]:
    made: list[Common] = []

    async def make() -> Common:
        name = f"common_{uuid4().hex[:12]}"
        superuser = await postgres.connect()
        for role in (f"{name}_owner", f"{name}_app"):
            await superuser.execute(
                f"CREATE ROLE {role} LOGIN NOBYPASSRLS PASSWORD '{postgres.password(role)}'"
            )
        await superuser.execute(f"CREATE DATABASE {name} OWNER {name}_owner")
        await superuser.close()
        engine = engine_of(postgres.url(name, f"{name}_owner"))
        async with engine.begin() as connection:
            await connection.run_sync(_create_tables, f"{name}_app")
        await engine.dispose()
        url = postgres.url(name, f"{name}_app")
        common = Common(name, url, Database(url, pool_size=5), uuid4())
        made.append(common)
        return common

    yield make
    for common in made:
        await common.database.close()
        superuser = await postgres.connect()
        await superuser.execute(f"DROP DATABASE {common.name} WITH (FORCE)")
        await superuser.close()


@pytest.fixture
async def common(make_common: Callable[[], object]) -> Common:
    return await make_common()  # type: ignore[misc, no-any-return]
