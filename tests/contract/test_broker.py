"""What every broker promises, asked of each on a real server."""

import asyncio
import contextlib
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.waiting import until
from libs.common.broker import (
    MAXIMUM_RECORD_BYTES,
    Batch,
    Broker,
    BrokerError,
    BrokerUnavailable,
    Fenced,
    Record,
    RecordTooLarge,
    Subscription,
)
from tests.contract.brokers import TIMEOUT, ApacheKafka, EmbeddedServer, Server, adapter

_PATIENCE = 60.0

NewBroker = Callable[..., Awaitable[Broker]]


@pytest.fixture(scope="module", params=[EmbeddedServer, ApacheKafka], ids=["embedded", "kafka"])
async def server(request: pytest.FixtureRequest, session_folder: Path) -> AsyncIterator[Server]:
    """A server of its own, since these tests kill it. Each test leaves it running."""
    server: Server = request.param(session_folder)
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def new_broker(server: Server) -> AsyncIterator[NewBroker]:
    """Makes started adapters and stops them after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def new(batch_size: int = 500) -> Broker:
            broker = adapter(server.kind, server.address, server.silence, batch_size)
            stack.push_async_callback(broker.stop)
            await broker.start()
            return broker

        yield new


@pytest.fixture
async def broker(new_broker: NewBroker) -> Broker:
    return await new_broker()


@pytest.fixture
def topic() -> str:
    return f"contract.t{uuid4().hex}"


@pytest.fixture
async def ready_topic(broker: Broker, topic: str) -> str:
    await broker.ensure_topics([topic])
    return topic


@pytest.fixture
def group() -> str:
    return f"contract-{uuid4().hex}"


class Reader:
    """A consumer that commits all it reads, in a task, and remembers it."""

    def __init__(self, broker: Broker, group: str, topic: str, into: list[Record] | None = None) -> None:
        self.read: list[Record] = [] if into is None else into
        self.count = 0
        self._broker, self._group, self._topic = broker, group, topic

    async def __aenter__(self) -> "Reader":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        async with self._broker.subscribe(self._group, [self._topic]) as subscription:
            async for batch in subscription:
                self.read.extend(batch.records)
                self.count += len(batch.records)
                with contextlib.suppress(Fenced, BrokerUnavailable):
                    await batch.commit()

    async def until(self, condition: Callable[[], bool], otherwise: str) -> None:
        async def holds() -> bool:
            if self._task.done():
                self._task.result()
            return condition()

        await until(holds, _PATIENCE, otherwise)


async def read(subscription: Subscription, count: int) -> list[Record]:
    """So many records at least, each batch committed."""
    records: list[Record] = []
    async with asyncio.timeout(_PATIENCE):
        while len(records) < count:
            batch = await anext(aiter(subscription))
            records.extend(batch.records)
            await batch.commit()
    return records


async def next_batch(subscription: Subscription) -> Batch:
    async with asyncio.timeout(_PATIENCE):
        return await anext(aiter(subscription))


def numbered(topic: str, key: str, numbers: Iterable[int]) -> list[Record]:
    return [Record(topic, key, str(number).encode()) for number in numbers]


def numbers_by_key(records: Iterable[Record]) -> dict[str, list[int]]:
    """The numbers of each key in the order they were first seen."""
    seen: dict[str, list[int]] = defaultdict(list)
    for record in records:
        number = int(record.value)
        if number not in seen[record.key]:
            seen[record.key].append(number)
    return seen


def offsets(records: Iterable[Record]) -> list[tuple[int, int]]:
    return [(record.partition, record.offset) for record in records]


async def publish_until_acknowledged(broker: Broker, records: Sequence[Record]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                return await broker.publish(records)
            except BrokerUnavailable:
                await asyncio.sleep(0.05)


async def test_a_record_comes_back_as_it_was(broker: Broker, ready_topic: str, group: str) -> None:
    sent = [
        Record(ready_topic, "clé-鍵-🔑", bytes(range(256)), {"ce_type": "a.b.v1", "naïve": "größer 漢字"}),
        Record(ready_topic, "", b""),
    ]
    await broker.publish(sent)
    async with broker.subscribe(group, [ready_topic]) as subscription:
        came = {record.key: record for record in await read(subscription, 2)}
    for record in sent:
        back = came[record.key]
        assert (back.topic, back.value, dict(back.headers)) == (
            record.topic,
            record.value,
            dict(record.headers),
        )
        assert back.partition in range(8)
        assert back.offset in range(2)


async def test_order_per_key_under_concurrent_publishers(
    new_broker: NewBroker, broker: Broker, ready_topic: str, group: str
) -> None:
    others = [broker, await new_broker()]

    async def publisher(place: int) -> None:
        keys = [f"key-{place}-{number}" for number in range(3)]
        for start in range(0, 60, 3):
            calls = [record for key in keys for record in numbered(ready_topic, key, range(start, start + 3))]
            await others[place % 2].publish(calls)

    await asyncio.gather(*(publisher(place) for place in range(8)))
    async with broker.subscribe(group, [ready_topic]) as subscription:
        records = await read(subscription, 8 * 3 * 60)
    by_key: dict[str, list[int]] = defaultdict(list)
    for record in records:
        by_key[record.key].append(int(record.value))
    assert len(by_key) == 24
    assert all(numbers == list(range(60)) for numbers in by_key.values())
    by_partition: dict[int, list[int]] = defaultdict(list)
    for partition, offset in offsets(records):
        by_partition[partition].append(offset)
    assert all(positions == list(range(len(positions))) for positions in by_partition.values())
    assert len(by_partition) > 1


async def test_batches_hold_one_partition_and_no_more_than_asked_for(
    new_broker: NewBroker, ready_topic: str, group: str
) -> None:
    broker = await new_broker(batch_size=10)
    await broker.publish([r for key in range(6) for r in numbered(ready_topic, f"k{key}", range(20))])
    expected: dict[int, int] = defaultdict(int)
    seen = 0
    async with broker.subscribe(group, [ready_topic]) as subscription:
        while seen < 120:
            batch = await next_batch(subscription)
            assert 1 <= len(batch.records) <= 10
            for record in batch.records:
                assert (record.topic, record.partition) == (batch.topic, batch.partition)
                assert record.offset == expected[batch.partition]
                expected[batch.partition] += 1
            seen += len(batch.records)
            await batch.commit()
    assert seen == 120


async def test_partitions_are_served_in_turn(new_broker: NewBroker, ready_topic: str, group: str) -> None:
    broker = await new_broker(batch_size=5)
    keys = [f"k{number}" for number in range(64)]
    await broker.publish([r for key in keys for r in numbered(ready_topic, key, range(10))])
    served: list[int] = []
    seen = 0
    async with broker.subscribe(group, [ready_topic]) as subscription:
        while seen < 640:
            batch = await next_batch(subscription)
            served.append(batch.partition)
            seen += len(batch.records)
            await batch.commit()
    assert set(served[: len(served) // 2]) == set(served)


async def test_two_groups_each_get_everything(broker: Broker, ready_topic: str) -> None:
    await broker.publish(numbered(ready_topic, "a", range(5)) + numbered(ready_topic, "b", range(5)))
    async with (
        broker.subscribe(f"one-{ready_topic}", [ready_topic]) as one,
        broker.subscribe(f"two-{ready_topic}", [ready_topic]) as two,
    ):
        for records in await asyncio.gather(read(one, 10), read(two, 10)):
            assert numbers_by_key(records) == {"a": [0, 1, 2, 3, 4], "b": [0, 1, 2, 3, 4]}


async def test_what_was_not_committed_comes_again_to_the_next_member(
    broker: Broker, ready_topic: str, group: str
) -> None:
    await broker.publish(numbered(ready_topic, "a", range(3)))
    async with broker.subscribe(group, [ready_topic]) as subscription:
        left = offsets((await next_batch(subscription)).records)
    await broker.publish(numbered(ready_topic, "a", range(3, 5)))
    async with broker.subscribe(group, [ready_topic]) as subscription:
        records = await read(subscription, 5)
    assert offsets(records)[: len(left)] == left
    assert numbers_by_key(records) == {"a": [0, 1, 2, 3, 4]}
    await broker.publish(numbered(ready_topic, "a", [5]))
    async with broker.subscribe(group, [ready_topic]) as subscription:
        assert numbers_by_key(await read(subscription, 1)) == {"a": [5]}


async def test_a_batch_that_is_not_committed_comes_again_before_what_follows(
    new_broker: NewBroker, ready_topic: str, group: str
) -> None:
    broker = await new_broker(batch_size=2)
    await broker.publish(numbered(ready_topic, "a", range(4)))
    async with broker.subscribe(group, [ready_topic]) as subscription:
        first = await next_batch(subscription)
        again = await next_batch(subscription)
        assert offsets(first.records) == offsets(again.records)
        await again.commit()
        await again.commit()
        following = await next_batch(subscription)
        assert following.records[0].offset == first.records[-1].offset + 1


async def test_asking_may_be_cancelled_without_losing_anything(
    broker: Broker, ready_topic: str, group: str
) -> None:
    records: list[Record] = []

    async def impatient(subscription: Subscription) -> None:
        while len(records) < 50:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.003):
                    batch = await anext(aiter(subscription))
                    records.extend(batch.records)
                    await asyncio.shield(batch.commit())

    async with broker.subscribe(group, [ready_topic]) as subscription, asyncio.timeout(_PATIENCE):
        reading = asyncio.create_task(impatient(subscription))
        for number in range(50):
            await broker.publish(numbered(ready_topic, "a", [number]))
        await reading
    # A commit that is slower than the pause before a redelivery lets a batch come twice, which is allowed.
    seen = list(dict.fromkeys(numbers_by_key(records)["a"]))
    assert seen == list(range(50))


async def test_lag_counts_what_is_not_committed(broker: Broker, ready_topic: str, group: str) -> None:
    await broker.publish(numbered(ready_topic, "a", range(7)))
    async with broker.subscribe(group, [ready_topic]) as subscription:
        batch = await next_batch(subscription)
        assert await subscription.lag() == 7
        await batch.commit()
        assert await subscription.lag() == 7 - len(batch.records)
        await broker.publish(numbered(ready_topic, "b", range(2)))
        await until(lambda: _has_lag(subscription, 9 - len(batch.records)), _PATIENCE, "the lag did not grow")
        await read(subscription, 9 - len(batch.records))
        assert await subscription.lag() == 0


async def _has_lag(subscription: Subscription, lag: int) -> bool:
    return await subscription.lag() == lag


async def test_a_record_too_large_is_refused_and_the_others_pass(
    broker: Broker, ready_topic: str, group: str
) -> None:
    fits = Record(ready_topic, "a", b"x" * (MAXIMUM_RECORD_BYTES - 1))
    too_large = Record(ready_topic, "a", b"x" * MAXIMUM_RECORD_BYTES)
    calls = [Record(ready_topic, "a", b"0"), too_large, fits]
    with pytest.raises(RecordTooLarge) as refusal:
        await broker.publish(calls)
    assert refusal.value.records == [too_large]
    await broker.publish([record for record in calls if record not in refusal.value.records])
    async with broker.subscribe(group, [ready_topic]) as subscription:
        assert [record.value for record in await read(subscription, 2)] == [b"0", fits.value]


async def test_a_topic_must_exist(broker: Broker, topic: str, group: str) -> None:
    with pytest.raises(BrokerError) as refusal:
        await broker.publish([Record(topic, "a", b"0")])
    assert not isinstance(refusal.value, BrokerUnavailable)
    await broker.ensure_topics([topic, topic])
    await broker.ensure_topics([topic])
    await broker.publish([Record(topic, "a", b"1")])
    async with broker.subscribe(group, [topic]) as subscription:
        records = await read(subscription, 1)
    assert records[-1].value == b"1"


async def test_a_second_member_shares_the_work_and_gives_it_back(
    new_broker: NewBroker, broker: Broker, ready_topic: str, group: str
) -> None:
    keys = [f"key-{number}" for number in range(32)]
    handled: list[Record] = []
    published = 0
    stop = asyncio.Event()

    async def publish() -> None:
        nonlocal published
        while not stop.is_set():
            await broker.publish([Record(ready_topic, key, str(published).encode()) for key in keys])
            published += 1

    async with Reader(broker, group, ready_topic, handled) as first:
        publishing = asyncio.create_task(publish())
        await first.until(lambda: first.count > 0, "the first member got nothing")
        async with Reader(await new_broker(), group, ready_topic, handled) as second:
            await second.until(lambda: second.count > 0, "the second member got nothing")
            before = first.count
            await first.until(lambda: first.count > before, "the first member was left without work")
        stop.set()
        await publishing
        await first.until(
            lambda: sum(map(len, numbers_by_key(handled).values())) == published * len(keys),
            "the rest did not come",
        )
    assert numbers_by_key(handled) == {key: list(range(published)) for key in keys}


async def test_a_member_that_slept_through_its_lease_cannot_commit(
    server: Server, broker: Broker, ready_topic: str, group: str
) -> None:
    await broker.publish(numbered(ready_topic, "a", range(5)))
    zombie = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contract.zombie"),
        *(server.kind, server.address, str(server.silence), group, ready_topic),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert zombie.stdin is not None and zombie.stdout is not None
    try:
        async with asyncio.timeout(_PATIENCE):
            assert await zombie.stdout.readline() == b"took\n"
            zombie.send_signal(signal.SIGSTOP)
            async with broker.subscribe(group, [ready_topic]) as subscription:
                assert numbers_by_key(await read(subscription, 5)) == {"a": [0, 1, 2, 3, 4]}
                zombie.send_signal(signal.SIGCONT)
                zombie.stdin.write(b"\n")
                assert await zombie.stdout.readline() == b"fenced\n"
                await broker.publish(numbered(ready_topic, "a", [5]))
            await zombie.wait()
    finally:
        if zombie.returncode is None:
            zombie.kill()
            await zombie.wait()
    async with broker.subscribe(group, [ready_topic]) as subscription:
        assert numbers_by_key(await read(subscription, 1)) == {"a": [5]}


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed_under_a_publisher(
    server: Server, broker: Broker, ready_topic: str, group: str
) -> None:
    known = await broker.cluster_id()
    acknowledged = 0
    stop = asyncio.Event()

    async def publish() -> None:
        nonlocal acknowledged
        while not stop.is_set():
            await publish_until_acknowledged(broker, numbered(ready_topic, "a", [acknowledged]))
            acknowledged += 1

    async with Reader(broker, group, ready_topic) as reader:
        publishing = asyncio.create_task(publish())
        await reader.until(lambda: reader.count > 20, "nothing came before the crash")
        server.kill()
        with pytest.raises(BrokerUnavailable):
            while True:
                await broker.cluster_id()
        await server.start()
        await until(lambda: _has_cluster_id(broker, known), _PATIENCE, "a restart changed the cluster id")
        back = acknowledged
        await reader.until(lambda: acknowledged > back + 20, "publishing did not resume")
        stop.set()
        await publishing
        await reader.until(
            lambda: len(numbers_by_key(reader.read)["a"]) == acknowledged, "the rest did not come"
        )
    assert numbers_by_key(reader.read) == {"a": list(range(acknowledged))}


async def test_a_broker_that_is_down_at_start_is_waited_for(
    server: Server, new_broker: NewBroker, broker: Broker, ready_topic: str, group: str
) -> None:
    await broker.publish(numbered(ready_topic, "a", range(3)))
    server.kill()
    late = await new_broker()
    with pytest.raises(BrokerUnavailable):
        await late.publish(numbered(ready_topic, "a", [3]))
    with pytest.raises(BrokerUnavailable):
        await late.ensure_topics([ready_topic])
    async with Reader(late, group, ready_topic) as reader:
        await server.start()
        await publish_until_acknowledged(late, numbered(ready_topic, "a", [3]))
        await reader.until(lambda: len(numbers_by_key(reader.read)["a"]) == 4, "nothing came")
    assert numbers_by_key(reader.read) == {"a": [0, 1, 2, 3]}


async def test_a_server_that_hangs_is_not_waited_for_for_ever(
    server: Server, broker: Broker, ready_topic: str, group: str
) -> None:
    clock = asyncio.get_running_loop().time
    async with Reader(broker, group, ready_topic) as reader:
        await broker.publish(numbered(ready_topic, "a", [0]))
        await reader.until(lambda: reader.count == 1, "nothing came")
        server.hang()
        try:
            begin = clock()
            with pytest.raises(BrokerUnavailable):
                await broker.publish(numbered(ready_topic, "a", [1]))
            assert clock() - begin < 3 * TIMEOUT
        finally:
            server.go_on()
        await publish_until_acknowledged(broker, numbered(ready_topic, "a", [1]))
        await reader.until(lambda: len(numbers_by_key(reader.read)["a"]) == 2, "nothing came afterwards")


async def test_a_log_that_lost_everything_has_another_cluster_id_and_is_read_from_its_beginning(
    server: Server, broker: Broker, ready_topic: str, group: str
) -> None:
    known = await broker.cluster_id()
    async with Reader(broker, group, ready_topic) as reader:
        await broker.publish(numbered(ready_topic, "a", range(3)))
        await reader.until(lambda: reader.count == 3, "nothing came")
        await _lose_everything(server, broker, known, ready_topic)
        # Members go on with what is published again, although it is fewer records than they had read.
        await publish_until_acknowledged(broker, numbered(ready_topic, "a", range(10, 12)))
        await reader.until(lambda: 11 in numbers_by_key(reader.read)["a"], "the new log was not read")
    assert numbers_by_key(reader.read) == {"a": [0, 1, 2, 10, 11]}


async def test_what_was_read_of_a_lost_log_is_not_committed_to_the_new_one(
    server: Server, broker: Broker, ready_topic: str, group: str
) -> None:
    known = await broker.cluster_id()
    async with broker.subscribe(group, [ready_topic]) as subscription:
        await broker.publish(numbered(ready_topic, "a", range(3)))
        lost = await next_batch(subscription)
        await _lose_everything(server, broker, known, ready_topic)
        await publish_until_acknowledged(broker, numbered(ready_topic, "a", range(10, 12)))
        await until(
            lambda: _is_back_with_lag(subscription, 2), _PATIENCE, "the member did not join the new log"
        )
        with pytest.raises((Fenced, BrokerUnavailable)):
            await lost.commit()
        numbers: set[int] = set()
        async with asyncio.timeout(_PATIENCE):
            while 11 not in numbers:
                batch = await next_batch(subscription)
                numbers |= {int(record.value) for record in batch.records}
                with contextlib.suppress(Fenced, BrokerUnavailable):
                    await batch.commit()
        assert {10, 11} <= numbers


async def _lose_everything(server: Server, broker: Broker, known: str, topic: str) -> None:
    """The server comes back with an empty log, and the topic is made anew."""
    await server.wipe()
    await until(lambda: _has_another_cluster_id(broker, known), _PATIENCE, "the cluster id stayed")
    async with asyncio.timeout(_PATIENCE):
        await broker.ensure_topics([topic])


async def _is_back_with_lag(subscription: Subscription, lag: int) -> bool:
    with contextlib.suppress(BrokerUnavailable):
        return await _has_lag(subscription, lag)
    return False


async def _has_cluster_id(broker: Broker, known: str) -> bool:
    with contextlib.suppress(BrokerUnavailable):
        return await broker.cluster_id() == known
    return False


async def _has_another_cluster_id(broker: Broker, known: str) -> bool:
    with contextlib.suppress(BrokerUnavailable):
        return await broker.cluster_id() != known
    return False
