"""What orders do to stock, told by events that come twice, late and in any order."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.events.catalog import StockRefused, StockReserved
from libs.common.events.orders import (
    OrderCancelled,
    OrderContact,
    OrderFulfilled,
    OrderLine,
    OrderPlaced,
    OrderRefused,
)
from libs.common.money import Money
from libs.common.personal.data import Sealed
from services.catalog.consumer import HANDLERS
from tests.catalog.conftest import Shop

PRICE = Money(amount=100, currency="EUR")


def an_order(lines: Mapping[UUID, int], order_id: UUID | None = None, *, twice: bool = False) -> OrderPlaced:
    """An order; `twice` splits it so that a variant stands in two lines. Its box is none that anybody could open."""
    items = [item for item in lines.items() for _ in range(2 if twice else 1)]
    return OrderPlaced(
        order_id=order_id or uuid4(),
        number="1001",
        lines=[OrderLine(variant_id=v, sku="", title="", quantity=n, unit_price=PRICE) for v, n in items],
        total=PRICE,
        payment_method="bank_transfer",
        contact=Sealed(OrderContact, b"\1" + b"\0" * 63),
        subject_id=uuid4(),
        generation=1,
    )


async def shelf(shop: Shop, *pieces: int, backorder: bool = False) -> list[UUID]:
    """Variants with so many pieces each."""
    variants = [
        {"choice": [str(n)], "price": 100, "on_hand": each, "backorder": backorder}
        for n, each in enumerate(pieces)
    ]
    return [UUID(variant["id"]) for variant in (await shop.add(variants=variants))["variants"]]


async def pieces(shop: Shop, variant: UUID) -> tuple[int, int]:
    stock = await shop.stock_of(str(variant))
    return stock["on_hand"], stock["reserved"]


async def test_an_order_gets_all_of_its_lines_or_none(shop: Shop) -> None:
    one, other = await shelf(shop, 2, 1)
    fits, short = an_order({one: 1, other: 1}), an_order({one: 1, other: 1})
    await shop.hears(fits, short)
    [reserved] = await shop.published(StockReserved)
    [refused] = await shop.published(StockRefused)
    assert reserved.order_id == fits.order_id
    assert (refused.order_id, refused.short_variant_ids) == (short.order_id, [other])
    assert [await pieces(shop, variant) for variant in (one, other)] == [(2, 1), (1, 1)]


async def test_a_batch_decides_in_the_order_of_its_events(shop: Shop) -> None:
    [variant] = await shelf(shop, 3)
    orders = [an_order({variant: n}) for n in (2, 2, 1, 1)]
    await shop.hears(*orders, together=True)
    reserved = [event.order_id for event in await shop.published(StockReserved)]
    assert reserved == [orders[0].order_id, orders[2].order_id]
    assert await pieces(shop, variant) == (3, 3)


async def test_lines_of_one_variant_are_added_up(shop: Shop) -> None:
    [variant] = await shelf(shop, 3)
    await shop.hears(an_order({variant: 2}, twice=True))
    assert len(await shop.published(StockRefused)) == 1
    assert await pieces(shop, variant) == (3, 0)


async def test_the_last_piece_goes_to_one_of_many(shop: Shop) -> None:
    one, other = await shelf(shop, 1, 1)
    orders = [an_order({one: 1, other: 1} if n % 2 else {other: 1, one: 1}) for n in range(8)]
    await asyncio.gather(*(shop.hears(order) for order in orders))
    assert len(await shop.published(StockReserved)) == 1
    assert len(await shop.published(StockRefused)) == 7
    assert [await pieces(shop, variant) for variant in (one, other)] == [(1, 1), (1, 1)]


@pytest.mark.parametrize("over", [OrderCancelled, OrderRefused])
async def test_what_was_reserved_is_free_again_once(shop: Shop, over: type[Any]) -> None:
    [variant] = await shelf(shop, 2)
    order = an_order({variant: 2})
    await shop.hears(order, over(order_id=order.order_id), over(order_id=order.order_id))
    assert await pieces(shop, variant) == (2, 0)
    await shop.hears(order, OrderFulfilled(order_id=order.order_id))
    assert await pieces(shop, variant) == (2, 0)
    assert len(await shop.published(StockReserved)) == 1


async def test_what_is_shipped_leaves_stock_once_and_a_count_made_before_is_stale(shop: Shop) -> None:
    [variant] = await shelf(shop, 5)
    order, shipped = an_order({variant: 2}), OrderFulfilled
    await shop.hears(order)
    assert (await shop.stock_of(str(variant)))["version"] == 1
    await shop.hears(*[shipped(order_id=order.order_id)] * 2)
    assert await pieces(shop, variant) == (3, 0)
    answer = await shop.client.put(
        f"{shop.path}/variants/{variant}/stock",
        json={"on_hand": 5},
        headers=shop.manager | {"If-Match": '"1"'},
    )
    assert answer.status_code == 412


async def test_a_cancellation_that_comes_first_leaves_nothing_to_reserve(shop: Shop) -> None:
    [variant] = await shelf(shop, 2)
    order = an_order({variant: 1})
    await shop.hears(OrderCancelled(order_id=order.order_id), order, order)
    assert await pieces(shop, variant) == (2, 0)
    assert await shop.published(StockReserved) == await shop.published(StockRefused) == []


async def test_a_shipping_that_comes_first_is_made_good_when_the_order_is_known(shop: Shop) -> None:
    [variant] = await shelf(shop, 2)
    order = an_order({variant: 1})
    await shop.hears(OrderFulfilled(order_id=order.order_id), order, order)
    assert await pieces(shop, variant) == (1, 0)


async def test_an_order_placed_twice_is_reserved_once(shop: Shop) -> None:
    [variant] = await shelf(shop, 5)
    order = an_order({variant: 2})
    await shop.hears(order, order)
    await shop.hears(order, order, together=True)
    assert await pieces(shop, variant) == (5, 2)
    assert len(await shop.published(StockReserved)) == 1


async def test_what_is_sold_past_zero_is_reserved_and_shipped_below_it(shop: Shop) -> None:
    [variant] = await shelf(shop, 1, backorder=True)
    order = an_order({variant: 3})
    await shop.hears(order)
    assert await pieces(shop, variant) == (1, 3)
    await shop.hears(OrderFulfilled(order_id=order.order_id))
    assert await pieces(shop, variant) == (-2, 0)


async def test_a_variant_of_another_store_is_short(shop: Shop) -> None:
    [theirs] = await shelf(await Shop(shop.app, shop.client).open(), 5)
    await shop.hears(an_order({theirs: 1}))
    [refused] = await shop.published(StockRefused)
    assert refused.short_variant_ids == [theirs]


async def test_less_than_is_promised_cannot_be_counted(shop: Shop) -> None:
    [variant] = await shelf(shop, 3)
    await shop.hears(an_order({variant: 2}))
    path, headers = f"{shop.path}/variants/{variant}/stock", shop.manager | {"If-Match": '"1"'}
    refused = await shop.client.put(path, json={"on_hand": 1}, headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/stock-below-reserved")
    assert refused.json()["reserved"] == 2
    assert (await shop.client.put(path, json={"on_hand": 2}, headers=headers)).status_code == 200
    assert await pieces(shop, variant) == (2, 2)


def test_every_event_about_an_order_that_matters_has_a_handler() -> None:
    assert {OrderPlaced, OrderCancelled, OrderRefused, OrderFulfilled} <= set(HANDLERS)
