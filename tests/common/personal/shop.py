"""A made-up shop, as somebody else might write one: tables, holdings, and a database with row-level security."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID, uuid4

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from joserfc.jwk import ECKey
from pydantic import EmailStr, Field
from sqlalchemy import Connection, MetaData, UniqueConstraint, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from deploy.local.postgres import PostgresServer
from libs.common import db, tables
from libs.common.db import Database, engine_of, impersonal
from libs.common.migrations import _grant, isolate_stores  # pyright: ignore[reportPrivateUsage]
from libs.common.personal.data import PersonalData, PersonalValue, Sealed, SealedColumn
from libs.common.personal.holdings import Attached, Beside, Holding, OnErase, OnRectify, Person, Reference
from libs.common.personal.participant import Participant
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention
from libs.common.settings import ServiceSettings
from services.privacy.keyring.settings import ExtraGrant

SHOP = "test-shop"
RETENTIONS = frozenset({Retention.ORDER, Retention.ACCOUNTING, Retention.EXPORT, Retention.CORRESPONDENCE})
MINTS = RETENTIONS | {Retention.REQUEST}
OPENS = dict.fromkeys(Purpose, RETENTIONS) | {Purpose.RIGHTS_OF_THE_PERSON: RETENTIONS | {Retention.REQUEST}}
GRANTS = {SHOP: ExtraGrant(mint=MINTS, open=OPENS).model_dump()}
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


class CorrectedShopInvoice(
    PersonalData,
    retention=Retention.ACCOUNTING,
    purposes=[Purpose.ACCOUNTING],
    legal_basis=LegalBasis.LEGAL_OBLIGATION,
):
    """What an invoice should say."""

    name: Annotated[str | None, Category.NAME] = None


class Place(PersonalValue):
    """Somewhere a parcel can go."""

    street: Annotated[str, Category.STREET, Field(min_length=1)]
    city: Annotated[str, Category.CITY, Field(min_length=1)]


class ShopProfile(
    PersonalData,
    retention=Retention.ORDER,
    purposes=[Purpose.MARKETING_MAIL],
    legal_basis=LegalBasis.CONSENT,
):
    """What somebody likes to get, and where."""

    handle: Annotated[str, Category.USERNAME, Field(min_length=3)]
    nickname: Annotated[str | None, Category.NAME] = None
    home: Place | None = None
    parcels: Annotated[tuple[Place, ...], Category.ADDRESS] = ()


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


class InvoiceCorrection(ShopBase):
    __tablename__ = "invoice_correction"

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    invoice_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    year: Mapped[str] = mapped_column(info=impersonal("a year"))
    box: Mapped[Sealed[CorrectedShopInvoice]] = mapped_column(SealedColumn(CorrectedShopInvoice))


class Member(ShopBase):
    __tablename__ = "member"
    __table_args__ = (UniqueConstraint("store_id", "handle_index"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    subject_id: Mapped[UUID]
    generation: Mapped[int]
    handle_index: Mapped[bytes | None]
    profile: Mapped[Sealed[ShopProfile] | None] = mapped_column(SealedColumn(ShopProfile))


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


async def parcels_on_their_way(
    session: AsyncSession, store_id: UUID, people: Sequence[Person]
) -> dict[Person, list[str]]:
    """Of everybody with a purchase whose number says so."""
    rows = await session.scalars(select(Purchase).where(Purchase.number == "on-its-way"))
    lives = {(row.subject_id, row.generation) for row in rows if row.store_id == store_id}
    return {person: ["parcel-on-its-way"] for person in people if person in lives}


HOLDINGS: Sequence[Holding] = (
    Holding(
        table=Purchase, box="contact", kind=ShopContact, bucket="id", on_erase=OnErase.CLEAR, clears=("email_index",),
        describe=("number",), attached=[Attached(PurchaseLine, by="purchase_id", describe=("title",))],
        order_number="number", reference=Reference.ORDER, indexes={"email_index": ("email", "email")},
        obligations=parcels_on_their_way,
    ),
    Holding(
        table=Invoice, box="contact", kind=ShopInvoice, on_erase=OnErase.CLEAR, bucket="year", describe=("year",),
        on_rectify=OnRectify.BESIDE, beside=Beside(InvoiceCorrection, by="invoice_id", kind=CorrectedShopInvoice),
    ),
    Holding(
        table=InvoiceCorrection, box="box", kind=CorrectedShopInvoice, on_erase=OnErase.DELETE, bucket="year",
        on_rectify=OnRectify.KEEP,
    ),
    Holding(
        table=Member, box="profile", kind=ShopProfile, bucket="id", on_erase=OnErase.CLEAR, clears=("handle_index",),
        indexes={"handle_index": ("handle", "handle")},
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
        tables.create_restorations()
        tables.create_store_states()
        tables.create_third()
        tables.create_expiry()
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
    engine = engine_of(owners)
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
