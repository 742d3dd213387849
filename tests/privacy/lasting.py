"""A store whose data ends: time moves for the worker, the routes and the keyring alike."""

from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select, text

from libs.common.auth import PLATFORM_STORE
from libs.common.events import Event
from libs.common.events.identity import StoreOpened
from libs.common.events.privacy import (
    ClockStarted,
    ClockStopped,
    KeysExpired,
    ParticipantAnnounced,
    RowsCleaned,
    TaskAnswered,
    Verb,
)
from libs.common.personal.datamap import data_map
from libs.common.personal.participant import Participant
from libs.common.personal.tombstones import guard
from libs.common.personal.vocabulary import RULES, Clock
from libs.common.worker import Work
from services.privacy import consumer, key_tasks
from services.privacy.models import Expiry
from services.privacy.retention import expiring, moving
from tests.common.personal.shop import SHOP, Invoice, Purchase, ShopContact, ShopInvoice
from tests.privacy.conftest import Person, Platform, received

NOW = datetime(2027, 3, 10, 9, 30, tzinfo=UTC)


class Lasting:
    """The privacy service and a shop, with a moment that is now."""

    def __init__(self, platform: Platform, shop_work: Work, participant: Participant) -> None:
        self.platform = platform
        self.shop = shop_work
        self.participant = participant
        self.now = NOW

    @property
    def store_id(self) -> UUID:
        return self.platform.store_id

    @property
    def work(self) -> Work:
        return replace(self.platform.work, clock=lambda: self.now)

    @contextmanager
    def on(self, moment: datetime) -> Generator[None]:
        """Let it be then, for routes too."""
        self.now = moment
        with self.platform.at(moment):
            yield

    def today(self) -> date:
        """The day it is for the keyring."""
        return self.now.date()

    def later(self, **time: float) -> None:
        self.now += timedelta(**time)

    # --- What is there -----------------------------------------------------------------------------------

    async def person(self) -> Person:
        return await self.platform.person()

    async def purchase(self, person: Person) -> UUID:
        """An order with a contact under a key of its own."""
        id_ = uuid4()
        contact = ShopContact(name="Canary", email=person.email)
        sealed = await self.shop.vault.seal(
            contact, store_id=self.store_id, subject_id=person.subject_id, bucket=str(id_), begin=True
        )
        async with self.shop.database.session(self.store_id) as session:
            await guard(session, self.store_id, person.subject_id, sealed.generation)
            session.add(
                Purchase(
                    id=id_, store_id=self.store_id, subject_id=person.subject_id,
                    generation=sealed.generation, number="1001", email_index=b"index", contact=sealed.box,
                )
            )  # fmt: skip
        return id_

    async def invoice(self, person: Person, year: int) -> None:
        sealed = await self.shop.vault.seal(
            ShopInvoice(name="Canary"), store_id=self.store_id, subject_id=person.subject_id, bucket=str(year)
        )
        async with self.shop.database.session(self.store_id) as session:
            session.add(
                Invoice(
                    store_id=self.store_id, subject_id=person.subject_id, generation=sealed.generation,
                    year=str(year), contact=sealed.box,
                )
            )  # fmt: skip

    async def left(self, table: Any, column: str = "contact") -> int:
        """Rows of the store with something in the box."""
        async with self.shop.database.session(self.store_id) as session:
            full = select(func.count()).where(
                table.store_id == self.store_id, getattr(table, column).is_not(None)
            )
            return await session.scalar(full) or 0

    async def live(self, person: Person) -> set[tuple[str, str]]:
        """Retention and bucket of every key of somebody that still opens."""
        [keys] = await self.platform.keyring.client("privacy").status([(self.store_id, person.subject_id)])
        return {(key.retention.value, key.bucket) for key in keys}

    # --- What happens ------------------------------------------------------------------------------------

    async def start(
        self, person: Person, clock: Clock, bucket: Any = "", *, at: datetime | None = None, version: int = 0
    ) -> None:
        await self.platform.deliver(self.started(person, clock, bucket, at=at, version=version))

    def started(
        self, person: Person, clock: Clock, bucket: Any = "", *, at: datetime | None = None, version: int = 0
    ) -> ClockStarted:
        return ClockStarted(
            subject_id=person.subject_id, generation=person.generation, retention=RULES[clock][0],
            bucket=str(bucket), clock=clock, started_at=at or self.now, version=version,
        )  # fmt: skip

    def stopped(
        self, person: Person, clock: Clock, bucket: Any = "", *, at: datetime | None = None, version: int = 0
    ) -> ClockStopped:
        return ClockStopped(
            subject_id=person.subject_id, generation=person.generation, retention=RULES[clock][0],
            bucket=str(bucket), clock=clock, stopped_at=at or self.now, version=version,
        )  # fmt: skip

    async def settle(self) -> None:
        """Everything the workers do about periods, until nothing is left to do at this moment."""
        while await moving.move(self.work):
            pass
        await self.tell()
        await self.expire()
        await self.hear()
        self.later(minutes=4)
        while await expiring.finish(self.work):
            pass

    async def tell(self) -> None:
        """Let the keyring know every day: those of the stores of other tests may come first."""
        while await expiring.tell(self.work):
            pass

    async def expire(self) -> None:
        """Whatever is over, in the stores of other tests too."""
        while await expiring.expire(self.work):
            pass

    async def remind(self) -> None:
        """Ask whoever has not answered once more: those of the stores of other tests come first."""
        while await expiring.remind(self.work):
            pass

    async def hear(self) -> None:
        """Both participants hear of what expired, clean, and are heard."""
        expired = await self.platform.published(KeysExpired)
        await self.tell_shop(*expired)
        await self.platform.deliver(*expired)
        await self.participant.clean(self.shop)
        await consumer.PARTICIPANT.clean(self.work)
        answers = [*await self.of_shop(RowsCleaned), *await self.platform.published(RowsCleaned)]
        await self.platform.deliver(*answers)

    async def tell_shop(self, *events: Event) -> None:
        """Hand news of expired keys to the shop, as its consumer would."""
        if events:
            async with self.shop.database.session(self.store_id) as session:
                await self.participant.on_expired(
                    session, [received(event, self.store_id) for event in events]
                )

    async def of_shop(self, kind: type[Event]) -> list[Any]:
        """What the shop has published so far, of one type, in order."""
        async with self.shop.database.session(self.store_id) as session:
            rows = await session.execute(
                text("SELECT payload FROM outbox WHERE headers ->> 'ce_type' = :type ORDER BY id"),
                {"type": kind.type},
            )
            return [kind.model_validate_json(row.payload) for row in rows.all()]

    async def row(self, person: Person, bucket: Any = "", retention: str | None = None) -> Expiry | None:
        """What is counted for a bucket."""
        async with self.platform.database.session(self.store_id) as session:
            statement = select(Expiry).where(
                Expiry.store_id == self.store_id, Expiry.subject_id == person.subject_id,
                Expiry.bucket == str(bucket),
            )  # fmt: skip
            if retention is not None:
                statement = statement.where(Expiry.retention == retention)
            return await session.scalar(statement)

    # --- An erasure --------------------------------------------------------------------------------------

    async def erase(self, person: Person) -> dict[str, Any]:
        """Have somebody erased by everybody, at this moment; the request as its person sees it."""
        request_id = await self.platform.opened(person, "erasure")
        await key_tasks.ask_keyring(self.work)
        for verb in (Verb.ERASE, Verb.VERIFY_ERASED):
            asked = (await self.platform.tasks(request_id, verb))[-1]
            async with self.shop.database.session(self.store_id) as session:
                await self.participant.on_tasks(session, [received(asked, self.store_id)])
            answered = [
                one
                for one in await self.of_shop(TaskAnswered)
                if one.request_id == request_id and one.verb is verb
            ]
            await self.platform.deliver(*answered)
            await self.platform.answer_itself(request_id, verb)
            await key_tasks.ask_keyring(self.work)
        detail = await self.platform.detail(person, request_id)
        assert detail["state"] == "completed", detail
        return detail

    # --- What is asked over HTTP -------------------------------------------------------------------------

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = self.platform.officer() | options.pop("headers", {})
        return await self.platform.client.request(
            method, f"{self.platform.path}/{path}", headers=headers, **options
        )

    async def choose(self, **lengths: str) -> httpx.Response:
        """Choose periods, by clock with underscores."""
        body = {"lengths": {clock.replace("_", "-"): length for clock, length in lengths.items()}}
        return await self.call("PUT", "retention", json=body, headers={"If-Match": "*"})


