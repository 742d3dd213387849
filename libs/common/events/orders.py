"""What orders publishes: the life of an order."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, EmailStr, Field

from libs.common.events import Event, PersonalEvent
from libs.common.money import Money
from libs.common.personal.data import PersonalData, Sealed
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention

PaymentMethod = Literal["bank_transfer", "payment_on_delivery"]


class Address(BaseModel):
    """A postal address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line1: Annotated[str, Field(min_length=1, max_length=200)]
    line2: Annotated[str, Field(max_length=200)] = ""
    postcode: Annotated[str, Field(max_length=20)] = ""
    city: Annotated[str, Field(min_length=1, max_length=100)]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2.")]


class OrderContact(
    PersonalData,
    retention=Retention.ORDER,
    purposes=[Purpose.FULFIL_ORDER],
    legal_basis=LegalBasis.CONTRACT,
    recipients=["carrier"],
):
    """Who ordered, and where it goes."""

    name: Annotated[str, Category("user.name"), Field(min_length=1, max_length=200)]
    email: Annotated[EmailStr, Category("user.contact.email")]
    address: Annotated[Address, Category("user.contact.address")]


class OrderLine(BaseModel):
    """One variant in an order, at the price of the moment it was placed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    variant_id: UUID
    sku: str
    title: str
    quantity: Annotated[int, Field(ge=1)]
    unit_price: Money


class OrderPlaced(
    PersonalEvent, type="vitrine.orders.order-placed.v1", topic="orders.orders", key="order_id"
):
    """A customer pressed the button; stock is not reserved yet."""

    order_id: UUID
    number: str
    lines: list[OrderLine]
    total: Money
    payment_method: PaymentMethod
    contact: Sealed[OrderContact]

    @property
    def place(self) -> tuple[str, str]:
        """Retention and bucket of the contact."""
        return Retention.ORDER, str(self.order_id)


class OrderConfirmed(Event, type="vitrine.orders.order-confirmed.v1", topic="orders.orders", key="order_id"):
    """Stock is reserved; the order waits for its payment."""

    order_id: UUID


class OrderRefused(Event, type="vitrine.orders.order-refused.v1", topic="orders.orders", key="order_id"):
    """Stock did not suffice; nothing is owed."""

    order_id: UUID


class OrderCancelled(Event, type="vitrine.orders.order-cancelled.v1", topic="orders.orders", key="order_id"):
    """The order will not happen; what was reserved is free again."""

    order_id: UUID


class OrderFulfilled(Event, type="vitrine.orders.order-fulfilled.v1", topic="orders.orders", key="order_id"):
    """The goods left; what was reserved is gone from stock."""

    order_id: UUID
