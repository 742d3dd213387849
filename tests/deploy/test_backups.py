"""`make backup` and `make restore` over real databases: what is saved, what is refused, and what never goes back."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest

from deploy.local.backup import Places, backup
from deploy.local.backups import sets
from deploy.local.backups.positions import KafkaGroups
from deploy.local.databases import database, provision
from deploy.local.environment import keys
from deploy.local.errors import AlreadyRunning, DiskFull, StartError
from deploy.local.kafka import KafkaServer
from deploy.local.migrate import migrate
from deploy.local.nursery import ROOT
from deploy.local.postgres import PostgresServer
from deploy.local.restore import restore
from libs.common.broker import Record
from libs.common.broker.kafka import KafkaBroker
from libs.common.db import ALL_STORES, Database
from libs.common.personal.data import VERSION
from services.privacy.destructions import service as destructions
from services.privacy.keyring.service.destroying import WrongLog, replay

_NAMES = ("orders", "broker", "keyring", "destructions")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vitrine-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
async def server(folder: Path) -> AsyncIterator[PostgresServer]:
    server = PostgresServer(folder / "postgres", fast=True)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="module")
async def addresses(server: PostgresServer) -> Mapping[str, str]:
    found = await provision(server)
    await migrate(found, _NAMES)
    return found


@pytest.fixture
def data(folder: Path, addresses: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """As an operator has it: the databases are named in the environment."""
    for variable, address in {**addresses, **keys(folder)}.items():
        monkeypatch.setenv(variable, address)
    return folder


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of(tmp_path / "a", tmp_path / "b", tmp_path / "c")


@pytest.fixture
def said() -> list[str]:
    return []


async def ask(server: PostgresServer, name: str, query: str, *arguments: object) -> Any:
    connection = await server.connect(database(name))
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


async def save(data: Path, places: Places, *names: str) -> str:
    return await backup(data, places, names or _NAMES, say=lambda _: None)


# --- Saving ----------------------------------------------------------------------------------------------


async def test_what_is_saved_is_whole_and_for_its_owner_alone(data: Path, places: Places) -> None:
    name = await save(data, places)
    files = [
        file for place in (places.databases, places.keyring, places.destructions) for file in place.rglob("*")
    ]
    assert {file.stat().st_mode & 0o777 for file in files if file.is_file()} == {0o600}
    assert {file.name for file in files if file.is_dir()} == {name}
    manifest = sets.read(places.databases / name)
    assert [one.name for one in manifest.databases] == ["broker", "orders"]
    for one in manifest.databases:
        assert sets.check(places.databases / name, one).stat().st_size == one.size
    # Three places, so that whoever takes one has not the others.
    assert [one.name for one in sets.read(places.keyring / name).databases] == ["keyring"]
    assert [one.name for one in sets.read(places.destructions / name).databases] == ["destructions"]


async def test_every_stores_rows_are_saved(data: Path, server: PostgresServer, places: Places) -> None:
    """Row-level security binds the owner too: a dump that saw no store would be an empty one."""
    stores = [uuid4(), uuid4()]
    insert = "INSERT INTO known_store VALUES ($1::uuid, $1::uuid::text, 'Shop', 'FR', 'EUR', 'fr', 1)"
    for store in stores:
        await ask(server, "orders", insert, store)
    name = await save(data, places, "orders")
    await ask(server, "orders", "DELETE FROM known_store")
    assert await restore(data, places, ["orders"], name, say=lambda _: None)
    count = "SELECT count(*) FROM known_store WHERE store_id = ANY($1)"
    assert await ask(server, "orders", count, stores) == 2
    # And they are as apart as before.
    forced = "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE relname = 'known_store'"
    assert await ask(server, "orders", forced)
    app = Database(os.environ["ORDERS_DATABASE_URL"], pool_size=1)
    assert await app.read(stores[0], "SELECT count(*) FROM known_store") == 1
    await app.close()


async def test_a_full_disk_is_said_before_and_leaves_nothing(
    data: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.backup.free_bytes", _nothing)
    with pytest.raises(DiskFull, match="MB are needed"):
        await save(data, places, "orders")
    assert list(places.databases.iterdir()) == []


def _nothing(_: Path) -> int:
    return 0


async def test_a_place_that_is_none_is_said(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be used: Not a directory"):
        await save(data, Places.of(tmp_path / "file"), "orders")


def test_only_the_time_of_a_set_decides_when_it_goes(places: Places) -> None:
    now = datetime.now(UTC)
    for days in range(0, 40, 5):
        (places.keyring / sets.stamp(now - timedelta(days=days))).mkdir(parents=True)
    (places.keyring / "something of mine").mkdir()
    assert len(sets.prune(places.keyring, before=now - timedelta(days=7))) == 6
    assert sorted(one.name for one in places.keyring.iterdir())[-1] == "something of mine"
    assert len(list(places.keyring.iterdir())) == 3
    assert len(sets.keep_newest(places.keyring, 1)) == 1


# --- What is refused -------------------------------------------------------------------------------------


async def test_an_altered_backup_is_refused_and_changes_nothing(
    data: Path, server: PostgresServer, places: Places
) -> None:
    name = await save(data, places, "orders")
    dump = places.databases / name / "orders.dump"
    content = dump.read_bytes()
    marks = await ask(server, "orders", "SELECT count(*) FROM restoration")
    for altered in (content[:-1], content[:100] + b"x" + content[101:]):
        dump.write_bytes(altered)
        with pytest.raises(sets.BackupUnusable, match="altered or is damaged"):
            await restore(data, places, ["orders"], name, say=lambda _: None)
    dump.unlink()
    with pytest.raises(sets.BackupUnusable, match="missing"):
        await restore(data, places, ["orders"], name, say=lambda _: None)
    assert await ask(server, "orders", "SELECT count(*) FROM restoration") == marks


async def test_a_manifest_of_something_else_is_refused(data: Path, places: Places) -> None:
    name = await save(data, places, "orders")
    file = places.databases / name / "manifest.json"
    manifest = orjson.loads(file.read_bytes())
    manifest["databases"][0]["revision"] = "9999"
    file.write_bytes(orjson.dumps(manifest))
    with pytest.raises(sets.BackupUnusable, match="newer release"):
        await restore(data, places, ["orders"], name, say=lambda _: None)
    for content in (b"{", orjson.dumps(manifest | {"format": 2})):
        file.write_bytes(content)
        with pytest.raises(sets.BackupUnusable, match="damaged, or of a release"):
            await restore(data, places, ["orders"], name, say=lambda _: None)
    with pytest.raises(sets.BackupUnusable, match="There is no backup 20200101T000000Z"):
        await restore(data, places, ["orders"], "20200101T000000Z", say=lambda _: None)
    with pytest.raises(sets.BackupUnusable, match="no backup of keyring"):
        await restore(data, places, ["keyring"], say=lambda _: None)


async def test_a_database_that_is_used_is_left_alone(
    data: Path, server: PostgresServer, places: Places
) -> None:
    name = await save(data, places, "orders")
    connection = await server.connect(database("orders"))
    with pytest.raises(AlreadyRunning, match="1 connections use the database orders"):
        await restore(data, places, ["orders"], name, say=lambda _: None)
    await connection.close()
    assert await restore(data, places, ["orders"], name, say=lambda _: None)


async def test_a_restore_that_breaks_off_leaves_the_database_as_it_was(
    data: Path, server: PostgresServer, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await save(data, places, "orders")
    store = uuid4()
    insert = "INSERT INTO known_store VALUES ($1::uuid, $1::uuid::text, 'Shop', 'FR', 'EUR', 'fr', 1)"
    await ask(server, "orders", insert, store)
    with monkeypatch.context() as broken:
        broken.setattr("deploy.local.restore._marks", _no_marks)
        with pytest.raises(StartError, match="division by zero"):
            await restore(data, places, ["orders"], name, say=lambda _: None)
    count = "SELECT count(*) FROM known_store WHERE store_id = $1"
    assert await ask(server, "orders", count, store) == 1
    # Twice is as once, but for the second mark.
    marks: list[int] = []
    for _ in range(2):
        assert await restore(data, places, ["orders"], name, say=lambda _: None)
        marks.append(
            await ask(server, "orders", "SELECT count(*) FROM restoration WHERE announced_at IS NULL")
        )
    assert marks[0] == marks[1] > 0


def _no_marks(_: sets.Saved) -> list[str]:
    return ["SELECT 1 / 0"]


async def test_this_machines_server_is_started_for_it(tmp_path: Path, places: Places) -> None:
    data = Path(tempfile.mkdtemp(prefix="vitrine-"))
    try:
        with pytest.raises(StartError, match="There is no platform in"):
            await save(data / "nothing", places, "destructions")
        server = PostgresServer(data / "postgres", fast=True)
        await server.start()
        await migrate(await provision(server), ["destructions"])
        await server.stop()
        name = await save(data, places, "destructions")
        assert sets.find(places.destructions, None) == places.destructions / name
    finally:
        shutil.rmtree(data)


async def test_a_name_that_is_none_of_ours_is_said(tmp_path: Path) -> None:
    for module, words in (("backup", ["--to", str(tmp_path)]), ("restore", ["--from", str(tmp_path)])):
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"deploy.local.{module}", *words, "--only=order"),
            cwd=ROOT, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, error = await program.communicate()
        assert program.returncode == 1
        assert error.decode().startswith("There is no database order. There are: catalog, orders")


# --- The keyring and its log -----------------------------------------------------------------------------


@pytest.fixture
async def keyring(data: Path) -> AsyncIterator[tuple[Database, Database]]:
    """The keyring's database and the log's."""
    opened = [
        Database(os.environ[f"{name}_DATABASE_URL"], pool_size=1) for name in ("KEYRING", "DESTRUCTIONS")
    ]
    yield opened[0], opened[1]
    for one in opened:
        await one.close()


async def destroy(log: Database, *key_ids: Any) -> None:
    async with log.transaction(ALL_STORES) as transaction:
        await destructions.append(transaction, key_ids)
    await log.engine.dispose()


async def test_the_log_is_only_added_to(
    data: Path, server: PostgresServer, places: Places, keyring: tuple[Database, Database], said: list[str]
) -> None:
    before, since = uuid4(), uuid4()
    await destroy(keyring[1], before)
    name = await save(data, places, "destructions")
    await destroy(keyring[1], since)
    assert await restore(data, places, ["destructions"], name, say=said.append)
    count = "SELECT count(*) FROM destroyed_key WHERE key_id = ANY($1)"
    assert await ask(server, "destructions", count, [before, since]) == 2
    assert any("0 entries were missing" in line for line in said)


async def test_a_keyring_without_its_log_serves_nobody_until_the_log_is_back(
    data: Path, server: PostgresServer, places: Places, keyring: tuple[Database, Database], said: list[str],
    addresses: Mapping[str, str],
) -> None:  # fmt: skip
    key_id = uuid4()
    await replay(*keyring)
    await destroy(keyring[1], key_id)
    await save(data, places, "keyring", "destructions")
    for one in keyring:
        await one.engine.dispose()
    await server.run("dropdb", "--force", database("destructions"))
    await provision(server)
    await migrate(addresses, ["destructions"])
    with pytest.raises(WrongLog, match="KEYRING_TRUSTED_LOG"):
        await replay(*keyring)
    for one in keyring:
        await one.engine.dispose()
    assert not await restore(data, places, ["keyring"], say=said.append)
    assert any("is not that of this keyring" in line for line in said)
    # The log alone mends it, with the identity it had.
    assert await restore(data, places, ["destructions"], say=said.append)
    assert await replay(*keyring) == 0
    assert (
        await ask(server, "destructions", "SELECT count(*) FROM destroyed_key WHERE key_id = $1", key_id) == 1
    )


async def test_boxes_whose_keys_are_lost_are_counted(
    data: Path, server: PostgresServer, places: Places, keyring: tuple[Database, Database], said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A key that is destroyed is none of them: unknown is neither erased nor away."""
    for service in ("catalog", "identity", "billing", "privacy"):
        monkeypatch.delenv(f"{service.upper()}_DATABASE_URL")
        monkeypatch.delenv(f"{service.upper()}_MIGRATION_DATABASE_URL")
    destroyed, lost = uuid4(), uuid4()
    await replay(*keyring)
    await destroy(keyring[1], destroyed)
    await save(data, places, "keyring", "destructions")
    insert = """
        INSERT INTO waiting_letter (id, store_id, subject_id, generation, kind, box)
        VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 'Letter', $1)
    """
    for key_id in (destroyed, lost, lost):
        await ask(server, "orders", insert, bytes([VERSION]) + key_id.bytes + bytes(60))
    for one in keyring:
        await one.engine.dispose()
    assert await restore(data, places, ["keyring"], say=said.append)
    assert [line.split()[:3] for line in said if "unknown" in line] == [
        ["orders.waiting_letter", "2", "boxes"]
    ]


