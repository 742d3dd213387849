"""`make bench`: measure everything on this machine, print a table, write `bench/results.json`.

Every figure stands beside the machine's own floor of the same run, so that what it comes to elsewhere can be told.
"""

import argparse
import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench import events, expiry, floors, keyring, rights, shop, surge
from bench.figures import Figure, Floor, show, write
from bench.multitude import multiply
from bench.office import key_set
from bench.people import ORDERS_EACH, Crowd
from bench.town import Town
from deploy.local.environment import SERVICES
from deploy.local.kafka import KafkaServer
from deploy.local.platform import Platform
from deploy.local.shop import CATALOGUE, Account, Shop
from libs.common.broker.kafka import KafkaBroker
from libs.common.broker.postgres import EmbeddedBroker
from libs.common.db import Database

SECTIONS = ("events", "shop", "rights", "workers", "surge", "expiry")
CROWDS = (10_000, 100_000, 1_000_000)
_SETTLING_SECONDS = 30.0
_COPIES = 10
"""Of each order that expires: its keys need not open anything to be destroyed."""


@asynccontextmanager
async def a_store(url: str) -> AsyncGenerator[tuple[Shop, Account]]:
    """A store with the demo catalogue."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        seller = Shop(http)
        merchant = await seller.sign_up("bench@vitrine.example", name="Bench")
        owner = await seller.open_store(merchant, name="Bench", slug="bench")
        await seller.import_catalogue(owner, CATALOGUE.read_bytes())
        yield seller, owner


async def measure_events(platform: Platform, folder: Path, floor: Floor) -> list[Figure]:
    """Both brokers, over the outbox and inbox of a service that has nothing else to do."""
    environment = platform.environment
    await platform.processes["catalog-worker"].stop()
    database = Database(environment["CATALOG_DATABASE_URL"])
    found = [
        await events.figure(
            "embedded log", database, EmbeddedBroker(environment["BROKER_DATABASE_URL"]), floor
        )
    ]
    kafka = KafkaServer(folder / "kafka")
    await kafka.start()
    try:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        await admin.create_topics([NewTopic("bench.floor", 8, 1)])
        await admin.close()
        send = await floors.kafka_send(kafka.bootstrap_servers)
        found.append(
            await events.figure("Apache Kafka", database, KafkaBroker(kafka.bootstrap_servers), send)
        )
    finally:
        await kafka.stop()
        await database.close()
    await platform.processes["catalog-worker"].start()
    return found


async def measure_shop(platform: Platform, seller: Shop, owner: Account, floor: Floor) -> list[Figure]:
    """What visitors do."""
    listed, variants = await _offered(seller, owner)
    handle = listed[0]["handle"]
    return await asyncio.to_thread(shop.figures, platform.url, owner.store_id, handle, variants, floor)


async def _offered(seller: Shop, owner: Account) -> tuple[list[Any], list[str]]:
    """Some products, and variants of theirs that will not be sold out."""
    listed = await seller.call("GET", f"/catalog/v1/stores/{owner.store_id}/products", params={"limit": 60})
    variants: list[str] = []
    for item in listed["items"]:
        product = await seller.product(owner.store_id, item["handle"])
        variants += [one["id"] for one in product["variants"] if one["available"] > 10]
    return listed["items"], variants


async def measure_rights(
    platform: Platform, seller: Shop, owner: Account, crowds: Sequence[int], floor: Floor, *, quick: bool
) -> list[Figure]:
    """What people may ask, among few and among many, and the keys that it takes."""
    town = await Town.of(platform, seller, owner)
    found: list[Figure] = []
    for size in crowds:
        await town.grow_to(size)
        measured = await rights.figures(town, f"among {size:,} people, {platform.broker}", floor, quick=quick)
        if platform.broker == "embedded":
            measured += await keyring.figures(town, floor)
        print(show(measured), flush=True)
        found += measured
    return found


async def measure_workers(
    platform: Platform, seller: Shop, owner: Account, people: int, floor: Floor, *, quick: bool
) -> list[Figure]:
    """The same with one worker of each service, with two and with four, on the cores that there are."""
    town = await Town.of(platform, seller, owner)
    await town.grow_to(people)
    found: list[Figure] = []
    for number in (1, 2, 4):
        await _work_with(platform, number)
        found += await rights.loaded(town, f"with {number} workers of each service", floor, quick=quick)
    return found


async def _work_with(platform: Platform, number: int) -> None:
    for service in SERVICES:
        for another in range(2, number + 1):
            name = f"{service}-worker-{another}"
            if name not in platform.processes:
                await platform.add(name, f"services.{service}.worker", (service,)).start()


async def measure_surge(
    platform: Platform, seller: Shop, owner: Account, people: int, floor: Floor
) -> list[Figure]:
    """Everybody of a store asks for their data at once, while others buy."""
    town = await Town.of(platform, seller, owner)
    await town.grow_to(people)
    await town.let_pass("access", "at-once")
    _, variants = await _offered(seller, owner)
    return await surge.figures(
        platform.url,
        town.office,
        "access",
        town.take(people),
        store=owner.store_id,
        variants=variants,
        floor=floor,
    )


async def measure_expiry(platform: Platform, seller: Shop, owner: Account, orders: int) -> list[Figure]:
    """Many orders of a store are past their time at once, while others buy."""
    _, variants = await _offered(seller, owner)
    crowd = Crowd(platform.environment, UUID(owner.store_id), UUID(variants[0]))
    print(f"  filling the store with {orders:,} orders …", flush=True)
    people = orders // ORDERS_EACH // _COPIES
    await crowd.grow_to(people, services=["orders"])
    await multiply(platform.postgres, UUID(owner.store_id), people, _COPIES)
    # What was filled is still on its way to the disk, and would make what is compared with look slow.
    await asyncio.sleep(_SETTLING_SECONDS)
    return await expiry.figures(platform.url, platform.environment, UUID(owner.store_id), variants)


@asynccontextmanager
async def a_platform(folder: Path, broker: str = "embedded") -> AsyncGenerator[Platform]:
    """A platform of its own that trusts our key too, and leaves nothing: a million people take forty gigabytes."""
    platform = Platform(folder, broker=broker, report=print)
    with key_set(platform.url) as os.environ["JWKS_URL"]:
        async with platform:
            yield platform
    shutil.rmtree(folder)


async def run(
    sections: Sequence[str],
    crowds: Sequence[int],
    *,
    quick: bool,
    keep: Callable[[str, Sequence[Figure]], None],
) -> list[Figure]:
    """The floors of the machine, and each section in a store of its own, beside the floor that it is read against.

    Each is kept as soon as it is measured, with the floors: all of it takes an hour.
    """
    with tempfile.TemporaryDirectory(prefix="vitrine-bench-") as folder:
        found: list[Figure] = []
        async with a_platform(Path(folder) / "platform") as platform:
            print("  the floors of this machine …", flush=True)
            route = await asyncio.to_thread(floors.route)
            query = await floors.query(platform.postgres.url("postgres"))
            commit = await floors.durable_commit(platform.postgres.url("postgres"))
            bare = [Figure(f"floor: {floor.name}", floor.value, "1/s") for floor in (route, query, commit)]

            def measured(section: str, figures: Sequence[Figure]) -> None:
                found.extend(figures)
                keep(section, [*bare, *figures])

            if "events" in sections:
                print("  events …", flush=True)
                measured("events", await measure_events(platform, Path(folder), query))
            async with a_store(platform.url) as (seller, owner):
                if "shop" in sections:
                    print("  the shop …", flush=True)
                    measured("shop", await measure_shop(platform, seller, owner, route))
                if "expiry" in sections:
                    print("  a mass expiry …", flush=True)
                    orders = 3_000 if quick else 100_000
                    measured("expiry", await measure_expiry(platform, seller, owner, orders))
        few = crowds[0]
        for name, broker, measure in (
            ("rights", "embedded", partial(measure_rights, crowds=crowds, quick=quick)),
            ("rights", "kafka", partial(measure_rights, crowds=crowds, quick=quick)),
            ("workers", "embedded", partial(measure_workers, people=few, quick=quick)),
            ("surge", "embedded", partial(measure_surge, people=few)),
        ):
            if name in sections:
                print(f"  {name}, {broker} …", flush=True)
                async with (
                    a_platform(Path(folder) / f"{name}-{broker}", broker) as platform,
                    a_store(platform.url) as (seller, owner),
                ):
                    measured(f"{name}, {broker}", await measure(platform, seller, owner, floor=commit))
    return [*bare, *found]


def main() -> None:
    """Print the table; write what was measured at full length."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="section", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="fewer people and requests; writes nothing")
    parser.add_argument(
        "--people",
        type=int,
        nargs="+",
        default=CROWDS,
        metavar="number",
        help="how many a store has, rising; others than by default write nothing",
    )
    options = parser.parse_args()
    sections, crowds = options.sections or SECTIONS, (1_000, 2_000) if options.quick else options.people
    keep = write if not options.quick and tuple(crowds) == CROWDS else _forget
    found = asyncio.run(run(sections, crowds, quick=options.quick, keep=keep))
    print("\n" + show(found))


def _forget(_section: str, _found: Sequence[Figure]) -> None:
    """What was measured over fewer is no result."""


if __name__ == "__main__":
    main()
