"""Identity's application over a real database and a real keyring, and the people who use it."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from deploy.local.migrate import migrate
from libs.common.auth import PLATFORM_STORE
from libs.common.mail import Letter, WaitingLetter
from libs.common.personal.data import Sealed
from libs.common.personal.vocabulary import Purpose
from services.identity import passwords
from services.identity.app import create_app
from services.identity.parts import Parts
from services.identity.settings import Settings
from tests.privacy.keyring.conftest import RunningKeyring, http, keyring, keyring_environment, own_keyring

__all__ = ["http", "keyring", "keyring_environment", "own_keyring"]

PASSWORD = "correct horse battery staple"


class MovableClock:
    """The one clock of the application under test."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass(frozen=True)
class Person:
    """A confirmed account, signed in."""

    store_id: UUID
    email: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


@dataclass
class World:
    """The public interface, and a look into the letters that wait."""

    app: FastAPI
    http: httpx.AsyncClient
    clock: MovableClock
    settings: Settings

    @property
    def parts(self) -> Parts:
        return self.app.state.parts

    async def sign_up(
        self, store_id: UUID, email: str, password: str = PASSWORD, **more: Any
    ) -> httpx.Response:
        body = {"email": email, "password": password, **more}
        return await self.http.post(f"/identity/v1/stores/{store_id}/accounts", json=body)

    async def letters(self, store_id: UUID, email: str) -> list[Letter]:
        """The letters that wait for a person, the oldest first."""
        subject_id = await self.parts.vault.subject_id(store_id, email)
        async with self.parts.database.session(store_id) as session:
            rows = await session.scalars(
                select(WaitingLetter)
                .where(WaitingLetter.subject_id == subject_id)
                .order_by(WaitingLetter.written_at)
            )
            boxes = [Sealed(Letter, row.box) for row in rows]
        return [
            await self.parts.vault.open(
                box, store_id=store_id, subject_id=subject_id, purpose=Purpose.SERVICE_MAIL
            )
            for box in boxes
        ]

    async def token(self, store_id: UUID, email: str) -> str:
        """The token in the newest mail that has one."""
        links = [
            letter.values["link"] for letter in await self.letters(store_id, email) if "link" in letter.values
        ]
        found = re.search(r"token=([\w-]+)", links[-1])
        assert found is not None
        return found[1]

    async def confirm(self, store_id: UUID, token: str) -> httpx.Response:
        return await self.http.post(f"/identity/v1/stores/{store_id}/confirmations", json={"token": token})

    async def sign_in(self, store_id: UUID, email: str, password: str = PASSWORD) -> httpx.Response:
        body = {"grant_type": "password", "email": email, "password": password}
        return await self.http.post(f"/identity/v1/stores/{store_id}/tokens", json=body)

    async def refresh(self, store_id: UUID, refresh_token: str, act_at: UUID | None = None) -> httpx.Response:
        body = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        if act_at is not None:
            body["act_at"] = str(act_at)
        return await self.http.post(f"/identity/v1/stores/{store_id}/tokens", json=body)

    async def person(self, store_id: UUID, email: str | None = None) -> Person:
        email = email or an_email()
        assert (await self.sign_up(store_id, email)).status_code == 202
        assert (await self.confirm(store_id, await self.token(store_id, email))).status_code == 200
        answer = await self.sign_in(store_id, email)
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        return Person(store_id, email, tokens["access_token"], tokens["refresh_token"])

    async def staff(self, merchant: Person, store_id: UUID) -> Person:
        """The merchant's token for a store; the refresh token is a new one."""
        answer = await self.refresh(merchant.store_id, merchant.refresh_token, act_at=store_id)
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        return Person(store_id, merchant.email, tokens["access_token"], tokens["refresh_token"])

    async def open_store(self, merchant: Person, **facts: str) -> UUID:
        body = {
            "name": "Papeterie",
            "slug": a_slug(),
            "country": "FR",
            "currency": "EUR",
            "language": "en",
        } | facts
        answer = await self.http.post("/identity/v1/stores", json=body, headers=merchant.headers)
        assert answer.status_code == 201, answer.text
        return UUID(answer.json()["id"])


def an_email() -> str:
    return f"person-{uuid4().hex[:12]}@vitrine.example"


def a_slug() -> str:
    return f"shop-{uuid4().hex[:12]}"


@pytest.fixture(scope="session")
async def identity_environment(environment: Mapping[str, str]) -> Mapping[str, str]:
    await migrate(environment, ["identity"])
    return environment


@pytest.fixture
def signs(identity_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A participant reads its key from the environment, as in a worker."""
    for name, value in identity_environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def settings(identity_environment: Mapping[str, str], keyring: RunningKeyring) -> Settings:
    return Settings.model_validate(
        {
            "database_url": identity_environment["IDENTITY_DATABASE_URL"],
            "service_key": identity_environment["IDENTITY_SERVICE_KEY"],
            "master_key": identity_environment["IDENTITY_MASTER_KEY"],
            "keyring_url": keyring.url,
            "answer_step": 0.05,
        }
    )


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture(scope="session")
async def make_world(settings: Settings) -> AsyncIterator[MakeWorld]:
    """Another process of identity over the same database, with other settings if need be."""
    async with AsyncExitStack() as stack:

        async def make(address: str = "203.0.113.7", memory_kib: int = 1024, **changes: Any) -> World:
            clock = MovableClock()
            changed = Settings.model_validate(settings.model_dump() | changes)
            app = create_app(changed, clock=clock)
            # Hashes that cost little, where a test is not about them.
            with pytest.MonkeyPatch.context() as cheaper:
                cheaper.setattr(passwords, "MEMORY_KIB", memory_kib)
                await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 4711))
            client = httpx.AsyncClient(transport=transport, base_url="http://vitrine.example")
            await stack.enter_async_context(client)
            return World(app, client, clock, changed)

        yield make


@pytest.fixture(scope="session")
async def shared_world(make_world: MakeWorld) -> World:
    return await make_world()


@pytest.fixture
def world(shared_world: World) -> World:
    shared_world.clock.ahead = timedelta()
    return shared_world


@pytest.fixture(scope="session")
async def store_id(shared_world: World) -> UUID:
    """One store, for tests that need no store of their own: people are fresh in each test."""
    # Whatever moved the clock before this was needed for the first time.
    shared_world.clock.ahead = timedelta()
    merchant = await shared_world.person(PLATFORM_STORE)
    return await shared_world.open_store(merchant)


@pytest.fixture
async def merchant(world: World) -> Person:
    return await world.person(PLATFORM_STORE)
