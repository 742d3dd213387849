"""A closed store: what every route of every service does, and how a store ends, from its key to its last row.

The routes are those of `routes.py`: a new one is refused at a closed store, or somebody says here that it goes on.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

import pytest
from joserfc.jwk import ECKey
from sqlalchemy import text

from deploy.local.databases import database
from deploy.local.environment import SERVICES
from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until
from libs.common.auth import PLATFORM_STORE, Role
from libs.common.broker import Record
from libs.common.ending import MACHINERY, UNDER_WAY, Endings
from libs.common.events import envelope_of, headers_of
from libs.common.events.catalog import OfferedVariant, ProductPublished
from libs.common.events.identity import StoreOpened
from libs.common.events.orders import OrderContact
from libs.common.events.privacy import ParticipantAnnounced, StoreKeysDestroyed
from libs.common.inbox import Consumer, Handlers
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.vault import Vault
from libs.common.personal.vocabulary import Purpose
from libs.common.stores import keep, known_store
from libs.common.worker import Work
from services.billing.kinds import InvoiceContact
from services.identity import endings
from services.privacy import closings, key_tasks, store_endings
from services.privacy.endings import keyring_of
from tests.contract.house import PASSWORD, Furnished, House, Person, buy, furnish, merchant_of
from tests.contract.routes import PUBLIC, ROLES, Route, as_role, call, is_problem, routes
from tests.deliveries import HandedOver, deliver
from tests.tokens import authorization

GOES_ON: Mapping[Route, frozenset[Role | None]] = {
    ("GET", "/identity/v1/stores/{store_id}"): frozenset({None, *Role}),
    ("POST", "/identity/v1/stores/{store_id}/tokens"): frozenset({None, *Role}),
    ("POST", "/identity/v1/stores/{store_id}/me/closing"): frozenset({Role.CUSTOMER}),
    ("GET", "/identity/v1/stores/{store_id}/me"): frozenset({Role.CUSTOMER}),
    ("PATCH", "/identity/v1/stores/{store_id}/me"): frozenset({Role.CUSTOMER}),
    ("GET", "/identity/v1/stores/{store_id}/sessions"): frozenset({Role.CUSTOMER}),
    ("DELETE", "/identity/v1/stores/{store_id}/sessions/current"): frozenset({Role.CUSTOMER}),
    ("DELETE", "/identity/v1/stores/{store_id}/sessions/{session_id}"): frozenset({Role.CUSTOMER}),
    ("POST", "/identity/v1/stores/{store_id}/closing"): frozenset({Role.OWNER}),
    ("DELETE", "/identity/v1/stores/{store_id}/closing"): frozenset({Role.OWNER}),
    ("GET", "/orders/v1/stores/{store_id}/orders"): frozenset({Role.CUSTOMER}),
    ("GET", "/orders/v1/stores/{store_id}/orders/{order_id}"): frozenset({Role.CUSTOMER}),
    ("POST", "/orders/v1/stores/{store_id}/order-searches"): ROLES[
        "POST", "/orders/v1/stores/{store_id}/order-searches"
    ],
    ("POST", "/orders/v1/stores/{store_id}/orders/{order_id}/cancel"): ROLES[
        "POST", "/orders/v1/stores/{store_id}/orders/{order_id}/cancel"
    ],
    ("POST", "/orders/v1/stores/{store_id}/orders/{order_id}/fulfilments"): ROLES[
        "POST", "/orders/v1/stores/{store_id}/orders/{order_id}/fulfilments"
    ],
    ("GET", "/billing/v1/stores/{store_id}/invoices"): frozenset({Role.CUSTOMER}),
    ("GET", "/billing/v1/stores/{store_id}/invoices/{invoice_id}"): frozenset({Role.CUSTOMER}),
    ("POST", "/billing/v1/stores/{store_id}/orders/{order_id}/payments"): ROLES[
        "POST", "/billing/v1/stores/{store_id}/orders/{order_id}/payments"
    ],
}
"""What goes on at a closed store, beside what staff read and all that the privacy service does."""
OF_STORES = {
    route for route in [*PUBLIC, *ROLES] if "{store_id}" in route[1] and not route[1].startswith("/privacy")
}


@dataclass(frozen=True)
class Owned:
    """A store, and its owner's token for it."""

    store: Furnished
    owner: Person

    @property
    def path(self) -> str:
        return f"/identity/v1/stores/{self.store.id}/closing"


