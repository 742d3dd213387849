"""The database is what the models say, and every row in it belongs to a store."""

from collections.abc import Mapping
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from libs.common.db import Database, engine_of
from libs.common.tables import METADATA
from services.privacy.models import Base
from tests.privacy.conftest import Platform

# Names of topics, keys and services, of no store.
OF_THE_PLATFORM = {
    "alembic_version", "announcement", "broker_seen", "dead_event", "departure", "participant", "published_key",
    "restoration", "returned",
}  # fmt: skip


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    # Autogenerate's own signature allows several.
    metadata: Any = [METADATA, Base.metadata]
    return compare_metadata(context, metadata)


async def test_migrations_lead_to_the_models(privacy_environment: Mapping[str, str]) -> None:
    url = privacy_environment["PRIVACY_MIGRATION_DATABASE_URL"]
    engine = engine_of(url)
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await engine.dispose()


async def test_every_table_of_stores_is_isolated_even_from_its_owner(platform: Platform) -> None:
    database: Database = platform.database
    async with database.platform_session() as session:
        rows = (
            await session.execute(
                text("""
                    SELECT relname AS name, relrowsecurity AND relforcerowsecurity AS isolated
                    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                """)
            )
        ).all()
    assert {row.name for row in rows if not row.isolated} == OF_THE_PLATFORM
