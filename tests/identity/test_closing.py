"""A closed account is deactivated at once, comes back with a sign-in, and ends for good when nobody came."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from libs.common.auth import PLATFORM_STORE, Role
from libs.common.events.identity import AccountEnded
from libs.common.mail import render
from libs.common.personal.keys import Erasure
from libs.common.personal.vocabulary import Purpose
from libs.common.worker import Work
from services.identity import endings
from services.identity.domain import Returning, end_of_grace, judge_return, last_day, reminder
from services.identity.service import closing
from tests.identity.conftest import PASSWORD, Person, World, an_email
from tests.identity.test_on_hold import lift, restrict
from tests.privacy.keyring.conftest import RunningKeyring

A_DAY = timedelta(days=1)


def work_of(world: World) -> Work:
    parts = world.parts
    return Work("identity", world.settings, parts.database, None, parts.vault, None, world.clock)  # type: ignore[arg-type]


async def close(world: World, person: Person, password: str = PASSWORD) -> Any:
    path = f"/identity/v1/stores/{person.store_id}/me/closing"
    return await world.http.post(path, json={"password": password}, headers=person.headers)


async def closed(world: World, store_id: UUID, **more: Any) -> Person:
    person = await world.person(store_id, **more)
    answer = await close(world, person)
    assert answer.status_code == 200, answer.text
    return person


async def run(world: World) -> None:
    await endings.remind_accounts(work_of(world))
    await endings.end_accounts(work_of(world))


async def templates(world: World, person: Person) -> list[str]:
    return [letter.template for letter in await world.letters(person.store_id, person.email)]


async def ends_of(world: World, person: Person) -> Sequence[AccountEnded]:
    """What was said of the person's end."""
    subject_id = await world.parts.vault.subject_id(person.store_id, person.email)
    async with world.parts.database.session(person.store_id) as session:
        rows = await session.scalars(
            text(
                "SELECT payload FROM outbox WHERE headers ->> 'ce_type' = :type AND store_id = :store ORDER BY id"
            ),
            {"type": AccountEnded.type, "store": person.store_id},
        )
        events = [AccountEnded.model_validate_json(row) for row in rows]
    return [event for event in events if event.subject_id == subject_id]


async def clocks_of(world: World, person: Person) -> list[tuple[str, str]]:
    """What was said of the account's clock: its type, and from when or since when."""
    async with world.parts.database.session(person.store_id) as session:
        rows = await session.scalars(
            text("SELECT payload FROM outbox WHERE headers ->> 'ce_type' LIKE '%.clock-%' ORDER BY id")
        )
        events = [orjson.loads(row) for row in rows]
    subject_id = str(await world.parts.vault.subject_id(person.store_id, person.email))
    return [
        ("started", event["started_at"]) if "started_at" in event else ("stopped", event["stopped_at"])
        for event in events
        if (event["subject_id"], event["clock"]) == (subject_id, "account-closed")
    ]


async def grace(world: World, store_id: UUID, days: int) -> None:
    async with world.parts.database.session(store_id) as session:
        await closing.set_grace(session, store_id=store_id, grace_days=days, if_match="*")


@pytest.fixture
async def shop(world: World, merchant: Person) -> UUID:
    """A store of its own, where a test sets something."""
    return await world.open_store(merchant)


# --- Closing ---------------------------------------------------------------------------------------------


