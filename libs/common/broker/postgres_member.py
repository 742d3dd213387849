"""A member of a consumer group in the embedded log: its lease, its fair share, what it reads and commits."""

import asyncio
import contextlib
import logging
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID, uuid4

import orjson

from libs.common.broker import Batch, BrokerError, BrokerUnavailable, Fenced, Record
from libs.common.broker.turns import Delivery, Partition, Turns

logger = logging.getLogger(__name__)

_FETCH_BYTES = 16 * 2**20
"""What one fetch may hold in memory, shared by the partitions it reads."""
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a lease lasts, how often is looked without a hint, and how many records a batch may hold."""

    lease_seconds: float
    poll_seconds: float
    batch_size: int


class Member:
    """Holds partitions by a lease that it renews, each in an epoch of its own."""

    def __init__(
        self,
        connection: Callable[[], AbstractAsyncContextManager[Any]],
        pace: Pace,
        group: str,
        topics: Sequence[str],
    ) -> None:
        self.group = group
        self.topics = sorted(set(topics))
        self.news = asyncio.Event()
        self.reshuffle = asyncio.Event()
        self._connection = connection
        self._pace = pace
        self._id = uuid4()
        self._epochs: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self._unread: set[Partition] = set()
        self._look_everywhere_at = float("-inf")
        self._wants_more = False
        self._finished: list[Delivery] = []
        self._committing: asyncio.Task[set[Partition]] | None = None
        self._turns = Turns()
        self._holds_too_many = False

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        self._wants_more = True
        self.news.set()
        try:
            return await self._turns.take()
        finally:
            self._wants_more = False

    def ready(self) -> Sequence[Batch]:
        """What else is ready now."""
        return self._turns.take_ready()

    async def lag(self) -> int:
        """Records not yet committed in the partitions this member holds. Raises BrokerUnavailable."""
        async with self._connection() as connection:
            return int(await connection.fetchval(_LAG, self.group, self._id))

    def hear(self, source: Partition, end: int) -> None:
        """A hint: there are records of this partition up to an offset."""
        if source in self._epochs and end > self._ends.get(source, 0):
            self._unread.add(source)
            self.news.set()

    def look_everywhere(self) -> None:
        """Hints may have been missed."""
        self._look_everywhere_at = float("-inf")
        self.news.set()

    async def belong(self) -> None:
        """Keep the lease and read, until cancelled. An outage is waited for."""
        lease, poll = self._pace.lease_seconds / 3, self._pace.poll_seconds
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_at_least_every(lease, self.reshuffle, self._balance))
                tasks.create_task(_at_least_every(poll, self.news, self._fetch))
        except* Exception as errors:
            logger.exception("a member of a group failed")
            self._turns.fail(errors.exceptions[0])

    async def leave(self) -> None:
        """Give every partition back at once."""
        async with self._connection() as connection:
            await connection.execute(_LEAVE, self.group, self._id)

    async def _balance(self) -> None:
        """Renew the lease, give away what is more than a fair share, take what is free and lacking."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute(_LOCK_GROUP, self.group)
            joined = await connection.fetchval(
                _RENEW, self.group, self._id, self.topics, self._pace.lease_seconds
            )
            dead = await connection.fetch(_REMOVE_DEAD, self.group)
            await connection.execute(_FIND_PARTITIONS, self.group, self.topics)
            members = await connection.fetch(_MEMBERS, self.group)
            tenures = await connection.fetch(_TENURES, self.group, self.topics)
            given, wanted = self._compare_to_fair_share(members, tenures)
            await connection.execute(_GIVE, self.group, self._id, *_columns(given))
            taken = await connection.fetch(_TAKE, self.group, self._id, *_columns(wanted))
            if joined or dead or given:
                await connection.execute(_TELL_MEMBERS, self.group)
        mine = [tenure for tenure in tenures if tenure["member"] == self._id and _source(tenure) not in given]
        self._hold({_source(tenure): tenure["epoch"] for tenure in [*mine, *taken]})
        if taken:
            self.look_everywhere()

    def _compare_to_fair_share(
        self, members: Sequence[Any], tenures: Sequence[Any]
    ) -> tuple[list[Partition], list[Partition]]:
        """What to give away and what to take."""
        given: list[Partition] = []
        wanted: list[Partition] = []
        self._holds_too_many = False
        for topic, rows in groupby(tenures, key=lambda tenure: tenure["topic"]):
            partitions = list(rows)
            mine = [_source(row) for row in partitions if row["member"] == self._id]
            free = [_source(row) for row in partitions if row["member"] is None]
            readers = [row["member"] for row in members if topic in row["topics"]]
            share = fair_share(readers, self._id, len(partitions), turn=zlib.crc32(topic.encode()))
            given += self._withdraw(reversed(mine), len(mine) - share)
            wanted += free[: max(0, share - len(mine))]
        return given, wanted

    def _withdraw(self, sources: Iterable[Partition], count: int) -> list[Partition]:
        """Stop serving so many partitions; one that the consumer has in hand is given once it is committed."""
        given: list[Partition] = []
        for source in sources:
            if len(given) < count and self._turns.withdraw(source):
                self._epochs.pop(source, None)
                given.append(source)
        self._holds_too_many |= len(given) < count
        return given

    def _hold(self, epochs: dict[Partition, int]) -> None:
        for source, epoch in self._epochs.items():
            if epochs.get(source) != epoch:
                self._turns.drop(source)
                self._ends.pop(source, None)
        self._epochs = epochs

    async def _fetch(self) -> None:
        """Read the next batch of every partition that has news and no batch waiting, in one query.

        Nothing is read ahead: what comes while the consumer works is read when it asks, so that its batches grow
        with the load. All partitions are looked at now and then, as if all had news: hints are no more than that.
        """
        if not self._wants_more:
            return
        everywhere = time.monotonic() >= self._look_everywhere_at
        wanted = self._epochs if everywhere else self._epochs.keys() & self._unread
        idle = {source: self._epochs[source] for source in wanted if not self._turns.busy(source)}
        self._unread -= idle.keys()
        if everywhere:
            self._look_everywhere_at = time.monotonic() + self._pace.poll_seconds
        if not idle:
            return
        bytes_each = _FETCH_BYTES // len(idle)
        try:
            async with self._connection() as connection:
                rows = await connection.fetch(
                    _FETCH, self.group, self._id, *_columns(idle), list(idle.values()),
                    self._pace.batch_size, bytes_each,
                )  # fmt: skip
        except BrokerError:
            self._unread |= idle.keys()
            raise
        for source, found in groupby(rows, key=_source):
            records = tuple(_record(row) for row in found)
            if self._epochs.get(source) == idle[source] and not self._turns.busy(source):
                delivery = Delivery(*source, records, idle[source], self._commit)
                self._turns.offer(delivery)
                self._ends[source] = delivery.end
                if len(records) == self._pace.batch_size or _size(records) >= bytes_each:
                    self._unread.add(source)

    async def _commit(self, delivery: Delivery) -> None:
        """Batches that are finished at the same moment are committed together."""
        self._finished.append(delivery)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_finished())
        committed = await asyncio.shield(self._committing)
        self._turns.settle(delivery)
        if delivery.source not in committed:
            self.reshuffle.set()
            raise Fenced
        if self._holds_too_many:
            self.reshuffle.set()

    async def _commit_finished(self) -> set[Partition]:
        """Returns the partitions that are still ours."""
        finished, self._finished, self._committing = self._finished, [], None
        async with self._connection() as connection:
            rows = await connection.fetch(
                _COMMIT, self.group, self._id, *_columns(one.source for one in finished),
                [one.epoch for one in finished], [one.end for one in finished],
            )  # fmt: skip
        return {_source(row) for row in rows}