async def owned(house: House) -> Owned:
    merchant = await merchant_of(house)
    store = await furnish(house, merchant)
    body = {"grant_type": "refresh_token", "refresh_token": merchant.refresh_token, "act_at": str(store.id)}
    tokens = await house.call("POST", f"/identity/v1/stores/{PLATFORM_STORE}/tokens", json=body)
    return Owned(store, Person(merchant.email, tokens["access_token"], tokens["refresh_token"]))


async def close(house: House, one: Owned) -> None:
    await house.call("POST", one.path, json={"name": "Papeterie"}, headers=one.owner.headers)
    await house.carry(one.store.id)
    await known_as(house, one.store.id, "closed")


async def known_as(house: House, store_id: UUID, state: str) -> None:
    async def by_all() -> bool:
        return all(app.state.stores.of(store_id) == state for app in house.apps.values())

    await until(by_all, 10, f"somebody does not know the store to be {state}")


@pytest.fixture(scope="module")
async def closed(house: House) -> Owned:
    one = await owned(house)
    await close(house, one)
    return one


# --- Closed ----------------------------------------------------------------------------------------------


@routes(OF_STORES)
async def test_at_a_closed_store_staff_read_and_what_is_named_goes_on(
    route: Route, house: House, closed: Owned
) -> None:
    store = closed.store
    callers: dict[Role | None, Mapping[str, str]] = {role: as_role(store, role) for role in Role}
    callers[None] = {}
    for role, headers in callers.items():
        # The route is not to succeed here, only to say whether it still does anything.
        body = {} if route[0] == "GET" else {"json": {"nothing": "of this route"}}
        if route[0] == "DELETE" or route[1].endswith("/cancel"):
            continue
        answer = await call(route, store, {**headers, **store.secrets}).made(house, **body)
        reads = route[0] == "GET" and role is not None and role is not Role.CUSTOMER
        if reads or role in GOES_ON.get(route, frozenset()):
            assert "/problems/store-closed" not in answer.text, (role, answer.text)
        elif route not in GOES_ON:
            is_problem(answer, 403)
            assert answer.json()["type"] == "/problems/store-closed", (role, answer.text)


async def test_nothing_is_sold_and_nobody_new_comes_in(house: House, closed: Owned) -> None:
    store = f"/stores/{closed.store.id}"
    variant = closed.store.objects["variant_id"]
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"/orders/v1{store}/carts", {}),
        ("PUT", f"/orders/v1{store}/carts/{uuid4()}/lines/{variant}", {"json": {"quantity": 1}}),
        ("POST", f"/orders/v1{store}/orders", {"json": {}}),
        ("POST", f"/identity/v1{store}/accounts", {"json": {"email": "a@vitrine.example", "password": PASSWORD}}),
        ("GET", f"/catalog/v1{store}/products", {}),
        ("GET", f"/catalog/v1{store}/products", {"headers": closed.store.customer.headers}),
        ("GET", f"/catalog/v1{store}/facets", {}),
    ]  # fmt: skip
    for method, path, options in calls:
        answer = await house.http.request(method, path, **options)
        is_problem(answer, 403)
        assert answer.json()["type"] == "/problems/store-closed"
        assert "sign in" in answer.json()["detail"]


async def test_what_is_under_way_is_settled_and_everything_can_be_exported(house: House) -> None:
    one = await owned(house)
    store, manager = one.store, one.store.staff(Role.MANAGER)
    order = await buy(house, store.id, store.objects["variant_id"], store.customer.email)
    await house.carry(store.id)
    await close(house, one)
    path = f"/billing/v1/stores/{store.id}/orders/{order['id']}/payments"
    day = datetime.now(UTC).date().isoformat()
    body = {"amount": order["total"], "method": "bank_transfer", "received_on": day}
    await house.call("POST", path, json=body, headers=manager, expect=201)
    await house.carry(store.id)
    orders = f"/orders/v1/stores/{store.id}/orders"
    headers = manager | {"If-Match": "*"}
    await house.call("POST", f"{orders}/{order['id']}/fulfilments", headers=headers, expect=201)
    sheet = await house.http.get(f"/catalog/v1/stores/{store.id}/export.csv", headers=manager)
    assert sheet.status_code == 200 and b"PEN-1" in sheet.content
    shown = await house.call("GET", orders, headers=store.customer.headers)
    assert len(shown["items"]) == 2
    assert len((await house.call("GET", orders, headers=manager))["items"]) == 2


