"""The keys of stores: one destruction closes a whole store for good, and nothing of any other."""

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from deploy.local.postgres import PostgresServer
from libs.common.personal.errors import KeyDestroyed, KeyForbidden
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy.keyring.domain import Kind, kind_of
from services.privacy.keyring.master_keys import MasterKeys, data_key_binding, store_secret_binding
from services.privacy.keyring.service import tenants
from tests.privacy.keyring.conftest import RunningKeyring, settings_of
from tests.privacy.keyring.test_keys import (
    ACCOUNTING,
    ORDER,
    YEAR,
    copy,
    made,
    mint,
    open_one,
    scalar,
    status,
)

FULFIL = Purpose.FULFIL_ORDER


async def end(keyring: RunningKeyring, store: UUID) -> None:
    """As the privacy service does: until nothing is left."""
    async with asyncio.timeout(20):
        while (await keyring.client("privacy").destroy_tenants([store]))[0]:
            pass


async def test_the_end_of_a_store_destroys_what_no_law_keeps_and_nothing_of_another(
    keyring: RunningKeyring,
) -> None:
    store, subject, other = uuid4(), uuid4(), uuid4()
    order = made(await mint(keyring, "orders", store, subject, ORDER))
    bill = made(await mint(keyring, "billing", store, subject, ACCOUNTING, YEAR))
    request = made(await mint(keyring, "privacy", store, subject, Retention.REQUEST, str(uuid4())))
    elsewhere = made(await mint(keyring, "orders", other, subject, ORDER))
    secrets = await keyring.client("orders").store_secrets([store])
    await end(keyring, store)
    assert await open_one(keyring, "orders", order.key_id, FULFIL) is KeyDestroyed
    assert await open_one(keyring, "billing", bill.key_id, Purpose.ACCOUNTING) == bill
    assert await open_one(keyring, "privacy", request.key_id, Purpose.RIGHTS_OF_THE_PERSON) == request
    assert await open_one(keyring, "orders", elsewhere.key_id, FULFIL) == elsewhere
    # Whom the shop knew can still be found, to be told what the law keeps.
    assert await keyring.client("privacy").store_secrets([store]) == secrets
    assert {key.retention for key in await status(keyring, store, subject)} == {ACCOUNTING, Retention.REQUEST}


async def test_nothing_is_sealed_any_more_but_what_answers_people(keyring: RunningKeyring) -> None:
    store, subject = uuid4(), uuid4()
    made(await mint(keyring, "orders", store, subject, ORDER))
    await end(keyring, store)
    for begin in (False, True):
        assert await mint(keyring, "orders", store, subject, ORDER, begin=begin) is KeyDestroyed
        assert await mint(keyring, "orders", store, uuid4(), ORDER, begin=begin) is KeyDestroyed
    made(await mint(keyring, "privacy", store, subject, Retention.REQUEST, str(uuid4())))


async def test_a_store_that_never_sealed_anything_ends_too(keyring: RunningKeyring) -> None:
    store = uuid4()
    await end(keyring, store)
    await end(keyring, store)
    assert await mint(keyring, "orders", store, uuid4(), ORDER, begin=True) is KeyDestroyed


async def test_who_has_nothing_left_is_forgotten(keyring: RunningKeyring) -> None:
    store, gone, kept = uuid4(), uuid4(), uuid4()
    made(await mint(keyring, "orders", store, gone, ORDER))
    made(await mint(keyring, "billing", store, kept, ACCOUNTING, YEAR))
    await end(keyring, store)
    people = "SELECT array_agg(subject_id) FROM subject WHERE store_id = :store"
    assert await scalar(keyring.database, people, store=store) == [kept]


async def test_a_large_store_ends_in_bounded_steps(
    keyring: RunningKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenants, "_AT_ONCE", 2)
    store = uuid4()
    keys = [made(await mint(keyring, "orders", store, uuid4(), ORDER)) for _ in range(5)]
    client = keyring.client("privacy")
    left = [(await client.destroy_tenants([store]))[0]]
    # All are closed by the first call; what follows tidies up.
    for key in keys:
        assert await open_one(keyring, "orders", key.key_id, FULFIL) is KeyDestroyed
    async with asyncio.timeout(20):
        while left[-1]:
            left.append((await client.destroy_tenants([store]))[0])
    assert len(left) > 2 and left == sorted(left, reverse=True)
    for key in keys:
        assert await open_one(keyring, "orders", key.key_id, FULFIL) is KeyDestroyed


