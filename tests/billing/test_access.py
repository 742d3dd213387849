"""Who may see and do what; lists in parts."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from libs.common.auth import STAFF, Role
from libs.common.events.orders import OrderConfirmed, OrderPlaced
from tests.billing.conftest import TODAY, Shop
from tests.tokens import authorization

BODY = {"amount": {"amount": 2500, "currency": "EUR"}, "method": "bank_transfer", "received_on": str(TODAY)}
OPERATIONS = [
    ("POST", "orders/{order_id}/payments"),
    ("GET", "orders/{order_id}/receivable"),
    ("GET", "receivables"),
    ("GET", "invoices"),
    ("GET", "invoices/{invoice_id}"),
    ("GET", "ledger/balances"),
    ("GET", "ledger/entries"),
]
SINGLE = [operation for operation in OPERATIONS if "{" in operation[1]]
every_operation = pytest.mark.parametrize(("method", "path"), OPERATIONS)


async def call(
    client: httpx.AsyncClient, method: str, store_id: UUID | str, path: str, headers: dict[str, str]
) -> httpx.Response:
    url = f"/billing/v1/stores/{store_id}/" + path
    return await client.request(method, url, headers=headers, json=BODY if method == "POST" else None)


def of_nothing(path: str) -> str:
    return path.format(order_id=uuid4(), invoice_id=uuid4())


def test_every_route_is_listed_here(app: FastAPI) -> None:
    shared = "/billing/v1/stores/{store_id}/"
    found = {
        (method.upper(), path.removeprefix(shared))
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }
    assert found == set(OPERATIONS)


@every_operation
async def test_nobody_without_a_token(shop: Shop, method: str, path: str) -> None:
    answer = await call(shop.client, method, shop.id, of_nothing(path), {})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@every_operation
async def test_nobody_with_a_token_that_has_expired(shop: Shop, method: str, path: str) -> None:
    headers = authorization(shop.id, exp=1)
    assert (await call(shop.client, method, shop.id, of_nothing(path), headers)).status_code == 401


@every_operation
async def test_another_store_is_like_none(shop: Shop, method: str, path: str) -> None:
    headers = authorization(uuid4())
    path = of_nothing(path)
    theirs = await call(shop.client, method, shop.id, path, headers)
    nobodys = await call(shop.client, method, uuid4(), path, headers)
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.content == nobodys.content


@pytest.mark.parametrize(("method", "path"), SINGLE)
async def test_an_object_of_another_store_is_like_none(shop: Shop, method: str, path: str) -> None:
    order = await shop.open_order()
    invoice_id = (await shop.pay(order)).json()["invoice_id"]
    other = await Shop(shop.app, shop.client, shop.keyring).open()
    headers = authorization(other.id)
    real = path.format(order_id=order.order_id, invoice_id=invoice_id)
    foreign = await call(shop.client, method, other.id, real, headers)
    missing = await call(shop.client, method, other.id, of_nothing(path), headers)
    assert (foreign.status_code, foreign.content) == (404, missing.content)


@every_operation
async def test_ids_that_are_none_are_not_valid(shop: Shop, method: str, path: str) -> None:
    path = path.format(order_id="a-canary-name", invoice_id="a-canary-name")
    headers = authorization(shop.id)
    expected = 422 if "canary" in path else 200
    answer = await call(shop.client, method, shop.id, path, headers)
    assert answer.status_code == expected
    assert "canary" not in answer.text
    assert (await call(shop.client, method, "not-a-store", path, headers)).status_code == 422


@pytest.mark.parametrize("role", [Role.SUPPORT, Role.PRIVACY_OFFICER, Role.CUSTOMER])
async def test_only_managers_record_payments(shop: Shop, role: Role) -> None:
    order = await shop.open_order()
    claims = {"subject": str(order.subject_id)} if role is Role.CUSTOMER else {}
    headers = authorization(shop.id, role, **claims)
    answer = await call(shop.client, "POST", shop.id, f"orders/{order.order_id}/payments", headers)
    assert answer.status_code == 403
    assert await shop.state_of(order) == "open"


@pytest.mark.parametrize(
    "path", ["receivables", "orders/{order_id}/receivable", "ledger/balances", "ledger/entries"]
)
async def test_customers_do_not_see_the_books(shop: Shop, path: str) -> None:
    order = await shop.open_order()
    headers = authorization(shop.id, Role.CUSTOMER, subject=str(order.subject_id))
    answer = await call(shop.client, "GET", shop.id, path.format(order_id=order.order_id), headers)
    assert answer.status_code == 403


@pytest.mark.parametrize("role", sorted(STAFF))
async def test_all_staff_read(shop: Shop, role: Role) -> None:
    await shop.pay(await shop.open_order())
    for path in ("receivables", "invoices", "ledger/entries", "ledger/balances"):
        assert (await shop.get(path, role))["items"]


async def test_customers_see_their_own_invoices(shop: Shop) -> None:
    mine, theirs = await shop.open_order(), await shop.open_order()
    my_invoice, their_invoice = [(await shop.pay(order)).json()["invoice_id"] for order in (mine, theirs)]
    me: dict[str, Any] = {"role": Role.CUSTOMER, "subject": str(mine.subject_id), "generation": 1}
    assert [one["id"] for one in (await shop.get("invoices", **me))["items"]] == [my_invoice]
    assert (await shop.get(f"invoices/{my_invoice}", **me))["buyer"]["name"]
    headers = authorization(shop.id, **me)
    answer = await call(shop.client, "GET", shop.id, f"invoices/{their_invoice}", headers)
    missing = await call(shop.client, "GET", shop.id, f"invoices/{uuid4()}", headers)
    assert (answer.status_code, answer.content) == (404, missing.content)


async def test_a_later_life_does_not_see_the_invoices_of_an_erased_one(shop: Shop) -> None:
    order = await shop.open_order()
    invoice_id = (await shop.pay(order)).json()["invoice_id"]
    me: dict[str, Any] = {"role": Role.CUSTOMER, "subject": str(order.subject_id), "generation": 2}
    assert (await shop.get("invoices", **me))["items"] == []
    answer = await call(shop.client, "GET", shop.id, f"invoices/{invoice_id}", authorization(shop.id, **me))
    assert answer.status_code == 404


async def test_single_objects_carry_etags(shop: Shop) -> None:
    order = await shop.open_order()
    paid = (await shop.pay(order)).json()
    headers = authorization(shop.id)
    receivable = await call(shop.client, "GET", shop.id, f"orders/{order.order_id}/receivable", headers)
    invoice = await call(shop.client, "GET", shop.id, f"invoices/{paid['invoice_id']}", headers)
    assert (receivable.headers["etag"], invoice.headers["etag"]) == ('"3"', '"1"')


# --- Lists in parts --------------------------------------------------------------------------------------


async def walk(shop: Shop, path: str, *, insert: Any = None) -> list[Any]:
    """Every item of a list, two at a time, while `insert` adds rows between the parts."""
    items: list[Any] = []
    cursor = None
    for _ in range(50):
        page = await shop.get(
            f"{path}{'&' if '?' in path else '?'}limit=2" + (f"&cursor={cursor}" if cursor else "")
        )
        items += page["items"]
        cursor = page["next"]
        if cursor is None:
            return items
        if insert is not None:
            await insert()
    raise AssertionError("the list does not end")


async def placed_at(shop: Shop, order: OrderPlaced, moment: datetime) -> None:
    async with shop.database.session(shop.id) as session:
        await session.execute(
            text("UPDATE receivable SET placed_at = :at WHERE order_id = :id"),
            {"at": moment, "id": order.order_id},
        )


async def test_receivables_come_newest_first_and_each_once(shop: Shop) -> None:
    moment = datetime.now(UTC) - timedelta(hours=1)
    orders = [await shop.placed() for _ in range(5)]
    await shop.hears(*orders)
    for order in orders[:3]:
        # Three at the very same moment: the order of ids decides.
        await placed_at(shop, order, moment)
    before = [one["order_id"] for one in await walk(shop, "receivables")]
    assert sorted(before) == sorted(str(order.order_id) for order in orders)
    assert set(before[2:]) == {str(order.order_id) for order in orders[:3]}

    async def insert() -> None:
        await shop.hears(await shop.placed())

    assert [one["order_id"] for one in await walk(shop, "receivables", insert=insert)] == before


async def test_receivables_can_be_filtered_by_state(shop: Shop) -> None:
    paid, opened, expected = [await shop.placed() for _ in range(3)]
    await shop.hears(paid, opened, expected)
    await shop.hears(OrderConfirmed(order_id=paid.order_id), OrderConfirmed(order_id=opened.order_id))
    await shop.pay(paid)
    for state, order in (("paid", paid), ("open", opened), ("expected", expected)):
        listed = await walk(shop, f"receivables?state={state}")
        assert [one["order_id"] for one in listed] == [str(order.order_id)]
    assert await walk(shop, "receivables?state=void") == []


async def test_invoices_and_entries_come_newest_first_and_each_once(shop: Shop) -> None:
    async def insert() -> None:
        assert (await shop.pay(await shop.open_order())).status_code == 201

    for _ in range(5):
        await insert()
    invoices = [one["number"] for one in await walk(shop, "invoices", insert=insert)]
    assert invoices == [f"{TODAY.year}-{n:06d}" for n in (5, 4, 3, 2, 1)]
    entries = [one["number"] for one in await walk(shop, "ledger/entries", insert=insert)]
    assert entries == [f"{TODAY.year}-{n}" for n in range(len(entries), 0, -1)]


@pytest.mark.parametrize("path", ["receivables", "invoices", "ledger/entries"])
@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "bnVsbA",
        "WzEsMl0gIA",  # [1,2] and blanks
        "WzE4NDQ2NzQ0MDczNzA5NTUxNjE1LDFd",  # [18446744073709551615,1]
        "Wy0xLC0xXQ",  # [-1,-1]
        "WzkyMjMzNzIwMzY4NTQ3NzU4MDcsIngiXQ",  # [9223372036854775807,"x"]
        "WzE4NDQ2NzQ0MDczNzA5NTUxNjE1LCIwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMCJd",
        "é",
    ],
)
async def test_a_cursor_of_another_list_is_refused(shop: Shop, path: str, cursor: str) -> None:
    answer = await shop.client.get(
        f"{shop.path}/{path}", params={"cursor": cursor}, headers=authorization(shop.id)
    )
    # Two small numbers are a place among invoices and entries.
    expected = 200 if cursor == "WzEsMl0gIA" and path != "receivables" else 400
    assert answer.status_code == expected, answer.text


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=many", "state=unknown", "cursor=" + "a" * 401]
)
async def test_bounds_of_lists(shop: Shop, query: str) -> None:
    answer = await shop.client.get(f"{shop.path}/receivables?{query}", headers=authorization(shop.id))
    assert answer.status_code == 422