async def test_a_token_of_another_store_reads_nothing(house: House, closed: Owned, ours: Furnished) -> None:
    path = f"/catalog/v1/stores/{closed.store.id}/export.csv"
    is_problem(await house.http.get(path, headers=authorization(ours.id)), 403)
    is_problem(await house.http.get(path, headers={"Authorization": "Bearer x"}), 401)


async def test_an_open_store_is_as_before(house: House, closed: Owned, ours: Furnished) -> None:
    del closed
    await house.call("POST", f"/orders/v1/stores/{ours.id}/carts", expect=201)
    await house.call("GET", f"/catalog/v1/stores/{ours.id}/products")


async def test_opened_again_everything_is_as_it_was(house: House) -> None:
    one = await owned(house)
    await close(house, one)
    await house.call("DELETE", one.path, headers=one.owner.headers)
    await house.carry(one.store.id)
    await known_as(house, one.store.id, "open")
    variant, customer = one.store.objects["variant_id"], one.store.customer
    await buy(house, one.store.id, variant, customer.email, customer.headers)
    products = await house.call("GET", f"/catalog/v1/stores/{one.store.id}/products")
    assert len(products["items"]) == 1


# --- Rights at a closed store ----------------------------------------------------------------------------


async def test_the_platform_answers_for_a_closed_store(house: House) -> None:
    one = await owned(house)
    store = one.store
    await close(house, one)
    requests = f"/privacy/v1/stores/{store.id}/requests"
    asked = {"right": "rectification", "email": store.customer.email}
    asked["corrections"] = [{"category": "user.name", "value": "Another name"}]  # type: ignore[assignment]
    opened = await house.call("POST", requests, json=asked, headers=store.customer.headers, expect=201)
    path = f"{requests}/{opened['id']}"
    platform = authorization(PLATFORM_STORE, Role.PRIVACY_OFFICER)
    listed = await house.call("GET", "/privacy/v1/escalations?limit=100", headers=platform)
    assert opened["id"] in [item["request_id"] for item in listed["items"]]
    officer = store.staff(Role.PRIVACY_OFFICER)
    decision = {"approve": True}
    refused = await house.http.post(f"{path}/decision", json=decision, headers=officer | {"If-Match": "*"})
    is_problem(refused, 403)
    headers = platform | {"If-Match": "*"}
    await house.call("POST", f"{path}/decision", json=decision, headers=headers)
    assert (await house.call("GET", path, headers=store.customer.headers))["state"] == "running"


async def test_the_platform_does_not_answer_for_a_store_that_is_open(house: House, ours: Furnished) -> None:
    path = f"/privacy/v1/stores/{ours.id}/requests/{ours.objects['request_id']}"
    platform = authorization(PLATFORM_STORE, Role.PRIVACY_OFFICER)
    is_problem(await house.http.get(path, headers=platform), 404)


# --- An account that ends --------------------------------------------------------------------------------


def work(house: House, service: str, ahead: timedelta = timedelta()) -> Work:
    state = house.apps[service].state
    return Work(
        service, state.settings, state.database, None, state.vault, state.http,  # type: ignore[arg-type]
        lambda: datetime.now(UTC) + ahead,
    )  # fmt: skip


@pytest.fixture
async def announced(house: House, platform_environment: Mapping[str, str]) -> AsyncIterator[None]:
    """Every service has said who it is, so that its answers are believed."""
    handlers = handlers_of("privacy")
    for service in SERVICES:
        key = ECKey.import_key(json.loads(platform_environment[f"{service.upper()}_SERVICE_KEY"]))
        event = ParticipantAnnounced(participant=service, public_key=key.as_dict(private=False), data_map=[])
        await deliver(handlers, house.database("privacy"), PLATFORM_STORE, event)
    yield


