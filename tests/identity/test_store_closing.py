"""A closed store sells nothing and takes nobody new; its owner opens it again, or it ends for good."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from deploy.local.waiting import until
from libs.common.auth import PLATFORM_STORE, Caller, Role
from libs.common.ending import UNDER_WAY
from libs.common.events import Event
from libs.common.events.identity import StoreClosed, StoreEnded, StoreReopened
from libs.common.events.privacy import StoreCleaned, StoreErased, StoreKeysDestroyed
from libs.common.mail import render
from services.identity import consumer, endings
from services.identity.domain import CannotBeClosed
from services.identity.service import store_closing
from tests.deliveries import deliver
from tests.identity.conftest import Person, World, an_email
from tests.identity.test_closing import close as close_account
from tests.identity.test_closing import templates, work_of
from tests.privacy.keyring.conftest import RunningKeyring

pytestmark = pytest.mark.usefixtures("signs")

NAME = {"name": "Papeterie"}


@pytest.fixture
async def shop(world: World, merchant: Person) -> UUID:
    return await world.open_store(merchant)


@pytest.fixture
async def owner(world: World, merchant: Person, shop: UUID) -> Person:
    return await world.staff(merchant, shop)


def path_of(shop: UUID) -> str:
    return f"/identity/v1/stores/{shop}/closing"


async def close(world: World, owner: Person, name: str = "Papeterie") -> Any:
    return await world.http.post(path_of(owner.store_id), json={"name": name}, headers=owner.headers)


async def closed(world: World, owner: Person) -> None:
    answer = await close(world, owner)
    assert answer.status_code == 200, answer.text
    await known_as(world, owner.store_id, "closed")


async def known_as(world: World, shop: UUID, state: str) -> None:
    """Until this process has heard of it."""

    async def heard() -> bool:
        return world.app.state.stores.of(shop) == state

    await until(heard, 10, f"the store is not known to be {state}")


async def published(world: World, shop: UUID, contract: type[Event]) -> list[Any]:
    async with world.parts.database.session(shop) as session:
        rows = await session.scalars(
            text(
                "SELECT payload FROM outbox WHERE headers ->> 'ce_type' = :type AND store_id = :store ORDER BY id"
            ),
            {"type": contract.type, "store": shop},
        )
        return [contract.model_validate_json(row) for row in rows]


async def rows_of(world: World, shop: UUID) -> Mapping[str, int]:
    """By table, what is left of a store."""
    catalogue = """
        SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attname = 'store_id'
    """
    async with world.parts.database.session(shop) as session:
        names = (await session.scalars(text(catalogue))).all()
        counts = {
            name: (await session.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one() for name in names
        }
    return {name: count for name, count in counts.items() if count}


# --- Closing ---------------------------------------------------------------------------------------------


async def test_the_owner_closes_a_store_by_typing_its_name(
    world: World, merchant: Person, owner: Person
) -> None:
    for wrong in ("Another", "papeterie"):
        answer = await close(world, owner, wrong)
        assert answer.status_code == 422
        assert answer.json()["type"] == "/problems/name-does-not-match"
    answer = await close(world, owner)
    assert (answer.status_code, answer.json()["state"]) == (200, "closed")
    ends_at = datetime.fromisoformat(answer.json()["ends_at"])
    assert timedelta(days=30) <= ends_at - datetime.now(UTC) + timedelta(minutes=1) < timedelta(days=31)
    [event] = await published(world, owner.store_id, StoreClosed)
    assert (event.store_id, event.version) == (owner.store_id, 2)
    letter = (await world.letters(PLATFORM_STORE, merchant.email))[-1]
    assert letter.template == "store-closed"
    _, body = render("identity", letter.template, letter.language, letter.values)
    assert "open it again up to and including" in body
    shown = await world.http.get(path_of(owner.store_id), headers=owner.headers)
    assert shown.json() == answer.json()


async def test_who_may_close_a_store(world: World, owner: Person, shop: UUID) -> None:
    other = await world.open_store(await world.person(PLATFORM_STORE))
    customer = await world.person(shop)
    for method in ("POST", "GET", "DELETE"):
        options: dict[str, Any] = {"json": NAME} if method == "POST" else {}
        assert (await world.http.request(method, path_of(shop), **options)).status_code == 401
        refused = await world.http.request(method, path_of(shop), headers=customer.headers, **options)
        assert refused.status_code == 403
        unknown = await world.http.request(method, path_of(other), headers=owner.headers, **options)
        assert unknown.status_code == 404
    assert await published(world, shop, StoreClosed) == []


async def test_the_platforms_own_store_stays(world: World) -> None:
    # Nobody is its owner by a sign-in; whoever was made one cannot close it either.
    caller = Caller(uuid4(), PLATFORM_STORE, Role.OWNER, uuid4())
    with pytest.raises(CannotBeClosed):
        await store_closing.close_store(world.parts, caller=caller, name="Vitrine")


async def test_twice_is_once(world: World, merchant: Person, owner: Person) -> None:
    answers = await asyncio.gather(*(close(world, owner) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert (await templates(world, merchant)).count("store-closed") == 1
    assert len(await published(world, owner.store_id, StoreClosed)) == 1


async def test_a_closed_store_takes_nobody_new_and_those_it_has_go_on(
    world: World, owner: Person, shop: UUID
) -> None:
    customer = await world.person(shop)
    await closed(world, owner)
    refused = await world.sign_up(shop, an_email())
    assert refused.status_code == 403
    assert refused.json()["type"] == "/problems/store-closed"
    assert refused.headers["content-type"] == "application/problem+json"
    changed = await world.http.patch(
        f"/identity/v1/stores/{shop}", json={"name": "Another"}, headers=owner.headers | {"If-Match": "*"}
    )
    assert changed.status_code == 403
    assert (await world.sign_in(shop, customer.email)).status_code == 200
    me = f"/identity/v1/stores/{shop}/me"
    assert (await world.http.get(me, headers=customer.headers)).status_code == 200
    assert (await close_account(world, customer)).status_code == 200
    shown = await world.http.get(f"/identity/v1/stores/{shop}")
    assert shown.json()["state"] == "closed"
    assert (
        await world.http.get(f"/identity/v1/stores/{shop}/settings", headers=owner.headers)
    ).status_code == 200


# --- Opening again ---------------------------------------------------------------------------------------


async def test_the_owner_opens_it_again_as_it_was(
    world: World, merchant: Person, owner: Person, shop: UUID
) -> None:
    assert (await world.http.delete(path_of(shop), headers=owner.headers)).status_code == 409
    await closed(world, owner)
    opened = await world.http.delete(path_of(shop), headers=owner.headers)
    assert (opened.status_code, opened.json()["state"]) == (200, "open")
    await known_as(world, shop, "open")
    assert (await world.sign_up(shop, an_email())).status_code == 202
    [event] = await published(world, shop, StoreReopened)
    assert event.version == 3
    assert (await templates(world, merchant))[-1] == "store-reopened"
    world.clock.ahead = timedelta(days=400)
    await endings.end_stores(work_of(world))
    assert await published(world, shop, StoreEnded) == []


async def test_a_week_before_the_end_the_owner_is_told_once_more(
    world: World, merchant: Person, owner: Person
) -> None:
    await closed(world, owner)
    for days, mails in ((20, 0), (25, 1), (26, 1)):
        world.clock.ahead = timedelta(days=days)
        await endings.remind_stores(work_of(world))
        assert (await templates(world, merchant)).count("store-ends-soon") == mails


async def test_opening_again_races_the_end(world: World, merchant: Person, shop: UUID) -> None:
    owner = await world.staff(merchant, shop)
    await closed(world, owner)
    async with world.parts.database.session(shop) as session:
        soon = "UPDATE store SET ends_at = now() + interval '1 second' WHERE store_id = :store"
        await session.execute(text(soon), {"store": shop})
    late = work_of(world)
    object.__setattr__(late, "clock", lambda: datetime.now(UTC) + timedelta(seconds=2))
    opened, _ = await asyncio.gather(
        world.http.delete(path_of(shop), headers=owner.headers), endings.end_stores(late)
    )
    ended = await published(world, shop, StoreEnded)
    assert (opened.status_code == 200) is not bool(ended), (opened.status_code, ended)


# --- The end ---------------------------------------------------------------------------------------------


async def test_the_end_of_a_store_removes_what_no_law_keeps_and_tells_its_owner(
    world: World, merchant: Person, owner: Person, shop: UUID, keyring: RunningKeyring
) -> None:
    customer = await world.person(shop)
    assert (await world.sign_up(shop, an_email())).status_code == 202
    await closed(world, owner)
    work = work_of(world)
    world.clock.ahead = timedelta(days=32)
    await endings.end_stores(work)
    await endings.end_stores(work)
    [ended] = await published(world, shop, StoreEnded)
    await known_as(world, shop, "ended")
    world.clock.ahead = timedelta()
    for answer in (
        await world.sign_in(shop, customer.email),
        await world.http.get(f"/identity/v1/stores/{shop}"),
        await world.http.delete(path_of(shop), headers=owner.headers),
    ):
        assert answer.status_code == 410
        assert answer.json()["type"] == "/problems/store-ended"
    assert ended.version == 3

    while (await keyring.client("privacy").destroy_tenants([shop]))[0]:
        pass
    database = world.parts.database
    await deliver(consumer.HANDLERS, database, shop, StoreKeysDestroyed(store_id=shop))
    await cleaned(world)
    assert await published(world, shop, StoreCleaned) == []
    world.clock.ahead = UNDER_WAY + timedelta(seconds=10)
    await cleaned(world)
    [said] = await published(world, shop, StoreCleaned)
    assert {kept.table: kept.count for kept in said.kept} == {"store": 1}
    # The outbox says so until it has been sent, and forgets by itself; so does the spool of mails.
    left = (await rows_of(world, shop)).keys() - {"outbox", "waiting_letter"}
    assert left == {"store", "known_store"}

    erased = StoreErased(store_id=shop, kept_until=date(2036, 12, 31))
    await deliver(consumer.HANDLERS, database, shop, erased, erased)
    await endings.tell_former_owners(work)
    await endings.tell_former_owners(work)
    letters = await world.letters(PLATFORM_STORE, merchant.email)
    assert [letter.template for letter in letters].count("store-erased") == 1
    assert letters[-1].values["until"] == "December 31, 2036"
    async with database.session(shop) as session:
        closed_by = "SELECT closed_by FROM store WHERE store_id = :store"
        assert await session.scalar(text(closed_by), {"store": shop}) is None
    # Nothing is left to own, so the owner may go as well.
    world.clock.ahead = timedelta()
    assert (await close_account(world, merchant)).status_code == 200


async def cleaned(world: World) -> None:
    """Everything that is due now."""
    async with asyncio.timeout(20):
        while await consumer.ENDINGS.clean(work_of(world)):
            pass


async def test_a_store_that_came_back_from_before_its_end_ends_again(world: World, shop: UUID) -> None:
    """A restored database says that it is open."""
    gone = StoreKeysDestroyed(store_id=shop)
    await deliver(consumer.HANDLERS, world.parts.database, shop, gone)
    await deliver(consumer.HANDLERS, world.parts.database, shop, gone)
    assert (await world.http.get(f"/identity/v1/stores/{shop}")).status_code == 410
    assert len(await published(world, shop, StoreEnded)) == 1
    await known_as(world, shop, "ended")


async def test_whoever_is_asked_again_says_it_again(world: World, owner: Person, shop: UUID) -> None:
    destroyed = StoreKeysDestroyed(store_id=shop)
    database = world.parts.database
    await deliver(consumer.HANDLERS, database, shop, destroyed)
    await cleaned(world)
    await deliver(consumer.HANDLERS, database, shop, destroyed)
    assert await published(world, shop, StoreCleaned) == []
    world.clock.ahead = UNDER_WAY + timedelta(seconds=10)
    await cleaned(world)
    await deliver(consumer.HANDLERS, database, shop, destroyed)
    assert len(await published(world, shop, StoreCleaned)) == 2


async def test_what_was_under_way_is_found_when_the_rows_are_read_again(
    world: World, owner: Person, shop: UUID
) -> None:
    await deliver(consumer.HANDLERS, world.parts.database, shop, StoreKeysDestroyed(store_id=shop))
    await cleaned(world)
    async with world.parts.database.session(shop) as session:
        late = "INSERT INTO account_settings (store_id, grace_days, version) VALUES (:store, 3, 1)"
        await session.execute(text(late), {"store": shop})
    world.clock.ahead = UNDER_WAY + timedelta(seconds=10)
    await cleaned(world)
    assert len(await published(world, shop, StoreCleaned)) == 1
    assert "account_settings" not in await rows_of(world, shop)
