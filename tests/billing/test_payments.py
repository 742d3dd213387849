"""A payment is booked once, whatever happens, and its invoice follows."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import func, select, text

from deploy.local.ports import free_port
from libs.common.events.orders import OrderCancelled
from libs.common.money import Money
from libs.common.personal.keys import Erasure, KeyringClient
from libs.common.personal.tombstones import bury
from libs.common.personal.vault import Vault
from libs.common.personal.vocabulary import Purpose
from services.billing import service
from services.billing.api import now as clock
from services.billing.domain import Method
from services.billing.models import JournalEntry, Payment, Receivable
from services.billing.schemas import NewPayment
from tests.billing.conftest import CONTACT, TODAY, Shop

BUYER = {"name": CONTACT.name, "address": CONTACT.address.model_dump()}


async def invoice_of(shop: Shop, answer: httpx.Response) -> Any:
    assert answer.status_code == 201, answer.text
    return await shop.get(f"invoices/{answer.json()['invoice_id']}")


async def counted(shop: Shop, table: type[Any]) -> int:
    async with shop.database.session(shop.id) as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_a_payment_is_booked_and_an_invoice_issued(shop: Shop) -> None:
    order = await shop.open_order()
    answer = await shop.pay(order, external_id="BANK-42")
    paid = answer.json()
    number = f"{TODAY.year}-000001"
    assert (answer.status_code, paid["invoice_number"], paid["external_id"]) == (201, number, "BANK-42")
    assert answer.headers["location"] == f"{shop.path}/invoices/{paid['invoice_id']}"
    invoice = await invoice_of(shop, answer)
    assert invoice["buyer"] == BUYER
    assert invoice["on_hold"] is False
    assert invoice["total"] == order.total.model_dump()
    assert invoice["seller"] == {"name": "Test Shop", "country": "FR"}
    assert invoice["lines"] == [line.model_dump(mode="json") for line in order.lines]
    assert invoice["kept_until"] == f"{TODAY.year + 10}-12-31"
    assert await shop.state_of(order) == "paid"


async def test_everybody_is_told_and_nobody_by_name(shop: Shop) -> None:
    order = await shop.open_order()
    paid = (await shop.pay(order)).json()
    events = await shop.published()
    assert events == [
        (
            "vitrine.billing.payment-received.v1",
            {
                "version": 3,
                "order_id": str(order.order_id),
                "payment_id": paid["id"],
                "amount": order.total.model_dump(),
            },
        ),
        (
            "vitrine.billing.invoice-issued.v1",
            {
                "version": 3,
                "order_id": str(order.order_id),
                "invoice_id": paid["invoice_id"],
                "number": paid["invoice_number"],
                "total": order.total.model_dump(),
            },
        ),
        # From now on it is counted for how long whom the invoice is for is kept.
        (
            "vitrine.privacy.clock-started.v1",
            {
                "version": 0,
                "subject_id": str(order.subject_id),
                "generation": 1,
                "retention": "accounting",
                "bucket": paid["invoice_number"].partition("-")[0],
                "clock": "invoice-issued",
                "started_at": events[-1][1]["started_at"],
            },
        ),
    ]


async def test_the_contact_leaves_the_receivable_with_the_invoice(shop: Shop) -> None:
    order = await shop.open_order()
    await shop.pay(order)
    async with shop.database.session(shop.id) as session:
        assert (await session.get_one(Receivable, order.order_id)).contact is None


async def test_the_ledger_shows_the_sale_and_the_payment(shop: Shop) -> None:
    received_on = (TODAY - timedelta(days=1)).isoformat()
    await shop.pay(await shop.open_order(amount=700), method="payment_on_delivery", received_on=received_on)
    receipt, sale = (await shop.get("ledger/entries"))["items"]
    assert [(sale["kind"], sale["number"]), (receipt["kind"], receipt["number"])] == [
        ("sale", f"{TODAY.year}-1"),
        ("payment", f"{TODAY.year}-2"),
    ]
    assert (sale["occurred_on"], receipt["occurred_on"]) == (TODAY.isoformat(), received_on)
    assert [(p["account"], p["debit"], p["credit"]) for p in sale["postings"] + receipt["postings"]] == [
        ("411", 700, 0),
        ("707", 0, 700),
        ("530", 700, 0),
        ("411", 0, 700),
    ]
    balances = {one["name"]: one["balance"] for one in (await shop.get("ledger/balances"))["items"]}
    assert balances == {"customers": 0, "cash": 700, "sales": -700}


async def test_a_repeated_key_has_one_effect_and_the_same_reply(shop: Shop) -> None:
    order = await shop.open_order()
    key = uuid4().hex
    first, second = await shop.pay(order, key=key), await shop.pay(order, key=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert (first.content, first.headers["location"]) == (second.content, second.headers["location"])
    assert second.headers["idempotency-replayed"] == "true"
    assert (await shop.pay(order, key=key, external_id="other")).status_code == 422
    assert await counted(shop, Payment) == 1


async def test_twenty_at_once_with_one_key_have_one_effect(shop: Shop) -> None:
    order = await shop.open_order()
    key = uuid4().hex
    answers = await asyncio.gather(*(shop.pay(order, key=key) for _ in range(20)))
    assert {answer.content for answer in answers if answer.status_code == 201} == {answers[0].content}
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert await counted(shop, Payment) == 1


async def test_an_order_is_paid_once_even_without_a_key(shop: Shop) -> None:
    order = await shop.open_order()
    answers = await asyncio.gather(*(shop.pay(order) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    assert {a.json()["type"] for a in answers if a.status_code == 409} == {"/problems/already-paid"}


async def test_numbers_have_no_gap_under_twenty_concurrent_payments(shop: Shop) -> None:
    orders = [await shop.open_order() for _ in range(20)]
    wrong = Money(amount=1, currency="EUR").model_dump()
    answers = await asyncio.gather(
        *(shop.pay(order, key=uuid4().hex) for order in orders),
        *(shop.pay(order, amount=wrong) for order in orders[:5]),
    )
    numbers = sorted(answer.json()["invoice_number"] for answer in answers if answer.status_code == 201)
    assert numbers == [f"{TODAY.year}-{n:06d}" for n in range(1, 21)]
    entries = await shop.get("ledger/entries?limit=100")
    assert sorted(int(entry["number"].split("-")[1]) for entry in entries["items"]) == list(range(1, 41))


async def test_a_rollback_gives_the_number_back(shop: Shop) -> None:
    order = await shop.open_order()
    payment = NewPayment(amount=order.total, method=Method.BANK_TRANSFER, received_on=TODAY)
    buyer = service.Buyer((shop.id, order.subject_id, order.generation), None)

    class Interrupted(Exception):
        pass

    with pytest.raises(Interrupted):
        async with shop.database.session(shop.id) as session:
            _, invoice = await service.settle(
                session, store_id=shop.id, order_id=order.order_id, payment=payment, buyer=buyer,
                recorded_by=uuid4(), now=datetime.now(UTC),
            )  # fmt: skip
            assert invoice.sequence == 1
            raise Interrupted
    assert await shop.published() == []
    assert (await shop.pay(order)).json()["invoice_number"] == f"{TODAY.year}-000001"


async def test_each_year_counts_from_one(shop: Shop) -> None:
    async def pay_at(moment: datetime) -> Any:
        order = await shop.open_order()
        async with shop.database.session(shop.id) as session:
            await session.execute(
                text("UPDATE receivable SET placed_at = :at WHERE order_id = :id"),
                {"at": moment, "id": order.order_id},
            )
        shop.app.dependency_overrides[clock] = lambda: moment
        try:
            return (await shop.pay(order, received_on=moment.date().isoformat())).json()
        finally:
            shop.app.dependency_overrides.clear()

    last_moment = datetime(2031, 12, 31, 23, 59, 59, tzinfo=UTC)
    numbers = [
        (await pay_at(moment))["invoice_number"]
        for moment in (last_moment, last_moment, last_moment + timedelta(seconds=1))
    ]
    assert numbers == ["2031-000001", "2031-000002", "2032-000001"]
    invoices = (await shop.get("invoices"))["items"]
    assert [one["kept_until"] for one in invoices] == ["2042-12-31", "2041-12-31", "2041-12-31"]


# --- What is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amount",
    [
        {"amount": 2499, "currency": "EUR"},
        {"amount": 2501, "currency": "EUR"},
        {"amount": -2500, "currency": "EUR"},
        {"amount": 2500, "currency": "USD"},
    ],
)
async def test_another_amount_is_answered_with_what_is_due(shop: Shop, amount: dict[str, Any]) -> None:
    order = await shop.open_order()
    answer = await shop.pay(order, amount=amount)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/not-the-amount-due")
    assert answer.json()["due"] == {"amount": 2500, "currency": "EUR"}
    assert await shop.state_of(order) == "open"


async def test_an_order_that_is_not_confirmed_is_not_due_yet(shop: Shop) -> None:
    order = await shop.placed()
    await shop.hears(order)
    answer = await shop.pay(order)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/payment-not-due-yet")


async def test_who_is_paid_on_delivery_need_not_wait_for_the_confirmation(shop: Shop) -> None:
    order = await shop.placed(method="payment_on_delivery")
    await shop.hears(order)
    assert (await shop.pay(order, method="payment_on_delivery")).status_code == 201


async def test_nothing_is_due_for_a_cancelled_order(shop: Shop) -> None:
    order = await shop.open_order()
    await shop.hears(OrderCancelled(order_id=order.order_id))
    answer = await shop.pay(order)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/nothing-due")


@pytest.mark.parametrize("days", [-3, 3])
async def test_a_day_before_the_order_or_after_today_is_refused(shop: Shop, days: int) -> None:
    answer = await shop.pay(await shop.open_order(), received_on=(TODAY + timedelta(days=days)).isoformat())
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/impossible-day")


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": None},
        {"amount": {"amount": "many", "currency": "EUR"}},
        {"amount": {"amount": 10**13, "currency": "EUR"}},
        {"amount": {"amount": 2500, "currency": "euro"}},
        {"method": "card"},
        {"received_on": "yesterday"},
        {"external_id": ""},
        {"external_id": "x" * 41},
        {"external_id": "A Person 12"},
        {"external_id": "nul\x00"},
        {"note": "extra"},
    ],
)
async def test_a_body_that_is_not_valid_is_refused_and_not_repeated(
    shop: Shop, changes: dict[str, Any]
) -> None:
    answer = await shop.pay(await shop.open_order(), **changes)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert "A Person" not in answer.text
    assert await counted(shop, Payment) == 0


# --- People who were erased ------------------------------------------------------------------------------


async def test_an_erased_contact_is_missing_on_the_invoice(shop: Shop) -> None:
    order = await shop.open_order()
    await shop.erase(order.subject_id)
    invoice = await invoice_of(shop, await shop.pay(order))
    assert (invoice["buyer"], invoice["total"]) == (None, order.total.model_dump())


async def test_who_came_back_after_an_erasure_is_not_invoiced_for_before(shop: Shop) -> None:
    order = await shop.open_order()
    # The key of the first life is still in this process's memory when the second one begins.
    await shop.app.state.vault.open(
        order.contact, store_id=shop.id, subject_id=order.subject_id, purpose=Purpose.ACCOUNTING
    )
    client = shop.keyring.client("privacy")
    await client.destroy([Erasure(shop.id, order.subject_id, 1, uuid4())])
    again = await shop.placed(subject_id=order.subject_id, begin=True)
    assert again.generation == 2
    assert (await invoice_of(shop, await shop.pay(order)))["buyer"] is None


async def test_an_erasure_that_comes_between_leaves_no_contact(shop: Shop) -> None:
    order = await shop.open_order()
    async with shop.database.session(shop.id) as session:
        await bury(session, [(shop.id, order.subject_id, order.generation)])
    assert (await invoice_of(shop, await shop.pay(order)))["buyer"] is None


async def test_an_invoice_outlives_an_erasure(shop: Shop) -> None:
    order = await shop.open_order()
    answer = await shop.pay(order)
    await shop.erase(order.subject_id)
    assert (await invoice_of(shop, answer))["buyer"] == BUYER


async def test_restricted_data_is_on_hold(shop: Shop) -> None:
    order = await shop.open_order()
    answer = await shop.pay(order)
    await shop.restrict(order.subject_id)
    invoice = await invoice_of(shop, answer)
    assert (invoice["buyer"], invoice["on_hold"]) == (None, True)


async def test_without_the_keyring_nothing_is_booked_and_the_caller_may_try_again(shop: Shop) -> None:
    order = await shop.open_order()
    key = uuid4().hex
    kept = shop.app.state.vault
    client = KeyringClient(
        url=f"http://127.0.0.1:{free_port()}", service="billing",
        private_key=shop.keyring.private_key("billing"), http=shop.app.state.http,
    )  # fmt: skip
    shop.app.state.vault = Vault(client)
    try:
        answer = await shop.pay(order, key=key)
    finally:
        shop.app.state.vault = kept
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert (await counted(shop, Payment), await counted(shop, JournalEntry)) == (0, 0)
    assert (await shop.pay(order, key=key)).status_code == 201


async def test_who_waits_too_long_for_another_may_try_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.common.idempotency._LOCK_TIMEOUT", "50ms")
    order = await shop.open_order()
    key = uuid4().hex
    async with shop.database.session(shop.id) as session:
        await session.get_one(Receivable, order.order_id, with_for_update=True)
        assert (await shop.pay(order, key=key)).status_code == 503
    assert (await shop.pay(order, key=key)).status_code == 201
