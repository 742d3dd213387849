"""The archive a person downloads: what is in it, how often and how long, and that it is never half of one."""

import asyncio
import csv
import hashlib
import io
import json
import re
import tracemalloc
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import insert, text

from libs.common.events.privacy import ExportChunk, ExportedRecords, Outcome, ParticipantAnnounced, Verb
from libs.common.personal.datamap import data_map
from libs.common.personal.keys import Erasure
from services.privacy import downloads, duties
from services.privacy.api import means
from services.privacy.archive import archive
from services.privacy.models import Download
from services.privacy.service import opening
from tests.common.personal.shop import HOLDINGS, SHOP
from tests.privacy.conftest import Person, Platform
from tests.privacy.keyring.conftest import RunningKeyring
from tests.privacy.test_engine import digest_of

Record = dict[str, Any]


def purchase(number: str = "1001", *, name: str = "Zoé <b>Canary</b>", **facts: Any) -> Record:
    return {
        "table": "purchase", "kind": "ShopContact", "facts": {"number": number} | facts,
        "data": {"name": name, "address": {"city": "Orléans"}, "tags": ["a", "b"]},
        "attached": {"purchase_line": [{"title": "Tea"}, {"title": "=cmd()"}]},
    }  # fmt: skip


async def exported(platform: Platform, person: Person, chunks: Sequence[list[Record]]) -> UUID:
    """A completed export with these records of the shop."""
    response = await platform.ask(person, "access")
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
    assert await platform.state(person, request_id) == "completed"
    return request_id


async def link(platform: Platform, person: Person, request_id: UUID, **changes: Any) -> str:
    """A token like the one in the mail."""
    token = uuid4().hex
    row = {
        "token_hash": opening.hashed(token), "request_id": request_id, "store_id": platform.store_id,
        "subject_id": person.subject_id, "generation": 1, "remaining": 5,
        "expires_at": datetime.now(UTC) + timedelta(days=7),
    }  # fmt: skip
    async with platform.database.session(platform.store_id) as session:
        await session.execute(insert(Download).values(row | changes))
    return token


async def fetch(platform: Platform, token: str) -> httpx.Response:
    return await platform.client.post("/privacy/v1/downloads", data={"token": token})


def opened(response: httpx.Response) -> zipfile.ZipFile:
    assert response.status_code == 200, response.text
    return zipfile.ZipFile(io.BytesIO(response.content))


async def test_the_archive_is_for_people_spreadsheets_and_machines(platform: Platform) -> None:
    person = await platform.person()
    public: Any = platform.shop_key.as_dict(private=False)
    await platform.deliver(
        ParticipantAnnounced(participant=SHOP, public_key=public, data_map=data_map(SHOP, HOLDINGS, []))
    )
    request_id = await exported(platform, person, [[purchase()], [purchase("1002", name="=1+1")]])
    response = await fetch(platform, await link(platform, person, request_id))
    assert response.headers["content-disposition"] == f'attachment; filename="export-{request_id}.zip"'
    files = opened(response)
    assert files.testzip() is None
    assert files.namelist() == [
        "index.html", "privacy.json", "privacy/request.csv", "test-shop.json", "test-shop/purchase.csv",
        "test-shop/purchase.purchase_line.csv", "manifest.json",
    ]  # fmt: skip
    records = json.loads(files.read("test-shop.json"))
    assert records == {"service": SHOP, "records": [purchase(), purchase("1002", name="=1+1")]}
    rows = list(csv.DictReader(io.StringIO(files.read("test-shop/purchase.csv").decode("utf-8-sig"))))
    assert [row["number"] for row in rows] == ["1001", "1002"]
    assert rows[0]["name"] == "Zoé <b>Canary</b>" and rows[0]["address.city"] == "Orléans"
    assert rows[1]["name"] == "'=1+1", "a spreadsheet would run this"
    lines = list(
        csv.DictReader(io.StringIO(files.read("test-shop/purchase.purchase_line.csv").decode("utf-8-sig")))
    )
    assert [(line["row"], line["title"]) for line in lines] == [
        ("1", "Tea"), ("1", "'=cmd()"), ("2", "Tea"), ("2", "'=cmd()"),
    ]  # fmt: skip
    manifest = json.loads(files.read("manifest.json"))
    assert manifest["request"] == str(request_id)
    assert manifest["sha256"] == {
        name: hashlib.sha256(files.read(name)).hexdigest()
        for name in files.namelist()
        if name != "manifest.json"
    }


@pytest.mark.parametrize(("language", "title"), [("en", "Your data"), ("fr", "Vos données")])
async def test_the_page_is_read_without_a_network_in_the_persons_language(
    platform: Platform, language: str, title: str
) -> None:
    person = await platform.person()
    response = await platform.ask(person, "access", language=language)
    assert response.status_code == 201
    request_id = await exported(platform, person, [[purchase()]])
    page = opened(await fetch(platform, await link(platform, person, request_id))).read("index.html").decode()
    assert f'<html lang="{language}">' in page and f"<h1>{title}</h1>" in page
    assert "Zoé &lt;b&gt;Canary&lt;/b&gt;" in page and "<b>Canary" not in page
    assert "Orléans" in page and person.email in page
    assert not re.search(r"(src|href)=\"(?!#)", page) and "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


async def test_an_export_of_nothing_says_so(platform: Platform) -> None:
    person = await platform.person()
    request_id = await exported(platform, person, [])
    files = opened(await fetch(platform, await link(platform, person, request_id)))
    # What is known of them is the request itself.
    assert files.namelist() == ["index.html", "privacy.json", "privacy/request.csv", "manifest.json"]


