"""A keyring on a port of its own, over real databases, stopped and started by the tests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import httpx
import orjson
import pytest
import uvicorn

from deploy.local.migrate import migrate
from deploy.local.ports import free_port
from deploy.local.waiting import until
from libs.common.db import Database
from libs.common.personal.keys import KeyringClient
from libs.common.personal.vault import Vault
from services.privacy.keyring.app import create_app
from services.privacy.keyring.settings import KeyringSettings


class RunningKeyring:
    """The keyring's application behind HTTP, and its databases beside it."""

    def __init__(
        self, settings: KeyringSettings, environment: Mapping[str, str], http: httpx.AsyncClient
    ) -> None:
        self.settings = settings
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = Database(settings.database_url)
        self.destructions = Database(settings.destructions_database_url)
        self.http = http
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.today: Callable[[], date] = lambda: self.clock().date()
        self._environment = environment
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        config = uvicorn.Config(
            create_app(self.settings, clock=self.clock, today=self._day),
            port=self.port,
            log_config=None,
            lifespan="on",
        )
        self._server = server = uvicorn.Server(config)
        server.capture_signals = _leave_signals_alone  # type: ignore[method-assign]
        self._serving = serving = asyncio.create_task(server.serve())

        async def started() -> bool:
            return server.started or serving.done()

        await until(started, 20, "the keyring did not start")
        assert server.started

    def _day(self) -> date:
        return self.today()

    async def stop(self) -> None:
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
            self._server = None

    async def close(self) -> None:
        await self.stop()
        await self.database.close()
        await self.destructions.close()

    def private_key(self, service: str) -> str:
        return self._environment[f"{service.upper()}_SERVICE_KEY"]

    def client(self, service: str) -> KeyringClient:
        return KeyringClient(
            url=self.url,
            service=service,
            private_key=self.private_key(service),
            http=self.http,
            clock=lambda: self.clock().timestamp(),
        )

    def vault(self, service: str, **options: Any) -> Vault:
        return Vault(self.client(service), **options)


class _leave_signals_alone:  # noqa: N801 - a context manager used like a function
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def settings_of(environment: Mapping[str, str], **changes: Any) -> KeyringSettings:
    values: dict[str, Any] = {
        "database_url": environment["KEYRING_DATABASE_URL"],
        "destructions_database_url": environment["DESTRUCTIONS_DATABASE_URL"],
        "master_key": environment["KEYRING_MASTER_KEY"],
        "service_keys": orjson.loads(environment["SERVICE_KEYS"]),
    }
    return KeyringSettings(**values | changes)


@pytest.fixture(scope="session")
async def keyring_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    await migrate(environment, ["keyring", "destructions"])
    return environment


@pytest.fixture(scope="session")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=100)) as client:
        yield client


@pytest.fixture(scope="session")
async def keyring(
    keyring_environment: Mapping[str, str], http: httpx.AsyncClient
) -> AsyncIterator[RunningKeyring]:
    """One keyring for the session; a test that stops one starts its own."""
    running = RunningKeyring(settings_of(keyring_environment), keyring_environment, http)
    await running.start()
    yield running
    await running.close()


@pytest.fixture
async def own_keyring(
    keyring_environment: Mapping[str, str], http: httpx.AsyncClient
) -> AsyncIterator[RunningKeyring]:
    """A keyring for one test, over the same databases."""
    running = RunningKeyring(settings_of(keyring_environment), keyring_environment, http)
    await running.start()
    yield running
    await running.close()