async def test_a_log_that_is_older_than_its_keyring_is_noticed(
    data: Path, server: PostgresServer, keyring: tuple[Database, Database]
) -> None:
    await replay(*keyring)
    # What the keyring has deleted was in the log, and is not any more.
    await ask(server, "keyring", "UPDATE log_seen SET key_id = $1", uuid4())
    with pytest.raises(WrongLog, match="is older than this keyring"):
        await replay(*keyring)
    trusted = await ask(server, "destructions", "SELECT id FROM log_identity")
    await replay(*keyring, trusted=trusted)
    assert await replay(*keyring) == 0


# --- Positions -------------------------------------------------------------------------------------------

_LOG = """
    INSERT INTO topic_partition VALUES ('t', 0, 9), ('t', 1, 9), ('t', 2, 9);
    INSERT INTO assignment (group_name, topic, partition, committed)
        VALUES ('orders', 't', 0, 9), ('orders', 't', 1, 9), ('orders', 't', 2, 2);
    INSERT INTO record (topic, partition, position, key, headers, value)
        SELECT 't', partition, position, '', '{}', '' FROM generate_series(0, 2) AS partition,
            generate_series(5, 8) AS position
"""


async def test_a_restored_service_reads_again_what_came_since(
    data: Path, server: PostgresServer, places: Places, said: list[str]
) -> None:
    connection = await server.connect(database("broker"))
    await connection.execute(_LOG)
    await connection.execute("UPDATE assignment SET committed = 7 WHERE partition = 0")
    await connection.close()
    name = await save(data, places, "orders")
    committed = "SELECT array_agg(committed ORDER BY partition) FROM assignment"
    await ask(server, "broker", "UPDATE assignment SET committed = 9")
    await restore(data, places, ["orders"], name, say=said.append)
    # What is gone from the log is said: the third partition began at 5, and had to be read from 2.
    assert await ask(server, "broker", committed) == [7, 9, 2]
    assert any("reads again since the backup" in line for line in said)
    assert any("1 partitions since the backup are kept no more" in line for line in said)
    # The log itself comes back as another: whoever sent to it sends again, and everybody reads what it has.
    before = await ask(server, "broker", "SELECT id FROM cluster")
    saved = await save(data, Places.of(places.databases.parent / "later"), "broker", "orders")
    await ask(server, "broker", "UPDATE assignment SET committed = 9")
    await restore(
        data, Places.of(places.databases.parent / "later"), ["broker", "orders"], saved, say=said.append
    )
    assert await ask(server, "broker", "SELECT id FROM cluster") != before
    assert await ask(server, "broker", committed) == [5, 5, 2]


