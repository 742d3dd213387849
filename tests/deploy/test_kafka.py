"""The local Apache Kafka: what it keeps over a crash, and its second door for a fault proxy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # pyright: ignore[reportMissingTypeStubs]
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # pyright: ignore[reportMissingTypeStubs]

from deploy.local.kafka import KafkaServer, keep_classes
from deploy.local.ports import free_port


@pytest.fixture(scope="module")
async def server(folder: Path) -> AsyncIterator[KafkaServer]:
    await keep_classes(folder / "once")
    server = KafkaServer(folder / "kafka", proxy_port=free_port(), fast=True)
    await server.start()
    yield server
    await server.stop()


def test_it_begins_with_the_classes_of_another(server: KafkaServer) -> None:
    assert server.pid
    assert "classes.jsa" in Path(f"/proc/{server.pid}/maps").read_text()


async def write(servers: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
        await asyncio.wait_for(producer.send_and_wait(topic, value), 20)


async def read(servers: str, topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    async with consumer:
        record = await asyncio.wait_for(consumer.getone(), 20)
    return record.value


async def create(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def test_a_killed_node_comes_back_with_everything_on_the_same_port(server: KafkaServer) -> None:
    servers = server.bootstrap_servers
    await create(servers, "kept")
    await write(servers, "kept", b"before the crash")
    server.kill()
    assert server.pid is None
    await server.start()
    assert server.bootstrap_servers == servers
    assert await read(servers, "kept") == b"before the crash"


async def test_clients_of_the_second_listener_stay_behind_the_proxy(server: KafkaServer) -> None:
    await create(server.bootstrap_servers, "proxied")
    connections = 0

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.proxied_port)
        with contextlib.suppress(OSError):
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    proxy = await asyncio.start_server(forward, "127.0.0.1", server.proxy_port)
    await write(f"127.0.0.1:{server.proxy_port}", "proxied", b"by the second door")
    assert await read(server.bootstrap_servers, "proxied") == b"by the second door"
    # One connection to bootstrap, and one to the node it was told about.
    assert connections >= 2
    proxy.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
