"""A member of a Kafka consumer group: what it reads ahead, hands out, commits and gives back."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from libs.common.broker import Batch, BrokerUnavailable, Fenced, Record
from libs.common.broker.reachability import Reachability
from libs.common.broker.turns import Delivery, Partition, Turns
from libs.common.telemetry import meter

logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 0.5
"""A new member gets its share at the next heartbeat of the others."""
_HAND_OVER_SECONDS = 5.0
"""How long a rebalance waits for the batch in hand."""
_REBALANCE_SECONDS = 15.0
_REQUEST_SECONDS = 20.0
"""Longer than a rebalance: joining is one request that lasts as long as the slowest member takes."""
_JOIN_SECONDS = 60.0
_SILENCE_SECONDS = 60.0
"""The longest `getmany` may be silent; a healthy one returns every second."""
_LONG_POLL_SECONDS = 0.25
"""Other questions wait behind a fetch that waits for records."""
_CALL_SECONDS = 10.0
_LEAVE_SECONDS = 3.0
_LONGEST_PAUSE = 1.0
_READ_AHEAD_BYTES = 4 * 2**20

_lost_records = meter.create_counter(
    "broker.records_lost", description="Records deleted by retention before their group read them"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Where to read, how long a silent member keeps its partitions, and how many records a batch may hold."""

    bootstrap_servers: str
    client_id: str
    session_seconds: float
    batch_size: int


@dataclass(slots=True)
class _ReadAhead:
    """Records of one partition that were fetched and not yet offered."""

    records: deque[Record] = field(default_factory=deque[Record])
    bytes: int = 0
    next_offset: int | None = None

    def extend(self, records: Sequence[Record]) -> None:
        self.records.extend(records)
        self.bytes += sum(len(record.value) for record in records)
        self.next_offset = records[-1].offset + 1

    def cut(self, count: int) -> tuple[Record, ...]:
        batch = tuple(self.records.popleft() for _ in range(min(count, len(self.records))))
        self.bytes -= sum(len(record.value) for record in batch)
        return batch


