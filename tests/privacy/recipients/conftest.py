"""A store with somebody outside, and the steps a worker takes for them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from libs.common.events.identity import StoreEnded
from libs.common.events.privacy import Outcome, References, TaskAnswered, TaskIssued, Verb
from libs.common.worker import Work
from services.privacy import consumer, store_endings
from services.privacy.recipients import deliveries
from tests.privacy.conftest import Person, Platform
from tests.privacy.recipients.receiver import Receiver, receiving, taken


@dataclass
class Outside:
    """What a merchant and a worker do about recipients, at a time of the test's own."""

    platform: Platform
    receiver: Receiver
    ahead: timedelta = timedelta(0)
    """Of the clock on the wall."""

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    @property
    def path(self) -> str:
        return f"{self.platform.path}/recipients"

    async def call(self, method: str, path: str = "", body: Any = None, **headers: str) -> httpx.Response:
        with self.platform.at(self.now):
            return await self.platform.client.request(
                method, f"{self.path}{path}", json=body, headers=self.platform.officer() | headers
            )

    async def registered(self, **changes: Any) -> dict[str, Any]:
        body = {"name": "Parcel & Co", "url": self.receiver.url, "role": "processor"} | changes
        response = await self.call("POST", body=body)
        assert response.status_code == 201, response.text
        return response.json()

    async def active(self, **changes: Any) -> dict[str, Any]:
        """A recipient that has taken its test."""
        made = await self.registered(**changes)
        assert (await self.call("POST", f"/{made['id']}/tests")).status_code == 202
        answering, self.receiver.answering = self.receiver.answering, taken
        await self.deliver()
        self.receiver.answering = answering
        assert (await self.one(made))["state"] == "active"
        self.receiver.came.clear()
        return made

    async def one(self, recipient: dict[str, Any]) -> dict[str, Any]:
        response = await self.call("GET", f"/{recipient['id']}")
        assert response.status_code == 200, response.text
        return response.json()

    async def deliveries(self, recipient: dict[str, Any]) -> list[dict[str, Any]]:
        response = await self.call("GET", f"/{recipient['id']}/deliveries")
        assert response.status_code == 200, response.text
        return response.json()["items"]

    async def attempts(self, recipient: dict[str, Any], delivery: dict[str, Any]) -> list[dict[str, Any]]:
        response = await self.call("GET", f"/{recipient['id']}/deliveries/{delivery['id']}/attempts")
        assert response.status_code == 200, response.text
        return response.json()["items"]

    def later(self, pause: timedelta) -> None:
        self.ahead += pause

    def work(self) -> Work:
        with self.platform.at(self.now) as work:
            return work

    async def deliver(self) -> None:
        """All that is due, until nothing is."""
        while await deliveries.deliver(self.work()):
            pass

    async def refer(self, request_id: UUID, verb: Verb = Verb.REFER) -> None:
        """Everybody says by what they know the person: the shop nothing, the service itself what it knows."""
        platform = self.platform
        asked = (await platform.tasks(request_id, verb))[-1]
        await platform.deliver(platform.answer(request_id, verb, round=asked.round))
        before = len(await platform.published(TaskAnswered))
        await platform.deliver(asked)
        await consumer.PARTICIPANT.refer(platform.work)
        answers = (await platform.published(TaskAnswered))[before:]
        await platform.deliver(*[one for one in answers if one.request_id == request_id])

    async def refers(
        self, asked: TaskIssued, *, emails: Sequence[str] = (), orders: Sequence[UUID] = ()
    ) -> TaskAnswered:
        """What the shop knows the person by."""
        known = References(emails=tuple(emails), orders=tuple(orders))
        sealed = await self.platform.work.vault.seal(
            known,
            store_id=self.platform.store_id,
            subject_id=asked.subject_id,
            bucket=str(asked.request_id),
        )
        return self.platform.answer(
            asked.request_id,
            Verb.REFER,
            Outcome.DONE,
            round=asked.round,
            references=sealed.box,
            digest=sha256(sealed.box.payload).hexdigest(),
        )

    async def store_ended(self) -> None:
        """The store is gone, and its key destroyed."""
        await self.platform.deliver(StoreEnded(store_id=self.platform.store_id))
        while await store_endings.step(self.work()):
            pass

    async def erased_but_outside(self, person: Person) -> UUID:
        """An erasure that everybody inside has done their part of."""
        platform = self.platform
        request_id = await platform.opened(person, "erasure")
        await self.refer(request_id)
        await platform.ask_keyring()
        await platform.answer_all(request_id, Verb.ERASE)
        return request_id

    async def part(self, person: Person, request_id: UUID, recipient: dict[str, Any]) -> dict[str, Any]:
        detail = await self.platform.detail(person, request_id)
        name = f"recipient-{recipient['id']}"
        [part] = [one for one in detail["parts"] if one["participant"] == name]
        return part


@pytest.fixture
async def outside(platform: Platform) -> AsyncIterator[Outside]:
    async with platform.database.platform_session() as session:
        # What other tests left to be sent is not this test's.
        await session.execute(text("UPDATE delivery SET next_try_at = NULL"))
    async with receiving() as receiver:
        yield Outside(platform, receiver)
