"""Keys are made once, opened while they live, and destroyed for good, whatever is restored afterwards."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from deploy.local.postgres import PostgresServer
from libs.common.personal.data import DataKey
from libs.common.personal.errors import KeyDestroyed, KeyForbidden, KeyRestricted, KeyUnknown, SubjectErased
from libs.common.personal.keys import Erased, Erasure, KeyWanted, LiveKey, Outcome
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy.keyring.app import create_app
from services.privacy.keyring.domain import outlives_erasure
from tests.privacy.keyring.conftest import RunningKeyring, settings_of

ORDER, ACCOUNTING = Retention.ORDER, Retention.ACCOUNTING
YEAR = str(datetime.now(UTC).year)


def made(outcome: Outcome) -> DataKey:
    assert isinstance(outcome, DataKey), outcome
    return outcome


async def mint(
    keyring: RunningKeyring,
    service: str,
    store: UUID,
    subject: UUID,
    retention: Retention,
    bucket: str = "",
    *,
    begin: bool = False,
) -> Outcome:
    [outcome] = await keyring.client(service).mint([KeyWanted(store, subject, retention, bucket, begin)])
    return outcome


async def open_one(keyring: RunningKeyring, service: str, key_id: UUID, purpose: Purpose) -> Outcome:
    [outcome] = await keyring.client(service).open([key_id], purpose=purpose)
    return outcome


async def erase(
    keyring: RunningKeyring, store: UUID, subject: UUID, generation: int = 1, request_id: UUID | None = None
) -> Erased:
    erasure = Erasure(store, subject, generation, request_id or uuid4())
    [erased] = await keyring.client("privacy").destroy([erasure])
    return erased


async def status(keyring: RunningKeyring, store: UUID, subject: UUID) -> Sequence[LiveKey]:
    [keys] = await keyring.client("privacy").status([(store, subject)])
    return keys


async def scalar(database: Any, sql: str, **values: Any) -> Any:
    async with database.platform_session() as session:
        return await session.scalar(text(sql), values)


# --- Secrets of stores -----------------------------------------------------------------------------------


async def test_a_race_for_a_store_has_one_secret(keyring: RunningKeyring) -> None:
    store, other = uuid4(), uuid4()
    services = ["catalog", "orders", "identity", "billing", "privacy"] * 10
    answers = await asyncio.gather(*(keyring.client(one).store_secrets([store, other]) for one in services))
    assert len({answer[store] for answer in answers}) == 1
    assert len(answers[0][store]) == 32
    assert answers[0][store] != answers[0][other]


# --- Minting ---------------------------------------------------------------------------------------------


async def test_a_race_for_a_key_makes_one(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    outcomes = await asyncio.gather(
        *(mint(keyring, "orders", store, subject, ORDER, begin=n % 2 == 0) for n in range(50))
    )
    assert len({made(outcome) for outcome in outcomes}) == 1
    assert (
        await scalar(
            keyring.database, "SELECT count(*) FROM data_key WHERE subject_id = :subject", subject=subject
        )
        == 1
    )


async def test_batches_in_opposite_orders_do_not_wait_for_each_other(keyring: RunningKeyring) -> None:
    store = uuid4()
    wanted = [KeyWanted(store, uuid4(), ORDER) for _ in range(200)]
    batches = [wanted, wanted[::-1]] * 5
    answers = await asyncio.gather(*(keyring.client("orders").mint(batch) for batch in batches))
    assert all(answer == answers[0][:: -1 if n % 2 else 1] for n, answer in enumerate(answers))


async def test_two_retentions_or_buckets_or_people_or_stores_never_share_a_key(
    keyring: RunningKeyring,
) -> None:
    store, subject = uuid4(), uuid4()
    keys = [
        made(await mint(keyring, "orders", store, subject, ORDER)),
        made(await mint(keyring, "orders", store, subject, Retention.CORRESPONDENCE)),
        made(await mint(keyring, "identity", store, subject, Retention.ACCOUNT)),
        made(await mint(keyring, "billing", store, subject, ACCOUNTING, "2025")),
        made(await mint(keyring, "billing", store, subject, ACCOUNTING, "2026")),
        made(await mint(keyring, "orders", store, uuid4(), ORDER)),
        made(await mint(keyring, "orders", uuid4(), subject, ORDER)),
    ]
    assert len({key.key_id for key in keys}) == len({key.material for key in keys}) == len(keys)
    assert await mint(keyring, "orders", store, subject, ORDER) == keys[0]


async def test_a_batch_answers_in_its_order_and_may_name_a_key_twice(keyring: RunningKeyring) -> None:
    store, subjects = uuid4(), [uuid4() for _ in range(1500)]
    wanted = [KeyWanted(store, subject, ORDER) for subject in [*subjects, *subjects[:10]]]
    keys = [made(outcome) for outcome in await keyring.client("orders").mint(wanted)]
    assert [key.subject_id for key in keys] == [one.subject_id for one in wanted]
    assert keys[1500:] == keys[:10]
    assert len({key.key_id for key in keys}) == 1500
    opened = await keyring.client("orders").open([key.key_id for key in keys], purpose=Purpose.FULFIL_ORDER)
    assert opened == keys


async def test_an_accounting_key_has_its_date(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    await mint(keyring, "billing", store, subject, ACCOUNTING, "2026")
    [key] = await status(keyring, store, subject)
    assert (key.retention, key.bucket, key.expires_on) == (ACCOUNTING, "2026", date(2036, 12, 31))


# --- Opening ---------------------------------------------------------------------------------------------


async def test_openings_are_counted_by_service_and_purpose(own_keyring: RunningKeyring) -> None:
    count = (
        "SELECT coalesce(sum(count), 0) FROM opening_count WHERE service = :service AND purpose = :purpose"
    )
    asked = [
        ("orders", Purpose.FULFIL_ORDER),
        ("billing", Purpose.ACCOUNTING),
        ("identity", Purpose.SECURITY),
    ]

    async def counts() -> list[int]:
        return [
            await scalar(own_keyring.database, count, service=service, purpose=purpose)
            for service, purpose in asked
        ]

    before = await counts()
    keys = await own_keyring.client("orders").mint([KeyWanted(uuid4(), uuid4(), ORDER) for _ in range(7)])
    for service, purpose in asked:
        await own_keyring.client(service).open([made(key).key_id for key in keys], purpose=purpose)
    # Identity has no grant for orders: what it did not get is not counted.
    assert [after - then for after, then in zip(await counts(), before, strict=True)] == [7, 7, 0]


async def test_a_key_nobody_made_is_unknown_and_not_destroyed(keyring: RunningKeyring) -> None:
    assert await open_one(keyring, "orders", uuid4(), Purpose.FULFIL_ORDER) is KeyUnknown


async def test_a_restricted_key_opens_for_the_rights_of_the_person_alone(keyring: RunningKeyring) -> None:
    key = made(await mint(keyring, "orders", uuid4(), uuid4(), ORDER))
    async with keyring.database.platform_session() as session:
        await session.execute(
            text("UPDATE data_key SET state = 'restricted' WHERE key_id = :key"), {"key": key.key_id}
        )
    assert await open_one(keyring, "orders", key.key_id, Purpose.FULFIL_ORDER) is KeyRestricted
    assert await open_one(keyring, "orders", key.key_id, Purpose.RIGHTS_OF_THE_PERSON) == key
    assert await open_one(keyring, "identity", key.key_id, Purpose.RIGHTS_OF_THE_PERSON) is KeyForbidden


# --- Destroying ------------------------------------------------------------------------------------------


async def test_an_erasure_destroys_what_no_law_keeps(keyring: RunningKeyring) -> None:
    store, subject, request, other_request = uuid4(), uuid4(), uuid4(), uuid4()
    orders = made(await mint(keyring, "orders", store, subject, ORDER))
    account = made(await mint(keyring, "identity", store, subject, Retention.ACCOUNT))
    export = made(await mint(keyring, "orders", store, subject, Retention.EXPORT, str(request)))
    other = made(await mint(keyring, "privacy", store, subject, Retention.REQUEST, str(other_request)))
    own = made(await mint(keyring, "privacy", store, subject, Retention.REQUEST, str(request)))
    bill = made(await mint(keyring, "billing", store, subject, ACCOUNTING, YEAR))
    old_bill = made(await mint(keyring, "billing", store, subject, ACCOUNTING, "2001"))
    neighbour = made(await mint(keyring, "orders", store, uuid4(), ORDER))
    elsewhere = made(await mint(keyring, "orders", uuid4(), subject, ORDER))

    erased = await erase(keyring, store, subject, request_id=request)

    gone = [orders, account, export, other, old_bill]
    assert set(erased.destroyed) == {key.key_id for key in gone}
    assert {(kept.retention, kept.bucket, kept.expires_on) for kept in erased.kept} == {
        (ACCOUNTING, YEAR, date(int(YEAR) + 10, 12, 31)),
        (Retention.REQUEST, str(request), None),
    }
    assert all(kept.law for kept in erased.kept)
    rights = Purpose.RIGHTS_OF_THE_PERSON
    for service in ("catalog", "identity", "orders", "billing", "privacy"):
        opened = await keyring.client(service).open([key.key_id for key in gone], purpose=rights)
        assert opened == [KeyDestroyed] * len(gone)
    assert await open_one(keyring, "billing", bill.key_id, Purpose.ACCOUNTING) == bill
    assert await open_one(keyring, "privacy", own.key_id, rights) == own
    for key in (neighbour, elsewhere):
        assert await open_one(keyring, "orders", key.key_id, Purpose.FULFIL_ORDER) == key
    assert {key.key_id for key in await status(keyring, store, subject)} == {bill.key_id, own.key_id}


async def test_an_erasure_may_be_repeated(keyring: RunningKeyring) -> None:
    store, subject, request = uuid4(), uuid4(), uuid4()
    key = made(await mint(keyring, "orders", store, subject, ORDER))
    await mint(keyring, "billing", store, subject, ACCOUNTING, YEAR)
    first = await erase(keyring, store, subject, request_id=request)
    again = await erase(keyring, store, subject, request_id=request)
    assert (list(first.destroyed), list(again.destroyed)) == ([key.key_id], [])
    assert first.kept == again.kept
    assert await open_one(keyring, "orders", key.key_id, Purpose.FULFIL_ORDER) is KeyDestroyed


async def test_racing_erasures_of_one_person_all_end(keyring: RunningKeyring) -> None:
    store, people = uuid4(), [uuid4() for _ in range(20)]
    await keyring.client("orders").mint([KeyWanted(store, subject, ORDER) for subject in people])
    erasures = [Erasure(store, subject, 1, uuid4()) for subject in people]
    batches = [erasures, erasures[::-1], erasures * 2] * 3
    await asyncio.gather(*(keyring.client("privacy").destroy(batch) for batch in batches))
    assert await keyring.client("privacy").status([(store, subject) for subject in people]) == [[]] * 20


async def test_only_a_live_command_begins_the_next_generation(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    first = made(await mint(keyring, "orders", store, subject, ORDER))
    await erase(keyring, store, subject)
    assert await mint(keyring, "orders", store, subject, ORDER) is SubjectErased
    assert await mint(keyring, "identity", store, subject, Retention.ACCOUNT) is SubjectErased

    second = made(await mint(keyring, "orders", store, subject, ORDER, begin=True))
    assert (first.generation, second.generation) == (1, 2)
    assert await mint(keyring, "orders", store, subject, ORDER) == second
    assert made(await mint(keyring, "identity", store, subject, Retention.ACCOUNT)).generation == 2

    # A late repetition of the first erasure leaves the second generation alone.
    assert list((await erase(keyring, store, subject)).destroyed) == []
    assert await open_one(keyring, "orders", second.key_id, Purpose.FULFIL_ORDER) == second
    assert await open_one(keyring, "orders", first.key_id, Purpose.FULFIL_ORDER) is KeyDestroyed

    assert second.key_id in (await erase(keyring, store, subject, 2)).destroyed
    assert await mint(keyring, "orders", store, subject, ORDER) is SubjectErased


async def test_what_is_kept_of_an_older_generation_is_reported_again(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    await mint(keyring, "billing", store, subject, ACCOUNTING, YEAR)
    await erase(keyring, store, subject)
    await mint(keyring, "billing", store, subject, ACCOUNTING, YEAR, begin=True)
    assert [kept.bucket for kept in (await erase(keyring, store, subject, 2)).kept] == [YEAR, YEAR]


async def test_a_person_the_keyring_never_met_can_be_erased(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    erased = await erase(keyring, store, subject)
    assert (list(erased.destroyed), list(erased.kept)) == ([], [])
    assert await mint(keyring, "orders", store, subject, ORDER) is SubjectErased


async def test_the_request_itself_goes_on_sealing(keyring: RunningKeyring) -> None:
    store, subject, request = uuid4(), uuid4(), uuid4()
    key = made(await mint(keyring, "privacy", store, subject, Retention.REQUEST, str(request)))
    await erase(keyring, store, subject, request_id=request)
    assert await mint(keyring, "privacy", store, subject, Retention.REQUEST, str(request)) == key
    assert await mint(keyring, "privacy", store, subject, Retention.REQUEST, str(uuid4())) is SubjectErased


async def test_minting_races_erasing(keyring: RunningKeyring) -> None:
    """Whatever the order, no key of an erased generation is left that nobody asked to keep."""
    store = uuid4()
    for _ in range(15):
        subject = uuid4()
        outcomes = await asyncio.gather(
            *(mint(keyring, "orders", store, subject, ORDER) for _ in range(4)),
            erase(keyring, store, subject),
            *(mint(keyring, "orders", store, subject, Retention.CORRESPONDENCE) for _ in range(4)),
        )
        assert await status(keyring, store, subject) == []
        for key in outcomes:
            if isinstance(key, DataKey):
                assert await open_one(keyring, "orders", key.key_id, Purpose.FULFIL_ORDER) is KeyDestroyed


@pytest.mark.parametrize(
    ("today", "outlives"), [(date(2036, 12, 31), True), (date(2037, 1, 1), False), (date(2026, 1, 1), True)]
)
def test_the_law_keeps_until_its_day_has_passed(today: date, outlives: bool) -> None:
    kept = outlives_erasure(ACCOUNTING, "2026", date(2036, 12, 31), requests=frozenset(), today=today)
    assert kept is outlives


async def test_time_is_passed_in(own_keyring: RunningKeyring) -> None:
    """The same keyring, and the same again eleven years later."""
    store, subject = uuid4(), uuid4()
    key = made(await mint(own_keyring, "billing", store, subject, ACCOUNTING, "2026"))
    await own_keyring.stop()
    own_keyring.clock = lambda: datetime(2037, 1, 1, tzinfo=UTC)
    await own_keyring.start()
    assert list((await erase(own_keyring, store, subject)).destroyed) == [key.key_id]


# --- What is on disk -------------------------------------------------------------------------------------


async def test_no_key_lies_in_the_database_in_the_clear(keyring: RunningKeyring) -> None:
    key = made(await mint(keyring, "orders", uuid4(), uuid4(), ORDER))
    wrapped = await scalar(
        keyring.database, "SELECT wrapped FROM data_key WHERE key_id = :key", key=key.key_id
    )
    assert len(wrapped) == 12 + 32 + 16
    assert key.material not in wrapped


async def test_a_wrapped_key_moved_to_another_person_does_not_unwrap(keyring: RunningKeyring) -> None:
    """And this is an outage to be looked into, not an erasure."""
    store, victim, thief = uuid4(), uuid4(), uuid4()
    target = made(await mint(keyring, "orders", store, victim, ORDER))
    own = made(await mint(keyring, "orders", store, thief, ORDER))
    async with keyring.database.platform_session() as session:
        await session.execute(
            text("""
                UPDATE data_key SET wrapped = (SELECT wrapped FROM data_key WHERE key_id = :target)
                WHERE key_id = :own
            """),
            {"target": target.key_id, "own": own.key_id},
        )
    answer = await keyring.http.get(f"{keyring.url}/healthz/ready")
    assert answer.status_code == 200
    with pytest.raises(Exception, match="not possible right now"):
        await open_one(keyring, "orders", own.key_id, Purpose.FULFIL_ORDER)


async def test_an_older_master_key_still_unwraps(
    keyring_environment: dict[str, str], own_keyring: RunningKeyring
) -> None:
    before = made(await mint(own_keyring, "orders", uuid4(), uuid4(), ORDER))
    old, new = keyring_environment["KEYRING_MASTER_KEY"], "bmV3" * 10 + "bmU="
    await own_keyring.stop()
    own_keyring.settings = settings_of(keyring_environment, master_key=new, old_master_keys=[old])
    await own_keyring.start()
    assert await open_one(own_keyring, "orders", before.key_id, Purpose.FULFIL_ORDER) == before
    after = made(await mint(own_keyring, "orders", uuid4(), uuid4(), ORDER))
    masters = """
        SELECT count(DISTINCT tenant.master_key_id) FROM data_key AS key
        JOIN tenant_key AS tenant ON tenant.key_id = tenant_key_id WHERE key.key_id = ANY(:keys)
    """
    assert await scalar(own_keyring.database, masters, keys=[before.key_id, after.key_id]) == 2

    await own_keyring.stop()
    own_keyring.settings = settings_of(keyring_environment)
    await own_keyring.start()
    with pytest.raises(Exception, match="not possible right now"):
        await open_one(own_keyring, "orders", after.key_id, Purpose.FULFIL_ORDER)
    # The databases are the session's: what this test wrapped would puzzle others.
    await erase(own_keyring, after.store_id, after.subject_id)


async def test_another_scope_sees_no_keys(keyring: RunningKeyring) -> None:
    key = made(await mint(keyring, "orders", uuid4(), uuid4(), ORDER))
    count = text("SELECT count(*) FROM data_key WHERE key_id = :key")
    for store, seen in ((key.store_id, 1), (uuid4(), 0)):
        async with keyring.database.session(store) as session:
            assert await session.scalar(count, {"key": key.key_id}) == seen


@pytest.mark.parametrize(
    "statement", ["DELETE FROM destroyed_key", "UPDATE destroyed_key SET destroyed_at = now()"]
)
async def test_the_destruction_log_only_grows(keyring: RunningKeyring, statement: str) -> None:
    with pytest.raises(Exception, match="only grows"):
        async with keyring.destructions.platform_session() as session:
            await session.execute(text(statement))


async def test_the_destruction_log_names_nobody(keyring: RunningKeyring) -> None:
    async with keyring.destructions.platform_session() as session:
        columns = await session.scalars(
            text("SELECT column_name FROM information_schema.columns WHERE table_name = 'destroyed_key'")
        )
        assert Counter(columns.all()) == Counter(["key_id", "destroyed_at"])


# --- Restoring -------------------------------------------------------------------------------------------


async def copy(postgres: PostgresServer, database: str, folder: Path) -> str:
    """Dump a database and restore it under a new name."""
    dump, name = folder / f"{database}.dump", f"restored_{uuid4().hex[:12]}"
    await postgres.run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={database}")
    await postgres.run("createdb", name)
    await postgres.run("pg_restore", f"--dbname={name}", str(dump))
    return name


async def test_a_restored_keyring_refuses_what_was_destroyed_after_its_dump(
    keyring: RunningKeyring, keyring_environment: dict[str, str], postgres: PostgresServer, tmp_path: Path
) -> None:
    store, subject, neighbour, request = uuid4(), uuid4(), uuid4(), uuid4()
    key = made(await mint(keyring, "orders", store, subject, ORDER))
    bill = made(await mint(keyring, "billing", store, subject, ACCOUNTING, YEAR))
    other = made(await mint(keyring, "orders", store, neighbour, ORDER))
    name = await copy(postgres, "vitrine_keyring", tmp_path)
    await erase(keyring, store, subject, request_id=request)

    url = postgres.url(name, "vitrine_keyring_app")
    restored = RunningKeyring(
        settings_of(keyring_environment, database_url=url), keyring_environment, keyring.http
    )
    count = "SELECT count(*) FROM data_key WHERE key_id = :key"
    try:
        # The backup does hold the key: what follows is the replay's doing.
        assert await scalar(restored.database, count, key=key.key_id) == 1
        await restored.start()
        assert await scalar(restored.database, count, key=key.key_id) == 0
        assert await open_one(restored, "orders", key.key_id, Purpose.FULFIL_ORDER) is KeyDestroyed
        assert await mint(restored, "orders", store, subject, ORDER) is SubjectErased
        assert made(await mint(restored, "orders", store, subject, ORDER, begin=True)).generation == 2
        assert await open_one(restored, "billing", bill.key_id, Purpose.ACCOUNTING) == bill
        assert await open_one(restored, "orders", other.key_id, Purpose.FULFIL_ORDER) == other
    finally:
        await restored.close()


async def test_a_crash_between_log_and_deletion_is_made_good_at_the_next_start(
    own_keyring: RunningKeyring,
) -> None:
    key = made(await mint(own_keyring, "orders", uuid4(), uuid4(), ORDER))
    async with own_keyring.destructions.platform_session() as session:
        await session.execute(text("INSERT INTO destroyed_key (key_id) VALUES (:key)"), {"key": key.key_id})
    await own_keyring.stop()
    await own_keyring.start()
    assert await open_one(own_keyring, "orders", key.key_id, Purpose.FULFIL_ORDER) is KeyDestroyed


async def test_without_its_log_a_keyring_destroys_nothing_and_calls_nothing_destroyed(
    keyring: RunningKeyring, keyring_environment: dict[str, str], postgres: PostgresServer, tmp_path: Path
) -> None:
    name = await copy(postgres, "vitrine_destructions", tmp_path)
    settings = settings_of(
        keyring_environment, destructions_database_url=postgres.url(name, "vitrine_destructions_app")
    )
    running = RunningKeyring(settings, keyring_environment, keyring.http)
    try:
        await running.start()
        store, subject = uuid4(), uuid4()
        key = made(await mint(running, "orders", store, subject, ORDER))
        await running.destructions.close()
        await postgres.run("dropdb", "--force", name)
        with pytest.raises(Exception, match="not possible right now"):
            await erase(running, store, subject)
        assert await open_one(running, "orders", key.key_id, Purpose.FULFIL_ORDER) == key
        with pytest.raises(Exception, match="not possible right now"):
            await open_one(running, "orders", uuid4(), Purpose.FULFIL_ORDER)
    finally:
        await running.close()


def test_the_factory_needs_no_arguments(
    keyring_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in keyring_environment.items():
        monkeypatch.setenv(name, value)
    assert create_app().title == "Keyring"
