"""With the keys the sign-in is destroyed, then the rows go; who comes back begins anew."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from libs.common.broker import Record
from libs.common.events import Received, envelope_of, headers_of
from libs.common.events.privacy import Outcome, TaskAnswered, TaskIssued, Verb
from libs.common.outbox import OutboxRow
from libs.common.personal.keys import Erasure
from libs.common.personal.participant import Participant
from libs.common.personal.tombstones import bury
from services.identity.personal import HERE, HOLDINGS
from services.identity.settings import Settings
from tests.identity.conftest import Person, World, an_email
from tests.privacy.keyring.conftest import RunningKeyring

TABLES = ("account", "sign_up", "account_session", "waiting_letter")


@pytest.fixture
def participant(signs: None) -> Participant:
    return Participant(service="identity", holdings=HOLDINGS, settings=Settings, copies=HERE)


async def destroy_keys(world: World, keyring: RunningKeyring, person: Person) -> UUID:
    """What the privacy service does first."""
    subject_id = await world.parts.vault.subject_id(person.store_id, person.email)
    await keyring.client("privacy").destroy([Erasure(person.store_id, subject_id, 1, uuid4())])
    world.parts.vault.drop(person.store_id, [subject_id])
    return subject_id


async def carry_out(
    world: World, participant: Participant, store_id: UUID, subject_id: UUID, verb: Verb
) -> Outcome:
    task = TaskIssued(request_id=uuid4(), verb=verb, subject_id=subject_id, generation=1)
    envelope = envelope_of(task, store_id=store_id, source="privacy")
    record = Record(task.topic, envelope.key, task.model_dump_json().encode(), headers_of(envelope))
    async with world.parts.database.session(store_id) as session:
        await participant.on_tasks(session, [Received(task, envelope, record)])
        await session.flush()
        answers = select(OutboxRow.payload).where(OutboxRow.key == f"{store_id}:{task.request_id}")
        payload = (await session.scalars(answers)).one()
    return TaskAnswered.model_validate_json(payload).outcome


async def rows_of(world: World, store_id: UUID, subject_id: UUID) -> dict[str, int]:
    async with world.parts.database.session(store_id) as session:
        return {
            table: await session.scalar(
                text(f"SELECT count(*) FROM {table} WHERE subject_id = :subject"), {"subject": subject_id}
            )
            or 0
            for table in TABLES
        }


async def test_an_erased_person_is_a_stranger(
    world: World, store_id: UUID, keyring: RunningKeyring, participant: Participant
) -> None:
    person = await world.person(store_id)
    subject_id = await destroy_keys(world, keyring, person)
    # The keys are gone, the rows are not yet: nothing tells this from an unknown person.
    unknown = await world.sign_in(store_id, an_email())
    refused = await world.sign_in(store_id, person.email)
    assert (refused.status_code, refused.content) == (401, unknown.content)
    me = await world.http.get(f"/identity/v1/stores/{store_id}/me", headers=person.headers)
    assert me.status_code == 404
    assert (await rows_of(world, store_id, subject_id))["account"] == 1

    assert await carry_out(world, participant, store_id, subject_id, Verb.ERASE) is Outcome.DONE
    assert await rows_of(world, store_id, subject_id) == dict.fromkeys(TABLES, 0)
    assert await carry_out(world, participant, store_id, subject_id, Verb.VERIFY_ERASED) is Outcome.DONE
    refused = await world.sign_in(store_id, person.email)
    assert (refused.status_code, refused.content) == (401, unknown.content)
    assert (await world.refresh(store_id, person.refresh_token)).status_code == 401
    gone = await world.http.get(f"/identity/v1/stores/{store_id}/me", headers=person.headers)
    assert (gone.status_code, gone.content) == (404, me.content)


@pytest.mark.parametrize("cleaned", [False, True])
async def test_who_comes_back_begins_anew(
    world: World, store_id: UUID, keyring: RunningKeyring, participant: Participant, cleaned: bool
) -> None:
    """Also while the rows of the earlier life still wait to be cleaned."""
    before = await world.person(store_id)
    subject_id = await destroy_keys(world, keyring, before)
    if cleaned:
        await carry_out(world, participant, store_id, subject_id, Verb.ERASE)
    assert (await world.sign_up(store_id, before.email, "a new passphrase")).status_code == 202
    async with world.parts.database.session(store_id) as session:
        await session.execute(
            text("DELETE FROM waiting_letter WHERE subject_id = :s AND generation = 1"), {"s": subject_id}
        )
    assert (await world.confirm(store_id, await world.token(store_id, before.email))).status_code == 200
    answer = await world.sign_in(store_id, before.email, "a new passphrase")
    caller = await world.app.state.tokens.verify(answer.json()["access_token"])
    assert (caller.subject_id, caller.generation) == (subject_id, 2)
    # The late clean-up of the earlier life leaves the new one alone.
    await carry_out(world, participant, store_id, subject_id, Verb.ERASE)
    assert (await world.sign_in(store_id, before.email, "a new passphrase")).status_code == 200
    assert (await world.refresh(store_id, before.refresh_token)).status_code == 401


async def test_a_link_of_before_the_erasure_confirms_nothing(world: World, store_id: UUID) -> None:
    email = an_email()
    await world.sign_up(store_id, email)
    token = await world.token(store_id, email)
    subject_id = await world.parts.vault.subject_id(store_id, email)
    async with world.parts.database.session(store_id) as session:
        await bury(session, [(store_id, subject_id, 1)])
    assert (await world.confirm(store_id, token)).status_code == 404


async def test_a_sign_in_that_races_the_erasure_leaves_no_session(world: World, store_id: UUID) -> None:
    person = await world.person(store_id)
    subject_id = await world.parts.vault.subject_id(store_id, person.email)
    async with world.parts.database.session(store_id) as session:
        await bury(session, [(store_id, subject_id, 1)])
    # The account's key is still in memory, so the password is right: the tombstone is what refuses.
    assert (await world.sign_in(store_id, person.email)).status_code == 401


async def test_a_change_that_races_the_erasure_finds_nobody(
    world: World, store_id: UUID, keyring: RunningKeyring
) -> None:
    """What shows a profile is still in memory; what is to seal the change is gone."""
    person = await world.person(store_id)
    me = f"/identity/v1/stores/{store_id}/me"
    shown = await world.http.get(me, headers=person.headers)
    subject_id = await world.parts.vault.subject_id(store_id, person.email)
    await keyring.client("privacy").destroy([Erasure(store_id, subject_id, 1, uuid4())])
    headers = person.headers | {"If-Match": shown.headers["etag"]}
    changed = await world.http.patch(me, json={"name": "Ada"}, headers=headers)
    assert changed.status_code == 404


async def test_a_merchants_erasure_leaves_the_store(
    world: World, merchant: Person, keyring: RunningKeyring, participant: Participant
) -> None:
    store_id = await world.open_store(merchant)
    subject_id = await destroy_keys(world, keyring, merchant)
    await carry_out(world, participant, merchant.store_id, subject_id, Verb.ERASE)
    assert (await world.http.get(f"/identity/v1/stores/{store_id}")).status_code == 200
    async with world.parts.database.session(store_id) as session:
        assert await session.scalar(text("SELECT count(*) FROM membership")) == 0
    body = {"name": "Late", "slug": f"late-{uuid4().hex[:8]}", "country": "FR", "currency": "EUR"}
    late = await world.http.post("/identity/v1/stores", json=body, headers=merchant.headers)
    assert late.status_code == 401