async def test_only_who_governs_keys_may_end_a_store(keyring: RunningKeyring) -> None:
    for service in ("catalog", "orders", "identity", "billing"):
        with pytest.raises(KeyForbidden):
            await keyring.client(service).destroy_tenants([uuid4()])


# --- Crashes, restores, other processes ------------------------------------------------------------------


async def test_a_restored_keyring_opens_nothing_of_a_store_that_ended_since(
    keyring: RunningKeyring, keyring_environment: dict[str, str], postgres: PostgresServer, tmp_path: Path
) -> None:
    store, subject = uuid4(), uuid4()
    order = made(await mint(keyring, "orders", store, subject, ORDER))
    bill = made(await mint(keyring, "billing", store, subject, ACCOUNTING, YEAR))
    name = await copy(postgres, "vitrine_keyring", tmp_path)
    await keyring.client("privacy").destroy_tenants([store])
    restored = RunningKeyring(
        settings_of(keyring_environment, database_url=postgres.url(name, "vitrine_keyring_app")),
        keyring_environment,
        keyring.http,
    )
    # That the one id is enough: as if nothing had been written down key by key.
    count = "SELECT count(*) FROM tenant_key WHERE store_id = :store AND kind = 'ordinary' AND wrapped IS NOT NULL"
    try:
        assert await scalar(restored.database, count, store=store) == 1
        await restored.start()
        assert await scalar(restored.database, count, store=store) == 0
        assert await open_one(restored, "orders", order.key_id, FULFIL) is KeyDestroyed
        assert await mint(restored, "orders", store, subject, ORDER, begin=True) is KeyDestroyed
        assert await open_one(restored, "billing", bill.key_id, Purpose.ACCOUNTING) == bill
    finally:
        await restored.close()


@pytest.mark.parametrize("point", ["before the log", "after the log"])
async def test_a_crash_in_the_middle_is_made_good(own_keyring: RunningKeyring, point: str) -> None:
    store, subject = uuid4(), uuid4()
    key = made(await mint(own_keyring, "orders", store, subject, ORDER))
    async with own_keyring.database.platform_session() as session:
        retire = "UPDATE tenant_key SET retired_at = now() WHERE store_id = :store RETURNING key_id"
        tenant = await session.scalar(text(retire), {"store": store})
    if point == "after the log":
        async with own_keyring.destructions.platform_session() as session:
            await session.execute(text("INSERT INTO destroyed_key (key_id) VALUES (:key)"), {"key": tenant})
    await own_keyring.stop()
    await own_keyring.start()
    opened = await open_one(own_keyring, "orders", key.key_id, FULFIL)
    assert opened == (key if point == "before the log" else KeyDestroyed)
    # What began has to be finished, so nothing new comes to lie under it in between.
    assert await mint(own_keyring, "orders", store, uuid4(), ORDER) is KeyDestroyed
    await end(own_keyring, store)
    assert await open_one(own_keyring, "orders", key.key_id, FULFIL) is KeyDestroyed


async def test_another_process_of_the_keyring_opens_nothing_from_that_moment(
    keyring: RunningKeyring, own_keyring: RunningKeyring
) -> None:
    store = uuid4()
    key = made(await mint(own_keyring, "orders", store, uuid4(), ORDER))
    assert await open_one(own_keyring, "orders", key.key_id, FULFIL) == key
    await keyring.client("privacy").destroy_tenants([store])
    assert await open_one(own_keyring, "orders", key.key_id, FULFIL) is KeyDestroyed
    assert await mint(own_keyring, "orders", store, uuid4(), ORDER) is KeyDestroyed


