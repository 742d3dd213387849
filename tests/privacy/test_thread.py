"""Requests from the first call to the last answer: the service's application, two real workers, the embedded log."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from deploy.local.migrate import migrate
from deploy.local.waiting import until
from libs.common.broker.postgres import EmbeddedBroker
from libs.common.events.privacy import ParticipantAnnounced, Verb
from libs.common.mail import SENDING
from libs.common.personal.datamap import data_map
from libs.common.personal.errors import KeyDestroyed, KeyRestricted, SubjectErased
from libs.common.personal.participant import Participant
from libs.common.personal.tombstones import guard
from libs.common.personal.vocabulary import Category, Purpose
from libs.common.worker import Work, Worker
from services.privacy import consumer
from tests.common.personal import shop
from tests.common.personal.shop import SHOP, Invoice, Purchase, ShopContact, ShopInvoice
from tests.privacy.conftest import Person, Platform

ENDS_WITHIN = 20


class Running:
    """The platform with its workers, and the shop's database."""

    def __init__(self, platform: Platform, shop: Work, shop_worker: Callable[[], Any]) -> None:
        self.platform = platform
        self.shop = shop
        self.shop_worker = shop_worker

    async def purchase(self, person: Person, *, generation: int = 1) -> None:
        """What a checkout does: seal first, then guard and write in one transaction."""
        contact = ShopContact(name="Canary", email=person.email)
        sealed = await self.shop.vault.seal(
            contact, store_id=person.store_id, subject_id=person.subject_id, begin=generation > 1
        )
        async with self.shop.database.session(person.store_id) as session:
            await guard(session, person.store_id, person.subject_id, sealed.generation)
            session.add(
                Purchase(
                    store_id=person.store_id, subject_id=person.subject_id, generation=sealed.generation,
                    number="1001", email_index=b"index", contact=sealed.box,
                )
            )  # fmt: skip

    async def invoice(self, person: Person) -> None:
        sealed = await self.shop.vault.seal(
            ShopInvoice(name="Canary"), store_id=person.store_id, subject_id=person.subject_id, bucket="2026"
        )
        async with self.shop.database.session(person.store_id) as session:
            session.add(
                Invoice(
                    store_id=person.store_id, subject_id=person.subject_id, generation=1, year="2026",
                    contact=sealed.box,
                )
            )  # fmt: skip

    async def ended(self, person: Person, request_id: UUID) -> dict[str, Any]:
        async def completed() -> bool:
            return await self.platform.state(person, request_id) == "completed"

        await until(completed, ENDS_WITHIN, "the request did not end")
        return await self.platform.detail(person, request_id)


@asynccontextmanager
async def working(work: Work, handlers: Any, duties: Any) -> AsyncGenerator[None]:
    worker = Worker(work, handlers=handlers, duties=duties)
    async with work.vault.following(work.database.url):
        task = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            worker.stop()
            await task


@pytest.fixture
async def running(
    platform: Platform,
    privacy_environment: Mapping[str, str],
    shop_work: Work,
    shop_participant: Participant,
) -> AsyncIterator[Running]:
    await migrate(privacy_environment, ["broker"])
    # What other tests left in the outboxes and on the timers is not this test's.
    for database in (platform.database, shop_work.database):
        async with database.platform_session() as session:
            await session.execute(text("UPDATE outbox SET sent_at = now() WHERE sent_at IS NULL"))
    async with platform.database.platform_session() as session:
        await session.execute(text("UPDATE task SET next_issue_at = NULL"))
    url = privacy_environment["BROKER_DATABASE_URL"]
    privacy = replace(platform.work, broker=EmbeddedBroker(url))
    shop = replace(shop_work, broker=EmbeddedBroker(url))
    duties = [duty for duty in consumer.DUTIES if duty is not SENDING]

    def shop_worker() -> Any:
        return working(shop, shop_participant.handlers, shop_participant.duties)

    async with working(privacy, consumer.HANDLERS, duties):
        yield Running(platform, shop, shop_worker)


