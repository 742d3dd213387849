"""An erased person stays erased, also against a writer who looked a moment before."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from deploy.local.waiting import until
from libs.common.personal.errors import SubjectErased
from libs.common.personal.tombstones import bury, erased_among, guard
from tests.common.conftest import Common


async def waiting(common: Common) -> bool:
    async with common.database.platform_session() as session:
        sql = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
                   "(SELECT oid FROM pg_database WHERE datname = current_database())")  # fmt: skip
        return bool(await session.scalar(sql))


async def test_generations_up_to_the_tombstone_are_refused(common: Common) -> None:
    subject = uuid4()
    async with common.database.session(common.store_id) as session:
        await guard(session, common.store_id, subject, 1)
    async with common.database.session(common.store_id) as session:
        await bury(session, [(common.store_id, subject, 2)])
    for generation in (1, 2):
        with pytest.raises(SubjectErased):
            async with common.database.session(common.store_id) as session:
                await guard(session, common.store_id, subject, generation)
    async with common.database.session(common.store_id) as session:
        await guard(session, common.store_id, subject, 3)
        await guard(session, common.store_id, uuid4(), 1)


async def test_a_tombstone_never_steps_back(common: Common) -> None:
    subject = uuid4()
    async with common.database.session(common.store_id) as session:
        await bury(session, [(common.store_id, subject, 3), (common.store_id, subject, 2)])
    async with common.database.session(common.store_id) as session:
        await bury(session, [(common.store_id, subject, 1)])
        with pytest.raises(SubjectErased):
            await guard(session, common.store_id, subject, 3)


async def test_those_erased_among_many(common: Common) -> None:
    other_store = uuid4()
    buried = [(store, uuid4(), 2) for store in (common.store_id, other_store) for _ in range(20)]
    others = [(store, subject, 3) for store, subject, _ in buried]
    elsewhere = [(uuid4(), subject, 1) for _, subject, _ in buried]
    async with common.database.platform_session() as session:
        await bury(session, buried)
        assert await erased_among(session, [*buried, *others, *elsewhere]) == set(buried)
        assert await erased_among(session, []) == set()


async def test_a_store_sees_its_own_tombstones_only(common: Common) -> None:
    async with common.database.platform_session() as session:
        await bury(session, [(common.store_id, uuid4(), 1), (uuid4(), uuid4(), 1)])
    async with common.database.session(common.store_id) as session:
        assert await session.scalar(text("SELECT count(*) FROM erased_subject")) == 1


async def test_an_erasure_waits_for_a_writer_who_passed_the_guard(common: Common) -> None:
    subject = uuid4()
    order: list[str] = []

    async def erase() -> None:
        async with common.database.session(common.store_id) as session:
            await bury(session, [(common.store_id, subject, 1)])
            order.append("buried")

    async with common.database.session(common.store_id) as session:
        await guard(session, common.store_id, subject, 1)
        erasure = asyncio.create_task(erase())
        await until(lambda: waiting(common), 5, "the erasure did not wait")
        order.append("written")
    await erasure
    assert order == ["written", "buried"]


async def test_a_writer_who_waited_for_an_erasure_finds_the_tombstone(common: Common) -> None:
    subject = uuid4()

    async def write() -> None:
        async with common.database.session(common.store_id) as session:
            await guard(session, common.store_id, subject, 1)

    async with common.database.session(common.store_id) as session:
        await bury(session, [(common.store_id, subject, 1)])
        writer = asyncio.create_task(write())
        await until(lambda: waiting(common), 5, "the writer did not wait")
    with pytest.raises(SubjectErased):
        await writer


async def test_writers_do_not_wait_for_each_other(common: Common) -> None:
    subject = uuid4()
    async with common.database.session(common.store_id) as first, asyncio.timeout(5):
        await guard(first, common.store_id, subject, 1)
        async with common.database.session(common.store_id) as second:
            await guard(second, common.store_id, subject, 1)


async def test_batches_in_opposite_orders_do_not_deadlock(common: Common) -> None:
    subjects = [(common.store_id, uuid4(), 1) for _ in range(100)]

    async def run(work: Callable[..., Awaitable[Any]], items: list[Any]) -> None:
        async with common.database.platform_session() as session:
            await work(session, items)

    async with asyncio.timeout(20):
        await asyncio.gather(*(
            run(work, items) for work in (bury, erased_among, bury) for items in (subjects, subjects[::-1])
        ))  # fmt: skip
