"""Signing in, staying signed in, and being signed out."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from libs.common.auth import PLATFORM_STORE, Role
from services.identity import passwords
from services.identity.kinds import Credentials
from services.identity.models import Account, AccountSession
from tests.identity.conftest import PASSWORD, MakeWorld, Person, World, an_email

# --- Sign-in ---------------------------------------------------------------------------------------------


async def test_a_sign_in_gives_a_token_that_says_who(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    caller = await world.app.state.tokens.verify(person.access_token)
    assert (caller.store_id, caller.role, caller.generation) == (store_id, Role.CUSTOMER, 1)
    assert caller.subject_id == await world.parts.vault.subject_id(store_id, person.email)
    answer = await world.sign_in(store_id, person.email)
    assert answer.headers["cache-control"] == "no-store"
    assert {name: answer.json()[name] for name in ("token_type", "expires_in")} == {
        "token_type": "Bearer",
        "expires_in": 600,
    }


async def test_case_and_blanks_of_an_address_do_not_matter(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    assert (await world.sign_in(store_id, person.email.upper())).status_code == 200


async def test_every_refusal_is_the_same(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    unconfirmed = an_email()
    await world.sign_up(store_id, unconfirmed)
    answers = [
        await world.sign_in(store_id, an_email()),
        await world.sign_in(store_id, person.email, "another long passphrase"),
        await world.sign_in(store_id, unconfirmed),
        await world.sign_in(PLATFORM_STORE, person.email),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(answer.headers.items()) for answer in answers}) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"grant_type": "client_credentials"},
        {"grant_type": "password", "email": "a@vitrine.example"},
        {"grant_type": "password", "email": "a@vitrine.example", "password": "x" * 1001},
        {"grant_type": "refresh_token", "refresh_token": "short"},
        {"grant_type": "refresh_token", "refresh_token": "A" * 64, "act_at": "the shop"},
        [],
    ],
)
async def test_bad_token_requests_are_refused(world: World, store_id: UUID, body: object) -> None:
    answer = await world.http.post(f"/identity/v1/stores/{store_id}/tokens", json=body)
    assert answer.status_code == 422
    assert "a@vitrine" not in answer.text


async def test_attempts_are_limited_per_account_and_never_for_good(
    make_world: MakeWorld, store_id: UUID
) -> None:
    world = await make_world(address="203.0.113.21", sign_ins_per_account=3)
    person = await world.person(store_id)
    for email in (person.email, an_email()):
        wrong = [(await world.sign_in(store_id, email, "wrong")).status_code for _ in range(4)]
        assert wrong == [401, 401, 401, 429]
    refused = await world.sign_in(store_id, person.email)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 15 * 60
    world.clock.ahead = timedelta(minutes=15, seconds=1)
    assert (await world.sign_in(store_id, person.email)).status_code == 200


async def test_a_success_starts_the_count_anew(make_world: MakeWorld, store_id: UUID) -> None:
    world = await make_world(address="203.0.113.22", sign_ins_per_account=2)
    person = await world.person(store_id)
    for _ in range(3):
        assert (await world.sign_in(store_id, person.email, "wrong")).status_code == 401
        assert (await world.sign_in(store_id, person.email)).status_code == 200


async def test_attempts_are_limited_per_client_whoever_they_try(
    make_world: MakeWorld, store_id: UUID
) -> None:
    world = await make_world(address="2001:db8:77:1::1", sign_ins_per_address=3)
    neighbour = await make_world(address="2001:db8:77:1:ffff::2", sign_ins_per_address=3)
    elsewhere = await make_world(address="2001:db8:77:2::1", sign_ins_per_address=3)
    person = await world.person(store_id)
    await world.sign_in(store_id, person.email)  # a success of one's own clears nothing
    wrong = [(await world.sign_in(store_id, an_email(), "wrong")).status_code for _ in range(4)]
    assert wrong == [401, 401, 401, 429]
    assert (await neighbour.sign_in(store_id, person.email)).status_code == 429
    assert (await elsewhere.sign_in(store_id, person.email)).status_code == 200


async def test_many_sign_ins_at_once_never_wait_for_each_other_for_ever(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    answers = await asyncio.gather(
        *(world.sign_in(store_id, person.email, PASSWORD if n % 4 else "wrong") for n in range(8))
    )
    assert [answer.status_code for answer in answers] == [200 if n % 4 else 401 for n in range(8)]


async def test_an_outdated_hash_is_renewed_by_a_sign_in(
    world: World, make_world: MakeWorld, store_id: UUID
) -> None:
    person = await world.person(store_id)
    newer = await make_world(memory_kib=passwords.MEMORY_KIB)

    async def password_hash() -> str:
        caller = await newer.app.state.tokens.verify(person.access_token)
        async with newer.parts.database.session(store_id) as session:
            account = await session.get_one(Account, caller.account_id)
        opened = await newer.parts.vault.open(
            account.credentials,
            store_id=store_id,
            subject_id=account.subject_id,
            purpose=Credentials.purposes[0],
        )
        return opened.password_hash

    assert "m=1024," in await password_hash()
    assert (await newer.sign_in(store_id, person.email)).status_code == 200
    assert "m=19456,t=2,p=1" in await password_hash()
    assert (await newer.sign_in(store_id, person.email)).status_code == 200


# --- Refresh ---------------------------------------------------------------------------------------------


async def test_a_refresh_token_works_once(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    second = (await world.refresh(store_id, person.refresh_token)).json()
    third = await world.refresh(store_id, second["refresh_token"])
    assert third.status_code == 200
    before = await world.app.state.tokens.verify(person.access_token)
    after = await world.app.state.tokens.verify(third.json()["access_token"])
    assert (before.session_id, before.account_id) == (after.session_id, after.account_id)


async def test_a_token_that_comes_back_ends_the_session_for_both(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    second = (await world.refresh(store_id, person.refresh_token)).json()["refresh_token"]
    third = (await world.refresh(store_id, second)).json()["refresh_token"]
    assert (await world.refresh(store_id, person.refresh_token)).status_code == 401
    assert (await world.refresh(store_id, third)).status_code == 401


async def test_the_last_token_comes_back_too_late(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    second = (await world.refresh(store_id, person.refresh_token)).json()["refresh_token"]
    world.clock.ahead = timedelta(seconds=11)
    assert (await world.refresh(store_id, person.refresh_token)).status_code == 401
    assert (await world.refresh(store_id, second)).status_code == 401


async def test_of_racing_refreshes_one_wins_and_the_session_goes_on(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    answers = await asyncio.gather(*(world.refresh(store_id, person.refresh_token) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    [winner] = [answer.json() for answer in answers if answer.status_code == 200]
    loser = next(answer for answer in answers if answer.status_code == 409)
    assert loser.json()["type"] == "/problems/refresh-token-already-rotated"
    assert (await world.refresh(store_id, winner["refresh_token"])).status_code == 200


async def test_a_session_ends_after_thirty_days_however_it_is_used(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    token = person.refresh_token
    for days in (10, 20, 29):
        world.clock.ahead = timedelta(days=days)
        answer = await world.refresh(store_id, token)
        assert answer.status_code == 200
        token = answer.json()["refresh_token"]
    world.clock.ahead = timedelta(days=30, seconds=1)
    assert (await world.refresh(store_id, token)).status_code == 401


async def test_made_up_and_foreign_refresh_tokens_are_refused_alike(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    forged = person.refresh_token[:22] + ("A" * 42)
    answers = [
        await world.refresh(store_id, "A" * 64),
        await world.refresh(store_id, "!" * 64),
        await world.refresh(PLATFORM_STORE, person.refresh_token),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert (await world.refresh(store_id, forged)).status_code == 401


async def test_secrets_are_stored_as_hashes(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    caller = await world.app.state.tokens.verify(person.access_token)
    async with world.parts.database.session(store_id) as session:
        stored = await session.get_one(AccountSession, caller.session_id)
    assert len(stored.current_hash) == 32
    assert str(stored.family) not in person.access_token and stored.family != caller.session_id


# --- Merchants at their stores ---------------------------------------------------------------------------


async def test_a_merchant_acts_at_their_store(world: World, merchant: Person) -> None:
    store_id = await world.open_store(merchant)
    owner = await world.staff(merchant, store_id)
    caller = await world.app.state.tokens.verify(owner.access_token)
    assert (caller.store_id, caller.role, caller.subject_id) == (store_id, Role.OWNER, None)
    # The refresh token stays the platform's, and goes on.
    assert (await world.refresh(store_id, owner.refresh_token)).status_code == 401
    assert (await world.refresh(PLATFORM_STORE, owner.refresh_token)).status_code == 200


async def test_nobody_acts_at_a_store_of_others(world: World, merchant: Person, store_id: UUID) -> None:
    foreign = await world.refresh(PLATFORM_STORE, merchant.refresh_token, act_at=store_id)
    unknown = await world.refresh(PLATFORM_STORE, merchant.refresh_token, act_at=uuid4())
    assert (foreign.status_code, foreign.content) == (404, unknown.content)
    # A refused exchange does not use the token up.
    assert (await world.refresh(PLATFORM_STORE, merchant.refresh_token)).status_code == 200


# --- Sessions --------------------------------------------------------------------------------------------


async def test_people_see_and_end_their_sessions(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    for _ in range(4):
        await world.sign_in(store_id, person.email)
    sessions = f"/identity/v1/stores/{store_id}/sessions"
    seen: list[dict[str, object]] = []
    cursor = None
    for _ in range(3):
        page = (
            await world.http.get(
                sessions, headers=person.headers, params={"limit": 2} | ({"cursor": cursor} if cursor else {})
            )
        ).json()
        seen += page["items"]
        cursor = page["next"]
    assert cursor is None
    assert len({str(one["id"]) for one in seen}) == 5
    assert [one["current"] for one in seen] == [False] * 4 + [True]
    assert (await world.http.delete(f"{sessions}/{seen[0]['id']}", headers=person.headers)).status_code == 204
    assert (await world.http.delete(f"{sessions}/{seen[0]['id']}", headers=person.headers)).status_code == 404
    assert (await world.http.delete(f"{sessions}/current", headers=person.headers)).status_code == 204
    assert (await world.refresh(store_id, person.refresh_token)).status_code == 401
    left = (await world.http.get(sessions, headers=person.headers)).json()["items"]
    assert len(left) == 3


async def test_sessions_of_others_do_not_exist(world: World, store_id: UUID) -> None:
    ada, bob = await world.person(store_id), await world.person(store_id)
    sessions = f"/identity/v1/stores/{store_id}/sessions"
    [adas] = (await world.http.get(sessions, headers=ada.headers)).json()["items"]
    others = await world.http.delete(f"{sessions}/{adas['id']}", headers=bob.headers)
    unknown = await world.http.delete(f"{sessions}/{uuid4()}", headers=bob.headers)
    assert (others.status_code, others.content) == (404, unknown.content)
    for method, path in (
        ("GET", sessions),
        ("DELETE", f"{sessions}/current"),
        ("DELETE", f"{sessions}/{uuid4()}"),
    ):
        assert (await world.http.request(method, path)).status_code == 401
        elsewhere = path.replace(str(store_id), str(PLATFORM_STORE))
        foreign = await world.http.request(method, elsewhere, headers=ada.headers)
        assert (foreign.status_code, foreign.content) == (404, unknown.content)
    for cursor in ("nonsense", "WyJ4IiwieSJd"):
        bad = await world.http.get(sessions, headers=ada.headers, params={"cursor": cursor})
        assert (bad.status_code, bad.json()["type"]) == (400, "/problems/invalid-cursor")


async def test_expired_rows_are_forgotten(world: World, store_id: UUID) -> None:
    from services.identity.consumer import forget_expired  # noqa: PLC0415

    person = await world.person(store_id)
    caller = await world.app.state.tokens.verify(person.access_token)
    async with world.parts.database.session(store_id) as session:
        await session.execute(
            update(AccountSession)
            .where(AccountSession.id == caller.session_id)
            .values(expires_at=AccountSession.started_at - timedelta(days=1))
        )

    class Here:
        database = world.parts.database

    await forget_expired(Here)  # type: ignore[arg-type]
    async with world.parts.database.session(store_id) as session:
        found = await session.scalar(select(AccountSession).where(AccountSession.id == caller.session_id))
    assert found is None
