"""Exports of the made-up shop, and what a browser does with the link in the mail."""

import io
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import insert

from libs.common.events.privacy import ExportChunk, ExportedRecords, Outcome, ParticipantAnnounced, Verb
from libs.common.personal.datamap import data_map
from services.privacy.models import Download
from services.privacy.service.opening import hashed
from tests.common.personal.shop import HOLDINGS, SHOP
from tests.privacy.conftest import Person, Platform
from tests.privacy.test_engine import digest_of

Record = dict[str, Any]


def purchase(number: str = "1001", *, name: str = "Zoé <b>Canary</b>", **facts: Any) -> Record:
    return {
        "table": "purchase", "kind": "ShopContact", "facts": {"number": number} | facts,
        "data": {"name": name, "email": "canary@vitrine.example"},
        "attached": {"purchase_line": [{"title": "Tea"}, {"title": "=cmd()"}]},
    }  # fmt: skip


def invoice(year: str = "2026", *, name: str = "Zoé Canary") -> Record:
    return {
        "table": "invoice", "kind": "ShopInvoice", "facts": {"year": year}, "data": {"name": name}, "attached": {},
    }  # fmt: skip


async def announce(platform: Platform, **changes: Any) -> None:
    """The shop says what it keeps."""
    public: Any = platform.shop_key.as_dict(private=False)
    entries = [
        entry | changes.get(str(entry.get("table")), {})
        for entry in data_map(SHOP, HOLDINGS, [])
        if "table" in entry
    ]
    await platform.deliver(ParticipantAnnounced(participant=SHOP, public_key=public, data_map=entries))


async def answered(platform: Platform, person: Person, chunks: Sequence[list[Record]], **asked: Any) -> UUID:
    """An export with these records of the shop, to which everybody has answered."""
    response = await platform.ask(person, asked.pop("right", "access"), **asked)
    assert response.status_code == 201, response.text
    request_id = UUID(response.json()["id"])
    events: list[ExportChunk] = []
    for number, records in enumerate(chunks):
        sealed = await platform.work.vault.seal(
            ExportedRecords(records=records),
            store_id=platform.store_id,
            subject_id=person.subject_id,
            bucket=str(request_id),
        )
        events.append(ExportChunk(request_id=request_id, participant=SHOP, sequence=number, box=sealed.box))
    for event in events:
        await platform.deliver(event)
    outcome = Outcome.DONE if chunks else Outcome.NOTHING_HELD
    digest = digest_of(*events) if chunks else ""
    await platform.deliver(
        platform.answer(
            request_id, Verb.EXPORT, outcome, chunks=len(chunks), digest=digest, counts={"purchase": 1}
        )
    )
    await platform.answer_itself(request_id, Verb.EXPORT)
    return request_id


async def exported(platform: Platform, person: Person, chunks: Sequence[list[Record]], **asked: Any) -> UUID:
    """A completed export with these records of the shop."""
    request_id = await answered(platform, person, chunks, **asked)
    await platform.assemble()
    assert await platform.state(person, request_id) == "completed"
    return request_id


async def link(platform: Platform, person: Person, request_id: UUID, **changes: Any) -> str:
    """A token like the one in the mail."""
    token = uuid4().hex
    row = {
        "token_hash": hashed(token), "request_id": request_id, "store_id": platform.store_id,
        "subject_id": person.subject_id, "generation": 1, "remaining": 5,
        "expires_at": datetime.now(UTC) + timedelta(days=7),
    }  # fmt: skip
    async with platform.database.session(platform.store_id) as session:
        await session.execute(insert(Download).values(row | changes))
    return token


async def address(platform: Platform, token: str) -> httpx.Response:
    """What the page of the link does; the client keeps the cookie, as a browser would."""
    return await platform.client.post("/privacy/v1/downloads", data={"token": token})


async def fetch(platform: Platform, token: str) -> httpx.Response:
    """The archive, or why there is none."""
    granted = await address(platform, token)
    if granted.status_code != 201:
        return granted
    return await platform.client.get(granted.headers["location"])


def opened(response: httpx.Response) -> zipfile.ZipFile:
    assert response.status_code == 200, response.text
    return zipfile.ZipFile(io.BytesIO(response.content))


async def archive_of(
    platform: Platform, person: Person, chunks: Sequence[list[Record]], **asked: Any
) -> zipfile.ZipFile:
    """The whole way: asked, answered, assembled, fetched."""
    request_id = await exported(platform, person, chunks, **asked)
    return opened(await fetch(platform, await link(platform, person, request_id)))
