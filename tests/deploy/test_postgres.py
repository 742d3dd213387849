"""PostgreSQL as the tests and the local platform use it: through a crash, a taken port, a second owner."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import psutil
import pytest

from deploy.local import postgres as module
from deploy.local.databases import NAMES, OWNER, app_role, database, provision
from deploy.local.errors import AlreadyRunning, DiskFull, PortTaken
from deploy.local.ports import free_port
from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vitrine-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[PostgresServer]:
    server = PostgresServer(folder / "postgres", fast=True)
    await server.start()
    yield server
    await server.stop()


async def ask(server: PostgresServer, question: str) -> Any:
    connection = await server.connect()
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def log_in(url: str) -> None:
    connection: Any = await asyncpg.connect(url)  # pyright: ignore[reportUnknownMemberType]
    await connection.close()


async def test_it_keeps_data_and_port_over_a_stop(server: PostgresServer) -> None:
    port = server.port
    await ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    await server.stop()
    assert server.pid is None
    await server.start()
    assert server.port == port
    assert await ask(server, "SELECT answer FROM kept") == 42


async def test_it_recovers_what_was_committed_before_a_crash(server: PostgresServer) -> None:
    connection = await server.connect()
    await connection.execute("CREATE TABLE kept (answer int)")
    await connection.execute("INSERT INTO kept VALUES (42)")
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO kept VALUES (43)")
    server.kill()
    assert server.pid is None
    connection.terminate()
    await server.start()
    assert await ask(server, "SELECT array_agg(answer) FROM kept") == [42]


async def test_nobody_enters_without_the_password(server: PostgresServer) -> None:
    address = server.url("postgres").replace(server.password("postgres"), "guess")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await log_in(address)


async def test_secrets_and_log_are_their_owners_alone(server: PostgresServer) -> None:
    for file in server.data.parent.iterdir():
        if file.is_file():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


async def test_a_taken_port_is_named(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            await PostgresServer(folder / "postgres", port=port, fast=True).start()


async def test_a_second_server_on_the_same_folder_is_refused(server: PostgresServer) -> None:
    with pytest.raises(AlreadyRunning, match=f"process {server.pid}"):
        await PostgresServer(server.data, fast=True).start()
    assert await ask(server, "SELECT 1") == 1


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("owner", ["gone", "somebody else"])
async def test_a_stale_pid_file_is_replaced(server: PostgresServer, owner: str) -> None:
    await server.stop()
    pid = ended_process() if owner == "gone" else os.getpid()
    # The content PostgreSQL leaves when its machine loses power.
    stale = f"{pid}\n{server.data}\n1700000000\n{server.port}\n\n127.0.0.1\n  1234567         1\nready   \n"
    (server.data / "postmaster.pid").write_text(stale)
    shutil.chown(server.data / "postmaster.pid", server.data.owner(), server.data.group())
    await server.start()
    assert await ask(server, "SELECT 1") == 1


def is_begun(folder: Path) -> bool:
    return any(folder.glob("postgres*/*"))


async def test_a_full_disk_is_named_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROOM_NEEDED", 2**60)
    with pytest.raises(DiskFull, match="MB are free"):
        await PostgresServer(folder / "postgres", fast=True).start()
    assert not is_begun(folder)


def postmaster_of_a_killed_parent(folder: Path) -> int:
    program = (
        "import asyncio, pathlib, sys\n"
        "from deploy.local.postgres import PostgresServer\n"
        f"server = PostgresServer(pathlib.Path({str(folder / 'postgres')!r}), fast=True)\n"
        "asyncio.run(server.start())\n"
        "print(server.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    return pid


async def test_it_ends_with_the_process_that_started_it(folder: Path) -> None:
    pid = await asyncio.to_thread(postmaster_of_a_killed_parent, folder)

    async def has_ended() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    await until(has_ended, 15, "PostgreSQL did not end after its parent")


async def test_provisioning_twice_changes_nothing(server: PostgresServer) -> None:
    first = await provision(server)
    assert await provision(server) == first
    await log_in(first["ORDERS_DATABASE_URL"])
    await log_in(first["ORDERS_MIGRATION_DATABASE_URL"])


@pytest.fixture(scope="module")
def provisioned(environment: Mapping[str, str]) -> Mapping[str, str]:
    return environment


@pytest.mark.parametrize("name", NAMES)
async def test_an_application_role_owns_nothing_and_bypasses_nothing(
    provisioned: Mapping[str, str], postgres: PostgresServer, name: str
) -> None:
    assert provisioned[f"{name.upper()}_DATABASE_URL"] == postgres.url(database(name), app_role(name))
    connection = await postgres.connect(database(name))
    try:
        role = await connection.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", app_role(name))
        owned = await connection.fetchval(
            "SELECT count(*) FROM pg_shdepend WHERE refobjid = $1 AND deptype = 'o'", role["oid"]
        )
        owner = await connection.fetchval(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
        )
    finally:
        await connection.close()
    assert (role["rolsuper"], role["rolbypassrls"], role["rolcreaterole"], role["rolcreatedb"]) == (
        False,
    ) * 4
    assert owned == 0
    assert owner == OWNER


async def test_an_application_role_enters_its_own_database_only(
    provisioned: Mapping[str, str], postgres: PostgresServer
) -> None:
    assert "CATALOG_DATABASE_URL" in provisioned
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await log_in(postgres.url(database("keyring"), app_role("orders")))


async def test_a_dump_is_readable(provisioned: Mapping[str, str], postgres: PostgresServer) -> None:
    assert provisioned
    dump = await postgres.run("pg_dump", "--format=plain", database("orders"))
    assert b"PostgreSQL database dump complete" in dump


async def test_a_failing_program_says_why(postgres: PostgresServer) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        await postgres.run("pg_dump", "no_such_database")
    assert "no_such_database" in failure.value.__notes__[0]
