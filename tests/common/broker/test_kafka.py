"""What the Kafka adapter promises beyond the contract."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.local.kafka import KafkaServer
from libs.common.broker import Record, RecordTooLarge
from libs.common.broker.kafka import KafkaBroker


@pytest.fixture
async def broker(kafka: KafkaServer) -> AsyncIterator[KafkaBroker]:
    broker = KafkaBroker(kafka.bootstrap_servers)
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def admin(kafka: KafkaServer) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    yield admin
    await admin.close()


@pytest.fixture
async def topic(broker: KafkaBroker) -> str:
    topic = f"kafka.t{uuid4().hex}"
    await broker.ensure_topics([topic])
    return topic


async def test_records_that_retention_deleted_unread_are_alarmed_about(
    broker: KafkaBroker, admin: AIOKafkaAdminClient, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.publish([Record(topic, "a", b"0")])
    async with asyncio.timeout(30), broker.subscribe("late", [topic]) as subscription:
        batch = await anext(aiter(subscription))
        await batch.commit()
    await broker.publish([Record(topic, "a", str(number).encode()) for number in range(1, 6)])
    lost = TopicPartition(topic, batch.partition)
    await admin.delete_records({lost: RecordsToDelete(before_offset=4)})
    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(30), broker.subscribe("late", [topic]) as subscription:
            batch = await anext(aiter(subscription))
    assert [record.value for record in batch.records] == [b"4", b"5"]
    assert [vars(record)["count"] for record in caplog.records] == [3]


async def test_a_topic_that_takes_smaller_records_refuses_only_the_large_one(
    broker: KafkaBroker, admin: AIOKafkaAdminClient
) -> None:
    topic = f"kafka.t{uuid4().hex}"
    await admin.create_topics([NewTopic(topic, 8, 1, topic_configs={"max.message.bytes": "500000"})])
    large = Record(topic, "a", b"x" * 600_000)
    with pytest.raises(RecordTooLarge) as refusal:
        await broker.publish([Record(topic, "a", b"0"), large, Record(topic, "a", b"1")])
    assert refusal.value.records == [large]
    await broker.publish([Record(topic, "a", b"0"), Record(topic, "a", b"1")])
    async with asyncio.timeout(30), broker.subscribe("all", [topic]) as subscription:
        seen: set[bytes] = set()
        while seen != {b"0", b"1"}:
            batch = await anext(aiter(subscription))
            seen |= {record.value for record in batch.records}
            await batch.commit()


async def test_foreign_bytes_arrive_as_text_that_can_be_parked(
    kafka: KafkaServer, broker: KafkaBroker, topic: str
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as foreign:
        await foreign.send_and_wait(
            topic, key=b"a\0\xff", value=b"\0\xff", headers=[("ce_type\0", b"\0\xff"), ("empty", b"")]
        )
    async with asyncio.timeout(30), broker.subscribe("all", [topic]) as subscription:
        [record] = (await anext(aiter(subscription))).records
    assert (record.key, record.value) == ("a\ufffd\ufffd", b"\0\xff")
    assert record.headers == {"ce_type\ufffd": "\ufffd\ufffd", "empty": ""}


async def test_topics_keep_a_week_in_eight_partitions(
    broker: KafkaBroker, admin: AIOKafkaAdminClient, topic: str
) -> None:
    (described,) = await admin.describe_topics([topic])
    assert len(described["partitions"]) == 8
    answer: Any
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    (resource,) = answer.resources
    settings = {entry[0]: entry[1] for entry in resource[4]}
    assert settings["retention.ms"] == str(7 * 24 * 3600 * 1000)
