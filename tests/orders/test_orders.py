import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.events.billing import PaymentReceived
from libs.common.events.catalog import StockRefused, StockReserved
from libs.common.money import Money
from tests.orders.conftest import Ordered, Shop, new_email
from tests.tokens import authorization

TODAY = datetime.now(UTC).date()


def paid(order: Ordered) -> PaymentReceived:
    total = Money.model_validate(order.receipt["total"])
    return PaymentReceived(order_id=order.id, payment_id=uuid4(), amount=total)


# --- Seeing an order -------------------------------------------------------------------------------------


async def test_guest_customer_and_staff_see_the_order(shop: Shop) -> None:
    order = await shop.confirmed()
    seen = [
        (await shop.client.get(f"{shop.path}/orders/{order.id}", headers=headers)).json()
        for headers in (
            order.headers,
            await shop.customer(order.email),
            authorization(shop.id, Role.SUPPORT),
            authorization(shop.id, Role.PRIVACY_OFFICER),
        )
    ]
    assert all(view == seen[0] for view in seen)
    assert seen[0]["state"] == "awaiting_payment"
    assert seen[0]["contact"]["email"] == order.email
    assert seen[0]["refusal"] is None


async def test_anybody_else_sees_nothing(shop: Shop) -> None:
    order, other = await shop.order(), await shop.order()
    foreign = await Shop(shop.app, shop.client, shop.keyring).open()
    path = f"{shop.path}/orders/{order.id}"
    answers = [
        await shop.client.get(path, headers=other.headers),
        await shop.client.get(path, headers={"Order-Secret": "x"}),
        await shop.client.get(path, headers=await shop.customer(other.email)),
        await shop.client.get(path, headers=await shop.customer(order.email, generation=2)),
        await shop.client.get(path, headers=authorization(foreign.id, Role.OWNER)),
        await shop.client.get(f"{foreign.path}/orders/{order.id}", headers=order.headers),
        await shop.client.get(f"{foreign.path}/orders/{order.id}", headers=authorization(foreign.id)),
        await shop.client.get(f"{shop.path}/orders/{uuid4()}", headers=order.headers),
        await shop.client.get(f"{shop.path}/orders/{uuid4()}", headers=authorization(shop.id)),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    for unknown in (order.id, uuid4()):
        anonymous = await shop.client.get(f"{shop.path}/orders/{unknown}")
        assert anonymous.status_code == 401
        assert anonymous.headers["WWW-Authenticate"] == "Bearer"


async def test_a_refusal_says_which_lines_were_short(shop: Shop) -> None:
    order = await shop.order(lines={shop.tea: 1, shop.cup: 3})
    await shop.hears(StockRefused(order_id=order.id, short_variant_ids=[shop.cup]))
    seen = await shop.see(order)
    assert seen["state"] == "refused"
    assert seen["refusal"] == {"reason": "out-of-stock", "short_variant_ids": [str(shop.cup)]}
    assert await shop.told_of(order) == ["order-placed", "order-refused"]


async def test_whoever_polls_is_told_only_of_changes(shop: Shop) -> None:
    order = await shop.order()
    path = f"{shop.path}/orders/{order.id}"
    first = await shop.client.get(path, headers=order.headers)
    unchanged = await shop.client.get(path, headers=order.headers | {"If-None-Match": first.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    await shop.hears(paid(order))
    changed = await shop.client.get(path, headers=order.headers | {"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]


# --- Cancelling ------------------------------------------------------------------------------------------


async def test_guest_customer_and_manager_cancel(shop: Shop) -> None:
    for confirmed in (False, True):
        for who in ("guest", "customer", "manager"):
            order = await (shop.confirmed() if confirmed else shop.order())
            headers = {
                "guest": order.headers,
                "customer": await shop.customer(order.email),
                "manager": authorization(shop.id),
            }[who]
            path = f"{shop.path}/orders/{order.id}/cancel"
            answers = [await shop.client.post(path, headers=headers) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 200]
            assert answers[0].json() == answers[1].json()
            assert answers[0].json()["state"] == "cancelled"
            assert answers[0].json()["cancelled_at"]
            assert (await shop.told_of(order))[-1] == "order-cancelled"
            assert (await shop.told_of(order)).count("order-cancelled") == 1


async def test_what_is_paid_or_refused_cannot_be_cancelled(shop: Shop) -> None:
    settled, short = await shop.confirmed(), await shop.order()
    await shop.hears(paid(settled), StockRefused(order_id=short.id, short_variant_ids=[shop.tea]))
    for order in (settled, short):
        answer = await shop.client.post(f"{shop.path}/orders/{order.id}/cancel", headers=order.headers)
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/order-cannot-be-cancelled")


async def test_a_stale_cancellation_is_refused(shop: Shop) -> None:
    order = await shop.order()
    etag = (await shop.client.get(f"{shop.path}/orders/{order.id}", headers=order.headers)).headers["ETag"]
    await shop.hears(paid(order))
    path = f"{shop.path}/orders/{order.id}/cancel"
    stale = await shop.client.post(path, headers=order.headers | {"If-Match": etag})
    assert stale.status_code == 412


async def test_who_may_not_cancel(shop: Shop) -> None:
    order, other = await shop.order(), await shop.order()
    path = f"{shop.path}/orders/{order.id}/cancel"
    expected: list[tuple[dict[str, str], int]] = [
        ({}, 401),
        (authorization(shop.id, Role.SUPPORT), 403),
        (other.headers, 404),
        (await shop.customer(other.email), 404),
        (authorization(uuid4(), Role.OWNER), 404),
    ]
    for headers, status in expected:
        assert (await shop.client.post(path, headers=headers)).status_code == status
    assert (await shop.see(order))["state"] == "placed"


async def test_cancelling_races_with_the_stock(shop: Shop) -> None:
    for _ in range(5):
        order = await shop.order()
        path = f"{shop.path}/orders/{order.id}/cancel"
        answer, _ = await asyncio.gather(
            shop.client.post(path, headers=order.headers), shop.hears(StockReserved(order_id=order.id))
        )
        assert answer.status_code == 200
        assert (await shop.see(order))["state"] == "cancelled"
        versions = [data["version"] for _, data in await shop.told(order)]
        assert versions == sorted(set(versions))


# --- Fulfilling ------------------------------------------------------------------------------------------


async def test_a_paid_order_is_fulfilled(shop: Shop) -> None:
    order = await shop.confirmed()
    await shop.hears(paid(order))
    answer = await shop.fulfil(order)
    assert answer.status_code == 201
    assert answer.json()["state"] == "fulfilled"
    assert answer.json()["fulfilled_at"]
    assert await shop.told_of(order) == ["order-placed", "order-confirmed", "order-fulfilled"]
    assert (await shop.fulfil(order)).status_code == 409


async def test_payment_on_delivery_is_fulfilled_first(shop: Shop) -> None:
    order = await shop.confirmed(payment_method="payment_on_delivery")
    assert (await shop.fulfil(order)).status_code == 201
    await shop.hears(paid(order))
    seen = await shop.see(order)
    assert seen["state"] == "fulfilled"
    assert seen["paid_at"]


async def test_what_is_not_paid_or_not_confirmed_stays(shop: Shop) -> None:
    unpaid = await shop.confirmed()
    unconfirmed = await shop.order(payment_method="payment_on_delivery")
    for order in (unpaid, unconfirmed):
        answer = await shop.fulfil(order)
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/order-cannot-be-fulfilled")


async def test_a_fulfilment_needs_the_version_that_was_read(shop: Shop) -> None:
    order = await shop.confirmed()
    path = f"{shop.path}/orders/{order.id}"
    manager = authorization(shop.id)
    stale = (await shop.client.get(path, headers=manager)).headers["ETag"]
    await shop.hears(paid(order))
    assert (await shop.client.post(f"{path}/fulfilments", headers=manager)).status_code == 428
    assert (await shop.fulfil(order, if_match=stale)).status_code == 412
    fresh = (await shop.client.get(path, headers=manager)).headers["ETag"]
    assert (await shop.fulfil(order, if_match=fresh)).status_code == 201


async def test_a_fulfilment_sent_again_is_one(shop: Shop) -> None:
    order = await shop.confirmed()
    await shop.hears(paid(order))
    headers = authorization(shop.id, sub=str(uuid4())) | {"If-Match": "*", "Idempotency-Key": uuid4().hex}
    path = f"{shop.path}/orders/{order.id}/fulfilments"
    answers = await asyncio.gather(*(shop.client.post(path, headers=headers) for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert (await shop.told_of(order)).count("order-fulfilled") == 1


async def test_who_may_not_fulfil(shop: Shop) -> None:
    order = await shop.confirmed()
    await shop.hears(paid(order))
    path = f"{shop.path}/orders/{order.id}/fulfilments"
    expected: list[tuple[dict[str, str], int]] = [
        ({}, 401),
        (order.headers, 401),
        (await shop.customer(order.email), 403),
        (authorization(shop.id, Role.SUPPORT), 403),
        (authorization(uuid4(), Role.OWNER), 404),
    ]
    for headers, status in expected:
        answer = await shop.client.post(path, headers=headers | {"If-Match": "*"})
        assert answer.status_code == status
    unknown = await shop.client.post(
        f"{shop.path}/orders/{uuid4()}/fulfilments", headers=authorization(shop.id) | {"If-Match": "*"}
    )
    assert unknown.status_code == 404


# --- Lists -----------------------------------------------------------------------------------------------


async def _listed(shop: Shop, headers: dict[str, str], **parameters: Any) -> list[str]:
    found: list[str] = []
    while True:
        answer = await shop.client.get(f"{shop.path}/orders", headers=headers, params=parameters)
        assert answer.status_code == 200, answer.text
        found += [order["number"] for order in answer.json()["items"]]
        if (following := answer.json()["next"]) is None:
            return found
        parameters["cursor"] = following


async def test_lists_are_newest_first_and_skip_nothing(shop: Shop) -> None:
    email = new_email()
    for number in range(7):
        await shop.order(email=email if number % 2 else None)
    staff = authorization(shop.id, Role.SUPPORT)
    assert await _listed(shop, staff, limit=3) == [str(n) for n in range(1007, 1000, -1)]
    assert await _listed(shop, await shop.customer(email), limit=2) == ["1006", "1004", "1002"]
    assert await _listed(shop, await shop.customer(email, generation=2)) == []
    first = (await shop.client.get(f"{shop.path}/orders", headers=staff, params={"limit": 3})).json()
    await shop.order()
    assert await _listed(shop, staff, limit=3, cursor=first["next"]) == ["1004", "1003", "1002", "1001"]


async def test_a_list_by_state(shop: Shop) -> None:
    await shop.order()
    await shop.confirmed()
    staff = authorization(shop.id, Role.OWNER)
    assert await _listed(shop, staff, state="placed") == ["1001"]
    assert await _listed(shop, staff, state="awaiting_payment") == ["1002"]
    bad = await shop.client.get(f"{shop.path}/orders", headers=staff, params={"state": "lost"})
    assert bad.status_code == 422


@pytest.mark.parametrize("position", [["x"], [2**70], [True], [1, 2], 5, "x"])
async def test_a_cursor_of_no_list_is_refused(shop: Shop, position: Any) -> None:
    content = orjson.dumps(position) if position != [2**70] else b"[9223372036854775808]"
    cursor = base64.urlsafe_b64encode(content).decode().rstrip("=")
    answer = await shop.client.get(
        f"{shop.path}/orders", headers=authorization(shop.id), params={"cursor": cursor}
    )
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-cursor")


async def test_staff_find_orders_by_an_address(shop: Shop) -> None:
    email = new_email()
    await shop.order()
    await shop.order(email=email)
    path, staff = f"{shop.path}/order-searches", authorization(shop.id, Role.SUPPORT)
    found = await shop.client.post(path, headers=staff, json={"email": email.title()})
    assert [order["number"] for order in found.json()["items"]] == ["1002"]
    nobody = await shop.client.post(path, headers=staff, json={"email": new_email()})
    assert nobody.json() == {"items": [], "next": None}
    bad = await shop.client.post(path, headers=staff, json={"email": "canary"})
    assert bad.status_code == 422
    assert "canary" not in bad.text
    customer = await shop.client.post(path, headers=await shop.customer(email), json={"email": email})
    assert customer.status_code == 403


@pytest.mark.parametrize("path", ["orders", "reports/sales?from=2026-01-01&to=2026-12-31"])
async def test_lists_and_figures_are_for_those_of_the_store(shop: Shop, path: str) -> None:
    assert (await shop.client.get(f"{shop.path}/{path}")).status_code == 401
    foreign = await shop.client.get(f"{shop.path}/{path}", headers=authorization(uuid4()))
    store_id = uuid4()
    unknown = await shop.client.get(f"/orders/v1/stores/{store_id}/{path}", headers=authorization(store_id))
    assert (foreign.status_code, foreign.content) == (404, unknown.content)


# --- Figures ---------------------------------------------------------------------------------------------


async def _sales(shop: Shop, first: Any = TODAY, last: Any = TODAY) -> httpx.Response:
    return await shop.client.get(
        f"{shop.path}/reports/sales",
        headers=authorization(shop.id, Role.SUPPORT),
        params={"from": str(first), "to": str(last)},
    )


async def test_a_report_counts_what_was_sold(shop: Shop) -> None:
    sold = [await shop.confirmed(lines={shop.tea: 2}), await shop.confirmed(lines={shop.tea: 1, shop.cup: 3})]
    await shop.hears(*(paid(order) for order in sold))
    await shop.fulfil(sold[0])
    await shop.order()
    await shop.confirmed()
    answer = await _sales(shop)
    assert answer.status_code == 200
    assert answer.json()["sales"] == [
        {"orders": 2, "pieces": 6, "total": {"amount": 900 + 4050, "currency": "EUR"}}
    ]
    assert not any(order.email in answer.text for order in sold)
    yesterday = TODAY - timedelta(days=1)
    assert (await _sales(shop, yesterday, yesterday)).json()["sales"] == []
    assert (await _sales(shop, TODAY, yesterday)).json()["sales"] == []
    assert (await _sales(shop, "0001-01-01", "9999-12-31")).json()["sales"][0]["orders"] == 2


async def test_a_report_needs_its_days_and_a_role(shop: Shop) -> None:
    for days in ({}, {"from": "2026-01-01"}, {"from": "yesterday", "to": "today"}):
        answer = await shop.client.get(
            f"{shop.path}/reports/sales", headers=authorization(shop.id), params=days
        )
        assert answer.status_code == 422
    customer = await shop.client.get(
        f"{shop.path}/reports/sales?from=2026-01-01&to=2026-01-31",
        headers=await shop.customer(new_email()),
    )
    assert customer.status_code == 403


# --- What may be read no more ----------------------------------------------------------------------------


async def test_an_outage_is_no_erasure(shop: Shop) -> None:
    order = await shop.order()
    subject_id = await shop.vault.subject_id(shop.id, order.email)
    await shop.keyring.stop()
    try:
        shop.vault.drop(shop.id, [subject_id])
        away = await shop.client.get(f"{shop.path}/orders/{order.id}", headers=order.headers)
    finally:
        await shop.keyring.start()
    assert away.status_code == 503
    assert away.headers["Retry-After"]
    assert (await shop.see(order))["contact"]["email"] == order.email


async def test_restricted_data_is_on_hold(shop: Shop) -> None:
    order = await shop.order()
    subject_id = await shop.vault.subject_id(shop.id, order.email)
    first = await shop.client.get(f"{shop.path}/orders/{order.id}", headers=order.headers)
    await _restrict(shop, subject_id)
    shop.vault.drop(shop.id, [subject_id])
    held = await shop.client.get(
        f"{shop.path}/orders/{order.id}", headers=order.headers | {"If-None-Match": first.headers["ETag"]}
    )
    assert held.status_code == 200
    assert held.json()["contact"] is None
    assert held.json()["on_hold"] is True


async def _restrict(shop: Shop, subject_id: UUID) -> None:
    async with shop.keyring.database.session(shop.id) as session:
        await session.execute(
            text("UPDATE data_key SET state = 'restricted' WHERE subject_id = :id"), {"id": subject_id}
        )
