"""A cart becomes an order: once, however often the button is pressed."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

from babel.numbers import format_currency, get_currency_precision
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import Caller, Role
from libs.common.events.orders import OrderLine, OrderPlaced
from libs.common.mail import Letter, post
from libs.common.money import Money
from libs.common.outbox import publish
from libs.common.personal.tombstones import guard
from libs.common.personal.vault import Sealer, SubjectErased, Vault
from libs.common.personal.vocabulary import Retention
from services.orders import domain
from services.orders.domain import Line, State
from services.orders.models import Order
from services.orders.schemas import Checkout, Language, PlacedOrder
from services.orders.service import carts


@dataclass(frozen=True, slots=True)
class Buyer:
    """Who orders, and which order, as far as a transaction needs to know: without another question to the keyring."""

    order_id: UUID
    subject_id: UUID
    email_index: bytes
    sealer: Sealer


async def identify(
    vault: Vault, *, store_id: UUID, cart_id: UUID, email: str, caller: Caller | None
) -> Buyer:
    """The customer who is signed in, or the person behind a guest's address.

    The order's id follows from its cart, so that however often this is asked there is one key.
    A guest's checkout may begin a person anew after an erasure; a token from before it may not.
    Raises SubjectErased, KeyringUnavailable.
    """
    signed_in = caller is not None and caller.role is Role.CUSTOMER
    subject_id = caller.customer if caller and signed_in else await vault.subject_id(store_id, email)
    order_id = uuid5(cart_id, "order")
    sealer = await vault.sealer(
        Retention.ORDER,
        Retention.CORRESPONDENCE,
        store_id=store_id,
        subject_id=subject_id,
        buckets={Retention.ORDER: str(order_id)},
        begin=not signed_in,
    )
    if caller and signed_in and caller.generation != sealer.generation:
        raise SubjectErased
    [index, *_] = await email_indexes(vault, store_id=store_id, email=email)
    return Buyer(order_id, subject_id, index, sealer)


async def email_indexes(vault: Vault, *, store_id: UUID, email: str) -> Sequence[bytes]:
    """What orders of an e-mail address are found by; a new one by the first."""
    return await vault.blind_indexes(store_id, "email", email)


async def place(
    session: AsyncSession, *, store_id: UUID, cart_secret: str, wanted: Checkout, buyer: Buyer | None
) -> PlacedOrder:
    """The order of the cart: the one it already became, or a new one, for which the buyer must be known.

    Raises NotFound, CartEmpty, NotForSale, TooMuch, PriceChanged, SubjectErased.
    """
    cart = await carts.held(session, store_id=store_id, cart_id=wanted.cart_id, secret=cart_secret, lock=True)
    if cart.checked_out_order_id is not None:
        return await _placed_before(session, store_id, cart.checked_out_order_id)
    if buyer is None:
        raise ValueError("a cart that is not checked out needs its buyer")
    await guard(session, store_id, buyer.subject_id, buyer.sealer.generation)
    lines = await carts.lines_of(session, store_id=store_id, cart_id=wanted.cart_id)
    total = domain.agree(lines, cart.currency, wanted.expected_total)
    order_id = buyer.order_id
    contact = buyer.sealer.seal(wanted.contact)
    row = await _save(
        session,
        store_id=store_id,
        order_id=order_id,
        subject_id=buyer.subject_id,
        generation=buyer.sealer.generation,
        contact=contact.payload,
        email_index=buyer.email_index,
        view_secret_hash=domain.hashed(domain.order_secret(cart_secret, order_id)),
        total=total,
        payment_method=wanted.payment_method,
        cart_id=wanted.cart_id,
        lines=lines,
    )
    placed = OrderPlaced(
        order_id=order_id,
        version=row.version,
        subject_id=buyer.subject_id,
        generation=buyer.sealer.generation,
        number=row.number,
        lines=[_event_line(line, total.currency) for line in lines],
        total=total,
        payment_method=wanted.payment_method,
        contact=contact,
    )
    await publish(session, placed, store_id=store_id, source="orders")
    language: Language = wanted.language or ("fr" if row.store_language.startswith("fr") else "en")
    post(
        session,
        buyer.sealer.seal(_letter(placed, wanted.contact.email, store=row.store_name, language=language)),
        store_id=store_id,
        subject_id=buyer.subject_id,
        generation=buyer.sealer.generation,
    )
    return PlacedOrder(id=order_id, number=row.number, state=State.PLACED, total=total)


async def _placed_before(session: AsyncSession, store_id: UUID, order_id: UUID) -> PlacedOrder:
    order = await session.get_one(Order, (store_id, order_id))
    total = Money(amount=order.total_amount, currency=order.currency)
    return PlacedOrder(id=order.id, number=order.number, state=order.state, total=total)


# One statement, since the counter's row is what all checkouts of a store wait for.
_SAVE = text(f"""
    WITH counter AS (
        INSERT INTO order_counter AS counter (store_id, last_number) VALUES (:store_id, {domain.FIRST_NUMBER})
        ON CONFLICT (store_id) DO UPDATE SET last_number = counter.last_number + 1
        RETURNING last_number
    ), placed AS (
        INSERT INTO orders (store_id, id, number, subject_id, generation, contact, email_index, view_secret_hash,
                            state, total_amount, currency, payment_method)
        SELECT :store_id, :order_id, counter.last_number::text, :subject_id, :generation, :contact, :email_index,
               :view_secret_hash, '{State.PLACED}', :total_amount, :currency, :payment_method
        FROM counter
        RETURNING number, version
    ), kept AS (
        INSERT INTO order_line (store_id, order_id, position, variant_id, sku, title, quantity, unit_price)
        SELECT :store_id, :order_id, position, variant_id, sku, title, quantity, unit_price
        FROM unnest(CAST(:variant_ids AS uuid[]), CAST(:skus AS text[]), CAST(:titles AS text[]),
                    CAST(:quantities AS smallint[]), CAST(:unit_prices AS bigint[]))
            WITH ORDINALITY AS line (variant_id, sku, title, quantity, unit_price, position)
    ), closed AS (
        UPDATE cart SET checked_out_order_id = :order_id, version = version + 1, updated_at = now()
        WHERE store_id = :store_id AND id = :cart_id
    )
    SELECT placed.number, placed.version, store.name AS store_name, store.language AS store_language
    FROM placed, known_store AS store WHERE store.store_id = :store_id