async def erase_closed(house: House, store_id: UUID, ahead: timedelta) -> None:
    """What the workers do, once the time has come."""
    await endings.end_accounts(work(house, "identity", ahead))
    await house.carry(store_id)
    await closings.open_erasures(work(house, "privacy", ahead))
    for _ in range(4):
        await house.carry(store_id)
        await key_tasks.ask_keyring(work(house, "privacy", timedelta(minutes=1)))
    await house.carry(store_id)


async def request_of(house: House, store_id: UUID, email: str) -> Any:
    subject_id = await house.apps["privacy"].state.vault.subject_id(store_id, email)
    async with house.database("privacy").session(store_id) as session:
        query = "SELECT * FROM request WHERE subject_id = :subject AND claim = 'erasure'"
        return (await session.execute(text(query), {"subject": subject_id})).one_or_none()


async def templates_of(house: House, service: str, request_id: UUID) -> list[str]:
    async with house.database(service).platform_session() as session:
        query = "SELECT template FROM notice WHERE request_id = :request"
        return list((await session.scalars(text(query), {"request": request_id})).all())


async def test_an_account_that_ended_is_erased_everywhere_and_nobody_decides(
    house: House, announced: None
) -> None:
    one = await owned(house)
    store = one.store
    # Whatever the store chose: a closing is not for its officer to weigh.
    await house.call(
        "PUT",
        f"/privacy/v1/stores/{store.id}/settings",
        json={"passing": {"erasure": "officer"}},
        headers=store.staff(Role.OWNER) | {"If-Match": "*"},
        expect=204,
    )
    orders = f"/orders/v1/stores/{store.id}/orders"
    sent = f"{orders}/{store.objects['order_id']}/fulfilments"
    await house.call("POST", sent, headers=store.staff() | {"If-Match": "*"}, expect=201)
    await house.carry(store.id)
    me = f"/identity/v1/stores/{store.id}/me/closing"
    await house.call("POST", me, json={"password": PASSWORD}, headers=store.customer.headers)
    await erase_closed(house, store.id, timedelta(days=89))
    assert await request_of(house, store.id, store.customer.email) is None
    await erase_closed(house, store.id, timedelta(days=92))
    request = await request_of(house, store.id, store.customer.email)
    assert (request.way, request.state, request.decision) == ("closing", "completed", "by-itself")
    assert request.proofs == [] and request.decided_by is None
    assert "erasure-done" in await templates_of(house, "privacy", request.id)
    async with house.database("identity").session(store.id) as session:
        left = "SELECT count(*) FROM account WHERE subject_id = :subject"
        assert await session.scalar(text(left), {"subject": request.subject_id}) == 0
    # A new account is a new life.
    again = await house.person(store.id, store.customer.email)
    shown = await house.call("GET", f"/identity/v1/stores/{store.id}/me", headers=again.headers)
    assert shown["email"] == store.customer.email
    assert (await house.call("GET", orders, headers=again.headers))["items"] == []
    assert (await house.call("GET", orders, headers=store.staff()))["items"] != []


async def test_an_order_under_way_is_not_left_without_an_address(house: House, announced: None) -> None:
    """Paid and not sent: the officer is asked, as for any erasure."""
    one = await owned(house)
    me = f"/identity/v1/stores/{one.store.id}/me/closing"
    await house.call("POST", me, json={"password": PASSWORD}, headers=one.store.customer.headers)
    await erase_closed(house, one.store.id, timedelta(days=92))
    request = await request_of(house, one.store.id, one.store.customer.email)
    assert (request.way, request.state) == ("closing", "deciding")
    assert "decision-wanted" in await templates_of(house, "privacy", request.id)


async def test_the_end_joins_an_erasure_that_is_under_way(house: House, announced: None) -> None:
    one = await owned(house)
    store = one.store
    me = f"/identity/v1/stores/{store.id}/me/closing"
    await house.call("POST", me, json={"password": PASSWORD}, headers=store.customer.headers)
    asked = {"right": "erasure", "email": store.customer.email}
    requests = f"/privacy/v1/stores/{store.id}/requests"
    opened = await house.call("POST", requests, json=asked, headers=store.customer.headers, expect=201)
    await erase_closed(house, store.id, timedelta(days=92))
    request = await request_of(house, store.id, store.customer.email)
    assert (str(request.id), request.way) == (opened["id"], "session")


