"""How an archive is fetched: by whom, how often, how long, in parts; and that it is never half of one."""

import asyncio
import hashlib
import io
import zipfile
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.events.privacy import Verb
from libs.common.personal.keys import Erasure
from services.privacy import downloads, duties, kinds
from services.privacy.api import means
from services.privacy.ranges import RangeNotSatisfiable, wanted
from tests.privacy.archives import address, answered, exported, fetch, link, opened, purchase
from tests.privacy.conftest import Person, Platform
from tests.privacy.keyring.conftest import RunningKeyring

TABLES = ("download", "download_grant", "archive", "archive_piece", "export_chunk")


async def granted(platform: Platform, person: Person, **changes: Any) -> tuple[str, dict[str, str]]:
    """The address of a new archive, and its cookie as a header."""
    request_id = await exported(platform, person, [[purchase(name="x" * 5000)]])
    response = await address(platform, await link(platform, person, request_id, **changes))
    assert response.status_code == 201
    platform.client.cookies.clear()
    cookie = response.headers["set-cookie"].partition(";")[0]
    return response.headers["location"], {"Cookie": cookie}


async def left(platform: Platform) -> int:
    async with platform.database.session(platform.store_id) as session:
        return await session.scalar(text("SELECT sum(remaining)::int FROM download"))


def clock_at(moment: datetime) -> Callable[[], datetime]:
    def clock() -> datetime:
        return moment

    return clock


async def rows(platform: Platform) -> dict[str, int]:
    async with platform.database.session(platform.store_id) as session:
        return {table: await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0 for table in TABLES}


# --- For whom --------------------------------------------------------------------------------------------


async def test_an_address_works_for_whoever_holds_its_cookie_alone(platform: Platform) -> None:
    location, cookie = await granted(platform, await platform.person())
    other, others_cookie = await granted(platform, await platform.person())
    unknown = await platform.client.get(f"/privacy/v1/downloads/{uuid4()}", headers=cookie)
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    for headers in ({}, others_cookie, {"Cookie": "download="}, {"Cookie": "download=" + "x" * 43}):
        refused = await platform.client.get(location, headers=headers)
        assert (refused.status_code, refused.content) == (404, unknown.content)
    assert await left(platform) == 10, "what is refused is not counted"
    assert (await platform.client.get(other, headers=others_cookie)).status_code == 200
    assert opened(await platform.client.get(location, headers=cookie)).testzip() is None


async def test_the_cookie_is_of_one_address_and_no_script_sees_it(platform: Platform, app: FastAPI) -> None:
    person = await platform.person()
    token = await link(platform, person, await exported(platform, person, [[purchase()]]))
    response = await address(platform, token)
    cookie = response.headers["set-cookie"]
    location = response.headers["location"]
    assert f"Path={location};" in f"{cookie};" and "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert "Secure" not in cookie
    assert token not in response.text + location and cookie.split("=")[1].split(";")[0] not in response.text
    settings = app.state.settings
    app.state.settings = settings.model_copy(update={"public_url": "https://shop.example"})
    try:
        assert "Secure" in (await address(platform, token)).headers["set-cookie"]
    finally:
        app.state.settings = settings


# --- How often, how long ---------------------------------------------------------------------------------


async def test_a_link_works_a_few_times_and_then_never_again(platform: Platform) -> None:
    person = await platform.person()
    request_id = await exported(platform, person, [[purchase()]])
    token = await link(platform, person, request_id, remaining=3)
    addresses = [(await address(platform, token)).headers["location"] for _ in range(6)]
    responses = await asyncio.gather(*(platform.client.get(one) for one in addresses))
    assert sorted(one.status_code for one in responses) == [200, 200, 200, 404, 404, 404]
    assert (await address(platform, token)).status_code == 404


async def test_a_link_that_expired_is_like_one_that_never_was(platform: Platform, app: FastAPI) -> None:
    person = await platform.person()
    token = await link(platform, person, await exported(platform, person, [[purchase()]]))
    location = (await address(platform, token)).headers["location"]
    unknown = await address(platform, "no-such-token")
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "application/problem+json")
    for later, expected in ((timedelta(days=1, seconds=1), 201), (timedelta(days=7, seconds=1), 404)):
        app.dependency_overrides[means.now] = clock_at(datetime.now(UTC) + later)
        try:
            assert (await platform.client.get(location)).content == unknown.content
            late = await address(platform, token)
        finally:
            app.dependency_overrides.clear()
        assert late.status_code == expected
    assert late.content == unknown.content
    assert (await fetch(platform, token)).status_code == 200


