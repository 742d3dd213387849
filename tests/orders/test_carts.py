import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.events.catalog import OfferedVariant
from libs.common.money import MAXIMUM, Money
from services.orders.service import carts
from tests.orders.conftest import Basket, Shop, new_email
from tests.tokens import authorization


async def test_a_cart_without_an_account(shop: Shop) -> None:
    cart = await shop.cart({shop.tea: 2, shop.cup: 1})
    answer = await shop.client.get(f"{shop.path}/carts/{cart.id}", headers=cart.headers)
    assert answer.status_code == 200
    view = answer.json()
    assert [(line["variant_id"], line["quantity"]) for line in view["lines"]] == [
        (str(shop.tea), 2),
        (str(shop.cup), 1),
    ]
    assert view["lines"][0]["total"] == {"amount": 900, "currency": "EUR"}
    assert view["total"] == {"amount": 2100, "currency": "EUR"}
    assert view["order_id"] is None
    assert answer.headers["ETag"] == '"3"'


async def test_a_line_is_replaced_and_taken_out(shop: Shop) -> None:
    cart = await shop.cart({shop.tea: 2})
    assert (await shop.put(cart, shop.tea, 5)).json()["lines"][0]["quantity"] == 5
    emptied = await shop.put(cart, shop.tea, 0)
    assert emptied.status_code == 200
    assert emptied.json()["lines"] == []
    assert (await shop.put(cart, shop.tea, 0)).status_code == 200


async def test_only_what_is_for_sale_goes_in(shop: Shop) -> None:
    cart = await shop.cart()
    unknown = await shop.put(cart, uuid4(), 1)
    assert unknown.status_code == 422
    assert unknown.json()["type"] == "/problems/not-for-sale"
    await shop.hears(shop.product(version=2, cup=None))
    assert (await shop.put(cart, shop.cup, 1)).status_code == 422
    assert (await shop.put(cart, shop.tea, 1)).status_code == 200


async def test_an_offer_in_another_currency_does_not_go_in(shop: Shop) -> None:
    cart = await shop.cart()
    product = shop.product(version=2)
    foreign = [
        OfferedVariant(variant_id=shop.tea, sku="t", title="Tea", price=Money(amount=1, currency="JPY"))
    ]
    await shop.hears(product.model_copy(update={"variants": foreign}))
    assert (await shop.put(cart, shop.tea, 1)).status_code == 422


async def test_what_leaves_the_shop_stays_in_the_cart_and_costs_nothing(shop: Shop) -> None:
    cart = await shop.cart({shop.tea: 1, shop.cup: 1})
    await shop.hears(shop.product(version=2, tea=500, cup=None))
    view = (await shop.client.get(f"{shop.path}/carts/{cart.id}", headers=cart.headers)).json()
    assert [line["for_sale"] for line in view["lines"]] == [True, False]
    assert view["total"]["amount"] == 500
    assert (await shop.put(cart, shop.cup, 0)).json()["total"]["amount"] == 500


@pytest.mark.parametrize("quantity", [-1, 1000, 1.5, "many", None, True])
async def test_a_quantity_is_a_number_up_to_999(shop: Shop, quantity: Any) -> None:
    cart = await shop.cart()
    answer = await shop.put(cart, shop.tea, quantity)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_cart_holds_a_hundred_lines(shop: Shop) -> None:
    variants = [uuid4() for _ in range(101)]
    product = shop.product(version=2)
    offered = [
        OfferedVariant(variant_id=id_, sku="", title="t", price=Money(amount=1, currency="EUR"))
        for id_ in variants
    ]
    await shop.hears(product.model_copy(update={"variants": offered}))
    cart = await shop.cart()
    async with shop.database.session(shop.id) as session:
        await session.execute(
            text("INSERT INTO cart_line SELECT :store, :cart, unnest(CAST(:ids AS uuid[])), 1"),
            {"store": shop.id, "cart": UUID(cart.id), "ids": variants[:99]},
        )
    answers = await asyncio.gather(*(shop.put(cart, variant, 1) for variant in variants[99:]))
    assert sorted(answer.status_code for answer in answers) == [200, 422]
    full = next(answer for answer in answers if answer.status_code == 422)
    assert full.json()["type"] == "/problems/cart-full"
    assert await shop.scalar("SELECT count(*) FROM cart_line WHERE cart_id = :id", id=UUID(cart.id)) == 100
    assert (await shop.put(cart, variants[0], 9)).status_code == 200