async def test_one_that_cannot_be_opened_does_not_hold_the_others_back(house: House, announced: None) -> None:
    one = await owned(house)
    broken = uuid4()
    async with house.database("privacy").session(one.store.id) as session:
        insert = """
            INSERT INTO closed_account (account_id, store_id, subject_id, generation, contact, next_try_at)
            VALUES (:broken, :store, gen_random_uuid(), 1, 'no box', now())
        """
        await session.execute(text(insert), {"broken": broken, "store": one.store.id})
    me = f"/identity/v1/stores/{one.store.id}/me/closing"
    await house.call("POST", me, json={"password": PASSWORD}, headers=one.store.customer.headers)
    try:
        await erase_closed(house, one.store.id, timedelta(days=92))
        assert await request_of(house, one.store.id, one.store.customer.email) is not None
    finally:
        async with house.database("privacy").session(one.store.id) as session:
            gone = "DELETE FROM closed_account WHERE account_id = :broken"
            await session.execute(text(gone), {"broken": broken})


async def test_the_event_twice_opens_one_request(house: House, announced: None) -> None:
    one = await owned(house)
    me = f"/identity/v1/stores/{one.store.id}/me/closing"
    await house.call("POST", me, json={"password": PASSWORD}, headers=one.store.customer.headers)
    await endings.end_accounts(work(house, "identity", timedelta(days=92)))
    async with house.database("identity").session(one.store.id) as session:
        copy = """
            INSERT INTO outbox (store_id, bucket, topic, key, headers, payload)
            SELECT store_id, bucket, topic, key,
                headers || jsonb_build_object('ce_id', gen_random_uuid()::text), payload
            FROM outbox WHERE headers ->> 'ce_type' LIKE '%account-ended%' AND store_id = :store AND sent_at IS NULL
        """
        await session.execute(text(copy), {"store": one.store.id})
    await house.carry(one.store.id)
    privacy = work(house, "privacy", timedelta(days=92))
    await asyncio.gather(closings.open_erasures(privacy), closings.open_erasures(privacy))
    await closings.open_erasures(work(house, "privacy", timedelta(days=93)))
    assert await request_of(house, one.store.id, one.store.customer.email) is not None
    async with house.database("privacy").session(one.store.id) as session:
        assert await session.scalar(text("SELECT count(*) FROM closed_account")) == 0


# --- A store that ends -----------------------------------------------------------------------------------


def ending(service: str) -> Endings:
    return import_module(f"services.{service}.consumer").ENDINGS


def handlers_of(service: str) -> Handlers:
    return import_module(f"services.{service}.consumer").HANDLERS


async def clean(house: House, service: str, ahead: timedelta) -> None:
    async with asyncio.timeout(30):
        while await ending(service).clean(work(house, service, ahead)):
            pass


async def progress(house: House, store_id: UUID) -> Any:
    platform = authorization(PLATFORM_STORE, Role.OWNER)
    listed = await house.call("GET", "/privacy/v1/store-endings?limit=100", headers=platform)
    return next(item for item in listed["items"] if item["store_id"] == str(store_id))


async def ended(house: House, one: Owned) -> None:
    """Closed, and nobody came: `store-ended` has arrived everywhere."""
    await close(house, one)
    await endings.end_stores(work(house, "identity", timedelta(days=32)))
    await house.carry(one.store.id)
    await known_as(house, one.store.id, "ended")


async def settled(house: House, store_id: UUID) -> None:
    """No request is open any more, and nothing is held for a claim."""
    async with house.database("privacy").session(store_id) as session:
        await session.execute(
            text("UPDATE request SET state = 'completed' WHERE store_id = :id"), {"id": store_id}
        )
        await session.execute(
            text("UPDATE legal_hold SET lifted_at = now() WHERE store_id = :id"), {"id": store_id}
        )


async def rows_left(postgres: PostgresServer, service: str, store_id: UUID) -> dict[str, int]:
    """By table, as somebody whom no policy binds sees the database."""
    connection = await postgres.connect(database(service))
    try:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attname = 'store_id'"
        )
        counts = {
            row["relname"]: await connection.fetchval(
                f"SELECT count(*) FROM {row['relname']} WHERE store_id = $1", store_id
            )
            for row in tables
        }
    finally:
        await connection.close()
    return {table: count for table, count in counts.items() if count}


