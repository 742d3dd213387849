"""One test's store in the database of the made-up shop, over a real keyring."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from joserfc.jwk import ECKey
from sqlalchemy import func, select, text

from deploy.local.migrate import migrate
from deploy.local.postgres import PostgresServer
from libs.common.broker import Record
from libs.common.db import Database
from libs.common.events import Event, Received, envelope_of
from libs.common.events.privacy import (
    Correction,
    ExportChunk,
    Proposal,
    TaskAnswered,
    TaskIssued,
    Verb,
)
from libs.common.mail import Letter, RequestLetter, WaitingLetter
from libs.common.personal.data import Sealed
from libs.common.personal.keys import KeyringClient
from libs.common.personal.participant import Participant
from libs.common.personal.vault import ToOpen, Vault
from libs.common.personal.vocabulary import Category, Purpose
from libs.common.settings import ServiceSettings
from libs.common.worker import Work
from tests.common.personal import shop
from tests.common.personal.shop import (
    SHOP,
    Invoice,
    Member,
    Purchase,
    PurchaseLine,
    ShopContact,
    ShopInvoice,
    ShopProfile,
    Visit,
    VisitPage,
)
from tests.privacy.keyring.conftest import RunningKeyring, settings_of

KEY = ECKey.generate_key("P-256", auto_kid=True)
PUBLIC_KEY: dict[str, Any] = KEY.as_dict(private=False)  # type: ignore[assignment]


@pytest.fixture(scope="session")
async def shop_database(postgres: PostgresServer) -> AsyncIterator[tuple[Database, str]]:
    async with shop.shop_database(postgres) as made:
        yield made


@pytest.fixture(scope="session")
async def shop_keyring(environment: Mapping[str, str]) -> AsyncIterator[RunningKeyring]:
    await migrate(environment, ["keyring", "destructions"])
    keys = orjson.loads(environment["SERVICE_KEYS"]) | {SHOP: PUBLIC_KEY}
    async with httpx.AsyncClient() as http:
        settings = settings_of(environment, service_keys=keys, extra_grants=shop.GRANTS)
        running = RunningKeyring(settings, environment, http)
        await running.start()
        yield running
        await running.close()


@dataclass
class Shop:
    """One test's store, in the shop's database."""

    database: Database
    owners_url: str
    keyring: RunningKeyring
    participant: Participant
    vault: Vault
    store_id: UUID = field(default_factory=uuid4)

    @property
    def work(self) -> Work:
        return Work(SHOP, ServiceSettings, self.database, None, self.vault, self.keyring.http)  # type: ignore[arg-type]

    async def purchase(
        self, subject_id: UUID, *, name: str = "Canary", lines: int = 1, number: str = "1001"
    ) -> UUID:
        contact = ShopContact(name=name, email="canary@vitrine.example")
        sealed = await self.vault.seal(contact, store_id=self.store_id, subject_id=subject_id, begin=True)
        async with self.database.session(self.store_id) as session:
            row = Purchase(
                id=uuid4(), store_id=self.store_id, subject_id=subject_id, generation=sealed.generation,
                number=number, email_index=b"index", contact=sealed.box,
            )  # fmt: skip
            session.add(row)
            session.add_all(
                PurchaseLine(store_id=self.store_id, purchase_id=row.id, title=f"Tea {number}")
                for number in range(lines)
            )
        return row.id

    async def invoice(self, subject_id: UUID, *, generation: int = 1) -> None:
        sealed = await self.vault.seal(
            ShopInvoice(name="Canary"), store_id=self.store_id, subject_id=subject_id, bucket="2026"
        )
        async with self.database.session(self.store_id) as session:
            session.add(
                Invoice(
                    store_id=self.store_id, subject_id=subject_id, generation=generation, year="2026",
                    contact=sealed.box,
                )
            )  # fmt: skip

    async def member(self, subject_id: UUID, profile: ShopProfile) -> UUID:
        sealed = await self.vault.seal(profile, store_id=self.store_id, subject_id=subject_id, begin=True)
        index = await self.vault.blind_index(self.store_id, "handle", profile.handle)
        async with self.database.session(self.store_id) as session:
            row = Member(
                id=uuid4(), store_id=self.store_id, subject_id=subject_id, generation=sealed.generation,
                handle_index=index, profile=sealed.box,
            )  # fmt: skip
            session.add(row)
        return row.id

    async def proposal(self, subject_id: UUID, request_id: UUID, **corrections: Any) -> Sealed[Proposal]:
        """What somebody asks to have corrected, as the privacy service seals it; by the names of categories."""
        proposed = Proposal(
            corrections=tuple(
                Correction(category=Category[one], value=value) for one, value in corrections.items()
            )
        )
        sealed = await self.keyring.vault("privacy").seal(
            proposed, store_id=self.store_id, subject_id=subject_id, bucket=str(request_id)
        )
        return sealed.box

    async def rectify(
        self, subject_id: UUID, *, verb: Verb = Verb.RECTIFY, **corrections: Any
    ) -> tuple[TaskIssued, TaskAnswered]:
        """Have something corrected, or previewed; the task and its answer."""
        asked = task(verb, subject_id)
        asked = asked.model_copy(
            update={"proposal": await self.proposal(subject_id, asked.request_id, **corrections)}
        )
        await self.ask(asked)
        await self.participant.rectify(self.work)
        answers = [one for one in await self.published(TaskAnswered) if one.request_id == asked.request_id]
        return asked, answers[-1]

    async def opened(self, table: Any, column: str = "contact") -> list[Any]:
        """What the boxes of a table hold, for the rights of their people."""
        async with self.database.session(self.store_id) as session:
            rows = (await session.scalars(select(table))).all()
        boxes = [ToOpen(getattr(row, column), row.store_id, row.subject_id) for row in rows]
        return await self.vault.open_many(boxes, purpose=Purpose.RIGHTS_OF_THE_PERSON)

    async def visit(self, subject_id: UUID) -> None:
        async with self.database.session(self.store_id) as session:
            row = Visit(id=uuid4(), store_id=self.store_id, subject_id=subject_id, generation=1)
            session.add_all([row, VisitPage(store_id=self.store_id, visit_id=row.id)])

    async def letter(self, subject_id: UUID, kind: type[Letter] | type[RequestLetter]) -> None:
        async with self.database.session(self.store_id) as session:
            session.add(
                WaitingLetter(
                    store_id=self.store_id,
                    subject_id=subject_id,
                    generation=1,
                    kind=kind.__name__,
                    box=b"box",
                )
            )

    async def count(self, table: Any) -> int:
        async with self.database.session(self.store_id) as session:
            return await session.scalar(select(func.count()).select_from(table)) or 0

    async def ask(self, *tasks: TaskIssued) -> list[TaskAnswered]:
        """Hand tasks to the participant at once; what it answered there."""
        before = len(await self.published(TaskAnswered))
        async with self.database.session(self.store_id) as session:
            await self.participant.on_tasks(session, [received(task, self.store_id) for task in tasks])
        return (await self.published(TaskAnswered))[before:]

    async def export(self, task: TaskIssued) -> tuple[TaskAnswered, list[ExportChunk]]:
        """The answer to an export, and its chunks."""
        await self.ask(task)
        while await self.participant.export(self.work):
            pass
        answers = [one for one in await self.published(TaskAnswered) if one.request_id == task.request_id]
        chunks = [one for one in await self.published(ExportChunk) if one.request_id == task.request_id]
        return answers[-1], [one for one in chunks if one.round == answers[-1].round]

    async def open(self, subject_id: UUID, chunk: ExportChunk) -> list[dict[str, Any]]:
        opened = await self.vault.open(
            chunk.box, store_id=self.store_id, subject_id=subject_id, purpose=Purpose.RIGHTS_OF_THE_PERSON
        )
        return opened.records

    async def published(self, kind: type[Event]) -> list[Any]:
        async with self.database.session(self.store_id) as session:
            rows = await session.execute(
                text("SELECT payload FROM outbox WHERE headers ->> 'ce_type' = :type ORDER BY id"),
                {"type": kind.type},
            )
            return [kind.model_validate_json(row.payload) for row in rows.all()]


@pytest.fixture
async def made_shop(shop_database: tuple[Database, str], shop_keyring: RunningKeyring) -> Shop:
    private = orjson.dumps(KEY.as_dict(private=True)).decode()
    client = KeyringClient(url=shop_keyring.url, service=SHOP, private_key=private, http=shop_keyring.http)
    return Shop(*shop_database, shop_keyring, shop.shop_participant(KEY), Vault(client))


def received(event: Event, store_id: UUID) -> Received[Any]:
    envelope = envelope_of(event, store_id=store_id, source="test")
    value = orjson.dumps(event.model_dump(mode="json"))
    return Received(
        type(event).model_validate_json(value), envelope, Record(event.topic, envelope.key, value)
    )


def task(verb: Verb, subject_id: UUID, *, participants: Sequence[str] = ()) -> TaskIssued:
    return TaskIssued(
        request_id=uuid4(), verb=verb, subject_id=subject_id, generation=1, participants=list(participants)
    )