async def test_groups_of_kafka_are_read_and_set_back(kafka: KafkaServer) -> None:
    group, topic = f"group-{uuid4().hex[:8]}", f"topic-{uuid4().hex[:8]}"
    broker = KafkaBroker(kafka.bootstrap_servers)
    await broker.start()
    try:
        await broker.ensure_topics([topic])
        await broker.publish([Record(topic, "key", str(number).encode()) for number in range(4)])
        groups = KafkaGroups(kafka.bootstrap_servers)
        assert await groups.cluster_id() == await broker.cluster_id()
        assert await groups.set_back(group, {}) == 0
        assert await _read(broker, group, topic, 2) == [b"0", b"1", b"2", b"3"]
        positions = await groups.read(group)
        assert max(positions.values()) == 4
        await broker.publish([Record(topic, "key", b"4")])
        assert await _read(broker, group, topic, 1) == [b"4"]
        assert await groups.set_back(group, positions) == 0
        assert await _read(broker, group, topic, 1) == [b"4"]
        assert await groups.set_back(group, None) == 0
        assert (await _read(broker, group, topic, 5))[0] == b"0"
    finally:
        await broker.stop()


async def _read(broker: KafkaBroker, group: str, topic: str, number: int) -> list[bytes]:
    """At least so many records, committed."""
    found: list[bytes] = []
    async with broker.subscribe(group, [topic]) as subscription, asyncio.timeout(60):
        async for batch in subscription:
            found += [record.value for record in batch.records]
            await batch.commit()
            if len(found) >= number:
                return found
    return found
