"""Events leave with the transaction that made them true, in order per key, whatever fails on the way."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common import outbox
from libs.common.broker import BrokerUnavailable, Record
from libs.common.events import Event
from libs.common.outbox import Relay, publish
from tests.common.conftest import Common


class CounterMoved(
    Event, type="vitrine.testing.counter-moved.v1", topic="testing.counters", key="counter_id"
):
    counter_id: UUID
    value: int
    filler: str = ""


class Recorder:
    """A broker's publishing side that can refuse; the real ones have a contract suite of their own."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.topics: set[str] = set()
        self.refusing = False
        self.identity = "first"
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    async def publish(self, records: Sequence[Record]) -> None:
        if self.refusing:
            raise BrokerUnavailable
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        self.records += records

    async def cluster_id(self) -> str:
        return self.identity

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        self.topics |= set(topics)


def relay(common: Common, broker: Recorder) -> Relay:
    return Relay(common.database, broker)  # type: ignore[arg-type]


async def move(common: Common, counter: UUID, value: int, *, fail: bool = False) -> None:
    async with common.database.session(common.store_id) as session:
        await publish(
            session, CounterMoved(counter_id=counter, value=value), store_id=common.store_id, source="testing"
        )
        if fail:
            raise RuntimeError("after the event was added")


async def test_an_event_of_a_command_that_failed_is_never_sent(common: Common) -> None:
    broker = Recorder()
    with pytest.raises(RuntimeError):
        await move(common, uuid4(), 1, fail=True)
    assert await relay(common, broker).sweep() == 0
    assert broker.records == []


async def test_a_record_carries_the_attributes_of_cloudevents(common: Common) -> None:
    broker, counter = Recorder(), uuid4()
    await move(common, counter, 1)
    await relay(common, broker).sweep()
    [record] = broker.records
    assert record.key == f"{common.store_id}:{counter}"
    assert record.headers["ce_type"] == "vitrine.testing.counter-moved.v1"
    assert record.headers["ce_subject"] == str(counter)
    assert record.headers["ce_specversion"] == "1.0"
    assert UUID(record.headers["ce_id"])


async def test_order_per_key_survives_many_relays(common: Common) -> None:
    broker = Recorder()
    counters = [uuid4() for _ in range(20)]
    relays = [relay(common, broker) for _ in range(3)]

    async def write(counter: UUID) -> None:
        for value in range(15):
            await move(common, counter, value)

    async def carry(one: Relay) -> None:
        while len(broker.records) < 300:
            await one.sweep()

    async with asyncio.timeout(30):
        await asyncio.gather(*(write(counter) for counter in counters), *(carry(one) for one in relays))
    for counter in counters:
        values = [_value(record) for record in broker.records if record.key.endswith(str(counter))]
        assert values == list(range(15))


def _value(record: Record) -> int:
    return CounterMoved.model_validate_json(record.value).value


async def test_what_the_broker_refused_is_sent_later_and_nothing_else_is_marked(common: Common) -> None:
    broker, counter = Recorder(), uuid4()
    await move(common, counter, 1)
    broker.refusing = True
    with pytest.raises(BrokerUnavailable):
        await relay(common, broker).sweep()
    assert (await outbox.backlog(common.database))[0] == 1
    broker.refusing = False
    assert await relay(common, broker).sweep() == 1
    assert (await outbox.backlog(common.database))[0] == 0


async def test_a_bucket_in_hand_is_left_alone_by_other_relays(common: Common) -> None:
    slow, other, counter = Recorder(), Recorder(), uuid4()
    slow.gate = asyncio.Event()
    await move(common, counter, 1)
    sending = asyncio.create_task(relay(common, slow).sweep())
    async with asyncio.timeout(10):
        await slow.entered.wait()
    await move(common, counter, 2)
    assert await relay(common, other).sweep() == 0
    slow.gate.set()
    await sending
    assert await relay(common, other).sweep() == 1
    assert [_value(record) for record in slow.records + other.records] == [1, 2]


async def test_a_broker_that_lost_its_log_gets_everything_again(common: Common) -> None:
    broker, counter = Recorder(), uuid4()
    one = relay(common, broker)
    await one._notice_a_lost_broker()  # pyright: ignore[reportPrivateUsage]
    await move(common, counter, 1)
    await one.sweep()
    broker.identity = "second"
    broker.topics.clear()
    one._look_at_cluster_at = 0.0  # pyright: ignore[reportPrivateUsage]
    await one._notice_a_lost_broker()  # pyright: ignore[reportPrivateUsage]
    assert await one.sweep() == 1
    assert broker.topics == {"testing.counters"}
    assert [record.headers["ce_id"] for record in broker.records] == [broker.records[0].headers["ce_id"]] * 2


async def test_an_event_no_broker_would_take_fails_its_command(common: Common) -> None:
    with pytest.raises(ValueError, match="larger than a record"):
        async with common.database.session(common.store_id) as session:
            large = CounterMoved(counter_id=uuid4(), value=1, filler="x" * 1_000_001)
            await publish(session, large, store_id=common.store_id, source="testing")
    assert (await outbox.backlog(common.database))[0] == 0


async def test_a_running_relay_wakes_at_the_hint(common: Common) -> None:
    broker = Recorder()
    one = relay(common, broker)
    running = asyncio.create_task(one.run())
    try:
        await move(common, uuid4(), 1)
        async with asyncio.timeout(10):
            await broker.entered.wait()
    finally:
        one.stop()
        await running
    assert len(broker.records) == 1


async def test_sent_events_are_kept_for_a_week_and_then_purged(common: Common) -> None:
    broker = Recorder()
    await move(common, uuid4(), 1)
    await relay(common, broker).sweep()
    assert await outbox.purge(common.database) == 0
    async with common.database.platform_session() as session:
        await session.execute(text("UPDATE outbox SET sent_at = now() - interval '8 days'"))
    assert await outbox.purge(common.database) == 1


async def test_a_store_cannot_write_into_anothers_outbox(common: Common) -> None:
    with pytest.raises(Exception, match="row-level security"):
        async with common.database.session(common.store_id) as session:
            event = CounterMoved(counter_id=uuid4(), value=1)
            await publish(session, event, store_id=uuid4(), source="testing")


async def rows(common: Common, store_id: Any) -> int:
    async with common.database.session(store_id) as session:
        return int((await session.execute(text("SELECT count(*) FROM outbox"))).scalar_one())


async def test_a_session_sees_the_rows_of_its_own_store(common: Common) -> None:
    await move(common, uuid4(), 1)
    assert await rows(common, common.store_id) == 1
    assert await rows(common, uuid4()) == 0
    assert await rows(common, "") == 0