def fair_share(members: Sequence[UUID], member: UUID, partitions: int, *, turn: int = 0) -> int:
    """How many of a topic's partitions a member should hold. Who has one more than others rotates by `turn`."""
    rank = (sorted(members).index(member) + turn) % len(members)
    return partitions // len(members) + (rank < partitions % len(members))


async def _at_least_every(seconds: float, hint: asyncio.Event, step: Callable[[], Awaitable[None]]) -> None:
    """Take the step at every hint and at least so often; while it fails, after growing pauses and no sooner."""
    failures = 0
    while True:
        hint.clear()
        try:
            await step()
            failures = 0
        except BrokerError as error:
            failures += 1
            if failures == 1 and not isinstance(error, BrokerUnavailable):
                logger.error("the broker refuses a member of a group", extra={"reason": str(error)})
            await asyncio.sleep(min(_LONGEST_PAUSE, 0.05 * 2**failures))
            continue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await hint.wait()


def _source(row: Any) -> Partition:
    return row["topic"], row["partition"]


def _columns(sources: Iterable[Partition]) -> tuple[list[str], list[int]]:
    pairs = list(sources)
    return [topic for topic, _ in pairs], [partition for _, partition in pairs]


def _size(records: Iterable[Record]) -> int:
    return sum(len(record.value) for record in records)


