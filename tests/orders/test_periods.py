"""Each order has a key of its own, and what happens to it starts its clock."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common.events.billing import PaymentReceived
from libs.common.events.catalog import StockRefused
from libs.common.events.privacy import KeysExpired, TaskIssued, Verb
from libs.common.money import Money
from libs.common.personal.keys import Expiry, Retirement
from libs.common.personal.vocabulary import Category, Retention
from libs.common.worker import Work
from services.orders.consumer import PARTICIPANT
from tests.orders.conftest import Ordered, Shop, new_email
from tests.tokens import authorization

pytestmark = pytest.mark.usefixtures("signs")


async def pay(shop: Shop, order: Ordered) -> None:
    total = Money.model_validate(order.receipt["total"])
    await shop.hears(PaymentReceived(order_id=order.id, payment_id=uuid4(), amount=total))


async def cancel(shop: Shop, order: Ordered) -> None:
    answer = await shop.client.post(
        f"{shop.path}/orders/{order.id}/cancel", headers=order.headers | {"If-Match": "*"}
    )
    assert answer.status_code == 200, answer.text


async def clocks(shop: Shop, order: Ordered) -> list[tuple[str, int]]:
    """Clock and version of what was started for an order, in order."""
    return [
        (data["clock"], data["version"])
        for name, data in await shop.told()
        if name == "clock-started" and data["bucket"] == str(order.id)
    ]


async def keys_of(shop: Shop, email: str) -> set[tuple[str, str]]:
    subject_id = await shop.vault.subject_id(shop.id, email)
    [keys] = await shop.keyring.client("privacy").status([(shop.id, subject_id)])
    return {(key.retention.value, key.bucket) for key in keys}


async def expire(shop: Shop, order: Ordered) -> None:
    """The keyring destroys the key of the order, and this service hears of it and cleans."""
    subject_id = await shop.vault.subject_id(shop.id, order.email)
    client, today = shop.keyring.client("privacy"), shop.keyring.today()
    place = Expiry(shop.id, subject_id, 1, Retention.ORDER, str(order.id), today)
    [expired] = await client.destroy_expired([place])
    await shop.hears(
        KeysExpired(
            subject_id=subject_id, generation=1, retention=Retention.ORDER, bucket=str(order.id),
            key_ids=list(expired.destroyed),
        )
    )  # fmt: skip
    while await PARTICIPANT.clean(work_of(shop)):
        pass
    shop.vault.drop(shop.id, [subject_id])


def work_of(shop: Shop) -> Work:
    state = shop.app.state
    return Work("orders", state.settings, state.database, None, state.vault, state.http)  # type: ignore[arg-type]


async def test_the_contact_of_each_order_lies_under_a_key_of_its_own(shop: Shop) -> None:
    email = new_email()
    first, second = await shop.order(email=email), await shop.order(email=email)
    assert await keys_of(shop, email) == {
        ("order", str(first.id)), ("order", str(second.id)), ("correspondence", ""),
    }  # fmt: skip


async def test_a_cart_that_is_checked_out_in_vain_makes_one_key_however_often(shop: Shop) -> None:
    email, basket = new_email(), await shop.cart({shop.tea: 1})
    wrong: dict[str, Any] = {"expected_total": {"amount": 1, "currency": "EUR"}}
    for _ in range(3):
        assert (await shop.check_out(basket, email, **wrong)).status_code == 409
    placed = await shop.check_out(basket, email)
    assert placed.status_code == 201
    assert await keys_of(shop, email) == {("order", placed.json()["id"]), ("correspondence", "")}


async def test_every_step_of_an_order_starts_its_clock(shop: Shop) -> None:
    sold = await shop.confirmed()
    await pay(shop, sold)
    assert (await shop.fulfil(sold)).status_code in {200, 201}
    assert await clocks(shop, sold) == [("order-confirmed", 2), ("order-paid", 3), ("order-fulfilled", 4)]
    cancelled = await shop.confirmed()
    await cancel(shop, cancelled)
    assert await clocks(shop, cancelled) == [("order-confirmed", 2), ("order-cancelled", 3)]
    refused = await shop.order()
    await shop.hears(StockRefused(order_id=refused.id, short_variant_ids=[shop.tea]))
    assert await clocks(shop, refused) == [("order-refused", 2)]
    assert await clocks(shop, await shop.order()) == []


async def test_who_is_owed_money_back_is_not_forgotten_after_ten_days(shop: Shop) -> None:
    order = await shop.confirmed()
    await cancel(shop, order)
    await pay(shop, order)
    assert (await clocks(shop, order))[-1] == ("order-paid", 4)


async def test_one_order_expires_and_the_other_is_as_it_was(shop: Shop) -> None:
    email = new_email()
    gone, stays = await shop.confirmed(email=email), await shop.confirmed(email=email)
    await cancel(shop, gone)
    await expire(shop, gone)
    answer = await shop.client.get(f"{shop.path}/orders/{gone.id}", headers=gone.headers)
    assert answer.status_code == 404, "its link showed the contact, and went with it"
    seen = await shop.client.get(f"{shop.path}/orders/{gone.id}", headers=authorization(shop.id))
    assert (seen.json()["contact"], seen.json()["state"]) == (None, "cancelled")
    assert (await shop.see(stays))["contact"]["email"] == email
    assert await shop.scalar(
        "SELECT subject_id IS NULL AND contact IS NULL AND email_index IS NULL FROM orders WHERE id = :id",
        id=gone.id,
    )
    [cleaned] = [data for name, data in await shop.told() if name == "rows-cleaned"]
    assert (cleaned["bucket"], cleaned["counts"]) == (str(gone.id), {"orders": 1})


async def test_an_order_from_before_they_had_keys_of_their_own_still_opens_and_ends_alone(shop: Shop) -> None:
    order = await shop.confirmed()
    subject_id = await shop.vault.subject_id(shop.id, order.email)
    async with shop.keyring.database.platform_session() as session:
        renamed = text(
            "UPDATE data_key SET bucket = '' WHERE subject_id = :subject_id AND retention = 'order'"
        )
        await session.execute(renamed, {"subject_id": subject_id})
    shop.vault.drop(shop.id, [subject_id])
    assert (await shop.see(order))["contact"]["email"] == order.email
    newer = await shop.order(email=order.email)
    await expire(shop, order)
    seen = await shop.client.get(f"{shop.path}/orders/{order.id}", headers=authorization(shop.id))
    assert seen.json()["contact"] is None
    assert (await shop.see(newer))["contact"]["email"] == order.email


async def test_what_is_left_of_a_part_is_sealed_anew_under_its_own_orders_key(shop: Shop) -> None:
    email = new_email()
    orders = [await shop.confirmed(email=email) for _ in range(2)]
    subject_id = await shop.vault.subject_id(shop.id, email)
    client = shop.keyring.client("privacy")
    [retired] = await client.retire([Retirement(shop.id, subject_id, 1, [Retention.ORDER])])
    assert len(retired) == 2
    task = TaskIssued(
        request_id=uuid4(), verb=Verb.ERASE, subject_id=subject_id, generation=1, category=Category.NAME,
        retired=retired,
    )  # fmt: skip
    await shop.hears(task)
    await PARTICIPANT.erase_parts(work_of(shop))
    assert all(await client.destroy_retired(retired))
    shop.vault.drop(shop.id, [subject_id])
    for order in orders:
        assert (await shop.see(order))["contact"]["email"] == email
        key_id = await shop.scalar("SELECT substr(contact, 2, 16) FROM orders WHERE id = :id", id=order.id)
        [keys] = await client.status([(shop.id, subject_id)])
        assert {key.key_id: key.bucket for key in keys}[UUID(bytes=bytes(key_id))] == str(order.id)


async def test_an_erasure_leaves_no_clock_running(shop: Shop) -> None:
    order = await shop.confirmed()
    before = await clocks(shop, order)
    subject_id = await shop.vault.subject_id(shop.id, order.email)
    asked: dict[str, Any] = {"request_id": uuid4(), "subject_id": subject_id, "generation": 1}
    await shop.hears(TaskIssued(verb=Verb.ERASE, **asked))
    assert "order-cancelled" in await shop.told_of(order)
    assert await clocks(shop, order) == before
