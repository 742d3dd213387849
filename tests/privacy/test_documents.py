"""Documents: sealed under keys of their own, looked at by a person, destroyed that moment, and that is on record."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from sqlalchemy import text

from libs.common import pace
from libs.common.auth import Role
from libs.common.errors import Unavailable
from libs.common.events.privacy import Verb
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy import endings
from services.privacy.domain.verification import DOCUMENT_BYTES, DOCUMENT_DAYS, DOCUMENTS, media_type_of
from services.privacy.kinds import DocumentContent
from tests.privacy.conftest import Person, Platform
from tests.privacy.test_letters import erased
from tests.privacy.ways import PDF, asked, export, mails, open_store, post, requests_of, upload

JPEG, PNG = b"\xff\xd8\xff\xe0canary", b"\x89PNG\r\n\x1a\ncanary"


@pytest.fixture(autouse=True)
async def store(platform: Platform) -> AsyncIterator[None]:
    await open_store(platform)
    with pytest.MonkeyPatch.context() as patch:

        async def at_once(_: float) -> None:
            return None

        patch.setattr(pace, "sleep", at_once)
        yield


async def documents(platform: Platform, request_id: UUID) -> dict[str, Any]:
    response = await platform.client.get(
        f"{platform.path}/requests/{request_id}/documents", headers=platform.officer()
    )
    assert response.status_code == 200, response.text
    return response.json()


async def uploaded(platform: Platform, content: bytes = PDF) -> tuple[Person, UUID, UUID]:
    """Somebody who sent a document: they, their request, and the document."""
    person, token, request_id = await asked(platform)
    sent = await upload(platform, token, content)
    assert (sent.status_code, sent.json()["documents"]) == (201, 1), sent.text
    [waiting] = (await documents(platform, request_id))["waiting"]
    return person, request_id, UUID(waiting["id"])


async def check(
    platform: Platform,
    request_id: UUID,
    document_id: UUID,
    accepted: bool = True,
    *,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    return await platform.client.post(
        f"{platform.path}/requests/{request_id}/documents/{document_id}/checks",
        json={"accepted": accepted, "seen": "canary-name and birthday fit."},
        headers=headers or platform.officer(),
    )


async def read(platform: Platform, request_id: UUID, document_id: UUID) -> httpx.Response:
    return await platform.client.get(
        f"{platform.path}/requests/{request_id}/documents/{document_id}", headers=platform.officer()
    )


async def keys_of(platform: Platform, person: Person) -> list[str]:
    [keys] = await platform.keyring.client("privacy").status([(platform.store_id, person.subject_id)])
    return [one.bucket for one in keys if one.retention is Retention.VERIFICATION]


@pytest.mark.parametrize(
    ("content", "kind"), [(PDF, "application/pdf"), (JPEG, "image/jpeg"), (PNG, "image/png")]
)
async def test_a_document_is_looked_at_and_destroyed_that_moment(
    platform: Platform, content: bytes, kind: str
) -> None:
    person, request_id, document_id = await uploaded(platform, content)
    async with platform.database.session(platform.store_id) as session:
        box = Sealed(DocumentContent, await session.scalar(text("SELECT box FROM verification_document")))
    shown = await read(platform, request_id, document_id)
    assert (shown.status_code, shown.content) == (200, content)
    assert shown.headers["content-type"].startswith(kind)
    assert (
        shown.headers["Cache-Control"] == "no-store" and shown.headers["X-Content-Type-Options"] == "nosniff"
    )
    assert shown.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    [waiting] = (await documents(platform, request_id))["waiting"]
    assert (waiting["openings"], waiting["size"], waiting["media_type"]) == (1, len(content), kind)
    checked = await check(platform, request_id, document_id)
    assert (checked.status_code, checked.json()["outcome"]) == (201, "accepted")
    assert checked.json()["destroyed_at"] is not None and checked.json()["openings"] == 1
    assert await keys_of(platform, person) == []
    platform.work.vault.drop(platform.store_id)
    with pytest.raises(KeyDestroyed):
        await platform.work.vault.open(
            box,
            store_id=platform.store_id,
            subject_id=person.subject_id,
            purpose=Purpose.RIGHTS_OF_THE_PERSON,
        )
    assert (await read(platform, request_id, document_id)).status_code == 404
    seen = await documents(platform, request_id)
    assert seen["waiting"] == [] and [one["document_id"] for one in seen["checks"]] == [str(document_id)]
    [request] = await requests_of(platform, person)
    assert (request.state, [one["proof"] for one in request.proofs]) == ("running", ["document"])
    assert len(await platform.tasks(request_id, Verb.EXPORT)) == 1


async def test_a_document_that_is_not_enough_is_destroyed_just_the_same(platform: Platform) -> None:
    person, token, request_id = await asked(platform)
    await upload(platform, token)
    [waiting] = (await documents(platform, request_id))["waiting"]
    rejected = await check(platform, request_id, UUID(waiting["id"]), accepted=False)
    assert rejected.json()["outcome"] == "rejected" and rejected.json()["destroyed_at"] is not None
    assert await keys_of(platform, person) == []
    seen = (await post(platform, "status", token=token)).json()
    assert (seen["state"], seen["checks"], seen["documents"]) == ("verifying", ["rejected"], 0)
    assert (await upload(platform, token)).status_code == 201


async def test_what_was_seen_is_kept_sealed_with_the_request(platform: Platform) -> None:
    person, request_id, document_id = await uploaded(platform)
    await check(platform, request_id, document_id)
    notes = await platform.client.get(
        f"{platform.path}/requests/{request_id}/notes", headers=platform.officer()
    )
    [note] = notes.json()["items"]
    assert (note["about"], note["text"]) == ("evidence", "canary-name and birthday fit.")
    assert person.email not in notes.text


async def test_saying_the_same_again_changes_nothing_and_another_thing_is_too_late(
    platform: Platform,
) -> None:
    person, request_id, document_id = await uploaded(platform)
    officer = platform.officer()
    first = await check(platform, request_id, document_id, headers=officer)
    again = await check(platform, request_id, document_id, headers=officer)
    assert (first.status_code, again.status_code, first.json()) == (201, 201, again.json())
    other = await check(platform, request_id, document_id, accepted=False, headers=officer)
    assert (other.status_code, other.json()["type"]) == (409, "/problems/already-checked")
    [request] = await requests_of(platform, person)
    assert len(request.proofs) == 1


async def test_a_crash_before_the_key_is_destroyed_is_made_up_for(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between what it saved and the keyring's answer, then the keyring is away, then it is back."""
    person, request_id, document_id = await uploaded(platform)

    class Died(BaseException):
        pass

    async def dies(*_: Any, **__: Any) -> None:
        raise Died

    async def is_away(*_: Any, **__: Any) -> None:
        raise Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(endings.KeyringClient, "destroy_buckets", dies)
        with pytest.raises(BaseException):  # noqa: B017 - whatever the transport makes of a death
            await check(platform, request_id, document_id)
    assert await keys_of(platform, person) == [str(document_id)]
    [noted] = (await documents(platform, request_id))["checks"]
    assert (noted["outcome"], noted["destroyed_at"]) == ("accepted", None)
    assert (await read(platform, request_id, document_id)).status_code == 404
    later = datetime.now(UTC) + timedelta(minutes=1)
    with platform.at(later) as work, monkeypatch.context() as patch:
        patch.setattr(endings.KeyringClient, "destroy_buckets", is_away)
        with pytest.raises(Unavailable):
            await endings.destroy_keys(work)
    with platform.at(later + timedelta(minutes=1)) as work:
        await endings.destroy_keys(work)
        await endings.destroy_keys(work)
    assert await keys_of(platform, person) == []
    [noted] = (await documents(platform, request_id))["checks"]
    assert noted["destroyed_at"] is not None
    [request] = await requests_of(platform, person)
    assert (request.state, len(request.proofs)) == ("running", 1)


