"""Events of orders: twice, in any order, in batches."""

from itertools import permutations
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text

from libs.common.events import Event
from libs.common.events.orders import OrderCancelled, OrderConfirmed, OrderPlaced, OrderRefused
from services.billing.models import EarlyOrder, Receivable
from services.billing.service import forget_early_orders
from tests.billing.conftest import Shop


async def row_of(shop: Shop, order: OrderPlaced) -> Receivable:
    async with shop.database.session(shop.id) as session:
        return await session.get_one(Receivable, order.order_id)


async def early_orders(shop: Shop) -> int:
    async with shop.database.session(shop.id) as session:
        return await session.scalar(select(func.count()).select_from(EarlyOrder)) or 0


async def test_an_order_is_expected_then_open(shop: Shop) -> None:
    order = await shop.placed()
    await shop.hears(order)
    assert await shop.state_of(order) == "expected"
    await shop.hears(OrderConfirmed(order_id=order.order_id))
    row = await row_of(shop, order)
    assert (row.state, row.version, row.contact) == ("open", 2, order.contact)


@pytest.mark.parametrize("over", [OrderRefused, OrderCancelled])
async def test_nothing_is_owed_for_an_order_that_is_over(shop: Shop, over: type[Event]) -> None:
    order = await shop.placed()
    await shop.hears(order, over.model_validate({"order_id": order.order_id}))
    row = await row_of(shop, order)
    assert row.state == "void"
    assert row.contact is None, "the contact of an order nobody will be invoiced for is not kept"


async def test_events_handled_twice_change_nothing(shop: Shop) -> None:
    order = await shop.open_order()
    before = await row_of(shop, order)
    await shop.hears(order, OrderConfirmed(order_id=order.order_id))
    after = await row_of(shop, order)
    assert (after.state, after.version) == (before.state, before.version) == ("open", 2)


@pytest.mark.parametrize("order_of_arrival", list(permutations(range(3))))
async def test_events_in_any_order_end_in_the_same_state(
    shop: Shop, order_of_arrival: tuple[int, ...]
) -> None:
    order = await shop.placed()
    events = [order, OrderConfirmed(order_id=order.order_id), OrderCancelled(order_id=order.order_id)]
    await shop.hears(*(events[index] for index in order_of_arrival))
    row = await row_of(shop, order)
    assert (row.state, row.contact) == ("void", None)
    # What is heard again after the order itself is not early any more.
    assert await early_orders(shop) == 0


async def test_a_confirmation_that_came_first_is_remembered(shop: Shop) -> None:
    order = await shop.placed()
    await shop.hears(OrderConfirmed(order_id=order.order_id), order)
    assert await shop.state_of(order) == "open"


async def test_a_batch_is_one_call(shop: Shop) -> None:
    orders = [await shop.placed() for _ in range(3)]
    early, others = orders[0], orders[1:]
    await shop.hears(OrderCancelled(order_id=early.order_id))
    await shop.hears(*orders, together=True)
    confirmed = [OrderConfirmed(order_id=order.order_id) for order in reversed(orders)]
    await shop.hears(*confirmed, together=True)
    assert await shop.state_of(early) == "void"
    assert [await shop.state_of(order) for order in others] == ["open", "open"]


async def test_a_paid_order_stays_paid_when_it_is_cancelled(shop: Shop) -> None:
    order = await shop.open_order()
    assert (await shop.pay(order)).status_code == 201
    await shop.hears(OrderCancelled(order_id=order.order_id))
    assert await shop.state_of(order) == "paid"


async def test_what_was_heard_of_orders_that_never_came_is_forgotten(shop: Shop) -> None:
    old, new = uuid4(), uuid4()
    await shop.hears(OrderConfirmed(order_id=old), OrderConfirmed(order_id=new))
    async with shop.database.session(shop.id) as session:
        await session.execute(
            text("UPDATE early_order SET heard_at = now() - interval '31 days' WHERE order_id = :id"),
            {"id": old},
        )
    await forget_early_orders(shop.database)
    assert await early_orders(shop) == 1
