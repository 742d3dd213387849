"""The life of an order after its checkout, and who may see it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import MANAGERS, STAFF, Caller
from libs.common.errors import Forbidden, NotFound
from libs.common.events import Event
from libs.common.events.orders import (
    OrderCancelled,
    OrderConfirmed,
    OrderContact,
    OrderFulfilled,
    OrderRefused,
)
from libs.common.events.privacy import ClockStarted
from libs.common.http import decode_cursor, encode_cursor
from libs.common.outbox import publish_all
from libs.common.personal.holdings import Person
from libs.common.personal.vault import KeyDestroyed, KeyRestricted, Vault
from libs.common.personal.vocabulary import Clock, Purpose, Retention
from services.orders import domain
from services.orders.domain import Standing, State
from services.orders.models import Order, OrderLine

# --- Changes ---------------------------------------------------------------------------------------------

Step = Callable[[Standing], Standing]
"""A rule of domain.py: where an order stands after something happened."""


async def advance(session: AsyncSession, *, store_id: UUID, steps: Sequence[tuple[UUID, Step]]) -> None:
    """Something happened to these orders, in this sequence. What is unknown here is passed over."""
    orders = await _locked(session, store_id, Order.id.in_({order_id for order_id, _ in steps}))
    by_id = {order.id: order for order in orders}
    events = [
        event
        for order_id, step in steps
        if (order := by_id.get(order_id)) is not None
        for event in _take(order, step)
    ]
    await publish_all(session, events, store_id=store_id, source="orders")


async def refuse(
    session: AsyncSession, *, store_id: UUID, order_id: UUID, short_variant_ids: Collection[UUID]
) -> None:
    """The stock does not suffice: say for which lines."""
    for order in await _locked(session, store_id, Order.id == order_id):
        events = _take(order, domain.refuse)
        if order.state is State.REFUSED:
            await session.execute(
                update(OrderLine)
                .where(OrderLine.store_id == store_id, OrderLine.order_id == order_id)
                .where(OrderLine.variant_id.in_(short_variant_ids))
                .values(short=True)
            )
        await publish_all(session, events, store_id=store_id, source="orders")


async def change(session: AsyncSession, order: Order, step: Step) -> None:
    """Take a step with an order that this session has locked. Raises what the rule raises."""
    await publish_all(session, _take(order, step), store_id=order.store_id, source="orders")


async def cancel_open_orders(session: AsyncSession, store_id: UUID, people: Sequence[Person]) -> None:
    """Before people are erased: what they ordered and did not pay will not happen, and its stock is free again."""
    generations = {person.subject_id: person.generation for person in people}
    orders = await _locked(session, store_id, Order.subject_id.in_(generations), Order.state.in_(domain.OPEN))
    events = [
        event
        for order in orders
        if order.subject_id is not None and order.generation <= generations[order.subject_id]
        for event in _take(order, domain.cancel)
        # Nothing is left that a period could be counted for.
        if not isinstance(event, ClockStarted)
    ]
    await publish_all(session, events, store_id=store_id, source="orders")


async def orders_under_way(
    session: AsyncSession, store_id: UUID, people: Sequence[Person]
) -> dict[Person, list[str]]:
    """Whose goods are still to leave: an erasure would take away where they go."""
    generations = {person.subject_id: person.generation for person in people}
    rows = await session.scalars(
        select(Order).where(
            Order.store_id == store_id,
            Order.subject_id.in_(generations),
            Order.state.in_({State.AWAITING_PAYMENT, State.PAID}),
        )
    )
    lives = {(order.subject_id, order.generation) for order in rows if domain.is_under_way(order.standing)}
    return {person: ["order-under-way"] for person in people if person in lives}


async def _locked(session: AsyncSession, store_id: UUID, *which: ColumnElement[bool]) -> Sequence[Order]:
    """In the order of their ids, so that two batches never wait for each other."""
    statement = select(Order).where(Order.store_id == store_id, *which).order_by(Order.id).with_for_update()
    return (await session.scalars(statement)).all()


def _take(order: Order, step: Step) -> list[Event]:
    """Change the row as the rule says, and return what is to be told."""
    before = order.standing
    after = step(before)
    if after == before:
        return []
    now = datetime.now(UTC)
    if after.paid and not before.paid:
        order.paid_at = now
    if after.state is State.FULFILLED:
        order.fulfilled_at = now
    if after.state is State.CANCELLED:
        order.cancelled_at = now
    order.state = after.state
    order.version += 1
    told = _TOLD.get((before.state, after.state))
    events: list[Event] = [told(order_id=order.id, version=order.version)] if told else []
    return [*events, *_clock(order, now)]


_TOLD: Mapping[tuple[State, State], type[OrderConfirmed | OrderRefused | OrderCancelled | OrderFulfilled]] = {
    (State.PLACED, State.AWAITING_PAYMENT): OrderConfirmed,
    (State.PLACED, State.PAID): OrderConfirmed,
    (State.PLACED, State.REFUSED): OrderRefused,
    (State.PLACED, State.CANCELLED): OrderCancelled,
    (State.AWAITING_PAYMENT, State.CANCELLED): OrderCancelled,
    (State.AWAITING_PAYMENT, State.FULFILLED): OrderFulfilled,
    (State.PAID, State.FULFILLED): OrderFulfilled,
}


def _clock(order: Order, now: datetime) -> list[Event]:
    """How long the contact is kept depends on how far its order came. Whoever is owed money must still be found."""
    clock = Clock.ORDER_PAID if order.standing.refund_due else _CLOCKS.get(order.state)
    if clock is None or order.subject_id is None:
        return []
    started = ClockStarted(
        subject_id=order.subject_id,
        generation=order.generation,
        retention=Retention.ORDER,
        bucket=str(order.id),
        clock=clock,
        started_at=now,
        version=order.version,
    )
    return [started]


_CLOCKS: Mapping[State, Clock] = {
    State.AWAITING_PAYMENT: Clock.ORDER_CONFIRMED,
    State.PAID: Clock.ORDER_PAID,
    State.FULFILLED: Clock.ORDER_FULFILLED,
    State.REFUSED: Clock.ORDER_REFUSED,
    State.CANCELLED: Clock.ORDER_CANCELLED,
}


# --- One order -------------------------------------------------------------------------------------------


async def seen_by(
    session: AsyncSession,
    *,
    store_id: UUID,
    order_id: UUID,
    caller: Caller | None,
    secret: str | None,
    lock: bool = False,
) -> Order:
    """The order, for staff, its customer, or the guest who holds its secret. Raises NotFound to all others."""
    statement = select(Order).where(Order.store_id == store_id, Order.id == order_id)
    order = await session.scalar(statement.with_for_update() if lock else statement)
    if order is None or not _may_see(order, caller, secret):
        raise NotFound
    return order


def _may_see(order: Order, caller: Caller | None, secret: str | None) -> bool:
    if secret is not None and domain.opens(secret, order.view_secret_hash):
        return True
    if caller is None:
        return False
    return caller.role in STAFF or (caller.customer, caller.generation) == (
        order.subject_id,
        order.generation,
    )


async def cancelled_by(
    session: AsyncSession, *, store_id: UUID, order_id: UUID, caller: Caller | None, secret: str | None
) -> Order:
    """The order to cancel, locked. Raises NotFound, Forbidden for staff who may only look."""
    order = await seen_by(
        session, store_id=store_id, order_id=order_id, caller=caller, secret=secret, lock=True
    )
    if caller is not None and caller.role in STAFF - MANAGERS and secret is None:
        raise Forbidden
    return order


async def lines_of(session: AsyncSession, *, store_id: UUID, order_id: UUID) -> Sequence[OrderLine]:
    """In the order of the cart."""
    statement = (
        select(OrderLine)
        .where(OrderLine.store_id == store_id, OrderLine.order_id == order_id)
        .order_by(OrderLine.position)
    )
    return (await session.scalars(statement)).all()


async def contact_of(vault: Vault, order: Order) -> tuple[OrderContact | None, bool]:
    """The opened contact, none once it is erased; and whether it is on hold. Raises KeyringUnavailable."""
    if order.contact is None or order.subject_id is None:
        return None, False
    try:
        contact = await vault.open(
            order.contact, store_id=order.store_id, subject_id=order.subject_id, purpose=Purpose.FULFIL_ORDER
        )
    except KeyDestroyed:
        return None, False
    except KeyRestricted:
        return None, True
    return contact, False


# --- Lists and figures -----------------------------------------------------------------------------------


async def newest_first(
    session: AsyncSession,
    *,
    store_id: UUID,
    limit: int,
    cursor: str | None,
    state: State | None = None,
    customer: Caller | None = None,
    email_indexes: Sequence[bytes] | None = None,
) -> tuple[list[Order], str | None]:
    """A part of the store's orders, or of a customer's own, and the cursor of the next. Raises InvalidCursor."""
    statement = select(Order).where(Order.store_id == store_id)
    if customer is not None:
        statement = statement.where(
            Order.subject_id == customer.customer, Order.generation == customer.generation
        )
    if state is not None:
        statement = statement.where(Order.state == state)
    if email_indexes is not None:
        statement = statement.where(Order.email_index.in_(email_indexes))
    if cursor is not None:
        [position] = decode_cursor(cursor, int)
        statement = statement.where(Order.position < position)
    orders = list((await session.scalars(statement.order_by(Order.position.desc()).limit(limit + 1))).all())
    more = len(orders) > limit
    return orders[:limit], encode_cursor(orders[limit - 1].position) if more else None


async def sales(
    session: AsyncSession, *, store_id: UUID, first_day: date, last_day: date
) -> list[tuple[str, int, int, int]]:
    """Currency, orders, pieces and amount of what was paid or fulfilled, by the day (UTC) it was placed."""
    pieces = (
        select(func.sum(OrderLine.quantity))
        .where(OrderLine.store_id == Order.store_id, OrderLine.order_id == Order.id)
        .scalar_subquery()
    )
    rows = await session.execute(
        select(Order.currency, func.count(), func.sum(pieces), func.sum(Order.total_amount))
        .where(Order.store_id == store_id, Order.state.in_(domain.SOLD))
        .where(Order.placed_at >= datetime.combine(first_day, time.min, UTC))
        .where(Order.placed_at <= datetime.combine(last_day, time.max, UTC))
        .group_by(Order.currency)
        .order_by(Order.currency)
    )
    return [(currency, orders, int(pieces), int(amount)) for currency, orders, pieces, amount in rows]