async def test_a_keyring_that_is_away_loses_no_check(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, request_id, document_id = await uploaded(platform)

    async def is_away(*_: Any, **__: Any) -> None:
        raise Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(endings.KeyringClient, "destroy_buckets", is_away)
        checked = await check(platform, request_id, document_id)
    assert (checked.status_code, checked.json()["destroyed_at"]) == (201, None)
    with platform.at(datetime.now(UTC) + timedelta(minutes=1)) as work:
        await endings.destroy_keys(work)
    assert await keys_of(platform, person) == []


# --- What nobody looks at --------------------------------------------------------------------------------


async def test_nobody_has_looked_for_thirty_days(platform: Platform) -> None:
    person, request_id, document_id = await uploaded(platform)
    with platform.at(datetime.now(UTC) + timedelta(days=DOCUMENT_DAYS, minutes=-1)) as work:
        await endings.expire_requests(work)
        await endings.expire_documents(work)
    assert len((await documents(platform, request_id))["waiting"]) == 1
    with platform.at(datetime.now(UTC) + timedelta(days=DOCUMENT_DAYS, minutes=1)) as work:
        await endings.expire_documents(work)
        await endings.destroy_keys(work)
        seen = await documents(platform, request_id)
        assert seen["waiting"] == []
        assert [(one["outcome"], one["checked_by"]) for one in seen["checks"]] == [("unseen", None)]
        assert seen["checks"][0]["destroyed_at"] is not None
        assert await keys_of(platform, person) == []
        # The request waited for the store; now that there is no document, it has waited long enough.
        await endings.expire_requests(work)
    assert (await requests_of(platform, person))[0].state == "cancelled"
    assert (await check(platform, request_id, document_id)).status_code == 409


async def test_the_end_of_a_request_is_the_end_of_its_documents(platform: Platform) -> None:
    person, token, request_id = await asked(platform)
    await upload(platform, token)
    await post(platform, "confirmations", token=token)
    await export(platform, request_id)
    await endings.expire_documents(platform.work)
    await endings.destroy_keys(platform.work)
    seen = await documents(platform, request_id)
    assert (seen["waiting"], seen["checks"][0]["outcome"]) == ([], "unseen")
    assert await keys_of(platform, person) == []


async def test_an_erasure_takes_documents_and_says_so(platform: Platform) -> None:
    person, request_id, document_id = await uploaded(platform)
    await erased(platform, person)
    seen = await documents(platform, request_id)
    assert seen["waiting"] == []
    assert [(one["document_id"], one["outcome"]) for one in seen["checks"]] == [(str(document_id), "erased")]
    assert await keys_of(platform, person) == []


# --- Uploading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "status", "problem"),
    [
        (b"", 422, "document-not-accepted"), (b"canary, just words", 422, "document-not-accepted"),
        (b"<html>%PDF-1.7", 422, "document-not-accepted"), (b"PK\x03\x04", 422, "document-not-accepted"),
        (PDF + b"x" * DOCUMENT_BYTES, 413, "too-large"), (b"%PDF-" + b"x" * 12_000_000, 413, "too-large"),
    ],
)  # fmt: skip
async def test_what_is_no_document_is_refused(
    platform: Platform, content: bytes, status: int, problem: str
) -> None:
    person, token, request_id = await asked(platform)
    refused = await upload(platform, token, content)
    assert (refused.status_code, refused.json()["type"]) == (status, f"/problems/{problem}")
    assert "canary" not in refused.text and "card.pdf" not in refused.text
    assert (await documents(platform, request_id))["waiting"] == []
    assert await keys_of(platform, person) == []