async def test_minting_races_the_end_of_the_store(keyring: RunningKeyring) -> None:
    """Whatever was handed out at that moment opens no more afterwards, and nothing stays behind."""
    for _ in range(5):
        store = uuid4()
        made(await mint(keyring, "orders", store, uuid4(), ORDER))
        minting = [mint(keyring, "orders", store, uuid4(), ORDER, begin=True) for _ in range(10)]
        ending = asyncio.create_task(end(keyring, store))
        outcomes = await asyncio.gather(*minting)
        await ending
        await end(keyring, store)
        for outcome in outcomes:
            if outcome is not KeyDestroyed:
                assert await open_one(keyring, "orders", made(outcome).key_id, FULFIL) is KeyDestroyed


async def test_a_master_key_that_is_missing_is_no_destruction(
    keyring: RunningKeyring, keyring_environment: dict[str, str], postgres: PostgresServer, tmp_path: Path
) -> None:
    key = made(await mint(keyring, "orders", uuid4(), uuid4(), ORDER))
    name = await copy(postgres, "vitrine_keyring", tmp_path)
    values = {"database_url": postgres.url(name, "vitrine_keyring_app"), "master_key": "bmV3" * 10 + "bmU="}
    both = settings_of(
        keyring_environment, **values, old_master_keys=[keyring_environment["KEYRING_MASTER_KEY"]]
    )
    rotating = RunningKeyring(both, keyring_environment, keyring.http)
    try:
        await rotating.start()
        newer = made(await mint(rotating, "orders", uuid4(), uuid4(), ORDER))
        await rotating.stop()
        rotating.settings = settings_of(keyring_environment, **values)
        await rotating.start()
        with pytest.raises(Exception, match="not possible right now"):
            await open_one(rotating, "orders", key.key_id, FULFIL)
        assert await open_one(rotating, "orders", newer.key_id, FULFIL) == newer
    finally:
        await rotating.close()


# --- What was wrapped before -----------------------------------------------------------------------------


async def test_a_key_from_before_stores_had_keys_opens_and_ends_with_its_store(
    keyring: RunningKeyring, keyring_environment: dict[str, str]
) -> None:
    store, subject = uuid4(), uuid4()
    key = made(await mint(keyring, "orders", store, subject, ORDER))
    [secrets] = (await keyring.client("orders").store_secrets([store])).values()
    masters = MasterKeys(keyring_environment["KEYRING_MASTER_KEY"])
    async with keyring.database.platform_session() as session:
        for table, wrapped in (
            ("data_key", masters.wrap(key.material, data_key_binding(key.key_id, store, subject))),
            ("store_secret", masters.wrap(secrets.secret, store_secret_binding(store))),
        ):
            await session.execute(
                text(f"""
                    UPDATE {table} SET wrapped = :wrapped, master_key_id = :master, tenant_key_id = NULL
                    WHERE store_id = :store
                """),
                {"wrapped": wrapped, "master": masters.present_id, "store": store},
            )
    assert await open_one(keyring, "orders", key.key_id, FULFIL) == key
    assert await mint(keyring, "orders", store, subject, ORDER) == key
    assert await keyring.client("billing").store_secrets([store]) == {store: secrets}
    await end(keyring, store)
    assert await open_one(keyring, "orders", key.key_id, FULFIL) is KeyDestroyed
    assert await mint(keyring, "orders", store, subject, ORDER, begin=True) is KeyDestroyed


async def test_the_bytes_of_a_destroyed_key_open_nothing_with_the_master_key(
    keyring: RunningKeyring, keyring_environment: dict[str, str]
) -> None:
    """What lies in a backup of the row is of no use to whoever has the master key and the row, without the other."""
    store, subject = uuid4(), uuid4()
    key = made(await mint(keyring, "orders", store, subject, ORDER))
    wrapped = "SELECT wrapped FROM data_key WHERE key_id = :key"
    lying = await scalar(keyring.database, wrapped, key=key.key_id)
    masters = MasterKeys(keyring_environment["KEYRING_MASTER_KEY"])
    with pytest.raises(Exception, match="not possible right now"):
        masters.unwrap(lying, masters.present_id, data_key_binding(key.key_id, store, subject))


def test_what_lies_under_which_key() -> None:
    kept = {one for one in Retention if kind_of(one) is Kind.KEPT}
    assert {one for one in Retention if one.period.kept_by_law} < kept
    assert Retention.REQUEST in kept and Retention.ACCOUNT not in kept and Retention.ORDER not in kept
