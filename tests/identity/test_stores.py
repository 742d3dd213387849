"""Stores are opened by merchants, changed by their owners, and seen by everybody."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from libs.common.auth import PLATFORM_STORE
from libs.common.outbox import OutboxRow
from tests.identity.conftest import Person, World, a_slug

FACTS = {"name": "Papeterie", "country": "FR", "currency": "EUR", "language": "fr"}


async def _events(world: World, store_id: UUID) -> list[dict[str, Any]]:
    async with world.parts.database.session(store_id) as session:
        rows = await session.scalars(
            select(OutboxRow).where(OutboxRow.topic == "identity.stores").order_by(OutboxRow.id)
        )
        return [json.loads(row.payload) for row in rows]


async def test_a_merchant_opens_a_store(world: World, merchant: Person) -> None:
    slug = a_slug()
    answer = await world.http.post(
        "/identity/v1/stores", json={**FACTS, "slug": slug}, headers=merchant.headers
    )
    assert answer.status_code == 201
    store = answer.json()
    assert answer.headers["location"] == f"/identity/v1/stores/{store['id']}"
    shown = await world.http.get(f"/identity/v1/stores/{store['id']}")
    assert shown.json() == store == {**FACTS, "id": store["id"], "slug": slug, "version": 1, "state": "open"}
    assert shown.headers["etag"] == '"1"'
    assert (await world.http.get(f"/identity/v1/stores/by-slug/{slug}")).json() == store
    assert await _events(world, UUID(store["id"])) == [
        {**FACTS, "store_id": store["id"], "slug": slug, "version": 1}
    ]


async def test_the_platforms_own_store_is_there_and_announced(world: World) -> None:
    assert (await world.http.get(f"/identity/v1/stores/{PLATFORM_STORE}")).json()["slug"] == "vitrine"
    assert [event["slug"] for event in await _events(world, PLATFORM_STORE)] == ["vitrine"]


async def test_sending_it_again_opens_one_store(world: World, merchant: Person) -> None:
    headers = merchant.headers | {"Idempotency-Key": str(uuid4())}
    body = {**FACTS, "slug": a_slug()}
    answers = await asyncio.gather(
        *(world.http.post("/identity/v1/stores", json=body, headers=headers) for _ in range(6))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    other = await world.http.post("/identity/v1/stores", json={**body, "slug": a_slug()}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")


async def test_an_address_name_belongs_to_one_store(world: World, merchant: Person) -> None:
    store_id = await world.open_store(merchant, slug=(slug := a_slug()))
    again = await world.http.post(
        "/identity/v1/stores", json={**FACTS, "slug": slug}, headers=merchant.headers
    )
    assert (again.status_code, again.json()["type"]) == (409, "/problems/slug-taken")
    owner = await world.staff(merchant, store_id)
    renamed = await world.http.patch(
        f"/identity/v1/stores/{store_id}",
        json={"slug": "vitrine"},
        headers=owner.headers | {"If-Match": '"1"'},
    )
    assert (renamed.status_code, renamed.json()["type"]) == (409, "/problems/slug-taken")


async def test_only_accounts_of_the_platform_open_stores(world: World, store_id: UUID) -> None:
    customer = await world.person(store_id)
    body = {**FACTS, "slug": a_slug()}
    assert (await world.http.post("/identity/v1/stores", json=body)).status_code == 401
    assert (await world.http.get("/identity/v1/stores")).status_code == 401
    refused = await world.http.post("/identity/v1/stores", json=body, headers=customer.headers)
    assert refused.status_code == 403
    assert (await world.http.get("/identity/v1/stores", headers=customer.headers)).status_code == 403


@pytest.mark.parametrize(
    "change",
    [
        {"slug": "UPPER"},
        {"slug": "-a-"},
        {"slug": "x" * 64},
        {"slug": None},
        {"name": ""},
        {"name": "nul\x00"},
        {"name": "n" * 101},
        {"country": "France"},
        {"currency": "euro"},
        {"language": "tlh"},
        {"owner": "me"},
    ],
)
async def test_bad_facts_are_refused(
    world: World, shared_merchant: Person, change: dict[str, object]
) -> None:
    body = {**FACTS, "slug": a_slug()} | change
    answer = await world.http.post("/identity/v1/stores", json=body, headers=shared_merchant.headers)
    assert answer.status_code == 422
    assert "France" not in answer.text


@pytest.fixture(scope="module")
async def shared_merchant(shared_world: World) -> Person:
    return await shared_world.person(PLATFORM_STORE)


async def test_a_merchant_finds_their_stores(world: World, merchant: Person, store_id: UUID) -> None:
    mine = [await world.open_store(merchant) for _ in range(3)]
    first = (await world.http.get("/identity/v1/stores?limit=2", headers=merchant.headers)).json()
    rest = (
        await world.http.get(
            "/identity/v1/stores", params={"cursor": first["next"]}, headers=merchant.headers
        )
    ).json()
    found = first["items"] + rest["items"]
    assert [UUID(store["id"]) for store in found] == mine
    assert {store["role"] for store in found} == {"owner"}
    assert rest["next"] is None
    bad = await world.http.get("/identity/v1/stores?cursor=x", headers=merchant.headers)
    assert bad.status_code == 400


async def test_an_owner_changes_the_facts(world: World, merchant: Person) -> None:
    store_id = await world.open_store(merchant)
    owner = await world.staff(merchant, store_id)
    path = f"/identity/v1/stores/{store_id}"
    assert (await world.http.patch(path, json={"name": "New"}, headers=owner.headers)).status_code == 428
    answers = await asyncio.gather(
        *(
            world.http.patch(path, json={"name": f"New {n}"}, headers=owner.headers | {"If-Match": '"1"'})
            for n in range(4)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    events = await _events(world, store_id)
    assert [event["version"] for event in events] == [1, 2]
    assert events[-1]["name"] == (await world.http.get(path)).json()["name"]


async def test_nobody_else_changes_them(world: World, merchant: Person, store_id: UUID) -> None:
    mine = await world.open_store(merchant)
    owner = await world.staff(merchant, mine)
    customer = await world.person(mine)
    change = {"name": "New"}
    match = {"If-Match": '"1"'}
    path = f"/identity/v1/stores/{mine}"
    assert (await world.http.patch(path, json=change, headers=match)).status_code == 401
    assert (await world.http.patch(path, json=change, headers=customer.headers | match)).status_code == 403
    foreign = await world.http.patch(
        f"/identity/v1/stores/{store_id}", json=change, headers=owner.headers | match
    )
    unknown = await world.http.patch(
        f"/identity/v1/stores/{uuid4()}", json=change, headers=owner.headers | match
    )
    assert (foreign.status_code, foreign.content) == (404, unknown.content)
    for bad in ({"currency": "USD"}, {"name": None}, {"slug": "-"}):
        answer = await world.http.patch(path, json=bad, headers=owner.headers | match)
        assert answer.status_code == 422


async def test_unknown_stores_are_not_there(world: World) -> None:
    assert (await world.http.get(f"/identity/v1/stores/{uuid4()}")).status_code == 404
    assert (await world.http.get(f"/identity/v1/stores/by-slug/{a_slug()}")).status_code == 404
    assert (await world.http.get("/identity/v1/stores/by-slug/%00")).status_code == 422
    assert (await world.http.get("/identity/v1/stores/nowhere")).status_code == 422


async def test_a_method_that_is_not_there_is_told_which_are(world: World, store_id: UUID) -> None:
    answer = await world.http.put(f"/identity/v1/stores/{store_id}", json={})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, PATCH")
    answer = await world.http.delete("/identity/v1/stores")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
