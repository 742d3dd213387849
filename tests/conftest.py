"""What every test may ask for: real servers, started once a session and stopped by it."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local.cluster import begin_with_copy
from deploy.local.databases import provision
from deploy.local.environment import keys
from deploy.local.kafka import KafkaServer
from deploy.local.migrate import migrate
from deploy.local.nursery import made_to_stay
from deploy.local.postgres import PostgresServer
from tests import variables

_BROKERS = ("embedded", "kafka")
_LONGEST = (
    "test_events.py",
    "test_schemathesis.py",
    "test_broker.py",
    "test_typescript.py",
    "test_people.py",
    "test_thread.py",
    "test_assembling.py",
    "test_alerts.py",
    "test_restores.py",
    "test_platform.py",
)
"""What takes a minute of its part, or half of one, begins first: begun last, one process would have it alone."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected is of use until the end."""
    with made_to_stay():
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the tests that share servers, and so stay in one process (`--dist=loadgroup`), before xdist reads it."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_sharing(item)))


def _sharing(item: pytest.Item) -> str:
    """Those of a file; where a session has a platform for each broker, or one that was lived on, those that use it.
    What has a platform to itself stands alone.
    """
    names = item.fixturenames if isinstance(item, pytest.Function) else ()
    if "lived" in names:
        return "lived"
    if "alone" in names:
        return item.nodeid
    chosen = item.name.partition("[")[2].rstrip("]").split("-")
    broker = next((one for one in _BROKERS if one in chosen), None)
    return broker if broker and item.path.parent.name in ("faults", "e2e") else item.nodeid.partition("::")[0]


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
    begin_with_copy(session_folder)
    server = PostgresServer(session_folder / "postgres", fast=True)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def environment(postgres: PostgresServer, session_folder: Path) -> Mapping[str, str]:
    """The environment variables of the platform; its databases exist, and nobody is in them."""
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
    server = KafkaServer(session_folder / "kafka", fast=True)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="module")
def nothing_of_the_platform_set() -> Iterator[None]:
    """No variable of the platform, which other tests set for services in this process: a Platform makes its own."""
    with variables.unset():
        yield
