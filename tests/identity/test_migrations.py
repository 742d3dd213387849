"""The database is what the code says it is, and its rows are bound to stores."""

from collections.abc import Mapping
from uuid import uuid4

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from libs.common.db import engine_of
from libs.common.tables import METADATA
from services.identity.models import Base
from tests.identity.conftest import World


async def test_migrations_and_models_agree(identity_environment: Mapping[str, str]) -> None:
    url = identity_environment["IDENTITY_MIGRATION_DATABASE_URL"]
    engine = engine_of(url)

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, [METADATA, Base.metadata])  # type: ignore[arg-type]

    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()
    assert [one for one in found if "alembic_version" not in str(one)] == []


async def test_rows_are_their_stores_own(world: World) -> None:
    async with world.parts.database.platform_session() as session:
        tables = await session.execute(
            text(
                "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS forced FROM pg_class c "
                "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'store_id' "
                "WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
            )
        )
        forced = {row.relname: row.forced for row in tables}
    assert {"account", "sign_up", "account_session", "store", "membership", "attempts"} <= forced.keys()
    assert all(forced.values())
    async with world.parts.database.session(uuid4()) as session:
        for table in forced:
            assert await session.scalar(text(f"SELECT count(*) FROM {table}")) == 0