async def test_a_closed_account_is_deactivated_at_once(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    answer = await close(world, person)
    assert answer.status_code == 200
    until = datetime.fromisoformat(answer.json()["ends_at"])
    assert (
        timedelta(days=90) <= until - datetime.fromisoformat(answer.json()["closed_at"]) < timedelta(days=91)
    )
    assert (await world.refresh(store_id, person.refresh_token)).status_code == 401
    me = f"/identity/v1/stores/{store_id}/me"
    for refused in (
        await world.http.get(me, headers=person.headers),
        await world.http.patch(me, json={"name": "A"}, headers=person.headers | {"If-Match": "*"}),
        await close(world, person),
    ):
        assert refused.status_code == 403
        assert refused.json()["type"] == "/problems/account-closed"
        assert refused.json()["until"] == until.isoformat()


async def test_the_mail_says_until_when_and_how_to_come_back(world: World, store_id: UUID) -> None:
    for language, words in (("en", "Sign in with your"), ("fr", "Connectez-vous avec votre")):
        email = an_email()
        await world.sign_up(store_id, email, language=language)
        await world.confirm(store_id, await world.token(store_id, email))
        tokens = (await world.sign_in(store_id, email)).json()
        person = Person(store_id, email, tokens["access_token"], tokens["refresh_token"])
        assert (await close(world, person)).status_code == 200
        letter = (await world.letters(store_id, email))[-1]
        assert (letter.template, letter.language, letter.to) == ("account-closed", language, email)
        _, body = render("identity", letter.template, letter.language, letter.values)
        assert words in body and letter.values["until"] in body


async def test_another_password_closes_nothing_and_is_counted(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    for _ in range(world.settings.sign_ins_per_account):
        answer = await close(world, person, "another password")
        assert answer.status_code == 403
        assert answer.json()["type"] == "/problems/password-wrong"
    assert (await close(world, person)).status_code == 429
    assert (await world.refresh(store_id, person.refresh_token)).status_code == 200
    assert "account-closed" not in await templates(world, person)


async def test_who_may_close_an_account(world: World, store_id: UUID, shop: UUID) -> None:
    person = await world.person(store_id)
    path = f"/identity/v1/stores/{store_id}/me/closing"
    body = {"password": PASSWORD}
    assert (await world.http.post(path, json=body)).status_code == 401
    elsewhere = path.replace(str(store_id), str(shop))
    assert (await world.http.post(elsewhere, json=body, headers=person.headers)).status_code == 404
    assert (await world.http.post(path, json={}, headers=person.headers)).status_code == 422


async def test_two_closings_at_once_are_one(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    answers = await asyncio.gather(*(close(world, person) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 403, 403, 403]
    assert (await templates(world, person)).count("account-closed") == 1


# --- Coming back -----------------------------------------------------------------------------------------


async def test_a_sign_in_brings_everything_back(world: World, store_id: UUID) -> None:
    person = await closed(world, store_id)
    world.clock.ahead = timedelta(days=80)
    assert (await world.sign_in(store_id, person.email)).status_code == 200
    world.clock.ahead = timedelta()
    answer = await world.sign_in(store_id, person.email)
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    me = await world.http.get(f"/identity/v1/stores/{store_id}/me", headers=headers)
    assert me.json()["email"] == person.email
    assert (await templates(world, person))[-1] == "account-reopened"
    world.clock.ahead = timedelta(days=400)
    await run(world)
    assert await ends_of(world, person) == []
    assert (await world.sign_in(store_id, person.email)).status_code == 200


async def test_another_password_brings_nothing_back(world: World, store_id: UUID) -> None:
    person = await closed(world, store_id)
    assert (await world.sign_in(store_id, person.email, "another password")).status_code == 401
    assert "account-reopened" not in await templates(world, person)


async def test_a_sign_up_does_not_reveal_or_change_a_closed_account(world: World, store_id: UUID) -> None:
    person = await closed(world, store_id)
    assert (await world.sign_up(store_id, person.email, "another password")).status_code == 202
    assert (await templates(world, person))[-1] == "account-exists"
    assert (await world.sign_in(store_id, person.email, "another password")).status_code == 401


async def test_the_period_of_an_account_counts_from_the_day_it_cannot_come_back_any_more(
    world: World, shop: UUID
) -> None:
    await grace(world, shop, 365)
    person = await world.person(shop)
    until = (await close(world, person)).json()["ends_at"]
    [(what, at)] = await clocks_of(world, person)
    assert what == "started" and datetime.fromisoformat(at) == datetime.fromisoformat(until)
    assert (await world.sign_in(shop, person.email)).status_code == 200
    assert [what for what, _ in await clocks_of(world, person)] == ["started", "stopped"]


# --- Reminding and ending --------------------------------------------------------------------------------


async def test_a_week_before_the_end_there_is_one_more_mail(world: World, store_id: UUID) -> None:
    person = await closed(world, store_id)
    world.clock.ahead = timedelta(days=82)
    await run(world)
    assert "account-ends-soon" not in await templates(world, person)
    world.clock.ahead = timedelta(days=84, hours=1)
    await run(world)
    await run(world)
    assert (await templates(world, person)).count("account-ends-soon") == 1


async def test_the_end_is_said_once_with_a_box_for_the_answer(
    world: World, store_id: UUID, keyring: RunningKeyring
) -> None:
    person = await closed(world, store_id)
    world.clock.ahead = timedelta(days=89)
    await run(world)
    assert await ends_of(world, person) == []
    world.clock.ahead = timedelta(days=91)
    await run(world)
    await run(world)
    [ended] = await ends_of(world, person)
    contact = await keyring.vault("privacy").open(
        ended.contact,
        store_id=store_id,
        subject_id=ended.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )
    assert (contact.email, contact.language) == (person.email, "en")
    assert (await world.sign_in(store_id, person.email)).status_code == 401


async def test_after_the_day_that_was_named_nobody_comes_back_even_before_anybody_looked(
    world: World, store_id: UUID
) -> None:
    person = await closed(world, store_id)
    world.clock.ahead = timedelta(days=91)
    assert (await world.sign_in(store_id, person.email)).status_code == 401
    await run(world)
    assert len(await ends_of(world, person)) == 1


async def test_of_a_sign_in_at_the_last_second_and_the_end_one_is_first(
    world: World, store_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign-in began in time, and the end is looked for a second later, at the same moment."""
    for _ in range(4):
        world.clock.ahead = timedelta()
        person = await closed(world, store_id)
        async with world.parts.database.session(store_id) as session:
            soon = text("UPDATE account SET ends_at = now() WHERE subject_id = :subject")
            subject_id = await world.parts.vault.subject_id(store_id, person.email)
            await session.execute(soon, {"subject": subject_id})
        world.clock.ahead = timedelta(seconds=-30)
        late = Work(
            "identity", world.settings, world.parts.database, None, world.parts.vault, None,  # type: ignore[arg-type]
            lambda: datetime.now(UTC) + timedelta(seconds=1),
        )  # fmt: skip
        answer, _ = await asyncio.gather(world.sign_in(store_id, person.email), endings.end_accounts(late))
        came_back, ended = answer.status_code == 200, bool(await ends_of(world, person))
        assert came_back is not ended, (answer.status_code, ended)


async def test_who_is_on_hold_does_not_end(world: World, store_id: UUID, keyring: RunningKeyring) -> None:
    person = await closed(world, store_id)
    subject_id = await restrict(world, keyring, store_id, person.email)
    world.clock.ahead = timedelta(days=91)
    await run(world)
    assert await ends_of(world, person) == []
    await lift(world, keyring, store_id, subject_id)
    await run(world)
    assert len(await ends_of(world, person)) == 1


async def test_an_erasure_that_was_asked_for_is_first(
    world: World, store_id: UUID, keyring: RunningKeyring
) -> None:
    person, other = await closed(world, store_id), await closed(world, store_id)
    subject_id = await world.parts.vault.subject_id(store_id, person.email)
    await keyring.client("privacy").destroy([Erasure(store_id, subject_id, 1, subject_id)])
    world.parts.vault.drop(store_id)
    world.clock.ahead = timedelta(days=91)
    await run(world)
    assert await ends_of(world, person) == []
    # And it keeps nobody else from their end.
    assert len(await ends_of(world, other)) == 1


async def test_a_keyring_that_is_away_delays_the_end(
    world: World, store_id: UUID, own_keyring: RunningKeyring
) -> None:
    person = await closed(world, store_id)
    world.clock.ahead = timedelta(days=91)
    work = work_of(world)
    await own_keyring.stop()
    away = Work(
        work.service, work.settings, work.database, work.broker, own_keyring.vault("identity"), work.http,
        world.clock,
    )  # fmt: skip
    with pytest.raises(Exception, match="not possible right now"):
        await endings.end_accounts(away)
    assert await ends_of(world, person) == []
    await run(world)
    assert len(await ends_of(world, person)) == 1


# --- How long there is for it ----------------------------------------------------------------------------


async def test_a_store_says_how_long_and_keeps_its_promise(
    world: World, shop: UUID, merchant: Person
) -> None:
    owner = await world.staff(merchant, shop)
    path = f"/identity/v1/stores/{shop}/settings"
    shown = await world.http.get(path, headers=owner.headers)
    assert (shown.json(), shown.headers["etag"]) == ({"grace_days": 90}, '"0"')
    before = await closed(world, shop)
    headers = owner.headers | {"If-Match": '"0"'}
    assert (await world.http.put(path, json={"grace_days": 30}, headers=owner.headers)).status_code == 428
    changed = await world.http.put(path, json={"grace_days": 30}, headers=headers)
    assert (changed.status_code, changed.headers["etag"]) == (204, '"1"')
    assert (await world.http.put(path, json={"grace_days": 30}, headers=headers)).status_code == 412
    after = await closed(world, shop)
    world.clock.ahead = timedelta(days=32)
    await run(world)
    assert len(await ends_of(world, after)) == 1
    assert await ends_of(world, before) == []


async def test_without_grace_an_account_ends_at_once(world: World, shop: UUID) -> None:
    await grace(world, shop, 0)
    person = await closed(world, shop)
    assert (await world.sign_in(shop, person.email)).status_code == 401
    letter = (await world.letters(shop, person.email))[-1]
    _, body = render("identity", letter.template, letter.language, letter.values)
    assert "cannot be brought back" in body
    await run(world)
    assert len(await ends_of(world, person)) == 1


async def test_who_may_decide_how_long(world: World, shop: UUID, merchant: Person) -> None:
    owner = await world.staff(merchant, shop)
    path = f"/identity/v1/stores/{shop}/settings"
    body = {"grace_days": 30}
    assert (await world.http.put(path, json=body)).status_code == 401
    customer = await world.person(shop)
    for headers in (customer.headers, merchant.headers):
        answer = await world.http.put(path, json=body, headers=headers | {"If-Match": "*"})
        assert answer.status_code in {403, 404}
    for days in (-1, 366, "many", None):
        answer = await world.http.put(
            path, json={"grace_days": days}, headers=owner.headers | {"If-Match": "*"}
        )
        assert answer.status_code == 422


# --- Merchants -------------------------------------------------------------------------------------------


async def test_the_only_owner_of_an_open_store_closes_it_first(
    world: World, shop: UUID, merchant: Person
) -> None:
    answer = await close(world, merchant)
    assert answer.status_code == 409
    assert answer.json()["type"] == "/problems/owns-an-open-store"
    assert answer.json()["stores"] == [str(shop)]
    owner = await world.staff(merchant, shop)
    name = {"name": "Papeterie"}
    path = f"/identity/v1/stores/{shop}/closing"
    assert (await world.http.post(path, json=name, headers=owner.headers)).status_code == 200
    assert (await close(world, merchant)).status_code == 200
    # And whoever has closed their account opens no store again, and none anew.
    assert (await world.http.delete(path, headers=owner.headers)).status_code == 403
    facts = {"name": "P", "slug": "a-shop-too-many", "country": "FR", "currency": "EUR"}
    opened = await world.http.post("/identity/v1/stores", json=facts, headers=merchant.headers)
    assert opened.status_code == 403


async def test_one_of_two_owners_may_go(world: World, shop: UUID, merchant: Person) -> None:
    other = await world.person(PLATFORM_STORE)
    subject_id = await world.parts.vault.subject_id(PLATFORM_STORE, other.email)
    async with world.parts.database.platform_session() as session:
        await session.execute(
            text("""
                INSERT INTO membership (store_id, account_id, role)
                SELECT :store, id, :role FROM account WHERE subject_id = :subject
            """),
            {"store": shop, "role": Role.OWNER, "subject": subject_id},
        )
    assert (await close(world, other)).status_code == 200
    assert (await close(world, merchant)).status_code == 409


async def test_closing_an_account_races_opening_a_store(world: World) -> None:
    for _ in range(3):
        merchant = await world.person(PLATFORM_STORE)
        facts = {"name": "P", "country": "FR", "currency": "EUR", "slug": f"race-{merchant.email[7:19]}"}
        answer, opened = await asyncio.gather(
            close(world, merchant),
            world.http.post("/identity/v1/stores", json=facts, headers=merchant.headers),
        )
        assert (answer.status_code, opened.status_code) in {(200, 403), (409, 201)}


# --- Histories -------------------------------------------------------------------------------------------


class Remembered:
    """What a person may expect of their account, and nothing else: a plain model."""

    def __init__(self) -> None:
        self.closed: datetime | None = None
        self.ended = False

    def signs_in(self, now: datetime, right: bool) -> int:
        if not right or self.ended:
            return 401
        if self.closed is not None:
            if now >= end_of_grace(self.closed, 90):
                return 401
            self.closed = None
        return 200

    def looked_at(self, now: datetime) -> None:
        if self.closed is not None and now >= end_of_grace(self.closed, 90):
            self.ended = True


@pytest.mark.parametrize("seed", range(6))
async def test_any_history_of_an_account_is_as_a_person_remembers_it(
    world: World, store_id: UUID, seed: int
) -> None:
    chance, person, remembered = Random(seed), await world.person(store_id), Remembered()
    days = 0
    for _ in range(10):
        what = chance.choice(["close", "sign in", "sign in wrongly", "days pass", "look", "look"])
        # Tokens are signed by a key of today: whoever closes signs in today.
        if what == "close" and remembered.closed is None and not remembered.ended and days == 0:
            tokens = (await world.sign_in(store_id, person.email)).json()
            signed_in = Person(store_id, person.email, tokens["access_token"], tokens["refresh_token"])
            assert (await close(world, signed_in)).status_code == 200
            remembered.closed = world.clock()
        elif what == "days pass":
            days = min(days + chance.randrange(60), 200)
            world.clock.ahead = timedelta(days=days)
        elif what.startswith("sign in"):
            right = what == "sign in"
            answer = await world.sign_in(store_id, person.email, PASSWORD if right else "another password")
            assert answer.status_code == remembered.signs_in(world.clock(), right), (seed, what, days)
        elif what == "look":
            await run(world)
            remembered.looked_at(world.clock())
        assert len(await ends_of(world, person)) == int(remembered.ended), (seed, what, days)


# --- Rules -----------------------------------------------------------------------------------------------

_MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))


@given(closed_at=_MOMENTS, days=st.integers(0, 365))
def test_nobody_gets_less_time_than_was_promised(closed_at: datetime, days: int) -> None:
    ends_at = end_of_grace(closed_at, days)
    assert timedelta(days=days) <= ends_at - closed_at < timedelta(days=days + 1)
    if days:
        assert ends_at - datetime.combine(last_day(ends_at), datetime.min.time(), UTC) == A_DAY
    at = reminder(closed_at, ends_at)
    assert at is None or closed_at + 7 * A_DAY <= at == ends_at - 7 * A_DAY
    assert (at is not None) == (ends_at - closed_at >= 14 * A_DAY)


@given(closed_at=_MOMENTS, days=st.integers(0, 365), later=st.timedeltas(timedelta(0), timedelta(days=400)))
def test_a_sign_in_means_one_thing_at_any_moment(closed_at: datetime, days: int, later: timedelta) -> None:
    ends_at, now = end_of_grace(closed_at, days), closed_at + later
    meaning = judge_return(closed_at=closed_at, ends_at=ends_at, ended_at=None, now=now)
    assert meaning is (Returning.REOPEN if now < ends_at else Returning.OVER)
    assert judge_return(closed_at=closed_at, ends_at=ends_at, ended_at=now, now=now) is Returning.OVER
    assert judge_return(closed_at=None, ends_at=None, ended_at=None, now=now) is Returning.OPEN


def test_every_mail_is_in_both_languages(world: World) -> None:
    for kind in ("account", "store"):
        for what in ("closed", "reopened", "ends-soon"):
            for until in ("", "31 January 2027"):
                values = {"store": "Papeterie", "until": until}
                rendered = [render("identity", f"{kind}-{what}", one, values) for one in ("en", "fr")]
                assert all("Papeterie" in subject and body.count("\n") > 2 for subject, body in rendered)
                assert rendered[0] != rendered[1]
