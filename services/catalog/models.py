"""Catalog's tables. None holds personal data: browsing needs no account, and an order is an id here."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    String,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from libs.common import db
from libs.common.db import impersonal
from services.catalog.domain.products import Status
from services.catalog.domain.stock import Stock

_OFFER = impersonal("the merchant's description of goods")
_WORD = impersonal("a fixed word")


class Base(db.Base):
    """Catalog's own tables."""

    __abstract__ = True
    metadata = MetaData(naming_convention=db.Base.metadata.naming_convention)


class Product(Base):
    """What a store offers, in one or more variants."""

    __tablename__ = "product"
    __table_args__ = (
        UniqueConstraint("store_id", "handle"),
        Index("ix_product_newest", "store_id", "status", "sequence"),
        Index("ix_product_price", "store_id", "status", "min_price", "sequence"),
        Index("ix_product_title", "store_id", "status", "title", "sequence"),
        CheckConstraint("status IN ('active', 'draft', 'archived')", "status"),
    )
    # The search document is large and only ever read inside a query.
    __mapper_args__ = {"eager_defaults": False}

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    sequence: Mapped[int] = mapped_column(Identity(always=True))
    """Rises with every new product: the order of "newest"."""
    handle: Mapped[str] = mapped_column(info=_OFFER)
    title: Mapped[str] = mapped_column(info=_OFFER)
    description: Mapped[str] = mapped_column(info=_OFFER, default="")
    vendor: Mapped[str] = mapped_column(info=_OFFER, default="")
    category: Mapped[str] = mapped_column(info=_OFFER, default="")
    product_type: Mapped[str] = mapped_column(info=_OFFER, default="")
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), info=_OFFER, default=list)
    status: Mapped[str] = mapped_column(info=_WORD, default=Status.ACTIVE.value)
    options: Mapped[list[str]] = mapped_column(ARRAY(String), info=_OFFER, default=list)
    images: Mapped[list[dict[str, str]]] = mapped_column(JSONB, info=_OFFER, default=list)
    currency: Mapped[str] = mapped_column(info=impersonal("ISO 4217"))
    min_price: Mapped[int]
    max_price: Mapped[int]
    """The span of the variants' prices, so that a list can be filtered and sorted without them."""
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    search: Mapped[Any] = mapped_column(
        TSVECTOR,
        Computed("product_words(title, vendor, product_type, category, tags, description)", persisted=True),
        info=impersonal("words of the merchant's description of goods"),
        deferred=True,
    )


class Variant(Base):
    """One thing that can be put in a cart, and how many of it there are."""

    __tablename__ = "variant"
    __table_args__ = (
        # Checked at the end of a statement, so that one statement may swap two SKUs.
        UniqueConstraint("store_id", "sku", deferrable=True, initially="IMMEDIATE"),
        UniqueConstraint(
            "product_id", "option1", "option2", "option3",
            name="uq_variant_choice", deferrable=True, initially="IMMEDIATE", postgresql_nulls_not_distinct=True,
        ),
        CheckConstraint("price >= 0 AND compare_at >= 0", "price"),
        CheckConstraint("reserved >= 0", "reserved"),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    product_id: Mapped[UUID] = mapped_column(ForeignKey(Product.id))
    position: Mapped[int]
    sku: Mapped[str | None] = mapped_column(info=_OFFER)
    option1: Mapped[str | None] = mapped_column(info=_OFFER)
    option2: Mapped[str | None] = mapped_column(info=_OFFER)
    option3: Mapped[str | None] = mapped_column(info=_OFFER)
    price: Mapped[int]
    currency: Mapped[str] = mapped_column(info=impersonal("ISO 4217"))
    compare_at: Mapped[int | None]
    grams: Mapped[int] = mapped_column(default=0)
    on_hand: Mapped[int] = mapped_column(default=0)
    reserved: Mapped[int] = mapped_column(default=0)
    backorder: Mapped[bool] = mapped_column(default=False)
    """Sold past zero."""
    version: Mapped[int] = mapped_column(default=1)
    """Rises with what a manager sees and edits; a reservation alone leaves it."""

    @property
    def choice(self) -> tuple[str, ...]:
        """The values of the product's options."""
        return tuple(value for value in (self.option1, self.option2, self.option3) if value is not None)

    @property
    def stock(self) -> Stock:
        """As the rules see it."""
        return Stock(self.on_hand, self.reserved, self.backorder)

    @stock.setter
    def stock(self, stock: Stock) -> None:
        self.on_hand, self.reserved, self.backorder = stock.on_hand, stock.reserved, stock.backorder


class Reservation(Base):
    """What became of the stock an order asked for. It remains, so that late and doubled events find it."""

    __tablename__ = "reservation"
    __table_args__ = (
        CheckConstraint("state IN ('reserved', 'refused', 'released', 'shipped', 'shipped-unseen')", "state"),
    )

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(info=_WORD)
    version: Mapped[int] = mapped_column(default=1)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ReservationLine(Base):
    """How many of one variant are set aside for an order."""

    __tablename__ = "reservation_line"
    __table_args__ = (
        ForeignKeyConstraint(["store_id", "order_id"], [Reservation.store_id, Reservation.order_id]),
        CheckConstraint("quantity > 0", "quantity"),
    )

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    variant_id: Mapped[UUID] = mapped_column(primary_key=True)
    quantity: Mapped[int]


class ImportRun(Base):
    """A file that was imported or refused. Neither the file nor its name is kept."""

    __tablename__ = "import_run"
    __table_args__ = (
        Index("ix_import_run_store_id", "store_id", "created_at"),
        CheckConstraint("state IN ('imported', 'refused')", "state"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    store_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(info=_WORD)
    products: Mapped[int] = mapped_column(default=0)
    variants: Mapped[int] = mapped_column(default=0)
    created: Mapped[int] = mapped_column(default=0)
    updated: Mapped[int] = mapped_column(default=0)
    errors: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, info=impersonal("lines, columns and fixed words; no values of the file"), default=list
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
