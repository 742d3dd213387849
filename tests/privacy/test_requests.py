"""Requests over HTTP: who may ask for what, who sees what, and what is refused how."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text

from deploy.local.waiting import until
from libs.common.auth import Role
from libs.common.events.identity import StoreOpened
from libs.common.events.privacy import KeysDestroyed, Outcome, TaskIssued, Verb
from libs.common.http import encode_cursor
from libs.common.personal.tombstones import bury
from libs.common.personal.vocabulary import Purpose
from services.privacy.engine.decisions import locked
from services.privacy.models import Request
from tests.common.personal.shop import ShopContact
from tests.privacy.conftest import Person, Platform
from tests.privacy.keyring.conftest import RunningKeyring


async def test_an_erasure_destroys_keys_cleans_up_checks_and_ends(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    assert await platform.tasks(request_id, Verb.ERASE) == []
    await platform.ask_keyring()
    assert [one.subject_id for one in await platform.published(KeysDestroyed)] == [person.subject_id]
    assert len(await platform.tasks(request_id, Verb.ERASE)) == 1
    await platform.answer_itself(request_id, Verb.ERASE)
    assert await platform.state(person, request_id) == "running"
    await platform.deliver(platform.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"purchase": 2}))
    assert await platform.state(person, request_id) == "checking"
    await platform.ask_keyring()
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    assert await platform.state(person, request_id) == "checking"
    await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED, Outcome.DONE))
    detail = await platform.detail(person, request_id)
    assert detail["state"] == "completed"
    assert [step["state"] for step in detail["steps"]] == [
        "received", "verifying", "deciding", "running", "checking", "completed",
    ]  # fmt: skip
    assert {(part["participant"], part["task"], part["state"]) for part in detail["parts"]} == {
        ("keyring", "erase", "retained"), ("privacy", "erase", "retained"), ("test-shop", "erase", "done"),
        ("keyring", "verify-erased", "done"), ("privacy", "verify-erased", "done"),
        ("test-shop", "verify-erased", "done"),
    }  # fmt: skip


# --- Asking ----------------------------------------------------------------------------------------------


async def test_an_access_is_issued_at_once_and_shows_where_it_is(platform: Platform) -> None:
    person = await platform.person()
    response = await platform.ask(person, "access")
    assert response.status_code == 201
    asked = response.json()
    assert asked["state"] == "running" and asked["right"] == "access"
    assert response.headers["Location"] == f"{platform.path}/requests/{asked['id']}"
    [issued] = await platform.tasks(UUID(asked["id"]), Verb.EXPORT)
    assert (issued.subject_id, issued.generation, issued.participants) == (person.subject_id, 1, [])
    detail = await platform.detail(person, UUID(asked["id"]))
    assert {(part["participant"], part["state"]) for part in detail["parts"]} == {
        ("privacy", "waiting"), ("test-shop", "waiting"),
    }  # fmt: skip


async def test_asking_again_joins_the_open_request_and_a_key_replays_the_first_reply(
    platform: Platform,
) -> None:
    person = await platform.person()
    key = {"Idempotency-Key": str(uuid4())}
    first = await platform.ask(person, "erasure", headers=key)
    replayed = await platform.ask(person, "erasure", headers=key)
    joined = await platform.ask(person, "erasure", headers={"Idempotency-Key": str(uuid4())})
    assert [one.status_code for one in (first, replayed, joined)] == [201, 201, 200]
    assert first.json() == replayed.json() == joined.json()
    assert replayed.headers["Idempotency-Replayed"] == "true"
    async with platform.database.session(platform.store_id) as session:
        assert await session.scalar(text("SELECT count(*) FROM request")) == 1
        assert await session.scalar(text("SELECT count(*) FROM task")) == 3


async def test_fifty_at_once_are_one_request(platform: Platform) -> None:
    person = await platform.person()
    responses = await asyncio.gather(*(platform.ask(person, "access") for _ in range(50)))
    assert sorted({one.status_code for one in responses}) == [200, 201]
    assert len({one.json()["id"] for one in responses}) == 1
    assert len(await platform.published(TaskIssued)) == 1


async def test_who_asks_again_while_an_erasure_is_carried_out_hears_so(platform: Platform) -> None:
    """The erasure has the request's row and is about to bury the person: neither waits for the other for ever."""
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    async with platform.database.session(platform.store_id) as session:
        await locked(session, platform.store_id, request_id)
        asking = asyncio.create_task(platform.ask(person, "erasure"))
        await until(lambda: _waits(platform), 10, "nobody waits for the row")
        await bury(session, [(platform.store_id, person.subject_id, 1)])
    answer = await asking
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (409, "subject-erased")


async def _waits(platform: Platform) -> bool:
    """Whether a transaction of the service waits for another."""
    async with platform.database.platform_session() as session:
        waiting = text("""
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0""")
        return bool(await session.scalar(waiting))