class Member(ConsumerRebalanceListener):
    """Holds partitions as long as its heartbeats arrive. The epoch grows with every rebalance it takes part in."""

    def __init__(
        self, reading: Reading, group: str, topics: Sequence[str], reachability: Reachability
    ) -> None:
        self._reading = reading
        self._group = group
        self._topics = sorted(set(topics))
        self._reachability = reachability
        self._consumer: AIOKafkaConsumer | None = None
        self._epoch = 0
        self._turns = Turns()
        self._ahead: dict[Partition, _ReadAhead] = {}
        self._committed: dict[Partition, int] = {}
        self._outdated = False

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        return await self._turns.take()

    def ready(self) -> Sequence[Batch]:
        """What else is ready now."""
        return self._turns.take_ready()

    async def lag(self) -> int:
        """Records not yet committed in the partitions this member holds. Raises BrokerUnavailable."""
        consumer = self._consumer
        if consumer is None:
            raise BrokerUnavailable
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                held = consumer.assignment()
                committed = {tp: await self._committed_offset(consumer, tp) for tp in held}
                never = [tp for tp, offset in committed.items() if offset is None]
                ends, begins = await asyncio.gather(
                    consumer.end_offsets(held), consumer.beginning_offsets(never)
                )
        except (TimeoutError, OSError, KafkaError) as error:
            raise BrokerUnavailable from error
        return sum(ends[tp] - (begins[tp] if offset is None else offset) for tp, offset in committed.items())

    async def belong(self) -> None:
        """Join and read until cancelled, with a new consumer whenever the old one fails."""
        pause = 0.1
        while True:
            try:
                await self._consume()
                pause = 0.1
            except (TimeoutError, OSError, KafkaError) as error:
                self._reachability.lost(error)
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, 2 * pause)
            except Exception as error:
                logger.exception("a member of a group failed")
                self._turns.fail(error)
                return

    async def _consume(self) -> None:
        consumer = self._new_consumer()
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                await consumer.start()
            self._reachability.found()
            self._consumer, self._outdated = consumer, False
            while not self._outdated:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    found = await consumer.getmany(timeout_ms=1000)
                epoch = self._epoch
                for tp, messages in found.items():
                    await self._receive(consumer, tp, [_record(message) for message in messages], epoch)
        finally:
            self._consumer = None
            self._forget()
            self._turns.let_go()
            await finish_within(_LEAVE_SECONDS, consumer.stop())

    def _new_consumer(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._reading.bootstrap_servers,
            client_id=self._reading.client_id,
            group_id=self._group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=_milliseconds(self._reading.session_seconds),
            fetch_max_wait_ms=_milliseconds(_LONG_POLL_SECONDS),
            heartbeat_interval_ms=_milliseconds(_HEARTBEAT_SECONDS),
            rebalance_timeout_ms=_milliseconds(_REBALANCE_SECONDS),
            request_timeout_ms=_milliseconds(_REQUEST_SECONDS),
        )
        consumer.subscribe(self._topics, listener=self)
        return consumer

    async def on_partitions_revoked(self, revoked: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A rebalance begins: let the consumer commit what it has in hand, and forget the rest."""
        await self._turns.hold_back(_HAND_OVER_SECONDS)
        self._forget()

    def on_partitions_assigned(self, assigned: Any) -> None:
        """The rebalance is over."""
        self._turns.let_go()

    def _forget(self) -> None:
        self._epoch += 1
        self._turns.clear()
        self._ahead.clear()
        self._committed.clear()

    async def _receive(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, records: Sequence[Record], epoch: int
    ) -> None:
        """Take in what was fetched, unless a rebalance came between: then it is fetched again."""
        if epoch == self._epoch:
            await self._notice_lost_records(consumer, tp, records[0].offset)
        if epoch == self._epoch:
            self._ahead.setdefault(_source(tp), _ReadAhead()).extend(records)
            self._offer(consumer, tp)

    async def _notice_lost_records(self, consumer: AIOKafkaConsumer, tp: TopicPartition, first: int) -> None:
        """Kafka skips what retention has deleted without a word; a topic of ours has no other gaps."""
        ahead = self._ahead.get(_source(tp))
        expected = ahead.next_offset if ahead is not None else None
        if expected is None and first > 0:
            async with asyncio.timeout(_CALL_SECONDS):
                expected = await self._committed_offset(consumer, tp)
        if expected is not None and first > expected:
            _lost_records.add(first - expected, {"topic": tp.topic, "group": self._group})
            logger.error(
                "records were deleted before they were read",
                extra={"topic": tp.topic, "partition": tp.partition, "count": first - expected},
            )

    def _offer(self, consumer: AIOKafkaConsumer, tp: TopicPartition) -> None:
        ahead = self._ahead.get(_source(tp))
        if ahead is None:
            return
        if ahead.records and not self._turns.busy(_source(tp)):
            batch = ahead.cut(self._reading.batch_size)
            self._turns.offer(Delivery(*_source(tp), batch, self._epoch, self._commit))
        if len(ahead.records) >= self._reading.batch_size or ahead.bytes >= _READ_AHEAD_BYTES:
            consumer.pause(tp)
        else:
            consumer.resume(tp)

    async def _commit(self, delivery: Delivery) -> None:
        consumer, tp = self._consumer, TopicPartition(*delivery.source)
        if consumer is None or delivery.epoch != self._epoch or _is_outside_its_group(consumer):
            raise Fenced
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await consumer.commit({tp: delivery.end})
        except (CommitFailedError, IllegalStateError) as error:
            # What was fetched behind this batch must not be handed out: begin again from what is committed.
            self._outdated = True
            raise Fenced from error
        except (TimeoutError, OSError, KafkaError) as error:
            self._reachability.lost(error)
            raise BrokerUnavailable from error
        if delivery.epoch == self._epoch:
            self._committed[delivery.source] = max(delivery.end, self._committed.get(delivery.source, 0))
            self._turns.settle(delivery)
            self._offer(consumer, tp)

    async def _committed_offset(self, consumer: AIOKafkaConsumer, tp: TopicPartition) -> int | None:
        """Where the group goes on reading, None if it never committed; asked for once in an epoch."""
        if (known := self._committed.get(_source(tp))) is not None:
            return known
        epoch, offset = self._epoch, await consumer.committed(tp)
        if offset is not None and epoch == self._epoch:
            return self._committed.setdefault(_source(tp), offset)
        return offset


def _is_outside_its_group(consumer: AIOKafkaConsumer) -> bool:
    """Whether it was told to join again. Kafka would take its commit, as of nobody's group, if the group is empty: as
    it is on a log that came in place of one that was lost.
    """
    coordinator: Any = consumer._coordinator  # pyright: ignore[reportPrivateUsage]
    return coordinator.generation < 0


async def finish_within(seconds: float, ending: Coroutine[Any, Any, object]) -> None:
    """Wait for aiokafka to close something, but no longer; it ends by itself once its last request times out."""
    task = asyncio.ensure_future(ending)
    _endings.add(task)
    task.add_done_callback(_ended)
    await asyncio.wait({task}, timeout=seconds)


_endings: set[asyncio.Future[object]] = set()


def _ended(task: "asyncio.Future[object]") -> None:
    _endings.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.info("a connection to Kafka did not close in order", extra={"error": type(error).__name__})


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _source(tp: TopicPartition) -> Partition:
    return tp.topic, tp.partition


def _record(message: Any) -> Record:
    """Foreign bytes never raise here: a record that cannot be decoded is the handler's to park."""
    return Record(
        topic=message.topic,
        key=_text(message.key),
        value=message.value or b"",
        headers={name.replace("\0", "\ufffd"): _text(text) for name, text in message.headers},
        partition=message.partition,
        offset=message.offset,
    )


def _text(foreign: bytes | None) -> str:
    """What cannot be parked would stop its partition for ever, and PostgreSQL keeps no NUL in a text."""
    return (foreign or b"").decode(errors="replace").replace("\0", "\ufffd")