async def test_an_erasure_goes_through_both_services_and_nothing_opens_any_more(running: Running) -> None:
    platform = running.platform
    person = await platform.person()
    await running.purchase(person)
    await running.invoice(person)
    async with running.shop_worker():
        detail = await running.ended(person, await platform.opened(person, "erasure"))
    parts = {(part["participant"], part["task"]): part for part in detail["parts"]}
    assert parts["test-shop", "erase"]["counts"] == {"purchase": 1}
    [kept] = parts["test-shop", "erase"]["retained"]
    assert (kept["kind"], kept["until"]) == ("ShopInvoice", "2036-12-31")
    assert parts["keyring", "erase"]["counts"] == {"keys": 1}
    assert {kept["retention"] for kept in parts["keyring", "erase"]["retained"]} == {"accounting", "request"}
    async with running.shop.database.session(platform.store_id) as session:
        assert await session.scalar(select(Purchase.contact)) is None
        assert await session.scalar(select(Invoice.contact)) is not None


async def test_an_access_ends_with_an_archive(running: Running) -> None:
    platform = running.platform
    person = await platform.person()
    await running.purchase(person)
    async with running.shop_worker():
        detail = await running.ended(person, await platform.opened(person, "access"))
    counts = {part["participant"]: part["counts"] for part in detail["parts"]}
    assert counts["test-shop"] == {"purchase": 1}


async def test_a_participant_that_is_down_is_waited_for(running: Running) -> None:
    platform = running.platform
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")

    async def own_part_done() -> bool:
        detail = await platform.detail(person, request_id)
        return {"done", "retained"} >= {
            part["state"] for part in detail["parts"] if part["participant"] in {"privacy", "keyring"}
        }

    await until(own_part_done, ENDS_WITHIN, "the service itself did not answer")

    # Issued once more in the meantime, so that it could have ended if it could end early.
    async def issued_again() -> bool:
        return len(await platform.tasks(request_id, Verb.ERASE)) > 1

    await until(issued_again, ENDS_WITHIN, "the task was not issued again")
    assert await platform.state(person, request_id) == "running"
    async with running.shop_worker():
        await running.ended(person, request_id)


async def test_an_erasure_and_orders_at_the_same_time_leave_nothing_of_the_old_life(running: Running) -> None:
    platform = running.platform
    person = await platform.person()
    await running.purchase(person)
    refused = 0

    async def order() -> None:
        nonlocal refused
        for _ in range(15):
            try:
                await running.purchase(person)
            except SubjectErased:
                refused += 1

    async with running.shop_worker():
        request_id = await platform.opened(person, "erasure")
        await asyncio.gather(*(order() for _ in range(3)))
        await running.ended(person, request_id)
        with pytest.raises(SubjectErased):
            await running.purchase(person)
        # A live command begins a new life, and the old one stays closed.
        await running.purchase(person, generation=2)
    async with running.shop.database.session(platform.store_id) as session:
        count = func.count().label("number")
        rows = await session.execute(
            select(Purchase.generation, Purchase.contact.is_not(None).label("readable"), count).group_by(
                Purchase.generation, Purchase.contact.is_not(None)
            )
        )
        left = {(row.generation, row.readable): row.number for row in rows}
    assert left.pop((2, True)) == 1
    assert set(left) == {(1, False)}, "something of the old life can be read"


async def test_erasures_of_many_people_do_not_wait_for_each_other(running: Running) -> None:
    platform = running.platform
    people = [await platform.person() for _ in range(25)]
    for person in people:
        await running.purchase(person)
    async with running.shop_worker():
        ids = await asyncio.gather(*(platform.opened(person, "erasure") for person in people))
        for person, request_id in zip(people, ids, strict=True):
            await running.ended(person, request_id)
    async with running.shop.database.session(platform.store_id) as session:
        readable = await session.scalar(
            select(func.count()).select_from(Purchase).where(Purchase.contact.is_not(None))
        )
        assert readable == 0


