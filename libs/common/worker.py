"""The second process of every service: relay, consumer and duties in one TaskGroup, and a watchdog over them.

On SIGTERM it stops polling, finishes what is in hand, commits, leaves the group and exits.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from libs.common import idempotency, inbox, outbox, telemetry
from libs.common.broker import RETENTION, Broker, BrokerError
from libs.common.broker.connect import connect
from libs.common.db import Database
from libs.common.errors import Unavailable
from libs.common.garbage import seldom_collect
from libs.common.inbox import Consumer, Handlers
from libs.common.listen import Listener
from libs.common.outbox import Relay
from libs.common.personal.vault import Vault
from libs.common.rest import rest
from libs.common.settings import ServiceSettings

logger = logging.getLogger(__name__)

STALLED_AFTER = 60.0
"""Seconds with records waiting and no progress after which liveness fails."""
_DRAIN_SECONDS = 20.0

_waiting = telemetry.meter.create_gauge("outbox.waiting", description="Events that were not sent yet.")
_age = telemetry.meter.create_gauge(
    "outbox.age", unit="s", description="Age of the oldest event that was not sent yet."
)
_lag = telemetry.meter.create_gauge(
    "consumer.lag", description="Records waiting in the partitions of this worker."
)
_parked = telemetry.meter.create_gauge("events.parked", description="Events that could not be handled.")


def now() -> datetime:
    """The clock of workers, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Work:
    """What duties and handlers of a worker have at hand. A duty asks `clock` for the time, which a test can move."""

    service: str
    settings: ServiceSettings
    database: Database
    broker: Broker
    vault: Vault
    http: httpx.AsyncClient
    clock: Callable[[], datetime] = now


@dataclass(frozen=True, slots=True)
class Duty:
    """Something a worker does again and again: `step` returns how much it did, and is called until that is 0.

    Then it waits for a NOTIFY on `channel`, if there is one, and at most `every`.
    """

    name: str
    step: Callable[[Work], Awaitable[int]]
    every: timedelta
    channel: str | None = None


class Worker:
    """Runs a service's consumer, relay and duties until told to stop."""

    def __init__(self, work: Work, *, handlers: Handlers, duties: Sequence[Duty] = ()) -> None:
        self._work = work
        self._relay = Relay(work.database, work.broker)
        self._consumer = Consumer(
            service=work.service, database=work.database, broker=work.broker, handlers=handlers
        )
        self._duties = [*_housekeeping(self._consumer), *duties]
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`, then drain; whatever does not end in time is cancelled, which loses nothing."""
        await self._work.broker.start()
        server = self._health_server()
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._relay.run(), name="relay"),
                tasks.create_task(self._consumer.run(), name="consumer"),
                *(tasks.create_task(self._perform(duty), name=duty.name) for duty in self._duties),
            ]
            if server is not None:
                running.append(tasks.create_task(server.serve(), name="health"))
            await self._stopping.wait()
            self._relay.stop()
            self._consumer.stop()
            if server is not None:
                server.should_exit = True
            _, late = await asyncio.wait(running, timeout=_DRAIN_SECONDS)
            for task in late:
                task.cancel()
        await self._work.broker.stop()

    def stop(self) -> None:
        """Begin to drain."""
        logger.info("worker stops", extra={"service": self._work.service})
        self._stopping.set()

    async def _perform(self, duty: Duty) -> None:
        async with contextlib.AsyncExitStack() as stack:
            channel = duty.channel or ""
            hints = (
                await stack.enter_async_context(Listener(self._work.database.url, channel))
                if channel
                else None
            )
            while not self._stopping.is_set():
                began = time.monotonic()
                more = await self._step(duty)
                await rest(began)
                if more:
                    continue
                if hints is not None:
                    await _either(hints.wait(duty.every.total_seconds()), self._stopping.wait())
                else:
                    await self._pause(duty.every.total_seconds())

    async def _step(self, duty: Duty) -> int:
        try:
            return await duty.step(self._work)
        except (Unavailable, BrokerError) as error:
            logger.warning("duty waits", extra={"topic": duty.name, "error": type(error).__name__})
            await self._pause(1.0)
        except Exception:
            # One duty's fault must not end the process that relays and consumes.
            logger.exception("duty failed", extra={"topic": duty.name})
            await self._pause(5.0)
        return 0

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _health_server(self) -> uvicorn.Server | None:
        if not self._work.settings.worker_port:
            return None

        async def live(_request: Request) -> JSONResponse:
            try:
                stalled = await self._consumer.stalled_for()
            except BrokerError:
                # A restart brings no broker back.
                stalled = 0.0
            status = 503 if stalled > STALLED_AFTER else 200
            return JSONResponse({"stalled_seconds": round(stalled, 1)}, status_code=status)

        app = Starlette(routes=[Route("/healthz/live", live)])
        config = uvicorn.Config(app, host="0.0.0.0", port=self._work.settings.worker_port, log_config=None)  # noqa: S104 - probed by the kubelet
        server = uvicorn.Server(config)
        # The worker drains on signals itself.
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        return server


async def _either(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


def _housekeeping(consumer: Consumer) -> list[Duty]:
    async def redrive(_work: Work) -> int:
        return await consumer.redrive()

    async def purge(work: Work) -> int:
        await outbox.purge(work.database)
        await inbox.purge(work.database)
        await idempotency.purge(work.database)
        await work.broker.purge(RETENTION)
        return 0

    async def measure(work: Work) -> int:
        if telemetry.is_kept():
            waiting, age = await outbox.backlog(work.database)
            _waiting.set(waiting)
            _age.set(age)
            _lag.set(await consumer.lag())
            _parked.set(await inbox.parked(work.database))
        return 0

    return [
        Duty("redrive", redrive, timedelta(seconds=1)),
        Duty("measure", measure, timedelta(seconds=5)),
        Duty("purge", purge, timedelta(hours=1)),
    ]


async def _serve(service: str, settings: ServiceSettings, handlers: Handlers, duties: Sequence[Duty]) -> None:
    async with httpx.AsyncClient(timeout=5) as http:
        database = Database(settings.database_url, pool_size=settings.database_pool_size)
        vault = Vault.connect(service=service, settings=settings, http=http)
        work = Work(service, settings, database, connect(settings), vault, http)
        worker = Worker(work, handlers=handlers, duties=duties)
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, worker.stop)
        async with vault.following(database.url):
            await worker.run()
        await database.close()


def main(service: str, settings: ServiceSettings, *, handlers: Handlers, duties: Sequence[Duty] = ()) -> None:
    """The whole of a service's `worker.py`."""
    telemetry.start(f"{service}-worker", level=settings.log_level)
    seldom_collect()
    with asyncio.Runner(loop_factory=_fast_loop) as runner:
        runner.run(_serve(service, settings, handlers, duties))


def _fast_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()