async def test_the_largest_document_is_taken_and_never_touches_a_disk(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rolled(_: Any) -> None:
        raise AssertionError("the document was written into a file")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", rolled)
    content = PDF + b"x" * (DOCUMENT_BYTES - len(PDF))
    _, request_id, document_id = await uploaded(platform, content)
    assert (await read(platform, request_id, document_id)).content == content


async def test_a_document_is_taken_while_one_is_waited_for_alone(platform: Platform) -> None:
    _, token, _ = await asked(platform)
    wrong = await upload(platform, "x" * 43)
    assert (wrong.status_code, wrong.json()["type"]) == (404, "/problems/request-link-not-valid")
    for _ in range(DOCUMENTS):
        assert (await upload(platform, token)).status_code == 201
    full = await upload(platform, token)
    assert (full.status_code, full.json()["type"]) == (409, "/problems/too-many-documents")
    await post(platform, "confirmations", token=token)
    late = await upload(platform, token)
    assert (late.status_code, late.json()["type"]) == (409, "/problems/document-not-wanted")
    await platform.decides(enough={"access": ["email-link"]})
    _, other, _ = await asked(platform)
    unwanted = await upload(platform, other)
    assert (unwanted.status_code, unwanted.json()["type"]) == (409, "/problems/document-not-wanted")


async def test_the_form_of_a_document_is_complete(platform: Platform) -> None:
    path = "/privacy/v1/status/documents"
    assert (await platform.client.post(path, json={})).status_code == 415
    assert (await platform.client.post(path, data={"token": "x"}, files={"other": PDF})).status_code == 422
    assert (await platform.client.post(path, files={"file": PDF})).status_code == 422


def test_a_document_is_known_by_its_first_bytes_alone() -> None:
    assert [media_type_of(one) for one in (PDF, JPEG, PNG)] == ["application/pdf", "image/jpeg", "image/png"]
    assert [media_type_of(one) for one in (b"", b"%PDF", b"GIF89a", b"\x89PNG\n")] == [None] * 4


# --- Who may look ----------------------------------------------------------------------------------------


async def test_only_who_answers_for_the_store_looks_and_checks(platform: Platform) -> None:
    person, request_id, document_id = await uploaded(platform)
    path = f"{platform.path}/requests/{request_id}/documents"
    body = {"accepted": True, "seen": "x"}
    foreign = Person(uuid4(), person.subject_id, person.email).token(role=Role.OWNER)
    callers: list[tuple[dict[str, str], int]] = [
        ({}, 401), (person.token(), 403), (platform.officer(role=Role.SUPPORT), 403),
        (platform.officer(role=Role.MANAGER), 403), (foreign, 404),
    ]  # fmt: skip
    for headers, status in callers:
        for method, at, sent in (
            ("GET", path, None),
            ("GET", f"{path}/{document_id}", None),
            ("POST", f"{path}/{document_id}/checks", body),
        ):
            response = await platform.client.request(method, at, json=sent, headers=headers)
            assert response.status_code == status, (method, at, status)
    assert len((await documents(platform, request_id))["waiting"]) == 1
    other_person, other_request, _ = await uploaded(platform)
    assert (await read(platform, other_request, document_id)).status_code == 404
    assert (await check(platform, other_request, document_id)).status_code == 404
    assert (await read(platform, uuid4(), document_id)).status_code == 404
    assert other_person != person


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"accepted": "perhaps", "seen": "x"},
        {"accepted": True},
        {"accepted": True, "seen": ""},
        {"accepted": True, "seen": "x", "y": 1},
    ],
)
async def test_a_check_says_what_was_seen(platform: Platform, body: dict[str, Any]) -> None:
    _, request_id, document_id = await uploaded(platform)
    refused = await platform.client.post(
        f"{platform.path}/requests/{request_id}/documents/{document_id}/checks",
        json=body,
        headers=platform.officer(),
    )
    assert refused.status_code == 422
    assert len((await documents(platform, request_id))["waiting"]) == 1


async def test_nothing_of_a_document_is_in_the_clear(
    platform: Platform, privacy_environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    person, request_id, document_id = await uploaded(platform)
    await check(platform, request_id, document_id)
    await mails(platform, person)
    connection: Any = await asyncpg.connect(privacy_environment["PRIVACY_MIGRATION_DATABASE_URL"])
    try:
        await connection.execute("SET app.store = '*'")
        for table in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            for secret in (b"canary-document", b"canary-name", b"card.pdf"):
                for needle in (secret.decode(), secret.hex()):
                    found = await connection.fetchval(
                        f'SELECT count(*) FROM "{table["tablename"]}" AS t WHERE t::text ILIKE $1',
                        f"%{needle}%",
                    )
                    assert found == 0, table["tablename"]
    finally:
        await connection.close()
    assert "canary" not in caplog.text
