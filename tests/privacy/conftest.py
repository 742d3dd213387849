"""The privacy service over real databases and a real keyring, with a made-up shop as its other participant."""

import time
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from deploy.local.migrate import migrate
from deploy.local.postgres import PostgresServer
from libs.common.auth import AUDIENCE, PLATFORM_STORE, Role, TokenVerifier
from libs.common.broker import Record
from libs.common.db import Database
from libs.common.events import Event, Received, envelope_of
from libs.common.events.privacy import (
    ExportChunk,
    Outcome,
    ParticipantAnnounced,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.mail import WaitingLetter, render
from libs.common.personal.answers import sign
from libs.common.personal.data import KINDS, Sealed
from libs.common.personal.keys import KeyringClient
from libs.common.personal.participant import Participant
from libs.common.personal.vault import Vault
from libs.common.personal.vocabulary import Purpose
from libs.common.worker import Work
from services.privacy import assembling, consumer, key_tasks, settings
from services.privacy.api import means
from services.privacy.app import create_app
from services.privacy.models import PrivacySettings
from services.privacy.settings import Settings
from tests.common.personal import shop
from tests.common.personal.shop import SHOP
from tests.privacy.keyring.conftest import RunningKeyring, settings_of

ISSUER = "http://127.0.0.1:8000/identity"
SIGNING = ECKey.generate_key("P-256", parameters={"kid": "test"})
EVERYBODY = (SHOP, "privacy")


# --- Servers ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shop_key() -> ECKey:
    return ECKey.generate_key("P-256", auto_kid=True)


@pytest.fixture(scope="session")
async def shop_database(postgres: PostgresServer) -> AsyncIterator[Database]:
    async with shop.shop_database(postgres) as (database, _):
        yield database


@pytest.fixture(scope="session")
async def privacy_environment(
    environment: Mapping[str, str], shop_key: ECKey
) -> AsyncIterator[Mapping[str, str]]:
    """The privacy service's environment: it expects the shop and itself to answer."""
    await migrate(environment, ["privacy", "keyring", "destructions"])
    service_keys = orjson.loads(environment["SERVICE_KEYS"]) | {SHOP: shop_key.as_dict(private=False)}
    with pytest.MonkeyPatch.context() as patch:
        values = {
            **environment,
            "SERVICE_KEYS": orjson.dumps(service_keys).decode(),
            # Recipients of tests are on this machine.
            "PRIVACY_OUTGOING_NETWORKS": '["127.0.0.0/8"]',
            "PRIVACY_OUTGOING_HTTP": "true",
            "PRIVACY_PARTICIPANTS": orjson.dumps(EVERYBODY).decode(),
        }
        for name, value in values.items():
            patch.setenv(name, value)
        settings.present.cache_clear()
        yield values
    settings.present.cache_clear()


@pytest.fixture(scope="session")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=100)) as client:
        yield client


@pytest.fixture(scope="session")
async def keyring(
    privacy_environment: Mapping[str, str], http: httpx.AsyncClient
) -> AsyncIterator[RunningKeyring]:
    """A keyring that the shop may use too."""
    changed = settings_of(privacy_environment, extra_grants=shop.GRANTS)
    running = RunningKeyring(changed, privacy_environment, http)
    await running.start()
    yield running
    await running.close()


@pytest.fixture
async def own_keyring(
    privacy_environment: Mapping[str, str], http: httpx.AsyncClient
) -> AsyncIterator[RunningKeyring]:
    """A keyring for one test, to be stopped by it."""
    running = RunningKeyring(settings_of(privacy_environment), privacy_environment, http)
    await running.start()
    yield running
    await running.close()


@pytest.fixture(scope="session")
async def privacy_settings(privacy_environment: Mapping[str, str], keyring: RunningKeyring) -> Settings:
    return settings.present().model_copy(update={"keyring_url": keyring.url})


@pytest.fixture(scope="session")
async def app(privacy_settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(privacy_settings)

    def key_set(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"keys": [SIGNING.as_dict(private=False)]})

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.MockTransport(key_set)) as http,
    ):
        app.state.tokens = TokenVerifier(issuer=ISSUER, jwks_url=f"{ISSUER}/v1/jwks.json", http=http)
        yield app


@pytest.fixture(scope="session")
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://privacy") as client:
        yield client


class NoBroker:
    """Stands where a duty would find the broker; none of the privacy service's duties speaks to it."""


@pytest.fixture(scope="session")
def work(privacy_settings: Settings, app: FastAPI, http: httpx.AsyncClient) -> Work:
    """What the duties of the privacy worker have at hand."""
    return Work("privacy", privacy_settings, app.state.database, NoBroker(), app.state.vault, http)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def shop_participant(shop_key: ECKey) -> Participant:
    return shop.shop_participant(shop_key)