async def test_a_store_ends_from_its_key_to_its_last_row(
    house: House, postgres: PostgresServer, announced: None
) -> None:
    one = await owned(house)
    store = one.store
    boxes = await invoice_box(house, store.id), await order_box(house, store.id)
    await ended(house, one)
    for path in (f"/identity/v1/stores/{store.id}", f"/catalog/v1/stores/{store.id}/products"):
        answer = await house.http.get(path, headers=store.staff())
        is_problem(answer, 410)
        assert answer.json()["type"] == "/problems/store-ended"

    # What was asked before the end is answered first.
    await store_endings.step(work(house, "privacy", timedelta(minutes=2)))
    seen = await progress(house, store.id)
    assert (seen["waits_for"], seen["keys_destroyed_at"]) == ("requests", None)
    await settled(house, store.id)
    await store_endings.step(work(house, "privacy", timedelta(minutes=5)))
    seen = await progress(house, store.id)
    assert seen["waits_for"] is None and seen["keys_destroyed_at"] is not None
    assert {part["participant"] for part in seen["parts"]} >= set(SERVICES)
    await house.carry(store.id)
    invoice, order = boxes
    assert await opens(house, "billing", store.id, *invoice)
    assert not await opens(house, "orders", store.id, *order)

    for service in SERVICES:
        await clean(house, service, timedelta(minutes=1))
        await clean(house, service, timedelta(minutes=1) + UNDER_WAY)
    await house.carry(store.id)
    await store_endings.step(work(house, "privacy", timedelta(minutes=20)))
    await house.carry(store.id)
    seen = await progress(house, store.id)
    assert seen["erased_at"] is not None, seen
    kept = {part["participant"]: {one["table"]: one for one in part["kept"]} for part in seen["parts"]}
    year = datetime.now(UTC).year
    assert kept["billing"]["invoice"]["until"] == f"{year + 10}-12-31"
    assert "L123-22" in kept["billing"]["invoice"]["ground"] and kept["billing"]["invoice"]["by_law"]
    assert not kept["billing"]["journal_entry"]["by_law"]
    assert kept["orders"] == kept["catalog"] == {}
    for service in SERVICES:
        left = (await rows_left(postgres, service, store.id)).keys()
        assert left - MACHINERY.keys() <= kept[service].keys() | {"store_ending", "store_ending_part"}
    # The invoice that the law keeps still says to whom, and nothing else does.
    assert await opens(house, "billing", store.id, *invoice)
    async with house.database("billing").session(store.id) as session:
        people = "SELECT count(*) FROM receivable WHERE contact IS NOT NULL OR subject_id IS NOT NULL"
        assert await session.scalar(text(people)) == 0
    await endings.tell_former_owners(work(house, "identity"))
    async with house.database("identity").session(store.id) as session:
        assert await session.scalar(text("SELECT closed_by FROM store")) is None


async def invoice_box(house: House, store_id: UUID) -> tuple[Any, UUID, Purpose]:
    async with house.database("billing").session(store_id) as session:
        row = (await session.execute(text("SELECT subject_id, contact FROM invoice"))).one()
    return Sealed(InvoiceContact, row.contact), row.subject_id, Purpose.ACCOUNTING


async def order_box(house: House, store_id: UUID) -> tuple[Any, UUID, Purpose]:
    async with house.database("orders").session(store_id) as session:
        row = (await session.execute(text("SELECT subject_id, contact FROM orders"))).one()
    return Sealed(OrderContact, row.contact), row.subject_id, Purpose.FULFIL_ORDER


async def opens(
    house: House, service: str, store_id: UUID, box: Any, subject_id: UUID, purpose: Purpose
) -> bool:
    vault: Vault = house.apps[service].state.vault
    # As a process would that had never opened it.
    vault.drop(store_id)
    try:
        await vault.open(box, store_id=store_id, subject_id=subject_id, purpose=purpose)
    except KeyDestroyed:
        return False
    return True


