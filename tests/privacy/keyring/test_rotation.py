"""Master keys and secrets of blind indexes change while everybody goes on: nothing fails, and nothing old is left."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until
from libs.common.personal.errors import KeyDestroyed, KeyForbidden
from libs.common.personal.keys import Rotation
from libs.common.personal.vocabulary import Purpose, Retention
from services.privacy.keyring.app import create_app
from services.privacy.keyring.master_keys import MasterKeys
from services.privacy.keyring.rewrap import run
from services.privacy.keyring.service.rewrapping import MasterKeyUnknown, counted, rewrap
from tests.privacy.keyring.conftest import RunningKeyring, settings_of
from tests.privacy.keyring.test_keys import copy, made, mint, open_one
from tests.privacy.keyring.test_tenants import end

OLD, NEW = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))


@pytest.fixture
async def own_settings(
    keyring_environment: Mapping[str, str], keyring: RunningKeyring, postgres: PostgresServer, tmp_path: Path
) -> AsyncIterator[Callable[..., RunningKeyring]]:
    """Makes keyrings over a database of the test's own, which begins with nothing under a key of others."""
    name = await copy(postgres, "vitrine_keyring", tmp_path)
    url = postgres.url(name, "vitrine_keyring_app")
    running: list[RunningKeyring] = []

    def make(**changes: object) -> RunningKeyring:
        values = {"database_url": url, "master_key": OLD} | changes
        running.append(
            RunningKeyring(settings_of(keyring_environment, **values), keyring_environment, keyring.http)
        )
        return running[-1]

    async with make().database.platform_session() as session:
        for table in ("data_key", "store_secret", "index_secret", "tenant_key"):
            await session.execute(text(f"DELETE FROM {table}"))
    yield make
    for one in running:
        await one.close()


# --- Master keys -----------------------------------------------------------------------------------------


async def test_a_master_key_changes_under_load_without_one_error(
    own_settings: Callable[..., RunningKeyring],
) -> None:
    """Two keyrings, first told of the new key, then using it one after the other, while both mint and open."""
    two = [own_settings(old_master_keys=[NEW]) for _ in range(2)]
    await asyncio.gather(*(one.start() for one in two))
    before = [made(await mint(two[0], "orders", uuid4(), uuid4(), Retention.ORDER)) for _ in range(50)]
    await two[0].client("orders").store_secrets([key.store_id for key in before[:10]])
    gone = made(await mint(two[0], "orders", uuid4(), uuid4(), Retention.ORDER))
    await end(two[0], gone.store_id)
    stop, done = asyncio.Event(), 0

    async def load(keyring: RunningKeyring) -> None:
        nonlocal done
        while not stop.is_set():
            key = made(await mint(keyring, "orders", uuid4(), uuid4(), Retention.ORDER))
            for known in (key, before[done % len(before)]):
                assert await open_one(keyring, "orders", known.key_id, Purpose.FULFIL_ORDER) == known
            done += 1

    first, second = two
    busy = asyncio.create_task(load(second))
    await first.stop()
    first.settings = first.settings.model_copy(update=_keys(present=NEW, older=[OLD]))
    await first.start()
    also_busy = asyncio.create_task(load(first))
    words: list[str] = []
    masters = MasterKeys(NEW, [OLD])
    async for _ in rewrap(first.database, masters, batch=7):
        await asyncio.sleep(0)

    async def was_busy() -> bool:
        return done > 10

    await _becomes(was_busy)
    # The second keyring still makes keys under the old one: what it made since is met by another run.
    stop.set()
    await asyncio.gather(busy, also_busy)
    await second.stop()
    second.settings = first.settings
    await second.start()
    assert await run(first.database, masters, say=words.append) == 0
    assert set(await counted(first.database)) == {masters.present_id}
    await asyncio.gather(*(one.stop() for one in two))
    alone = own_settings(master_key=NEW)
    await alone.start()
    for key in before:
        assert await open_one(alone, "orders", key.key_id, Purpose.FULFIL_ORDER) == key
    # A store that has ended has no key to wrap, and gets none.
    assert await open_one(alone, "orders", gone.key_id, Purpose.FULFIL_ORDER) is KeyDestroyed
    assert await mint(alone, "orders", gone.store_id, uuid4(), Retention.ORDER) is KeyDestroyed


def _keys(*, present: str, older: list[str]) -> dict[str, object]:
    return {"master_key": SecretStr(present), "old_master_keys": [SecretStr(one) for one in older]}


