"""What every test may ask for: real servers, started once a session and stopped by it."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local.databases import provision
from deploy.local.environment import keys
from deploy.local.kafka import KafkaServer
from deploy.local.migrate import migrate
from deploy.local.postgres import PostgresServer
from tests import variables


@contextmanager
def _thrown_away() -> Generator[Path]:
    """A folder with a short path, open to the system user PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="vitrine-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def session_folder() -> Iterator[Path]:
    """A throw-away folder for all tests."""
    with _thrown_away() as folder:
        yield folder


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A throw-away folder for those of a module."""
    with _thrown_away() as folder:
        yield folder


@pytest.fixture(scope="session")
async def postgres(session_folder: Path) -> AsyncIterator[PostgresServer]:
    """One PostgreSQL server, without fsync. Tests that stop or kill a server start their own."""
    server = PostgresServer(session_folder / "postgres", fast=True)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def environment(postgres: PostgresServer, session_folder: Path) -> Mapping[str, str]:
    """The environment variables of the platform; its databases exist and are empty."""
    return {**await provision(postgres), **keys(session_folder)}


@pytest.fixture(scope="session")
async def platform_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment variables of the platform; every database is migrated.

    A test of one part alone migrates what it needs: `await migrate(environment, ["keyring"])`.
    """
    await migrate(environment)
    return environment


@pytest.fixture(scope="session")
async def kafka(session_folder: Path) -> AsyncIterator[KafkaServer]:
    """One Apache Kafka node. Tests that stop or kill a node start their own."""
    server = KafkaServer(session_folder / "kafka")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="module")
def nothing_of_the_platform_set() -> Iterator[None]:
    """No variable of the platform, which other tests set for services in this process: a Platform makes its own."""
    with variables.unset():
        yield