async def test_the_archive_is_the_same_every_time(platform: Platform) -> None:
    person = await platform.person()
    token = await link(platform, person, await exported(platform, person, [[purchase()]]))
    first, second = await fetch(platform, token), await fetch(platform, token)
    assert first.content == second.content
    described = (await address(platform, token)).json()
    assert described["sha256"] == hashlib.sha256(first.content).hexdigest()
    assert (described["size"], described["remaining"]) == (len(first.content), 3)
    assert first.headers["etag"] == f'"{described["sha256"]}"'
    assert first.headers["content-length"] == str(len(first.content))


# --- The end of it ---------------------------------------------------------------------------------------


async def test_a_link_dies_with_its_person(platform: Platform) -> None:
    person = await platform.person()
    token = await link(platform, person, await exported(platform, person, [[purchase()]]))
    location = (await address(platform, token)).headers["location"]
    unknown = await address(platform, "no-such-token")
    erasure = await platform.opened(person, "erasure")
    await platform.ask_keyring()
    # The keys are gone, the rows are not yet: this process has heard of it.
    platform.work.vault.drop(platform.store_id, [person.subject_id])
    for refused in (await address(platform, token), await platform.client.get(location)):
        assert (refused.status_code, refused.content) == (404, unknown.content)
    await platform.answer_itself(erasure, Verb.ERASE)
    assert await rows(platform) == dict.fromkeys(TABLES, 0)
    for refused in (await address(platform, token), await platform.client.get(location)):
        assert (refused.status_code, refused.content) == (404, unknown.content)


async def test_what_expired_is_deleted(platform: Platform) -> None:
    person = await platform.person()
    await granted(platform, person)
    kept = await rows(platform)
    assert kept == {"download": 1, "download_grant": 1, "archive": 1, "archive_piece": 1, "export_chunk": 0}
    await duties.forget_exports(platform.work)
    assert await rows(platform) == kept
    async with platform.database.session(platform.store_id) as session:
        await session.execute(text("UPDATE download_grant SET expires_at = now() - interval '1 second'"))
    await duties.forget_exports(platform.work)
    assert await rows(platform) == kept | {"download_grant": 0}
    async with platform.database.session(platform.store_id) as session:
        await session.execute(text("UPDATE download SET expires_at = now() - interval '1 second'"))
    await duties.forget_exports(platform.work)
    assert await rows(platform) == dict.fromkeys(TABLES, 0)