# --- A part ----------------------------------------------------------------------------------------------


async def skip_the_pause(running: Running, request_id: UUID) -> None:
    """As if the minutes were over in which opened keys are forgotten."""

    async def checking() -> bool:
        async with running.platform.database.session(running.platform.store_id) as session:
            changed = await session.execute(
                text("""
                    UPDATE task SET next_issue_at = now() WHERE request_id = :id AND verb = 'verify-erased'
                        AND participant <> 'keyring' AND next_issue_at > now() + interval '2 minutes' RETURNING 1
                """),
                {"id": request_id},
            )
            return len(changed.all()) > 0

    await until(checking, ENDS_WITHIN, "the check of the part did not begin")


async def test_what_is_used_for_one_purpose_goes_and_the_rest_opens_as_before(running: Running) -> None:
    platform = running.platform
    await platform.deliver(
        ParticipantAnnounced(
            participant=SHOP,
            public_key=platform.shop_key.as_dict(private=False),
            data_map=data_map(SHOP, shop.HOLDINGS, ()),
        )
    )
    person = await platform.person()
    await running.purchase(person)
    await running.invoice(person)
    async with running.shop.database.session(platform.store_id) as session:
        before = await session.scalar(select(Purchase.contact))
    assert before is not None
    async with running.shop_worker():
        asked = await platform.ask(person, "erasure", purpose=Purpose.FULFIL_ORDER)
        request_id = UUID(asked.json()["id"])
        await skip_the_pause(running, request_id)
        detail = await running.ended(person, request_id)
        # The person lives on: what is sealed next has a key of its own.
        await running.purchase(person)
    parts = {(part["participant"], part["task"]): part for part in detail["parts"]}
    assert parts["test-shop", "erase"]["counts"] == {"purchase": 1}
    assert parts["keyring", "verify-erased"]["counts"] == {"keys": 1}
    where = {"store_id": platform.store_id, "subject_id": person.subject_id}
    with pytest.raises(KeyDestroyed):
        await running.shop.vault.open(before, **where, purpose=Purpose.FULFIL_ORDER)
    async with running.shop.database.session(platform.store_id) as session:
        invoice = await session.scalar(select(Invoice.contact))
        contacts = (
            await session.scalars(select(Purchase.contact).order_by(Purchase.contact.is_(None)))
        ).all()
    assert invoice is not None and [one is None for one in contacts] == [False, True]
    opened = await running.shop.vault.open(invoice, **where, purpose=Purpose.ACCOUNTING)
    assert opened.name == "Canary"


async def test_a_restriction_is_kept_by_the_erasure_of_a_part(running: Running) -> None:
    platform = running.platform
    await platform.deliver(
        ParticipantAnnounced(
            participant=SHOP,
            public_key=platform.shop_key.as_dict(private=False),
            data_map=data_map(SHOP, shop.HOLDINGS, ()),
        )
    )
    person = await platform.person()
    await running.purchase(person)
    async with running.shop_worker():
        restricted = await platform.ask(person, "restriction")
        await running.ended(person, UUID(restricted.json()["id"]))
        asked = await platform.ask(person, "erasure", category=Category.PASSWORD)
        await skip_the_pause(running, UUID(asked.json()["id"]))
        await running.ended(person, UUID(asked.json()["id"]))
        async with running.shop.database.session(platform.store_id) as session:
            contact = await session.scalar(select(Purchase.contact))
        assert contact is not None
        where = {"store_id": platform.store_id, "subject_id": person.subject_id}
        with pytest.raises(KeyRestricted):
            await running.shop.vault.open(contact, **where, purpose=Purpose.FULFIL_ORDER)
        lifted = await platform.ask(person, "restriction-lifting")
        await running.ended(person, UUID(lifted.json()["id"]))
    opened = await running.shop.vault.open(contact, **where, purpose=Purpose.FULFIL_ORDER)
    assert (opened.name, opened.password_hash) == ("Canary", "never-shown")