async def test_the_archive_comes_out_the_same_every_time(platform: Platform) -> None:
    person = await platform.person()
    token = await link(platform, person, await exported(platform, person, [[purchase()]]))
    first, second = await fetch(platform, token), await fetch(platform, token)
    assert first.content == second.content


# --- How often, how long, for whom -----------------------------------------------------------------------


async def test_a_link_works_a_few_times_and_then_never_again(platform: Platform) -> None:
    person = await platform.person()
    request_id = await exported(platform, person, [[purchase()]])
    token = await link(platform, person, request_id, remaining=3)
    responses = await asyncio.gather(*(fetch(platform, token) for _ in range(6)))
    assert sorted(one.status_code for one in responses) == [200, 200, 200, 404, 404, 404]


async def test_a_link_that_expired_is_like_one_that_never_was(platform: Platform, app: FastAPI) -> None:
    person = await platform.person()
    token = await link(platform, person, await exported(platform, person, [[purchase()]]))
    unknown = await fetch(platform, "no-such-token")
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    app.dependency_overrides[means.now] = lambda: datetime.now(UTC) + timedelta(days=7, seconds=1)
    try:
        late = await fetch(platform, token)
    finally:
        app.dependency_overrides.clear()
    assert (late.status_code, late.content) == (404, unknown.content)
    assert (await fetch(platform, token)).status_code == 200


async def test_a_link_dies_with_its_person(platform: Platform) -> None:
    person = await platform.person()
    token = await link(platform, person, await exported(platform, person, [[purchase()]]))
    unknown = await fetch(platform, "no-such-token")
    erasure = await platform.opened(person, "erasure")
    await platform.ask_keyring()
    # The keys are gone, the rows are not yet: this process has heard of it.
    platform.work.vault.drop(platform.store_id, [person.subject_id])
    refused = await fetch(platform, token)
    assert (refused.status_code, refused.content) == (404, unknown.content)
    await platform.answer_itself(erasure, Verb.ERASE)
    async with platform.database.session(platform.store_id) as session:
        for table in ("download", "export_chunk"):
            assert await session.scalar(text(f"SELECT count(*) FROM {table}")) == 0
    assert (await fetch(platform, token)).content == unknown.content


async def test_what_expired_is_deleted(platform: Platform) -> None:
    person = await platform.person()
    request_id = await exported(platform, person, [[purchase()]])
    await link(platform, person, request_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await duties.forget_exports(platform.work)
    async with platform.database.session(platform.store_id) as session:
        for table in ("download", "export_chunk"):
            assert await session.scalar(text(f"SELECT count(*) FROM {table}")) == 0


async def test_an_export_that_has_not_ended_cannot_be_fetched(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    await platform.answer_itself(request_id, Verb.EXPORT)
    assert (await fetch(platform, await link(platform, person, request_id))).status_code == 404


async def test_a_keyring_that_is_away_costs_no_download(
    platform: Platform, own_keyring: RunningKeyring
) -> None:
    person = await platform.person()
    token = await link(platform, person, await exported(platform, person, [[purchase()]]), remaining=1)
    vault, platform.app.state.vault = platform.app.state.vault, own_keyring.vault("privacy")
    await own_keyring.stop()
    try:
        assert (await fetch(platform, token)).status_code == 503
    finally:
        platform.app.state.vault = vault
    assert (await fetch(platform, token)).status_code == 200


async def test_an_archive_that_breaks_off_is_none(platform: Platform) -> None:
    person = await platform.person()
    chunks = [[purchase(str(number))] for number in range(12)]
    token = await link(platform, person, await exported(platform, person, chunks))
    export = await downloads.begin(platform.database, platform.work.vault, token=token, now=datetime.now(UTC))
    received = bytearray()
    with pytest.raises(Exception, match="personal data was erased"):
        async for piece in archive(export):
            received += piece
            if len(received) > 100 and export.chunks:
                client = platform.keyring.client("privacy")
                await client.destroy([Erasure(platform.store_id, person.subject_id, 1, uuid4())])
                platform.work.vault.drop(platform.store_id, [person.subject_id])
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(bytes(received)))


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": "x" * 101}, {"other": "x"}])
async def test_bad_input_is_refused(platform: Platform, body: dict[str, str]) -> None:
    response = await platform.client.post("/privacy/v1/downloads", data=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


async def test_the_page_of_the_link_shows_nothing_and_uses_nothing_up(platform: Platform) -> None:
    for language, words in (("en", "Download"), ("fr", "Télécharger")):
        response = await platform.client.get("/privacy/download", params={"language": language})
        assert response.status_code == 200 and words in response.text
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["referrer-policy"] == "no-referrer"
    assert (await platform.client.get("/privacy/download", params={"language": "xx"})).status_code == 422


# --- Much of it ------------------------------------------------------------------------------------------


async def test_a_large_export_is_streamed_in_bounded_memory(platform: Platform) -> None:
    person = await platform.person()
    filling = "x" * 7000
    chunks = [
        [purchase(str(1000 * chunk + number), name=filling) for number in range(60)] for chunk in range(24)
    ]
    size = sum(len(json.dumps(chunk)) for chunk in chunks)
    token = await link(platform, person, await exported(platform, person, chunks))
    del chunks
    export = await downloads.begin(platform.database, platform.work.vault, token=token, now=datetime.now(UTC))
    tracemalloc.start()
    received = 0
    async for piece in archive(export):
        received += len(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert received > 20_000
    assert size > 10_000_000
    assert peak < 10_000_000, "the archive grows with what is in it"