async def test_the_address_must_be_the_accounts_own(platform: Platform) -> None:
    person = await platform.person()
    refused = await platform.ask(person, "access", email="somebody-else@vitrine.example")
    assert refused.status_code == 422
    assert refused.json()["type"] == "/problems/address-not-of-account"
    assert "somebody-else" not in refused.text
    accepted = await platform.ask(person, "access", email=person.email.upper())
    assert accepted.status_code == 201


async def test_what_is_being_erased_is_not_exported(platform: Platform) -> None:
    person = await platform.person()
    await platform.opened(person, "erasure")
    refused = await platform.ask(person, "access")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/erasure-under-way")


async def test_a_token_of_an_earlier_life_opens_nothing(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    await platform.ask_keyring()
    await platform.answer_itself(request_id, Verb.ERASE)
    await platform.deliver(platform.answer(request_id, Verb.ERASE))
    await platform.ask_keyring()
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED))
    refused = await platform.ask(person, "access")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/subject-erased")
    # They come back: a live command of another service begins their next life.
    contact = ShopContact(name="Canary", email=person.email)
    begun = await platform.keyring.vault("orders").seal(
        contact, store_id=platform.store_id, subject_id=person.subject_id, begin=True
    )
    assert begun.generation == 2
    assert (await platform.ask(person, "access")).status_code == 409
    again = replace(person, generation=2)
    assert (await platform.ask(again, "access")).status_code == 201
    mine = await platform.client.get(f"{platform.path}/requests", headers=again.token())
    assert [one["right"] for one in mine.json()["items"]] == ["access"], "an earlier life is visible"
    gone = await platform.client.get(f"{platform.path}/requests/{request_id}", headers=again.token())
    assert gone.status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {}, {"right": "portability"}, {"right": "access", "email": "nobody"}, {"right": None},
        {"right": "access", "email": "a@vitrine.example", "language": "tlh"},
        {"right": "access", "email": "a@vitrine.example", "extra": 1},
        {"right": "access", "email": "a" * 300 + "@vitrine.example"},
        {"right": "access", "email": "a\x00@vitrine.example"},
    ],
)  # fmt: skip
async def test_bad_input_is_refused_and_not_echoed(platform: Platform, body: dict[str, Any]) -> None:
    person = await platform.person()
    response = await platform.client.post(f"{platform.path}/requests", json=body, headers=person.token())
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert "vitrine.example" not in response.text


async def test_a_body_that_is_no_json_or_too_large_is_refused(platform: Platform) -> None:
    person = await platform.person()
    for content, status in ((b"{", 400), (b"x" * 10_000_000, 413)):
        response = await platform.client.post(
            f"{platform.path}/requests",
            content=content,
            headers=person.token() | {"Content-Type": "application/json"},
        )
        assert response.status_code == status


async def test_a_keyring_that_is_away_answers_503_and_nothing_is_opened(
    platform: Platform, own_keyring: RunningKeyring
) -> None:
    person = await platform.person()
    vault, platform.app.state.vault = platform.app.state.vault, own_keyring.vault("privacy")
    await own_keyring.stop()
    try:
        response = await platform.ask(person, "access")
    finally:
        platform.app.state.vault = vault
    assert response.status_code == 503 and "Retry-After" in response.headers
    async with platform.database.session(platform.store_id) as session:
        assert await session.scalar(text("SELECT count(*) FROM request")) == 0


# --- Who may see what ------------------------------------------------------------------------------------


async def test_nobody_sees_another_persons_request_and_officers_see_all(platform: Platform) -> None:
    one, other = await platform.person(), await platform.person()
    request_id = await platform.opened(one, "access")
    path = f"{platform.path}/requests/{request_id}"
    unknown = await platform.client.get(f"{platform.path}/requests/{uuid4()}", headers=one.token())

    async def status(headers: dict[str, str], at: str = path) -> int:
        return (await platform.client.get(at, headers=headers)).status_code

    assert await status(one.token()) == 200
    foreign = await platform.client.get(path, headers=other.token())
    assert (foreign.status_code, foreign.content) == (404, unknown.content)
    assert await status(one.token(role=Role.OWNER)) == 200
    assert await status(one.token(role=Role.PRIVACY_OFFICER)) == 200
    assert await status(one.token(role=Role.SUPPORT)) == 403
    assert await status(one.token(role=Role.MANAGER)) == 403
    assert await status({}) == 401
    assert await status({"Authorization": "Bearer nonsense"}) == 401
    assert await status(one.token(exp=1)) == 401


