"""An identity service from before somebody closed their account, or came back, learns of it; where it knows better, it
says so.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from libs.common.auth import PLATFORM_STORE
from libs.common.broker import Record
from libs.common.events import Received, envelope_of
from libs.common.events.privacy import ClosingRemembered
from services.identity.consumer import HANDLERS
from tests.identity.conftest import Person, World
from tests.identity.test_closing import clocks_of, close, closed, ends_of, run

DAY = datetime(2031, 5, 1, tzinfo=UTC)


async def hear(world: World, person: Person, ends_at: datetime | None, version: int) -> None:
    """What the privacy service tells a restored identity service."""
    subject_id = await world.parts.vault.subject_id(person.store_id, person.email)
    told = ClosingRemembered(subject_id=subject_id, generation=1, ends_at=ends_at, version=version)
    envelope = envelope_of(told, store_id=person.store_id, source="privacy")
    handler: Any = HANDLERS[ClosingRemembered]
    async with world.parts.database.session(person.store_id) as session:
        await handler(session, Received(told, envelope, Record(told.topic, envelope.key, b"")))


async def account(world: World, person: Person) -> Any:
    subject_id = await world.parts.vault.subject_id(person.store_id, person.email)
    async with world.parts.database.session(person.store_id) as session:
        rows = await session.execute(
            text("SELECT id, closed_at, ends_at, version FROM account WHERE subject_id = :id"),
            {"id": subject_id},
        )
        return rows.one()


@pytest.fixture(autouse=True)
async def restored(world: World) -> None:
    """Whoever signed in until a test begins did so before the restore."""
    async with world.parts.database.session(PLATFORM_STORE) as session:
        await session.execute(text("DELETE FROM restoration"))


async def is_restored(world: World) -> None:
    async with world.parts.database.session(PLATFORM_STORE) as session:
        await session.execute(text("INSERT INTO restoration (taken_at) VALUES (now())"))


async def test_who_had_closed_their_account_is_closed_again_until_the_same_day(
    world: World, store_id: UUID
) -> None:
    person = await world.person(store_id)
    await is_restored(world)
    await hear(world, person, DAY, 7)
    now = await account(world, person)
    assert (now.ends_at, now.version) == (DAY, 7)
    assert (await world.refresh(store_id, person.refresh_token)).status_code == 401
    # The period runs already, and they can come back as they were told.
    assert await clocks_of(world, person) == []
    assert (await world.sign_in(store_id, person.email)).status_code == 200
    assert [what for what, _ in await clocks_of(world, person)] == ["stopped"]
    assert (await account(world, person)).version == 8


async def test_a_day_that_is_over_ends_the_account(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    await is_restored(world)
    await hear(world, person, datetime.now(UTC) - timedelta(hours=1), 7)
    assert (await world.sign_in(store_id, person.email)).status_code == 401
    await run(world)
    assert len(await ends_of(world, person)) == 1


async def test_who_had_come_back_is_not_ended(world: World, store_id: UUID) -> None:
    person = await closed(world, store_id)
    await is_restored(world)
    await hear(world, person, None, 3)
    assert (await account(world, person)).ends_at is None
    world.clock.ahead = timedelta(days=91)
    await run(world)
    assert await ends_of(world, person) == []


async def test_who_has_signed_in_since_the_restore_stays_and_their_period_is_stopped(
    world: World, store_id: UUID
) -> None:
    person = await world.person(store_id)
    await is_restored(world)
    assert (await world.sign_in(store_id, person.email)).status_code == 200
    await hear(world, person, DAY, 7)
    now = await account(world, person)
    assert (now.ends_at, now.version) == (None, 8)
    assert [what for what, _ in await clocks_of(world, person)] == ["stopped"]


async def test_who_has_closed_their_account_since_the_restore_has_the_day_they_were_told_last(
    world: World, store_id: UUID
) -> None:
    person = await world.person(store_id)
    await is_restored(world)
    until = datetime.fromisoformat((await close(world, person)).json()["ends_at"])
    await hear(world, person, DAY, 2)
    now = await account(world, person)
    assert (now.ends_at, now.version) == (until, 3)
    assert [datetime.fromisoformat(at) for _, at in await clocks_of(world, person)] == [until, until]


async def test_what_happens_next_is_above_all_that_was_heard(world: World, store_id: UUID) -> None:
    """Closed and opened again since the backup: the next closing must not look like an old one."""
    person = await world.person(store_id)
    await is_restored(world)
    await hear(world, person, None, 5)
    await close(world, person)
    assert (await account(world, person)).version == 6


async def test_an_owner_is_not_taken_from_a_store_that_is_open_again(world: World, merchant: Person) -> None:
    owner = await world.person(PLATFORM_STORE)
    await world.open_store(owner)
    await is_restored(world)
    await hear(world, owner, DAY, 7)
    assert (await account(world, owner)).ends_at is None
    assert [what for what, _ in await clocks_of(world, owner)] == ["stopped"]


async def test_of_whoever_is_not_here_nothing_is_made(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    id_ = (await account(world, person)).id
    async with world.parts.database.session(store_id) as session:
        await session.execute(text("DELETE FROM account WHERE id = :id"), {"id": id_})
    await hear(world, person, DAY, 7)
    assert await clocks_of(world, person) == []
