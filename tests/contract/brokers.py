"""The two brokers under contract, each on a real server that its tests may kill, hang and wipe."""

import shutil
from pathlib import Path
from typing import Protocol

import psutil

from deploy.local.databases import provision
from deploy.local.kafka import KafkaServer
from deploy.local.migrate import migrate
from deploy.local.postgres import PostgresServer
from libs.common.broker import Broker
from libs.common.broker.kafka import KafkaBroker
from libs.common.broker.postgres import EmbeddedBroker

TIMEOUT = 3.0
"""Seconds after which a call to a broker that does not answer gives up."""


class Server(Protocol):
    """A broker's server and the adapters that reach it."""

    kind: str
    address: str
    silence: float
    """Seconds after which a silent member loses its partitions."""

    async def start(self) -> None: ...
    def kill(self) -> None: ...
    def hang(self) -> None: ...
    def go_on(self) -> None: ...
    async def wipe(self) -> None: ...


class EmbeddedServer:
    kind = "embedded"
    silence = 1.5
    address = ""

    def __init__(self, folder: Path) -> None:
        self.postgres = PostgresServer(folder / "broker-postgres")

    async def start(self) -> None:
        await self.postgres.start()
        environment = await provision(self.postgres)
        await migrate(environment, ["broker"])
        self.address = environment["BROKER_DATABASE_URL"]

    def kill(self) -> None:
        self.postgres.kill()

    def hang(self) -> None:
        for process in self._processes():
            process.suspend()

    def go_on(self) -> None:
        for process in self._processes():
            process.resume()

    async def wipe(self) -> None:
        self.postgres.kill()
        shutil.rmtree(self.postgres.data)
        await self.start()

    def _processes(self) -> list[psutil.Process]:
        assert self.postgres.pid is not None
        postmaster = psutil.Process(self.postgres.pid)
        return [postmaster, *postmaster.children(recursive=True)]


class ApacheKafka:
    kind = "kafka"
    silence = 6.0
    address = ""

    def __init__(self, folder: Path) -> None:
        self.kafka = KafkaServer(folder / "broker-kafka", fast=True)

    async def start(self) -> None:
        await self.kafka.start()
        self.address = self.kafka.bootstrap_servers

    def kill(self) -> None:
        self.kafka.kill()

    def hang(self) -> None:
        self.kafka.pause()

    def go_on(self) -> None:
        self.kafka.resume()

    async def wipe(self) -> None:
        self.kafka.kill()
        shutil.rmtree(self.kafka.data / "logs")
        await self.start()


def adapter(kind: str, address: str, silence: float, batch_size: int = 500) -> Broker:
    """An adapter with short times: what a member of a group is given in these tests."""
    if kind == "kafka":
        return KafkaBroker(address, publish_timeout=TIMEOUT, session_seconds=silence, batch_size=batch_size)
    return EmbeddedBroker(address, timeout=TIMEOUT, lease_seconds=silence, batch_size=batch_size)
