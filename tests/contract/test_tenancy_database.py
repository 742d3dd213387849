"""The real catalogues, after all migrations: no session reads or writes another store's rows, in any database."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from deploy.local.databases import NAMES, OWNER, app_role, database
from deploy.local.environment import SERVICES
from deploy.local.postgres import PostgresServer
from libs.common.db import Database
from libs.common.tables import METADATA
from tests.contract.house import Furnished

OF_THE_PLATFORM: Mapping[str, str] = {
    "alembic_version": "revision of the database",
    "announcement": "what a service last said of itself",
    "assignment": "the embedded log",
    "broker_seen": "identity of the log that was sent to",
    "cluster": "the embedded log",
    "dead_event": "records that could not be handled, of which the store may be what cannot be read",
    "departure": "which participants left",
    "destroyed_key": "random ids: the log must not say whose key it was",
    "log_identity": "which destruction log this is",
    "log_seen": "which destruction log the keyring wrote to",
    "member": "the embedded log",
    "opening_count": "counts by service and purpose",
    "participant": "who answers requests",
    "published_key": "public keys that evidence was signed with",
    "record": "the embedded log",
    "restoration": "from which backups this database was restored",
    "returned": "which participants were restored",
    "signing_key": "keys of the issuer of tokens",
    "topic_partition": "the embedded log",
}
"""Tables that belong to no store, and what they hold instead."""

_TABLES = """
    SELECT relname, relrowsecurity AND relforcerowsecurity AS forced,
        EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'store_id'
                AND NOT attisdropped) AS of_a_store
    FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
