"""What the embedded log promises beyond the contract: shares, retention, rights."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.databases import OWNER, app_role
from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until
from libs.common.broker import Record, Subscription
from libs.common.broker.postgres import EmbeddedBroker
from libs.common.broker.postgres_member import fair_share
from libs.common.migrations import upgrade


@pytest.fixture
async def url(postgres: PostgresServer, environment: object) -> str:
    """A database of its own: retention looks at every topic."""
    name = f"broker_{uuid4().hex}"
    connection = await postgres.connect()
    await connection.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
    await connection.close()
    await upgrade("libs.common.broker", postgres.url(name, OWNER), app_role("broker"))
    return postgres.url(name, app_role("broker"))


@pytest.fixture
async def broker(url: str) -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(url)
    await broker.start()
    await broker.ensure_topics(["t"])
    yield broker
    await broker.stop()


async def values(subscription: Subscription, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        batch = await anext(aiter(subscription))
        found += [record.value for record in batch.records]
        await batch.commit()
    return found


async def test_retention_spares_what_a_group_has_not_read(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.publish([Record("t", "a", b"read")] * 4)
    async with broker.subscribe("slow", ["t"]) as subscription:
        await values(subscription, 4)
    await broker.publish([Record("t", "a", b"unread")] * 3)

    assert await broker.purge(timedelta(hours=1)) == 0
    assert not caplog.records
    with caplog.at_level(logging.ERROR):
        assert await broker.purge(timedelta(0)) == 4
    assert [vars(record)["count"] for record in caplog.records] == [3]

    async with broker.subscribe("new", ["t"]) as subscription:
        assert await values(subscription, 3) == [b"unread"] * 3
        assert await subscription.lag() == 0
    async with broker.subscribe("slow", ["t"]) as subscription:
        assert await values(subscription, 3) == [b"unread"] * 3
    caplog.clear()
    assert await broker.purge(timedelta(0)) == 3
    assert not caplog.records


async def test_a_call_is_in_the_log_whole_or_not_at_all(broker: EmbeddedBroker, url: str) -> None:
    with pytest.raises(Exception, match="does not exist"):
        await broker.publish([Record("t", "a", b"0"), Record("unknown", "a", b"1"), Record("t", "b", b"2")])
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM record") == 0
        assert await connection.fetchval("SELECT sum(next_offset) FROM topic_partition") == 0
    finally:
        await connection.close()


async def test_leaving_gives_everything_back_at_once(broker: EmbeddedBroker, url: str) -> None:
    async with broker.subscribe("g", ["t"]) as subscription:
        await broker.publish([Record("t", "a", b"0")])
        await values(subscription, 1)
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM member") == 0
        assert await connection.fetchval("SELECT count(*) FROM assignment WHERE member IS NULL") == 8
    finally:
        await connection.close()


@given(
    members=st.lists(st.uuids(), min_size=1, max_size=20, unique=True),
    partitions=st.integers(0, 40),
    turn=st.integers(0, 2**32 - 1),
)
def test_shares_add_up_and_differ_by_at_most_one(members: list[UUID], partitions: int, turn: int) -> None:
    shares = [fair_share(members, member, partitions, turn=turn) for member in members]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1


_STOPS_IN_A_TRANSACTION = """
import asyncio, os, signal, sys
from asyncpg import Connection
from libs.common.broker.postgres import EmbeddedBroker
from libs.common.broker.postgres_member import _TENURES, Member

def stop(*_):
    os.kill(os.getpid(), signal.SIGSTOP)

async def prepare_and_stop(connection, query, *arguments, **options):
    statement = await prepare(connection, query, *arguments, **options)
    if query == _TENURES:
        stop()
    return statement

prepare = Connection._get_statement
if sys.argv[2] == "between-statements":
    Member._compare_to_fair_share = stop
else:
    Connection._get_statement = prepare_and_stop

async def main():
    broker = EmbeddedBroker(sys.argv[1], timeout=3, lease_seconds=1.5)
    await broker.start()
    async with broker.subscribe("g", ["t"]):
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["between-statements", "within-a-statement"])
async def test_a_member_stopped_in_its_transaction_does_not_stop_the_group(
    broker: EmbeddedBroker, url: str, where: str
) -> None:
    await broker.publish([Record("t", "a", b"0")])
    stopped = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _STOPS_IN_A_TRANSACTION, url, where), cwd=Path(__file__).parents[3]
    )
    try:
        await until(lambda: _is_stopped(stopped.pid), 30, "the member did not stop")
        async with asyncio.timeout(30), broker.subscribe("g", ["t"]) as subscription:
            assert await values(subscription, 1) == [b"0"]
    finally:
        stopped.kill()
        await stopped.wait()


async def _is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED
