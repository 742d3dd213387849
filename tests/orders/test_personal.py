"""What the rights of a person mean for orders."""

from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.auth import Role
from libs.common.events.billing import PaymentReceived
from libs.common.events.privacy import ExportedRecords, KeysDestroyed, Outcome, TaskIssued, Verb
from libs.common.money import Money
from libs.common.personal.data import Sealed
from libs.common.personal.keys import Erasure
from libs.common.personal.vocabulary import Purpose
from libs.common.worker import Work
from services.orders.consumer import PARTICIPANT
from tests.orders.conftest import Ordered, Shop, new_email
from tests.tokens import authorization

pytestmark = pytest.mark.usefixtures("signs")


async def erase(shop: Shop, email: str) -> list[dict[str, Any]]:
    """The keys destroyed, then the tasks of the privacy service; returns this service's answers."""
    subject_id = await shop.vault.subject_id(shop.id, email)
    request_id = uuid4()
    client = shop.keyring.client("privacy")
    await client.destroy([Erasure(shop.id, subject_id, 1, request_id)])
    await shop.hears(
        KeysDestroyed(subject_id=subject_id, generation=1),
        TaskIssued(request_id=request_id, verb=Verb.ERASE, subject_id=subject_id, generation=1),
        TaskIssued(request_id=request_id, verb=Verb.VERIFY_ERASED, subject_id=subject_id, generation=1),
    )
    shop.vault.drop(shop.id, [subject_id])
    return [data for name, data in await shop.told() if name == "task-answered"]


async def pay(shop: Shop, order: Ordered) -> None:
    total = Money.model_validate(order.receipt["total"])
    await shop.hears(PaymentReceived(order_id=order.id, payment_id=uuid4(), amount=total))


async def test_an_erasure_leaves_a_figure(shop: Shop) -> None:
    order, other = await shop.confirmed(lines={shop.tea: 2}), await shop.confirmed()
    for one in (order, other):
        await pay(shop, one)
    before = await _sales(shop)
    answers = await erase(shop, order.email)
    assert [answer["outcome"] for answer in answers] == [Outcome.DONE, Outcome.DONE]
    assert answers[0]["counts"]["orders"] == 1
    assert await shop.scalar(
        """SELECT subject_id IS NULL AND contact IS NULL AND email_index IS NULL AND view_secret_hash IS NULL
                  AND state = 'paid' AND total_amount = 900
           FROM orders WHERE id = :id""",
        id=order.id,
    )
    assert await _sales(shop) == before
    assert (await shop.see(other))["contact"]["email"] == other.email


async def test_what_was_not_paid_will_not_happen(shop: Shop) -> None:
    email = new_email()
    placed, confirmed = await shop.order(email=email), await shop.confirmed(email=email)
    paid, other = await shop.confirmed(email=email), await shop.order()
    await pay(shop, paid)
    await erase(shop, email)
    assert (await shop.told_of(placed))[-1] == "order-cancelled"
    assert (await shop.told_of(confirmed))[-1] == "order-cancelled"
    assert "order-cancelled" not in await shop.told_of(paid)
    assert await shop.told_of(other) == ["order-placed"]


async def test_who_sees_an_erased_order(shop: Shop) -> None:
    order = await shop.order()
    customer = await shop.customer(order.email)
    await erase(shop, order.email)
    path = f"{shop.path}/orders/{order.id}"
    for headers in (order.headers, customer):
        assert (await shop.client.get(path, headers=headers)).status_code == 404
    staff = await shop.client.get(path, headers=authorization(shop.id, Role.SUPPORT))
    assert staff.status_code == 200
    assert staff.json()["contact"] is None
    assert staff.json()["on_hold"] is False
    assert staff.json()["total"] == order.receipt["total"]
    assert (await shop.client.get(f"{shop.path}/orders", headers=customer)).json()["items"] == []


async def test_a_destroyed_key_is_seen_at_once(shop: Shop) -> None:
    """Between the keys' destruction and the clean-up the row is still whole, and nobody can read it."""
    order = await shop.order()
    first = await shop.client.get(f"{shop.path}/orders/{order.id}", headers=order.headers)
    subject_id = await shop.vault.subject_id(shop.id, order.email)
    client = shop.keyring.client("privacy")
    await client.destroy([Erasure(shop.id, subject_id, 1, uuid4())])
    shop.vault.drop(shop.id, [subject_id])
    unchanged = {"If-None-Match": first.headers["ETag"]}
    seen = await shop.client.get(f"{shop.path}/orders/{order.id}", headers=order.headers | unchanged)
    assert seen.status_code == 200
    assert seen.json()["contact"] is None


async def test_an_erased_order_can_still_be_settled(shop: Shop) -> None:
    order = await shop.confirmed(payment_method="payment_on_delivery")
    settled = await shop.confirmed()
    await pay(shop, settled)
    await erase(shop, settled.email)
    path = f"{shop.path}/orders/{settled.id}"
    etag = (await shop.client.get(path, headers=authorization(shop.id))).headers["ETag"]
    assert etag.endswith('-erased"')
    assert (await shop.fulfil(settled, if_match=etag)).status_code == 201
    assert (await shop.see(order))["state"] == "awaiting_payment"


async def test_waiting_letters_go_with_the_person(shop: Shop) -> None:
    order = await shop.order()
    assert await shop.scalar("SELECT count(*) FROM waiting_letter") == 1
    await erase(shop, order.email)
    assert await shop.scalar("SELECT count(*) FROM waiting_letter") == 0


async def test_no_personal_data_in_the_clear(shop: Shop) -> None:
    """Neither rows, nor events, nor saved replies hold what a buyer typed."""
    order = await shop.confirmed()
    for table in (
        "orders",
        "order_line",
        "outbox",
        "waiting_letter",
        "idempotency_record",
        "cart",
        "cart_line",
    ):
        rows: UUID | str = await shop.scalar(f"SELECT coalesce(string_agg(t::text, ''), '') FROM {table} t")
        for word in ("Canary", order.email, "75001"):
            assert word not in str(rows)
            assert word.encode().hex() not in str(rows)


async def test_an_export_shows_orders_with_their_lines(
    shop: Shop, orders_environment: Mapping[str, str]
) -> None:
    order = await shop.order(lines={shop.tea: 2, shop.cup: 1})
    await shop.order()
    subject_id = await shop.vault.subject_id(shop.id, order.email)
    task = TaskIssued(request_id=uuid4(), verb=Verb.EXPORT, subject_id=subject_id, generation=1)
    await shop.hears(task)
    settings = shop.app.state.settings
    broker: Any = None
    work = Work("orders", settings, shop.database, broker, shop.vault, shop.app.state.http)
    await PARTICIPANT.export(work)
    chunks = [data for name, data in await shop.told() if name == "export-chunk"]
    box = Sealed(ExportedRecords, b64decode(chunks[0]["box"]))
    exported = await shop.keyring.vault("privacy").open(
        box, store_id=shop.id, subject_id=subject_id, purpose=Purpose.RIGHTS_OF_THE_PERSON
    )
    [record] = exported.records
    assert record["data"]["email"] == order.email
    assert record["facts"]["number"] == "1001"
    assert [line["title"] for line in record["attached"]["order_line"]] == ["Green tea", "Blue cup"]


async def _sales(shop: Shop) -> Any:
    today = datetime.now(UTC).date()
    answer = await shop.client.get(
        f"{shop.path}/reports/sales",
        headers=authorization(shop.id, Role.OWNER),
        params={"from": str(today), "to": str(today)},
    )
    return answer.json()