def _record(row: Any) -> Record:
    return Record(
        topic=row["topic"],
        key=row["key"],
        value=row["value"],
        headers=orjson.loads(row["headers"]),
        partition=row["partition"],
        offset=row["position"],
    )


_LOCK_GROUP = "SELECT pg_advisory_xact_lock(hashtextextended('broker group ' || $1::text, 0))"

_RENEW = """
    INSERT INTO member (group_name, member, topics, lease_until)
    VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (group_name, member) DO UPDATE SET topics = excluded.topics, lease_until = excluded.lease_until
    RETURNING xmax = 0
"""

_REMOVE_DEAD = "DELETE FROM member WHERE group_name = $1 AND lease_until < clock_timestamp() RETURNING member"

# A new group begins with the oldest record that is kept. Epochs begin with the time, so that no batch of a log that was
# lost is ever committed to the one that came in its place.
_FIND_PARTITIONS = """
    INSERT INTO assignment (group_name, topic, partition, epoch, committed)
    SELECT $1, p.topic, p.partition, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, coalesce(
        (SELECT position FROM record AS r WHERE r.topic = p.topic AND r.partition = p.partition
         ORDER BY position LIMIT 1), p.next_offset)
    FROM topic_partition AS p
    WHERE p.topic = ANY ($2) AND NOT EXISTS (
        SELECT FROM assignment AS a WHERE a.group_name = $1 AND a.topic = p.topic AND a.partition = p.partition)
    ON CONFLICT DO NOTHING
"""

_MEMBERS = "SELECT member, topics FROM member WHERE group_name = $1"

_TENURES = """
    SELECT topic, partition, member, epoch FROM assignment
    WHERE group_name = $1 AND topic = ANY ($2) ORDER BY topic, partition
"""

_GIVE = """
    UPDATE assignment AS a SET member = NULL
    FROM unnest($3::text[], $4::integer[]) AS given (topic, partition)
    WHERE a.group_name = $1 AND a.member = $2 AND a.topic = given.topic AND a.partition = given.partition
"""

_TAKE = """
    UPDATE assignment AS a SET member = $2, epoch = a.epoch + 1
    FROM unnest($3::text[], $4::integer[]) AS wanted (topic, partition)
    WHERE a.group_name = $1 AND a.member IS NULL AND a.topic = wanted.topic AND a.partition = wanted.partition
    RETURNING a.topic, a.partition, a.epoch
"""

_TELL_MEMBERS = "SELECT pg_notify('broker_members', $1)"

_LEAVE = """
    WITH gone AS (DELETE FROM member WHERE group_name = $1 AND member = $2 RETURNING group_name)
    SELECT pg_notify('broker_members', group_name) FROM gone
"""

# The first record of a partition is read whatever its size.
_FETCH = """
    SELECT mine.topic, mine.partition, r.position, r.key, r.headers, r.value
    FROM unnest($3::text[], $4::integer[], $5::bigint[]) AS mine (topic, partition, epoch)
    JOIN assignment AS a ON a.group_name = $1 AND a.member = $2 AND a.epoch = mine.epoch
        AND a.topic = mine.topic AND a.partition = mine.partition
    CROSS JOIN LATERAL (
        SELECT next.*, sum(octet_length(value)) OVER (ORDER BY position) AS bytes FROM (
            SELECT position, key, headers, value FROM record
            WHERE topic = a.topic AND partition = a.partition AND position >= a.committed
            ORDER BY position LIMIT $6
        ) AS next
    ) AS r
    WHERE r.bytes - octet_length(r.value) < $7
    ORDER BY mine.topic, mine.partition, r.position
"""

# A commit that a crash of the server forgets is a redelivery, so nobody waits for the disk.
_COMMIT = """
    UPDATE assignment AS a SET committed = greatest(a.committed, finished.position)
    FROM (SELECT set_config('synchronous_commit', 'off', true)) AS no_wait,
        unnest($3::text[], $4::integer[], $5::bigint[], $6::bigint[]) AS finished (topic, partition, epoch, position)
    WHERE a.group_name = $1 AND a.member = $2 AND a.topic = finished.topic
        AND a.partition = finished.partition AND a.epoch = finished.epoch
    RETURNING a.topic, a.partition
"""

_LAG = """
    SELECT coalesce(sum(p.next_offset - a.committed), 0)
    FROM assignment AS a JOIN topic_partition AS p USING (topic, partition)
    WHERE a.group_name = $1 AND a.member = $2
"""