async def test_what_is_on_hold_keeps_its_key(house: House, announced: None) -> None:
    one = await owned(house)
    await ended(house, one)
    await settled(house, one.store.id)
    async with house.database("privacy").session(one.store.id) as session:
        hold = "INSERT INTO restricted_subject (store_id, subject_id, generation) VALUES (:id, :id, 1)"
        await session.execute(text(hold), {"id": one.store.id})
    await store_endings.step(work(house, "privacy", timedelta(minutes=2)))
    assert (await progress(house, one.store.id))["waits_for"] == "restrictions"
    async with house.database("privacy").session(one.store.id) as session:
        await session.execute(text("DELETE FROM restricted_subject"))
    await store_endings.step(work(house, "privacy", timedelta(minutes=5)))
    assert (await progress(house, one.store.id))["keys_destroyed_at"] is not None


async def test_a_participant_that_does_not_answer_is_asked_again_and_waited_for(
    house: House, announced: None
) -> None:
    one = await owned(house)
    await ended(house, one)
    await settled(house, one.store.id)
    await store_endings.step(work(house, "privacy", timedelta(minutes=2)))
    await house.carry(one.store.id)
    for service in set(SERVICES) - {"orders"}:
        await clean(house, service, timedelta(minutes=1))
        await clean(house, service, timedelta(minutes=1) + UNDER_WAY)
    await house.carry(one.store.id)
    for minutes in (20, 40):
        await store_endings.step(work(house, "privacy", timedelta(minutes=minutes)))
        await house.carry(one.store.id)
        seen = await progress(house, one.store.id)
        assert seen["erased_at"] is None
        waiting = [part["participant"] for part in seen["parts"] if part["cleaned_at"] is None]
        assert waiting == ["orders"]
    await clean(house, "orders", timedelta(minutes=1))
    await clean(house, "orders", timedelta(minutes=1) + UNDER_WAY)
    await house.carry(one.store.id)
    await store_endings.step(work(house, "privacy", timedelta(minutes=60)))
    assert (await progress(house, one.store.id))["erased_at"] is not None


@pytest.mark.parametrize("service", SERVICES)
async def test_who_hears_of_the_end_of_a_store_before_it_hears_of_the_store_has_nothing_of_it(
    house: House, service: str
) -> None:
    """They are said in two topics, and no order holds between those."""
    handlers, store_id = handlers_of(service), uuid4()
    database = house.database(service)
    await deliver(handlers, database, store_id, StoreKeysDestroyed(store_id=store_id))
    for later in (timedelta(minutes=1), timedelta(minutes=1) + UNDER_WAY):
        await clean(house, service, later)
    late = StoreOpened(
        store_id=store_id, slug="late", name="Late", country="FR", currency="EUR", language="fr", version=1
    )
    async with database.session(store_id) as session:
        said = "SELECT count(*) FROM outbox WHERE headers ->> 'ce_type' LIKE '%store-cleaned%' AND store_id = :id"
        assert await session.scalar(text(said), {"id": store_id}) == 1
        await keep(session, late)
        assert (await known_store(session, store_id)).state == "ended"


async def test_a_crash_after_any_commit_only_delays_the_end(house: House, announced: None) -> None:
    """The keyring has destroyed, and nobody has written that down; somebody has said so, and it was not heard."""
    one = await owned(house)
    await ended(house, one)
    await settled(house, one.store.id)
    keyring = keyring_of(house.apps["privacy"].state.settings, house.apps["privacy"].state.http)
    await keyring.destroy_tenants([one.store.id])
    await store_endings.step(work(house, "privacy", timedelta(minutes=2)))
    seen = await progress(house, one.store.id)
    assert seen["keys_destroyed_at"] is not None
    async with house.database("privacy").session(one.store.id) as session:
        # The event is lost with the broker; it is said again.
        await session.execute(
            text("DELETE FROM outbox WHERE headers ->> 'ce_type' LIKE '%store-keys-destroyed%'")
        )
    await store_endings.step(work(house, "privacy", timedelta(minutes=5)))
    await house.carry(one.store.id)
    for service in SERVICES:
        for later in (timedelta(minutes=10), timedelta(minutes=10) + UNDER_WAY):
            await clean(house, service, later)
    await house.carry(one.store.id)
    await store_endings.step(work(house, "privacy", timedelta(minutes=30)))
    assert (await progress(house, one.store.id))["erased_at"] is not None


