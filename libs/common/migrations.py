"""Alembic for every service: each has its own history, run by the owner, used by a role that owns nothing."""

from collections.abc import Sequence
from importlib import import_module
from importlib.resources import files

from alembic import command, context
from alembic.config import Config
from alembic.op import get_bind
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.pool import NullPool

from libs.common.db import engine_of

# The setting is an empty string once the transaction that named a store is over, and `*` names no store.
# CASE, because a planner that takes `store_id = … OR …` apart counts the store twice, in the policy and in the
# query, expects next to no rows, and then sorts whole stores where it could walk an index to the tenth row.
STORE_POLICY = (
    "CASE current_setting('app.store', true) WHEN '*' THEN true "
    "ELSE store_id = NULLIF(current_setting('app.store', true), '')::uuid END"
)


async def upgrade(package: str, url: str, app_role: str, revision: str = "head") -> None:
    """Bring the database of `package` (`services.orders`) up to date and let `app_role` use it.

    `url` is the owner's. Two runs at once wait for each other; all of it happens in one transaction.
    """
    engine = engine_of(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('vitrine migrations'))"))
            await connection.run_sync(_upgrade, package, revision)
            await connection.run_sync(_grant, app_role)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, package: str, revision: str) -> None:
    command.upgrade(_config(connection, package), revision)


def _config(connection: Connection, package: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files(import_module(f"{package}.migrations"))))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _grant(connection: Connection, app_role: str) -> None:
    role = connection.dialect.identifier_preparer.quote(app_role)
    connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {role}"))
    connection.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"))
    connection.execute(text(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}"))
    connection.execute(text(f"REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {role}"))


def run(*metadata: MetaData) -> None:
    """The whole of a service's `env.py`: migrate over the connection that `upgrade` opened."""
    targets: Sequence[MetaData] = metadata
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=targets,
        compare_type=True,
        transactional_ddl=True,
    )
    context.run_migrations()


def isolate_stores(*tables: str) -> None:
    """Turn forced row-level security on: the rows of a table are those of the transaction's store."""
    connection = get_bind()
    for table in tables:
        connection.execute(text(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"))
        connection.execute(text(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"))
        connection.execute(
            text(f"CREATE POLICY own_store ON {table} USING ({STORE_POLICY}) WITH CHECK ({STORE_POLICY})")
        )
