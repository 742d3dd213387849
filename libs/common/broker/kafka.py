"""Apache Kafka through aiokafka, none of whose defaults that lose data or hang are left as they are."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    InvalidConfigurationError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedVersionError,
    for_code,
)

from libs.common.broker import (
    MAXIMUM_RECORD_BYTES,
    PARTITIONS,
    RETENTION,
    BrokerError,
    BrokerUnavailable,
    Record,
    RecordTooLarge,
    refuse_too_large,
)
from libs.common.broker.kafka_member import Member, Reading, finish_within
from libs.common.broker.reachability import Reachability

_STOP_SECONDS = 5.0
_DISCARD_SECONDS = 1.0
_BATCH_BYTES = 256 * 2**10
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
_FRAMING_BYTES = 64 * 2**10
"""Room for what Kafka adds around a record of the largest size."""
_REFUSALS = (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    InvalidConfigurationError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedVersionError,
)
"""What asking again does not change."""


class KafkaBroker:
    """A Kafka cluster. `publish_timeout` seconds bound every call; a broker that restarts within goes unnoticed.

    A member that is silent for `session_seconds` loses its partitions (the broker sets the least, 6 by default).
    A batch holds at most `batch_size` records.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client_id: str = "vitrine",
        publish_timeout: float = 10.0,
        session_seconds: float = 10.0,
        batch_size: int = 500,
    ) -> None:
        self._servers = bootstrap_servers
        self._client_id = client_id
        self._timeout = publish_timeout
        # A request must fail while there is still time to see why.
        self._request_milliseconds = int(publish_timeout * 500)
        self._reading = Reading(bootstrap_servers, client_id, session_seconds, batch_size)
        self._reachability = Reachability()
        self._producer: AIOKafkaProducer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._connecting = asyncio.Lock()

    async def start(self) -> None:
        """Connect if possible."""
        # It logs an error for every attempt while the broker is away; `Reachability` says it once.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        with contextlib.suppress(BrokerUnavailable):
            async with self._call():
                await self._connected_producer()

    async def stop(self) -> None:
        """Close every connection, whether the broker answers or not."""
        producer, self._producer = self._producer, None
        admin, self._admin = self._admin, None
        if producer is not None:
            await _discard(producer)
        if admin is not None:
            await finish_within(_STOP_SECONDS, admin.close())

    @asynccontextmanager
    async def _call(self) -> AsyncGenerator[None]:
        """Bound a call in time and tell its errors in the port's words."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except (TimeoutError, OSError, KafkaError) as error:
            if isinstance(error, _REFUSALS):
                raise BrokerError(f"Kafka refused: {type(error).__name__}") from error
            self._reachability.lost(error)
            raise BrokerUnavailable from error
        self._reachability.found()

    async def cluster_id(self) -> str:
        """The id the cluster was formatted with."""
        async with self._administration() as admin:
            return str((await admin.describe_cluster())["cluster_id"])

    async def purge(self, older_than: timedelta) -> int:
        """Nothing: topics are created with their retention."""
        return 0

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that do not exist yet, replicated as the cluster's default says."""
        async with self._administration() as admin:
            missing = set(topics) - set(await admin.list_topics())
            if missing:
                answer: Any = await admin.create_topics([_new_topic(name) for name in sorted(missing)])
                for _, code, *_ in answer.topic_errors:
                    error = for_code(code)
                    if code and error is not TopicAlreadyExistsError:
                        raise error

    @asynccontextmanager
    async def _administration(self) -> AsyncGenerator[AIOKafkaAdminClient]:
        async with self._call():
            try:
                yield await self._connected_admin()
            except BaseException:
                admin, self._admin = self._admin, None
                if admin is not None:
                    await finish_within(_STOP_SECONDS, admin.close())
                raise

    async def publish(self, records: Sequence[Record]) -> None:
        """Send all, then wait for every acknowledgement of all replicas in sync."""
        if not records:
            return
        refuse_too_large(records)
        async with self._call():
            producer = await self._connected_producer()
            try:
                await _send(producer, records)
            except BaseException:
                # What it has queued would be sent after all, behind what the caller sends again; and a refused
                # batch has broken its sequence numbers.
                if self._producer is producer:
                    self._producer = None
                    await _discard(producer)
                raise

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncGenerator[Member]:
        """Join a group; leaving the context leaves the group."""
        member = Member(self._reading, group, topics, self._reachability)
        belonging = asyncio.create_task(member.belong())
        try:
            yield member
        finally:
            belonging.cancel()
            await asyncio.wait({belonging})

    async def _connected_producer(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._servers,
                    client_id=self._client_id,
                    enable_idempotence=True,
                    acks="all",
                    request_timeout_ms=self._request_milliseconds,
                    max_request_size=MAXIMUM_RECORD_BYTES + _FRAMING_BYTES,
                    max_batch_size=_BATCH_BYTES,
                )
                try:
                    await producer.start()
                except BaseException:
                    await _discard(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _connected_admin(self) -> AIOKafkaAdminClient:
        async with self._connecting:
            if self._admin is None:
                admin = AIOKafkaAdminClient(
                    bootstrap_servers=self._servers,
                    client_id=self._client_id,
                    request_timeout_ms=self._request_milliseconds,
                )
                try:
                    await admin.start()
                except BaseException:
                    await finish_within(_STOP_SECONDS, admin.close())
                    raise
                self._admin = admin
            return self._admin


async def _send(producer: AIOKafkaProducer, records: Sequence[Record]) -> None:
    try:
        sent = [
            await producer.send(
                record.topic,
                key=record.key.encode(),
                value=record.value,
                headers=[(name, text.encode()) for name, text in record.headers.items()],
            )
            for record in records
        ]
    except UnknownTopicOrPartitionError as error:
        if not await producer.client.force_metadata_update():
            raise KafkaConnectionError from error
        raise
    await asyncio.wait(sent)
    failed = [
        (record, error)
        for record, future in zip(records, sent, strict=True)
        if (error := future.exception()) is not None
    ]
    if too_large := [record for record, error in failed if isinstance(error, _TOO_LARGE)]:
        raise RecordTooLarge(too_large)
    if failed:
        raise failed[0][1]


async def _discard(producer: AIOKafkaProducer) -> None:
    """Close a producer and forget what it queued: its own `stop` waits for a broker that may never come back."""
    sender: Any = producer._sender  # pyright: ignore[reportPrivateUsage]
    producer._closed = True  # pyright: ignore[reportPrivateUsage]
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_DISCARD_SECONDS):
            await sender.close()
    await finish_within(_STOP_SECONDS, producer.client.close())


def _new_topic(name: str) -> NewTopic:
    topic = NewTopic(
        name,
        num_partitions=PARTITIONS,
        replication_factor=1,
        topic_configs={
            "retention.ms": str(int(RETENTION.total_seconds() * 1000)),
            "max.message.bytes": str(MAXIMUM_RECORD_BYTES + _FRAMING_BYTES),
        },
    )
    # The cluster's default, which brokers understand and this constructor refuses.
    topic.replication_factor = -1
    return topic
