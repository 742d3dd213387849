"""Orders' tables."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Enum,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    SmallInteger,
    String,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import Base as CommonBase
from libs.common.db import impersonal
from libs.common.events.orders import OrderContact
from libs.common.personal.data import Sealed, SealedColumn
from services.orders.domain import MAXIMUM_QUANTITY, PaymentMethod, Standing, State


class Base(CommonBase):
    """This service's own tables."""

    __abstract__ = True
    metadata = MetaData(naming_convention=CommonBase.metadata.naming_convention)


# --- What is on sale, as the catalogue says --------------------------------------------------------------


class OfferedProduct(Base):
    """The version of a product that `offer` shows: an older one is refused."""

    __tablename__ = "offered_product"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    product_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int]


class Offer(Base):
    """A variant and its present price, in minor units."""

    __tablename__ = "offer"
    __table_args__ = (Index("ix_offer_product", "store_id", "product_id"),)

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    variant_id: Mapped[UUID] = mapped_column(primary_key=True)
    product_id: Mapped[UUID]
    sku: Mapped[str] = mapped_column(info=impersonal("a product's code"))
    title: Mapped[str] = mapped_column(info=impersonal("a product's name"))
    price: Mapped[int]
    currency: Mapped[str] = mapped_column(info=impersonal("ISO 4217"))
    active: Mapped[bool]


# --- Carts -----------------------------------------------------------------------------------------------


class Cart(Base):
    """Belongs to whoever holds its secret, and says nothing about them."""

    # No index on updated_at: it changes with every line, and the purge reads the table once an hour.
    __tablename__ = "cart"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    secret_hash: Mapped[bytes] = mapped_column(info=impersonal("hash of a random secret"))
    currency: Mapped[str] = mapped_column(info=impersonal("ISO 4217"))
    checked_out_order_id: Mapped[UUID | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    version: Mapped[int] = mapped_column(server_default="1")


class CartLine(Base):
    """One variant in a cart."""

    __tablename__ = "cart_line"
    __table_args__ = (
        ForeignKeyConstraint(["store_id", "cart_id"], ["cart.store_id", "cart.id"], ondelete="CASCADE"),
        CheckConstraint(f"quantity BETWEEN 1 AND {MAXIMUM_QUANTITY}", name="quantity"),
    )

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    cart_id: Mapped[UUID] = mapped_column(primary_key=True)
    variant_id: Mapped[UUID] = mapped_column(primary_key=True)
    quantity: Mapped[int] = mapped_column(SmallInteger)
    added_at: Mapped[datetime] = mapped_column(server_default=func.now())


# --- Orders ----------------------------------------------------------------------------------------------


class OrderCounter(Base):
    """The last number given to an order of a store."""

    __tablename__ = "order_counter"

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    last_number: Mapped[int]


def _values(states: type[State]) -> list[str]:
    return [state.value for state in states]


_STATE = Enum(State, native_enum=False, length=20, values_callable=_values)


class Order(Base):
    """An order. Who placed it is in the box; once that is gone, a figure remains."""

    __tablename__ = "orders"
    __table_args__ = (
        UniqueConstraint("store_id", "number"),
        Index("ix_orders_position", "store_id", "position"),
        Index("ix_orders_subject", "store_id", "subject_id"),
        Index("ix_orders_email", "store_id", "email_index"),
        Index("ix_orders_placed_at", "store_id", "placed_at"),
    )

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(Identity(always=True))
    """The order of lists."""
    number: Mapped[str] = mapped_column(info=impersonal("a counter of the store"))
    subject_id: Mapped[UUID | None]
    generation: Mapped[int]
    contact: Mapped[Sealed[OrderContact] | None] = mapped_column(SealedColumn(OrderContact))
    email_index: Mapped[bytes | None] = mapped_column(
        info=impersonal("blind index of the e-mail, keyed per store")
    )
    view_secret_hash: Mapped[bytes | None] = mapped_column(info=impersonal("hash of a random secret"))
    state: Mapped[State] = mapped_column(_STATE, info=impersonal("a state of domain.py"))
    total_amount: Mapped[int]
    currency: Mapped[str] = mapped_column(info=impersonal("ISO 4217"))
    payment_method: Mapped[PaymentMethod] = mapped_column(String, info=impersonal("a word of domain.py"))
    placed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    paid_at: Mapped[datetime | None]
    fulfilled_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default="1")

    @property
    def standing(self) -> Standing:
        """What the rules need to know."""
        return Standing(self.state, self.payment_method, self.paid_at is not None)


class OrderLine(Base):
    """One variant of an order, at the price of the moment it was placed."""

    __tablename__ = "order_line"
    __table_args__ = (ForeignKeyConstraint(["store_id", "order_id"], ["orders.store_id", "orders.id"]),)

    store_id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    variant_id: Mapped[UUID]
    sku: Mapped[str] = mapped_column(info=impersonal("a product's code"))
    title: Mapped[str] = mapped_column(info=impersonal("a product's name"))
    quantity: Mapped[int] = mapped_column(SmallInteger)
    unit_price: Mapped[int]
    short: Mapped[bool] = mapped_column(server_default="false")
    """Whether the stock did not suffice for this line."""