def kept_of(detail: dict[str, Any]) -> list[dict[str, Any]]:
    """What everybody says is kept."""
    return [one for part in detail["parts"] for one in part["retained"]]


@pytest.fixture
async def lasting(
    platform: Platform, shop_work: Work, shop_participant: Participant
) -> AsyncIterator[Lasting]:
    """A store in France whose participants have said what they hold; it is a morning in March 2027."""
    lasting = Lasting(platform, shop_work, shop_participant)
    opened = StoreOpened(
        store_id=platform.store_id, slug=f"shop-{platform.store_id}", name="Shop", country="FR",
        currency="EUR", version=1,
    )  # fmt: skip
    await platform.deliver(opened)
    maps = {
        SHOP: (shop_participant, platform.shop_key),
        "privacy": (consumer.PARTICIPANT, consumer.PARTICIPANT.key),
    }
    await platform.deliver(
        *(
            ParticipantAnnounced(
                participant=name,
                public_key=key.as_dict(private=False),
                data_map=data_map(name, participant.holdings, participant.copies),
            )
            for name, (participant, key) in maps.items()
        ),
        store_id=PLATFORM_STORE,
    )
    keyring = platform.keyring
    before, keyring.today = keyring.today, lasting.today
    yield lasting
    keyring.today = before
    # Other tests expect what the fixture of the platform said.
    await platform.deliver(
        *(
            ParticipantAnnounced(participant=name, public_key=key.as_dict(private=False), data_map=[])
            for name, (_, key) in maps.items()
        ),
        store_id=PLATFORM_STORE,
    )


__all__ = ["NOW", "Lasting", "kept_of", "lasting"]
