"""Requests and responses."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, EmailStr, Field

from libs.common.events.orders import OrderContact
from libs.common.money import Money
from services.orders.domain import MAXIMUM_QUANTITY, PaymentMethod, State

Language = Literal["en", "fr"]


class Body(BaseModel):
    """What a caller sends: an unknown member is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- Carts -----------------------------------------------------------------------------------------------


class NewCart(BaseModel):
    """The only time the secret is shown: it goes into the header `Cart-Secret`."""

    id: UUID
    secret: str


def _is_number(value: object) -> object:
    """In JSON 2.0 is an integer too; `true` and "2" are none."""
    if isinstance(value, bool | str):
        raise ValueError("not a number")
    return value


class LineQuantity(Body):
    """0 takes the line out of the cart."""

    quantity: Annotated[int, Field(ge=0, le=MAXIMUM_QUANTITY), BeforeValidator(_is_number)]


class CartLineView(BaseModel):
    """A line at its present price; `total` leaves out what is no longer for sale."""

    variant_id: UUID
    sku: str
    title: str
    quantity: int
    unit_price: Money
    total: Money
    for_sale: bool


class CartView(BaseModel):
    """A cart with its lines in the order they were added."""

    id: UUID
    lines: list[CartLineView]
    total: Money
    order_id: UUID | None = Field(description="The order, once the cart is checked out.")


# --- Checkout --------------------------------------------------------------------------------------------


class Checkout(Body):
    """What turns a cart into an order."""

    cart_id: UUID
    contact: OrderContact
    payment_method: PaymentMethod
    language: Language | None = Field(None, description="Of the mails; the store's own if left out.")
    expected_total: Money | None = Field(
        None, description="The total the buyer was shown: if a price has changed since, nothing is ordered."
    )


class PlacedOrder(BaseModel):
    """What is said of an order at checkout. Its stock is not reserved yet while it is `placed`."""

    id: UUID
    number: str
    state: State
    total: Money


class OrderReceipt(PlacedOrder):
    """As PlacedOrder, with the secret that shows the order to a guest."""

    view_secret: str = Field(description="Goes into the header `Order-Secret`, never into an address.")


# --- Orders ----------------------------------------------------------------------------------------------


class OrderSummary(PlacedOrder):
    """An order without its person."""

    payment_method: PaymentMethod
    refund_due: bool = Field(description="Money came for an order that will not happen.")
    placed_at: datetime
    paid_at: datetime | None
    fulfilled_at: datetime | None
    cancelled_at: datetime | None
    version: int


class OrderLineView(BaseModel):
    """A line at the price of the moment the order was placed."""

    variant_id: UUID
    sku: str
    title: str
    quantity: int
    unit_price: Money
    total: Money


class Refusal(BaseModel):
    """Why the order was refused: the store has too few of these variants."""

    reason: Literal["out-of-stock"] = "out-of-stock"
    short_variant_ids: list[UUID]


class OrderView(OrderSummary):
    """An order as its guest, its customer or the store's staff see it."""

    lines: list[OrderLineView]
    refusal: Refusal | None
    contact: OrderContact | None = Field(description="Null once the person's data is erased.")
    on_hold: bool = Field(description="The person's data may not be used at present, so it is not shown.")


class Search(Body):
    """An exact e-mail address; it is compared without being read from anywhere."""

    email: EmailStr


class Sales(BaseModel):
    """Paid and fulfilled orders in one currency."""

    orders: int
    pieces: int
    total: Money


class SalesReport(BaseModel):
    """Sales by currency, from the first to the last day (UTC) inclusive. It holds no personal data."""

    first_day: date
    last_day: date
    sales: list[Sales]
