"""One store asks another over OpenDSR, by real HTTP: ours as controller against ours as processor."""

import io
import json
import re
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from deploy.local.ports import free_port
from libs.common.events.privacy import TaskAnswered, Verb
from libs.common.worker import Work
from services.privacy import consumer
from services.privacy.app import create_app
from services.privacy.opendsr import callbacks, following
from services.privacy.recipients import deliveries
from services.privacy.settings import Settings
from tests.privacy.conftest import Person, Platform
from tests.privacy.opendsr.test_processor import Tool
from tests.privacy.ways import mails, open_store
from tests.serving import serving


@dataclass
class Loop:
    """A store that has a processor, and the store that it is; both behind one real port."""

    address: str
    ours: Platform
    theirs: Platform
    tool: Tool
    recipient: dict[str, Any]
    ahead: timedelta = timedelta(0)

    @property
    def work(self) -> Work:
        return replace(self.ours.work, clock=lambda: datetime.now(UTC) + self.ahead)

    async def turn(self) -> None:
        """What a worker does for either of them, until nothing is due."""
        while (
            await deliveries.deliver(self.work)
            + await following.watch(self.work)
            + await callbacks.call(self.work)
        ):
            pass

    async def refer(self, request_id: UUID) -> None:
        platform = self.ours
        asked = (await platform.tasks(request_id, Verb.REFER))[-1]
        await platform.deliver(platform.answer(request_id, Verb.REFER, round=asked.round))
        before = len(await platform.published(TaskAnswered))
        await platform.deliver(asked)
        await consumer.PARTICIPANT.refer(platform.work)
        answers = (await platform.published(TaskAnswered))[before:]
        await platform.deliver(*[one for one in answers if one.request_id == request_id])

    async def asked(self) -> Any:
        """The request of the engine that the processor opened last."""
        async with self.theirs.database.session(self.theirs.store_id) as session:
            rows = await session.execute(
                text("SELECT request.* FROM request JOIN opendsr_part ON request_id = id ORDER BY opened_at")
            )
            return rows.all()[-1]

    async def part(self, person: Person, request_id: UUID) -> dict[str, Any]:
        detail = await self.ours.detail(person, request_id)
        [part] = [one for one in detail["parts"] if one["participant"] == f"recipient-{self.recipient['id']}"]
        return part

    async def delivery(self) -> dict[str, Any]:
        path = f"{self.ours.path}/recipients/{self.recipient['id']}/deliveries"
        answer = await self.ours.client.get(path, headers=self.ours.officer())
        return answer.json()["items"][0]


@pytest.fixture(scope="module")
async def served(privacy_settings: Settings, app: FastAPI) -> AsyncIterator[tuple[str, FastAPI, Settings]]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    settings = privacy_settings.model_copy(update={"public_url": address, "outgoing_http": True})
    behind = create_app(settings)
    async with behind.router.lifespan_context(behind), serving(behind, port=port):
        behind.state.tokens = app.state.tokens
        yield address, behind, settings


@pytest.fixture
async def loop(
    served: tuple[str, FastAPI, Settings], platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Loop]:
    address, behind, settings = served
    for module in ("recipients.deliveries", "recipients.opendsr", "opendsr.callbacks"):
        monkeypatch.setattr(f"services.privacy.{module}.present", lambda: settings)
    work = replace(platform.work, settings=settings, database=behind.state.database, vault=behind.state.vault)
    async with httpx.AsyncClient(base_url=address, timeout=30) as client:
        ours = replace(platform, app=behind, client=client, work=work)
        theirs = Platform(behind, client, work, platform.keyring, platform.shop_key)
        await theirs.decides(passing={"erasure": "officer"})
        for one in (ours, theirs):
            await open_store(one)
        body = {"name": "Their tool", "callback_hosts": [address.removeprefix("http://")]}
        made = await client.post(f"{theirs.path}/opendsr-controllers", json=body, headers=theirs.officer())
        assert made.status_code == 201, made.text
        tool = Tool(theirs, made.json()["id"], made.json()["key"])
        registered = await client.post(
            f"{ours.path}/recipients",
            json={
                "name": "Another store",
                "url": made.json()["base_url"],
                "role": "processor",
                "protocol": "opendsr",
                "credential": tool.key,
            },
            headers=ours.officer(),
        )
        assert registered.status_code == 201, registered.text
        assert registered.json()["secret"] is None
        loop = Loop(address, ours, theirs, tool, registered.json())
        path = f"{ours.path}/recipients/{loop.recipient['id']}"
        assert (await client.post(f"{path}/tests", headers=ours.officer())).status_code == 202
        await loop.turn()
        shown = (await client.get(path, headers=ours.officer())).json()
        assert shown["state"] == "active", await client.get(
            f"{path}/deliveries/{(await loop.delivery())['id']}/attempts", headers=ours.officer()
        )
        assert shown["verbs"] == ["erase", "export"]
        yield loop