""")  # noqa: S608 - constants of domain.py


async def _save(session: AsyncSession, *, total: Money, lines: Sequence[Line], **values: Any) -> Row[Any]:
    """Number and version of the order, name and language of the store."""
    saved = await session.execute(
        _SAVE,
        values
        | {
            "total_amount": total.amount,
            "currency": total.currency,
            "variant_ids": [line.variant_id for line in lines],
            "skus": [line.sku for line in lines],
            "titles": [line.title for line in lines],
            "quantities": [line.quantity for line in lines],
            "unit_prices": [line.unit_price for line in lines],
        },
    )
    return saved.one()


def _event_line(line: Line, currency: str) -> OrderLine:
    return OrderLine(
        variant_id=line.variant_id,
        sku=line.sku,
        title=line.title,
        quantity=line.quantity,
        unit_price=Money(amount=line.unit_price, currency=currency),
    )


def _letter(order: OrderPlaced, to: str, *, store: str, language: Language) -> Letter:
    """“We received your order”: what was ordered, what it costs, how to pay."""
    lines = [
        f"{line.quantity} × {line.title}: {_shown(line.unit_price * line.quantity, language)}"
        for line in order.lines
    ]
    return Letter(
        to=to,
        template="order-received",
        language=language,
        values={
            "store": store,
            "number": order.number,
            "lines": "\n".join(lines),
            "total": _shown(order.total, language),
            "payment_method": order.payment_method,
        },
    )


def _shown(money: Money, language: Language) -> str:
    """An amount as people of the language write it."""
    amount = Decimal(money.amount).scaleb(-get_currency_precision(money.currency))
    return format_currency(amount, money.currency, locale=language)
