"""The whole platform on one machine, as real processes: `make run`, the demo, tests and benches all use it."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import httpx

from deploy.local import environment
from deploy.local.child import Child
from deploy.local.databases import provision
from deploy.local.environment import SERVICES
from deploy.local.errors import DiskFull, PortTaken, StartError
from deploy.local.kafka import KafkaServer
from deploy.local.lock import locked
from deploy.local.nursery import ROOT, Nursery
from deploy.local.ports import free_port, is_free
from deploy.local.postgres import PostgresServer
from deploy.local.revisions import all_at_head
from deploy.local.waiting import until

ROOM_NEEDED = 300 * 2**20  # bytes
READY_WITHIN = 60  # seconds
MIGRATED_WITHIN = 600  # seconds

Report = Callable[[str], None]


class Restartable(Protocol):
    """What the supervisor watches."""

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        ...

    async def start(self) -> None:
        """Start it unless it runs."""
        ...


class Platform:
    """PostgreSQL, the keyring, the five services behind one port, a worker each and a mailbox, all in `data`.

        async with Platform(folder) as platform:
            httpx.get(platform.url)
            platform.processes["orders-worker"].kill()

    `processes` are `gateway`, `keyring` and `{service}-worker`; none is restarted unless `supervise` runs. A
    variable of the environment (a database, `KAFKA_BOOTSTRAP_SERVERS`, `KEYRING_URL`, `SMTP_URL`) replaces the
    part it names. `fast` gives up durability against a crash of the machine, for tests.
    """

    def __init__(
        self,
        data: Path,
        port: int | None = None,
        broker: str = "embedded",
        fast: bool = False,
        report: Report = lambda _line: None,
    ) -> None:
        self.data = data.absolute()
        self.port = port or free_port()
        self.broker = broker
        self.environment: dict[str, str] = {}
        self.processes: dict[str, Child] = {}
        self.demo_store = self.data / "demo-store.txt"
        self.fast = fast
        self.postgres = PostgresServer(self.data / "postgres", fast=fast)
        self.kafka: KafkaServer | None = None
        self._nursery = Nursery(self.data / "logs" / "nursery.log")
        self._report = report
        self._running = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where the platform is reached."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        """Start everything and wait until every service is ready. Raises StartError."""
        async with AsyncExitStack() as starting:
            starting.enter_context(locked(self.data))
            self._check_machine()
            (self.data / "logs").mkdir(mode=0o700, exist_ok=True)
            starting.push_async_callback(self._nursery.stop)
            self._nursery.start()
            await _together(self._start_databases(starting), self._start_broker(starting))
            await self._start_processes(starting)
            self._running = starting.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drain every process, then stop the broker, PostgreSQL last."""
        await self._running.aclose()

    async def ready(self, within: float = READY_WITHIN) -> None:
        """Wait until every service answers that it is ready. Raises StartError when a process ends instead."""
        async with httpx.AsyncClient(base_url=self.url, timeout=5) as client:

            async def all_ready() -> bool:
                self._check_alive()
                try:
                    answers = [await client.get(f"/{service}/healthz/ready") for service in SERVICES]
                except httpx.HTTPError:
                    return False
                return all(answer.status_code == 200 for answer in answers)

            await until(all_ready, within, "the services were not ready")

    async def supervise(self) -> None:
        """Restart what dies, with growing pauses, until cancelled."""
        parts: dict[str, Restartable] = dict(self.processes)
        if self.postgres.pid is not None:
            parts["PostgreSQL"] = self.postgres
        if self.kafka is not None:
            parts["Apache Kafka"] = self.kafka
        async with asyncio.TaskGroup() as tasks:
            for name, part in parts.items():
                tasks.create_task(self._keep_alive(name, part))

    def _check_machine(self) -> None:
        if self.broker not in ("embedded", "kafka"):
            raise StartError(f"BROKER is embedded or kafka, not {self.broker}.")
        free = shutil.disk_usage(self.data).free
        if free < ROOM_NEEDED:
            raise DiskFull(
                f"{ROOM_NEEDED // 2**20} MB are needed in {self.data}; {free // 2**20} MB are free."
            )
        if not is_free(self.port):
            raise PortTaken(self.port)

    async def _start_databases(self, starting: AsyncExitStack) -> None:
        addresses: Mapping[str, str] = {}
        if environment.needs_postgres():
            with self._step("PostgreSQL 18"):
                starting.push_async_callback(self.postgres.stop)
                await self.postgres.start()
                addresses = await provision(self.postgres)
        self.environment |= environment.complete(addresses)
        with self._step("databases up to date"):
            if not await all_at_head(self.environment):
                await self._migrate()

    async def _migrate(self) -> None:
        """In a process of its own, which imports Alembic while the nursery imports the rest."""
        migrating = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.local.migrate"),
            cwd=ROOT,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            words, _ = await asyncio.wait_for(migrating.communicate(), MIGRATED_WITHIN)
        finally:
            if migrating.returncode is None:
                migrating.kill()
        if migrating.returncode:
            raise StartError(
                f"The databases could not be migrated:\n{words.decode(errors='replace').strip()[-2000:]}"
            )

    async def _start_broker(self, starting: AsyncExitStack) -> None:
        self.environment["BROKER"] = self.broker
        if self.broker == "embedded":
            return
        if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
            self.environment["KAFKA_BOOTSTRAP_SERVERS"] = servers
            return
        self.kafka = KafkaServer(self.data / "kafka", fast=self.fast)
        with self._step("Apache Kafka"):
            starting.push_async_callback(self.kafka.stop)
            await self.kafka.start()
        self.environment["KAFKA_BOOTSTRAP_SERVERS"] = self.kafka.bootstrap_servers

    async def _start_processes(self, starting: AsyncExitStack) -> None:
        keyring_port, smtp_port = free_port(), free_port()
        self.environment |= environment.complete(
            {
                **environment.keys(self.data),
                "PUBLIC_URL": self.url,
                "KEYRING_URL": f"http://127.0.0.1:{keyring_port}",
                "SMTP_URL": f"smtp://127.0.0.1:{smtp_port}",
            }
        )
        if "KEYRING_URL" not in os.environ:
            owners = ("keyring", "destructions")
            self.add("keyring", "deploy.local.keyring", owners, f"--port={keyring_port}")
        own_mail = (f"--mailbox={self.data / 'mailbox'}", f"--smtp-port={smtp_port}")
        mail = () if "SMTP_URL" in os.environ else own_mail
        arguments = (f"--port={self.port}", f"--demo-store={self.demo_store}", *mail)
        self.add("gateway", "deploy.local.gateway", SERVICES, *arguments)
        for service in SERVICES:
            self.add(f"{service}-worker", f"services.{service}.worker", (service,))

        starting.push_async_callback(self._drain)
        with self._step(f"{len(SERVICES)} services, {len(self.processes)} processes"):
            for process in self.processes.values():
                await process.start()
            await self.ready()

    def add(self, name: str, module: str, owners: tuple[str, ...], *arguments: str) -> Child:
        """One more process, which is not started yet: it gets what these owners need, and no secret of another."""
        self.processes[name] = Child(
            self._nursery,
            name,
            module,
            *arguments,
            environment=environment.for_process(self.environment, owners),
            log=self.data / "logs" / f"{name}.log",
        )
        return self.processes[name]

    async def _drain(self) -> None:
        """Stop all at once but the keyring, which the others need until they have finished."""
        last = [process for name, process in self.processes.items() if name == "keyring"]
        first = [process for name, process in self.processes.items() if name != "keyring"]
        await asyncio.gather(*(process.stop() for process in first))
        await asyncio.gather(*(process.stop() for process in last))

    def _check_alive(self) -> None:
        for process in self.processes.values():
            if process.pid is None:
                raise StartError(f"{process.name} ended at once: {process.last_words()}\nSee {process.log}")

    async def _keep_alive(self, name: str, part: Restartable) -> None:
        pause, started = 0.5, time.monotonic()
        while True:
            await asyncio.sleep(0.2)
            if part.pid is not None:
                continue
            pause = 0.5 if time.monotonic() - started > 60 else min(pause * 2, 30)
            self._report(f"{name} ended unexpectedly; it is started again in {pause:g} s")
            await asyncio.sleep(pause)
            try:
                await part.start()
            except (StartError, TimeoutError) as error:
                self._report(str(error))
            started = time.monotonic()

    @contextmanager
    def _step(self, what: str) -> Generator[None]:
        begin = time.monotonic()
        yield
        self._report(f"{what:<34} {time.monotonic() - begin:5.1f} s")


async def _together(*steps: Coroutine[Any, Any, None]) -> None:
    """Run the steps at once; the first failure ends the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for step in steps:
                tasks.create_task(step)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