async def test_an_archive_that_is_not_made_cannot_be_fetched(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    assert (await address(platform, await link(platform, person, request_id))).status_code == 404
    other = await platform.person()
    request_id = await answered(platform, other, [[purchase()]])
    token = await link(platform, other, request_id)
    assert (await address(platform, token)).status_code == 404
    await platform.assemble()
    assert (await fetch(platform, token)).status_code == 200


async def test_a_keyring_that_is_away_costs_no_download(
    platform: Platform, own_keyring: RunningKeyring
) -> None:
    person = await platform.person()
    location, cookie = await granted(platform, person, remaining=1)
    vault, platform.app.state.vault = platform.app.state.vault, own_keyring.vault("privacy")
    await own_keyring.stop()
    try:
        assert (await platform.client.get(location, headers=cookie)).status_code == 503
    finally:
        platform.app.state.vault = vault
    assert (await platform.client.get(location, headers=cookie)).status_code == 200


async def test_a_download_that_breaks_off_is_no_archive(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.privacy.assembling.PIECE_BYTES", 1000)
    person = await platform.person()
    token = await link(platform, person, await exported(platform, person, [[purchase()]]))
    # The client is every test's, and keeps what it was given.
    platform.client.cookies.clear()
    described = (await address(platform, token)).json()
    secret = next(iter(platform.client.cookies.jar)).value
    fetching = await downloads.begin(
        platform.database, platform.work.vault, grant_id=described["location"].rpartition("/")[2],
        secret=secret or "", range_=None, if_range=None, now=datetime.now(UTC),
    )  # fmt: skip
    platform.client.cookies.clear()
    received = bytearray()
    with pytest.raises(Exception, match="personal data was erased"):
        async for piece in downloads.content(platform.database, platform.work.vault, fetching):
            received += piece
            client = platform.keyring.client("privacy")
            await client.destroy([Erasure(platform.store_id, person.subject_id, 1, uuid4())])
            platform.work.vault.drop(platform.store_id, [person.subject_id])
    assert 0 < len(received) < fetching.size
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(bytes(received)))


# --- Parts -----------------------------------------------------------------------------------------------


async def part(platform: Platform, location: str, headers: dict[str, str], **more: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return await platform.client.get(location, headers=headers | named)


async def test_an_interrupted_download_goes_on_and_counts_once(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.privacy.assembling.PIECE_BYTES", 1000)
    location, cookie = await granted(platform, await platform.person(), remaining=1)
    async with platform.database.session(platform.store_id) as session:
        assert (await session.scalar(text("SELECT count(*) FROM archive_piece")) or 0) > 3
    begun = await part(platform, location, cookie, Range="bytes=0-1499")
    assert begun.status_code == 206 and len(begun.content) == 1500
    etag, size = begun.headers["etag"], int(begun.headers["content-range"].rpartition("/")[2])
    assert (
        begun.headers["content-range"] == f"bytes 0-1499/{size}" and begun.headers["accept-ranges"] == "bytes"
    )
    assert await left(platform) == 0
    more = await part(platform, location, cookie, Range="bytes=1500-2999", If_Range=etag)
    rest = await part(platform, location, cookie, Range="bytes=3000-", If_Range=etag)
    assert (more.status_code, rest.status_code) == (206, 206)
    whole = begun.content + more.content + rest.content
    assert f'"{hashlib.sha256(whole).hexdigest()}"' == etag
    assert zipfile.ZipFile(io.BytesIO(whole)).testzip() is None
    last = await part(platform, location, cookie, Range="bytes=-10")
    assert last.content == whole[-10:]
    again = await part(platform, location, cookie)
    assert again.status_code == 404, "to begin again is another download"
    other = await part(platform, location, cookie, Range="bytes=10-", If_Range='"other"')
    assert other.status_code == 404, "another version would be the whole again"


async def test_the_first_use_of_an_address_counts_wherever_it_begins(platform: Platform) -> None:
    location, cookie = await granted(platform, await platform.person())
    for _ in range(3):
        assert (await part(platform, location, cookie, Range="bytes=5-")).status_code == 206
        assert await left(platform) == 4


async def test_a_part_that_is_not_there_is_refused_and_not_counted(platform: Platform) -> None:
    location, cookie = await granted(platform, await platform.person())
    refused = await part(platform, location, cookie, Range="bytes=99999999-")
    assert (refused.status_code, refused.json()["type"]) == (416, "/problems/range-not-satisfiable")
    assert refused.headers["content-range"].startswith("bytes */")
    assert await left(platform) == 5
    for ignored in ("bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=-", "bytes=9-3"):
        assert (await part(platform, location, cookie, Range=ignored)).status_code == 200


@given(
    size=st.integers(1, 5000), first=st.integers(0, 6000) | st.none(), last=st.integers(0, 6000) | st.none()
)
def test_a_range_is_the_slice_that_the_rfc_says(size: int, first: int | None, last: int | None) -> None:
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    content = bytes(number % 256 for number in range(size))
    try:
        found = wanted(header, None, size=size, etag='"e"')
    except RangeNotSatisfiable:
        assert (first is not None and first >= size) or (first is None and last == 0)
        return
    if found is None:
        assert (first, last) == (None, None) or (first is not None and last is not None and last < first)
        return
    got = content[found.first : found.last + 1]
    assert got == (content[-last:] if first is None and last else content[first:] if last is None
                   else content[first : last + 1])  # fmt: skip
    assert len(got) == found.size > 0


# --- Bad input, and the page of the link -----------------------------------------------------------------


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": "x" * 101}, {"other": "x"}])
async def test_bad_input_is_refused(platform: Platform, body: dict[str, str]) -> None:
    response = await platform.client.post("/privacy/v1/downloads", data=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


async def test_an_address_of_another_form_is_refused(platform: Platform) -> None:
    assert (await platform.client.get("/privacy/v1/downloads/not-an-id")).status_code == 422


async def test_the_page_of_the_link_shows_nothing_and_uses_nothing_up(platform: Platform) -> None:
    for language, words in (("en", "Download"), ("fr", "Télécharger")):
        response = await platform.client.get("/privacy/download", params={"language": language})
        assert response.status_code == 200 and words in response.text
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["referrer-policy"] == "no-referrer"
    assert (await platform.client.get("/privacy/download", params={"language": "xx"})).status_code == 422


def test_a_piece_fills_a_box_of_half_a_mebibyte() -> None:
    assert len(b64encode(bytes(kinds.PIECE_BYTES))) + 100 <= 512 * 1024
