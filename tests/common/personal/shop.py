"""A made-up shop, as somebody else might write one: tables, holdings, and a database with row-level security."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID, uuid4

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from joserfc.jwk import ECKey
from pydantic import EmailStr
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from deploy.local.postgres import PostgresServer
from libs.common import db, tables
from libs.common.db import Database, impersonal
from libs.common.migrations import _grant, isolate_stores  # pyright: ignore[reportPrivateUsage]
from libs.common.personal.data import PersonalData, Sealed, SealedColumn
from libs.common.personal.holdings import Attached, Holding, OnErase
from libs.common.personal.participant import Participant
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention
from libs.common.settings import ServiceSettings
from services.privacy.keyring.settings import ExtraGrant

SHOP = "test-shop"
RETENTIONS = frozenset({Retention.ORDER, Retention.ACCOUNTING, Retention.EXPORT, Retention.CORRESPONDENCE})
GRANTS = {SHOP: ExtraGrant(mint=RETENTIONS, open=dict.fromkeys(Purpose, RETENTIONS)).model_dump()}
"""What the keyring allows this shop."""


class ShopContact(
    PersonalData,
    retention=Retention.ORDER,
    purposes=[Purpose.FULFIL_ORDER],
    legal_basis=LegalBasis.CONTRACT,
    recipients=["carrier"],
):
    """Who bought something."""

    name: Annotated[str, Category.NAME]
    email: Annotated[EmailStr, Category.EMAIL]
    password_hash: Annotated[str, Category.PASSWORD] = "never-shown"


class ShopInvoice(
    PersonalData,
    retention=Retention.ACCOUNTING,
    purposes=[Purpose.ACCOUNTING],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
):
    """Who was invoiced."""

    name: Annotated[str, Category.NAME]


class ShopBase(db.Base):
    __abstract__ = True
    metadata = MetaData(naming_convention=db.Base.metadata.naming_convention)


class Purchase(ShopBase):
    __tablename__ = "purchase"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID] = mapped_column(index=True)
    generation: Mapped[int]
    number: Mapped[str] = mapped_column(info=impersonal("a number"))
    email_index: Mapped[bytes | None]
    contact: Mapped[Sealed[ShopContact] | None] = mapped_column(SealedColumn(ShopContact))
    version: Mapped[int] = mapped_column(default=1)


class PurchaseLine(ShopBase):
    __tablename__ = "purchase_line"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    purchase_id: Mapped[UUID]
    title: Mapped[str] = mapped_column(info=impersonal("a product's title"))


class Invoice(ShopBase):
    __tablename__ = "invoice"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    year: Mapped[str] = mapped_column(info=impersonal("a year"))
    contact: Mapped[Sealed[ShopInvoice] | None] = mapped_column(SealedColumn(ShopInvoice))


class Visit(ShopBase):
    __tablename__ = "visit"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]


class VisitPage(ShopBase):
    __tablename__ = "visit_page"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    visit_id: Mapped[UUID]


HOLDINGS: Sequence[Holding] = (
    Holding(
        table=Purchase, box="contact", kind=ShopContact, on_erase=OnErase.CLEAR, clears=("email_index",),
        describe=("number",), attached=[Attached(PurchaseLine, by="purchase_id", describe=("title",))],
    ),
    Holding(
        table=Invoice, box="contact", kind=ShopInvoice, on_erase=OnErase.CLEAR, bucket="year", describe=("year",),
    ),
    Holding(
        table=Visit, on_erase=OnErase.DELETE, attached=[Attached(VisitPage, by="visit_id", delete=True)],
    ),
)  # fmt: skip


def _create(connection: Connection, role: str) -> None:
    connection.execute(text("CREATE TABLE alembic_version (version_num varchar)"))
    with Operations.context(MigrationContext.configure(connection)):
        tables.create_first()
        tables.create_second()
        ShopBase.metadata.create_all(connection)
        isolate_stores(*ShopBase.metadata.tables)
    _grant(connection, role)


@asynccontextmanager
async def shop_database(postgres: PostgresServer) -> AsyncGenerator[tuple[Database, str]]:
    """A database of the shop's own, and the address its owner uses."""
    name = f"shop_{uuid4().hex[:10]}"
    owner, app = f"{name}_owner", f"{name}_app"
    superuser = await postgres.connect()
    for role in (owner, app):
        await superuser.execute(f"CREATE ROLE {role} LOGIN NOBYPASSRLS PASSWORD '{postgres.password(role)}'")
    await superuser.execute(f"CREATE DATABASE {name} OWNER {owner}")
    await superuser.close()
    owners = postgres.url(name, owner)
    engine = create_async_engine(owners.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.begin() as connection:
        await connection.run_sync(_create, app)
    await engine.dispose()
    database = Database(postgres.url(name, app), pool_size=5)
    yield database, owners
    await database.close()


def shop_participant(key: ECKey) -> Participant:
    """The shop's part in privacy requests, signing with `key`."""
    participant = Participant(service=SHOP, holdings=HOLDINGS, settings=ServiceSettings)
    participant.__dict__["key"] = key
    return participant