@pytest.fixture(scope="session")
def shop_vault(keyring: RunningKeyring, shop_key: ECKey, http: httpx.AsyncClient) -> Vault:
    private = orjson.dumps(shop_key.as_dict(private=True)).decode()
    return Vault(KeyringClient(url=keyring.url, service=SHOP, private_key=private, http=http))


@pytest.fixture(scope="session")
def shop_work(
    privacy_settings: Settings, shop_database: Database, shop_vault: Vault, http: httpx.AsyncClient
) -> Work:
    """What the duties of the shop's worker have at hand."""
    return Work(SHOP, privacy_settings, shop_database, NoBroker(), shop_vault, http)  # type: ignore[arg-type]


# --- People and what they do -----------------------------------------------------------------------------


def received(event: Event, store_id: UUID) -> Received[Any]:
    """The event as a consumer meets it."""
    envelope = envelope_of(event, store_id=store_id, source="test")
    value = orjson.dumps(event.model_dump(mode="json"))
    return Received(
        type(event).model_validate_json(value), envelope, Record(event.topic, envelope.key, value)
    )


@dataclass
class Person:
    """Somebody who is signed in at a store."""

    store_id: UUID
    subject_id: UUID
    email: str
    generation: int = 1

    def token(self, *, role: Role = Role.CUSTOMER, **claims: Any) -> dict[str, str]:
        now = int(time.time())
        values = {
            "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600, "sub": str(uuid4()),
            "sid": str(uuid4()), "store": str(self.store_id), "role": role.value,
        }  # fmt: skip
        if role is Role.CUSTOMER:
            values |= {"subject": str(self.subject_id), "generation": self.generation}
        signed = jwt.encode({"alg": "ES256", "typ": "at+jwt", "kid": "test"}, values | claims, SIGNING)
        return {"Authorization": f"Bearer {signed}"}