@pytest.mark.parametrize("role", [Role.CUSTOMER, Role.OWNER])
async def test_another_store_is_a_store_that_does_not_exist(platform: Platform, role: Role) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    elsewhere = f"/privacy/v1/stores/{uuid4()}"
    for path in (f"{elsewhere}/requests", f"{elsewhere}/requests/{request_id}"):
        response = await platform.client.get(path, headers=person.token(role=role))
        assert response.status_code == 404
    # An owner of another store, asking in their own for what is here.
    other = Person(uuid4(), person.subject_id, person.email)
    own = f"/privacy/v1/stores/{other.store_id}/requests"
    found = await platform.client.get(f"{own}/{request_id}", headers=other.token(role=role))
    assert found.status_code == 404
    listed = await platform.client.get(own, headers=other.token(role=role))
    assert listed.json() == {"items": [], "next": None}


async def test_staff_ask_nothing_for_themselves(platform: Platform) -> None:
    person = await platform.person()
    body = {"right": "access", "email": person.email}
    for role in (Role.OWNER, Role.MANAGER, Role.SUPPORT, Role.PRIVACY_OFFICER):
        response = await platform.client.post(
            f"{platform.path}/requests", json=body, headers=person.token(role=role)
        )
        assert response.status_code == 403
    anonymous = await platform.client.post(f"{platform.path}/requests", json=body)
    assert anonymous.status_code == 401


async def test_lists_go_on_where_they_stopped(platform: Platform) -> None:
    people = [await platform.person() for _ in range(5)]
    ids = [await platform.opened(person, "access") for person in people]
    officer = people[0].token(role=Role.PRIVACY_OFFICER)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await platform.client.get(f"{platform.path}/requests", params=query, headers=officer)).json()
        assert len(page["items"]) <= 2
        seen += [one["id"] for one in page["items"]]
        cursor = page["next"]
    assert seen == [str(id_) for id_ in reversed(ids)]
    mine = await platform.client.get(f"{platform.path}/requests", headers=people[3].token())
    assert [one["id"] for one in mine.json()["items"]] == [str(ids[3])]
    for wrong in ("nonsense", encode_cursor("yesterday", "nobody"), encode_cursor(1, 2)):
        response = await platform.client.get(
            f"{platform.path}/requests", params={"cursor": wrong}, headers=officer
        )
        assert response.status_code == 400


async def test_the_data_map_is_public_and_participants_are_for_staff(platform: Platform) -> None:
    person = await platform.person()
    unknown = await platform.client.get(f"{platform.path}/data-map")
    assert unknown.status_code == 404
    await platform.deliver(
        StoreOpened(
            store_id=platform.store_id, slug=f"s-{platform.store_id.hex}", name="Shop", country="FR",
            currency="EUR", language="fr", version=1,
        )
    )  # fmt: skip
    assert (await platform.client.get(f"{platform.path}/data-map")).status_code == 200
    path = "/privacy/v1/participants"
    assert (await platform.client.get(path)).status_code == 401
    assert (await platform.client.get(path, headers=person.token())).status_code == 403
    await platform.opened(person, "access")
    listed = (await platform.client.get(path, headers=person.token(role=Role.SUPPORT))).json()["items"]
    by_name = {one["name"]: one for one in listed}
    assert by_name["privacy"]["public_key"]["kty"] == "EC" and "d" not in by_name["privacy"]["public_key"]
    assert by_name["test-shop"]["waiting"] >= 1


async def test_the_language_is_the_stores_unless_the_person_names_one(platform: Platform) -> None:
    await platform.deliver(
        StoreOpened(
            store_id=platform.store_id, slug=f"s-{platform.store_id.hex}", name="Shop", country="FR",
            currency="EUR", language="fr", version=1,
        )
    )  # fmt: skip
    for language, expected in ((None, "fr"), ("en", "en")):
        person = await platform.person()
        response = await platform.ask(person, "access", language=language)
        async with platform.database.session(platform.store_id) as session:
            row = await session.get_one(Request, UUID(response.json()["id"]))
        assert row.contact is not None
        contact = await platform.work.vault.open(
            row.contact,
            store_id=platform.store_id,
            subject_id=person.subject_id,
            purpose=Purpose.RIGHTS_OF_THE_PERSON,
        )
        assert (contact.email, contact.language) == (person.email, expected)


async def test_nothing_of_the_person_is_in_the_clear_anywhere_in_the_database(
    platform: Platform, privacy_environment: Mapping[str, str]
) -> None:
    person = await platform.person()
    await platform.opened(person, "access")
    connection: Any = await asyncpg.connect(privacy_environment["PRIVACY_MIGRATION_DATABASE_URL"])
    try:
        await connection.execute("SET app.store = '*'")
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for table in tables:
            # Whole rows as text: bytes show as hexadecimal digits, so both forms are looked for.
            for needle in (person.email, person.email.encode().hex()):
                found = await connection.fetchval(
                    f'SELECT count(*) FROM "{table["tablename"]}" AS t WHERE t::text ILIKE $1', f"%{needle}%"
                )
                assert found == 0, table["tablename"]
    finally:
        await connection.close()
