"""The embedded log: durable, ordered per key, in one PostgreSQL database of its own.

Offsets are handed out under a row lock that lasts until the commit, so a reader never sees a later one before
an earlier one. LISTEN/NOTIFY is a hint; a poll is the truth.
"""

import asyncio
import contextlib
import logging
import zlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import orjson

from libs.common.broker import PARTITIONS, BrokerError, BrokerUnavailable, Record, refuse_too_large
from libs.common.broker.postgres_member import Member, Pace
from libs.common.broker.reachability import Reachability
from libs.common.broker.turns import Partition
from libs.common.listen import GONE
from libs.common.telemetry import meter

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_PURGE_SECONDS = 600.0
_STOP_SECONDS = 3.0
_RECORDS = "broker_records"
"""NOTIFY channel: partitions and the offsets after their last records."""
_MEMBERS = "broker_members"
_HINTS = 50
"""In one notification, which holds 8,000 bytes."""

_SERVER_SETTINGS = {
    "jit": "off",
    # Every statement here reads by primary key. A plan made while a table was small must not outlive that.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    # So there is one plan for each statement, and to make it again for every execution costs more than to execute it.
    "plan_cache_mode": "force_generic_plan",
}

_overdue_records = meter.create_gauge(
    "broker.records_kept_for_late_groups",
    description="Records older than the retention that some group has not committed",
)


