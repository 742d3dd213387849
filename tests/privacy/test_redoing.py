"""A participant whose database was restored is asked again for all it has forgotten, in order, until it has done it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
from sqlalchemy import text

from libs.common.events.identity import StoreEnded
from libs.common.events.privacy import (
    ClockStarted,
    ClockStopped,
    ClosingRemembered,
    DatabaseRestored,
    Outcome,
    StoreCleaned,
    StoreErased,
    StoreKeysDestroyed,
    TaskIssued,
    Verb,
)
from libs.common.personal.answers import sign
from libs.common.personal.errors import KeyDestroyed
from libs.common.personal.keys import Erasure, Life
from libs.common.personal.tombstones import bury
from libs.common.personal.vocabulary import Clock, Retention
from services.privacy import redoing, store_endings
from services.privacy.consumer import PARTICIPANT
from services.privacy.domain.states import KEYRING
from tests.common.personal.shop import SHOP
from tests.privacy.conftest import EVERYBODY, Person, Platform
from tests.privacy.evidence import log_of, place
from tests.privacy.keyring.conftest import RunningKeyring
from tests.privacy.keyring.test_keys import mint


async def complete(platform: Platform, person: Person, right: str, verb: Verb) -> UUID:
    request_id = await platform.opened(person, right)
    await platform.ask_keyring()
    await platform.answer_all(request_id, verb)
    assert await platform.state(person, request_id) == "completed"
    return request_id


async def restore(platform: Platform, taken_at: datetime, participant: str = SHOP) -> UUID:
    """The news of it, and what is found out at once."""
    told = DatabaseRestored(restoration_id=uuid4(), participant=participant, taken_at=taken_at)
    await platform.deliver(told, told)
    await redoing.compare(platform.work)
    return told.restoration_id


async def asked_again(platform: Platform, before: int) -> Sequence[tuple[UUID, Verb, int]]:
    async with platform.database.platform_session() as session:
        waiting = await session.scalar(text("SELECT count(*) FROM redo WHERE done_at IS NULL")) or 0
    # Those of the stores of other tests come first.
    for _ in range(1 + waiting // redoing.AT_ONCE):
        await redoing.redo(platform.work)
    tasks = (await platform.published(TaskIssued))[before:]
    assert all(one.participants == [SHOP] for one in tasks)
    return [(one.request_id, one.verb, one.round) for one in tasks]


async def answer(
    platform: Platform, request_id: UUID, verb: Verb, number: int, outcome: Outcome = Outcome.DONE
) -> None:
    answered = platform.answer(request_id, verb, outcome, round=number)
    await platform.deliver(sign(answered, store_id=platform.store_id, key=platform.shop_key))


async def undone(platform: Platform) -> int:
    async with platform.database.session(platform.store_id) as session:
        return int(await session.scalar(text("SELECT count(*) FROM redo WHERE done_at IS NULL")) or 0)


async def make_due(platform: Platform) -> None:
    async with platform.database.session(platform.store_id) as session:
        await session.execute(text("UPDATE redo SET next_issue_at = now()"))


async def test_what_was_done_since_the_backup_is_asked_for_again_in_order(platform: Platform) -> None:
    before_all = datetime.now(UTC)
    person = await platform.person()
    held = await complete(platform, person, "restriction", Verb.RESTRICT)
    await platform.decides(
        passing={"erasure": "at-once", "restriction-lifting": "at-once"}, lifting_notice_days=0
    )
    lifted = await complete(platform, person, "restriction-lifting", Verb.LIFT_RESTRICTION)
    issued = len(await platform.published(TaskIssued))
    await restore(platform, before_all)
    # One at a time, or held and released could change places.
    assert await asked_again(platform, issued) == [(held, Verb.RESTRICT, 2)]
    await make_due(platform)
    assert await asked_again(platform, issued + 1) == [(held, Verb.RESTRICT, 2)]
    # An answer to the first round is an old one.
    await answer(platform, held, Verb.RESTRICT, 1)
    assert await undone(platform) == 2
    await answer(platform, held, Verb.RESTRICT, 2)
    assert await asked_again(platform, issued + 2) == [(lifted, Verb.LIFT_RESTRICTION, 2)]
    await answer(platform, lifted, Verb.LIFT_RESTRICTION, 2)
    assert await undone(platform) == 0
    assert await platform.state(person, held) == "completed"


async def test_what_was_done_before_the_backup_is_in_it(platform: Platform) -> None:
    person = await platform.person()
    await complete(platform, person, "restriction", Verb.RESTRICT)
    issued = len(await platform.published(TaskIssued))
    await restore(platform, datetime.now(UTC) + redoing.MARGIN + timedelta(seconds=1))
    assert await asked_again(platform, issued) == []


async def test_what_is_found_out_twice_is_asked_once(platform: Platform) -> None:
    """As after a crash, or an outage of the keyring, before it was noted."""
    before_all = datetime.now(UTC)
    person = await platform.person()
    held = await complete(platform, person, "restriction", Verb.RESTRICT)
    issued = len(await platform.published(TaskIssued))
    restoration_id = await restore(platform, before_all)
    async with platform.database.platform_session() as session:
        again = "UPDATE returned SET compared_at = NULL WHERE restoration_id = :id"
        await session.execute(text(again), {"id": restoration_id})
    await redoing.compare(platform.work)
    assert await asked_again(platform, issued) == [(held, Verb.RESTRICT, 2)]


async def test_of_a_participant_that_was_restored_twice_the_last_answer_is_good_for_both(
    platform: Platform,
) -> None:
    before_all = datetime.now(UTC)
    person = await platform.person()
    held = await complete(platform, person, "restriction", Verb.RESTRICT)
    issued = len(await platform.published(TaskIssued))
    for _ in range(2):
        await restore(platform, before_all)
    asked = await asked_again(platform, issued)
    assert sorted(number for _, _, number in asked) == [2, 3]
    # Both rounds come at once, and a participant passes over the older one.
    await answer(platform, held, Verb.RESTRICT, 3)
    assert await undone(platform) == 0


async def test_what_cannot_be_done_is_tried_again_and_nothing_waits_behind_it(platform: Platform) -> None:
    before_all = datetime.now(UTC)
    person = await platform.person()
    held = await complete(platform, person, "restriction", Verb.RESTRICT)
    await platform.decides(
        passing={"erasure": "at-once", "restriction-lifting": "at-once"}, lifting_notice_days=0
    )
    lifted = await complete(platform, person, "restriction-lifting", Verb.LIFT_RESTRICTION)
    issued = len(await platform.published(TaskIssued))
    await restore(platform, before_all)
    await asked_again(platform, issued)
    await answer(platform, held, Verb.RESTRICT, 2, Outcome.FAILED)
    await make_due(platform)
    again = await asked_again(platform, issued + 1)
    assert set(again) == {(held, Verb.RESTRICT, 2), (lifted, Verb.LIFT_RESTRICTION, 2)}


async def test_a_restored_privacy_service_asks_in_rounds_that_nobody_has_heard_of(platform: Platform) -> None:
    """Its own rounds went back with it, and a participant answers no round before the last that it remembers."""
    before_all = datetime.now(UTC)
    person = await platform.person()
    held = await complete(platform, person, "restriction", Verb.RESTRICT)
    issued = len(await platform.published(TaskIssued))
    await restore(platform, before_all)
    [(_, _, remembered)] = await asked_again(platform, issued)
    async with platform.database.session(platform.store_id) as session:
        await session.execute(text("UPDATE request SET round = 1"))
        await session.execute(text("DELETE FROM redo"))
        await session.execute(text("INSERT INTO restoration (taken_at) VALUES (now())"))
    await restore(platform, before_all)
    async with platform.database.platform_session() as session:
        await session.execute(text("DELETE FROM restoration"))
    [(again, verb, number)] = await asked_again(platform, issued + 1)
    assert (again, verb) == (held, Verb.RESTRICT) and number > remembered


async def test_an_erasure_that_is_being_checked_is_checked_after_the_restore(platform: Platform) -> None:
    """The check that said all is gone was of a database that is no more."""
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    before_all = datetime.now(UTC)
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.ERASE)
    await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED, Outcome.DONE))
    await restore(platform, before_all)
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    await platform.ask_keyring()
    assert await platform.state(person, request_id) == "checking"
    await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED, Outcome.DONE))
    assert await platform.state(person, request_id) == "completed"


async def test_a_restored_keyring_gets_its_part_done_again(
    platform: Platform, keyring: RunningKeyring
) -> None:
    before_all = datetime.now(UTC)
    person = await platform.person()
    await complete(platform, person, "restriction", Verb.RESTRICT)
    life = (person.store_id, person.subject_id)
    # As a backup has it: neither on hold nor known to be.
    async with keyring.database.platform_session() as session:
        values = {"subject": person.subject_id}
        await session.execute(
            text("UPDATE data_key SET state = 'active' WHERE subject_id = :subject"), values
        )
        key = """
            INSERT INTO data_key (key_id, store_id, subject_id, generation, retention, bucket, wrapped, master_key_id,
                tenant_key_id, epoch)
            SELECT gen_random_uuid(), store_id, subject_id, 1, 'order', '', wrapped, master_key_id, tenant_key_id, 7
            FROM data_key WHERE subject_id = :subject LIMIT 1
        """
        await session.execute(text(key), values)
    await restore(platform, before_all, KEYRING)
    await redoing.redo(platform.work)
    [keys] = await keyring.client("privacy").status([life])
    assert [one.restricted for one in keys if one.retention == "order"] == [True]
    assert await undone(platform) == 0


async def test_what_was_ordered_while_a_restriction_was_in_force_is_not_on_hold_when_it_is_done_again(
    platform: Platform, keyring: RunningKeyring
) -> None:
    person = await platform.person()
    order, since = str(uuid4()), str(uuid4())
    await mint(keyring, "orders", person.store_id, person.subject_id, Retention.ORDER, order)
    request_id = await complete(platform, person, "restriction", Verb.RESTRICT)
    # It was an hour ago, and then the keyring was restored from before it.
    async with keyring.database.platform_session() as session:
        backup = "UPDATE data_key SET state = 'active', created_at = now() - interval '2 hours' WHERE subject_id = :id"
        await session.execute(text(backup), {"id": person.subject_id})
    async with platform.database.session(platform.store_id) as session:
        done = "UPDATE task SET answered_at = now() - interval '1 hour' WHERE request_id = :id AND verb = 'restrict'"
        await session.execute(text(done), {"id": request_id})
    await mint(keyring, "orders", person.store_id, person.subject_id, Retention.ORDER, since)
    await restore(platform, datetime.now(UTC) - timedelta(hours=2), KEYRING)
    await redoing.redo(platform.work)
    [keys] = await keyring.client("privacy").status([(person.store_id, person.subject_id)])
    held = {one.bucket: one.restricted for one in keys if one.retention == "order"}
    assert (held[order], held[since]) == (True, False)
    assert await undone(platform) == 0


async def test_a_restored_privacy_service_erases_again_whom_the_keyring_knows_to_be_erased(
    platform: Platform, keyring: RunningKeyring
) -> None:
    person = await platform.person()
    await keyring.client("privacy").destroy([Erasure(person.store_id, person.subject_id, 3, uuid4())])
    await restore(platform, datetime.now(UTC), "privacy")
    async with platform.database.session(platform.store_id) as session:
        [request] = (
            await session.execute(
                text("SELECT id, generation, way, state FROM request WHERE subject_id = :subject"),
                {"subject": person.subject_id},
            )
        ).all()
    assert (request.generation, request.way, request.state) == (3, "restore", "running")
    await platform.ask_keyring()
    [task] = await platform.tasks(request.id, Verb.ERASE)
    assert (task.subject_id, task.generation) == (person.subject_id, 3)
    # The evidence says how it came to be, and it is certified like any other.
    await place(platform)
    steps = [orjson.loads(line)["entry"] for line in await log_of(platform) if b'"entry"' in line]
    [first] = [one for one in steps if one["step"] == "opened" and one["request"] == str(request.id)]
    assert first["facts"]["way"] == "restore"
    assert {"verified", "decided", "issued"} <= {
        one["step"] for one in steps if one["request"] == str(request.id)
    }
    # Once is enough.
    await restore(platform, datetime.now(UTC), "privacy")
    async with platform.database.session(platform.store_id) as session:
        count = text("SELECT count(*) FROM request WHERE subject_id = :subject")
        assert await session.scalar(count, {"subject": person.subject_id}) == 1


async def test_whom_an_erasure_covered_and_its_request_does_not_name_is_erased_again(
    platform: Platform,
) -> None:
    """As after an erasure over two addresses of one person: what joined them went with it."""
    before, since = uuid4(), uuid4()
    async with platform.database.session(platform.store_id) as session:
        await bury(session, [(platform.store_id, one, 2) for one in (before, since)])
        long_ago = (
            "UPDATE erased_subject SET erased_at = now() - interval '1 day' WHERE subject_id = :subject"
        )
        await session.execute(text(long_ago), {"subject": before})
    await restore(platform, datetime.now(UTC))
    await restore(platform, datetime.now(UTC))
    async with platform.database.session(platform.store_id) as session:
        query = "SELECT subject_id, generation, way, state FROM request WHERE subject_id IN (:before, :since)"
        again = (await session.execute(text(query), {"before": before, "since": since})).all()
    assert again == [(since, 2, "restore", "running")]


async def test_a_restored_privacy_service_has_on_hold_whom_the_keyring_has_and_nobody_erased(
    platform: Platform, keyring: RunningKeyring
) -> None:
    held, erased = await platform.person(), await platform.person()
    lives = [Life(one.store_id, one.subject_id, 1) for one in (held, erased)]
    for one in (held, erased):
        await mint(keyring, "identity", one.store_id, one.subject_id, Retention.ACCOUNT)
        await mint(keyring, "billing", one.store_id, one.subject_id, Retention.ACCOUNTING, "2026")
    client = keyring.client("privacy")
    await client.restrict(lives)
    await client.destroy([Erasure(erased.store_id, erased.subject_id, 1, uuid4())])
    await restore(platform, datetime.now(UTC), "privacy")
    async with platform.database.session(platform.store_id) as session:
        found = await session.scalars(text("SELECT subject_id FROM restricted_subject"))
        assert found.all() == [held.subject_id]


# --- Accounts that were closed ---------------------------------------------------------------------------


async def test_a_restored_identity_service_is_told_who_had_closed_their_account_and_who_came_back(
    platform: Platform,
) -> None:
    closed, back = await platform.person(), await platform.person()
    ends_at = datetime(2031, 5, 1, tzinfo=UTC)
    account: dict[str, Any] = {"retention": Retention.ACCOUNT, "clock": Clock.ACCOUNT_CLOSED, "generation": 1}
    started = [
        ClockStarted(subject_id=one.subject_id, started_at=ends_at, version=2, **account)
        for one in (closed, back)
    ]
    stopped = ClockStopped(subject_id=back.subject_id, stopped_at=datetime.now(UTC), version=3, **account)
    await platform.deliver(*started, stopped)
    await restore(platform, datetime.now(UTC), "orders")
    assert await platform.published(ClosingRemembered) == []
    await restore(platform, datetime.now(UTC), "identity")
    told = await platform.published(ClosingRemembered)
    assert {one.subject_id: (one.ends_at, one.version) for one in told} == {
        closed.subject_id: (ends_at, 2),
        back.subject_id: (None, 3),
    }


# --- Stores that have ended ------------------------------------------------------------------------------


async def test_a_participant_from_before_the_end_of_a_store_removes_it_again(platform: Platform) -> None:
    before_all = datetime.now(UTC)
    await end_store(platform)
    destroyed = len(await platform.published(StoreKeysDestroyed))
    assert await store_endings.step(platform.work) == 0
    assert len(await platform.published(StoreKeysDestroyed)) == destroyed
    await restore(platform, before_all)
    await store_endings.step(platform.work)
    assert len(await platform.published(StoreKeysDestroyed)) == destroyed + 1
    assert len(await platform.published(StoreErased)) == 1
    await platform.deliver(cleaned(platform, SHOP))
    await store_endings.step(platform.work)
    assert len(await platform.published(StoreErased)) == 2


async def test_a_keyring_from_before_the_end_of_a_store_destroys_its_key_again(
    platform: Platform, keyring: RunningKeyring
) -> None:
    before_all = datetime.now(UTC)
    await end_store(platform)
    # As a backup has it: no key of this store was made yet, so none was destroyed.
    async with keyring.database.platform_session() as session:
        values = {"store": platform.store_id}
        await session.execute(text("DELETE FROM tenant_key WHERE store_id = :store"), values)
    await restore(platform, before_all, KEYRING)
    assert await mint(keyring, "orders", platform.store_id, uuid4(), Retention.ORDER) is KeyDestroyed


async def end_store(platform: Platform) -> None:
    """Its key is destroyed, and everybody has said that nothing is left."""
    await platform.deliver(StoreEnded(store_id=platform.store_id, version=9))
    await store_endings.step(platform.work)
    await platform.deliver(*(cleaned(platform, name) for name in EVERYBODY))
    await store_endings.step(platform.work)
    assert len(await platform.published(StoreErased)) == 1


def cleaned(platform: Platform, name: str) -> StoreCleaned:
    """That a participant has found nothing left, with its signature."""
    key = platform.shop_key if name == SHOP else PARTICIPANT.key
    said = StoreCleaned(store_id=platform.store_id, participant=name)
    return sign(said, store_id=platform.store_id, key=key)


async def test_nobody_says_for_another_that_nothing_is_left(platform: Platform) -> None:
    await platform.deliver(StoreEnded(store_id=platform.store_id, version=9))
    await store_endings.step(platform.work)
    unsigned = StoreCleaned(store_id=platform.store_id, participant=SHOP)
    of_another = sign(unsigned, store_id=platform.store_id, key=PARTICIPANT.key)
    of_another_store = sign(unsigned, store_id=uuid4(), key=platform.shop_key)
    await platform.deliver(unsigned, of_another, of_another_store, cleaned(platform, "privacy"))
    await store_endings.step(platform.work)
    assert await platform.published(StoreErased) == []
    await platform.deliver(cleaned(platform, SHOP))
    await store_endings.step(platform.work)
    assert len(await platform.published(StoreErased)) == 1
