"""Whoever is on hold signs in, signs up and changes what they said; nothing is shown, and no timer deletes it."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from libs.common.broker import Record
from libs.common.events import Received, envelope_of
from libs.common.events.privacy import Correction, Proposal, TaskIssued, Verb
from libs.common.personal import restrictions
from libs.common.personal.keys import Life
from libs.common.personal.participant import Participant
from libs.common.personal.vocabulary import Category
from libs.common.worker import Work
from services.identity import consumer
from services.identity.personal import HERE, HOLDINGS
from services.identity.settings import Settings
from tests.identity.conftest import Person, World, an_email
from tests.identity.test_erasure import rows_of
from tests.privacy.keyring.conftest import RunningKeyring


async def restrict(world: World, keyring: RunningKeyring, store_id: UUID, email: str) -> UUID:
    subject_id = await world.parts.vault.subject_id(store_id, email)
    await keyring.client("privacy").restrict([Life(store_id, subject_id, 1)])
    world.parts.vault.drop(store_id, [subject_id])
    async with world.parts.database.session(store_id) as session:
        await restrictions.restrict(session, [(store_id, subject_id, 1)])
    return subject_id


async def lift(world: World, keyring: RunningKeyring, store_id: UUID, subject_id: UUID) -> None:
    await keyring.client("privacy").lift([Life(store_id, subject_id, 1)])
    world.parts.vault.drop(store_id, [subject_id])
    async with world.parts.database.session(store_id) as session:
        await restrictions.lift(session, [(store_id, subject_id, 1)])


async def me(world: World, person: Person) -> Any:
    answer = await world.http.get(f"/identity/v1/stores/{person.store_id}/me", headers=person.headers)
    assert answer.status_code == 200, answer.text
    return answer


async def test_a_sign_in_is_ones_own_act_and_a_profile_is_on_hold(
    world: World, store_id: UUID, keyring: RunningKeyring
) -> None:
    person = await world.person(store_id)
    subject_id = await restrict(world, keyring, store_id, person.email)
    assert (await world.sign_in(store_id, person.email)).status_code == 200
    assert (await world.sign_in(store_id, person.email, "another password")).status_code == 401
    assert (await world.refresh(store_id, person.refresh_token)).status_code == 200
    shown = (await me(world, person)).json()
    assert (shown["on_hold"], shown["email"], shown["name"]) == (True, None, None)
    await lift(world, keyring, store_id, subject_id)
    shown = (await me(world, person)).json()
    assert (shown["on_hold"], shown["email"]) == (False, person.email)


async def test_what_one_said_of_oneself_can_be_changed_and_stays_on_hold(
    world: World, store_id: UUID, keyring: RunningKeyring
) -> None:
    person = await world.person(store_id)
    subject_id = await restrict(world, keyring, store_id, person.email)
    etag = (await me(world, person)).headers["ETag"]
    changed = await world.http.patch(
        f"/identity/v1/stores/{store_id}/me",
        json={"name": "Canary Corrected"},
        headers=person.headers | {"If-Match": etag},
    )
    assert (changed.status_code, changed.json()["on_hold"], changed.json()["name"]) == (200, True, None)
    assert (await me(world, person)).json()["on_hold"] is True
    await lift(world, keyring, store_id, subject_id)
    assert (await me(world, person)).json()["name"] == "Canary Corrected"


async def test_no_timer_deletes_what_is_on_hold(
    world: World, store_id: UUID, keyring: RunningKeyring
) -> None:
    held, other = an_email(), an_email()
    for email in (held, other):
        await world.sign_up(store_id, email)
    person = await world.person(store_id)
    held_id = await restrict(world, keyring, store_id, held)
    person_id = await restrict(world, keyring, store_id, person.email)
    other_id = await world.parts.vault.subject_id(store_id, other)
    async with world.parts.database.session(store_id) as session:
        for table in ("sign_up", "account_session"):
            await session.execute(text(f"UPDATE {table} SET expires_at = now() - interval '1 day'"))
    work = Work("identity", world.settings, world.parts.database, None, world.parts.vault, None)  # type: ignore[arg-type]
    await consumer.forget_expired(work)
    assert (await rows_of(world, store_id, other_id))["sign_up"] == 0
    assert (await rows_of(world, store_id, held_id))["sign_up"] == 1
    assert (await rows_of(world, store_id, person_id))["account_session"] == 1
    for subject_id in (held_id, person_id):
        await lift(world, keyring, store_id, subject_id)
    await consumer.forget_expired(work)
    assert (await rows_of(world, store_id, held_id))["sign_up"] == 0


async def test_a_corrected_address_is_the_one_to_sign_in_with_unless_it_is_anothers(
    world: World, store_id: UUID, keyring: RunningKeyring, signs: None
) -> None:
    participant = Participant(service="identity", holdings=HOLDINGS, settings=Settings, copies=HERE)
    person, other, new = await world.person(store_id), await world.person(store_id), an_email()

    async def correct(value: str) -> Any:
        subject_id = await world.parts.vault.subject_id(store_id, person.email)
        request_id = uuid4()
        proposal = Proposal(corrections=(Correction(category=Category.EMAIL, value=value),))
        sealed = await keyring.vault("privacy").seal(
            proposal, store_id=store_id, subject_id=subject_id, bucket=str(request_id)
        )
        task = TaskIssued(
            request_id=request_id, verb=Verb.RECTIFY, subject_id=subject_id, generation=1, proposal=sealed.box
        )
        envelope = envelope_of(task, store_id=store_id, source="privacy")
        received = Received(task, envelope, Record(task.topic, envelope.key, b""))
        async with world.parts.database.session(store_id) as session:
            await participant.on_tasks(session, [received])
        work = Work("identity", world.settings, world.parts.database, None, world.parts.vault, None)  # type: ignore[arg-type]
        await participant.rectify(work)
        async with world.parts.database.session(store_id) as session:
            return await session.scalar(
                text("SELECT answer FROM participant_job WHERE request_id = :id"), {"id": request_id}
            )

    taken = await correct(other.email)
    assert (taken["outcome"], taken["refused"], taken["reason"]) == ("done", ["user.contact.email"], "taken")
    assert (await world.sign_in(store_id, person.email)).status_code == 200
    done = await correct(new)
    assert (done["counts"], done["refused"]) == ({"account": 1}, [])
    assert (await world.sign_in(store_id, new)).status_code == 200
    assert (await world.sign_in(store_id, person.email)).status_code == 401
    assert (await world.sign_in(store_id, other.email)).status_code == 200
