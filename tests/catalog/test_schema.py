"""The migrations make what the models say, no row of another store is in reach, and nobody is kept here."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError

from libs.common.db import Base as Common
from libs.common.db import Database
from libs.common.events.privacy import Outcome, TaskAnswered, TaskIssued, Verb
from services.catalog.consumer import PARTICIPANT
from services.catalog.models import Base, Product, Reservation
from tests.catalog.conftest import Shop


@pytest.fixture(autouse=True)
def signs(catalog_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The participant reads its key from the environment, as in a worker."""
    for name in ("CATALOG_DATABASE_URL", "CATALOG_SERVICE_KEY"):
        monkeypatch.setenv(name, catalog_environment[name])
    yield
    PARTICIPANT.__dict__.pop("key", None)


async def test_migrations_and_models_agree(catalog_environment: Mapping[str, str]) -> None:
    database = Database(catalog_environment["CATALOG_MIGRATION_DATABASE_URL"])
    async with database.engine.connect() as connection:
        differences = await connection.run_sync(_differences)
    await database.close()
    assert differences == []


def _differences(connection: Connection) -> list[object]:
    ours = {*Base.metadata.tables, *Common.metadata.tables}

    def is_ours(_: object, name: str | None, kind: str, *__: object) -> bool:
        return kind != "table" or name in ours

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
    assert all("store_id" in table.columns for table in Base.metadata.tables.values())


async def test_a_session_sees_and_writes_its_own_store_only(shop: Shop) -> None:
    await shop.add()
    async with shop.database.session(uuid4()) as session:
        assert (await session.scalars(select(Product))).all() == []
    with pytest.raises(DBAPIError, match="row-level security"):
        async with shop.database.session(uuid4()) as session:
            row = {"store_id": shop.id, "order_id": uuid4(), "state": "released"}
            await session.execute(insert(Reservation).values(row))


def test_no_table_names_a_person_or_has_room_for_one() -> None:
    for table in Base.metadata.tables.values():
        assert "subject_id" not in table.columns
        for column in table.columns:
            if column.type.python_type in (str, bytes, list, dict):
                assert "impersonal" in column.info, column


@pytest.mark.parametrize(
    ("verb", "outcome"), [(Verb.ERASE, Outcome.NOTHING_HELD), (Verb.VERIFY_ERASED, Outcome.DONE)]
)
async def test_catalog_answers_that_it_holds_nothing(shop: Shop, verb: Verb, outcome: Outcome) -> None:
    task = TaskIssued(request_id=uuid4(), verb=verb, subject_id=uuid4(), generation=1)
    await shop.hears(task, task)
    answers = await shop.published(TaskAnswered)
    assert {(a.request_id, a.participant, a.verb, a.outcome) for a in answers} == {
        (task.request_id, "catalog", verb, outcome)
    }
