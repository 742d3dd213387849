"""The rules of carts and orders: what may happen when, and what it costs.

    placed ──► awaiting_payment ──► paid ──► fulfilled
      ├──► refused      └──► cancelled
      └──► cancelled

An order to be paid on delivery is fulfilled without waiting for its payment. Whether it is paid is a fact of its
own, so money that arrives early, late or after the end is never forgotten.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal
from uuid import UUID

from libs.common.errors import Conflict, Unprocessable
from libs.common.money import MAXIMUM, Money

MAXIMUM_LINES = 100
MAXIMUM_QUANTITY = 999
FIRST_NUMBER = 1001
"""Of the first order of every store."""

# --- Carts -----------------------------------------------------------------------------------------------


class NotForSale(Unprocessable):
    """What is not on sale cannot be ordered. `variant_ids` says which."""

    slug = "not-for-sale"
    title = "This is not for sale"


class CartFull(Unprocessable):
    """The cart holds as many lines as it may."""

    slug = "cart-full"
    title = "The cart is full"
    detail = f"A cart holds at most {MAXIMUM_LINES} different variants."


class TooMuch(Unprocessable):
    """The total is beyond what an amount can be."""

    slug = "too-much"
    title = "The total is too large"


class CartClosed(Conflict):
    """The cart was checked out."""

    slug = "cart-closed"
    title = "This cart was checked out"
    detail = "Begin a new cart."


@dataclass(frozen=True, slots=True)
class Line:
    """One variant in a cart, at its present price in minor units of the cart's currency."""

    variant_id: UUID
    sku: str
    title: str
    quantity: int
    unit_price: int
    for_sale: bool

    @property
    def price(self) -> int:
        """Of all pieces together; nothing for what is no longer sold."""
        return self.unit_price * self.quantity if self.for_sale else 0


def total(lines: Iterable[Line], currency: str) -> Money:
    """What the lines cost together. Raises TooMuch."""
    amount = sum(line.price for line in lines)
    if amount > MAXIMUM:
        raise TooMuch
    return Money(amount=amount, currency=currency)


# --- Checkout --------------------------------------------------------------------------------------------


class CartEmpty(Unprocessable):
    """There is nothing to order."""

    slug = "cart-empty"
    title = "The cart is empty"


class PriceChanged(Conflict):
    """The total is not the one the buyer agreed to."""

    slug = "price-changed"
    title = "A price has changed"
    detail = "Read the cart again and show its new total."


def agree(lines: list[Line], currency: str, expected: Money | None) -> Money:
    """The total to be ordered. Raises CartEmpty, NotForSale, TooMuch, PriceChanged."""
    if not lines:
        raise CartEmpty
    if gone := [str(line.variant_id) for line in lines if not line.for_sale]:
        raise NotForSale(variant_ids=gone)
    agreed = total(lines, currency)
    if expected is not None and expected != agreed:
        raise PriceChanged
    return agreed


# --- Orders ----------------------------------------------------------------------------------------------


class State(StrEnum):
    """How far an order is."""

    PLACED = "placed"
    AWAITING_PAYMENT = "awaiting_payment"
    PAID = "paid"
    FULFILLED = "fulfilled"
    REFUSED = "refused"
    CANCELLED = "cancelled"


OPEN = frozenset({State.PLACED, State.AWAITING_PAYMENT})
"""Can still be cancelled."""
SOLD = frozenset({State.PAID, State.FULFILLED})
"""Counts as a sale, whatever happens to the person's data."""

PaymentMethod = Literal["bank_transfer", "payment_on_delivery"]


class CannotBeCancelled(Conflict):
    """It is paid, fulfilled or refused."""

    slug = "order-cannot-be-cancelled"
    title = "This order can no longer be cancelled"


class CannotBeFulfilled(Conflict):
    """It is not confirmed, not paid, or over."""

    slug = "order-cannot-be-fulfilled"
    title = "This order cannot be fulfilled"
    detail = "An order is fulfilled once it is paid, or confirmed when it is to be paid on delivery."


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an order stands."""

    state: State
    payment_method: PaymentMethod
    paid: bool = False

    @property
    def refund_due(self) -> bool:
        """Whether money came for an order that will not happen."""
        return self.paid and self.state in {State.REFUSED, State.CANCELLED}


def reserve(order: Standing) -> Standing:
    """The stock is set aside. No change unless the order waits for that."""
    if order.state is not State.PLACED:
        return order
    return replace(order, state=State.PAID if order.paid else State.AWAITING_PAYMENT)


def refuse(order: Standing) -> Standing:
    """The stock does not suffice. No change unless the order waits for its answer."""
    return replace(order, state=State.REFUSED) if order.state is State.PLACED else order


def pay(order: Standing) -> Standing:
    """The money is there, at whatever moment; only an order that awaits it moves on."""
    state = State.PAID if order.state is State.AWAITING_PAYMENT else order.state
    return replace(order, state=state, paid=True)


def cancel(order: Standing) -> Standing:
    """Raises CannotBeCancelled; a second time changes nothing."""
    if order.state is State.CANCELLED:
        return order
    if order.state not in OPEN:
        raise CannotBeCancelled
    return replace(order, state=State.CANCELLED)


def is_under_way(order: Standing) -> bool:
    """Whether the goods are to leave: it is paid, or confirmed when it is to be paid on delivery."""
    on_delivery = order.state is State.AWAITING_PAYMENT and order.payment_method == "payment_on_delivery"
    return order.state is State.PAID or on_delivery


def fulfil(order: Standing) -> Standing:
    """The goods leave. Raises CannotBeFulfilled."""
    if not is_under_way(order):
        raise CannotBeFulfilled
    return replace(order, state=State.FULFILLED)


# --- Secrets ---------------------------------------------------------------------------------------------


def new_secret() -> str:
    """256 random bits: whoever holds them holds the cart."""
    return secrets.token_urlsafe(32)


def order_secret(cart_secret: str, order_id: UUID) -> str:
    """What lets a guest see the order: the holder of its cart gets the same one however often they ask."""
    digest = hmac.digest(cart_secret.encode(), f"vitrine/order/1|{order_id}".encode(), hashlib.sha256)
    return urlsafe_b64encode(digest).decode().rstrip("=")


def hashed(secret: str) -> bytes:
    """How a secret is kept; it is too random to need more than one round."""
    return hashlib.sha256(secret.encode()).digest()


def opens(secret: str, secret_hash: bytes | None) -> bool:
    """Whether this is the secret; nothing opens what has none any more."""
    return secret_hash is not None and hmac.compare_digest(hashed(secret), secret_hash)