async def test_a_worker_that_dies_over_a_closed_account_is_followed_by_another(
    house: House, announced: None
) -> None:
    one = await owned(house)
    me = f"/identity/v1/stores/{one.store.id}/me/closing"
    await house.call("POST", me, json={"password": PASSWORD}, headers=one.store.customer.headers)
    await endings.end_accounts(work(house, "identity", timedelta(days=92)))
    await house.carry(one.store.id)
    with pytest.MonkeyPatch.context() as patch:

        async def dies(*_: object, **__: object) -> None:
            raise RuntimeError("killed")

        patch.setattr(closings.opening, "open_request", dies)
        with pytest.raises(RuntimeError):
            await closings.open_erasures(work(house, "privacy", timedelta(days=92)))
    assert await request_of(house, one.store.id, one.store.customer.email) is None
    await closings.open_erasures(work(house, "privacy", timedelta(days=92, minutes=1)))
    assert await request_of(house, one.store.id, one.store.customer.email) is not None


async def test_late_events_bring_nothing_back(house: House, announced: None) -> None:
    one = await owned(house)
    variant = OfferedVariant(
        variant_id=uuid4(),
        sku="PEN-9",
        title="Pen",
        price={"amount": 250, "currency": "EUR"},  # type: ignore[arg-type]
    )
    late = ProductPublished(product_id=uuid4(), handle="pen", title="Pen", variants=[variant])
    await ended(house, one)
    envelope = envelope_of(late, store_id=one.store.id, source="catalog")
    record = Record(late.topic, envelope.key, late.model_dump_json().encode(), headers_of(envelope))
    handlers = handlers_of("orders")
    consumer = Consumer(
        service="orders",
        database=house.database("orders"),
        broker=None,  # type: ignore[arg-type]
        handlers=handlers,
    )
    batch = HandedOver([record])
    await consumer._take([batch])  # pyright: ignore[reportPrivateUsage]
    assert batch.committed
    async with house.database("orders").session(one.store.id) as session:
        offered = "SELECT count(*) FROM offered_product WHERE product_id = :id"
        assert await session.scalar(text(offered), {"id": late.product_id}) == 0


async def test_who_sees_how_far_the_ends_have_come(house: House, ours: Furnished) -> None:
    path = "/privacy/v1/store-endings"
    is_problem(await house.http.get(path), 401)
    is_problem(await house.http.get(path, headers=ours.staff(Role.OWNER)), 403)
    platform = authorization(PLATFORM_STORE, Role.PRIVACY_OFFICER)
    is_problem(await house.http.get(f"{path}?cursor=bad", headers=platform), 400)
    page = await house.call("GET", f"{path}?limit=1", headers=platform)
    if page.get("next"):
        following = await house.call("GET", f"{path}?limit=1&cursor={page['next']}", headers=platform)
        assert following["items"] != page["items"]


# --- What goes, and what stays ---------------------------------------------------------------------------

GOES: Mapping[str, frozenset[str]] = {
    "catalog": frozenset({"product", "variant", "reservation", "reservation_line", "import_run"}),
    "orders": frozenset(
        {"offered_product", "offer", "cart", "cart_line", "order_counter", "orders", "order_line"}
    ),
    "identity": frozenset(
        {
            "account",
            "account_email",
            "account_settings",
            "sign_up",
            "account_session",
            "membership",
            "attempts",
        }
    ),
    "billing": frozenset({"early_order"}),
    "privacy": frozenset(
        {"attempts", "closed_account", "opendsr_key", "person_subject", "privacy_desk", "removed_email"}
    ),
}
"""With its store, in each service, beside `idempotency_record` everywhere. A new table is decided about here."""


@pytest.mark.parametrize("service", SERVICES)
async def test_of_every_table_it_is_decided_whether_it_goes_with_its_store(
    service: str, postgres: PostgresServer, house: House
) -> None:
    del house
    connection = await postgres.connect(database(service))
    tables = await connection.fetch(
        "SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attname = 'store_id'"
    )
    await connection.close()
    kept = set(ending(service).kept)
    assert {row["relname"] for row in tables} == kept | GOES[service] | {"idempotency_record"}
    assert kept.isdisjoint(GOES[service])
