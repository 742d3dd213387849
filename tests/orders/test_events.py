import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import text

from libs.common.broker import Record
from libs.common.events import Received, envelope_of
from libs.common.events.billing import PaymentReceived
from libs.common.events.catalog import StockRefused, StockReserved
from libs.common.events.identity import StoreOpened
from libs.common.money import Money
from services.orders.consumer import on_product_published, on_stock_reserved
from tests.orders.conftest import Ordered, Shop


def paid(order: Ordered) -> PaymentReceived:
    total = Money.model_validate(order.receipt["total"])
    return PaymentReceived(order_id=order.id, payment_id=uuid4(), amount=total)


# --- Stock and money -------------------------------------------------------------------------------------


async def test_the_usual_order_of_things(shop: Shop) -> None:
    order = await shop.order()
    await shop.hears(StockReserved(order_id=order.id))
    assert (await shop.see(order))["state"] == "awaiting_payment"
    await shop.hears(paid(order))
    seen = await shop.see(order)
    assert seen["state"] == "paid"
    assert seen["paid_at"]
    assert [(name, data["version"]) for name, data in await shop.told(order)] == [
        ("order-placed", 1),
        ("order-confirmed", 2),
    ]
    assert seen["version"] == 3


async def test_twice_is_once(shop: Shop) -> None:
    order = await shop.order()
    for event in (StockReserved(order_id=order.id), paid(order)):
        await shop.hears(event)
        once = await shop.see(order)
        await shop.hears(event)
        assert await shop.see(order) == once
    assert await shop.told_of(order) == ["order-placed", "order-confirmed"]


async def test_money_before_stock(shop: Shop) -> None:
    order = await shop.order()
    await shop.hears(paid(order))
    assert (await shop.see(order))["state"] == "placed"
    await shop.hears(StockReserved(order_id=order.id))
    assert (await shop.see(order))["state"] == "paid"
    assert await shop.told_of(order) == ["order-placed", "order-confirmed"]


async def test_money_for_what_will_not_happen_is_due_back(shop: Shop) -> None:
    early, late = await shop.order(), await shop.order()
    await shop.hears(paid(early))
    for order in (early, late):
        await shop.hears(StockRefused(order_id=order.id, short_variant_ids=[shop.tea]))
    await shop.hears(paid(late))
    for order in (early, late):
        seen = await shop.see(order)
        assert (seen["state"], seen["refund_due"]) == ("refused", True)


async def test_stock_answers_once(shop: Shop) -> None:
    refused, confirmed = await shop.order(), await shop.confirmed()
    await shop.hears(StockRefused(order_id=refused.id, short_variant_ids=[shop.tea]))
    await shop.hears(StockReserved(order_id=refused.id))
    await shop.hears(StockRefused(order_id=confirmed.id, short_variant_ids=[shop.tea]))
    assert (await shop.see(refused))["state"] == "refused"
    assert (await shop.see(confirmed))["state"] == "awaiting_payment"
    assert await shop.told_of(confirmed) == ["order-placed", "order-confirmed"]


async def test_a_batch_is_one_change_each(shop: Shop) -> None:
    orders = [await shop.order() for _ in range(5)]
    events = [StockReserved(order_id=order.id) for order in [*orders, *orders]]
    envelopes = [envelope_of(event, store_id=shop.id, source="catalog") for event in events]
    batch = [
        Received(event, envelope, Record(event.topic, envelope.key, b""))
        for event, envelope in zip(events, envelopes, strict=True)
    ]
    async with shop.database.session(shop.id) as session:
        await on_stock_reserved(session, batch)
    for order in orders:
        assert await shop.told_of(order) == ["order-placed", "order-confirmed"]


async def test_an_order_that_is_not_here_is_passed_over(shop: Shop) -> None:
    await shop.hears(StockReserved(order_id=uuid4()), StockRefused(order_id=uuid4(), short_variant_ids=[]))
    foreign = await Shop(shop.app, shop.client, shop.keyring).open()
    order = await shop.order()
    await foreign.hears(StockReserved(order_id=order.id))
    assert (await shop.see(order))["state"] == "placed"


# --- The catalogue ---------------------------------------------------------------------------------------


async def _offers(shop: Shop) -> dict[str, int]:
    async with shop.database.session(shop.id) as session:
        rows = await session.execute(text("SELECT title, price FROM offer WHERE active"))
        return {row.title: row.price for row in rows}


async def test_the_newest_version_counts(shop: Shop) -> None:
    await shop.hears(shop.product(version=3, tea=700, cup=None))
    await shop.hears(shop.product(version=2, tea=600, cup=600))
    await shop.hears(shop.product(version=3, tea=1, cup=1))
    assert await _offers(shop) == {"Green tea": 700}
    await shop.hears(shop.product(version=4, tea=None, cup=800))
    assert await _offers(shop) == {"Blue cup": 800}


async def test_an_older_version_brings_no_variant_back(shop: Shop) -> None:
    other = Shop(shop.app, shop.client, shop.keyring)
    await other.hears(other.product(version=2, tea=None, cup=None))
    await other.hears(other.product(version=1))
    assert await _offers(other) == {}


async def test_a_batch_of_one_product_leaves_its_newest(shop: Shop) -> None:
    events = [shop.product(version=version, tea=version * 100) for version in (2, 5, 3)]
    envelopes = [envelope_of(event, store_id=shop.id, source="catalog") for event in events]
    async with shop.database.session(shop.id) as session:
        await on_product_published(
            session,
            [
                Received(event, envelope, Record(event.topic, envelope.key, b""))
                for event, envelope in zip(events, envelopes, strict=True)
            ],
        )
    assert (await _offers(shop))["Green tea"] == 500


@pytest.mark.parametrize("status", ["draft", "archived"])
async def test_only_active_products_are_sold(shop: Shop, status: str) -> None:
    await shop.hears(shop.product(version=2).model_copy(update={"status": status}))
    assert await _offers(shop) == {}
    await shop.hears(shop.product(version=3))
    assert len(await _offers(shop)) == 2


async def test_a_variant_may_move_to_another_product(shop: Shop) -> None:
    moved = shop.product(version=1, tea=None, cup=999).model_copy(update={"product_id": uuid4()})
    await shop.hears(moved)
    await shop.hears(shop.product(version=2, cup=None))
    assert await _offers(shop) == {"Green tea": 450, "Blue cup": 999}


async def test_products_and_checkouts_at_once(shop: Shop) -> None:
    async def reprice() -> None:
        for version in range(2, 12):
            await shop.hears(shop.product(version=version, tea=version * 100))

    async def buy() -> None:
        for _ in range(5):
            await shop.order()

    await asyncio.gather(reprice(), buy(), buy())
    assert await shop.scalar("SELECT count(*) FROM orders") == 10


# --- Stores ----------------------------------------------------------------------------------------------


async def test_a_store_is_served_once_it_is_known(shop: Shop) -> None:
    new = Shop(shop.app, shop.client, shop.keyring)
    assert (await new.client.post(f"{new.path}/carts")).status_code == 404
    opened = StoreOpened(
        store_id=new.id, slug=new.id.hex, name="New", country="JP", currency="JPY", version=1
    )
    await new.hears(opened)
    cart = await new.cart()
    view = await new.client.get(f"{new.path}/carts/{cart.id}", headers=cart.headers)
    assert view.json()["total"] == {"amount": 0, "currency": "JPY"}
