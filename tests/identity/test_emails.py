"""Another address of an account: only who reads its mail and knows the password gets it, and nobody learns whose."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select, text

from libs.common.db import Database
from libs.common.events import Event
from libs.common.events.identity import EmailConfirmed, EmailRemoved
from libs.common.events.privacy import Outcome, Verb
from libs.common.mail import render
from libs.common.outbox import OutboxRow
from libs.common.personal.erasure import Asked
from libs.common.personal.keys import Life
from libs.common.personal.participant import Participant
from libs.common.personal.references import references_of
from libs.common.personal.restrictions import restrict
from services.identity.consumer import PARTICIPANT, forget_expired
from services.identity.models import Account, AccountEmail
from tests.identity.conftest import PASSWORD, MakeWorld, Person, World, an_email
from tests.identity.test_erasure import carry_out, destroy_keys, participant
from tests.privacy.keyring.conftest import RunningKeyring

__all__ = ["participant"]


def path(store_id: UUID, *more: str) -> str:
    return "/".join((f"/identity/v1/stores/{store_id}/me/emails", *more))


async def add(world: World, person: Person, email: str, status: int = 202, **more: Any) -> Any:
    body = {"email": email} | more
    answer = await world.http.post(path(person.store_id), json=body, headers=person.headers)
    assert answer.status_code == status, answer.text
    assert email not in answer.text
    return answer


async def confirm(world: World, store_id: UUID, token: str, password: str = PASSWORD) -> int:
    body = {"token": token, "password": password}
    return (
        await world.http.post(f"/identity/v1/stores/{store_id}/email-confirmations", json=body)
    ).status_code


async def added(world: World, person: Person) -> str:
    """A further address, confirmed."""
    email = an_email()
    await add(world, person, email)
    assert await confirm(world, person.store_id, await world.token(person.store_id, email)) == 204
    return email


async def listed(world: World, person: Person) -> list[dict[str, Any]]:
    answer = await world.http.get(path(person.store_id), headers=person.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def events(world: World, person: Person, kind: type[Event]) -> list[bytes]:
    """What identity published of this type about the person."""
    subject_id = await world.parts.vault.subject_id(person.store_id, person.email)
    async with world.parts.database.session(person.store_id) as session:
        rows = await session.scalars(select(OutboxRow).order_by(OutboxRow.id))
        return [
            row.payload
            for row in rows
            if row.headers["ce_type"] == kind.type and str(subject_id).encode() in row.payload
        ]


async def test_an_address_is_added_by_its_mail_and_the_password(world: World, store_id: UUID) -> None:
    person, email = await world.person(store_id), an_email()
    await add(world, person, email, language="fr")
    assert [(one["email"], one["confirmed_at"]) for one in await listed(world, person)] == [(email, None)]
    [letter] = await world.letters(store_id, email)
    assert (letter.to, letter.template, letter.language) == (email, "confirm-email", "fr")
    subject, body = render("identity", letter.template, letter.language, letter.values)
    assert "/identity/confirm-email?language=fr#store=" in body and email not in subject + body
    token = await world.token(store_id, email)
    answers = await asyncio.gather(*(confirm(world, store_id, token) for _ in range(4)))
    assert set(answers) == {204}
    assert (await listed(world, person))[0]["confirmed_at"] is not None
    published = await events(world, person, EmailConfirmed)
    [event] = [EmailConfirmed.model_validate_json(one) for one in published]
    assert event.alias_subject_id == await world.parts.vault.subject_id(store_id, email)
    assert email.encode() not in published[0]


async def test_outsiders_are_told_of_nobody_by_an_address_that_is_not_shown_to_be_theirs(
    world: World, store_id: UUID
) -> None:
    person, unconfirmed = await world.person(store_id), an_email()
    confirmed = await added(world, person)
    await add(world, person, unconfirmed)
    vault, database = world.parts.vault, world.parts.database
    subject_id = await vault.subject_id(store_id, person.email)
    async with database.session(store_id) as session:
        asked = Asked(uuid4(), store_id, subject_id, 1)
        known = await references_of(session, vault, PARTICIPANT.referring, [asked])
        account_id = await session.scalar(select(Account.id).where(Account.subject_id == subject_id))
    assert set(known.emails) == {person.email, confirmed}
    assert known.accounts == (account_id,)


async def test_whoever_has_only_one_of_the_two_gets_nothing(world: World, store_id: UUID) -> None:
    """Somebody adds an address that is not theirs; its owner follows the link, and has an account too."""
    thief, victim = await world.person(store_id), an_email()
    await add(world, thief, victim)
    token = await world.token(store_id, victim)
    assert await confirm(world, store_id, token, "the victim's own passphrase") == 401
    assert await confirm(world, store_id, "x" * 43) == 404
    assert await confirm(world, uuid4(), token) == 404
    assert (await listed(world, thief))[0]["confirmed_at"] is None


async def test_an_address_with_an_account_is_never_taken_over(world: World, store_id: UUID) -> None:
    person, other = await world.person(store_id), await world.person(store_id)
    unknown = await add(world, person, an_email())
    known = await add(world, person, other.email)
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    assert (await world.letters(store_id, other.email))[-1].template == "email-taken"
    assert other.email not in [one["email"] for one in await listed(world, person)]
    # Signed up between the mail and its confirmation.
    email = an_email()
    await add(world, person, email)
    token = await world.token(store_id, email)
    await world.person(store_id, email)
    assert await confirm(world, store_id, token) == 404


async def test_an_address_of_an_account_gets_no_second_account(world: World, store_id: UUID) -> None:
    person, other = await world.person(store_id), await world.person(store_id)
    email = await added(world, person)
    await world.sign_up(store_id, email)
    assert (await world.letters(store_id, email))[-1].template == "account-exists"
    await add(world, other, email)
    assert (await world.letters(store_id, email))[-1].template == "email-taken"
    # A sign-up whose mail went out before the address was confirmed.
    late = an_email()
    await world.sign_up(store_id, late)
    sign_up = await world.token(store_id, late)
    await add(world, person, late)
    assert await confirm(world, store_id, await world.token(store_id, late)) == 204
    assert (await world.confirm(store_id, sign_up)).status_code == 404


async def test_two_accounts_never_confirm_the_same_address(world: World, store_id: UUID) -> None:
    people, email = [await world.person(store_id) for _ in range(2)], an_email()
    tokens: list[str] = []
    for person in people:
        await add(world, person, email)
        tokens.append(await world.token(store_id, email))
    answers = await asyncio.gather(*(confirm(world, store_id, token) for token in tokens))
    assert sorted(answers) == [204, 404]


async def test_what_is_wrong_says_why(world: World, store_id: UUID, make_world: MakeWorld) -> None:
    person = await world.person(store_id)
    own = await add(world, person, person.email.upper(), 409)
    assert own.json()["type"].endswith("own-email")
    answer = await world.http.post(path(store_id), json={"email": "no address"}, headers=person.headers)
    assert answer.status_code == 422 and "no address" not in answer.text
    assert (await world.http.post(path(store_id), json={"email": an_email()})).status_code == 401
    for _ in range(5):
        await add(world, person, an_email())
        await _forget_attempts(world, store_id)
    full = await add(world, person, an_email(), 409)
    assert (full.json()["type"].rpartition("/")[2], full.json()["most"]) == ("too-many-emails", 5)


async def _forget_attempts(world: World, store_id: UUID) -> None:
    async with world.parts.database.session(store_id) as session:
        await session.execute(text("DELETE FROM attempts"))


async def test_adding_is_throttled_for_the_account_and_for_the_mailbox(
    make_world: MakeWorld, store_id: UUID
) -> None:
    world = await make_world(mails_per_person=2)
    person, others = await world.person(store_id), [await world.person(store_id) for _ in range(3)]
    for _ in range(2):
        await add(world, person, an_email())
    await add(world, person, an_email(), 429)
    email = an_email()
    for other in others:
        await add(world, other, email)
    assert len(await world.letters(store_id, email)) == 2
    token = await world.token(store_id, email)
    answers = [await confirm(world, store_id, token, "wrong passphrase") for _ in range(11)]
    assert set(answers[:10]) == {401} and answers[10] == 429


async def test_a_link_lasts_a_day_and_the_newest_counts(world: World, store_id: UUID) -> None:
    person, email = await world.person(store_id), an_email()
    await add(world, person, email)
    first = await world.token(store_id, email)
    await add(world, person, email)
    second = await world.token(store_id, email)
    assert await confirm(world, store_id, first) == 404
    world.clock.ahead = timedelta(hours=25)
    assert await confirm(world, store_id, second) == 404


async def test_nothing_is_added_to_an_account_that_is_closed(world: World, store_id: UUID) -> None:
    person, email = await world.person(store_id), an_email()
    await add(world, person, email)
    token = await world.token(store_id, email)
    path_to_close = f"/identity/v1/stores/{store_id}/me/closing"
    closed = await world.http.post(path_to_close, json={"password": PASSWORD}, headers=person.headers)
    assert closed.is_success, closed.text
    assert await confirm(world, store_id, token) == 404
    # A sign-in brings it back, and the link is good again.
    assert (await world.sign_in(store_id, person.email)).status_code == 200
    assert await confirm(world, store_id, token) == 204


async def test_a_removed_address_is_nobodys(world: World, store_id: UUID) -> None:
    person, other = await world.person(store_id), await world.person(store_id)
    email = await added(world, person)
    [one] = await listed(world, person)
    gone = path(store_id, one["id"])
    assert (await world.http.delete(gone, headers=other.headers)).status_code == 404
    assert (await world.http.delete(gone, headers=person.headers)).status_code == 204
    assert (await world.http.delete(gone, headers=person.headers)).status_code == 404
    assert await listed(world, person) == []
    [event] = await events(world, person, EmailRemoved)
    assert EmailRemoved.model_validate_json(event).alias_subject_id == await world.parts.vault.subject_id(
        store_id, email
    )
    # Its mailbox may open an account of its own.
    assert (await world.person(store_id, email)).email == email


async def test_an_erasure_takes_the_addresses_along(
    world: World, store_id: UUID, participant: Participant, keyring: RunningKeyring
) -> None:
    person = await world.person(store_id)
    email = await added(world, person)
    waiting = an_email()
    await add(world, person, waiting)
    subject_id = await destroy_keys(world, keyring, person)
    for verb in (Verb.ERASE, Verb.VERIFY_ERASED):
        assert await carry_out(world, participant, store_id, subject_id, verb) is Outcome.DONE
    async with world.parts.database.session(store_id) as session:
        assert await session.scalar(select(func.count()).where(AccountEmail.subject_id == subject_id)) == 0
    assert await confirm(world, store_id, await world.token(store_id, waiting)) == 404
    # Both addresses are free again.
    for one in (email, waiting):
        await world.person(store_id, one)


async def test_what_nobody_confirmed_is_forgotten_unless_it_is_on_hold(
    world: World, store_id: UUID, keyring: RunningKeyring
) -> None:
    free, held = await world.person(store_id), await world.person(store_id)
    for person in (free, held):
        await add(world, person, an_email())
    subject_id = await world.parts.vault.subject_id(store_id, held.email)
    await keyring.client("privacy").restrict([Life(store_id, subject_id, 1)])
    world.parts.vault.drop(store_id, [subject_id])
    async with world.parts.database.session(store_id) as session:
        await restrict(session, [(store_id, subject_id, 1)])
        await session.execute(text("UPDATE account_email SET expires_at = now() - interval '1 hour'"))
    await forget_expired(_Work(world.parts.database))  # type: ignore[arg-type]
    assert await listed(world, free) == []
    [one] = await listed(world, held)
    assert one["email"] is None


@dataclass
class _Work:
    """As much of a worker as the duty needs."""

    database: Database
