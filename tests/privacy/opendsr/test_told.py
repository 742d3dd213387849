"""A store's tool is called back at every change: signed, in order, until it has heard."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from libs.common.events.privacy import Verb
from services.privacy.opendsr import callbacks, following
from services.privacy.opendsr.signatures import DOMAIN, SIGNATURE, is_signed
from services.privacy.opendsr.wire import Callback, read
from tests.privacy.conftest import Platform
from tests.privacy.opendsr.test_processor import Tool, callbacks_of, certificate, registered
from tests.privacy.ways import open_store
from tests.serving import serving


@dataclass
class Listening:
    """A tool that hears: what came to it, and how it answers."""

    platform: Platform
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list[tuple[dict[str, str], bytes]])
    answering: Callable[[], int] = lambda: 204
    address: str = ""
    tool: Tool = field(init=False)
    ahead: timedelta = timedelta(0)

    async def hear(self, request: Request) -> Response:
        self.came.append((dict(request.headers), await request.body()))
        return Response(status_code=self.answering(), headers={"Location": f"{self.address}/elsewhere"})

    @property
    def told(self) -> list[str]:
        return [json.loads(body)["request_status"] for _, body in self.came]

    async def call(self, later: timedelta = timedelta(0)) -> None:
        self.ahead += later
        work = replace(self.platform.work, clock=lambda: datetime.now(UTC) + self.ahead)
        while await following.watch(work) + await callbacks.call(work):
            pass

    async def asked(self, *paths: str, kind: str = "erasure") -> tuple[str, Any]:
        person = await self.platform.person()
        urls = [f"{self.address}/{path}" for path in paths or ("calls",)]
        id_ = await self.tool.asked(person, kind, status_callback_urls=urls)
        [request] = await self.tool.requests(id_)
        return id_, request

    async def erase(self, request: Any) -> None:
        await self.platform.ask_keyring()
        await self.platform.answer_all(request.id, Verb.ERASE)
        await self.platform.ask_keyring()
        await self.platform.answer_all(request.id, Verb.VERIFY_ERASED)


@pytest.fixture
async def listening(platform: Platform) -> AsyncIterator[Listening]:
    await open_store(platform)
    async with platform.database.platform_session() as session:
        await session.execute(text("UPDATE opendsr_callback SET due_at = NULL"))
    listening = Listening(platform)
    app = Starlette(routes=[Route("/{path:path}", listening.hear, methods=["GET", "POST"])])
    async with serving(app) as listening.address:
        host = listening.address.removeprefix("http://")
        listening.tool = await registered(platform, callback_hosts=[host])
        yield listening


async def test_every_change_is_told_signed_and_complete(listening: Listening) -> None:
    platform = listening.platform
    id_, request = await listening.asked()
    await listening.call()
    assert listening.came == []
    await platform.answer_all(request.id, Verb.PREVIEW)
    await listening.call()
    await listening.erase(request)
    await listening.call()
    assert listening.told == ["in_progress", "completed"]
    signing = await certificate(platform)
    for headers, body in listening.came:
        for domain, signature in zip(DOMAIN, SIGNATURE, strict=True):
            assert headers[domain.lower()] == "127.0.0.1"
            assert is_signed(body, headers[signature.lower()], signing)
        callback = read(Callback, body)
        assert callback.controller_id == listening.tool.id
        assert callback.subject_request_id == id_
        assert callback.status_callback_url == f"{listening.address}/calls"


async def test_a_change_that_was_over_before_anybody_looked_is_told_too(listening: Listening) -> None:
    _, request = await listening.asked()
    await listening.platform.answer_all(request.id, Verb.PREVIEW)
    await listening.erase(request)
    await listening.call()
    assert listening.told == ["in_progress", "completed"]


async def test_every_address_is_told(listening: Listening) -> None:
    id_, _ = await listening.asked("one", "other", "one")
    assert (await listening.tool.delete(id_)).status_code == 202
    await listening.call()
    assert sorted(json.loads(body)["status_callback_url"] for _, body in listening.came) == [
        f"{listening.address}/one",
        f"{listening.address}/other",
    ]
    assert set(listening.told) == {"cancelled"}


async def test_the_results_of_an_access_are_named_when_it_is_complete(listening: Listening) -> None:
    platform = listening.platform
    _, request = await listening.asked(kind="access")
    await platform.answer_all(request.id, Verb.PREVIEW)
    await platform.answer_all(request.id, Verb.EXPORT)
    await platform.assemble()
    await listening.call()
    first, last = (json.loads(body) for _, body in listening.came)
    assert "results_url" not in first
    assert (last["results_count"], last["results_url"][-10:]) == (1, "/results/1")


@pytest.mark.parametrize("status", [302, 400, 401, 410, 500])
async def test_whoever_does_not_hear_is_called_again_and_in_order(listening: Listening, status: int) -> None:
    listening.answering = lambda: status
    _, request = await listening.asked()
    await listening.platform.answer_all(request.id, Verb.PREVIEW)
    await listening.call()
    await listening.erase(request)
    await listening.call()
    # What comes later waits for what comes before.
    assert listening.told == ["in_progress"]
    await listening.call(timedelta(seconds=6))
    assert listening.told == ["in_progress", "in_progress"]
    listening.answering = lambda: 204
    await listening.call(timedelta(hours=1))
    assert listening.told == ["in_progress", "in_progress", "in_progress", "completed"]
    newest, before = await callbacks_of(listening.tool)
    assert (newest["attempts"], newest["answer"], newest["due_at"]) == (1, 204, None)
    assert (before["attempts"], before["answer"], before["due_at"]) == (3, 204, None)


async def test_whoever_never_hears_is_given_up_after_three_days_and_that_is_seen(
    listening: Listening,
) -> None:
    listening.answering = lambda: 500
    id_, _ = await listening.asked()
    assert (await listening.tool.delete(id_)).status_code == 202
    for _ in range(30):
        await listening.call(timedelta(hours=6, minutes=1))
    tries = len(listening.came)
    assert 12 <= tries <= 25
    [call] = await callbacks_of(listening.tool)
    assert (call["delivered_at"], call["due_at"], call["answer"]) == (None, None, 500)


async def test_an_address_that_nobody_may_call_is_not_called(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = callbacks.present().model_copy(update={"outgoing_networks": []})
    monkeypatch.setattr(callbacks, "present", lambda: strict)
    id_, _ = await listening.asked()
    assert (await listening.tool.delete(id_)).status_code == 202
    await listening.call()
    assert listening.came == []
    [call] = await callbacks_of(listening.tool)
    assert (call["answer"], call["fault"]) == (None, "address-not-allowed")
