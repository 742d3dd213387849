"""The whole platform, in this process or as processes of its own, for what must hold of every service alike."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from deploy.local.environment import SERVICES
from deploy.local.gateway import Gateway
from deploy.local.postgres import PostgresServer
from services.identity import passwords
from services.privacy.settings import present
from tests.contract.house import Furnished, House, Person, furnish, merchant_of
from tests.contract.life import Life, living
from tests.contract.lives import Lives
from tests.contract.otlp import Collector, collecting
from tests.privacy.keyring.conftest import RunningKeyring, settings_of
from tests.serving import serving
from tests.tokens import client_of, running


@pytest.fixture(scope="session")
async def keyring(platform_environment: Mapping[str, str]) -> AsyncIterator[RunningKeyring]:
    async with httpx.AsyncClient() as http:
        keyring = RunningKeyring(settings_of(platform_environment), platform_environment, http)
        await keyring.start()
        yield keyring
        await keyring.close()


@pytest.fixture(scope="session")
async def house(platform_environment: Mapping[str, str], keyring: RunningKeyring) -> AsyncIterator[House]:
    """Every service, configured by the environment as a process of its own would be."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**platform_environment, "KEYRING_URL": keyring.url}.items():
            patch.setenv(name, value)
        # Hashes and pauses that cost little: here they are not the matter.
        patch.setenv("IDENTITY_ANSWER_STEP", "0.02")
        patch.setenv("PRIVACY_ANSWER_STEP", "0.02")
        patch.setenv("PRIVACY_FORMS_PER_ADDRESS", "100000")
        patch.setattr(passwords, "MEMORY_KIB", 1024)
        present.cache_clear()
        apps = {service: _app(service) for service in SERVICES}
        async with AsyncExitStack() as stack:
            for app in apps.values():
                await stack.enter_async_context(running(app, keys_of=apps["identity"]))
            client = await stack.enter_async_context(client_of(Gateway(apps, Starlette()), timeout=30))
            yield House(apps, client)
    present.cache_clear()


@pytest.fixture(scope="session")
async def address(house: House) -> AsyncIterator[str]:
    """The house behind a port: what examines or operates it is a process of its own."""
    async with serving(Gateway(house.apps, Starlette())) as address:
        yield address


def _app(service: str) -> Any:
    settings = import_module(f"services.{service}.settings").Settings()
    return import_module(f"services.{service}.app").create_app(settings)


@pytest.fixture(scope="session")
async def merchant(house: House) -> Person:
    return await merchant_of(house)


@pytest.fixture(scope="session")
async def ours(house: House, merchant: Person) -> Furnished:
    """The store whose people call."""
    return await furnish(house, merchant)


@pytest.fixture(scope="session")
async def theirs(house: House, merchant: Person) -> Furnished:
    """Another store, with the same kinds of things in it."""
    return await furnish(house, merchant)


@pytest.fixture(scope="module")
async def lives(house: House, merchant: Person, keyring: RunningKeyring, postgres: PostgresServer) -> Lives:
    """A store of its own whose people live through whatever can come between."""
    lives = Lives(house, keyring, postgres, await furnish(house, merchant))
    await lives.begin()
    await lives.drive()
    return lives


@pytest.fixture(scope="session")
async def collector() -> AsyncIterator[Collector]:
    """What the processes of `lived` report."""
    async with collecting() as collector:
        yield collector


@pytest.fixture(scope="session")
async def lived(collector: Collector) -> AsyncIterator[tuple[Life, Path]]:
    """A life that was lived on a platform of real processes, and the folder it left behind when it stopped."""
    async with living("embedded", collector) as lived:
        yield lived
