"""What a store decides about requests, how it brands its mails, and where its desk is."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.events.privacy import Verb
from services.privacy import letters
from services.privacy.domain.rights import Right
from tests.privacy.conftest import Platform
from tests.privacy.test_desk import deciding_on, french, mails, places_of

CHOSEN: dict[str, Any] = {
    "passing": {"access": "officer", "erasure": "at-once"},
    "enough": {"erasure": ["session", "document"]},
    "lifting_notice_days": 14,
    "desk": None,
    "branding": {
        "en": {"sender": "Ada's shop", "opening": "Thank you for writing.", "signature": "Ada's shop\nParis"}
    },
}


async def settings(platform: Platform, **headers: str) -> httpx.Response:
    return await platform.client.get(f"{platform.path}/settings", headers=platform.officer() | headers)


async def put(platform: Platform, body: Any, *, match: str | None = None) -> httpx.Response:
    etag = match or (await settings(platform)).headers["ETag"]
    headers = platform.officer() | {"If-Match": etag}
    return await platform.client.put(f"{platform.path}/settings", json=body, headers=headers)


async def test_a_store_that_decided_nothing_sees_what_is_in_force(platform: Platform) -> None:
    async with platform.database.session(platform.store_id) as session:
        await session.execute(
            text("DELETE FROM privacy_settings WHERE store_id = :id"), {"id": platform.store_id}
        )
    response = await settings(platform)
    found = response.json()
    assert response.headers["ETag"] == '"0"'
    assert (found["passing"], found["enough"], found["desk"], found["branding"]) == ({}, {}, None, {})
    assert found["lifting_notice_in_force"] == 7 and found["lifting_notice_days"] is None
    assert found["in_force"].keys() == set(Right)
    erasure = found["in_force"]["erasure"]
    assert (erasure["passing"], erasure["chosen"]) == ("when-clear", [])
    assert "order-number" not in erasure["enough"] and "email-link" in erasure["enough"]


async def test_what_a_store_decides_is_in_force_at_once(platform: Platform) -> None:
    response = await put(platform, CHOSEN)
    assert (response.status_code, response.content) == (204, b"")
    again = await settings(platform)
    assert again.headers["ETag"] == response.headers["ETag"]
    found = again.json()
    assert {name: found[name] for name in CHOSEN} == CHOSEN | {"enough": {"erasure": ["document", "session"]}}
    assert found["in_force"]["erasure"] == {
        "passing": "at-once", "enough": ["document", "session"], "chosen": ["passing", "enough"],
    }  # fmt: skip
    assert found["lifting_notice_in_force"] == 14
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    assert await platform.state(person, request_id) == "deciding"
    # What is left out is as the law has it again.
    assert (await put(platform, {})).status_code == 204
    assert (await settings(platform)).json()["in_force"]["access"]["passing"] == "at-once"
    other = await platform.person()
    assert await platform.state(other, await platform.opened(other, "access")) == "running"


@pytest.mark.parametrize(
    "wrong",
    [
        {"passing": {"access": "perhaps"}},
        {"passing": {"magic": "officer"}},
        {"passing": {"consent-withdrawal": "officer"}},
        {"enough": {"erasure": []}},
        {"enough": {"erasure": ["a-smile"]}},
        {"lifting_notice_days": 0},
        {"lifting_notice_days": 29},
        {"lifting_notice_days": "soon"},
        {"desk": {"email": "nobody", "language": "en"}},
        {"desk": {"email": "canary@vitrine.example", "language": "xx"}},
        {"desk": {"email": "canary@vitrine.example"}},
        {"branding": {"de": {}}},
        {"branding": {"en": {"sender": "x" * 81}}},
        {"branding": {"en": {"sender": "a\nBcc: b@vitrine.example"}}},
        {"branding": {"en": {"opening": "x" * 301}}},
        {"branding": {"en": {"opening": "a\r\nb"}}},
        {"branding": {"en": {"signature": "x" * 501}}},
        {"branding": {"en": {"signature": "\0"}}},
        {"branding": {"en": {"motto": "x"}}},
        {"colour": "red"},
    ],
)
async def test_every_value_is_checked(platform: Platform, wrong: dict[str, Any]) -> None:
    before = (await settings(platform)).json()
    response = await put(platform, wrong)
    assert (response.status_code, response.json()["type"]) == (422, "/problems/invalid")
    assert "canary@" not in response.text
    assert (await settings(platform)).json() == before


async def test_who_read_older_settings_overwrites_nothing(platform: Platform) -> None:
    old = (await settings(platform)).headers["ETag"]
    assert (await put(platform, CHOSEN)).status_code == 204
    before = (await settings(platform)).json()
    assert (await put(platform, {}, match=old)).status_code == 412
    missing = await platform.client.put(f"{platform.path}/settings", json={}, headers=platform.officer())
    assert missing.status_code == 428
    assert (await settings(platform)).json() == before


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_only_the_stores_officers_settle(platform: Platform, method: str) -> None:
    person = await platform.person()
    path = f"{platform.path}/settings"
    body = {} if method == "PUT" else None

    async def status(headers: dict[str, str]) -> int:
        given = headers | {"If-Match": "*"}
        return (await platform.client.request(method, path, json=body, headers=given)).status_code

    assert await status({}) == 401
    assert await status(person.token()) == 403
    assert await status(platform.officer(role=Role.MANAGER)) == 403
    assert await status(platform.officer(store=str(uuid4()))) == 404
    assert await status(platform.of_platform()) == 404
    assert await status(platform.officer(role=Role.OWNER)) in {200, 204}


async def test_the_desks_address_is_sealed_told_of_cases_and_can_be_erased(
    platform: Platform, privacy_environment: Mapping[str, str]
) -> None:
    await french(platform)
    email = f"canary-{uuid4().hex[:12]}@vitrine.example"
    desk = {"email": email, "language": "fr"}
    assert (await put(platform, {"passing": {"erasure": "officer"}, "desk": desk})).status_code == 204
    assert (await settings(platform)).json()["desk"] == desk
    assert await places_of(email, privacy_environment) == []
    person, request_id = await deciding_on(platform)
    subject_id = await platform.work.vault.subject_id(platform.store_id, email)
    while await letters.write(platform.work):
        pass
    [(template, subject, body)] = await platform.waiting(subject_id)
    assert (template, subject) == ("decision-wanted", "Une demande attend votre décision")
    assert str(request_id) in body and "Chez Ada" in body and "l’effacement de vos données" in body
    assert person.email not in body and str(person.subject_id) not in body
    # The address is somebody's too: erased, it is gone from the settings.
    await platform.decides(passing={"erasure": "at-once"})
    owner = await platform.person()
    owner.email, owner.subject_id = email, subject_id
    erasure = await platform.opened(owner, "erasure")
    await platform.ask_keyring()
    await platform.answer_itself(erasure, Verb.ERASE)
    assert (await settings(platform)).json()["desk"] is None
    async with platform.database.session(platform.store_id) as session:
        left = await session.scalar(text("SELECT count(*) FROM privacy_desk"))
    assert left == 0
    # It can be named again.
    assert (await put(platform, {"desk": desk})).status_code == 204
    assert (await settings(platform)).json()["desk"] == desk


async def test_a_store_without_a_desk_loses_a_mail_and_no_case(platform: Platform) -> None:
    person, request_id = await deciding_on(platform)
    while await letters.write(platform.work):
        pass
    async with platform.database.session(platform.store_id) as session:
        left = await session.scalar(
            text("SELECT count(*) FROM notice WHERE request_id = :id AND reader = 'officer'"),
            {"id": request_id},
        )
    assert left == 0
    assert await platform.state(person, request_id) == "deciding"


async def test_mails_wear_the_stores_words_in_the_language_of_the_reader(platform: Platform) -> None:
    await french(platform)
    assert (await put(platform, CHOSEN | {"passing": {"erasure": "officer"}})).status_code == 204
    person, request_id = await deciding_on(platform)
    assert (await platform.do(request_id, "decision", {"approve": True})).status_code == 200
    [(_, _, body)] = await mails(platform, person)
    assert "Hello,\n\nThank you for writing.\n\n" in body and "Ada's shop\nParis" in body
    other, second = await deciding_on(platform, language="fr")
    assert (await platform.do(second, "decision", {"approve": True})).status_code == 200
    [(_, _, french_body)] = await mails(platform, other)
    assert "Thank you" not in french_body and "Chez Ada" in french_body
