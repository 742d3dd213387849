"""What the tests do to the log itself, on either broker: take it away, give it back, rewind every group."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.databases import database
from deploy.local.environment import SERVICES
from deploy.local.kafka import KafkaServer
from deploy.local.platform import Platform
from libs.common.broker import PARTITIONS
from libs.common.events import topics_of
from tests.faults.databases import Databases


class Log(Protocol):
    """The broker of the platform under test."""

    async def kill(self) -> None:
        """Nobody reaches it any more, from one moment to the next."""
        ...

    async def start(self) -> None:
        """It is back, with all it had."""
        ...

    async def rewind(self) -> None:
        """Every group begins again with the first record. No worker runs."""
        ...

    async def lag(self) -> int:
        """Records that some group has still to commit."""
        ...

    async def members(self, group: str) -> int:
        """How many share the group's partitions; 0 while they are being shared out."""
        ...


class EmbeddedLog:
    """The log in PostgreSQL: its database takes no connection while the others go on."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    async def kill(self) -> None:
        """No new connection, and an end to those that are open."""
        name = database("broker")
        ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        await self._databases.execute("broker", f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        await self._databases.rows("broker", ending, name)

    async def start(self) -> None:
        """Connections are taken again."""
        await self._databases.execute("broker", f"ALTER DATABASE {database('broker')} CONNECTION LIMIT -1")

    async def rewind(self) -> None:
        """To the first record; none has been purged."""
        await self._databases.execute("broker", "UPDATE assignment SET committed = 0")

    async def lag(self) -> int:
        """Over all groups, of what is kept."""
        waiting = (
            "SELECT count(*) FROM record JOIN assignment USING (topic, partition) WHERE position >= committed"
        )
        return int(await self._databases.value("broker", waiting))

    async def members(self, group: str) -> int:
        """Those that hold a partition."""
        holding = "SELECT count(DISTINCT member) FROM assignment WHERE group_name = $1"
        return int(await self._databases.value("broker", holding, group))


class KafkaLog:
    """Apache Kafka, killed and started as a process."""

    def __init__(self, kafka: KafkaServer) -> None:
        self._kafka = kafka

    async def kill(self) -> None:
        """SIGKILL."""
        self._kafka.kill()

    async def start(self) -> None:
        """On the same port and data."""
        await self._kafka.start()

    async def rewind(self) -> None:
        """To the first record; none has expired."""
        for group, partitions in _read_by_groups().items():
            async with self._member(group) as consumer:
                consumer.assign(partitions)
                await consumer.commit(dict.fromkeys(partitions, 0))

    async def lag(self) -> int:
        """Over all groups."""
        read = _read_by_groups()
        async with self._member(None) as consumer:
            ends = await consumer.end_offsets({one for partitions in read.values() for one in partitions})
        waiting = 0
        async with self._admin() as admin:
            for group, partitions in read.items():
                committed = await admin.list_consumer_group_offsets(group, partitions=partitions)
                waiting += sum(ends[one] - max(0, committed[one].offset) for one in partitions)
        return waiting

    async def members(self, group: str) -> int:
        """As the coordinator knows them."""
        async with self._admin() as admin:
            answers: list[Any] = await admin.describe_consumer_groups([group])
        _, _, state, _, _, members, *_ = answers[0].groups[0]
        return len(members) if state == "Stable" else 0

    @asynccontextmanager
    async def _admin(self) -> AsyncGenerator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka.bootstrap_servers)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    def _member(self, group: str | None) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
        )


def _read_by_groups() -> dict[str, list[TopicPartition]]:
    return {
        service: [
            TopicPartition(topic, partition)
            for topic in topics_of(import_module(f"services.{service}.consumer").HANDLERS)
            for partition in range(PARTITIONS)
        ]
        for service in SERVICES
    }


def log_of(platform: Platform, databases: Databases) -> Log:
    """The broker that this platform runs on."""
    return KafkaLog(platform.kafka) if platform.kafka is not None else EmbeddedLog(databases)
