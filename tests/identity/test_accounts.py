"""Sign-up tells nobody anything, only the owner of an e-mail confirms, and a profile is one's own."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text

from libs.common import pace
from libs.common.auth import PLATFORM_STORE
from libs.common.mail import render
from libs.common.outbox import OutboxRow
from services.identity.models import Account, SignUp
from tests.identity.conftest import PASSWORD, MakeWorld, World, an_email

NOWHERE = UUID("00000000-0000-4000-8000-00000000dead")


async def test_an_account_begins_with_a_mail(world: World, store_id: UUID) -> None:
    email = an_email()
    answer = await world.sign_up(store_id, email, name="Ada", language="fr")
    assert answer.status_code == 202
    assert (await world.sign_in(store_id, email)).status_code == 401
    [letter] = await world.letters(store_id, email)
    assert (letter.to, letter.template, letter.language) == (email, "confirm-account", "fr")
    assert letter.values["link"].startswith("http://127.0.0.1:8000/identity/confirm?language=fr#store=")
    assert (await world.confirm(store_id, await world.token(store_id, email))).json() == {"status": "active"}
    assert (await world.sign_in(store_id, email)).status_code == 200


async def test_a_confirmation_tells_the_platform_and_happens_once(world: World, store_id: UUID) -> None:
    email = an_email()
    await world.sign_up(store_id, email)
    token = await world.token(store_id, email)
    answers = await asyncio.gather(*(world.confirm(store_id, token) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    subject_id = await world.parts.vault.subject_id(store_id, email)
    async with world.parts.database.session(store_id) as session:
        accounts = (await session.scalars(select(Account).where(Account.subject_id == subject_id))).all()
        events = (
            await session.scalars(
                select(OutboxRow).where(
                    OutboxRow.topic == "identity.accounts", OutboxRow.key == f"{store_id}:{accounts[0].id}"
                )
            )
        ).all()
    assert len(accounts) == len(events) == 1
    assert str(subject_id).encode() in events[0].payload
    assert email.encode() not in events[0].payload


async def test_a_known_address_gets_the_same_answer_and_another_mail(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    known = await world.sign_up(store_id, person.email, "another long passphrase")
    unknown = await world.sign_up(store_id, an_email())
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    assert (await world.letters(store_id, person.email))[-1].template == "account-exists"
    assert (await world.sign_in(store_id, person.email, "another long passphrase")).status_code == 401
    assert (await world.sign_in(store_id, person.email)).status_code == 200


async def test_the_password_of_an_earlier_stranger_dies(world: World, store_id: UUID) -> None:
    email = an_email()
    await world.sign_up(store_id, email, "the stranger's password")
    strangers = await world.token(store_id, email)
    await world.sign_up(store_id, email, "the owner's password")
    owners = await world.token(store_id, email)
    assert (await world.confirm(store_id, strangers)).status_code == 404
    assert (await world.confirm(store_id, owners)).status_code == 200
    assert (await world.sign_in(store_id, email, "the stranger's password")).status_code == 401
    assert (await world.sign_in(store_id, email, "the owner's password")).status_code == 200


async def test_a_link_of_a_sign_up_that_came_too_late_changes_no_account(
    world: World, store_id: UUID
) -> None:
    """A sign-up that raced the confirmation of another leaves a link; it must not change the password."""
    person = await world.person(store_id)
    token = "a" * 43
    async with world.parts.database.session(store_id) as session:
        account = (
            await session.scalars(select(Account).order_by(Account.confirmed_at.desc()).limit(1))
        ).one()
        await session.execute(
            text(
                "UPDATE sign_up SET token_hash = sha256(:token), used_at = NULL, profile = :profile, "
                "credentials = :credentials WHERE email_index = :index"
            ),
            {
                "token": token.encode(),
                "profile": account.profile.payload,
                "credentials": account.credentials.payload,
                "index": account.email_index,
            },
        )
    assert (await world.confirm(store_id, token)).status_code == 404
    assert (await world.sign_in(store_id, person.email)).status_code == 200


@pytest.mark.parametrize("token", ["x" * 43, "-" * 43])
async def test_an_unknown_link_is_not_valid(world: World, store_id: UUID, token: str) -> None:
    answer = await world.confirm(store_id, token)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/link-not-valid")


async def test_a_link_of_another_store_and_an_old_one_look_like_an_unknown_one(
    world: World, store_id: UUID
) -> None:
    email = an_email()
    await world.sign_up(store_id, email)
    token = await world.token(store_id, email)
    elsewhere = await world.confirm(PLATFORM_STORE, token)
    world.clock.ahead = timedelta(hours=25)
    late = await world.confirm(store_id, token)
    unknown = await world.confirm(store_id, "x" * 43)
    assert late.status_code == 404
    assert elsewhere.content == late.content == unknown.content


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("seven77", "too-short"),
        ("x" * 100 + "y" * 101, "too-long"),
        ("Password1", "common"),
        ("zzzzzzzzzzzz", "common"),
        ("someone-long@vitrine.example", "personal"),
        ("someone-long", "personal"),
    ],
)
async def test_weak_passwords_are_refused_with_a_reason(
    world: World, store_id: UUID, password: str, reason: str
) -> None:
    answer = await world.sign_up(store_id, "someone-long@vitrine.example", password)
    assert (answer.status_code, answer.json()["type"], answer.json()["reason"]) == (
        422,
        "/problems/weak-password",
        reason,
    )
    assert password not in answer.text


async def test_a_long_password_in_any_script_works_however_it_is_typed(world: World, store_id: UUID) -> None:
    email = an_email()
    composed = "Ébène, ﬁn d'été, " * 5
    await world.sign_up(store_id, email, composed)
    await world.confirm(store_id, await world.token(store_id, email))
    decomposed = composed.replace("é", "e\u0301").replace("É", "E\u0301").replace("ﬁ", "fi")
    assert (await world.sign_in(store_id, email, decomposed)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "nobody", "password": PASSWORD},
        {"email": "nul\x00@vitrine.example", "password": PASSWORD},
        {"email": "someone@vitrine.example", "password": 12345678},
        {"email": "someone@vitrine.example", "password": PASSWORD, "name": "nul\x00"},
        {"email": "someone@vitrine.example", "password": PASSWORD, "name": "n" * 201},
        {"email": "someone@vitrine.example", "password": PASSWORD, "language": "tlh"},
        {"email": "someone@vitrine.example", "password": PASSWORD, "role": "owner"},
    ],
)
async def test_bad_sign_ups_are_refused_and_not_repeated(
    world: World, store_id: UUID, body: dict[str, object]
) -> None:
    answer = await world.http.post(f"/identity/v1/stores/{store_id}/accounts", json=body)
    assert answer.status_code == 422
    assert "someone@" not in answer.text and PASSWORD not in answer.text


async def test_an_unknown_store_has_no_accounts(world: World) -> None:
    answers = [
        await world.sign_up(NOWHERE, an_email()),
        await world.sign_in(NOWHERE, an_email()),
        await world.http.get(f"/identity/v1/stores/{NOWHERE}"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1


async def test_one_address_gets_only_so_many_mails(world: World, store_id: UUID) -> None:
    email = an_email()
    answers = [await world.sign_up(store_id, email) for _ in range(world.settings.mails_per_person + 2)]
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
    assert len(await world.letters(store_id, email)) == world.settings.mails_per_person
    world.clock.ahead = timedelta(minutes=61)
    await world.sign_up(store_id, email)
    assert len(await world.letters(store_id, email)) == world.settings.mails_per_person + 1


async def test_one_client_signs_up_only_so_many_people(make_world: MakeWorld, store_id: UUID) -> None:
    world = await make_world(address="2001:db8:1:2::7", sign_ups_per_address=2)
    statuses = [(await world.sign_up(store_id, an_email())).status_code for _ in range(3)]
    assert statuses == [202, 202, 429]
    world.clock.ahead = timedelta(minutes=61)
    assert (await world.sign_up(store_id, an_email())).status_code == 202


async def test_nothing_personal_is_stored_in_the_clear(world: World, store_id: UUID) -> None:
    email, name = an_email(), f"Name {uuid4().hex}"
    await world.sign_up(store_id, email, name=name)
    await world.confirm(store_id, await world.token(store_id, email))
    await world.sign_in(store_id, email)
    for table in ("account", "sign_up", "account_session", "attempts", "outbox", "waiting_letter"):
        async with world.parts.database.session(store_id) as session:
            rows = str((await session.execute(text(f"SELECT to_jsonb(t)::text FROM {table} t"))).all())
        for secret in (email, name, "203.0.113.7", "$argon2id"):
            assert secret not in rows
            assert secret.encode().hex() not in rows


async def test_known_and_unknown_are_answered_at_the_same_moments(
    world: World, store_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the work took, the answer leaves at a multiple of the step after the request came."""
    known, waits = (await world.person(store_id)).email, list[float]()
    moments = iter([0.0, 0.12, 0.0, 0.34])

    async def waited(seconds: float) -> None:
        waits.append(round(seconds, 6))

    monkeypatch.setattr(pace, "sleep", waited)
    await pace.until_step(pace.monotonic() - 0.01, 0.05)
    assert 0.03 < waits.pop() <= 0.04
    for attempt in (
        world.sign_up(store_id, known),
        world.sign_up(store_id, an_email()),
        world.sign_in(store_id, known, "wrong"),
        world.sign_in(store_id, an_email(), "wrong"),
    ):
        assert (await attempt).status_code in {202, 401}
        assert 0 <= waits.pop() <= world.settings.answer_step
        assert not waits
    assert (await world.sign_in(store_id, known)).status_code == 200
    assert not waits  # nobody who is let in waits
    monkeypatch.setattr(pace, "monotonic", lambda: next(moments))
    for expected in (0.13, 0.16):
        with pytest.raises(ValueError, match="nothing"):
            async with pace.paced(0.25):
                raise ValueError("nothing")
        assert waits.pop() == expected


