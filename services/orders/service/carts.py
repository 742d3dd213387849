"""Carts: two statements to add a line, since this is what visitors do most."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import NotFound
from libs.common.money import Money
from services.orders import domain
from services.orders.models import Cart
from services.orders.schemas import CartLineView, CartView, NewCart

IDLE = timedelta(days=30)
"""A cart that nobody touched for so long is deleted."""
_BATCH = 1000

_BEGIN = text("""
    INSERT INTO cart (store_id, id, secret_hash, currency)
    SELECT store_id, :id, :secret_hash, currency FROM known_store WHERE store_id = :store_id
    RETURNING id
""")


async def begin(session: AsyncSession, *, store_id: UUID) -> NewCart:
    """A new cart in the store's currency. Raises NotFound for an unknown store."""
    cart = NewCart(id=uuid4(), secret=domain.new_secret())
    values = {"store_id": store_id, "id": cart.id, "secret_hash": domain.hashed(cart.secret)}
    if await session.scalar(_BEGIN, values) is None:
        raise NotFound
    return cart


# The update locks the cart, so that what is read after it is what the cart holds.
_HELD = """
    WITH held AS (
        UPDATE cart SET version = version + 1, updated_at = now()
        WHERE store_id = :store_id AND id = :cart_id AND secret_hash = :secret_hash
        RETURNING currency, checked_out_order_id, version
    )
"""
_PUT = text(f"""{_HELD}, put AS (
        INSERT INTO cart_line (store_id, cart_id, variant_id, quantity)
        SELECT offer.store_id, :cart_id, offer.variant_id, :quantity FROM offer, held
        WHERE offer.store_id = :store_id AND offer.variant_id = :variant_id
          AND offer.active AND offer.currency = held.currency
        ON CONFLICT (store_id, cart_id, variant_id) DO UPDATE SET quantity = excluded.quantity
        RETURNING variant_id
    )
    SELECT held.*, EXISTS (SELECT FROM put) AS done FROM held
""")  # noqa: S608 - constants of this module
_TAKE_OUT = text(f"""{_HELD}, gone AS (
        DELETE FROM cart_line USING held
        WHERE store_id = :store_id AND cart_id = :cart_id AND variant_id = :variant_id
    )
    SELECT held.*, true AS done FROM held
""")  # noqa: S608


async def put_line(
    session: AsyncSession, *, store_id: UUID, cart_id: UUID, secret: str, variant_id: UUID, quantity: int
) -> tuple[CartView, int]:
    """The cart with so many of the variant, and its version; with none the line is gone.

    Raises NotFound, CartClosed, NotForSale, CartFull, TooMuch.
    """
    values = {
        "store_id": store_id,
        "cart_id": cart_id,
        "secret_hash": domain.hashed(secret),
        "variant_id": variant_id,
    }
    written = await session.execute(
        *((_PUT, values | {"quantity": quantity}) if quantity else (_TAKE_OUT, values))
    )
    cart = written.one_or_none()
    if cart is None:
        raise NotFound
    if cart.checked_out_order_id is not None:
        raise domain.CartClosed
    if not cart.done:
        raise domain.NotForSale
    lines = await lines_of(session, store_id=store_id, cart_id=cart_id)
    if len(lines) > domain.MAXIMUM_LINES:
        raise domain.CartFull
    return _view(cart_id, cart, lines), cart.version


async def read(session: AsyncSession, *, store_id: UUID, cart_id: UUID, secret: str) -> tuple[CartView, int]:
    """The cart and its version. Raises NotFound."""
    cart = await held(session, store_id=store_id, cart_id=cart_id, secret=secret)
    return _view(cart_id, cart, await lines_of(session, store_id=store_id, cart_id=cart_id)), cart.version


async def is_open(database: Database, *, store_id: UUID, cart_id: UUID, secret: str) -> bool:
    """Whether the cart of whoever holds its secret can still be checked out. Raises NotFound."""
    query = "SELECT checked_out_order_id IS NULL FROM cart WHERE store_id = $1::uuid AND id = $2 AND secret_hash = $3"
    found: bool | None = await database.read(store_id, query, cart_id, domain.hashed(secret))
    if found is None:
        raise NotFound
    return found


async def held(
    session: AsyncSession, *, store_id: UUID, cart_id: UUID, secret: str, lock: bool = False
) -> Cart:
    """The cart of whoever holds its secret. Raises NotFound."""
    statement = select(Cart).where(
        Cart.store_id == store_id, Cart.id == cart_id, Cart.secret_hash == domain.hashed(secret)
    )
    cart = await session.scalar(statement.with_for_update() if lock else statement)
    if cart is None:
        raise NotFound
    return cart


_LINES = text("""
    SELECT line.variant_id, offer.sku, offer.title, line.quantity, offer.price,
           offer.active AND offer.currency = cart.currency
    FROM cart
    JOIN cart_line AS line ON line.store_id = cart.store_id AND line.cart_id = cart.id
    JOIN offer ON offer.store_id = line.store_id AND offer.variant_id = line.variant_id
    WHERE cart.store_id = :store_id AND cart.id = :cart_id
    ORDER BY line.added_at, line.variant_id
""")


async def lines_of(session: AsyncSession, *, store_id: UUID, cart_id: UUID) -> list[domain.Line]:
    """The lines at their present prices, in the order they were added."""
    rows = await session.execute(_LINES, {"store_id": store_id, "cart_id": cart_id})
    return [domain.Line(*row) for row in rows]


def _view(cart_id: UUID, cart: Any, lines: Sequence[domain.Line]) -> CartView:
    def money(amount: int) -> Money:
        return Money(amount=amount, currency=cart.currency)

    total = domain.total(lines, cart.currency)
    return CartView(
        id=cart_id,
        lines=[
            CartLineView(
                variant_id=line.variant_id,
                sku=line.sku,
                title=line.title,
                quantity=line.quantity,
                unit_price=money(line.unit_price),
                total=money(line.price),
                for_sale=line.for_sale,
            )
            for line in lines
        ],
        total=total,
        order_id=cart.checked_out_order_id,
    )


async def purge(session: AsyncSession) -> int:
    """Delete some of the carts that nobody touched for IDLE. Returns how many."""
    deleted: Any = await session.execute(
        text("""
            DELETE FROM cart WHERE (store_id, id) IN (
                SELECT store_id, id FROM cart
                WHERE updated_at < now() - make_interval(secs => :idle) LIMIT :batch
            )
        """),
        {"idle": IDLE.total_seconds(), "batch": _BATCH},
    )
    return int(deleted.rowcount)