@dataclass
class Platform:
    """The privacy service, and a test's own store and people."""

    app: FastAPI
    client: httpx.AsyncClient
    work: Work
    keyring: RunningKeyring
    shop_key: ECKey
    store_id: UUID = field(default_factory=uuid4)

    @property
    def database(self) -> Database:
        return self.app.state.database

    @property
    def path(self) -> str:
        return f"/privacy/v1/stores/{self.store_id}"

    async def person(self) -> Person:
        email = f"canary-{uuid4().hex[:12]}@vitrine.example"
        subject_id = await self.work.vault.subject_id(self.store_id, email)
        return Person(self.store_id, subject_id, email)

    async def decides(self, **changes: Any) -> None:
        """The store's settings: `passing` and `enough`, by right."""
        async with self.database.session(self.store_id) as session:
            await session.execute(
                upsert(PrivacySettings)
                .values(store_id=self.store_id, **changes)
                .on_conflict_do_update(index_elements=[PrivacySettings.store_id], set_=changes)
            )

    async def ask(self, person: Person, right: str, **changes: Any) -> httpx.Response:
        headers = person.token() | changes.pop("headers", {})
        body = {"right": right, "email": person.email, "language": "en"} | changes
        return await self.client.post(f"{self.path}/requests", json=body, headers=headers)

    async def opened(self, person: Person, right: str) -> UUID:
        response = await self.ask(person, right)
        assert response.status_code == 201, response.text
        return UUID(response.json()["id"])

    async def detail(self, person: Person, request_id: UUID) -> dict[str, Any]:
        response = await self.client.get(f"{self.path}/requests/{request_id}", headers=person.token())
        assert response.status_code == 200, response.text
        return response.json()

    async def state(self, person: Person, request_id: UUID) -> str:
        return (await self.detail(person, request_id))["state"]

    async def deliver(self, *events: Event, store_id: UUID | None = None) -> None:
        """Hand each run of events of one type to its handler, in a transaction of its own."""
        store_id = store_id or self.store_id
        runs: list[list[Event]] = []
        for event in events:
            if runs and type(runs[-1][-1]) is type(event):
                runs[-1].append(event)
            else:
                runs.append([event])
        for run in runs:
            handler: Any = consumer.HANDLERS[type(run[0])]
            async with self.database.session(store_id) as session:
                if handler.__dict__.get("batched"):
                    await handler(session, [received(event, store_id) for event in run])
                else:
                    for event in run:
                        await handler(session, received(event, store_id))

    async def published(self, kind: type[Event]) -> list[Any]:
        """What the privacy service published for this store, of one type, in order."""
        async with self.database.session(self.store_id) as session:
            rows = (
                await session.execute(
                    text("SELECT payload FROM outbox WHERE headers ->> 'ce_type' = :type ORDER BY id"),
                    {"type": kind.type},
                )
            ).all()
        return [kind.model_validate_json(row.payload) for row in rows]

    async def tasks(self, request_id: UUID, verb: Verb) -> list[TaskIssued]:
        issued = await self.published(TaskIssued)
        return [one for one in issued if one.request_id == request_id and one.verb is verb]

    def answer(
        self, request_id: UUID, verb: Verb, outcome: Outcome = Outcome.NOTHING_HELD, **more: Any
    ) -> TaskAnswered:
        """A signed answer of the shop."""
        answer = TaskAnswered(request_id=request_id, verb=verb, participant=SHOP, outcome=outcome, **more)
        return sign(answer, store_id=self.store_id, key=self.shop_key)

    async def answer_itself(self, request_id: UUID, verb: Verb) -> None:
        """The privacy service does its own part, and hears its own answer."""
        before = len(await self.published(TaskAnswered))
        await self.deliver((await self.tasks(request_id, verb))[-1])
        if verb is Verb.EXPORT:
            await consumer.PARTICIPANT.export(self.work)
        answers = (await self.published(TaskAnswered))[before:]
        chunks = [one for one in await self.published(ExportChunk) if one.request_id == request_id]
        await self.deliver(*chunks, *[one for one in answers if one.request_id == request_id])

    async def assemble(self) -> None:
        """Make every archive that waits, of this test and of others."""
        while await assembling.assemble(self.work):
            pass

    async def answer_all(self, request_id: UUID, verb: Verb, outcome: Outcome = Outcome.NOTHING_HELD) -> None:
        """Everybody's signed answers, in the round that was asked last."""
        asked = (await self.tasks(request_id, verb))[-1]
        for participant, key in ((SHOP, self.shop_key), ("privacy", consumer.PARTICIPANT.key)):
            answer = TaskAnswered(
                request_id=request_id, verb=verb, participant=participant, outcome=outcome, round=asked.round
            )
            await self.deliver(sign(answer, store_id=self.store_id, key=key))

    async def ask_keyring(self) -> None:
        await key_tasks.ask_keyring(self.work)

    # --- Time and the desk -------------------------------------------------------------------------------

    @contextmanager
    def at(self, now: datetime) -> Generator[Work]:
        """While the block runs it is then, for routes and for the duties that are given this work."""
        self.app.dependency_overrides[means.now] = lambda: now
        try:
            yield replace(self.work, clock=lambda: now)
        finally:
            del self.app.dependency_overrides[means.now]

    def officer(self, *, role: Role = Role.PRIVACY_OFFICER, **claims: Any) -> dict[str, str]:
        """Whoever answers for the store."""
        return Person(self.store_id, UUID(int=0), "").token(role=role, **claims)

    def of_platform(self, role: Role = Role.PRIVACY_OFFICER) -> dict[str, str]:
        """Whoever answers for the platform."""
        return self.officer(role=role, store=str(PLATFORM_STORE))

    async def seen(self, request_id: UUID) -> tuple[dict[str, Any], str]:
        """A request as the desk sees it, and its ETag."""
        response = await self.client.get(f"{self.path}/requests/{request_id}", headers=self.officer())
        assert response.status_code == 200, response.text
        return response.json(), response.headers["ETag"]

    async def do(
        self, request_id: UUID, what: str, body: Any, *, method: str = "POST", **headers: str
    ) -> httpx.Response:
        """What an officer does with a request as it is now."""
        _, etag = await self.seen(request_id)
        return await self.client.request(
            method,
            f"{self.path}/requests/{request_id}/{what}",
            json=body,
            headers=self.officer() | {"If-Match": etag} | headers,
        )

    async def waiting(self, subject_id: UUID, store_id: UUID | None = None) -> list[tuple[str, str, str]]:
        """Template, subject and text of the mails that wait for somebody, in the order they were written."""
        async with self.database.session(store_id or self.store_id) as session:
            rows = await session.scalars(
                select(WaitingLetter)
                .where(WaitingLetter.subject_id == subject_id)
                .order_by(WaitingLetter.written_at)
            )
            letters = rows.all()
        mails: list[tuple[str, str, str]] = []
        for row in letters:
            box: Sealed[Any] = Sealed(KINDS[row.kind], row.box)
            letter = await self.work.vault.open(
                box, store_id=row.store_id, subject_id=row.subject_id, purpose=Purpose.SERVICE_MAIL
            )
            mails.append(
                (letter.template, *render("privacy", letter.template, letter.language, letter.values))
            )
        return mails


@pytest.fixture
async def platform(
    app: FastAPI, client: httpx.AsyncClient, work: Work, keyring: RunningKeyring, shop_key: ECKey
) -> Platform:
    """A store that lets erasures pass at once, with both participants announced."""
    platform = Platform(app, client, work, keyring, shop_key)
    await platform.decides(passing={"erasure": "at-once"})
    await platform.deliver(
        ParticipantAnnounced(participant=SHOP, public_key=shop_key.as_dict(private=False), data_map=[]),
        ParticipantAnnounced(
            participant="privacy", public_key=consumer.PARTICIPANT.key.as_dict(private=False), data_map=[]
        ),
    )
    return platform