async def test_a_total_has_an_end(shop: Shop) -> None:
    await shop.hears(shop.product(version=2, tea=MAXIMUM))
    cart = await shop.cart({shop.tea: 1})
    assert (await shop.put(cart, shop.tea, 2)).json()["type"] == "/problems/too-much"


async def test_concurrent_changes_of_one_cart_all_count(shop: Shop) -> None:
    cart = await shop.cart()
    puts = [
        shop.put(cart, variant, quantity) for quantity in range(1, 11) for variant in (shop.tea, shop.cup)
    ]
    answers = await asyncio.gather(*puts)
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.headers["ETag"] for answer in answers) == sorted(f'"{n}"' for n in range(2, 22))
    view = (await shop.client.get(f"{shop.path}/carts/{cart.id}", headers=cart.headers)).json()
    assert len(view["lines"]) == 2


# --- Who may -----------------------------------------------------------------------------------------------


async def test_an_unknown_store_has_no_carts(shop: Shop) -> None:
    answer = await shop.client.post(f"/orders/v1/stores/{uuid4()}/carts")
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/not-found"


async def test_a_cart_is_there_for_its_secret_only(shop: Shop) -> None:
    cart, other = await shop.cart({shop.tea: 1}), await shop.cart()
    foreign = await Shop(shop.app, shop.client, shop.keyring).open()
    wrong = Basket(cart.id, other.secret)
    unknown = Basket(str(uuid4()), cart.secret)
    refused = [
        await shop.put(wrong, shop.tea, 2),
        await shop.put(wrong, shop.tea, 0),
        await shop.put(unknown, shop.tea, 2),
        await foreign.put(cart, foreign.tea, 2),
        await shop.client.get(f"{shop.path}/carts/{cart.id}", headers=other.headers),
        await foreign.client.get(f"{foreign.path}/carts/{cart.id}", headers=cart.headers),
        await shop.check_out(wrong, new_email()),
        await foreign.check_out(cart, new_email()),
    ]
    assert {answer.status_code for answer in refused} == {404}
    assert len({answer.content for answer in refused}) == 1
    kept = await shop.client.get(f"{shop.path}/carts/{cart.id}", headers=cart.headers)
    assert kept.json()["lines"][0]["quantity"] == 1


async def test_a_cart_without_its_secret_is_asked_for_it(shop: Shop) -> None:
    cart = await shop.cart()
    line = f"{shop.path}/carts/{cart.id}/lines/{shop.tea}"
    for answer in (
        await shop.client.get(f"{shop.path}/carts/{cart.id}"),
        await shop.client.put(line, json={"quantity": 1}),
        await shop.client.put(line, json={"quantity": 1}, headers=authorization(shop.id, Role.OWNER)),
    ):
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["at"] == "header/Cart-Secret"


async def test_a_secret_is_kept_as_a_hash(shop: Shop) -> None:
    cart = await shop.cart()
    assert await shop.scalar(
        "SELECT secret_hash <> convert_to(:secret, 'UTF8') FROM cart WHERE id = :id",
        secret=cart.secret,
        id=UUID(cart.id),
    )


# --- Time --------------------------------------------------------------------------------------------------


async def test_a_cart_is_forgotten_after_thirty_idle_days(shop: Shop) -> None:
    idle, used = await shop.cart({shop.tea: 1}), await shop.cart({shop.tea: 1})
    await shop.scalar(
        "UPDATE cart SET updated_at = now() - interval '30 days 1 minute' WHERE id = :id RETURNING 1",
        id=UUID(idle.id),
    )
    await shop.scalar(
        "UPDATE cart SET updated_at = now() - interval '29 days' WHERE id = :id RETURNING 1", id=UUID(used.id)
    )
    async with shop.database.session(shop.id) as session:
        assert await carts.purge(session) == 1
    gone = await shop.client.get(f"{shop.path}/carts/{idle.id}", headers=idle.headers)
    there = await shop.client.get(f"{shop.path}/carts/{used.id}", headers=used.headers)
    assert (gone.status_code, there.status_code) == (404, 200)
