"""How far each service's group has read the broker's topics: noted before a backup, and set back after a restore.

A record that was handled before the backup is met again by its inbox row, so to be set back too far is harmless.
"""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError

from deploy.local.backups.servers import Place
from deploy.local.backups.sets import Positions
from deploy.local.errors import StartError
from deploy.local.kafka import KafkaServer
from deploy.local.waiting import until
from libs.common.broker import BrokerUnavailable
from libs.common.broker.kafka import KafkaBroker

_TOLD_WITHIN = 60  # seconds


class Groups(Protocol):
    """The groups of one broker. The group of a service has its name."""

    async def cluster_id(self) -> str:
        """The identity of the log."""
        ...

    async def read(self, group: str) -> Positions:
        """Where a group is."""
        ...

    async def set_back(self, group: str, positions: Positions | None) -> int:
        """Let a group read again from these positions; from the oldest record where none is given.

        Returns in how many partitions records since then are gone. Nobody may be in the group.
        """
        ...


@asynccontextmanager
async def groups_of(variables: Mapping[str, str], broker: str, data: Path) -> AsyncGenerator[Groups]:
    """The groups of the broker; this machine's Kafka is started if it does not run. Raises StartError."""
    if broker == "embedded":
        yield EmbeddedGroups(Place.of(variables, "broker"))
    elif servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield KafkaGroups(servers)
    else:
        kafka = KafkaServer(data / "kafka")
        if not kafka.data.exists():
            raise StartError("Set KAFKA_BOOTSTRAP_SERVERS: how far the services have read is kept there.")
        if not kafka.is_running_elsewhere:
            await kafka.start()
        try:
            yield KafkaGroups(kafka.bootstrap_servers)
        finally:
            await kafka.stop()


# --- The embedded log ------------------------------------------------------------------------------------

_READ = "SELECT topic || '/' || partition AS source, committed FROM assignment WHERE group_name = $1"
# `least` passes over what is null, so where nothing is wanted says so itself.
_SET_BACK = """
    UPDATE assignment AS a SET epoch = a.epoch + 1, member = NULL, committed = least(a.committed, coalesce(
        wanted.position, (SELECT position FROM record AS r WHERE r.topic = a.topic AND r.partition = a.partition
                          ORDER BY position LIMIT 1)))
    FROM assignment AS same
    LEFT JOIN unnest($2::text[], $3::bigint[]) AS wanted (source, position)
        ON wanted.source = same.topic || '/' || same.partition
    WHERE a.group_name = $1
        AND (same.group_name, same.topic, same.partition) = (a.group_name, a.topic, a.partition)
"""
_LATE = """
    SELECT count(*) FROM assignment AS a
    JOIN unnest($2::text[], $3::bigint[]) AS wanted (source, position)
        ON wanted.source = a.topic || '/' || a.partition
    WHERE a.group_name = $1 AND wanted.position < (
        SELECT position FROM record AS r WHERE r.topic = a.topic AND r.partition = a.partition
        ORDER BY position LIMIT 1)
"""


class EmbeddedGroups:
    """Of the log in PostgreSQL."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def cluster_id(self) -> str:
        """The id in its one row."""
        async with self._place.connected() as connection:
            return str(await connection.fetchval("SELECT id FROM cluster"))

    async def read(self, group: str) -> Positions:
        """Where a group is."""
        async with self._place.connected() as connection:
            return {row["source"]: row["committed"] for row in await connection.fetch(_READ, group)}

    async def set_back(self, group: str, positions: Positions | None) -> int:
        """In one statement."""
        wanted = [list((positions or {}).keys()), list((positions or {}).values())]
        async with self._place.connected() as connection, connection.transaction():
            await connection.execute(_SET_BACK, group, *wanted)
            return int(await connection.fetchval(_LATE, group, *wanted))


# --- Kafka -----------------------------------------------------------------------------------------------


class KafkaGroups:
    """Of Apache Kafka."""

    def __init__(self, servers: str) -> None:
        self._servers = servers

    async def cluster_id(self) -> str:
        """The id the cluster was formatted with."""
        broker = KafkaBroker(self._servers)
        await broker.start()
        try:
            return await broker.cluster_id()
        except BrokerUnavailable as error:
            raise StartError(f"Kafka cannot be reached at {self._servers}.") from error
        finally:
            await broker.stop()

    async def read(self, group: str) -> Positions:
        """What the group has committed."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        found: dict[TopicPartition, Any] = {}

        async def is_told() -> bool:
            try:
                found.update(await admin.list_consumer_group_offsets(group))
            except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
                # A cluster that has never had a group makes the topic for them first.
                return False
            return True

        try:
            await until(is_told, _TOLD_WITHIN, f"Kafka did not say how far {group} has read")
        finally:
            await admin.close()
        return {f"{one.topic}/{one.partition}": int(at.offset) for one, at in found.items() if at.offset >= 0}

    async def set_back(self, group: str, positions: Positions | None) -> int:
        """As a member would commit, while the group has none."""
        now = await self.read(group)
        if not now:
            return 0
        consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=self._servers, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            partitions = [_partition(source) for source in now]
            consumer.assign(partitions)
            oldest = await consumer.beginning_offsets(partitions)
            wanted = {source: (positions or {}).get(source, 0) for source in now}
            begin = {
                one: max(oldest[one], min(now[name], wanted[name]))
                for name, one in zip(now, partitions, strict=True)
            }
            await consumer.commit(begin)
        finally:
            await consumer.stop()
        given = positions or {}
        return sum(
            1
            for name, one in zip(now, partitions, strict=True)
            if name in given and given[name] < oldest[one]
        )


def _partition(source: str) -> TopicPartition:
    topic, _, number = source.rpartition("/")
    return TopicPartition(topic, int(number))
