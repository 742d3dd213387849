"""No service keeps anything about a person outside a box: its declarations and its real tables are compared."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import MetaData, Table
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import String

from libs.common import db
from libs.common.db import impersonal
from libs.common.personal.data import PersonalData, Sealed, SealedColumn
from libs.common.personal.datamap import data_map, undeclared
from libs.common.personal.erasure import MACHINERY
from libs.common.personal.holdings import COPIES, Holding, OnErase
from libs.common.personal.participant import COMMON
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention
from libs.common.tables import METADATA

SERVICES = ("catalog", "orders", "identity", "billing", "privacy")
# What PostgreSQL calls the types in which nobody can write a name.
HARMLESS = {"uuid", "int2", "int4", "int8", "numeric", "bool", "date", "timestamptz"}
_COLUMNS = """
    SELECT c.table_name, c.column_name, c.udt_name FROM information_schema.columns AS c
    JOIN information_schema.tables AS t USING (table_schema, table_name)
    WHERE table_schema = 'public' AND table_name <> 'alembic_version'
"""


def tables_of(service: str) -> list[Table]:
    import_module(f"services.{service}.app")  # with every module that has tables
    base: type[DeclarativeBase] = import_module(f"services.{service}.models").Base
    return [*METADATA.tables.values(), *base.metadata.tables.values()]


def holdings_of(service: str) -> Sequence[Holding]:
    return (*import_module(f"services.{service}.personal").HOLDINGS, *COMMON)


@pytest.mark.parametrize("service", SERVICES)
def test_every_column_is_sealed_or_emptied_or_declared_impersonal(service: str) -> None:
    assert undeclared(tables_of(service), holdings_of(service)) == []


@pytest.mark.parametrize("service", SERVICES)
async def test_the_database_has_no_column_that_the_declarations_do_not_know(
    service: str, platform_environment: Mapping[str, str]
) -> None:
    known = {(table.name, column.name) for table in tables_of(service) for column in table.columns}
    connection: Any = await asyncpg.connect(platform_environment[f"{service.upper()}_MIGRATION_DATABASE_URL"])
    try:
        rows = await connection.fetch(_COLUMNS)
    finally:
        await connection.close()
    found = {
        (row["table_name"], row["column_name"])
        for row in rows
        if row["udt_name"] not in HARMLESS or row["column_name"] == "subject_id"
    }
    assert found and found - known == set()


@pytest.mark.parametrize("service", SERVICES)
def test_every_table_about_people_has_a_holding(service: str) -> None:
    declared = {holding.name for holding in holdings_of(service)}
    about_people = {table.name for table in tables_of(service) if "subject_id" in table.columns}
    assert about_people - declared <= MACHINERY


@pytest.mark.parametrize("service", SERVICES)
def test_the_map_of_a_service_says_all_it_must(service: str) -> None:
    for entry in data_map(service, holdings_of(service), COPIES):
        assert entry["service"] == service
        if "kind" in entry:
            assert entry["purposes"] and entry["legal_basis"] and entry["description"]
            assert all(entry["categories"].values())
            assert entry["retention"]["period"] and entry["retention"]["law"]
        else:
            assert "copy" in entry or entry["column"] is None


# --- The check itself ------------------------------------------------------------------------------------


class Diary(
    PersonalData,
    retention=Retention.ACCOUNT,
    purposes=[Purpose.PROVIDE_ACCOUNT],
    legal_basis=LegalBasis.CONTRACT,
):
    """What somebody writes for themselves."""

    entry: Annotated[str, Category.PRIVATE_CONTENT]


class Base(db.Base):
    __abstract__ = True
    metadata = MetaData()


class Page(Base):
    __tablename__ = "page"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    box: Mapped[Sealed[Diary] | None] = mapped_column(SealedColumn(Diary))
    index: Mapped[bytes | None]
    colour: Mapped[str] = mapped_column(info=impersonal("one of a few colours"))
    nickname: Mapped[str]
    remarks: Mapped[list[str]] = mapped_column(ARRAY(String))
    extra: Mapped[dict[str, str]] = mapped_column(JSONB)
    photo: Mapped[bytes]
    words: Mapped[str] = mapped_column(TSVECTOR)
    forgotten: Mapped[Sealed[Diary] | None] = mapped_column(SealedColumn(Diary))


def _undeclared(*holdings: Holding) -> Iterable[str]:
    return undeclared([Page.__table__], holdings)  # type: ignore[list-item]


def test_text_outside_a_box_is_found_whatever_its_type() -> None:
    holding = Holding(table=Page, box="box", kind=Diary, on_erase=OnErase.CLEAR, clears=("index",))
    assert _undeclared(holding) == [
        "page.extra", "page.forgotten", "page.nickname", "page.photo", "page.remarks", "page.words",
    ]  # fmt: skip


def test_a_box_or_an_index_that_no_holding_empties_is_found() -> None:
    assert {"page.box", "page.index"} <= set(_undeclared())
