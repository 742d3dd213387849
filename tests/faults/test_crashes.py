"""`kill -9` at each named point loses nothing, doubles nothing and needs nobody to act."""

import asyncio
import random

from deploy.local.shop import Account
from tests.faults.conftest import PATIENCE, Running, becomes, burnt, ended
from tests.faults.crashing import POINTS
from tests.faults.load import load

SEED = 20_260_101
SERVICES = ("orders", "catalog", "privacy")
_PEOPLE = 2


async def test_workers_killed_at_every_point_lose_and_double_nothing(running: Running) -> None:
    print(f"seed {SEED}")
    people = [await running.person() for _ in range(_PEOPLE)]
    async with load(running), asyncio.TaskGroup() as tasks:
        crashing = [tasks.create_task(_through_all_points(running, service)) for service in SERVICES]
        for person in people:
            tasks.create_task(_use_rights(running, person, crashing))
    await running.holds()


async def _use_rights(running: Running, person: Account, crashing: list[asyncio.Task[None]]) -> None:
    """Ask for one's data again and again, and for its erasure in the end. Every request is completed."""
    while not all(task.done() for task in crashing):
        # Whoever is killed over it is given up after a silence that doubles, and the killing takes its time too.
        await running.ends((await running.ask(person, "access"))["id"], within=3 * PATIENCE)
    await running.ends((await running.ask(person, "erasure"))["id"])


async def _through_all_points(running: Running, service: str) -> None:
    """One worker after the other takes up what the one before it left; the last one stays."""
    chance = random.Random(f"{SEED} {service}")
    [normal] = running.processes(service)
    await normal.stop()
    for point in chance.sample(POINTS, len(POINTS)):
        times = chance.randint(1, 2) if point != "in-shutdown" else 1
        print(f"{service}: {point}, time {times}")
        worker = running.worker(service, point, times)
        await worker.start()
        if point == "in-shutdown":
            await _works(running, service)
            await worker.stop()
        await ended(worker)
        await burnt(worker, point)
    await normal.start()


async def _works(running: Running, service: str) -> None:
    """Wait until somebody handles events of the service."""
    number = "SELECT count(*) FROM effect"
    before = await running.databases.value(service, number)

    async def has_handled() -> bool:
        return await running.databases.value(service, number) > before

    await becomes(has_handled, f"{service} to handle events")