class EmbeddedBroker:
    """A broker in the PostgreSQL database at `url`, whose role may read and write rows and nothing else.

    A statement that takes `timeout` seconds counts as an outage. A member that is silent for `lease_seconds`
    loses its partitions. Whatever the hints do, records are seen after at most `poll_seconds`. A batch holds at
    most `batch_size` records.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        lease_seconds: float = 10.0,
        poll_seconds: float = 1.0,
        batch_size: int = 500,
        pool_size: int = 8,
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._pace = Pace(lease_seconds, poll_seconds, batch_size)
        self._pool_size = pool_size
        self._pool: Any = None
        self._reachability = Reachability()
        self._members: set[Member] = set()
        self._listening: asyncio.Task[None] | None = None
        self._ringing: asyncio.Task[None] | None = None
        self._news: dict[Partition, int] = {}

    async def start(self) -> None:
        """Connect if possible."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._pool_size,
            timeout=min(_CONNECT_SECONDS, self._timeout),
            command_timeout=self._timeout,
            reset=_keep,
            server_settings=_SERVER_SETTINGS
            # A member that is stopped inside its transaction, or inside a statement, must not keep its group's locks.
            | {
                "idle_in_transaction_session_timeout": f"{self._pace.lease_seconds / 2}s",
                "transaction_timeout": f"{self._timeout}s",
            },
        )
        with contextlib.suppress(BrokerUnavailable):
            await self.cluster_id()

    async def stop(self) -> None:
        """Leave every group and close every connection."""
        for task in (self._listening, self._ringing):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        self._listening = self._ringing = None
        if self._pool is not None:
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._pool.close()
            except GONE:
                self._pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Any]:
        """A connection of the pool, with its errors told in the broker's words."""
        if self._pool is None:
            raise BrokerError("the broker was not started")
        try:
            async with self._pool.acquire(timeout=min(_CONNECT_SECONDS, self._timeout)) as connection:
                try:
                    yield connection
                except asyncpg.InternalClientError:
                    # The server has said farewell to an idle connection that is not closed yet.
                    connection.terminate()
                    raise
        except GONE as error:
            if not _is_outage(error):
                # The words of PostgreSQL may repeat a value; its code says enough.
                raise BrokerError(
                    f"PostgreSQL refused with {getattr(error, 'sqlstate', 'no code')}"
                ) from error
            self._reachability.lost(error)
            raise BrokerUnavailable from error
        self._reachability.found()

    async def cluster_id(self) -> str:
        """The id that the first migration drew."""
        async with self._connection() as connection:
            return str(await connection.fetchval("SELECT id FROM cluster"))

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that do not exist yet, and let every group share them out."""
        async with self._connection() as connection:
            created = await connection.fetchval(_CREATE_TOPICS, sorted(set(topics)), PARTITIONS)
            if created:
                await connection.execute("SELECT pg_notify($1, '')", _MEMBERS)

    async def publish(self, records: Sequence[Record]) -> None:
        """One statement, one transaction: all of the records or none."""
        if not records:
            return
        refuse_too_large(records)
        async with self._connection() as connection:
            try:
                ends = await connection.fetch(
                    _PUBLISH,
                    [record.topic for record in records],
                    [zlib.crc32(record.key.encode()) % PARTITIONS for record in records],
                    [record.key for record in records],
                    [orjson.dumps(dict(record.headers)).decode() for record in records],
                    [record.value for record in records],
                )
            except asyncpg.NotNullViolationError as error:
                raise BrokerError("a topic does not exist") from error
        self._ring((row["topic"], row["partition"], row["next_offset"]) for row in ends)

    def _ring(self, ends: Iterable[tuple[str, int, int]]) -> None:
        """Hint at news after the commit: a NOTIFY inside it makes all commits of the server queue for one lock."""
        for topic, partition, end in ends:
            self._news[topic, partition] = max(end, self._news.get((topic, partition), 0))
        if self._ringing is None or self._ringing.done():
            self._ringing = asyncio.create_task(self._ring_until_quiet())

    async def _ring_until_quiet(self) -> None:
        while self._news:
            ends = [(*source, end) for source, end in self._news.items()]
            self._news.clear()
            hints = [
                orjson.dumps(ends[start : start + _HINTS]).decode() for start in range(0, len(ends), _HINTS)
            ]
            with contextlib.suppress(BrokerError):
                async with self._connection() as connection:
                    await connection.execute(_NOTIFY, _RECORDS, hints)

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncGenerator[Member]:
        """Join a group; leaving the context leaves the group."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        member = Member(self._connection, self._pace, group, topics)
        self._members.add(member)
        belonging = asyncio.create_task(member.belong())
        try:
            yield member
        finally:
            self._members.discard(member)
            belonging.cancel()
            await asyncio.wait({belonging})
            with contextlib.suppress(BrokerError, TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await member.leave()

    async def _listen(self) -> None:
        """Keep one connection that hears hints; while there is none, polling serves."""
        while True:
            with contextlib.suppress(*GONE):
                connection = await asyncpg.connect(self._url, timeout=_CONNECT_SECONDS)
                try:
                    await self._hear_until_lost(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(self._pace.poll_seconds)

    async def _hear_until_lost(self, connection: Any) -> None:
        lost = asyncio.Event()

        def lose(_connection: Any) -> None:
            lost.set()

        connection.add_termination_listener(lose)
        await connection.add_listener(_RECORDS, self._hear_of_records)
        await connection.add_listener(_MEMBERS, self._hear_of_members)
        for member in self._members:
            member.look_everywhere()
            member.reshuffle.set()
        while not lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.lease_seconds):
                    await lost.wait()
            # A network that swallows packets tells nobody; the question finds out.
            await connection.fetchval("SELECT 1", timeout=_CONNECT_SECONDS)

    def _hear_of_records(self, _connection: Any, _pid: int, _channel: str, hint: Any) -> None:
        for topic, partition, end in orjson.loads(hint):
            for member in self._members:
                member.hear((topic, partition), end)

    def _hear_of_members(self, _connection: Any, _pid: int, _channel: str, group: Any) -> None:
        for member in self._members:
            if group in ("", member.group):
                member.reshuffle.set()

    async def purge(self, older_than: timedelta) -> int:
        """Delete records by age, save those that some group has still to read. Returns how many went.

        A group that is behind by more than the age is alarmed about, once per call.
        """
        deleted = 0
        async with self._connection() as connection, connection.transaction():
            await connection.execute(f"SET LOCAL transaction_timeout = '{_PURGE_SECONDS}s'")
            bounds = await connection.fetch(_PURGEABLE, older_than, timeout=_PURGE_SECONDS)
            for bound in bounds:
                done = await connection.execute(
                    "DELETE FROM record WHERE topic = $1 AND partition = $2 AND position < $3",
                    bound["topic"], bound["partition"], min(bound["aged"], bound["unread"]),
                    timeout=_PURGE_SECONDS,
                )  # fmt: skip
                deleted += int(done.removeprefix("DELETE "))
        overdue = sum(max(0, bound["aged"] - bound["unread"]) for bound in bounds)
        _overdue_records.set(overdue)
        if overdue:
            logger.error(
                "records outlived their retention because a group has not read them", extra={"count": overdue}
            )
        return deleted


async def _keep(_connection: Any) -> None:
    """Connections carry no state from one use to the next, so giving one back costs no round trip."""


def _is_outage(error: BaseException) -> bool:
    """Whether PostgreSQL, not the statement, failed: unreachable, restarting, full, read-only, deadlocked, too slow.

    A role or a database that is missing is one that is not restored yet: the same call may succeed later.
    """
    state: str = getattr(error, "sqlstate", None) or ""
    refused = isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.InterfaceError)
    return (
        not refused
        or state[:2] in {"08", "28", "3D", "40", "53", "57", "58"}
        or state in {"25006", "25P03", "25P04"}
    )


