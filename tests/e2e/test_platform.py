"""The whole platform as `make run` starts it: ready, supervised, stopped in order, found again."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from deploy.local.child import DRAIN_WITHIN
from deploy.local.databases import provision
from deploy.local.environment import SERVICES
from deploy.local.errors import AlreadyRunning, PortTaken
from deploy.local.nursery import ROOT
from deploy.local.platform import Platform
from deploy.local.ports import free_port
from deploy.local.postgres import PostgresServer
from deploy.local.waiting import until

READY_WITHIN = 120

pytestmark = pytest.mark.usefixtures("nothing_of_the_platform_set")


@pytest.fixture(scope="module")
async def platform(folder: Path) -> AsyncIterator[Platform]:
    async with Platform(folder / "platform", fast=True) as platform:
        yield platform


async def test_every_service_is_ready_and_documented_behind_one_port(platform: Platform) -> None:
    async with httpx.AsyncClient(base_url=platform.url) as client:
        page = (await client.get("/")).text
        for service in SERVICES:
            assert (await client.get(f"/{service}/healthz/ready")).status_code == 200
            assert (await client.get(f"/{service}/openapi.json")).json()["openapi"].startswith("3.")
            assert f"/{service}/docs" in page


async def test_the_keyring_is_not_behind_the_public_port(platform: Platform) -> None:
    async with httpx.AsyncClient() as client:
        path = "/keyring/v1/keys/open"
        hidden = await client.post(platform.url + path, json={})
        # Its own port knows the path, and refuses who does not say who it is.
        direct = await client.post(platform.environment["KEYRING_URL"] + path, json={})
    assert hidden.status_code == 404
    assert direct.status_code == 401


async def test_a_second_platform_on_the_same_folder_or_port_is_refused(
    platform: Platform, folder: Path
) -> None:
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        async with Platform(platform.data):
            pass
    with pytest.raises(PortTaken, match=str(platform.port)):
        async with Platform(folder / "other", port=platform.port):
            pass


@pytest.fixture
async def operators_databases(folder: Path) -> AsyncIterator[Mapping[str, str]]:
    """Addresses on a server that is not of the tests' session: a platform writes all over its databases."""
    server = PostgresServer(folder / "theirs", fast=True)
    await server.start()
    yield await provision(server)
    await server.stop()


async def test_a_platform_on_an_operators_own_server_starts_none(
    folder: Path, operators_databases: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, url in operators_databases.items():
        monkeypatch.setenv(name, url)
    async with Platform(folder / "on theirs", fast=True) as platform:
        assert platform.postgres.pid is None and not platform.postgres.data.exists()
        orders = platform.processes["orders-worker"].environment
        assert {name for name in orders if name.endswith("_DATABASE_URL")} == {
            "BROKER_DATABASE_URL",
            "ORDERS_DATABASE_URL",
        }
        async with httpx.AsyncClient(base_url=platform.url) as client:
            page = await client.get("/identity/v1/stores/00000000-0000-4000-8000-000000000001")
    assert page.status_code == 200


async def test_what_dies_is_started_again_while_supervised(platform: Platform) -> None:
    victims = [platform.processes["orders-worker"], platform.processes["gateway"]]
    before = [victim.pid for victim in victims]
    supervising = asyncio.create_task(platform.supervise())
    try:
        for victim in victims:
            victim.kill()

        async def are_back() -> bool:
            return all(victim.pid and victim.pid not in before for victim in victims)

        await until(are_back, 30, "what was killed did not come back")
        await platform.ready()
    finally:
        supervising.cancel()
        await asyncio.gather(supervising, return_exceptions=True)


async def test_nothing_is_restarted_behind_a_fault_tests_back(platform: Platform) -> None:
    worker = platform.processes["billing-worker"]
    worker.kill()
    assert worker.pid is None
    await worker.restart()
    assert worker.pid


class Run:
    """`make run` as a process, its output read line by line."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: list[str] = []

    @classmethod
    @asynccontextmanager
    async def begin(cls, data: Path, port: int) -> AsyncGenerator["Run"]:
        own = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.local.run", f"--port={port}", f"--data={data}"),
            cwd=ROOT,
            env=own,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            yield cls(process)
        finally:
            # Its children end with it, so that a failing test leaves nothing behind.
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def says(self, words: str) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(READY_WITHIN):
            while line := (await self.process.stdout.readline()).decode():
                self.said.append(line)
                if words in line:
                    return line
        raise AssertionError("it ended without saying so:\n" + "".join(self.said))

    async def stop(self, wanted: signal.Signals) -> int:
        self.process.send_signal(wanted)
        await self.says("Stopped.")
        return await asyncio.wait_for(self.process.wait(), DRAIN_WITHIN + 20)


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [
        process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


async def test_make_run_stops_whole_and_finds_its_data_again(folder: Path) -> None:
    data, port = folder / "run", free_port()
    async with Run.begin(data, port) as first:
        await first.says("Ctrl-C stops everything")
        address = re.search(r"demo store\s+(http\S+/products)", "".join(first.said))
        assert address, first.said
        family = psutil.Process(first.process.pid).children(recursive=True)
        assert len(family) > len(SERVICES)

        async with Run.begin(data, free_port()) as second:
            assert f"process {first.process.pid}" in await second.says("already runs")
            assert await second.process.wait() == 1

        assert await first.stop(signal.SIGINT) == 0
        assert running(family) == []

    async with Run.begin(data, port) as again:
        await again.says("Ctrl-C stops everything")
        assert not any("filling" in line for line in again.said)
        async with httpx.AsyncClient() as client:
            assert (await client.get(address[1])).json()["items"]
        assert await again.stop(signal.SIGTERM) == 0


async def test_make_run_can_be_stopped_while_it_starts(folder: Path) -> None:
    async with Run.begin(folder / "early", free_port()) as run:
        await run.says("PostgreSQL")
        family = psutil.Process(run.process.pid).children(recursive=True)
        assert await run.stop(signal.SIGINT) == 0
        assert running(family) == []


async def test_make_run_says_that_the_port_is_taken(folder: Path) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port=free_port())
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with Run.begin(folder / "taken", port) as run:
            assert str(port) in await run.says("taken by another program")
            assert await run.process.wait() == 1