async def test_an_erasure_is_done_at_both(loop: Loop) -> None:
    ours, theirs = loop.ours, loop.theirs
    person = await ours.person()
    request_id = await ours.opened(person, "erasure")
    await loop.refer(request_id)
    await ours.ask_keyring()
    await ours.answer_all(request_id, Verb.ERASE)
    await loop.turn()
    assert (await loop.part(person, request_id))["state"] == "received"
    assert await ours.state(person, request_id) == "running"
    asked = await loop.asked()
    assert asked.subject_id == await ours.work.vault.subject_id(theirs.store_id, person.email)
    await theirs.answer_all(asked.id, Verb.PREVIEW)
    await theirs.ask_keyring()
    await theirs.answer_all(asked.id, Verb.ERASE)
    await loop.turn()
    assert (await loop.part(person, request_id))["state"] == "received"
    await theirs.ask_keyring()
    await theirs.answer_all(asked.id, Verb.VERIFY_ERASED)
    await loop.turn()
    assert (await loop.part(person, request_id))["state"] == "done"
    assert await ours.state(person, request_id) == "checking"
    delivery = await loop.delivery()
    assert delivery["state"] == "done"
    told = await loop.tool.platform.client.get(
        f"{theirs.path}/opendsr-controllers/{loop.tool.id}/callbacks", headers=theirs.officer()
    )
    assert [(one["status"], one["answer"], one["attempts"]) for one in told.json()] == [
        ("completed", 204, 1),
        ("in_progress", 204, 1),
    ]


async def test_what_the_other_found_is_in_the_archive(loop: Loop) -> None:
    ours, theirs = loop.ours, loop.theirs
    person = await ours.person()
    request_id = await ours.opened(person, "access")
    await loop.refer(request_id)
    await loop.turn()
    asked = await loop.asked()
    await theirs.answer_all(asked.id, Verb.PREVIEW)
    await theirs.answer_all(asked.id, Verb.EXPORT)
    await theirs.assemble()
    await ours.answer_all(request_id, Verb.EXPORT)
    assert await ours.state(person, request_id) == "running"
    await loop.turn()
    part = await loop.part(person, request_id)
    assert (part["state"], part["counts"]) == ("done", {"results": 1})
    await ours.assemble()
    assert await ours.state(person, request_id) == "completed"
    token = re.search(r"/privacy/download\S*#token=(\S+)", (await mails(ours, person))[-1][2])
    assert token is not None
    granted = await ours.client.post("/privacy/v1/downloads", data={"token": token[1]})
    archive = await ours.client.get(granted.json()["location"])
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        name = f"recipient-{loop.recipient['id']}"
        [record] = json.loads(opened.read(f"{name}.json"))["records"]
        assert record["facts"] == {"recipient": "Another store"}
        with zipfile.ZipFile(io.BytesIO(opened.read(record["data"]["file"]["file"]))) as theirs_:
            assert "index.html" in theirs_.namelist()


async def test_one_that_was_taken_back_there_is_shown_and_not_done(loop: Loop) -> None:
    ours, person = loop.ours, await loop.ours.person()
    request_id = await ours.opened(person, "erasure")
    await loop.refer(request_id)
    await ours.ask_keyring()
    await ours.answer_all(request_id, Verb.ERASE)
    await loop.turn()
    delivery = await loop.delivery()
    assert (await loop.tool.delete(delivery["id"])).status_code == 202
    await loop.turn()
    part = await loop.part(person, request_id)
    assert (part["state"], part["reason"]) == ("received", "cancelled") or part["state"] == "failed", part
    assert (await loop.delivery())["state"] == "stuck"
    assert await ours.state(person, request_id) == "running"


async def test_a_lost_callback_costs_a_day_and_nothing_else(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs, person = loop.ours, loop.theirs, await loop.ours.person()
    request_id = await ours.opened(person, "erasure")
    await loop.refer(request_id)
    await ours.ask_keyring()
    await ours.answer_all(request_id, Verb.ERASE)
    await loop.turn()
    asked = await loop.asked()
    await theirs.answer_all(asked.id, Verb.PREVIEW)
    await theirs.ask_keyring()
    await theirs.answer_all(asked.id, Verb.ERASE)
    await theirs.ask_keyring()
    await theirs.answer_all(asked.id, Verb.VERIFY_ERASED)
    await following.watch(loop.work)
    async with theirs.database.session(theirs.store_id) as session:
        await session.execute(text("DELETE FROM opendsr_callback"))
    await loop.turn()
    assert (await loop.part(person, request_id))["state"] == "received"
    loop.ahead = timedelta(hours=25)
    await deliveries.deliver(loop.work)
    assert (await loop.part(person, request_id))["state"] == "done"