"""


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, platform_environment: Mapping[str, str]) -> str:
    """Each database of the platform, migrated."""
    return request.param


@pytest.fixture
async def superuser(name: str, postgres: PostgresServer) -> AsyncIterator[Any]:
    """Whom no policy binds: sees what is really there."""
    connection = await postgres.connect(database(name))
    yield connection
    await connection.close()


@pytest.fixture
async def application(name: str, platform_environment: Mapping[str, str]) -> AsyncIterator[Database]:
    """As the service itself is connected."""
    connected = Database(platform_environment[f"{name.upper()}_DATABASE_URL"], pool_size=1)
    yield connected
    await connected.close()


async def of_stores(superuser: Any) -> list[str]:
    return [row["relname"] for row in await superuser.fetch(_TABLES) if row["of_a_store"]]


# --- The catalogue ---------------------------------------------------------------------------------------


async def test_every_table_belongs_to_stores_or_is_declared_to_be_the_platforms(superuser: Any) -> None:
    rows = await superuser.fetch(_TABLES)
    assert rows
    assert {row["relname"] for row in rows if not row["of_a_store"]} <= OF_THE_PLATFORM.keys()


async def test_every_table_of_stores_has_forced_row_level_security(superuser: Any) -> None:
    assert [
        row["relname"] for row in await superuser.fetch(_TABLES) if row["of_a_store"] and not row["forced"]
    ] == []


async def test_every_policy_binds_what_is_read_and_what_is_written_to_the_store(superuser: Any) -> None:
    policies = await superuser.fetch("SELECT * FROM pg_policies WHERE schemaname = 'public'")
    assert sorted(policy["tablename"] for policy in policies) == sorted(await of_stores(superuser))
    for policy in policies:
        assert policy["cmd"] == "ALL" and policy["roles"] == ["public"], policy["tablename"]
        assert policy["qual"] == policy["with_check"], policy["tablename"]
        assert policy["qual"] and "store_id" in policy["qual"] and "app.store" in policy["qual"]
    assert len({policy["qual"] for policy in policies}) <= 1


async def test_the_application_owns_nothing_and_bypasses_nothing(name: str, superuser: Any) -> None:
    for role in (app_role(name), OWNER):
        row = await superuser.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", role)
        powers = ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolreplication")
        assert not any(row[power] for power in powers), role
    owned = """
        SELECT count(*) FROM pg_shdepend WHERE deptype = 'o'
        AND refclassid = 'pg_authid'::regclass AND refobjid = $1::regrole
    """
    assert await superuser.fetchval(owned, app_role(name)) == 0
    assert (
        await superuser.fetchval(
            "SELECT count(*) FROM pg_auth_members WHERE member = $1::regrole", app_role(name)
        )
        == 0
    )


async def test_the_application_may_read_and_write_rows_and_nothing_else(name: str, superuser: Any) -> None:
    role = app_role(name)
    assert not await superuser.fetchval("SELECT has_schema_privilege($1, 'public', 'CREATE')", role)
    # TRUNCATE asks no policy; REFERENCES and TRIGGER could watch rows of others.
    more = """
        SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace = 'public'::regnamespace
        AND has_table_privilege($1::text, oid, 'TRUNCATE, REFERENCES, TRIGGER, MAINTAIN')
    """
    assert [row["relname"] for row in await superuser.fetch(more, role)] == []
    others = "SELECT datname FROM pg_database WHERE has_database_privilege($1::text, oid, 'CONNECT') AND datallowconn"
    reached = {row["datname"] for row in await superuser.fetch(others, role)}
    assert {one for one in reached if one.startswith("vitrine_")} == {database(name)}


async def test_no_view_or_function_runs_with_its_owners_rights(superuser: Any) -> None:
    views = await superuser.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND (relkind = 'm' OR relkind = 'v'"
        " AND NOT coalesce('security_invoker=true' = ANY(reloptions), false))"
    )
    functions = await superuser.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef"
    )
    assert [*views, *functions] == []


# --- What sessions see -----------------------------------------------------------------------------------


_DUMMIES = {
    "uuid": "gen_random_uuid()",
    "bytea": "uuid_send(gen_random_uuid())",
    "jsonb": "'{}'",
    "timestamptz": "now()",
    "bool": "false",
    "date": "now()",
    "_uuid": "'{}'",
    "_varchar": "'{}'",
}


@pytest.fixture
async def tables(superuser: Any, ours: Furnished, theirs: Furnished) -> AsyncIterator[list[str]]:
    """Every table of stores, in which both stores have a row: made up where none was left by what happened there."""
    tables = await of_stores(superuser)
    empty = [
        (table, store.id)
        for table in tables
        for store in (ours, theirs)
        if not await superuser.fetchval(f"SELECT count(*) FROM {table} WHERE store_id = $1", store.id)
    ]
    await _unchecked(superuser, [(await _made_up(superuser, table), store_id) for table, store_id in empty])
    yield tables
    # No duty could do anything with them.
    await _unchecked(
        superuser, [(f"DELETE FROM {table} WHERE store_id = $1", store_id) for table, store_id in empty]
    )


async def _unchecked(superuser: Any, changes: Sequence[tuple[str, UUID]]) -> None:
    async with superuser.transaction():
        await superuser.execute("SET LOCAL session_replication_role = replica")
        for statement, store_id in changes:
            await superuser.execute(statement, store_id)


async def _made_up(superuser: Any, table: str) -> str:
    columns = await superuser.fetch(
        "SELECT column_name, udt_name FROM information_schema.columns WHERE table_name = $1 AND is_nullable = 'NO'"
        " AND column_default IS NULL AND is_identity = 'NO' AND column_name <> 'store_id'",
        table,
    )
    names = [column["column_name"] for column in columns]
    words = await _words(superuser, table)
    values = [
        words.get(column["column_name"]) or _DUMMIES.get(column["udt_name"], "'1'") for column in columns
    ]
    return f"INSERT INTO {table} ({', '.join(['store_id', *names])}) VALUES ({', '.join(['$1', *values])})"


async def _words(superuser: Any, table: str) -> dict[str, str]:
    """A word for each column that takes only some, as its check says."""
    checks = await superuser.fetch(
        "SELECT pg_get_constraintdef(oid) AS said FROM pg_constraint"
        " WHERE conrelid = $1::regclass AND contype = 'c'",
        table,
    )
    found = [
        re.match(r"CHECK \(\(+(\w+)\)?::text = ANY \(\(?ARRAY\[('[^']+')", one["said"]) for one in checks
    ]
    return {one.group(1): one.group(2) for one in found if one}


async def counts(connection: AsyncConnection, tables: list[str], store: Furnished) -> dict[str, int]:
    """Rows of a store that a connection sees, where it sees any."""
    found: dict[str, int] = {}
    for table in tables:
        seen = await connection.execute(
            text(f"SELECT count(*) FROM {table} WHERE store_id = :store_id"), {"store_id": store.id}
        )
        if number := seen.scalar_one():
            found[table] = number
    return found


async def test_a_session_sees_its_own_store_alone(
    tables: list[str], application: Database, ours: Furnished, theirs: Furnished
) -> None:
    async with application.session(ours.id) as session:
        connection = await session.connection()
        assert await counts(connection, tables, theirs) == {}
        # It would mean nothing if nothing were there to be seen.
        assert list(await counts(connection, tables, ours)) == tables


async def test_a_session_bound_to_nothing_sees_nothing_not_even_after_one_that_was(
    tables: list[str], application: Database, ours: Furnished
) -> None:
    async with application.engine.connect() as connection:
        assert await counts(connection, tables, ours) == {}
        await connection.rollback()
        await _bind(connection, str(ours.id))
        seen = await counts(connection, tables, ours)
        await connection.commit()
        assert list(seen) == tables
        assert await connection.scalar(text("SELECT current_setting('app.store', true)")) == ""
        assert await counts(connection, tables, ours) == {}


async def test_no_row_can_be_moved_to_another_store(
    tables: list[str], application: Database, ours: Furnished, theirs: Furnished
) -> None:
    for table in tables:
        async with application.engine.connect() as connection:
            await _bind(connection, str(ours.id))
            move = text(f"UPDATE {table} SET store_id = :theirs WHERE store_id = :ours")
            with pytest.raises(DBAPIError, match=r"row-level security|only grows|append-only"):
                await connection.execute(move, {"ours": ours.id, "theirs": theirs.id})


async def test_a_store_whose_name_is_no_id_is_an_error_and_never_everything(
    tables: list[str], application: Database, ours: Furnished
) -> None:
    for table in tables:
        for setting in ("**", "%", str(uuid4())[:-1]):
            async with application.engine.connect() as connection:
                await _bind(connection, setting)
                with pytest.raises(DBAPIError, match="invalid input syntax for type uuid"):
                    await counts(connection, [table], ours)


async def _bind(connection: AsyncConnection, store: str) -> None:
    await connection.execute(text("SELECT set_config('app.store', :store, true)"), {"store": store})


# --- Migrations and models -------------------------------------------------------------------------------


def _metadata(name: str) -> list[MetaData]:
    if name == "privacy":
        import_module("services.privacy.evidence.models")
        import_module("services.privacy.recipients.models")
        import_module("services.privacy.opendsr.models")
    if name in SERVICES:
        return [METADATA, import_module(f"services.{name}.models").Base.metadata]
    if name == "keyring":
        return [import_module("services.privacy.keyring.models").KeyringBase.metadata]
    return [import_module("services.privacy.destructions.models").DestructionsBase.metadata]


@pytest.mark.parametrize("name", [*SERVICES, "keyring", "destructions"])
async def test_migrations_make_what_the_models_say(
    name: str, platform_environment: Mapping[str, str]
) -> None:
    owner = Database(platform_environment[f"{name.upper()}_MIGRATION_DATABASE_URL"])

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        metadata: Any = _metadata(name)
        return list(compare_metadata(context, metadata))

    async with owner.engine.connect() as connection:
        found = await connection.run_sync(differences)
    await owner.close()
    assert [one for one in found if "alembic_version" not in str(one)] == []
