"""A member of a consumer group in the embedded log: its lease, its fair share, what it reads and commits."""

import asyncio
import contextlib
import logging
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
        self._turns = Turns()
        self._holds_too_many = False

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        return await self._turns.take()

    def ready(self) -> Sequence[Batch]:
        """What else is ready now."""
        return self._turns.take_ready()

    async def lag(self) -> int:
        """Records not yet committed in the partitions this member holds. Raises BrokerUnavailable."""
        async with self._connection() as connection:
            return int(await connection.fetchval(_LAG, self.group, self._id))

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
            self.news.set()

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
        self._epochs = epochs

    async def _fetch(self) -> None:
        """Read the next batch of every partition that has none waiting, in one query."""
        idle = {source: epoch for source, epoch in self._epochs.items() if not self._turns.busy(source)}
        if not idle:
            return
        async with self._connection() as connection:
            rows = await connection.fetch(
                _FETCH, self.group, self._id, *_columns(idle), list(idle.values()),
                self._pace.batch_size, _FETCH_BYTES // len(idle),
            )  # fmt: skip
        for source, records in groupby(rows, key=_source):
            if self._epochs.get(source) == idle[source] and not self._turns.busy(source):
                batch = tuple(_record(row) for row in records)
                self._turns.offer(Delivery(*source, batch, idle[source], self._commit))

    async def _commit(self, delivery: Delivery) -> None:
        async with self._connection() as connection:
            done = await connection.execute(
                _COMMIT, self.group, self._id, *delivery.source, delivery.epoch, delivery.end
            )
        self._turns.settle(delivery)
        if done == "UPDATE 0":
            self.reshuffle.set()
            raise Fenced
        self.news.set()
        if self._holds_too_many:
            self.reshuffle.set()


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

# A new group begins with the oldest record that is kept.
_FIND_PARTITIONS = """
    INSERT INTO assignment (group_name, topic, partition, committed)
    SELECT $1, p.topic, p.partition, coalesce(
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
    UPDATE assignment SET committed = greatest(committed, $6)
    FROM (SELECT set_config('synchronous_commit', 'off', true)) AS no_wait
    WHERE group_name = $1 AND member = $2 AND topic = $3 AND partition = $4 AND epoch = $5
"""

_LAG = """
    SELECT coalesce(sum(p.next_offset - a.committed), 0)
    FROM assignment AS a JOIN topic_partition AS p USING (topic, partition)
    WHERE a.group_name = $1 AND a.member = $2
"""