# --- Profile ---------------------------------------------------------------------------------------------

ADDRESS = {"line1": "1 rue de la Paix", "postcode": "75002", "city": "Paris", "country": "FR"}


async def test_people_manage_their_own_profile(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    me = f"/identity/v1/stores/{store_id}/me"
    read = await world.http.get(me, headers=person.headers)
    assert (read.status_code, read.json()["email"], read.json()["name"]) == (200, person.email, None)
    changed = await world.http.patch(
        me,
        json={"name": "Ada", "addresses": [ADDRESS]},
        headers=person.headers | {"If-Match": read.headers["etag"]},
    )
    assert (changed.status_code, changed.json()["name"]) == (200, "Ada")
    again = await world.http.get(me, headers=person.headers)
    assert again.json() == changed.json()
    assert again.json()["addresses"][0]["city"] == "Paris"
    assert again.headers["etag"] == changed.headers["etag"] != read.headers["etag"]
    removed = await world.http.patch(
        me, json={"name": None}, headers=person.headers | {"If-Match": again.headers["etag"]}
    )
    assert (removed.json()["name"], len(removed.json()["addresses"])) == (None, 1)


async def test_a_change_needs_what_was_read(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    me = f"/identity/v1/stores/{store_id}/me"
    etag = (await world.http.get(me, headers=person.headers)).headers["etag"]
    assert (await world.http.patch(me, json={}, headers=person.headers)).status_code == 428
    answers = await asyncio.gather(
        *(
            world.http.patch(me, json={"name": f"Name {n}"}, headers=person.headers | {"If-Match": etag})
            for n in range(5)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]


@pytest.mark.parametrize(
    "body",
    [
        {"language": None},
        {"language": "tlh"},
        {"addresses": [ADDRESS] * 21},
        {"addresses": None},
        {"addresses": [{"line1": "x"}]},
        {"email": "other@vitrine.example"},
        {"name": ""},
        [],
    ],
)
async def test_bad_changes_are_refused(world: World, store_id: UUID, body: object) -> None:
    person = await world.person(store_id)
    answer = await world.http.patch(
        f"/identity/v1/stores/{store_id}/me", json=body, headers=person.headers | {"If-Match": '"1"'}
    )
    assert answer.status_code == 422


async def test_a_profile_is_only_its_owners(world: World, store_id: UUID) -> None:
    merchant = await world.person(PLATFORM_STORE)
    foreign = await world.open_store(merchant)
    owner = await world.staff(merchant, foreign)
    me = f"/identity/v1/stores/{store_id}/me"
    nowhere = await world.http.get(f"/identity/v1/stores/{NOWHERE}/me", headers=merchant.headers)
    for method in ("GET", "PATCH"):
        body = {} if method == "PATCH" else None
        assert (await world.http.request(method, me, json=body)).status_code == 401
        of_another = await world.http.request(method, me, json=body, headers=merchant.headers)
        assert (of_another.status_code, of_another.content) == (404, nowhere.content)
        staff = await world.http.request(
            method, f"/identity/v1/stores/{foreign}/me", json=body, headers=owner.headers
        )
        assert staff.status_code == 403


# --- Page and mails --------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "fr"])
async def test_the_page_behind_the_link_confirms_nothing_by_itself(
    world: World, store_id: UUID, language: str
) -> None:
    email = an_email()
    await world.sign_up(store_id, email)
    page = await world.http.get(f"/identity/confirm?language={language}")
    assert page.status_code == 200
    assert f'lang="{language}"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    async with world.parts.database.session(store_id) as session:
        subject_id = await world.parts.vault.subject_id(store_id, email)
        waiting = await session.scalar(
            select(func.count()).where(SignUp.subject_id == subject_id, SignUp.used_at.is_(None))
        )
    assert waiting == 1


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("template", ["confirm-account", "account-exists"])
def test_mails_name_the_store_and_carry_the_link(template: str, language: str) -> None:
    subject, body = render(
        "identity", template, language, {"store": "Chez A & B", "link": "https://x/#token=1"}
    )
    assert "Chez A & B" in subject
    assert ("https://x/#token=1" in body) == (template == "confirm-account")