_CREATE_TOPICS = """
    WITH created AS (
        INSERT INTO topic_partition (topic, partition)
        SELECT topic, partition FROM unnest($1::text[]) AS topic, generate_series(0, $2 - 1) AS partition
        ORDER BY topic, partition
        ON CONFLICT DO NOTHING RETURNING topic
    )
    SELECT count(*) FROM created
"""

# Locks are taken in the order of the partitions, so two publishers never wait for each other. A topic that
# does not exist leaves a position without value, which fails the statement and with it the whole call.
_PUBLISH = """
    WITH incoming AS (
        SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::jsonb[], $5::bytea[])
            WITH ORDINALITY AS incoming (topic, partition, key, headers, value, place)
    ), counted AS (
        SELECT topic, partition, count(*) AS records FROM incoming GROUP BY topic, partition
    ), locked AS MATERIALIZED (
        SELECT topic, partition, next_offset, records
        FROM topic_partition JOIN counted USING (topic, partition)
        ORDER BY topic, partition FOR UPDATE OF topic_partition
    ), advanced AS (
        UPDATE topic_partition SET next_offset = locked.next_offset + locked.records FROM locked
        WHERE topic_partition.topic = locked.topic AND topic_partition.partition = locked.partition
        RETURNING topic_partition.topic, topic_partition.partition, topic_partition.next_offset
    ), published AS (
        INSERT INTO record (topic, partition, position, key, headers, value)
        SELECT topic, partition,
               locked.next_offset + row_number() OVER (PARTITION BY topic, partition ORDER BY place) - 1,
               key, headers, value
        FROM incoming LEFT JOIN locked USING (topic, partition)
        ORDER BY place
    )
    SELECT topic, partition, next_offset FROM advanced
"""

# A hint that a crash of the server forgets costs one interval of polling, so nobody waits for the disk.
_NOTIFY = """
    SELECT pg_notify($1, hint)
    FROM (SELECT set_config('synchronous_commit', 'off', true)) AS no_wait, unnest($2::text[]) AS hint
"""

# Per partition: the first offset that is young enough to stay, and the first that some group has not read.
_PURGEABLE = """
    SELECT p.topic, p.partition,
           coalesce(young.position, p.next_offset) AS aged,
           coalesce(least(late.committed, p.next_offset), p.next_offset) AS unread
    FROM topic_partition AS p
    LEFT JOIN LATERAL (
        SELECT position FROM record AS r
        WHERE r.topic = p.topic AND r.partition = p.partition AND r.produced_at >= now() - $1::interval
        ORDER BY position LIMIT 1
    ) AS young ON true
    LEFT JOIN LATERAL (
        SELECT min(committed) AS committed FROM assignment AS a
        WHERE a.topic = p.topic AND a.partition = p.partition
    ) AS late ON true
"""