async def test_a_keyring_from_before_a_rotation_says_which_key_it_needs(
    own_settings: Callable[..., RunningKeyring],
) -> None:
    keyring = own_settings()
    await keyring.start()
    key = made(await mint(keyring, "orders", uuid4(), uuid4(), Retention.ORDER))
    await keyring.stop()
    without = own_settings(master_key=NEW)
    fingerprint = MasterKeys(OLD).present_id
    with pytest.raises(MasterKeyUnknown, match=fingerprint):
        await _starts(without)
    with pytest.raises(MasterKeyUnknown, match="KEYRING_OLD_MASTER_KEYS"):
        await run(without.database, MasterKeys(NEW), say=lambda _: None)
    # Nothing was changed, so the key that is missing is all that is needed.
    again = own_settings(master_key=NEW, old_master_keys=[OLD])
    await again.start()
    assert await open_one(again, "orders", key.key_id, Purpose.FULFIL_ORDER) == key


async def _starts(keyring: RunningKeyring) -> None:
    app = create_app(keyring.settings)
    async with app.router.lifespan_context(app):
        pass


# --- Secrets of blind indexes ----------------------------------------------------------------------------


async def test_an_index_secret_changes_in_steps_and_subject_ids_do_not(
    own_settings: Callable[..., RunningKeyring],
) -> None:
    names = ("catalog", "orders", "identity", "billing", "privacy")
    keyring = own_settings(store_secret_seconds=0.2)
    known = {name: key for name, key in keyring.settings.service_keys.items() if name in names}
    keyring.settings = keyring.settings.model_copy(update={"service_keys": known})
    await keyring.start()
    store, mail = uuid4(), "canary-index@vitrine.example"
    vault = keyring.vault("identity", secret_seconds=0.2)
    subject, [old] = await vault.subject_id(store, mail), await vault.blind_indexes(store, "email", mail)
    privacy = keyring.client("privacy")
    [rotation] = await privacy.rotate_indexes([store])
    # Asked for twice it is the same change.
    assert await privacy.rotate_indexes([store]) == [rotation] == [Rotation(store, 2)]
    fresh = keyring.vault("orders", secret_seconds=0.2)
    # Everybody looks it up before anybody writes it.
    assert (await fresh.blind_indexes(store, "email", mail))[0] == old
    assert len(await fresh.blind_indexes(store, "email", mail)) == 2

    async def writes_it() -> bool:
        return await vault.index_epoch(store) == 2

    await _becomes(writes_it)
    new, still = await vault.blind_indexes(store, "email", mail)
    assert still == old and new != old
    await _becomes(lambda: _is_asked(keyring, names[0], rotation))
    for name in names:
        assert await keyring.client(name).rotations() == [rotation], name
        assert len((await privacy.store_secrets([store]))[store].indexes) == 2
        await keyring.client(name).report_indexed([rotation])
        assert await keyring.client(name).rotations() == []
    assert [one.epoch for one in (await privacy.store_secrets([store]))[store].indexes] == [2]
    assert await keyring.vault("billing").subject_id(store, mail) == subject


async def test_a_store_from_before_there_were_epochs_is_found_and_changes_too(
    own_settings: Callable[..., RunningKeyring],
) -> None:
    keyring = own_settings(store_secret_seconds=0.1)
    await keyring.start()
    store, mail = uuid4(), "canary-index@vitrine.example"
    await keyring.client("orders").store_secrets([store])
    async with keyring.database.platform_session() as session:
        await session.execute(text("DELETE FROM index_secret WHERE store_id = :store"), {"store": store})
    vault = keyring.vault("orders", secret_seconds=0.1)
    [old] = await vault.blind_indexes(store, "email", mail)
    assert len(old) == 32
    assert await keyring.client("privacy").rotate_indexes([store]) == [Rotation(store, 1)]

    async def knows_both() -> bool:
        return await vault.index_epoch(store) == 1

    await _becomes(knows_both)
    assert (await vault.blind_indexes(store, "email", mail))[1] == old


@pytest.mark.parametrize("service", ["catalog", "orders", "identity", "billing"])
async def test_only_privacy_changes_secrets_and_asks_who_is_erased(
    keyring: RunningKeyring, service: str
) -> None:
    client = keyring.client(service)
    for asking in (client.rotate_indexes([uuid4()]), client.restorations(), client.fates()):
        with pytest.raises(KeyForbidden):
            await asking


async def _is_asked(keyring: RunningKeyring, service: str, rotation: Rotation) -> bool:
    return await keyring.client(service).rotations() == [rotation]


async def _becomes(condition: Callable[[], Awaitable[bool]]) -> None:
    await until(condition, 10, "it did not come")
