"""`make bench`: measure everything on this machine, print a table, write `bench/results.json`.

Every figure stands beside the machine's own floor of the same run, so that what it comes to elsewhere can be told.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench import events, expiry, floors, processors, rights, shop
from bench.figures import Figure, Floor, show, write
from bench.people import ORDERS_EACH, Crowd, Person
from deploy.local.kafka import KafkaServer
from deploy.local.platform import Platform
from deploy.local.shop import CATALOGUE, Account, Shop
from libs.common.broker.kafka import KafkaBroker
from libs.common.broker.postgres import EmbeddedBroker
from libs.common.db import Database

SECTIONS = ("events", "shop", "rights", "expiry")
CROWDS = (10_000, 100_000)


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
    listed = await seller.call("GET", f"/catalog/v1/stores/{owner.store_id}/products", params={"limit": 60})
    variants: list[str] = []
    for item in listed["items"]:
        product = await seller.product(owner.store_id, item["handle"])
        variants += [one["id"] for one in product["variants"] if one["available"] > 10]
    handle = listed["items"][0]["handle"]
    return await asyncio.to_thread(shop.figures, platform.url, owner.store_id, handle, variants, floor)


async def measure_rights(
    platform: Platform, seller: Shop, owner: Account, crowds: Sequence[int], floor: Floor, *, quick: bool
) -> list[Figure]:
    """What people may ask, among few and among many."""
    listed = await seller.call("GET", f"/catalog/v1/stores/{owner.store_id}/products", params={"limit": 1})
    crowd = Crowd(platform.environment, UUID(owner.store_id), UUID(listed["items"][0]["id"]))
    office = rights.Office(
        url=platform.url,
        database_url=platform.environment["PRIVACY_DATABASE_URL"],
        store_id=UUID(owner.store_id),
    )
    asked = 0

    async def let_pass(right: str, how: str) -> None:
        path = f"/privacy/v1/stores/{owner.store_id}/settings"
        seen = await seller.http.get(path, headers=owner.headers)
        headers = owner.headers | {"If-Match": seen.headers["etag"]}
        await seller.call("PUT", path, json={"passing": {right: how}}, headers=headers, expect=204)

    def take(number: int) -> list[Person]:
        nonlocal asked
        asked += number
        return crowd.people[asked - number : asked]

    found: list[Figure] = []
    for size in crowds:
        print(f"  filling the store with {size:,} people …", flush=True)
        await crowd.grow_to(size)
        used = partial(processors.seconds, platform)
        found += await rights.figures(office, take, size, floor, used=used, let_pass=let_pass, quick=quick)
    return found


async def measure_expiry(platform: Platform, seller: Shop, owner: Account, orders: int) -> list[Figure]:
    """Many orders of a store are past their time at once, while others buy."""
    listed = await seller.call("GET", f"/catalog/v1/stores/{owner.store_id}/products", params={"limit": 60})
    variants: list[str] = []
    for item in listed["items"]:
        product = await seller.product(owner.store_id, item["handle"])
        variants += [one["id"] for one in product["variants"] if one["available"] > 10]
    crowd = Crowd(platform.environment, UUID(owner.store_id), UUID(listed["items"][0]["id"]))
    print(f"  filling the store with {orders:,} orders …", flush=True)
    await crowd.grow_to(orders // ORDERS_EACH, services=["orders"])
    return await expiry.figures(platform.url, platform.environment, UUID(owner.store_id), variants)


async def run(sections: Sequence[str], crowds: Sequence[int], *, quick: bool) -> list[Figure]:
    """Start a platform that trusts our key too, and measure what was asked for."""
    with tempfile.TemporaryDirectory(prefix="vitrine-bench-") as folder:
        platform = Platform(Path(folder) / "platform", report=print)
        with rights.key_set(platform.url) as os.environ["JWKS_URL"]:
            async with platform:
                return await measure(platform, Path(folder), sections, crowds, quick=quick)


async def measure(
    platform: Platform, folder: Path, sections: Sequence[str], crowds: Sequence[int], *, quick: bool
) -> list[Figure]:
    """The floors, and each section beside the one it is read against."""
    print("  the floors of this machine …", flush=True)
    route = await asyncio.to_thread(floors.route)
    query = await floors.query(platform.postgres.url("postgres"))
    commit = await floors.durable_commit(platform.postgres.url("postgres"))
    found = [Figure(f"floor: {floor.name}", floor.value, "1/s") for floor in (route, query, commit)]
    if "events" in sections:
        print("  events …", flush=True)
        found += await measure_events(platform, folder, query)
    async with a_store(platform.url) as (seller, owner):
        if "shop" in sections:
            print("  the shop …", flush=True)
            found += await measure_shop(platform, seller, owner, route)
        if "rights" in sections:
            print("  rights of people …", flush=True)
            found += await measure_rights(platform, seller, owner, crowds, commit, quick=quick)
        if "expiry" in sections:
            print("  a mass expiry …", flush=True)
            found += await measure_expiry(platform, seller, owner, 3_000 if quick else 100_000)
    return found


def main() -> None:
    """Print the table; write the file unless only a part was measured."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="section", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="fewer people and requests; writes nothing")
    options = parser.parse_args()
    sections = options.sections or SECTIONS
    found = asyncio.run(run(sections, (500,) if options.quick else CROWDS, quick=options.quick))
    print("\n" + show(found))
    if not options.quick and not options.sections:
        write(found)


if __name__ == "__main__":
    main()
